// What a thread will read of the weights in one pass, in order, and how far it has asked the memory for them. A thread asks
// ahead of the weights in use while it multiplies, and for more while it attends or waits for others: the memory does not rest.
#pragma once
#include <atomic>
#include <cstdint>
#include <immintrin.h>

namespace stretto {

constexpr int64_t kLine = 64;
// Bytes from the weights in use to those that are asked for: at least so many, and so many after a rest, in a core's own L2.
constexpr int64_t kLeastAhead = 32768, kMostAhead = 384 * 1024;

inline void ask_for(const uint8_t* line) { _mm_prefetch(reinterpret_cast<const char*>(line), _MM_HINT_T1); }

// The panels of one product that one thread takes first. A unit is a group of inputs of a panel.
struct Stretch {
  const uint8_t *weights = nullptr, *books = nullptr;  // books: a line for each unit; null for int8
  int64_t units = 0, unit_bytes = 0;

  int64_t bytes() const { return units * unit_bytes; }
};

class Ahead {
 public:
  void begin(const Stretch* stretches, int64_t count) {
    stretch_ = stretches, last_ = stretches + count - 1, at_ = asked_ = used_ = 0;
    skip_what_is_over();
  }
  // The next unit's weights, for the caller to ask for among its own work.
  const uint8_t* take() {
    const Stretch& own = *stretch_;
    const uint8_t* unit = own.weights + at_ * own.unit_bytes;
    if (own.books) ask_for(own.books + at_ * kLine);
    ++at_;
    asked_ += own.unit_bytes;
    skip_what_is_over();
    return unit;
  }
  // Says that `bytes` of the stretches were used, from the first one on.
  void used(int64_t bytes) {
    used_ = bytes;
    while (is_more() && asked_ < used_) pass();
    while (is_more() && asked_ < used_ + kLeastAhead) ask();
  }
  void ask_while_resting() {
    if (is_more() && asked_ < used_ + kMostAhead) ask();
  }

 private:
  // Leaves out what others have used, as far as it goes in whole units.
  void pass() {
    const int64_t size = stretch_->unit_bytes, behind = (used_ - asked_ + size - 1) / size, left = stretch_->units - at_;
    const int64_t units = behind < left ? behind : left;
    at_ += units, asked_ += units * size;
    skip_what_is_over();
  }
  bool is_more() const { return at_ < stretch_->units; }
  void skip_what_is_over() {
    while (stretch_ < last_ && at_ >= stretch_->units) ++stretch_, at_ = 0;
  }
  void ask() {
    const int64_t size = stretch_->unit_bytes;
    const uint8_t* unit = take();
    for (int64_t line = 0; line < size; line += kLine) ask_for(unit + line);
  }

  const Stretch *stretch_ = nullptr, *last_ = nullptr;
  int64_t at_ = 0, asked_ = 0, used_ = 0;
};

// Which of the panels that a thread takes first nobody has taken: it takes the first of them, others the last.
class alignas(64) Share {
 public:
  void set(uint32_t first, uint32_t end) { left_.store(both(first, end), std::memory_order_relaxed); }
  bool take_first(int64_t& panel) {
    uint64_t now = left_.load(std::memory_order_relaxed);
    while (first(now) < end(now))
      if (left_.compare_exchange_weak(now, both(first(now) + 1, end(now)), std::memory_order_relaxed))
        return panel = first(now), true;
    return false;
  }
  bool take_last(int64_t& panel) {
    uint64_t now = left_.load(std::memory_order_relaxed);
    while (first(now) < end(now))
      if (left_.compare_exchange_weak(now, both(first(now), end(now) - 1), std::memory_order_relaxed))
        return panel = end(now) - 1, true;
    return false;
  }

 private:
  static uint64_t both(uint32_t first, uint32_t end) { return static_cast<uint64_t>(end) << 32 | first; }
  static uint32_t first(uint64_t both) { return static_cast<uint32_t>(both); }
  static uint32_t end(uint64_t both) { return static_cast<uint32_t>(both >> 32); }

  std::atomic<uint64_t> left_{0};
};

}  // namespace stretto
