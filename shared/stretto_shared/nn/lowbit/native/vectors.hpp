// bfloat16 in AVX-512: rounding and widening, ELU, and whether a processor multiplies it so or in tiles.
#pragma once
#include <cpuid.h>

#include "numerics.hpp"
#include "tiles.hpp"

#define VECTORS __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx512bf16")))

namespace stretto {

// What multiplies rows of bfloat16. The two round sums in another order, so that their bytes differ.
enum class Bands { none = 0, tiles = 1, vectors = 2 };

inline bool has_vectors() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & 1u << 17)) return false;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 5);
}

inline bool has_tiles() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & 1u << 22);
}

// The processor is asked once: a virtual one takes microseconds to answer.
inline Bands bands() {
  static const bool found_vectors = has_vectors(), found_tiles = has_tiles();
  if (!found_vectors) return Bands::none;
#ifdef STRETTO_TILES
  if (found_tiles && tiles_allowed()) return Bands::tiles;
#endif
  return Bands::vectors;
}

inline VECTORS __m512 widened(const uint16_t* x) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

inline VECTORS void put_rounded(uint16_t* to, __m512 x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)));
}

// e^x: 2^n times a polynomial of the rest, by fused multiply-adds; within 3e-7 of it.
inline VECTORS __m512 power_of(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(mul(x, all(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_fmsub_ps(x, all(1.44269504f), n);
  __m512 p = all(1.32186725e-03f);
  p = _mm512_fmadd_ps(p, r, all(9.67169794e-03f));
  p = _mm512_fmadd_ps(p, r, all(5.55089295e-02f));
  p = _mm512_fmadd_ps(p, r, all(2.40222380e-01f));
  p = _mm512_fmadd_ps(p, r, all(6.93146856e-01f));
  p = _mm512_fmadd_ps(p, r, all(1.0f));
  return _mm512_scalef_ps(p, n);
}

// Within what bfloat16 tells apart: x itself where e^x - 1 would lose it. Half of what a codec does at its sample rate is
// this.
inline VECTORS __m512 elu_of(__m512 x) {
  const __m512 below = _mm512_max_ps(x, all(-87.0f));
  const __m512 value = _mm512_sub_ps(power_of(below), all(1.0f));
  return _mm512_mask_mov_ps(x, _mm512_cmp_ps_mask(x, all(-0x1p-10f), _CMP_LT_OQ), value);
}

}  // namespace stretto
