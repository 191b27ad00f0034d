// Products of rows with low-bit weights: sums of integers, exact in any order, that become floats by two multiplications,
// (sum * weight_scale) * row_scale. So a row's result depends on no other row, and whether VNNI or AMX summed it.
//
// Weights: outputs in panels of 64 (4 blocks of 16 lanes), inputs in words of 4, padded with what adds nothing.
//   int8: bytes [panel][word][block][lane][4], value + 128.
//   int4: bytes [panel][group][block][4][lane][4], the place in a codebook of an even word in the low half and that of
//         the odd word after it in the high half; a group is 32 inputs. Codebooks [panel][group][64], times 16: the
//         place of place 0 in `kTable`, of which a permutation of bytes (VBMI) takes 64 values at once.
// Every byte of the weights is read from memory once for all rows: sums of 16 of them are in registers or in AMX tiles at a
// time, while a panel stays in the cache for the next 16. `ahead.hpp` asks the memory for them.
#pragma once
#include <vector>

#include "ahead.hpp"
#include "barrier.hpp"
#include "codebooks.hpp"
#include "numerics.hpp"
#include "tiles.hpp"

namespace stretto {

constexpr int kPanel = 64, kBlocks = 4, kRows = 16;
constexpr int64_t kLinePadding = 64;  // lines of rows a power of two apart would share the cache's sets

struct Matrix {
  const uint8_t *weights, *books;  // books: null for int8
  const float* scales;
  int64_t inputs, outputs;

  int64_t groups() const { return (inputs + kGroup - 1) / kGroup; }
  int64_t panels() const { return (outputs + kPanel - 1) / kPanel; }
  int64_t group_bytes() const { return kGroup * kPanel / (books ? 2 : 1); }
  int64_t panel_bytes() const { return groups() * group_bytes(); }
};

// Rows as the products read them: `lines` [rows][stride], `begins` [rows], where sums of products with weights that are
// told with 128 added begin, `scales` [rows].
struct Rows {
  std::vector<int8_t> lines;
  std::vector<int32_t> begins;
  std::vector<float> scales;
  int64_t stride = 0;

  // Room for rows of at most `widest` inputs.
  void reserve(int64_t rows, int64_t widest) {
    stride = padded(widest, 64) + kLinePadding;
    if (static_cast<int64_t>(lines.size()) < padded(rows, kTileRows) * stride) lines.resize(padded(rows, kTileRows) * stride);
    if (static_cast<int64_t>(begins.size()) < rows) begins.resize(rows);
    if (static_cast<int64_t>(scales.size()) < rows) scales.resize(rows);
  }
  VNNI void put(int64_t row, const float* x, int64_t inputs) {
    int8_t* line = lines.data() + row * stride;
    const int64_t room = padded(inputs, 64);
    std::memset(line + inputs, 0, room - inputs);
    const Quantised quantised = quantise(x, inputs, line);
    scales[row] = quantised.scale;
    begins[row] = -128 * quantised.sum;
  }
};

enum class Then { store, add, gelu };

// Where results go: row r of a product is row `rows[r]` of `base`, or row r without `rows`.
struct Target {
  float* base;
  int64_t stride;
  const int32_t* rows;
  Then then;

  float* row(int64_t r) const { return base + (rows ? rows[r] : r) * stride; }
};

inline VNNI void finish(__m512i sum, const float* weight_scales, float row_scale, float* out, int64_t left, Then then) {
  const __mmask16 mask = lanes_of(left);
  __m512 value = mul(mul(_mm512_cvtepi32_ps(sum), _mm512_loadu_ps(weight_scales)), all(row_scale));
  if (then == Then::add) value = add(_mm512_maskz_loadu_ps(mask, out), value);
  if (then == Then::gelu) value = gelu_of(value);
  _mm512_mask_storeu_ps(out, mask, value);
}

// One panel of a matrix, and the rows from `first` on.
struct Part {
  const uint8_t *weights, *books;
  const float* scales;  // [64]
  int64_t groups;
  int64_t at, left;  // first output, and outputs from it on
  const Rows& rows;
  int64_t first;
  const Target& target;
  Ahead* ahead;  // null: the panel is one of another thread's, of which this one takes the last, and then those before it
  bool again;    // the panel was read for other rows a moment ago

