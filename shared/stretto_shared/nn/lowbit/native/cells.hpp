// One layer of an LSTM over rows of many clips: the products of its own outputs in bfloat16, all else in float32.
#pragma once
#include "band_vectors.hpp"

namespace stretto {

struct Cells {
  int64_t clips, steps, width;  // width a multiple of 32
  const float* gates;           // [clips][steps][4 * width], of the inputs: in, keep, out, new
  float *hidden, *cell;         // [clips][width], changed in place
  float* out;                   // [clips][steps][width]
};

inline VECTORS __m512 sigmoid_of(__m512 x) {
  const __m512 power = exp_of(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_abs_ps(x)));
  const __m512 over = _mm512_div_ps(all(1.0f), add(all(1.0f), power));
  return _mm512_mask_mul_ps(over, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ), over, power);
}

inline VECTORS __m512 tanh_of(__m512 x) {
  const __m512 power = exp_of(mul(all(-2.0f), _mm512_abs_ps(x)));
  const __m512 size = _mm512_div_ps(_mm512_sub_ps(all(1.0f), power), add(all(1.0f), power));
  const __m512i sign = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(INT32_MIN));
  return _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(size), sign));
}

// The weights that passed left little else in the near caches, and rows are too short for the processor to ask ahead.
inline VECTORS void come_near(const float* x) { _mm_prefetch(reinterpret_cast<const char*>(x + 8 * kLanes), _MM_HINT_T0); }

inline VECTORS void run_cells(const Cells& all_cells, const Convolution& recurrent) {
  const int64_t clips = all_cells.clips, width = all_cells.width;
  static thread_local std::vector<uint16_t> rounded;
  static thread_local std::vector<float> own;
  rounded.resize(clips * width);
  own.resize(clips * 4 * width);
  for (int64_t t = 0; t < all_cells.steps; ++t) {
    for (int64_t i = 0; i < clips * width; i += kLanes) put_rounded(&rounded[i], _mm512_loadu_ps(all_cells.hidden + i));
    const Band band{rounded.data(), width, 1};
    convolve(band, clips, recurrent, Finish{{}, {}, false, nullptr, own.data()});
    for (int64_t clip = 0; clip < clips; ++clip) {
      const float* from = all_cells.gates + (clip * all_cells.steps + t) * 4 * width;
      const float* back = own.data() + clip * 4 * width;
      float* out = all_cells.out + (clip * all_cells.steps + t) * width;
      for (int64_t i = 0; i < width; i += kLanes) {
        for (int k = 0; k < 4; ++k) come_near(from + k * width + i), come_near(back + k * width + i);
        come_near(all_cells.cell + clip * width + i);
        __m512 gate[4];
        for (int k = 0; k < 4; ++k) gate[k] = add(_mm512_loadu_ps(from + k * width + i), _mm512_loadu_ps(back + k * width + i));
        float* cell = all_cells.cell + clip * width + i;
        const __m512 kept = mul(sigmoid_of(gate[1]), _mm512_loadu_ps(cell));
        const __m512 now = add(kept, mul(sigmoid_of(gate[0]), tanh_of(gate[3])));
        const __m512 hidden = mul(sigmoid_of(gate[2]), tanh_of(now));
        _mm512_storeu_ps(cell, now);
        _mm512_storeu_ps(all_cells.hidden + clip * width + i, hidden);
        _mm512_storeu_ps(out + i, hidden);
      }
    }
  }
}

}  // namespace stretto
