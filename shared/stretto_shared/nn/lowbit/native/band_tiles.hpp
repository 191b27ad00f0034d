// Convolutions of rows by AMX tiles of bfloat16.
#pragma once
#include "bands.hpp"

#ifdef STRETTO_TILES
namespace stretto {

constexpr int64_t kBandRows = 32;           // of two tiles
constexpr int64_t kOneTile = 16;            // of one

// Up to 32 rows as tiles read them: where the first is, and numbers from one to the next row, 32 inputs and tap.
struct Slab {
  const uint16_t* at;
  int64_t rows, row_stride, block_stride, tap_stride;
};

// Calls product(x, w) for every 32 inputs of every tap, in order, with the rows' inputs and the weights' tile.
template <class Product>
inline BANDS __attribute__((always_inline)) void for_steps(const Slab& slab, const Convolution& conv, const uint16_t* w,
                                                           const Product& product) {
  for (int64_t tap = 0; tap < conv.taps; ++tap) {
    const uint16_t* x = slab.at + tap * slab.tap_stride;
    for (int64_t i = 0; i < conv.inputs; i += 32, x += slab.block_stride, w += 512) {
      if (i > 0 && i == conv.again) w -= conv.again / 32 * 512;
      product(x, w);
    }
  }
}

// 32 rows, and 32 outputs or 16.
template <bool is_wide>
inline BANDS void multiply_slab(const Slab& slab, const Convolution& conv, int64_t column, float* sums) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const int64_t stride = slab.row_stride * 2, below = 16 * slab.row_stride, beside = conv.stored() * 512;
  for_steps(slab, conv, conv.weights + column / 16 * beside, [&](const uint16_t* x, const uint16_t* w) BANDS {
    _tile_loadd(4, x, stride);
    _tile_loadd(6, w, 64);
    _tile_loadd(5, x + below, stride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(2, 5, 6);
    if (!is_wide) return;
    _tile_loadd(7, w + beside, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
  });
  _tile_stored(0, sums, 256);
  _tile_stored(2, sums + 16 * 64, 256);
  if (is_wide) {
    _tile_stored(1, sums + 16, 256);
    _tile_stored(3, sums + 16 * 64 + 16, 256);
  }
  settle(sums);
}

// Up to 16 rows, and 64 outputs or 16: as fast as the weights come.
template <bool is_wide>
inline BANDS void multiply_few(const Slab& slab, const Convolution& conv, int64_t column, float* sums) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const int64_t stride = slab.row_stride * 2, beside = conv.stored() * 512;
  for_steps(slab, conv, conv.weights + column / 16 * beside, [&](const uint16_t* x, const uint16_t* w) BANDS {
    _tile_loadd(4, x, stride);
    _tile_loadd(6, w, 64);
    _tile_dpbf16ps(0, 4, 6);
    if (!is_wide) return;
    _tile_loadd(7, w + beside, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(6, w + 2 * beside, 64);
    _tile_dpbf16ps(2, 4, 6);
    _tile_loadd(7, w + 3 * beside, 64);
    _tile_dpbf16ps(3, 4, 7);
  });
  _tile_stored(0, sums, 256);
  if (is_wide) {
    _tile_stored(1, sums + 16, 256);
    _tile_stored(2, sums + 32, 256);
    _tile_stored(3, sums + 48, 256);
  }
  settle(sums);
}

class TilesPass : BandRows {
 public:
  using BandRows::BandRows;

  BANDS void run() {
    if (count_ <= 0 || rows_ <= 0) return;
    const int64_t blocks = (rows_ + kBandRows - 1) / kBandRows;
    configure_tiles(rows_ < kOneTile ? rows_ : kOneTile);
    if (!is_streamed()) {
      for (int64_t b = 0; b < blocks; ++b) {
        const Slab slab = slab_of(b, 0);
        for (int64_t column = 0; column < conv_.outputs;) column += compute(b, slab, column);
      }
    } else {
      std::vector<Slab> ready;
      for (int64_t b = 0; b < blocks; ++b) ready.push_back(slab_of(b, b));
      for (int64_t column = 0, done = 0; column < conv_.outputs; column += done)
        for (int64_t b = 0; b < blocks; ++b) done = compute(b, ready[b], column);
    }
    release_tiles();
  }

 private:
  // As they lie where all 32 are of one clip; gathered into `gathered_[slot]` where not. Few are laid out as tiles read
  // them, which is often: rows that lie a power of two apart push each other out of the nearest cache.
  BANDS Slab slab_of(int64_t b, int64_t slot) {
    Place place = place_of(b * kBandRows);
    if (place.t + kBandRows <= count_)
      return {x_.row(place.clip, place.t, conv_.inputs), kBandRows, conv_.inputs, 32, conv_.dilation * conv_.inputs};
    const bool are_few = rows_ <= kOneTile;
    const int64_t left = rows_ - b * kBandRows, rows = left < kBandRows ? left : kBandRows;
    const int64_t room = are_few ? rows : kBandRows, width = conv_.taps * conv_.inputs;
    const int64_t row_stride = are_few ? 32 : width, block_stride = are_few ? room * 32 : 32;
    if (static_cast<int64_t>(gathered_.size()) <= slot) gathered_.resize(slot + 1);
    std::vector<uint16_t>& to = gathered_[slot];
    to.assign(room * width, 0);
    for (int64_t r = 0; r < rows; ++r) {
      uint16_t* at = to.data() + r * row_stride;
      for (int64_t tap = 0; tap < conv_.taps; ++tap) {
        const uint16_t* from = x_.row(place.clip, place.t + tap * conv_.dilation, conv_.inputs);
        for (int64_t i = 0; i < conv_.inputs; i += 32, at += block_stride)
          _mm512_storeu_si512(at, _mm512_loadu_si512(from + i));
      }
      go_on(place);
    }
    settle(to.data());
    return {to.data(), rows, row_stride, block_stride, conv_.inputs / 32 * block_stride};
  }

  // Returns the number of outputs.
  BANDS int64_t compute(int64_t b, const Slab& slab, int64_t column) {
    alignas(64) float sums[kBandRows * 64];
    const int64_t left = conv_.outputs - column;
    int64_t width = 16;
    if (rows_ <= kOneTile) {
      width = left >= 64 ? 64 : 16;
      left >= 64 ? multiply_few<true>(slab, conv_, column, sums) : multiply_few<false>(slab, conv_, column, sums);
    } else {
      width = left >= 32 ? 32 : 16;
      left >= 32 ? multiply_slab<true>(slab, conv_, column, sums) : multiply_slab<false>(slab, conv_, column, sums);
    }
    Place place = place_of(b * kBandRows);
    const uint16_t* skip[kBandRows];
    for (int64_t r = 0; r < slab.rows; ++r, go_on(place)) skip[r] = skip_of(place);
    put(b * kBandRows, slab.rows, skip, column, width, sums, 64);
    return width;
  }

  inline static thread_local std::vector<std::vector<uint16_t>> gathered_;
};

}  // namespace stretto
#endif
