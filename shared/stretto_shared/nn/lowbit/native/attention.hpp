// Attention of one query over keys and values of eight or four bits, for one head.
//
// A store of one head, E its width padded to 16 (to 32 at four bits), C its capacity in steps, a multiple of 16:
//   keys [C / 16][E / 4][16 steps][4], values [C / 4][E / 16][16][4 steps], float32 scales of keys [C], of values [C].
// At eight bits a byte is a number + 128. At four bits a number is 2 q - 15, and a byte has the q of two words of four keys,
// or of two blocks of 16 values, an even one in its low half and the odd one after it in its high half.
// Every step has a scale of its own. Scores are exact sums of integers and two multiplications. Weights times the scales of
// their values are rounded to 14 bits of their largest, so that what is heard is a sum of integers as well.
#pragma once
#include "numerics.hpp"

namespace stretto {

constexpr int kMaxChunks = 4, kStepsOfWord = 4, kLowBits = 7;
constexpr float kMostWeight = 16383.0f;

inline VNNI void ask_store(const void* at) { _mm_prefetch(static_cast<const char*>(at), _MM_HINT_T1); }

struct Store {
  uint8_t *keys, *values;
  float *key_scales, *value_scales;
  int64_t width, step_bytes;  // padded; of a key, and of a value
};

inline int64_t padded_head(int64_t head_width, int bits) { return padded(head_width, bits == 4 ? 2 * kLanes : kLanes); }

inline int64_t store_bytes(int64_t head_width, int64_t capacity, int bits) {
  return capacity * (2 * padded_head(head_width, bits) * bits / 8 + 8);
}

inline Store store_at(uint8_t* heads, int64_t head, int64_t head_width, int64_t capacity, int bits) {
  const int64_t width = padded_head(head_width, bits), step_bytes = width * bits / 8;
  uint8_t* at = heads + head * store_bytes(head_width, capacity, bits);
  float* scales = reinterpret_cast<float*>(at + 2 * capacity * step_bytes);
  return {at, at + capacity * step_bytes, scales, scales + capacity, width, step_bytes};
}

// How the numbers of a key or value become those of a store.
struct Rounding {
  __m512 factor, half;
  float scale;
};

// Numbers as they lie in a store: Bits 8 or 4.
template <int Bits>
struct Form;

template <>
struct Form<8> {
  static constexpr int kOffset = 128;
  static constexpr float kMost = 127.0f, kWhole = 127.0f;  // of a magnitude; what it is divided by for the scale
  static VNNI __m128i bytes(__m512 x, const Rounding& rounding) {
    const __m128i numbers = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(mul(x, rounding.factor)));
    return _mm_xor_si128(numbers, _mm_set1_epi8(-kOffset));
  }
  static VNNI __m512i numbers(__m512i sum, int32_t of_offsets) { return _mm512_sub_epi32(sum, _mm512_set1_epi32(of_offsets)); }
};

template <>
struct Form<4> {
  static constexpr int kOffset = 15;
  static constexpr float kMost = 7.5f, kWhole = 15.0f;
  static VNNI __m128i bytes(__m512 x, const Rounding& rounding) {
    const __m512i place = _mm512_cvtps_epi32(add(mul(x, rounding.factor), rounding.half));
    const __m512i bounded = _mm512_max_epi32(_mm512_min_epi32(place, _mm512_set1_epi32(15)), _mm512_setzero_si512());
    return _mm512_cvtepi32_epi8(bounded);
  }
  static VNNI __m512i numbers(__m512i sum, int32_t of_offsets) {
    return _mm512_sub_epi32(_mm512_slli_epi32(sum, 1), _mm512_set1_epi32(of_offsets));
  }
};

// What is silent, or has an infinity or NaN, is noughts, and at four bits their place 0, whose scale makes them what they are.
template <int Bits>
inline VNNI Rounding rounding_of(const float* x, int64_t size) {
  const float magnitude = magnitude_of(x, size);
  if (!(magnitude >= kLeastMagnitude))
    return {_mm512_setzero_ps(), _mm512_setzero_ps(), magnitude < kLeastMagnitude ? 0.0f : magnitude};
  return {all(Form<Bits>::kMost / magnitude), all(Form<Bits>::kMost), magnitude / Form<Bits>::kWhole};
}

