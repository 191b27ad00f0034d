// What goes into a decoder of columns and what comes out: embeddings, and the guidance of logits. Every operation is on
// single entries, in the order in which torch does it.
#pragma once
#include "rows.hpp"

namespace stretto {

struct Embedding {
  const float *codes, *positions;  // [codebooks * cardinality, width], [num_positions, width]
  int64_t codebooks, cardinality, num_positions, width;
};

// Writes to out [count, width] the sums of each column's codes [codebooks] and its position; false if one is out of range.
inline VNNI bool embed(const Embedding& table, const int64_t* columns, int64_t count, float* out) {
  for (int64_t c = 0; c < count; ++c, columns += table.codebooks + 1, out += table.width) {
    const int64_t* codes = columns + 1;
    if (columns[0] < 0 || columns[0] >= table.num_positions) return false;
    for (int64_t k = 0; k < table.codebooks; ++k) {
      if (codes[k] < 0 || codes[k] >= table.cardinality) return false;
      const float* entry = table.codes + (k * table.cardinality + codes[k]) * table.width;
      for (int64_t i = 0; i < table.width; ++i) out[i] = k ? out[i] + entry[i] : entry[i];
    }
    const float* position = table.positions + columns[0] * table.width;
    for (int64_t i = 0; i < table.width; ++i) out[i] += position[i];
  }
  return true;
}

// Writes to out [size] what lies beyond the conditional logits, seen from the unconditional ones after them.
inline VNNI void guide(const float* logits, int64_t size, float scale, float* out) {
  for (int64_t i = 0; i < size; ++i) {
    const float beyond = scale * (logits[i] - logits[size + i]);
    out[i] = logits[size + i] + beyond;
  }
}

}  // namespace stretto
