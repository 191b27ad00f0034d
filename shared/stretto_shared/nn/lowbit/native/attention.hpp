// Attention of one query over keys and values of eight bits, for one head.
//
// A store of one head, E its width padded to 16, C its capacity in steps, a multiple of 16:
//   keys    uint8 [C / 16][E / 4][16 steps][4], value + 128; values int8 [C][E]; float32 scales of keys [C], of values [C].
// Every step has a scale of its own. Scores are exact sums of integers and two multiplications; weights times values are
// summed one by one in runs of 32 steps, then run by run.
#pragma once
#include "numerics.hpp"

namespace stretto {

constexpr int kRun = 32, kMaxChunks = 4;

inline VNNI void ask_store(const void* at) { _mm_prefetch(static_cast<const char*>(at), _MM_HINT_T0); }

struct Store {
  uint8_t* keys;
  int8_t* values;
  float *key_scales, *value_scales;
  int64_t width;  // padded
};

inline int64_t store_bytes(int64_t head_width, int64_t capacity) { return capacity * (2 * padded(head_width, 16) + 8); }

inline Store store_at(uint8_t* heads, int64_t head, int64_t head_width, int64_t capacity) {
  const int64_t width = padded(head_width, 16);
  uint8_t* at = heads + head * store_bytes(head_width, capacity);
  float* scales = reinterpret_cast<float*>(at + 2 * capacity * width);
  return {at, reinterpret_cast<int8_t*>(at + capacity * width), scales, scales + capacity, width};
}

// Writes key and value [head_width] of step `at`; `line` holds a padded head.
inline VNNI void remember(const Store& store, int64_t at, const float* key, const float* value, int64_t head_width,
                          int8_t* line) {
  std::memset(line, 0, store.width);
  store.key_scales[at] = quantise(key, head_width, line);
  uint8_t* panel = store.keys + at / 16 * 16 * store.width + at % 16 * 4;
  for (int64_t i = 0; i < store.width; i += 4)
    for (int j = 0; j < 4; ++j) panel[i * 16 + j] = static_cast<uint8_t>(line[i + j] + 128);
  int8_t* to = store.values + at * store.width;
  std::memset(to, 0, store.width);
  store.value_scales[at] = quantise(value, head_width, to);
}

// Steps [0, prefix) and [start, stop).
struct Reach {
  int64_t prefix, start, stop;
  int64_t size() const { return prefix + stop - start; }
};

struct AttentionScratch {
  float *weights, *sums;  // power_of_two(reach) each
  int8_t* line;           // a padded head
};

// Asks the memory for the values of the steps whose keys it reads, since `mix` comes next.
inline VNNI void score(const Store& store, const int8_t* query, int32_t query_sum, __m512 factor, int64_t start,
                       int64_t stop, float* out) {
  for (int64_t panel = start / 16; panel * 16 < stop; ++panel) {
    const uint8_t* keys = store.keys + panel * 16 * store.width;
    __m512i sum = _mm512_set1_epi32(-128 * query_sum), other = _mm512_setzero_si512();
    const int8_t* values = store.values + panel * 16 * store.width;
    ask_store(store.value_scales + panel * 16);
    for (int64_t word = 0; word < store.width / 4; word += 2) {
      ask_store(values + word * 64);
      ask_store(values + word * 64 + 64);
      sum = _mm512_dpbusd_epi32(sum, _mm512_loadu_si512(keys + word * 64), word_of(query + word * 4));
      other = _mm512_dpbusd_epi32(other, _mm512_loadu_si512(keys + word * 64 + 64), word_of(query + word * 4 + 4));
    }
    const int64_t first = panel * 16;
    const __mmask16 mask = lanes_of(stop - first) & (first >= start ? 0xffff : ~lanes_of(start - first));
    const __m512 scaled = mul(_mm512_cvtepi32_ps(_mm512_add_epi32(sum, other)), _mm512_loadu_ps(store.key_scales + first));
    _mm512_mask_storeu_ps(out + (first - start), mask, mul(scaled, factor));
  }
}

// Asks the memory for the keys that `next` has where values are read here: those are read after this.
template <int C>  // chunks of 16 values that are summed together
VNNI void mix(const Store& store, const Store& next, int64_t chunk, const Reach& reach, const float* weights, __m512 total_weight,
              int64_t head_width, float* out) {
  __m512 total[C], run[C];
  for (int c = 0; c < C; ++c) total[c] = _mm512_setzero_ps();
  const int64_t size = reach.size();
  for (int64_t first = 0; first < size; first += kRun) {
    for (int c = 0; c < C; ++c) run[c] = _mm512_setzero_ps();
    const int64_t last = first + kRun < size ? first + kRun : size;
    for (int64_t i = first; i < last; ++i) {
      const int64_t step = i < reach.prefix ? i : reach.start + i - reach.prefix;
      const int8_t* values = store.values + step * store.width + chunk * kLanes;
      const __m512 weight = all(weights[i]);
      ask_store(next.keys + step * store.width + chunk * kLanes);
      if (step % kLanes == 0) ask_store(next.key_scales + step);
      for (int c = 0; c < C; ++c) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(values + c * kLanes));
        run[c] = add(run[c], mul(weight, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))));
      }
    }
    for (int c = 0; c < C; ++c) total[c] = add(total[c], run[c]);
  }
  for (int c = 0; c < C; ++c) {
    const int64_t at = (chunk + c) * kLanes;
    _mm512_mask_storeu_ps(out + at, lanes_of(head_width - at), _mm512_div_ps(total[c], total_weight));
  }
}

