// Convolutions of rows in bfloat16 by AMX tiles, with ELU and residual in the same pass: what a codec's upsampler is made of.
//
//   out[t] = then(bias + sum over taps of weights[tap] x[t + tap * dilation])
//
// A row is summed in float32, tap by tap and 32 inputs after the other, whatever rows stand beside it, so that a clip's
// samples do not depend on its company. Weights: [outputs / 16][taps * inputs / 32][16 pairs of inputs][16 outputs][2].
#pragma once
#include <vector>

#include "numerics.hpp"
#include "tiles.hpp"

namespace stretto {

// Rows [clips][count][inputs] of bfloat16, each clip's without a gap.
struct Band {
  const uint16_t* at;
  int64_t clip_stride, count;

  const uint16_t* row(int64_t clip, int64_t t, int64_t width) const { return at + clip * clip_stride + t * width; }
};

struct Convolution {
  const uint16_t* weights;
  const float* bias;  // [outputs]
  int64_t inputs, outputs, taps, dilation;  // inputs a multiple of 32, outputs of 16

  int64_t reach() const { return (taps - 1) * dilation; }
  int64_t steps() const { return taps * inputs / 32; }
};

// What becomes of a sum, and where it goes: out [clips][count][outputs] without gaps, in bfloat16 or in float32.
struct Finish {
  Band skip;  // added, [clips][count][outputs]; null at `at` for none
  bool elu;
  uint16_t* rounded;  // one of the two
  float* plain;
};

}  // namespace stretto

#ifdef STRETTO_TILES
#define BANDS \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi,avx512bf16,amx-tile,amx-int8,amx-bf16")))

namespace stretto {

// Whether the processor has tiles of bfloat16, and this process may use them.
inline bool bands_allowed() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!tiles_allowed() || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & 1u << 22)) return false;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 5);
}

inline BANDS __m512 widened(const uint16_t* x) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

inline BANDS void put_rounded(uint16_t* to, __m512 x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)));
}

// Within what bfloat16 tells apart: x itself where e^x - 1 would lose it.
inline BANDS __m512 elu_of(__m512 x) {
  const __m512 below = _mm512_sub_ps(exp_of(_mm512_min_ps(x, _mm512_setzero_ps())), all(1.0f));
  return _mm512_mask_mov_ps(x, _mm512_cmp_ps_mask(x, all(-0x1p-10f), _CMP_LT_OQ), below);
}

// Writes past and the ELU of x, `width` numbers a row, one after the other: out [clips][past.count + x.count][width].
inline BANDS void join_elu(const Band& past, const Band& x, int64_t clips, int64_t width, uint16_t* out) {
  for (int64_t clip = 0; clip < clips; ++clip) {
    std::memcpy(out, past.row(clip, 0, width), past.count * width * 2);
    out += past.count * width;
    const uint16_t* from = x.row(clip, 0, width);
    for (int64_t i = 0; i < x.count * width; i += kLanes) put_rounded(out + i, elu_of(widened(from + i)));
    out += x.count * width;
  }
}

constexpr int64_t kBandRows = 32;           // of two tiles
constexpr int64_t kStreamed = 1024 * 1024;  // bytes of weights that are read once for all rows, not once for each 32

// 32 rows as tiles read them: where the first is, and numbers from one to the next row and tap.
struct Slab {
  const uint16_t* at;
  int64_t row_stride, tap_stride;
};

struct Place {
  int64_t clip, t;
};

