// An LSTM in both directions over many short strands of numbers at once: each column of a lattice over its frames, by itself.
//
// Gates of some columns and 16 units are sums of products in bfloat16, of the inputs and of the columns' own last outputs;
// cells stay in float32. A column's numbers depend on no other column. The AMX tiles of one such part are multiplied while the
// cells of the part before it are computed, row by row: the processor has units of their own for either. By AVX-512, whose
// units do both, a part's cells follow its products.
//
// Weights: [direction][units / 16][steps][in, keep, new, out][16 pairs of inputs][16 units][2], steps those of the inputs and
// after them those of the units; weights and biases are such that sums are exponents of two: those of e^-x of gates, and of
// e^-2x of what is new.
#pragma once
#include "shifts.hpp"

#define INLINED inline VECTORS __attribute__((always_inline))

namespace stretto {

struct Strands {
  Lattice x, out;  // all frames kept; out: forward units and after them backward ones
  const uint16_t* weights;
  const float* bias;  // [direction][units / 16][4][16]
  int64_t clips, frames, columns, input_steps, units;  // columns 17 or more; units a multiple of 32
  int64_t input_pairs;                                 // that have weights
};

// 2^x for x that is held between -60 and 60, within 4e-6 of it: n = x + 1.5 * 2^23 has its whole part in its last bits.
INLINED __m512 power_of_two(__m512 x) {
  x = _mm512_range_ps(x, all(60.0f), 2);
  const __m512 n = add(x, all(12582912.0f));
  const __m512 r = _mm512_sub_ps(x, _mm512_sub_ps(n, all(12582912.0f)));
  __m512 p = all(9.58285201e-03f);
  p = _mm512_fmadd_ps(p, r, all(5.59064262e-02f));
  p = _mm512_fmadd_ps(p, r, all(2.40240991e-01f));
  p = _mm512_fmadd_ps(p, r, all(6.93124175e-01f));
  p = _mm512_fmadd_ps(p, r, all(1.0f));
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(n), 23)));
}

// x / y within 3e-8 of it.
INLINED __m512 over(__m512 x, __m512 y) {
  const __m512 inverse = _mm512_rcp14_ps(y);
  return mul(x, mul(inverse, _mm512_fnmadd_ps(y, inverse, all(2.0f))));
}

// sigmoid(a) * tanh(b) within 7e-5 of it, given e^-a and e^-2b.
INLINED __m512 gated(__m512 a, __m512 b) {
  const __m512 one = all(1.0f);
  return mul(_mm512_sub_ps(one, b), _mm512_rcp14_ps(mul(add(one, a), add(one, b))));
}

// Of some columns and 16 units: the sums whose cells are next.
struct CellsPart {
  const float *sums, *bias;
  float* cells;
  uint16_t* out;
  int64_t column;
};

// A gate's sums lie `gate` numbers after those of the gate before it, a column's `row` after those of the one before it.
template <int gate, int row>
INLINED void next_cells(const CellsPart& part, int64_t at) {
  const float* of = part.sums + at * row;
  const __m512 in = power_of_two(add(_mm512_load_ps(of), _mm512_loadu_ps(part.bias)));
  const __m512 keep = power_of_two(add(_mm512_load_ps(of + gate), _mm512_loadu_ps(part.bias + 16)));
  const __m512 fresh = power_of_two(add(_mm512_load_ps(of + 2 * gate), _mm512_loadu_ps(part.bias + 32)));
  const __m512 out = power_of_two(add(_mm512_load_ps(of + 3 * gate), _mm512_loadu_ps(part.bias + 48)));
  const __m512 now = add(over(_mm512_load_ps(part.cells + at * 16), add(all(1.0f), keep)), gated(in, fresh));
  _mm512_store_ps(part.cells + at * 16, now);
  put_rounded(part.out + at * part.column, gated(out, power_of_two(mul(now, all(-2.88539008f)))));
}

// What a part's sums are of: its inputs, and its last outputs, 32 a step.
struct Gates {
  const uint16_t *x, *last, *weights;
  int64_t x_column, last_column, input_steps, steps, input_pairs;
};

// R columns: sums [R][4][16].
template <int R>
inline VECTORS void multiply_gates(const Gates& gates, float* sums) {
  __m512 gate[R][4] = {};
  const uint16_t* w = gates.weights;
  int64_t pairs = gates.input_pairs;
  for (int64_t step = 0; step < gates.input_steps; ++step, pairs -= 16, w += 4 * 512)
    add_pairs(gate, gates.x + step * 32, gates.x_column, w, 512, std::min<int64_t>(pairs, 16));
  const uint16_t* last = gates.last;
  for (int64_t step = gates.input_steps; step < gates.steps; ++step, last += 32, w += 4 * 512)
    add_pairs(gate, last, gates.last_column, w, 512, 16);
  for (int r = 0; r < R; ++r)
    for (int k = 0; k < 4; ++k) _mm512_store_ps(sums + (r * 4 + k) * 16, gate[r][k]);
}

#ifdef STRETTO_TILES
template <int gate>
inline BANDS __attribute__((always_inline)) void add_steps(const Gates& gates, int64_t quarter) {
  for (int64_t step = quarter; step < gates.steps; step += 4) {
    const bool is_input = step < gates.input_steps;
    const uint16_t* from = is_input ? gates.x + step * 32 : gates.last + (step - gates.input_steps) * 32;
    const int64_t stride = 2 * (is_input ? gates.x_column : gates.last_column);
    const uint16_t* weights = gates.weights + (step * 4 + gate) * 512;
    if (gate % 2 == 0) {
      _tile_loadd(4, from, stride);
      _tile_loadd(5, weights, 64);
    } else {
      _tile_loadd(6, from, stride);
      _tile_loadd(7, weights, 64);
    }
    if (gate == 0) _tile_dpbf16ps(0, 4, 5);
    if (gate == 1) _tile_dpbf16ps(1, 6, 7);
    if (gate == 2) _tile_dpbf16ps(2, 4, 5);
    if (gate == 3) _tile_dpbf16ps(3, 6, 7);
  }
}

