// The search of `codebooks.py`'s `choose`, to the bit, at the speed of memory.
#pragma once
#include "codebooks.hpp"
#include "numerics.hpp"

namespace stretto {

struct Levels {
  __m512 levels, between[kLevels - 1];  // every level; what lies half way to the next, in all lanes
};

inline VNNI void load_levels(Levels (&to)[kCodebooks]) {
  for (int book = 0; book < kCodebooks; ++book) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kTable[book]));
    to[book].levels = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
    for (int at = 0; at + 1 < kLevels; ++at)
      to[book].between[at] = all((static_cast<float>(kTable[book][at + 1]) + kTable[book][at]) / 2.0f);
  }
}

inline VNNI __m512i place_of(__m512 x, const Levels& book) {
  __m512i place = _mm512_setzero_si512();
  const __m512i one = _mm512_set1_epi32(1);
  for (const __m512& limit : book.between)
    place = _mm512_mask_add_epi32(place, _mm512_cmp_ps_mask(limit, x, _CMP_LT_OQ), place, one);
  return place;
}

// One group of 32 numbers in units of the levels; returns its codebook and writes the places.
inline VNNI uint8_t choose_codebook(const float* x, const Levels (&books)[kCodebooks], uint8_t* places) {
  const __m512 low = _mm512_loadu_ps(x), high = _mm512_loadu_ps(x + kLanes);
  __m512i best_low = _mm512_setzero_si512(), best_high = best_low;
  float best_error = __builtin_inff();
  int best = 0;
  for (int book = 0; book < kCodebooks; ++book) {
    const __m512i low_place = place_of(low, books[book]), high_place = place_of(high, books[book]);
    const __m512 low_off = _mm512_sub_ps(_mm512_permutexvar_ps(low_place, books[book].levels), low);
    const __m512 high_off = _mm512_sub_ps(_mm512_permutexvar_ps(high_place, books[book].levels), high);
    const float error = halved(add(mul(low_off, low_off), mul(high_off, high_off)));
    if (error < best_error) best_error = error, best = book, best_low = low_place, best_high = high_place;
  }
  _mm_storeu_si128(reinterpret_cast<__m128i*>(places), _mm512_cvtepi32_epi8(best_low));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(places + kLanes), _mm512_cvtepi32_epi8(best_high));
  return static_cast<uint8_t>(best);
}

}  // namespace stretto