inline VNNI void scale_by(float* weights, const float* scales, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const __mmask16 mask = lanes_of(count - i);
    const __m512 scaled = mul(_mm512_maskz_loadu_ps(mask, weights + i), _mm512_maskz_loadu_ps(mask, scales + i));
    _mm512_mask_storeu_ps(weights + i, mask, scaled);
  }
}

// What `query` [head_width] hears within reach, into `out` [head_width]; `next` is the store that comes after this one.
inline VNNI void attend(const Store& store, const Store& next, const float* query, int64_t head_width, const Reach& reach, float scale,
                        float* out, const AttentionScratch& scratch) {
  std::memset(scratch.line, 0, store.width + kGroup);
  const float query_scale = quantise(query, head_width, scratch.line);
  const int32_t query_sum = sum_of(scratch.line, padded(store.width, kGroup));
  const __m512 factor = all(query_scale * scale);
  score(store, scratch.line, query_sum, factor, 0, reach.prefix, scratch.weights);
  score(store, scratch.line, query_sum, factor, reach.start, reach.stop, scratch.weights + reach.prefix);

  const int64_t size = reach.size(), room = power_of_two(size);
  __m512 most = all(-__builtin_inff());
  for (int64_t i = 0; i < size; i += kLanes)
    most = _mm512_mask_max_ps(most, lanes_of(size - i), most, _mm512_maskz_loadu_ps(lanes_of(size - i), scratch.weights + i));
  const __m512 largest = all(_mm512_reduce_max_ps(most));
  for (int64_t i = 0; i < room; i += kLanes) {
    const __mmask16 mask = lanes_of(size - i);
    __m512 weight = _mm512_setzero_ps();
    if (mask)
      weight = _mm512_maskz_mov_ps(mask, exp_of(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, scratch.weights + i), largest)));
    _mm512_storeu_ps(scratch.sums + i, weight);
    _mm512_mask_storeu_ps(scratch.weights + i, mask, weight);
  }
  const __m512 total_weight = all(halving_sum(scratch.sums, room));
  scale_by(scratch.weights, store.value_scales, reach.prefix);
  scale_by(scratch.weights + reach.prefix, store.value_scales + reach.start, reach.stop - reach.start);

  for (int64_t chunk = 0; chunk < store.width / kLanes; chunk += kMaxChunks) {
    const int64_t left = store.width / kLanes - chunk;
    if (left >= 4) mix<4>(store, next, chunk, reach, scratch.weights, total_weight, head_width, out);
    else if (left == 3) mix<3>(store, next, chunk, reach, scratch.weights, total_weight, head_width, out);
    else if (left == 2) mix<2>(store, next, chunk, reach, scratch.weights, total_weight, head_width, out);
    else mix<1>(store, next, chunk, reach, scratch.weights, total_weight, head_width, out);
  }
}

}  // namespace stretto
