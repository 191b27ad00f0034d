// Sums, exponentials, GELU and layer norm whose every rounding is stated, so that `reference.py` gives the same bytes: no
// fused multiply-adds, and sums by halving: the upper half is added to the lower until one number is left.
#pragma once
#include "rows.hpp"

namespace stretto {

inline int64_t power_of_two(int64_t size) {
  int64_t result = kLanes;
  while (result < size) result *= 2;
  return result;
}

inline VNNI float halved(__m512 v) {
  const __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1));
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

// Sum of `size` floats, a power of two of 16 or more; what they were is lost.
inline VNNI float halving_sum(float* v, int64_t size) {
  for (int64_t half = size / 2; half >= kLanes; half /= 2)
    for (int64_t i = 0; i < half; i += kLanes)
      _mm512_storeu_ps(v + i, _mm512_add_ps(_mm512_loadu_ps(v + i), _mm512_loadu_ps(v + half + i)));
  return halved(_mm512_loadu_ps(v));
}

inline VNNI __m512 add(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
inline VNNI __m512 mul(__m512 a, __m512 b) { return _mm512_mul_ps(a, b); }
inline VNNI __m512 all(float value) { return _mm512_set1_ps(value); }

// e^x for x of at most 0, from -87 on: 2^n times a polynomial (Cephes' expf) of what is left.
inline VNNI __m512 exp_of(__m512 x) {
  x = _mm512_max_ps(x, all(-87.0f));
  const __m512 n = _mm512_roundscale_ps(mul(x, all(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(_mm512_sub_ps(x, mul(n, all(0.693359375f))), mul(n, all(-2.12194440e-4f)));
  __m512 p = all(1.9875691500e-4f);
  p = add(mul(p, r), all(1.3981999507e-3f));
  p = add(mul(p, r), all(8.3334519073e-3f));
  p = add(mul(p, r), all(4.1665795894e-2f));
  p = add(mul(p, r), all(1.6666665459e-1f));
  p = add(mul(p, r), all(5.0000001201e-1f));
  p = add(add(mul(mul(p, r), r), r), all(1.0f));
  const __m512i power = _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23);
  return mul(p, _mm512_castsi512_ps(power));
}

// GELU by the complementary error function of Abramowitz and Stegun 7.1.26: within 2e-7 of it.
inline VNNI __m512 gelu_of(__m512 x) {
  const __m512 magnitude = _mm512_abs_ps(x);
  const __m512 z = mul(magnitude, all(0.70710678f));
  const __m512 t = _mm512_div_ps(all(1.0f), add(all(1.0f), mul(all(0.3275911f), z)));
  __m512 p = all(1.061405429f);
  p = add(mul(p, t), all(-1.453152027f));
  p = add(mul(p, t), all(1.421413741f));
  p = add(mul(p, t), all(-0.284496736f));
  p = add(mul(p, t), all(0.254829592f));
  p = mul(mul(p, t), exp_of(_mm512_sub_ps(_mm512_setzero_ps(), mul(z, z))));
  const __m512 tail = mul(mul(all(0.5f), magnitude), p);
  const __mmask16 is_negative = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
  return _mm512_mask_sub_ps(_mm512_sub_ps(x, tail), is_negative, _mm512_setzero_ps(), tail);
}

// Layer norm of x [size] into `out` [size]; `scratch` holds power_of_two(size) floats.
inline VNNI void layer_norm(const float* x, int64_t size, const float* scale, const float* shift, float eps, float* out,
                            float* scratch) {
  const int64_t room = power_of_two(size);
  const float count = static_cast<float>(size);
  std::memcpy(scratch, x, size * 4);
  std::memset(scratch + size, 0, (room - size) * 4);
  const __m512 mean = all(halving_sum(scratch, room) / count);
  std::memset(scratch + size, 0, (room - size) * 4);
  for (int64_t i = 0; i < size; i += kLanes) {
    const __mmask16 mask = lanes_of(size - i);
    const __m512 centred = _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), mean);
    _mm512_mask_storeu_ps(out + i, mask, centred);
    _mm512_mask_storeu_ps(scratch + i, mask, mul(centred, centred));
  }
  const float variance = halving_sum(scratch, room) / count + eps;
  const __m512 inverse = _mm512_div_ps(all(1.0f), _mm512_sqrt_ps(all(variance)));
  for (int64_t i = 0; i < size; i += kLanes) {
    const __mmask16 mask = lanes_of(size - i);
    const __m512 unit = mul(_mm512_maskz_loadu_ps(mask, out + i), inverse);
    const __m512 scaled = mul(unit, _mm512_maskz_loadu_ps(mask, scale + i));
    _mm512_mask_storeu_ps(out + i, mask, add(scaled, _mm512_maskz_loadu_ps(mask, shift + i)));
  }
}

}  // namespace stretto