  const int8_t* line(int64_t r) const { return rows.lines.data() + (first + r) * rows.stride; }
  int64_t group_bytes() const { return kGroup * kPanel / (books ? 2 : 1); }
  // What to ask of the memory while the panel is used, for the `unit`th time: a group of those that are needed next.
  const uint8_t* next(int64_t unit) const {
    if (again) return weights + unit * group_bytes();
    if (ahead) return ahead->take();
    if (books) ask_for(books + (unit - groups) * kPanel);
    return weights + (unit - groups) * group_bytes();
  }
  int32_t begin(int64_t r) const { return rows.begins[first + r]; }
  VNNI void finish_block(__m512i sum, int64_t r, int block) const {
    const int64_t lane = block * kLanes;
    finish(sum, scales + lane, rows.scales[first + r], target.row(first + r) + at + lane, left - lane, target.then);
  }
};

// A word of a row in all lanes, for N blocks. For several it is loaded once: a processor may have room for one such load a
// cycle, and as many products.
template <int N>
inline VNNI __m512i word_for(const int8_t* x) {
  __m512i word = word_of(x);
  if (N > 1) asm("" : "+v"(word));  // or the compiler loads it again for each block
  return word;
}

// Sums of R rows for a panel, between two of its parts.
template <int R>
struct Sums {
  alignas(64) int32_t of[R][kBlocks][kLanes];
};

// Bytes of a panel that are read for one block after the other before the next part's turn: by the time that the first block
// comes to them, all of them were asked for.
constexpr int64_t kPartBytes = kLeastAhead;

// Groups of a part: of the whole panel where it is read once for all blocks.
template <int N>
inline int64_t part_groups(const Part& p, int64_t group_bytes) {
  return N == kBlocks ? p.groups : kPartBytes / group_bytes;
}

template <int R, int N>  // rows, and blocks whose sums are in registers together
VNNI void int8_panel(const Part& p) {
  Sums<R> sums;
  const int8_t* lines[R];
  for (int r = 0; r < R; ++r) lines[r] = p.line(r);
  const uint8_t* next = nullptr;  // a part is read once for each N blocks, and as many parts of what comes next asked for
  int64_t asked = 0;
  const int64_t most = part_groups<N>(p, kGroup * kPanel);
  for (int64_t from = 0; from < p.groups; from += most) {
    const int64_t to = from + most < p.groups ? from + most : p.groups;
    for (int block = 0; block < kBlocks && block * kLanes < p.left; block += N) {
      __m512i sum[R][N];
      for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n) sum[r][n] = from ? _mm512_load_si512(sums.of[r][block + n]) : _mm512_set1_epi32(p.begin(r));
      const uint8_t* w = p.weights + (from * (kGroup / 4) * kBlocks + block) * 64;
      for (int64_t group = from; group < to; ++group) {
        if (asked % (kBlocks / N) == 0) next = p.next(asked / (kBlocks / N));
        ++asked;
        for (int64_t word = group * (kGroup / 4); word < (group + 1) * (kGroup / 4); ++word, w += kBlocks * 64) {
          __m512i weights[N];
          for (int n = 0; n < N; ++n) weights[n] = _mm512_loadu_si512(w + n * 64);
          for (int n = 0; n < N; ++n, next += 64) ask_for(next);
          for (int r = 0; r < R; ++r) {
            const __m512i x = word_for<N>(lines[r] + word * 4);
            for (int n = 0; n < N; ++n) sum[r][n] = _mm512_dpbusd_epi32(sum[r][n], weights[n], x);
          }
        }
      }
      for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n) {
          if (to == p.groups) p.finish_block(sum[r][n], r, block + n);
          else _mm512_store_si512(sums.of[r][block + n], sum[r][n]);
        }
    }
  }
}

// Turns places into weights, with 128 added.
struct Codebooks {
  __m512i low, high, low_half, spread;  // the table's halves; which output each byte of a lane is of

