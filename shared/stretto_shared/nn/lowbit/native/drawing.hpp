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

inline double gumbel_of(uint64_t key, int64_t index) {
  const uint64_t word = mixed(key ^ static_cast<uint64_t>(index));
  return -std::log(-std::log((static_cast<double>(word >> 11) + 0.5) * 0x1p-53));
}

// Integers in the order of floats, both noughts the same; false if there is a NaN.
inline VNNI bool rank(const float* logits, int64_t size, uint32_t* ranks) {
  constexpr uint32_t kInfinity = kInfinityBits, kSign = 1u << 31;
  uint32_t largest = 0;
  for (int64_t i = 0; i < size; ++i) {
    const float sum = logits[i] + 0.0f;
    uint32_t bits;
    std::memcpy(&bits, &sum, 4);
    const uint32_t magnitude = bits & ~kSign;
    largest = largest > magnitude ? largest : magnitude;
    ranks[i] = bits & kSign ? ~bits : bits | kSign;
  }
  return largest <= kInfinity;
}

inline VNNI int64_t count_from(const uint32_t* ranks, int64_t size, uint32_t least) {
  const __m512i limit = _mm512_set1_epi32(static_cast<int32_t>(least));
  int64_t count = 0;
  for (int64_t i = 0; i < size; i += kLanes) {
    const __mmask16 mask = lanes_of(size - i);
    count += __builtin_popcount(_mm512_mask_cmpge_epu32_mask(mask, _mm512_maskz_loadu_epi32(mask, ranks + i), limit));
  }
  return count;
}

// The least of the `count` largest ranks, found bit by bit.
inline VNNI uint32_t least_of(const uint32_t* ranks, int64_t size, int64_t count) {
  uint32_t least = 0;
  for (uint32_t bit = 1u << 31; bit; bit >>= 1)
    if (count_from(ranks, size, least | bit) >= count) least |= bit;
  return least;
}

inline int64_t draw_one(const ToDraw& row, int64_t size, uint32_t* ranks) {
  if (!rank(row.logits, size, ranks)) return -1;
  const uint32_t least = least_of(ranks, size, row.num_kept);
  int64_t num_equal = row.num_kept - count_from(ranks, size, least + 1);
  const uint64_t key = key_of(row);
  double best = -INFINITY, second = -INFINITY;
  int64_t token = -1;
  for (int64_t i = 0; i < size; ++i) {
    if (ranks[i] < least || (ranks[i] == least && num_equal-- <= 0)) continue;
    const double score = static_cast<double>(row.logits[i]) / row.temperature + gumbel_of(key, i);
    if (score > best) second = best, best = score, token = i;
    else if (score > second) second = score;
  }
  const bool is_sure = std::isfinite(best) && best - second > kSureMargin * (1.0 + std::fabs(best));
  return is_sure ? token : -1;
}

inline void draw(const ToDraw* rows, int64_t count, int64_t size, int64_t* tokens) {
  static thread_local std::vector<uint32_t> ranks;
  ranks.resize(size);
  for (int64_t r = 0; r < count; ++r) tokens[r] = draw_one(rows[r], size, ranks.data());
}

}  // namespace stretto
