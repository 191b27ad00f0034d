// Convolutions of rows by AVX-512, in bfloat16 or float32, and the choice between it and tiles.
#pragma once
#include "band_tiles.hpp"

namespace stretto {

template <bool is_float>
inline VECTORS __attribute__((always_inline)) __m512 add_product(__m512 sum, __m512i weights, __m512i x) {
  if (is_float) return _mm512_fmadd_ps(_mm512_castsi512_ps(weights), _mm512_castsi512_ps(x), sum);
  return _mm512_dpbf16_ps(sum, (__m512bh)weights, (__m512bh)x);
}

// The sums [R][stride] of R rows and N blocks of 16 outputs; has what lies at `soon`, as long as a block's weights, come
// nearer. Sums of 16 vectors or more hide how long a product takes, and those of up to 24 leave room for what they are of.
template <int R, int N, bool is_float>
inline VECTORS void multiply_band(const uint16_t* const* rows, const Convolution& conv, const uint16_t* weights,
                                  const uint16_t* soon, float* sums, int64_t stride) {
  __m512 sum[R][N];
  const uint16_t* x[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    x[r] = rows[r];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) sum[r][n] = _mm512_setzero_ps();
  }
  const int64_t beside = conv.stored() * 512, on = conv.dilation * conv.inputs;
  for (int64_t tap = 0; tap < conv.taps; ++tap) {
    int64_t end = conv.again ? conv.again : conv.inputs;
    for (int64_t i = 0; i < conv.inputs; end = conv.inputs) {
      if (i > 0) weights -= conv.again * 16;
      for (; i < end; i += 2, weights += 32, soon += 32) {
        _mm_prefetch(reinterpret_cast<const char*>(soon), _MM_HINT_T1);
        __m512i w[N];
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) w[n] = _mm512_loadu_si512(weights + n * beside);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          int32_t pair;
          std::memcpy(&pair, x[r] + i, 4);
          __m512i both = _mm512_set1_epi32(pair);
          asm("" : "+v"(both));  // once into a register, not once for each product
#pragma GCC unroll 8
          for (int n = 0; n < N; ++n) sum[r][n] = add_product<is_float>(sum[r][n], w[n], both);
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) x[r] += on;
  }
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < N; ++n) _mm512_storeu_ps(sums + r * stride + n * kLanes, sum[r][n]);
}

using MultiplyBand = void (*)(const uint16_t* const*, const Convolution&, const uint16_t*, const uint16_t*, float*, int64_t);

constexpr int kMostBandRows = 8;  // of one call

template <int N, bool is_float>
inline MultiplyBand multiply_of(int64_t rows) {
  constexpr int kMost = N == 4 ? 6 : kMostBandRows;
  constexpr MultiplyBand by_rows[] = {
      multiply_band<1, N, is_float>,
      multiply_band<2, N, is_float>,
      multiply_band<3, N, is_float>,
      multiply_band<kMost < 4 ? 1 : 4, N, is_float>,
      multiply_band<kMost < 5 ? 1 : 5, N, is_float>,
      multiply_band<kMost < 6 ? 1 : 6, N, is_float>,
      multiply_band<kMost < 7 ? 1 : 7, N, is_float>,
      multiply_band<kMost < 8 ? 1 : 8, N, is_float>,
  };
  return by_rows[rows - 1];
}

template <bool is_float>
inline MultiplyBand multiply_of(int64_t rows, int64_t blocks) {
  if (blocks == 4) return multiply_of<4, is_float>(rows);
  if (blocks == 2) return multiply_of<2, is_float>(rows);
  return multiply_of<1, is_float>(rows);
}

// The sums of each of 16 vectors.
inline VECTORS __m512 sums_of(__m512* v) {
  for (int i = 0; i < 8; ++i) v[i] = add(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
  for (int i = 0; i < 4; ++i) {
    const __m512d a = _mm512_castps_pd(v[2 * i]), b = _mm512_castps_pd(v[2 * i + 1]);
    v[i] = add(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
  }
  for (int left = 2; left > 0; left /= 2)
    for (int i = 0; i < left; ++i)
      v[i] = add(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x88), _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xdd));
  return v[0];
}

class VectorsPass : BandRows {
 public:
  using BandRows::BandRows;

  VECTORS void run() {
    if (count_ <= 0 || rows_ <= 0) return;
    const bool are_few = conv_.outputs == kLanes && conv_.used <= kMostNarrow && conv_.used % 2 == 0;
    const bool is_narrow = are_few && !conv_.is_float && !conv_.again;
    if (is_narrow) lay_out_narrow();
    // Rows whose inputs stay in a cache while all weights pass: a near one, or the one that the weights come to from memory.
    const int64_t fitting = is_streamed() ? kNear / (conv_.inputs * 2) : kFewRows, most = fitting > kFewRows ? fitting : kFewRows;
    const int64_t panels = (rows_ + most - 1) / most;
    for (int64_t p = 0; p < panels; ++p) {
      const int64_t first = rows_ * p / panels, count = rows_ * (p + 1) / panels - first;
      gather(first, count);
      if (is_narrow) compute_narrow(first, count);
      else compute(first, count);
    }
  }

 private:
  static constexpr int64_t kNear = 512 * 1024, kFewRows = 48, kMostNarrow = 4;

