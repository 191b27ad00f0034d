// One pass of a transformer decoder for rows of many requests: every layer in one call, so that nothing but the weights is
// waited for. Pre-norm blocks without biases: self-attention, attention to a memory (a text) where a block has it, GELU.
#pragma once
#include "attention.hpp"
#include "products.hpp"

namespace stretto {

struct Norm {
  const float *scale, *shift;
};

struct Block {
  Norm norm_self, norm_cross, norm_ffn;
  Matrix qkv, self_out, cross_q, cross_out, ffn_in, ffn_out;  // cross_q without outputs: no memory
};

struct Decoder {
  int64_t width, num_heads, num_blocks;
  const Block* blocks;
  Norm norm;
  Matrix heads;
  float eps, scale;  // of layer norms; of scores
  int64_t cache_bits;  // 8 or 4

  int64_t head_width() const { return width / num_heads; }
};

// One row of a pass: the caches of its request at its row of the first block, and what it may hear.
struct Row {
  uint8_t* cache;
  int64_t cache_capacity, cache_block_bytes;  // steps; from one block's cache to the next one's
  int64_t at, prefix, start;                  // writes step `at`; hears [0, prefix) and [start, at]
  uint8_t* memory;                            // null: hears none
  int64_t memory_capacity, memory_block_bytes, memory_length;

  Store cache_of(const Decoder& decoder, int64_t block, int64_t head) const {
    return store_at(cache + block * cache_block_bytes, head, decoder.head_width(), cache_capacity, decoder.cache_bits);
  }
  Store memory_of(const Decoder& decoder, int64_t block, int64_t head) const {
    return store_at(memory + block * memory_block_bytes, head, decoder.head_width(), memory_capacity, decoder.cache_bits);
  }
};

constexpr int64_t kProducts = 6;  // of a block
constexpr int64_t kFewRows = 4;  // so few that every thread makes integers of all of them sooner than it waits for others

// What a pass needs beside its arguments; kept by the calling thread for the next one.
struct Workspace {
  std::vector<float> projected, attended, hidden;
  std::vector<int32_t> hearing;
  Rows rows;
  struct PerThread {
    std::vector<float> norm, scratch, weights, sums;
    std::vector<int8_t> line, high, low;
    Rows rows;
    std::vector<Stretch> stretches;    // of the products of a pass, in their order
    std::vector<int64_t> used_before;  // bytes of those before each
    Ahead ahead;
  };
  std::vector<PerThread> threads;
  std::vector<const Matrix*> products;
  std::vector<Share> shares;  // [product, thread]
  std::vector<Share> heads;   // [self-attention and attention to a memory of each block, thread]
  Barrier barrier;
};

struct Pass {
  const Decoder& decoder;
  float* x;  // [count, width], changed in place
  const Row* rows;
  int64_t count;
  bool one_column;  // no two rows share a cache: keys need not all be written before the first row attends
  Workspace& work;

  Workspace::PerThread& own() const { return work.threads[thread_number()]; }
  VNNI void wait() const {
    Ahead& ahead = own().ahead;
    work.barrier.wait([&ahead] {
      _mm_pause();
      ahead.ask_while_resting();
    });
  }

  // Rows as integers, `make(row, rows)` each: by every thread for itself where they are few, shared where not.
  template <class Make>
  VNNI const Rows& rows_by(int64_t size, const Make& make) const {
    if (size <= kFewRows) {
      Rows& mine = own().rows;
      for (int64_t r = 0; r < size; ++r) make(r, mine);
      return mine;
    }
#pragma omp for schedule(static) nowait
    for (int64_t r = 0; r < size; ++r) make(r, work.rows);
    wait();
    return work.rows;
  }
  struct Normed {
    const Pass& pass;
    const Norm& norm;
    const int32_t* which;
    VNNI void operator()(int64_t r, Rows& to) const {
      Workspace::PerThread& own = pass.own();
      const Decoder& decoder = pass.decoder;
      const float* row = pass.x + (which ? which[r] : r) * decoder.width;
      layer_norm(row, decoder.width, norm.scale, norm.shift, decoder.eps, own.norm.data(), own.scratch.data());
      to.put(r, own.norm.data(), decoder.width);
    }
  };
  struct Plain {
    const float* from;
    int64_t width;
    VNNI void operator()(int64_t r, Rows& to) const { to.put(r, from + r * width, width); }
  };

