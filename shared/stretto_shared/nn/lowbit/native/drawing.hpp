// Draws of tokens, as `engine/sampling.py` says: the largest of `logit / temperature + Gumbel noise` among the entries that
// top-k leaves, equal logits by their index. Logarithms may differ from numpy's in their last bits, so a draw that such bits
// could decide, or whose logits are not finite enough to compare, is not made here: the token is -1, and numpy draws it.
#pragma once
#include <cmath>
#include <vector>

#include "rows.hpp"

namespace stretto {

constexpr double kSureMargin = 1e-9;  // of two scores' distance, and that much of their size: far more than logarithms err

struct ToDraw {
  const float* logits;
  uint64_t seed, stage;
  int64_t frame, codebook, num_kept;
  double temperature;
};

// splitmix64.
inline uint64_t mixed(uint64_t word) {
  word += 0x9E3779B97F4A7C15u;
  word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9u;
  word = (word ^ word >> 27) * 0x94D049BB133111EBu;
  return word ^ word >> 31;
}

inline uint64_t key_of(const ToDraw& row) {
  const uint64_t key = mixed(mixed(mixed(row.seed) ^ row.stage) ^ static_cast<uint64_t>(row.frame));
  return mixed(key ^ static_cast<uint64_t>(row.codebook));
}

// Logarithms to within 1e-13 of them, of numbers above nought.
inline VNNI __m512d log_of(__m512d x) {
  const __m512d mantissa = _mm512_getmant_pd(x, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_src);
  const __m512d exponent = _mm512_getexp_pd(_mm512_div_pd(x, mantissa));
  const __m512d one = _mm512_set1_pd(1.0);
  const __m512d s = _mm512_div_pd(_mm512_sub_pd(mantissa, one), _mm512_add_pd(mantissa, one));  // at most a fifth
  const __m512d z = _mm512_mul_pd(s, s);
  __m512d p = _mm512_set1_pd(1.0 / 19);
  for (int odd = 17; odd > 0; odd -= 2) p = _mm512_add_pd(_mm512_mul_pd(p, z), _mm512_set1_pd(1.0 / odd));
  return _mm512_add_pd(_mm512_mul_pd(exponent, _mm512_set1_pd(0.69314718055994531)),
                       _mm512_mul_pd(_mm512_add_pd(s, s), p));
}

// Gumbel noise of eight words of the hash.
inline VNNI __m512d gumbel_of(__m512i words) {
  const __m512i bits = _mm512_srli_epi64(words, 11);
  const __m512d high = _mm512_cvtepu32_pd(_mm512_cvtepi64_epi32(_mm512_srli_epi64(bits, 32)));
  const __m512d low = _mm512_cvtepu32_pd(_mm512_cvtepi64_epi32(bits));
  const __m512d whole = _mm512_add_pd(_mm512_mul_pd(high, _mm512_set1_pd(0x1p32)), low);
  const __m512d uniform = _mm512_mul_pd(_mm512_add_pd(whole, _mm512_set1_pd(0.5)), _mm512_set1_pd(0x1p-53));
  const __m512d nought = _mm512_setzero_pd();
  return _mm512_sub_pd(nought, log_of(_mm512_sub_pd(nought, log_of(uniform))));
}

// Integers above nought in the order of floats, both of whose noughts are the same; false if there is a NaN.
inline VNNI bool rank(const float* logits, int64_t size, uint32_t* ranks) {
  const __m512 nought = _mm512_setzero_ps();
  const __m512i sign = _mm512_set1_epi32(INT32_MIN);
  bool is_ordered = true;
  for (int64_t i = 0; i < size; i += kLanes) {
    const __mmask16 mask = lanes_of(size - i);
    const __m512 own = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, logits + i), nought);
    const __m512i bits = _mm512_castps_si512(own);
    is_ordered &= !_mm512_cmp_ps_mask(own, own, _CMP_UNORD_Q);
    _mm512_mask_storeu_epi32(ranks + i, mask, _mm512_xor_si512(bits, _mm512_or_si512(_mm512_srai_epi32(bits, 31), sign)));
  }
  return is_ordered;
}

