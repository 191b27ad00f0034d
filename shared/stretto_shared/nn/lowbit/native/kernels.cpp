// The C ABI of the native kernel, for processors with AVX-512 VNNI. No torch, no C++ beyond templates: `kernel.py` calls it
// with pointers. `reference.py` and `linear.py` have the same arithmetic in torch, and tests hold both to the bit.
#include <cstdint>

#if defined(__x86_64__)
#include "columns.hpp"
#include "decoder.hpp"
#include "drawing.hpp"
#include "quantise.hpp"

// A compiler that knows no bfloat16 still makes everything else.
#if defined(__has_include)
#if __has_include(<avx512bf16intrin.h>)
#define STRETTO_VECTORS
#include "cells.hpp"
#include "strands.hpp"
#endif
#endif

namespace {

using namespace stretto;

VNNI void multiply(const float* x, int64_t rows, const Matrix& matrix, float* out, int num_threads) {
  static thread_local Rows ready;
  ready.reserve(rows, matrix.inputs);
  for (int64_t row = 0; row < rows; ++row) ready.put(row, x + row * matrix.inputs, matrix.inputs);
  const Rows& shared = ready;  // of this thread, for all
  const Target target{out, matrix.outputs, nullptr, Then::store};
  static thread_local std::vector<Share> shares;
  if (static_cast<int>(shares.size()) != num_threads) shares = std::vector<Share>(num_threads);
  share_out(matrix, num_threads, shares.data());
  Share* of_all = shares.data();
#pragma omp parallel num_threads(num_threads) if (num_threads > 1)
  {
    const Stretch own = stretch_of(matrix, thread_number(), num_threads);
    Ahead ahead;
    ahead.begin(&own, 1);
    product(matrix, shared, rows, target, {of_all, num_threads, &ahead, 0});
  }
}

// Keys and values [count, num_heads * head_width] of steps from `first` on, into the stores of one row and block.
VNNI void remember_steps(uint8_t* heads, int64_t capacity, int bits, int64_t num_heads, int64_t head_width, int64_t first,
                         int64_t count, const float* keys, const float* values, int64_t stride) {
  for (int64_t head = 0; head < num_heads; ++head) {
    const Store store = store_at(heads, head, head_width, capacity, bits);
    for (int64_t step = 0; step < count; ++step) {
      const int64_t at = step * stride + head * head_width;
      (bits == 4 ? remember<4> : remember<8>)(store, first + step, keys + at, values + at, head_width);
    }
  }
}

VNNI void choose_codebooks(const float* x, int64_t groups, uint8_t* books, uint8_t* places, int num_threads) {
  Levels levels[kCodebooks];
  load_levels(levels);
#pragma omp parallel for num_threads(num_threads) if (num_threads > 1)
  for (int64_t group = 0; group < groups; ++group)
    books[group] = choose_codebook(x + group * kGroup, levels, places + group * kGroup);
}

}  // namespace

extern "C" {

int stretto_is_supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
}

// Whether tiles are used from now on; they are where there are any, unless they are not wanted.
int stretto_use_tiles(int wanted) {
#ifdef STRETTO_TILES
  tiles_wanted() = wanted != 0;
  return tiles_allowed();
#else
  return 0 * wanted;
#endif
}

// Out [rows, outputs] = x [rows, inputs] times the weights; `books` is null for int8.
void stretto_multiply(const float* x, int64_t rows, int64_t inputs, int64_t outputs, const uint8_t* weights,
                      const uint8_t* books, const float* scales, float* out, int num_threads) {
  multiply(x, rows, Matrix{weights, books, scales, inputs, outputs}, out, num_threads);
}

// Codebooks [groups] and places [groups, 32] of numbers x [groups, 32] in units of the levels.
void stretto_choose_codebooks(const float* x, int64_t groups, uint8_t* books, uint8_t* places, int num_threads) {
  choose_codebooks(x, groups, books, places, num_threads);
}

void stretto_remember(uint8_t* heads, int64_t capacity, int bits, int64_t num_heads, int64_t head_width, int64_t first,
                      int64_t count, const float* keys, const float* values, int64_t stride) {
  remember_steps(heads, capacity, bits, num_heads, head_width, first, count, keys, values, stride);
}

void stretto_decode(const Decoder* decoder, float* x, const Row* rows, int64_t count, const int32_t* wanted,
                    int64_t num_wanted, float* logits, int num_threads) {
  decode(*decoder, x, rows, count, wanted, num_wanted, logits, num_threads);
}

// Rows out [count, width] of columns, a position and its codes each; 0 if one of them is out of range.
int stretto_embed(const Embedding* table, const int64_t* columns, int64_t count, float* out) {
  return embed(*table, columns, count, out);
}

void stretto_guide(const float* logits, int64_t size, float scale, float* out) { guide(logits, size, scale, out); }

// Tokens [count] of logits of `size` entries each; -1 where numpy has to draw.
void stretto_draw(const ToDraw* rows, int64_t count, int64_t size, int64_t* tokens) { draw(rows, count, size, tokens); }

// What multiplies rows of bfloat16 in those below: `Bands`.
#ifdef STRETTO_VECTORS
int stretto_bands() { return static_cast<int>(bands()); }

void stretto_join_elu(const Band* past, const Band* x, int64_t clips, int64_t width, uint16_t* out) {
  join_elu(*past, *x, clips, width, out);
}

void stretto_convolve(const Band* x, int64_t clips, const Convolution* conv, const Finish* finish) {
  convolve(*x, clips, *conv, *finish);
}

void stretto_run_cells(const Cells* cells, const Convolution* recurrent) { run_cells(*cells, *recurrent); }

void stretto_run_shifts(const Shifts* layers, int64_t count, int64_t clips, int64_t frames) {
  run_shifts(layers, count, clips, frames);
}

void stretto_run_strands(const Strands* strands, int64_t first, int64_t last) { run_strands(*strands, first, last); }
#else
int stretto_bands() { return 0; }
void stretto_join_elu() {}
void stretto_convolve() {}
void stretto_run_cells() {}
void stretto_run_shifts() {}
void stretto_run_strands() {}
#endif

}  // extern "C"

#else
extern "C" int stretto_is_supported() { return 0; }
extern "C" int stretto_use_tiles(int) { return 0; }
extern "C" void stretto_multiply() {}
extern "C" void stretto_choose_codebooks() {}
extern "C" void stretto_remember() {}
extern "C" void stretto_decode() {}
extern "C" int stretto_embed() { return 0; }
extern "C" void stretto_guide() {}
extern "C" void stretto_draw() {}
extern "C" int stretto_bands() { return 0; }
extern "C" void stretto_join_elu() {}
extern "C" void stretto_convolve() {}
extern "C" void stretto_run_cells() {}
extern "C" void stretto_run_shifts() {}
extern "C" void stretto_run_strands() {}
#endif