  VNNI void attend_to_cache(int64_t block) const {
    const int64_t heads = decoder.num_heads;
    if (!one_column) {
#pragma omp for schedule(static) nowait
      for (int64_t item = 0; item < count * heads; ++item) remember_one(block, item / heads, item % heads);
      wait();
    }
    share_heads(2 * block, count * heads, [&](int64_t item, int64_t next) {
      const int64_t r = item / heads, head = item % heads, then = next / heads;
      if (one_column) remember_one(block, r, head);
      attend_one(rows[r].cache_of(decoder, block, head), rows[then].cache_of(decoder, block, next % heads), r, head,
                 3 * decoder.width, {rows[r].prefix, rows[r].start, rows[r].at + 1});
    });
  }
  // Calls `attend(item, next)` for the heads of all rows: a thread takes those of its own in their order, each with the
  // one that it will most likely take next, and then helps the others.
  template <class Attend>
  VNNI void share_heads(int64_t index, int64_t size, const Attend& attend) const {
    const int num_threads = static_cast<int>(work.threads.size()), me = thread_number();
    Share* shares = &work.heads[index * num_threads];
    int64_t item;
    while (shares[me].take_first(item)) {
      own().ahead.ask_while_resting();
      attend(item, item + 1 < size ? item + 1 : item);
    }
    for (int other = me + 1; other < me + num_threads; ++other)
      while (shares[other % num_threads].take_last(item)) attend(item, item ? item - 1 : item);
    wait();
  }
  VNNI void attend_to_memory(int64_t block) const {
    const int64_t heads = decoder.num_heads, size = static_cast<int64_t>(work.hearing.size());
    share_heads(2 * block + 1, size * heads, [&](int64_t item, int64_t next) {
      const int64_t r = item / heads, head = item % heads;
      const Row &row = rows[work.hearing[r]], &then = rows[work.hearing[next / heads]];
      attend_one(row.memory_of(decoder, block, head), then.memory_of(decoder, block, next % heads), r, head, decoder.width,
                 {0, 0, row.memory_length});
    });
  }
  VNNI void remember_one(int64_t block, int64_t r, int64_t head) const {
    const int64_t width = decoder.head_width();
    const float* key = work.projected.data() + r * 3 * decoder.width + decoder.width + head * width;
    const Store store = rows[r].cache_of(decoder, block, head);
    (decoder.cache_bits == 4 ? remember<4> : remember<8>)(store, rows[r].at, key, key + decoder.width, width);
  }
  VNNI void attend_one(const Store& store, const Store& next, int64_t r, int64_t head, int64_t query_stride, const Reach& reach) const {
    const int64_t width = decoder.head_width();
    Workspace::PerThread& mine = own();
    (decoder.cache_bits == 4 ? attend<4> : attend<8>)(
        store, next, work.projected.data() + r * query_stride + head * width, width, reach, decoder.scale,
        work.attended.data() + r * decoder.width + head * width,
        {mine.weights.data(), mine.sums.data(), mine.line.data(), mine.high.data(), mine.low.data()});
  }

  VNNI void multiply(int64_t index, const Matrix& matrix, const Rows& ready, int64_t size, const Target& target) const {
    Workspace::PerThread& mine = own();
    const int num_threads = static_cast<int>(work.threads.size());
    product(matrix, ready, size, target,
            {&work.shares[index * num_threads], num_threads, &mine.ahead, mine.used_before[index]});
    if (index + 1 < static_cast<int64_t>(work.products.size())) wait();
  }

