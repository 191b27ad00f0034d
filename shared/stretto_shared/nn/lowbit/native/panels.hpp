// Panels of low-bit weights by rows: sums of integers, exact in any order, that become floats by two multiplications,
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

// Adds the products of 64 weights and one word of a row, which the instruction itself takes from memory for all lanes: a
// compiler may load it first, and then has too few registers for the sums of 16 rows.
inline VNNI __attribute__((always_inline)) void add_word(__m512i& sum, __m512i weights, const int8_t* x) {
  using Word = int32_t __attribute__((may_alias));
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(weights), "m"(*reinterpret_cast<const Word*>(x)));
}

// R rows that lie a stride apart: three registers say where each of four is.
template <int R>
struct ManyRows {
  const int8_t* fourth[(R + 3) / 4];
  int64_t stride, thrice;

  VNNI ManyRows(const Part& p, int64_t input) : stride(p.rows.stride), thrice(3 * p.rows.stride) {
    for (int q = 0; q < (R + 3) / 4; ++q) fourth[q] = p.line(4 * q) + input;
  }
  VNNI __attribute__((always_inline)) void go_on() {
    for (const int8_t*& x : fourth) x += kGroup;
    asm("" : "+r"(stride), "+r"(thrice));  // or the compiler keeps a sum of them for every place in a group, on the stack
  }
  VNNI __attribute__((always_inline)) const int8_t* at(int r, int64_t input) const {
    return fourth[r / 4] + (r % 4 == 3 ? thrice : r % 4 * stride) + input;
  }
  VNNI __attribute__((always_inline)) void add(__m512i (&sum)[R], __m512i weights, int64_t input) const {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) add_word(sum[r], weights, at(r, input));
  }
};

// So many rows that the sums of one block fill the registers: block after block over parts of a panel.
template <int R, bool has_books>
VNNI void many_rows(const Part& p) {
  constexpr int64_t kLines = kGroup / (has_books ? 8 : 4);  // of a group and a block
  constexpr int64_t kBetween = has_books ? 1 : kBlocks, kOfGroup = kLines * kBlocks, kOfBlock = has_books ? kLines : 1;  // lines
  const Codebooks codebooks;
  Sums<R> sums;
  const uint8_t* next = nullptr;
  int64_t asked = 0;
  const int64_t most = kPartBytes / p.group_bytes();
  for (int64_t from = 0; from < p.groups; from += most) {
    const int64_t to = from + most < p.groups ? from + most : p.groups;
    for (int block = 0; block < kBlocks && block * kLanes < p.left; ++block) {
      __m512i sum[R];
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) sum[r] = from ? _mm512_load_si512(sums.of[r][block]) : _mm512_set1_epi32(p.begin(r));
      ManyRows<R> rows(p, from * kGroup);
      const uint8_t* w = p.weights + (from * kOfGroup + block * kOfBlock) * 64;
      for (int64_t group = from; group < to; ++group, w += kOfGroup * 64, rows.go_on()) {
        if (asked % kBlocks == 0) next = p.next(asked / kBlocks);
        ++asked;
        const __m512i books = has_books ? codebooks.books_of(p.books + (group * kBlocks + block) * kLanes) : __m512i{};
#pragma GCC unroll 8
        for (int line = 0; line < kLines; ++line, next += 64) {
          const __m512i weights = _mm512_loadu_si512(w + line * kBetween * 64);
          ask_for(next);
          if (has_books) {
            const __m512i even = codebooks.even(weights, books), odd = codebooks.odd(weights, books);
            rows.add(sum, even, line * 8);
            rows.add(sum, odd, line * 8 + 4);
          } else {
            rows.add(sum, weights, line * 4);
          }
        }
      }
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        if (to == p.groups) p.finish_block(sum[r], r, block);
        else _mm512_store_si512(sums.of[r][block], sum[r]);
      }
    }
  }
}

using Kernel = void (*)(const Part&);
// Blocks by rows, as measured: few rows wait for the memory, whose lines then come in their order; the sums of many fill the
// registers, and their products keep the processor busy.
constexpr Kernel kInt8[kRows] = {int8_panel<1, 4>, int8_panel<2, 4>, int8_panel<3, 4>, int8_panel<4, 4>,
                                 int8_panel<5, 4>, int8_panel<6, 2>, int8_panel<7, 2>, many_rows<8, false>,
                                 many_rows<9, false>, many_rows<10, false>, many_rows<11, false>, many_rows<12, false>,
                                 many_rows<13, false>, many_rows<14, false>, many_rows<15, false>, many_rows<16, false>};
constexpr Kernel kInt4[kRows] = {int4_panel<1, 4>, int4_panel<2, 4>, int4_panel<3, 4>, int4_panel<4, 2>,
                                 many_rows<5, true>, many_rows<6, true>, many_rows<7, true>, many_rows<8, true>,
                                 many_rows<9, true>, many_rows<10, true>, many_rows<11, true>, many_rows<12, true>,
                                 many_rows<13, true>, many_rows<14, true>, many_rows<15, true>, many_rows<16, true>};

}  // namespace stretto
