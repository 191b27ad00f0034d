// Products of few rows with low-bit weights, for processors with AVX-512 VNNI. No torch, no C++ beyond templates: a C
// ABI over pointers, called by native.py. `linear.py` has the same arithmetic in torch, and tests hold both to the bit.
//
// Rows are quantised to int8 with one scale each, products are summed in int32, which is exact in any order, and a sum
// becomes a float by two multiplications: (sum * weight_scale) * row_scale. So a row's result depends on no other row.
//
// Layouts: outputs in panels of 64 (4 blocks of 16 lanes), inputs in words of 4, padded with what adds nothing.
//   int8: bytes [panel][word][block][lane][4], value + 128.
//   int4: bytes [panel][group][block][4][lane][4], the value + 8 of an even word in the low half and that of the odd
//         word after it in the high half; a group is 32 inputs. Multipliers [panel][group][64], 1 to 31: the weight is
//         value * multiplier * weight_scale.
// Every byte of the weights is read from memory once for all rows, `kRows` of which are in registers at a time.
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))

namespace {

constexpr int kPanel = 64, kBlocks = 4, kLanes = 16, kGroup = 32, kRows = 8;
constexpr int64_t kAhead = 8192;  // bytes from the weights in use to those that are asked of the memory
constexpr float kLeastMagnitude = 1e-30f;  // a row below it is nought: 127 / magnitude would leave the range of floats
constexpr int32_t kInfinityBits = 0x7f800000;

// Rows as the products read them. `q` [word][row][4]; `sums` [group][row] of q; `scales` [row].
struct Rows {
  std::vector<int8_t> q, line;
  std::vector<int32_t> sums;
  float scales[kRows];
};

// A row with an infinity or NaN has the scale NaN and nothing else, so that all of its results are NaN.
VNNI void quantise(const float* x, int row, int rows, int64_t inputs, int64_t groups, Rows& to) {
  int32_t largest_bits = 0;
  for (int64_t i = 0; i < inputs; ++i) {
    int32_t bits;
    std::memcpy(&bits, x + i, 4);
    bits &= 0x7fffffff;
    largest_bits = bits > largest_bits ? bits : largest_bits;
  }
  float magnitude;
  std::memcpy(&magnitude, &largest_bits, 4);
  const bool is_finite = largest_bits < kInfinityBits, is_nought = magnitude < kLeastMagnitude;
  const float inverse = is_finite && !is_nought ? 127.0f / magnitude : 0.0f;
  to.scales[row] = !is_finite ? __builtin_nanf("") : is_nought ? 0.0f : magnitude / 127.0f;
  int8_t* line = to.line.data();
  std::memset(line, 0, groups * kGroup);
  if (inverse != 0.0f) {
    const __m512 factor = _mm512_set1_ps(inverse);
    for (int64_t i = 0; i < inputs; i += kLanes) {
      const __mmask16 mask = inputs - i < kLanes ? (1u << (inputs - i)) - 1 : 0xffff;
      const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), factor));
      _mm_mask_storeu_epi8(line + i, mask, _mm512_cvtepi32_epi8(rounded));
    }
  }
  for (int64_t group = 0; group < groups; ++group) {
    int32_t sum = 0;
    for (int i = 0; i < kGroup; ++i) sum += line[group * kGroup + i];
    to.sums[group * rows + row] = sum;
  }
  for (int64_t word = 0; word < groups * kGroup / 4; ++word)
    std::memcpy(to.q.data() + (word * rows + row) * 4, line + word * 4, 4);
}

inline VNNI __m512i word_of(const int8_t* q) {
  int32_t word;
  std::memcpy(&word, q, 4);
  return _mm512_set1_epi32(word);
}

inline VNNI void store(__m512i sum, const float* weight_scales, float row_scale, float* out, int64_t left) {
  const __mmask16 mask = left >= kLanes ? 0xffff : left <= 0 ? 0 : (1u << left) - 1;
  const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_loadu_ps(weight_scales));
  _mm512_mask_storeu_ps(out, mask, _mm512_mul_ps(scaled, _mm512_set1_ps(row_scale)));
}

struct Panel {
  const uint8_t *weights, *multipliers;  // of this panel
  const float* scales;                   // [64]
  float* out;                            // first output of this panel in the first of the rows
  int64_t groups, outputs, left;         // `left`: outputs from this panel on
};

template <int R, int N>  // rows, and blocks whose sums are in registers together
VNNI void int8_panel(const Panel& p, const Rows& rows) {
  int32_t first[R] = {};
  for (int64_t group = 0; group < p.groups; ++group)
    for (int r = 0; r < R; ++r) first[r] -= 128 * rows.sums[group * R + r];
  for (int block = 0; block < kBlocks && block * kLanes < p.left; block += N) {
    __m512i sum[N][R];
    for (int n = 0; n < N; ++n)
      for (int r = 0; r < R; ++r) sum[n][r] = _mm512_set1_epi32(first[r]);
    const uint8_t* w = p.weights + block * 64;
    const int8_t* q = rows.q.data();
    for (int64_t word = 0; word < p.groups * (kGroup / 4); ++word, w += kBlocks * 64, q += R * 4) {
      __m512i weights[N];
      for (int n = 0; n < N; ++n) {
        weights[n] = _mm512_loadu_si512(w + n * 64);
        _mm_prefetch(reinterpret_cast<const char*>(w + n * 64 + kAhead), _MM_HINT_T0);
      }
      for (int r = 0; r < R; ++r) {
        const __m512i x = word_of(q + r * 4);
        for (int n = 0; n < N; ++n) sum[n][r] = _mm512_dpbusd_epi32(sum[n][r], weights[n], x);
      }
    }
    for (int n = 0; n < N; ++n) {
      const int at = (block + n) * kLanes;
      for (int r = 0; r < R; ++r) store(sum[n][r], p.scales + at, rows.scales[r], p.out + r * p.outputs + at, p.left - at);
    }
  }
}