// Of the 16 numbers of x [size] from `i` on.
template <int Bits>
inline VNNI __m128i bytes_at(const float* x, int64_t i, int64_t size, const Rounding& rounding) {
  return Form<Bits>::bytes(_mm512_maskz_loadu_ps(lanes_of(size - i), x + i), rounding);
}

// The halves of four bits.
inline VNNI __m512i even_half(__m512i both) { return _mm512_and_si512(both, _mm512_set1_epi8(15)); }
inline VNNI __m512i odd_half(__m512i both) { return even_half(_mm512_srli_epi16(both, 4)); }

inline void put_word(void* to, int32_t word) { std::memcpy(to, &word, 4); }

// Writes 16 bytes, each to a word of its own of the 64 bytes at `words`, as its byte `at`; the other bytes stay as they are,
// and may be written by others meanwhile.
inline VNNI void put_bytes(uint8_t* words, int64_t at, __m128i bytes) {
  const __m512i moved = _mm512_sll_epi32(_mm512_cvtepu8_epi32(bytes), _mm_cvtsi64_si128(8 * at));
  _mm512_mask_storeu_epi8(words, 0x1111111111111111u << at, moved);
}

// Writes key and value [head_width] of step `at`. Bytes go from registers to the store: to read them again would be to wait
// for the writes before them, which may have to come from memory.
template <int Bits>
VNNI void remember(const Store& store, int64_t at, const float* key, const float* value, int64_t head_width) {
  uint8_t* keys = store.keys + at / kLanes * kLanes * store.step_bytes + at % kLanes * 4;
  uint8_t* values = store.values + at / kStepsOfWord * kStepsOfWord * store.step_bytes;
  const Rounding of_key = rounding_of<Bits>(key, head_width), of_value = rounding_of<Bits>(value, head_width);
  for (int64_t i = 0; i < store.width; i += kLanes, keys += 2 * Bits * kLanes) {
    __m128i words = bytes_at<Bits>(key, i, head_width, of_key);
    if (Bits == 4) words = _mm_or_si128(words, _mm_srli_epi64(words, 28));  // the odd words to the high halves of the even ones
    put_word(keys, _mm_cvtsi128_si32(words));
    if (Bits == 8) put_word(keys + 64, _mm_extract_epi32(words, 1));
    put_word(keys + 16 * Bits, _mm_extract_epi32(words, 2));
    if (Bits == 8) put_word(keys + 192, _mm_extract_epi32(words, 3));
  }
  for (int64_t i = 0; i < store.width; i += 8 / Bits * kLanes, values += 64) {
    __m128i numbers = bytes_at<Bits>(value, i, head_width, of_value);
    if (Bits == 4)
      numbers = _mm_or_si128(numbers, _mm_slli_epi16(bytes_at<Bits>(value, i + kLanes, head_width, of_value), 4));
    put_bytes(values, at % kStepsOfWord, numbers);
  }
  store.key_scales[at] = of_key.scale;
  store.value_scales[at] = of_value.scale;
}

// Steps [0, prefix) and [start, stop).
struct Reach {
  int64_t prefix, start, stop;
  int64_t size() const { return prefix + stop - start; }
};

struct AttentionScratch {
  float *weights, *sums;  // power_of_two(reach) each
  int8_t *line;           // a padded head
  int8_t *high, *low;     // padded(stop, 64) each: what weights are rounded to, in the place of their step
};

// Asks the memory for the values of the steps whose keys it reads, since `mix` comes next.
template <int Bits>
VNNI void score(const Store& store, const int8_t* query, int32_t query_sum, __m512 factor, int64_t start, int64_t stop,
                float* out) {
  for (int64_t panel = start / kLanes; panel * kLanes < stop; ++panel) {
    const int64_t first = panel * kLanes, panel_bytes = kLanes * store.step_bytes;
    const uint8_t *keys = store.keys + panel * panel_bytes, *values = store.values + panel * panel_bytes;
    __m512i sum = _mm512_setzero_si512(), other = _mm512_setzero_si512();
    ask_store(store.value_scales + first);
    for (int64_t word = 0; word < store.width / 4; word += 2) {
      const __m512i even = word_of(query + word * 4), odd = word_of(query + word * 4 + 4);
      const int64_t at = word * 8 * Bits;
      ask_store(values + at);
      if (Bits == 8) ask_store(values + at + 64);
      const __m512i both = _mm512_loadu_si512(keys + at);
      sum = _mm512_dpbusd_epi32(sum, Bits == 8 ? both : even_half(both), even);
      other = _mm512_dpbusd_epi32(other, Bits == 8 ? _mm512_loadu_si512(keys + at + 64) : odd_half(both), odd);
    }
    const __mmask16 mask = lanes_of(stop - first) & (first >= start ? 0xffff : ~lanes_of(start - first));
    const __m512i exact = Form<Bits>::numbers(_mm512_add_epi32(sum, other), Form<Bits>::kOffset * query_sum);
    const __m512 scaled = mul(_mm512_cvtepi32_ps(exact), _mm512_loadu_ps(store.key_scales + first));
    _mm512_mask_storeu_ps(out + (first - start), mask, mul(scaled, factor));
  }
}

