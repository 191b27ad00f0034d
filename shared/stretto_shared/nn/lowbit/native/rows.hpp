// Rows of floats as integers: int8 with one scale a row, exact to sum in any order.
#pragma once
#include <cstdint>
#include <cstring>
#include <immintrin.h>

#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi")))

namespace stretto {

constexpr int kLanes = 16, kGroup = 32;
constexpr float kLeastMagnitude = 1e-30f;  // a row below it is nought: 127 / magnitude would leave the range of floats
constexpr int32_t kInfinityBits = 0x7f800000;

inline int64_t padded(int64_t size, int64_t to) { return (size + to - 1) / to * to; }

inline __mmask16 lanes_of(int64_t left) { return left >= kLanes ? 0xffff : left <= 0 ? 0 : (1u << left) - 1; }

inline VNNI __m512i magnitude_bits(__m512i bits) { return _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff)); }

// The largest of magnitudes by their bits; NaN if there is an infinity or a NaN.
inline VNNI float magnitude_in(__m512i bits) {
  const int32_t largest_bits = _mm512_reduce_max_epi32(bits);
  float magnitude;
  std::memcpy(&magnitude, &largest_bits, 4);
  return largest_bits < kInfinityBits ? magnitude : __builtin_nanf("");
}

// Largest magnitude of x [size]; NaN if there is an infinity or a NaN.
inline VNNI float magnitude_of(const float* x, int64_t size) {
  __m512i largest = _mm512_setzero_si512();
  for (int64_t i = 0; i < size; i += kLanes)
    largest = _mm512_max_epi32(largest, magnitude_bits(_mm512_maskz_loadu_epi32(lanes_of(size - i), x + i)));
  return magnitude_in(largest);
}

// The scale of a row of integers, and their sum.
struct Quantised {
  float scale;
  int32_t sum;
};

// Writes the integers of x [size] to `line`; what `line` has beyond stays as it is. A row with an infinity or NaN has the
// scale NaN and noughts, so that all of its results are NaN.
inline VNNI Quantised quantise(const float* x, int64_t size, int8_t* line) {
  const float magnitude = magnitude_of(x, size);
  if (!(magnitude >= kLeastMagnitude)) {
    std::memset(line, 0, size);
    return {magnitude < kLeastMagnitude ? 0.0f : magnitude, 0};
  }
  const __m512 factor = _mm512_set1_ps(127.0f / magnitude);
  __m512i sum = _mm512_setzero_si512();
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {  // stored whole: what a masked store wrote is read only when it is in the cache
    const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), factor));
    sum = _mm512_add_epi32(sum, rounded);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(line + i), _mm512_cvtepi32_epi8(rounded));
  }
  if (i < size) {
    const __mmask16 mask = lanes_of(size - i);
    const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), factor));
    sum = _mm512_add_epi32(sum, rounded);
    _mm_mask_storeu_epi8(line + i, mask, _mm512_cvtepi32_epi8(rounded));
  }
  return {magnitude / 127.0f, _mm512_reduce_add_epi32(sum)};
}

inline VNNI __m512i word_of(const int8_t* q) {
  int32_t word;
  std::memcpy(&word, q, 4);
  return _mm512_set1_epi32(word);
}

}  // namespace stretto