  VNNI Codebooks() {
    const __m512i offset = _mm512_set1_epi8(-128);  // which adds 128, modulo 256
    low = _mm512_xor_si512(_mm512_loadu_si512(kTable[0]), offset);
    high = _mm512_xor_si512(_mm512_loadu_si512(kTable[4]), offset);
    low_half = _mm512_set1_epi8(0x0f);
    spread = _mm512_set_epi32(0x0f0f0f0f, 0x0e0e0e0e, 0x0d0d0d0d, 0x0c0c0c0c, 0x0b0b0b0b, 0x0a0a0a0a, 0x09090909, 0x08080808,
                              0x07070707, 0x06060606, 0x05050505, 0x04040404, 0x03030303, 0x02020202, 0x01010101, 0);
  }
  // The codebooks of 16 outputs, each for its four bytes.
  VNNI __m512i books_of(const uint8_t* books) const {
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(books))), spread);
  }
  VNNI __m512i even(__m512i both, __m512i books) const { return level(both, books); }
  VNNI __m512i odd(__m512i both, __m512i books) const { return level(_mm512_srli_epi16(both, 4), books); }

 private:
  VNNI __m512i level(__m512i places, __m512i books) const {
    constexpr int kAndOr = 0xea;  // places & low_half | books
    return _mm512_permutex2var_epi8(low, _mm512_ternarylogic_epi32(places, low_half, books, kAndOr), high);
  }
};

template <int R, int N>
VNNI void int4_panel(const Part& p) {
  constexpr int S = R < 4 ? 1 : N;  // blocks side by side: few rows wait for the memory, which gives a line after the other
  const Codebooks codebooks;
  Sums<R> sums;
  const int8_t* lines[R];
  for (int r = 0; r < R; ++r) lines[r] = p.line(r);
  const uint8_t* next = nullptr;
  int64_t asked = 0;
  const int64_t most = part_groups<N>(p, kGroup * kPanel / 2);
  for (int64_t from = 0; from < p.groups; from += most) {
    const int64_t to = from + most < p.groups ? from + most : p.groups;
    for (int block = 0; block < kBlocks && block * kLanes < p.left; block += N) {
      __m512i sum[R][N];
      for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n) sum[r][n] = from ? _mm512_load_si512(sums.of[r][block + n]) : _mm512_set1_epi32(p.begin(r));
      for (int64_t group = from; group < to; ++group) {
        if (asked % (kBlocks / N) == 0) next = p.next(asked / (kBlocks / N));
        ++asked;
        for (int first = 0; first < N; first += S) {
          const int64_t at = group * kBlocks + block + first;
          __m512i books[S];
          for (int n = 0; n < S; ++n) books[n] = codebooks.books_of(p.books + (at + n) * kLanes);
          for (int pair = 0; pair < 4; ++pair) {
            __m512i even[S], odd[S];
            for (int n = 0; n < S; ++n, next += 64) {
              const __m512i both = _mm512_loadu_si512(p.weights + ((at + n) * 4 + pair) * 64);
              ask_for(next);
              even[n] = codebooks.even(both, books[n]), odd[n] = codebooks.odd(both, books[n]);
            }
            const int64_t input = group * kGroup + pair * 8;
            for (int r = 0; r < R; ++r) {
              const __m512i x = word_for<S>(lines[r] + input);
              for (int n = 0; n < S; ++n) sum[r][first + n] = _mm512_dpbusd_epi32(sum[r][first + n], even[n], x);
            }
            for (int r = 0; r < R; ++r) {
              const __m512i x = word_for<S>(lines[r] + input + 4);
              for (int n = 0; n < S; ++n) sum[r][first + n] = _mm512_dpbusd_epi32(sum[r][first + n], odd[n], x);
            }
          }
        }
      }
      for (int r = 0; r < R; ++r)
        for (int n = 0; n < N; ++n) {
          if (to == p.groups) p.finish_block(sum[r][n], r, block + n);
          else _mm512_store_si512(sums.of[r][block + n], sum[r][n]);
        }
    }
  }
}

using Kernel = void (*)(const Part&);
// Blocks by rows, as measured: few rows wait for the memory, whose lines then come in their order; the sums of many fill the
// registers, and their products keep the processor busy.
constexpr Kernel kInt8[kRows] = {int8_panel<1, 4>, int8_panel<2, 4>, int8_panel<3, 4>, int8_panel<4, 4>,
                                 int8_panel<5, 4>, int8_panel<6, 2>, int8_panel<7, 2>, int8_panel<8, 1>,
                                 int8_panel<9, 1>, int8_panel<10, 1>, int8_panel<11, 1>, int8_panel<12, 1>,
                                 int8_panel<13, 1>, int8_panel<14, 1>, int8_panel<15, 1>, int8_panel<16, 1>};