// Weights as integers of 14 bits, in two parts, and what one of the integers stands for.
struct Rounded {
  const int8_t *high, *low;
  int32_t high_sum, low_sum;
  float unit;
};

// Writes the parts of weights [count], and noughts for what the last word has beyond; adds to the sums of both.
inline VNNI void round_weights(const float* weights, int64_t count, __m512 factor, int8_t* high, int8_t* low,
                               __m512i (&sums)[2]) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const __m512i n = _mm512_cvtps_epi32(mul(_mm512_maskz_loadu_ps(lanes_of(count - i), weights + i), factor));
    const __m512i upper = _mm512_srli_epi32(n, kLowBits), lower = _mm512_and_si512(n, _mm512_set1_epi32((1 << kLowBits) - 1));
    sums[0] = _mm512_add_epi32(sums[0], upper), sums[1] = _mm512_add_epi32(sums[1], lower);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(high + i), _mm512_cvtepi32_epi8(upper));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(low + i), _mm512_cvtepi32_epi8(lower));
  }
  put_word(high + count, 0), put_word(low + count, 0);
}

// Of weights whose largest magnitude is given.
inline VNNI Rounded rounded(const Reach& reach, float magnitude, const AttentionScratch& scratch) {
  const bool is_heard = magnitude >= kLeastMagnitude;
  const __m512 factor = all(is_heard ? kMostWeight / magnitude : 0.0f);
  const int64_t before = reach.start / kStepsOfWord * kStepsOfWord;  // `mix` begins there, with nothing of those before `start`
  put_word(scratch.high + before, 0), put_word(scratch.low + before, 0);
  __m512i sums[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  round_weights(scratch.weights, reach.prefix, factor, scratch.high, scratch.low, sums);
  round_weights(scratch.weights + reach.prefix, reach.stop - reach.start, factor, scratch.high + reach.start,
                scratch.low + reach.start, sums);
  return {scratch.high, scratch.low, _mm512_reduce_add_epi32(sums[0]), _mm512_reduce_add_epi32(sums[1]),
          is_heard ? magnitude / kMostWeight : magnitude < kLeastMagnitude ? 0.0f : magnitude};
}

// Asks the memory for the keys that `next` has where values are read here: those are read after this.
template <int Bits, int C>  // chunks of 16 values that are summed together
VNNI void mix(const Store& store, const Store& next, int64_t chunk, const Reach& reach, const Rounded& weights,
              __m512 total_weight, int64_t head_width, float* out) {
  __m512i high[C], low[C];
  for (int c = 0; c < C; ++c) high[c] = low[c] = _mm512_setzero_si512();
  const int64_t of_prefix = padded(reach.prefix, kStepsOfWord), after_prefix = reach.start / kStepsOfWord * kStepsOfWord;
  for (int64_t step = of_prefix ? 0 : after_prefix; step < reach.stop; step += kStepsOfWord) {
    if (step == of_prefix && after_prefix > step) step = after_prefix;
    const int64_t at = step * store.step_bytes + chunk * 8 * Bits;
    const __m512i high_word = word_of(weights.high + step), low_word = word_of(weights.low + step);
    if (step % kLanes == 0) ask_store(next.key_scales + step);
    for (int c = 0; c < C; c += 8 / Bits) {
      const __m512i both = _mm512_loadu_si512(store.values + at + c * 8 * Bits);
      ask_store(next.keys + at + c * 8 * Bits);
      const __m512i even = Bits == 8 ? both : even_half(both);
      high[c] = _mm512_dpbusd_epi32(high[c], even, high_word);
      low[c] = _mm512_dpbusd_epi32(low[c], even, low_word);
      if (Bits == 4) {
        const __m512i odd = odd_half(both);
        high[c + 1] = _mm512_dpbusd_epi32(high[c + 1], odd, high_word);
        low[c + 1] = _mm512_dpbusd_epi32(low[c + 1], odd, low_word);
      }
    }
  }
  for (int c = 0; c < C; ++c) {
    const int64_t at = (chunk + c) * kLanes;
    const __m512 upper = _mm512_cvtepi32_ps(Form<Bits>::numbers(high[c], Form<Bits>::kOffset * weights.high_sum));
    const __m512 lower = _mm512_cvtepi32_ps(Form<Bits>::numbers(low[c], Form<Bits>::kOffset * weights.low_sum));
    const __m512 sum = mul(add(mul(upper, all(1 << kLowBits)), lower), all(weights.unit));
    _mm512_mask_storeu_ps(out + at, lanes_of(head_width - at), _mm512_div_ps(sum, total_weight));
  }
}

// Makes scores [count] exponentials, in `sums` too, and those in their own place times `scales`; collects their magnitude bits.
inline VNNI void soften_some(float* weights, float* sums, const float* scales, int64_t count, __m512 largest, __m512i& bits) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const __mmask16 mask = lanes_of(count - i);
    const __m512 weight = exp_of(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, weights + i), largest));
    const __m512 scaled = _mm512_maskz_mul_ps(mask, weight, _mm512_maskz_loadu_ps(mask, scales + i));
    _mm512_mask_storeu_ps(sums + i, mask, weight);
    _mm512_mask_storeu_ps(weights + i, mask, scaled);
    bits = _mm512_max_epi32(bits, magnitude_bits(_mm512_castps_si512(scaled)));
  }
}