  VNNI void run_block(int64_t index) const {
    const Block& block = decoder.blocks[index];
    const int64_t first = index * kProducts;
    const int64_t width = decoder.width, hidden = block.ffn_in.outputs;
    const Plain attended{work.attended.data(), width};
    multiply(first, block.qkv, rows_by(count, Normed{*this, block.norm_self, nullptr}), count,
            {work.projected.data(), 3 * width, nullptr, Then::store});
    attend_to_cache(index);
    multiply(first + 1, block.self_out, rows_by(count, attended), count, {x, width, nullptr, Then::add});
    const int64_t num_hearing = static_cast<int64_t>(work.hearing.size());
    if (num_hearing && block.cross_q.outputs) {
      const int32_t* hearing = work.hearing.data();
      multiply(first + 2, block.cross_q, rows_by(num_hearing, Normed{*this, block.norm_cross, hearing}), num_hearing,
              {work.projected.data(), width, nullptr, Then::store});
      attend_to_memory(index);
      multiply(first + 3, block.cross_out, rows_by(num_hearing, attended), num_hearing, {x, width, hearing, Then::add});
    }
    multiply(first + 4, block.ffn_in, rows_by(count, Normed{*this, block.norm_ffn, nullptr}), count,
            {work.hidden.data(), hidden, nullptr, Then::gelu});
    multiply(first + 5, block.ffn_out, rows_by(count, Plain{work.hidden.data(), hidden}), count, {x, width, nullptr, Then::add});
  }
};

inline bool has_one_column(const Row* rows, int64_t count) {
  for (int64_t a = 0; a < count; ++a)
    for (int64_t b = 0; b < a; ++b)
      if (rows[a].cache == rows[b].cache) return false;
  return true;
}

// The products of a pass in their order; those that are not computed are null.
inline void list_products(const Decoder& decoder, bool is_hearing, bool has_heads, std::vector<const Matrix*>& products) {
  products.clear();
  for (int64_t b = 0; b < decoder.num_blocks; ++b) {
    const Block& block = decoder.blocks[b];
    const bool hears = is_hearing && block.cross_q.outputs;
    for (const Matrix* each : {&block.qkv, &block.self_out, hears ? &block.cross_q : nullptr,
                               hears ? &block.cross_out : nullptr, &block.ffn_in, &block.ffn_out})
      products.push_back(each);
  }
  products.push_back(has_heads ? &decoder.heads : nullptr);
}

// Shares the panels of every product out among the threads.
inline void share_work(Workspace& work, int64_t count_heads, int64_t hearing_heads, int64_t num_blocks) {
  const int64_t count = work.products.size();
  const int num_threads = static_cast<int>(work.threads.size());
  if (static_cast<int64_t>(work.shares.size()) != count * num_threads) work.shares = std::vector<Share>(count * num_threads);
  for (int64_t index = 0; index < count; ++index)
    if (work.products[index]) share_out(*work.products[index], num_threads, &work.shares[index * num_threads]);
  if (static_cast<int64_t>(work.heads.size()) != 2 * num_blocks * num_threads)
    work.heads = std::vector<Share>(2 * num_blocks * num_threads);
  for (int64_t index = 0; index < 2 * num_blocks; ++index) {
    const int64_t size = index % 2 ? hearing_heads : count_heads;
    for (int t = 0; t < num_threads; ++t)
      work.heads[index * num_threads + t].set(size * t / num_threads, size * (t + 1) / num_threads);
  }
  for (int t = 0; t < num_threads; ++t) {
    Workspace::PerThread& own = work.threads[t];
    own.stretches.clear(), own.used_before.clear();
    int64_t used = 0;
    for (const Matrix* matrix : work.products) {
      own.stretches.push_back(matrix ? stretch_of(*matrix, t, num_threads) : Stretch{});
      own.used_before.push_back(used);
      used += own.stretches.back().bytes();
    }
    own.ahead.begin(own.stretches.data(), count);
  }
}

// Runs rows x [count, width] through the blocks, writing their keys and values to the caches, and the rows `wanted` through
// the heads, into logits [num_wanted, outputs]. The rows of one request stand in order of their steps.
inline VNNI void decode(const Decoder& decoder, float* x, const Row* rows, int64_t count, const int32_t* wanted,
                        int64_t num_wanted, float* logits, int num_threads) {
  static thread_local Workspace work;
  int64_t reach = kLanes, last = 0, hidden = 0;
  work.hearing.clear();
  for (int64_t r = 0; r < count; ++r) {
    const int64_t heard = rows[r].prefix + rows[r].at + 1 - rows[r].start;
    reach = heard > reach ? heard : reach;
    reach = rows[r].memory_length > reach ? rows[r].memory_length : reach;
    last = rows[r].at + 1 > last ? rows[r].at + 1 : last;
    if (rows[r].memory) work.hearing.push_back(r);
  }
  for (int64_t b = 0; b < decoder.num_blocks; ++b)
    hidden = decoder.blocks[b].ffn_in.outputs > hidden ? decoder.blocks[b].ffn_in.outputs : hidden;
  const int64_t widest = hidden > decoder.width ? hidden : decoder.width;
  work.projected.resize(count * 3 * decoder.width);
  work.attended.resize(count * decoder.width);
  work.hidden.resize(count * hidden);
  work.rows.reserve(count, widest);
  work.threads.resize(num_threads);
  for (Workspace::PerThread& own : work.threads) {
    own.norm.resize(decoder.width);
    own.scratch.resize(power_of_two(decoder.width));
    own.weights.resize(power_of_two(reach) + kLanes);
    own.sums.resize(power_of_two(reach));
    own.line.resize(padded(decoder.head_width(), kGroup) + 2 * kGroup);
    own.high.resize(padded(last > reach ? last : reach, 64) + kLanes);
    own.low.resize(own.high.size());
    own.rows.reserve(kFewRows, widest);
  }
  list_products(decoder, !work.hearing.empty(), num_wanted > 0, work.products);
  share_work(work, count * decoder.num_heads, work.hearing.size() * decoder.num_heads, decoder.num_blocks);
  const Pass pass{decoder, x, rows, count, has_one_column(rows, count), work};
#pragma omp parallel num_threads(num_threads) if (num_threads > 1)
  {
    for (int64_t block = 0; block < decoder.num_blocks; ++block) pass.run_block(block);
    if (num_wanted) {
      pass.multiply(decoder.num_blocks * kProducts, decoder.heads,
                    pass.rows_by(num_wanted, Pass::Normed{pass, decoder.norm, wanted}), num_wanted,
                    {logits, decoder.heads.outputs, nullptr, Then::store});
    }
  }
}

}  // namespace stretto
