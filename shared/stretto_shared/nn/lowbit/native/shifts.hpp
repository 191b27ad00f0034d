// Convolutions over a lattice of places in bfloat16, by AMX tiles or by AVX-512, with bias, residual and ReLU in the same
// pass.
//
//   out[place] = then(bias[place's column] + sum over steps of weights[step] x[place + shift of step ...] + skip[place])
//
// A lattice is clips of frames of columns, each column some inputs; the columns around it are zeros that its owner keeps
// there. A step takes 32 numbers of a frame that lie one after the other, wherever they begin: so neighbours whose numbers
// lie side by side are one run of steps, and what a step reads too much has weights of zero. A place is summed in float32,
// step by step, whatever stands beside it: by tiles and by AVX-512 in orders of their own.
// Weights: [outputs / 16][steps][16 pairs of inputs][16 outputs][2].
#pragma once
#include <algorithm>
#include <cmath>

#include "bands.hpp"

namespace stretto {

// Numbers from one clip, frame and column to the next; null at `at` for none. Of a clip, the last `kept` frames are there.
struct Lattice {
  uint16_t* at;
  const uint16_t* nothing;  // a frame of zeros: of those before the first and after the last
  int64_t clip, frame, column, kept;

  uint16_t* row(int64_t c, int64_t t) const { return at + c * clip + t % kept * frame; }
};

struct Shift {
  int64_t frames, numbers, pairs;  // so many pairs of inputs have weights
};

struct Shifts {
  Lattice x, skip, out;
  float* plain;            // [clips][frames][columns][outputs] in place of `out`, or null
  const uint16_t* weights;
  const float* bias;       // [columns][outputs], or [outputs] where `bias_column` is 0
  const Shift* shifts;     // [steps]
  int64_t bias_column, steps, outputs, columns, lag, relu;  // columns 16 or more; late by `lag` frames in a chain
};

constexpr int64_t kStretch = 8;  // frames of one layer before the next one's turn
constexpr int64_t kMostSteps = 256;

// The rows of a frame that a pass over it reads and writes, and where what each step reads begins.
struct FrameRows {
  const uint16_t* skip;
  uint16_t* out;
  float* plain;
  const uint16_t* starts[kMostSteps];
};

inline void find_rows(const Shifts& s, int64_t clip, int64_t t, int64_t frames, FrameRows& rows) {
  for (int64_t step = 0; step < s.steps; ++step) {
    const int64_t from = t + s.shifts[step].frames;
    const bool is_there = from >= 0 && from < frames;
    rows.starts[step] = (is_there ? s.x.row(clip, from) : s.x.nothing) + s.shifts[step].numbers;
  }
  rows.skip = s.skip.at ? s.skip.row(clip, t) : nullptr;
  rows.out = s.plain ? nullptr : s.out.row(clip, t);
  rows.plain = s.plain ? s.plain + (clip * frames + t) * s.columns * s.outputs : nullptr;
}

// Of `count` columns from `p` on and the 16 outputs from `n` on; sums `stride` numbers apart.
inline VECTORS void finish_places(const Shifts& s, const FrameRows& rows, const float* sums, int64_t stride, int64_t count,
                                  int64_t p, int64_t n) {
  const float* bias = s.bias + p * s.bias_column + n;
  const uint16_t* skip = rows.skip ? rows.skip + p * s.skip.column + n : nullptr;
  uint16_t* out = rows.plain ? nullptr : rows.out + p * s.out.column + n;
  float* plain = rows.plain ? rows.plain + p * s.outputs + n : nullptr;
  const __m512 least = all(s.relu ? 0.0f : -INFINITY);
  for (int64_t r = 0; r < count; ++r) {
    __m512 value = add(_mm512_load_ps(sums + r * stride), _mm512_loadu_ps(bias + r * s.bias_column));
    if (skip) value = add(value, widened(skip + r * s.skip.column));
    value = _mm512_max_ps(value, least);
    if (plain) _mm512_storeu_ps(plain + r * s.outputs, value);
    else put_rounded(out + r * s.out.column, value);
  }
}

// Adds to the sums of R columns and N blocks of 16 outputs, pair after pair of inputs: columns lie `column` numbers apart,
// and blocks' weights `beside`. What R, N and the columns beside are changes no sum; up to eight columns of three blocks leave
// registers for what is multiplied.
template <int R, int N>
inline VECTORS __attribute__((always_inline)) void add_pairs(__m512 (&sums)[R][N], const uint16_t* x, int64_t column,
                                                             const uint16_t* w, int64_t beside, int64_t pairs) {
  for (const uint16_t* end = x + 2 * pairs; x < end; x += 2, w += 32) {
    __m512bh of[N];
    for (int n = 0; n < N; ++n) of[n] = (__m512bh)_mm512_loadu_si512(w + n * beside);
    for (int r = 0; r < R; ++r) {
      int32_t pair;
      std::memcpy(&pair, x + r * column, 4);
      for (int n = 0; n < N; ++n) sums[r][n] = _mm512_dpbf16_ps(sums[r][n], (__m512bh)_mm512_set1_epi32(pair), of[n]);
    }
  }
}

constexpr int kPlaces = 8;  // columns at once by AVX-512

// N blocks of 16 outputs of all columns, from output `n` on.
template <int N>
inline VECTORS void run_blocks(const Shifts& s, const FrameRows& rows, int64_t n) {
  const int64_t beside = s.steps * 512;
  for (int64_t begin = 0; begin < s.columns; begin += kPlaces) {
    const int64_t p = std::min(begin, s.columns - kPlaces);  // the last ones again with those before them
    const uint16_t* w = s.weights + n / 16 * beside;
    __m512 sums[kPlaces][N] = {};
    for (int64_t step = 0; step < s.steps; ++step, w += 512)
      add_pairs(sums, rows.starts[step] + p * s.x.column, s.x.column, w, beside, s.shifts[step].pairs);
    alignas(64) float summed[kPlaces * N * 16];
    for (int r = 0; r < kPlaces; ++r)
      for (int k = 0; k < N; ++k) _mm512_store_ps(summed + (r * N + k) * 16, sums[r][k]);
    for (int k = 0; k < N; ++k) finish_places(s, rows, summed + k * 16, N * 16, kPlaces, p, n + k * 16);
  }
}

inline VECTORS void run_by_vectors(const Shifts& s, const FrameRows& rows) {
  for (int64_t n = 0; n < s.outputs;) {
    const int64_t left = (s.outputs - n) / 16, blocks = left == 4 ? 2 : std::min<int64_t>(left, 3);
    if (blocks == 3) run_blocks<3>(s, rows, n);
    else if (blocks == 2) run_blocks<2>(s, rows, n);
    else run_blocks<1>(s, rows, n);
    n += blocks * 16;
  }
}

#ifdef STRETTO_TILES
constexpr int64_t kMostTiles = 3;  // of 16 columns at once: each has inputs and sums of its own, beside two of weights

// One step of tiles of 16 columns, the last of them from `end` on. A tile register is not loaded again before the one
// that reads it is done, so weights take turns with two, and columns have one each.
#define STRETTO_STEP(weights)                          \
  const uint16_t* from = starts[step];                 \
  _tile_loadd(weights, w, 64);                         \
  if (tiles > 1) _tile_loadd(3, from + first, stride); \
  if (tiles > 2) _tile_loadd(4, from + next, stride);  \
  _tile_loadd(5, from + end, stride);                  \
  if (tiles > 1) _tile_dpbf16ps(0, 3, weights);        \
  if (tiles > 2) _tile_dpbf16ps(1, 4, weights);        \
  _tile_dpbf16ps(2, 5, weights);                       \
  ++step;                                              \
  w += 512;

// Tiles of 16 columns from `p` on, the last of them from `last` on; 16 outputs.
template <int tiles>
inline BANDS void multiply_places(const Shifts& s, const uint16_t* const* starts, const uint16_t* w, int64_t p, int64_t last,
                                  float* sums) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  const int64_t stride = s.x.column * 2, first = p * s.x.column, next = first + 16 * s.x.column, end = last * s.x.column;
  for (int64_t step = 0; step < s.steps;) {
    if (step % 2 == 0) {
      STRETTO_STEP(6)
    } else {
      STRETTO_STEP(7)
    }
  }
  if (tiles > 1) _tile_stored(0, sums, 64);
  if (tiles > 2) _tile_stored(1, sums + 256, 64);
  _tile_stored(2, sums + (tiles - 1) * 256, 64);
  settle(sums);
}
#undef STRETTO_STEP