// What became of scores: the sum of their exponentials, and the largest magnitude of those times their values' scales.
struct Softened {
  float sum, magnitude;
};

inline VNNI Softened soften(const Store& store, const Reach& reach, const AttentionScratch& scratch) {
  const int64_t size = reach.size(), room = power_of_two(size);
  __m512 most = all(-__builtin_inff());
  for (int64_t i = 0; i < size; i += kLanes)
    most = _mm512_mask_max_ps(most, lanes_of(size - i), most, _mm512_maskz_loadu_ps(lanes_of(size - i), scratch.weights + i));
  const __m512 largest = all(_mm512_reduce_max_ps(most));
  __m512i bits = _mm512_setzero_si512();
  for (int64_t i = size / kLanes * kLanes; i < room; i += kLanes) _mm512_storeu_ps(scratch.sums + i, _mm512_setzero_ps());
  soften_some(scratch.weights, scratch.sums, store.value_scales, reach.prefix, largest, bits);
  soften_some(scratch.weights + reach.prefix, scratch.sums + reach.prefix, store.value_scales + reach.start,
              reach.stop - reach.start, largest, bits);
  return {halving_sum(scratch.sums, room), magnitude_in(bits)};
}

// What `query` [head_width] hears within reach, into `out` [head_width]; `next` is the store that comes after this one.
template <int Bits>
VNNI void attend(const Store& store, const Store& next, const float* query, int64_t head_width, const Reach& reach, float scale,
                 float* out, const AttentionScratch& scratch) {
  std::memset(scratch.line + head_width, 0, store.width - head_width);
  const Quantised quantised = quantise(query, head_width, scratch.line);
  const __m512 factor = all(quantised.scale * scale);
  score<Bits>(store, scratch.line, quantised.sum, factor, 0, reach.prefix, scratch.weights);
  score<Bits>(store, scratch.line, quantised.sum, factor, reach.start, reach.stop, scratch.weights + reach.prefix);
  const Softened softened = soften(store, reach, scratch);
  const __m512 total_weight = all(softened.sum);
  const Rounded weights = rounded(reach, softened.magnitude, scratch);
  for (int64_t chunk = 0; chunk < store.width / kLanes; chunk += kMaxChunks) {
    const int64_t left = store.width / kLanes - chunk;
    if (left >= 4) mix<Bits, 4>(store, next, chunk, reach, weights, total_weight, head_width, out);
    else if (Bits == 8 && left == 3) mix<8, 3>(store, next, chunk, reach, weights, total_weight, head_width, out);
    else if (left == 2) mix<Bits, 2>(store, next, chunk, reach, weights, total_weight, head_width, out);
    else if (Bits == 8) mix<8, 1>(store, next, chunk, reach, weights, total_weight, head_width, out);
  }
}

}  // namespace stretto
