// Convolutions of rows in bfloat16, with ELU and residual in the same pass: what a codec's upsampler is made of.
//
//   out[t] = then(bias + sum over taps of weights[tap] x[t + tap * dilation])
//
// A row is summed in float32, in one order whatever rows stand beside it, so that a clip's samples do not depend on its
// company: tap by tap, and 32 inputs after the other in AMX tiles (band_tiles.hpp), 2 in AVX-512 (band_vectors.hpp).
// Weights: [outputs / 16][stored][16 pairs of inputs][16 outputs][2].
#pragma once
#include <vector>

#include "vectors.hpp"

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
  int64_t again;                            // so many first inputs' weights serve as many inputs after them too; 0 for none
  int64_t used;                             // so many first outputs are wanted
  bool is_float;  // a pair of inputs, and of weights, is one number in float32: by AVX-512 only

  int64_t reach() const { return (taps - 1) * dilation; }
  int64_t stored() const { return taps * (inputs - again) / 32; }  // tiles of 16 outputs
};

// What becomes of a sum, and where it goes: out [clips][count][outputs] without gaps, in bfloat16 or in float32.
struct Finish {
  Band early, skip;  // added, the rows of `early` and after them those of `skip`, as many outputs wide; null at `at` for none
  bool elu;
  uint16_t* rounded;  // one of the two
  float* plain;
};

// Writes past and the ELU of x, `width` numbers a row, one after the other: out [clips][past.count + x.count][width].
inline VECTORS void join_elu(const Band& past, const Band& x, int64_t clips, int64_t width, uint16_t* out) {
  for (int64_t clip = 0; clip < clips; ++clip) {
    std::memcpy(out, past.row(clip, 0, width), past.count * width * 2);
    out += past.count * width;
    const uint16_t* from = x.row(clip, 0, width);
    for (int64_t i = 0; i < x.count * width; i += kLanes) put_rounded(out + i, elu_of(widened(from + i)));
    out += x.count * width;
  }
}

constexpr int64_t kStreamed = 1024 * 1024;  // bytes of weights that are read once for many rows, not once for a few

struct Place {
  int64_t clip, t;
};

// The rows of all clips as a pass counts them, and what it does with a row's sums.
class BandRows {
 public:
  BandRows(const Band& x, int64_t clips, const Convolution& conv, const Finish& finish)
      : x_(x), conv_(conv), finish_(finish), count_(x.count - conv.reach()), rows_(clips * count_) {}

 protected:
  bool is_streamed() const { return conv_.stored() * 32 * conv_.outputs * 2 >= kStreamed; }
  Place place_of(int64_t row) const { return {row / count_, row % count_}; }

  void go_on(Place& place) const {
    if (++place.t == count_) ++place.clip, place.t = 0;
  }

  const uint16_t* skip_of(const Place& place) const {
    if (!finish_.skip.at) return nullptr;
    const bool is_early = place.t < finish_.early.count;
    const Band& skip = is_early ? finish_.early : finish_.skip;
    return skip.row(place.clip, is_early ? place.t : place.t - finish_.early.count, conv_.outputs);
  }

  // Rows of sums [count][stride], `width` outputs of each from `column` on; `skip` has what is added to each row.
  VECTORS void put(int64_t row, int64_t count, const uint16_t* const* skip, int64_t column, int64_t width, const float* sums,
                   int64_t stride) const {
    const Rows rows{row, count, skip, column, width, sums, stride};
    if (finish_.plain) return finish_.skip.at ? put_all<true, false, true>(rows) : put_all<false, false, true>(rows);
    if (finish_.skip.at) return finish_.elu ? put_all<true, true, false>(rows) : put_all<true, false, false>(rows);
    return finish_.elu ? put_all<false, true, false>(rows) : put_all<false, false, false>(rows);
  }

  const Band& x_;
  const Convolution& conv_;
  const Finish& finish_;
  int64_t count_, rows_;  // outputs of a clip, and of all

 private:
  struct Rows {
    int64_t first, count;
    const uint16_t* const* skip;
    int64_t column, width;
    const float* sums;
    int64_t stride;
  };

  template <bool has_skip, bool has_elu, bool is_plain>
  VECTORS void put_all(const Rows& rows) const {
    const float* bias = conv_.bias + rows.column;
    for (int64_t r = 0; r < rows.count; ++r) {
      const float* sums = rows.sums + r * rows.stride;
      const int64_t at = (rows.first + r) * conv_.outputs + rows.column;
      for (int64_t lane = 0; lane < rows.width; lane += kLanes) {
        __m512 value = add(_mm512_loadu_ps(sums + lane), _mm512_loadu_ps(bias + lane));
        if (has_skip) value = add(value, widened(rows.skip[r] + rows.column + lane));
        if (has_elu) value = elu_of(value);
        if (is_plain) _mm512_storeu_ps(finish_.plain + at + lane, value);
        else put_rounded(finish_.rounded + at + lane, value);
      }
    }
  }
};

}  // namespace stretto

#ifdef STRETTO_TILES
#define BANDS \
  __attribute__(( \
      target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx512bf16,amx-tile,amx-int8,amx-bf16")))
#endif