inline BANDS void multiply_slab(const Slab& slab, const Convolution& conv, int64_t column, bool is_wide, float (*sums)[32]) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const uint16_t* w = conv.weights + column / 16 * conv.steps() * 512;
  const uint16_t* beside = w + (is_wide ? conv.steps() * 512 : 0);
  const int64_t stride = slab.row_stride * 2;
  for (int64_t tap = 0; tap < conv.taps; ++tap) {
    const uint16_t* x = slab.at + tap * slab.tap_stride;
    for (int64_t i = 0; i < conv.inputs; i += 32, w += 512, beside += 512) {
      _tile_loadd(4, x + i, stride);
      _tile_loadd(6, w, 64);
      _tile_loadd(5, x + i + 16 * slab.row_stride, stride);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(2, 5, 6);
      if (!is_wide) continue;
      _tile_loadd(7, beside, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, sums[0], 128);
  _tile_stored(2, sums[16], 128);
  if (is_wide) {
    _tile_stored(1, &sums[0][16], 128);
    _tile_stored(3, &sums[16][16], 128);
  }
  settle(sums);
}

class BandPass {
 public:
  BandPass(const Band& x, int64_t clips, const Convolution& conv, const Finish& finish)
      : x_(x), clips_(clips), conv_(conv), finish_(finish), count_(x.count - conv.reach()) {}

  BANDS void run() {
    const int64_t rows = clips_ * count_, blocks = (rows + kBandRows - 1) / kBandRows;
    if (rows <= 0) return;
    configure_tiles();
    if (conv_.steps() * 32 * conv_.outputs * 2 < kStreamed) {
      for (int64_t b = 0; b < blocks; ++b) {
        const Slab slab = slab_of(b, 0);
        for (int64_t column = 0; column < conv_.outputs; column += 32) compute(b, slab, column);
      }
    } else {
      std::vector<Slab> ready;
      for (int64_t b = 0; b < blocks; ++b) ready.push_back(slab_of(b, b));
      for (int64_t column = 0; column < conv_.outputs; column += 32)
        for (int64_t b = 0; b < blocks; ++b) compute(b, ready[b], column);
    }
    release_tiles();
  }

 private:
  Place place_of(int64_t row) const { return {row / count_, row % count_}; }

  // As they lie where all 32 are of one clip; gathered into `gathered_[slot]` where not.
  BANDS Slab slab_of(int64_t b, int64_t slot) {
    const Place first = place_of(b * kBandRows);
    if (first.t + kBandRows <= count_) return {x_.row(first.clip, first.t, conv_.inputs), conv_.inputs, conv_.dilation * conv_.inputs};
    const int64_t width = conv_.taps * conv_.inputs;
    if (static_cast<int64_t>(gathered_.size()) <= slot) gathered_.resize(slot + 1);
    gathered_[slot].assign(kBandRows * width, 0);
    uint16_t* to = gathered_[slot].data();
    for (int64_t r = b * kBandRows; r < (b + 1) * kBandRows && r < clips_ * count_; ++r) {
      const Place place = place_of(r);
      for (int64_t tap = 0; tap < conv_.taps; ++tap, to += conv_.inputs)
        std::memcpy(to, x_.row(place.clip, place.t + tap * conv_.dilation, conv_.inputs), conv_.inputs * 2);
    }
    settle(gathered_[slot].data());
    return {gathered_[slot].data(), width, conv_.inputs};
  }

  BANDS void compute(int64_t b, const Slab& slab, int64_t column) {
    alignas(64) float sums[kBandRows][32];
    const bool is_wide = column + 32 <= conv_.outputs;
    multiply_slab(slab, conv_, column, is_wide, sums);
    Place place = place_of(b * kBandRows);
    for (int64_t r = 0; r < kBandRows && b * kBandRows + r < clips_ * count_; ++r) {
      for (int64_t lane = 0; lane < (is_wide ? 32 : 16); lane += kLanes)
        put(place, column + lane, add(_mm512_load_ps(&sums[r][lane]), _mm512_loadu_ps(conv_.bias + column + lane)));
      if (++place.t == count_) ++place.clip, place.t = 0;
    }
  }

  BANDS void put(const Place& place, int64_t column, __m512 value) const {
    const int64_t at = (place.clip * count_ + place.t) * conv_.outputs + column;
    if (finish_.skip.at) value = add(value, widened(finish_.skip.row(place.clip, place.t, conv_.outputs) + column));
    if (finish_.elu) value = elu_of(value);
    if (finish_.plain) _mm512_storeu_ps(finish_.plain + at, value);
    else put_rounded(finish_.rounded + at, value);
  }

  const Band& x_;
  int64_t clips_;
  const Convolution& conv_;
  const Finish& finish_;
  int64_t count_;  // of a clip's outputs
  inline static thread_local std::vector<std::vector<uint16_t>> gathered_;
};

}  // namespace stretto
#endif