template <int tiles>
inline BANDS void run_places(const Shifts& s, const FrameRows& rows, int64_t p, int64_t n) {
  alignas(64) float sums[tiles * 256];
  const int64_t last = std::min(p + (tiles - 1) * 16, s.columns - 16);  // the last ones again with those before them
  multiply_places<tiles>(s, rows.starts, s.weights + n / 16 * s.steps * 512, p, last, sums);
  for (int64_t tile = 0; tile < tiles; ++tile)
    finish_places(s, rows, sums + tile * 256, 16, 16, tile + 1 < tiles ? p + tile * 16 : last, n);
}

inline BANDS void run_by_tiles(const Shifts& s, const FrameRows& rows) {
  for (int64_t n = 0; n < s.outputs; n += 16)
    for (int64_t p = 0; p < s.columns; p += kMostTiles * 16) {
      const int64_t tiles = (s.columns - p + 15) / 16;
      if (tiles >= 3) run_places<3>(s, rows, p, n);
      else if (tiles == 2) run_places<2>(s, rows, p, n);
      else run_places<1>(s, rows, p, n);
    }
  settle(&s);
}
#endif

// Layers one after the other, each a few frames behind what it reads, so that it reads what still lies near.
template <class RunFrame>
inline void run_layers(const Shifts* layers, int64_t count, int64_t clips, int64_t frames, const RunFrame& run_frame) {
  int64_t last = 0;
  for (int64_t k = 0; k < count; ++k) last = std::max(last, layers[k].lag);
  FrameRows rows;
  for (int64_t clip = 0; clip < clips; ++clip)
    for (int64_t begin = 0; begin < frames + last; begin += kStretch)
      for (int64_t k = 0; k < count; ++k) {
        const int64_t from = std::max<int64_t>(0, begin - layers[k].lag);
        const int64_t to = std::min(frames, begin + kStretch - layers[k].lag);
        for (int64_t t = from; t < to; ++t) {
          find_rows(layers[k], clip, t, frames, rows);
          run_frame(layers[k], rows);
        }
      }
}

inline void run_shifts(const Shifts* layers, int64_t count, int64_t clips, int64_t frames) {
#ifdef STRETTO_TILES
  if (bands() == Bands::tiles) {
    configure_tiles();
    run_layers(layers, count, clips, frames, run_by_tiles);
    release_tiles();
    return;
  }
#endif
  run_layers(layers, count, clips, frames, run_by_vectors);
}

}  // namespace stretto