template <bool has_part>
inline BANDS __attribute__((always_inline)) void multiply_beside(const Gates& gates, const CellsPart& part, float* sums) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t quarter = 0; quarter < 4; ++quarter) {
    add_steps<0>(gates, quarter);
    if (has_part) next_cells<256, 16>(part, quarter * 4);
    add_steps<1>(gates, quarter);
    if (has_part) next_cells<256, 16>(part, quarter * 4 + 1);
    add_steps<2>(gates, quarter);
    if (has_part) next_cells<256, 16>(part, quarter * 4 + 2);
    add_steps<3>(gates, quarter);
    if (has_part) next_cells<256, 16>(part, quarter * 4 + 3);
  }
  _tile_stored(0, sums, 64);
  _tile_stored(1, sums + 256, 64);
  _tile_stored(2, sums + 512, 64);
  _tile_stored(3, sums + 768, 64);
  settle(sums);
}
#endif

constexpr int kTogether = 4;  // columns at once by AVX-512: so few that cells and the next products overlap

// The parts, of `width` columns, of one direction in order of time, and within a frame column by column: the last outputs of
// a part's columns have long been written when it is multiplied, since there are two tiles of columns or more.
class Direction {
 public:
  Direction(const Strands& s, int64_t clip, int64_t direction, int64_t width)
      : s_(s), clip_(clip), direction_(direction), width_(width), groups_(s.units / 16) {
    tiles_ = (s.columns + width - 1) / width;
    room_.assign(tiles_ * groups_ * width * 16 + 16, 0.0f);
    cells_ = room_.data() + (64 - reinterpret_cast<uintptr_t>(room_.data()) % 64) % 64 / 4;
  }

#ifdef STRETTO_TILES
  BANDS void run_by_tiles() {
    alignas(64) float sums[2][4 * 256];
    CellsPart part{};
    int64_t at = 0;
    for (int64_t i = 0; i < s_.frames; ++i)
      for (int64_t tile = 0; tile < tiles_; ++tile)
        for (int64_t group = 0; group < groups_; ++group, at ^= 1) {
          const Gates gates = gates_of(i, tile, group);
          if (part.out) multiply_beside<true>(gates, part, sums[at]);
          else multiply_beside<false>(gates, part, sums[at]);
          part = part_of(i, tile, group, sums[at]);
        }
    for (int64_t row = 0; row < 16 && part.out; ++row) next_cells<256, 16>(part, row);
  }
#endif

  VECTORS void run_by_vectors() {
    alignas(64) float sums[kTogether * 64];
    for (int64_t i = 0; i < s_.frames; ++i)
      for (int64_t tile = 0; tile < tiles_; ++tile)
        for (int64_t group = 0; group < groups_; ++group) {
          multiply_gates<kTogether>(gates_of(i, tile, group), sums);
          const CellsPart part = part_of(i, tile, group, sums);
          for (int64_t row = 0; row < kTogether; ++row) next_cells<16, 64>(part, row);
        }
  }

 private:
  int64_t time_of(int64_t i) const { return direction_ ? s_.frames - 1 - i : i; }
  int64_t first_of(int64_t tile) const { return std::min(tile * width_, s_.columns - width_); }  // the last again with others
  uint16_t* out_of(int64_t i, int64_t tile) const {
    return s_.out.row(clip_, time_of(i)) + first_of(tile) * s_.out.column + direction_ * s_.units;
  }

  Gates gates_of(int64_t i, int64_t tile, int64_t group) const {
    const int64_t steps = s_.input_steps + s_.units / 32;
    const uint16_t* x = s_.x.row(clip_, time_of(i)) + first_of(tile) * s_.x.column;
    return {x, i ? out_of(i - 1, tile) : s_.out.nothing, s_.weights + (direction_ * groups_ + group) * steps * 4 * 512,
            s_.x.column, s_.out.column, s_.input_steps, steps, s_.input_pairs};
  }

  CellsPart part_of(int64_t i, int64_t tile, int64_t group, const float* sums) const {
    return {sums, s_.bias + (direction_ * groups_ + group) * 64, cells_ + (tile * groups_ + group) * width_ * 16,
            out_of(i, tile) + group * 16, s_.out.column};
  }

  const Strands& s_;
  int64_t clip_, direction_, width_, groups_, tiles_;
  float* cells_;
  inline static thread_local std::vector<float> room_;
};

// Directions from `first` to before `last`: 0 forward, 1 backward.
inline void run_strands(const Strands& s, int64_t first, int64_t last) {
#ifdef STRETTO_TILES
  if (bands() == Bands::tiles) {
    configure_tiles();
    for (int64_t clip = 0; clip < s.clips; ++clip)
      for (int64_t direction = first; direction < last; ++direction) Direction(s, clip, direction, 16).run_by_tiles();
    release_tiles();
    return;
  }
#endif
  for (int64_t clip = 0; clip < s.clips; ++clip)
    for (int64_t direction = first; direction < last; ++direction) Direction(s, clip, direction, kTogether).run_by_vectors();
}

}  // namespace stretto