// `size` is a multiple of 16 from here on, filled up with noughts, which no limit above nought counts.
inline VNNI int64_t count_from(const uint32_t* ranks, int64_t size, uint32_t least) {
  const __m512i limit = _mm512_set1_epi32(static_cast<int32_t>(least));
  int64_t count = 0;
  for (int64_t i = 0; i < size; i += kLanes)
    count += __builtin_popcount(_mm512_cmpge_epu32_mask(_mm512_loadu_si512(ranks + i), limit));
  return count;
}

// What the `count` largest ranks have in common: they are at least so large. Found bit by bit, as far as need be.
inline VNNI uint32_t least_of(const uint32_t* ranks, int64_t size, int64_t count) {
  uint32_t least = 0;
  for (uint32_t bit = 1u << 31; bit; bit >>= 1) {
    const int64_t found = count_from(ranks, size, least | bit);
    if (found >= count) least |= bit;
    if (found == count) break;
  }
  return least;
}

// What a thread needs to draw a row of `size` entries.
struct Drawing {
  std::vector<uint32_t> ranks, kept;
  std::vector<uint64_t> words;

  void reserve(int64_t size) {
    const int64_t room = padded(size, kLanes);
    ranks.assign(room, 0), kept.resize(room), words.resize(room);
  }
};

// Writes which entries top-k leaves, in their order; as many as are returned.
inline VNNI int64_t keep(const uint32_t* ranks, int64_t size, int64_t count, uint32_t* kept) {
  const uint32_t least = least_of(ranks, size, count);
  int64_t num_equal = count - count_from(ranks, size, least + 1), num_kept = 0;
  const __m512i limit = _mm512_set1_epi32(static_cast<int32_t>(least));
  const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  for (int64_t i = 0; i < size; i += kLanes) {
    const __m512i own = _mm512_loadu_si512(ranks + i);
    uint32_t chosen = _mm512_cmpgt_epu32_mask(own, limit), equal = _mm512_cmpeq_epu32_mask(own, limit);
    for (; equal && num_equal > 0; equal &= equal - 1, --num_equal) chosen |= equal & -equal;
    const __m512i indices = _mm512_add_epi32(lanes, _mm512_set1_epi32(static_cast<int32_t>(i)));
    _mm512_mask_compressstoreu_epi32(kept + num_kept, static_cast<__mmask16>(chosen), indices);
    num_kept += __builtin_popcount(chosen);
  }
  return num_kept;
}

inline VNNI int64_t draw_one(const ToDraw& row, int64_t size, Drawing& own) {
  if (!rank(row.logits, size, own.ranks.data())) return -1;
  const int64_t num_kept = keep(own.ranks.data(), static_cast<int64_t>(own.ranks.size()), row.num_kept, own.kept.data());
  const uint64_t key = key_of(row);
  for (int64_t i = 0; i < num_kept; ++i) own.words[i] = mixed(key ^ own.kept[i]);
  double best = -INFINITY, second = -INFINITY;
  int64_t token = -1;
  for (int64_t first = 0; first < num_kept; first += 8) {
    const int64_t left = num_kept - first < 8 ? num_kept - first : 8;
    const __mmask8 mask = static_cast<__mmask8>((1u << left) - 1);
    const __m256i indices = _mm256_maskz_loadu_epi32(mask, own.kept.data() + first);
    const __m256 logits = _mm256_mmask_i32gather_ps(_mm256_setzero_ps(), mask, indices, row.logits, 4);
    const __m512d scaled = _mm512_div_pd(_mm512_cvtps_pd(logits), _mm512_set1_pd(row.temperature));
    alignas(64) double scores[8];
    _mm512_store_pd(scores, _mm512_add_pd(scaled, gumbel_of(_mm512_maskz_loadu_epi64(mask, own.words.data() + first))));
    for (int64_t i = 0; i < left; ++i) {
      if (!(scores[i] > second)) continue;
      const bool is_best = scores[i] > best;
      second = is_best ? best : scores[i];
      if (is_best) best = scores[i], token = own.kept[first + i];
    }
  }
  const bool is_sure = std::isfinite(best) && best - second > kSureMargin * (1.0 + std::fabs(best));
  return is_sure ? token : -1;
}

inline void draw(const ToDraw* rows, int64_t count, int64_t size, int64_t* tokens) {
  static thread_local Drawing own;
  own.reserve(size);
  for (int64_t r = 0; r < count; ++r) tokens[r] = draw_one(rows[r], size, own);
}

}  // namespace stretto