constexpr Kernel kInt4[kRows] = {int4_panel<1, 4>, int4_panel<2, 4>, int4_panel<3, 4>, int4_panel<4, 2>,
                                 int4_panel<5, 1>, int4_panel<6, 1>, int4_panel<7, 1>, int4_panel<8, 1>,
                                 int4_panel<9, 1>, int4_panel<10, 1>, int4_panel<11, 1>, int4_panel<12, 1>,
                                 int4_panel<13, 1>, int4_panel<14, 1>, int4_panel<15, 1>, int4_panel<16, 1>};

#ifdef STRETTO_TILES
// One step of 64 inputs for four blocks: `w` holds for each word the four blocks' 64 bytes.
inline AMX void multiply_tiles(const int8_t* x, int64_t x_stride, const uint8_t* w) {
  constexpr int64_t kWord = kPanel * 4;
  _tile_loadd(4, x, x_stride);
  _tile_loadd(5, w, kWord);
  _tile_loadd(6, w + 64, kWord);
  _tile_dpbsud(0, 4, 5);
  _tile_loadd(7, w + 128, kWord);
  _tile_dpbsud(1, 4, 6);
  _tile_loadd(5, w + 192, kWord);
  _tile_dpbsud(2, 4, 7);
  _tile_dpbsud(3, 4, 5);
}

// The tiles of two groups of 32 inputs, one for each block. All four lie in one page: a load of a tile would wait for a
// store at the same place of another page.
constexpr int64_t kTileBytes = kTileRows * 64;
struct alignas(4096) Unpacked {
  uint8_t tiles[kBlocks][kTileBytes];
};

// What to ask of the memory while two groups are used.
struct Asked {
  const uint8_t* of[2];
};

inline VNNI Asked asked_for(const Part& p, int64_t group) {
  const uint8_t* first = p.next(group);
  return {{first, group + 1 < p.groups ? p.next(group + 1) : first}};
}

// One block's part of two groups, as a tile. A group that is not there leaves what was there, which inputs of nought make
// nothing of.
inline VNNI void unpack(const Part& p, const Codebooks& codebooks, int64_t group, int block, const Asked& asked, uint8_t* to) {
  for (int half = 0; half < 2 && group + half < p.groups; ++half) {
    const int64_t at = (group + half) * kBlocks + block;
    const uint8_t* w = p.weights + at * 4 * 64;
    const __m512i books = codebooks.books_of(p.books + at * kLanes);
    for (int pair = 0; pair < 4; ++pair, to += 2 * 64) {
      const __m512i both = _mm512_loadu_si512(w + pair * 64);
      ask_for(asked.of[half] + (block * 4 + pair) * 64);
      _mm512_store_si512(to, codebooks.even(both, books));
      _mm512_store_si512(to + 64, codebooks.odd(both, books));
    }
  }
}

// While a tile is made, the one before the last is multiplied: by then it is in the cache.
inline AMX void multiply_unpacked(const Part& p) {
  static thread_local Unpacked unpacked;
  uint8_t(*tiles)[kTileBytes] = unpacked.tiles;
  const Codebooks codebooks;
  const int8_t* x = p.line(0);
  for (int64_t group = 0; group < p.groups; group += 2, x += 2 * kGroup) {
    const Asked asked = asked_for(p, group);
    unpack(p, codebooks, group, 0, asked, tiles[0]);
    settle(tiles);
    if (group) {
      _tile_loadd(5, tiles[2], 64);
      _tile_dpbsud(2, 4, 5);
    }
    unpack(p, codebooks, group, 1, asked, tiles[1]);
    settle(tiles);
    if (group) {
      _tile_loadd(6, tiles[3], 64);
      _tile_dpbsud(3, 4, 6);
    }
    _tile_loadd(4, x, p.rows.stride);
    unpack(p, codebooks, group, 2, asked, tiles[2]);
    settle(tiles);
    _tile_loadd(7, tiles[0], 64);
    _tile_dpbsud(0, 4, 7);
    unpack(p, codebooks, group, 3, asked, tiles[3]);
    settle(tiles);
    _tile_loadd(5, tiles[1], 64);
    _tile_dpbsud(1, 4, 5);
  }
  _tile_loadd(5, tiles[2], 64);
  _tile_dpbsud(2, 4, 5);
  _tile_loadd(6, tiles[3], 64);
  _tile_dpbsud(3, 4, 6);
}

