// Weights as integers of four bits: the search of `formats.py`, to the bit, at the speed of memory.
#pragma once
#include "numerics.hpp"

namespace stretto {

constexpr float kShrinkings[] = {1.0f, 0.94f, 0.88f, 0.82f, 0.76f, 0.7f};
constexpr float kLeastInt4 = -8.0f, kMostInt4 = 7.0f, kMostMultiplier = 31.0f;

struct Int4Row {
  int8_t* values;        // [groups * 32]
  uint8_t* multipliers;  // [groups]
};

inline VNNI __m512 rounded(__m512 x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

inline VNNI float nearest(float x) { return _mm_cvtss_f32(_mm_round_ss(_mm_setzero_ps(), _mm_set_ss(x), 8)); }

inline VNNI __m512 int4_of(__m512 w, __m512 step) {
  return _mm512_min_ps(_mm512_max_ps(rounded(_mm512_div_ps(w, step)), all(kLeastInt4)), all(kMostInt4));
}

// One row x [inputs]; returns its scale.
inline VNNI float quantise_int4(const float* x, int64_t inputs, const Int4Row& to) {
  const int64_t groups = (inputs + kGroup - 1) / kGroup;
  float largest = 0;
  for (int64_t i = 0; i < inputs; i += kLanes) {
    const __m512 magnitude = _mm512_abs_ps(_mm512_maskz_loadu_ps(lanes_of(inputs - i), x + i));
    const float here = _mm512_reduce_max_ps(magnitude);
    largest = here > largest ? here : largest;
  }
  const float scale = largest / (kMostInt4 * kMostMultiplier);
  const float safe = scale > kLeastMagnitude ? scale : kLeastMagnitude;
  for (int64_t group = 0; group < groups; ++group) {
    const float* from = x + group * kGroup;
    const int64_t left = inputs - group * kGroup;
    const __m512 low = _mm512_maskz_loadu_ps(lanes_of(left), from);
    const __m512 high = _mm512_maskz_loadu_ps(lanes_of(left - kLanes), left > kLanes ? from + kLanes : from);
    const float magnitude = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
    const float ideal = magnitude / (kMostInt4 * safe);
    float best_error = __builtin_inff(), best = 1;
    for (const float shrinking : kShrinkings) {
      float tried = nearest(ideal * shrinking);
      tried = tried < 1 ? 1 : tried > kMostMultiplier ? kMostMultiplier : tried;
      const __m512 step = all(tried * scale), divisor = _mm512_max_ps(step, all(kLeastMagnitude));
      const __m512 low_off = _mm512_sub_ps(mul(int4_of(low, divisor), step), low);
      const __m512 high_off = _mm512_sub_ps(mul(int4_of(high, divisor), step), high);
      const float error = halved(add(mul(low_off, low_off), mul(high_off, high_off)));
      if (error < best_error) best_error = error, best = tried;
    }
    const __m512 divisor = _mm512_max_ps(all(best * scale), all(kLeastMagnitude));
    int8_t* values = to.values + group * kGroup;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(values), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(int4_of(low, divisor))));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(values + kLanes),
                     _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(int4_of(high, divisor))));
    to.multipliers[group] = static_cast<uint8_t>(best);
  }
  return scale;
}

}  // namespace stretto