  struct Room {
    std::vector<const uint16_t*> from, skip;
    std::vector<uint16_t> narrow;
  };

  void gather(int64_t first, int64_t count) {
    Room& room = room_;
    room.from.resize(count);
    room.skip.resize(count);
    from_ = room.from.data();
    skip_ = room.skip.data();
    Place place = place_of(first);
    for (int64_t done = 0; done < count; ++place.clip, place.t = 0) {
      const uint16_t* x = x_.row(place.clip, place.t, conv_.inputs);
      const int64_t end = count - done < count_ - place.t ? count : done + count_ - place.t;
      for (; done < end; ++done, x += conv_.inputs) from_[done] = x;
    }
    if (!finish_.skip.at) return;
    place = place_of(first);
    for (int64_t r = 0; r < count; ++r, go_on(place)) skip_[r] = skip_of(place);
  }

  VECTORS void compute(int64_t first, int64_t count) {
    alignas(64) float sums[kMostBandRows * 64];
    const bool are_together = conv_.outputs < 64 || (is_streamed() && count <= kMostBandRows);
    const int64_t most = are_together ? 8 : 6, groups = (count + most - 1) / most, beside = conv_.stored() * 512;
    const int64_t widest = (count + groups - 1) / groups > 6 ? 2 : 4;
    for (int64_t column = 0, blocks = 0; column < conv_.outputs; column += blocks * 16) {
      const int64_t left = (conv_.outputs - column) / 16;
      blocks = left >= widest ? widest : left >= 2 ? 2 : 1;
      const uint16_t* weights = conv_.weights + column / 16 * beside;
      for (int64_t group = 0; group < groups; ++group) {
        const int64_t begin = count * group / groups, rows = count * (group + 1) / groups - begin;
        // The first groups of rows each have one block come that all will need next.
        const uint16_t* soon = group < blocks && left >= 2 * blocks ? weights + (blocks + group) * beside : weights;
        const auto multiply = conv_.is_float ? multiply_of<true>(rows, blocks) : multiply_of<false>(rows, blocks);
        multiply(from_ + begin, conv_, weights, soon, sums, 64);
        put(first + begin, rows, skip_ + begin, column, blocks * 16, sums, 64);
      }
    }
  }

  // One output's weights after the other, where so few are wanted that rows are better multiplied lane by lane.
  void lay_out_narrow() {
    const int64_t steps = conv_.stored();
    room_.narrow.resize(conv_.used * steps * 32);
    uint16_t* to = room_.narrow.data();
    narrow_ = to;
    for (int64_t output = 0; output < conv_.used; ++output)
      for (int64_t pair = 0; pair < steps * 16; ++pair, to += 2) std::memcpy(to, conv_.weights + pair * 32 + output * 2, 4);
  }

  VECTORS void compute_narrow(int64_t first, int64_t count) {
    alignas(64) float sums[8][16], both[16];
    std::memset(sums, 0, sizeof sums);
    for (int64_t begin = 0; begin < count; begin += 8) {
      const uint16_t* rows[8];
      for (int64_t r = 0; r < 8; ++r) rows[r] = from_[begin + r < count ? begin + r : count - 1];
      for (int64_t output = 0; output < conv_.used; output += 2) {
        _mm512_store_ps(both, multiply_narrow(rows, output));
        for (int64_t r = 0; r < 8; ++r) std::memcpy(sums[r] + output, both + 2 * r, 8);
      }
      put(first + begin, count - begin < 8 ? count - begin : 8, skip_ + begin, 0, 16, sums[0], 16);
    }
  }

  // Two outputs of 8 rows, [8][2].
  VECTORS __m512 multiply_narrow(const uint16_t* const* rows, int64_t output) const {
    __m512 sum[16];
    for (int i = 0; i < 16; ++i) sum[i] = _mm512_setzero_ps();
    const uint16_t* weights = narrow_ + output * conv_.stored() * 32;
    for (int64_t tap = 0; tap < conv_.taps; ++tap)
      for (int64_t i = 0; i < conv_.inputs; i += 32, weights += 32) {
        const int64_t at = tap * conv_.dilation * conv_.inputs + i;
        const __m512i a = _mm512_loadu_si512(weights), b = _mm512_loadu_si512(weights + conv_.stored() * 32);
#pragma GCC unroll 8
        for (int r = 0; r < 8; ++r) {
          const __m512i x = _mm512_loadu_si512(rows[r] + at);
          sum[2 * r] = add_product<false>(sum[2 * r], a, x);
          sum[2 * r + 1] = add_product<false>(sum[2 * r + 1], b, x);
        }
      }
    return sums_of(sum);
  }

  const uint16_t **from_ = nullptr, **skip_ = nullptr;  // where a panel's rows begin, and what is added to them
  const uint16_t* narrow_ = nullptr;                    // weights [used][stored][32]
  inline static thread_local Room room_;
};

inline void convolve(const Band& x, int64_t clips, const Convolution& conv, const Finish& finish) {
#ifdef STRETTO_TILES
  if (bands() == Bands::tiles && !conv.is_float) return TilesPass(x, clips, conv, finish).run();
#endif
  VectorsPass(x, clips, conv, finish).run();
}

}  // namespace stretto