inline AMX void tiles_panel(const Part& p, int count) {
  alignas(64) int32_t sums[kBlocks][kTileRows][kLanes];
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  if (p.books) {
    multiply_unpacked(p);
  } else {
    const uint8_t* w = p.weights;
    for (int64_t input = 0; input < p.groups * kGroup; input += 64, w += 64 * kPanel) {
      for (int half = 0; half < 2; ++half) {
        const uint8_t* next = p.next(input / kGroup + half);
        for (int line = 0; line < kPanel / 2; ++line) ask_for(next + line * 64);
      }
      multiply_tiles(p.line(0) + input, p.rows.stride, w);
    }
  }
  _tile_stored(0, sums[0], 64);
  _tile_stored(1, sums[1], 64);
  _tile_stored(2, sums[2], 64);
  _tile_stored(3, sums[3], 64);
  for (int r = 0; r < count; ++r) {
    const __m512i begin = _mm512_set1_epi32(p.begin(r));
    for (int block = 0; block < kBlocks && block * kLanes < p.left; ++block)
      p.finish_block(_mm512_add_epi32(_mm512_load_si512(sums[block][r]), begin), r, block);
  }
}
#endif

// One panel for all `count` rows.
inline VNNI void panel_of(const Matrix& matrix, int64_t panel, const Rows& rows, int64_t count, const Target& target,
                          bool by_tiles, Ahead* ahead) {
  const int64_t at = panel * kPanel;
  Part part{matrix.weights + panel * matrix.panel_bytes(),
            matrix.books ? matrix.books + panel * matrix.groups() * kPanel : nullptr,
            matrix.scales + at, matrix.groups(), at, matrix.outputs - at, rows, 0, target, ahead, false};
  while (part.first < count) {
    const int64_t left = count - part.first;
#ifdef STRETTO_TILES
    if (by_tiles && left >= kLeastTileRows) {
      const int size = left < kTileRows ? left : kTileRows;
      tiles_panel(part, size);
      part.first += size, part.again = true;
      continue;
    }
#endif
    const int size = left < kRows ? left : kRows;
    (matrix.books ? kInt4 : kInt8)[size - 1](part);
    part.first += size, part.again = true;
  }
}

// How the threads of a team share a product.
struct Turn {
  Share* shares;        // what is left of each thread's own panels
  int num_threads;      // the product was shared out among; a team may be smaller
  Ahead* ahead;         // of this thread
  int64_t used_before;  // bytes of this thread's own panels in the products before this one
};

inline int64_t first_panel(const Matrix& matrix, int thread, int num_threads) { return matrix.panels() * thread / num_threads; }

inline Stretch stretch_of(const Matrix& matrix, int thread, int num_threads) {
  const int64_t first = first_panel(matrix, thread, num_threads), end = first_panel(matrix, thread + 1, num_threads);
  return {matrix.weights + first * matrix.panel_bytes(),
          matrix.books ? matrix.books + first * matrix.groups() * kPanel : nullptr, (end - first) * matrix.groups(),
          matrix.group_bytes()};
}

inline void share_out(const Matrix& matrix, int num_threads, Share* shares) {
  for (int t = 0; t < num_threads; ++t)
    shares[t].set(first_panel(matrix, t, num_threads), first_panel(matrix, t + 1, num_threads));
}

// All panels: a thread takes its own in their order, then what others have not come to, and leaves when none is left.
inline VNNI void product(const Matrix& matrix, const Rows& rows, int64_t count, const Target& target, const Turn& turn) {
#ifdef STRETTO_TILES
  const bool by_tiles = tiles_allowed() && count >= kLeastTileRows && (matrix.books || matrix.groups() % 2 == 0);
  if (by_tiles) configure_tiles();
#else
  const bool by_tiles = false;
#endif
  const int me = thread_number();
  int64_t panel, used = turn.used_before;
  turn.ahead->used(used);
  while (turn.shares[me].take_first(panel)) {
    panel_of(matrix, panel, rows, count, target, by_tiles, turn.ahead);
    turn.ahead->used(used += matrix.panel_bytes());
  }
  for (int other = me + 1; other < me + turn.num_threads; ++other)
    while (turn.shares[other % turn.num_threads].take_last(panel))
      panel_of(matrix, panel, rows, count, target, by_tiles, nullptr);
#ifdef STRETTO_TILES
  if (by_tiles) release_tiles();
#endif
}

}  // namespace stretto