template <int R, int N>
VNNI void int4_panel(const Panel& p, const Rows& rows) {
  const __m512i low_half = _mm512_set1_epi8(0x0f);
  for (int block = 0; block < kBlocks && block * kLanes < p.left; block += N) {
    __m512i sum[N][R];
    for (int n = 0; n < N; ++n)
      for (int r = 0; r < R; ++r) sum[n][r] = _mm512_setzero_si512();
    for (int64_t group = 0; group < p.groups; ++group) {
      const int8_t* q = rows.q.data() + group * kGroup * R;
      for (int n = 0; n < N; ++n) {
        const uint8_t* w = p.weights + ((group * kBlocks + block + n) * 4) * 64;
        __m512i part[R];  // of 32 products of at most 127 * 8, so that it fits 16 bits
        for (int r = 0; r < R; ++r) part[r] = _mm512_set1_epi32(-8 * rows.sums[group * R + r]);
        for (int pair = 0; pair < 4; ++pair) {
          const __m512i both = _mm512_loadu_si512(w + pair * 64);
          _mm_prefetch(reinterpret_cast<const char*>(w + pair * 64 + kAhead), _MM_HINT_T0);
          const __m512i even = _mm512_and_si512(both, low_half);
          const __m512i odd = _mm512_and_si512(_mm512_srli_epi16(both, 4), low_half);
          for (int r = 0; r < R; ++r) part[r] = _mm512_dpbusd_epi32(part[r], even, word_of(q + (2 * pair * R + r) * 4));
          for (int r = 0; r < R; ++r) part[r] = _mm512_dpbusd_epi32(part[r], odd, word_of(q + ((2 * pair + 1) * R + r) * 4));
        }
        const uint8_t* m = p.multipliers + group * kPanel + (block + n) * kLanes;
        const __m512i multiplier = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(m)));
        for (int r = 0; r < R; ++r) sum[n][r] = _mm512_dpwssd_epi32(sum[n][r], part[r], multiplier);
      }
    }
    for (int n = 0; n < N; ++n) {
      const int at = (block + n) * kLanes;
      for (int r = 0; r < R; ++r) store(sum[n][r], p.scales + at, rows.scales[r], p.out + r * p.outputs + at, p.left - at);
    }
  }
}

using Kernel = void (*)(const Panel&, const Rows&);
constexpr Kernel kInt8[kRows] = {int8_panel<1, 4>, int8_panel<2, 4>, int8_panel<3, 4>, int8_panel<4, 4>,
                                 int8_panel<5, 4>, int8_panel<6, 4>, int8_panel<7, 2>, int8_panel<8, 2>};
constexpr Kernel kInt4[kRows] = {int4_panel<1, 4>, int4_panel<2, 4>, int4_panel<3, 4>, int4_panel<4, 4>,
                                 int4_panel<5, 2>, int4_panel<6, 2>, int4_panel<7, 2>, int4_panel<8, 2>};

// Out [rows, outputs] = x [rows, inputs] times the weights; `multipliers` is null for int8.
void multiply(const float* x, int64_t rows, int64_t inputs, int64_t outputs, const uint8_t* weights,
              const uint8_t* multipliers, const float* scales, float* out, int num_threads) {
  const int64_t groups = (inputs + kGroup - 1) / kGroup, panels = (outputs + kPanel - 1) / kPanel;
  const int64_t panel_bytes = groups * kGroup * kPanel / (multipliers ? 2 : 1);
  static thread_local std::vector<Rows> chunks;
  const int64_t num_chunks = (rows + kRows - 1) / kRows;
  if (static_cast<int64_t>(chunks.size()) < num_chunks) chunks.resize(num_chunks);
  for (int64_t chunk = 0; chunk < num_chunks; ++chunk) {
    const int size = rows - chunk * kRows < kRows ? rows - chunk * kRows : kRows;
    Rows& to = chunks[chunk];
    to.q.resize(groups * kGroup * size), to.line.resize(groups * kGroup), to.sums.resize(groups * size);
    for (int row = 0; row < size; ++row) quantise(x + (chunk * kRows + row) * inputs, row, size, inputs, groups, to);
  }
  const Rows* ready = chunks.data();  // of this thread, for all
#pragma omp parallel for schedule(dynamic) num_threads(num_threads) if (num_threads > 1)
  for (int64_t panel = 0; panel < panels; ++panel) {
    const int64_t at = panel * kPanel;
    Panel p{weights + panel * panel_bytes, multipliers ? multipliers + panel * groups * kPanel : nullptr,
            scales + at, nullptr, groups, outputs, outputs - at};
    for (int64_t chunk = 0; chunk < num_chunks; ++chunk) {
      const int size = rows - chunk * kRows < kRows ? rows - chunk * kRows : kRows;
      p.out = out + chunk * kRows * outputs + at;
      (multipliers ? kInt4 : kInt8)[size - 1](p, ready[chunk]);
    }
  }
}

}  // namespace

extern "C" int stretto_is_supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

extern "C" void stretto_multiply(const float* x, int64_t rows, int64_t inputs, int64_t outputs, const uint8_t* weights,
                                 const uint8_t* multipliers, const float* scales, float* out, int num_threads) {
  multiply(x, rows, inputs, outputs, weights, multipliers, scales, out, num_threads);
}

#else
extern "C" int stretto_is_supported() { return 0; }
extern "C" void stretto_multiply(const float*, int64_t, int64_t, int64_t, const uint8_t*, const uint8_t*, const float*, float*,
                                 int) {}
#endif
