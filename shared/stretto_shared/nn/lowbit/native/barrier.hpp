// Where the threads of a pass wait for each other. They wait awake for as long as an even share of work may differ, and
// asleep from then on: a thread whose core the system gave to somebody else is only moved to a core that is idle, and a
// waiting thread that stays awake keeps it from being one. A thread on whose own core another was last seen, which has not
// come, sleeps at once: unless it has moved since, the other cannot come before.
#pragma once
#include <atomic>
#include <climits>
#include <cstdint>
#include <immintrin.h>

#if defined(__linux__)
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <sched.h>
#endif

#ifdef _OPENMP
#include <omp.h>
#endif

namespace stretto {

constexpr uint64_t kAwakeTicks = 40000;  // of the time-stamp counter: some 20 us
constexpr int kMostSeen = 64;            // threads of a team whose cores are known

inline int team_size() {
#ifdef _OPENMP
  return omp_get_num_threads();
#else
  return 1;
#endif
}

inline int thread_number() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

class Barrier {
 public:
  // Ends when all threads of the team have called it; `meanwhile` is called again and again by those that wait awake.
  template <class Meanwhile>
  void wait(const Meanwhile& meanwhile) {
    const int size = team_size();
    if (size == 1) return;
    const uint32_t round = round_.load();
    const int me = thread_number();
    if (me < kMostSeen) seen_[me].store(core(), std::memory_order_relaxed), come_[me].store(round + 1, std::memory_order_relaxed);
    if (arrived_.fetch_add(1) + 1 == size) {
      arrived_.store(0);
      round_.store(round + 1);
      if (asleep_.load()) wake();
      return;
    }
    const uint64_t begin = __rdtsc();
    while (round_.load(std::memory_order_acquire) == round) {
      if (__rdtsc() - begin < kAwakeTicks && !is_in_the_way(size, round)) {
        meanwhile();
        continue;
      }
      asleep_.fetch_add(1);
      sleep(round);
      asleep_.fetch_sub(1);
    }
  }

 private:
  // Whether a thread that has not come was last seen on the core that this one is on.
  bool is_in_the_way(int size, uint32_t round) const {
    const uint32_t here = core();
    for (int t = 0; here != kUnknown && t < size && t < kMostSeen; ++t)
      if (seen_[t].load(std::memory_order_relaxed) == here && come_[t].load(std::memory_order_relaxed) != round + 1) return true;
    return false;
  }

  static constexpr uint32_t kUnknown = 0;  // or one more than a core's number
#if defined(__linux__)
  static uint32_t core() { return static_cast<uint32_t>(sched_getcpu() + 1); }
  // Sleeps unless the round is over by now, which the system looks at once more.
  void sleep(uint32_t round) { syscall(SYS_futex, &round_, FUTEX_WAIT_PRIVATE, round, nullptr, nullptr, 0); }
  void wake() { syscall(SYS_futex, &round_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0); }
#else
  static uint32_t core() { return kUnknown; }
  void sleep(uint32_t) { sched_yield(); }
  void wake() {}
#endif

  alignas(64) std::atomic<uint32_t> round_{0};
  alignas(64) std::atomic<int> arrived_{0};
  std::atomic<int> asleep_{0};
  alignas(64) std::atomic<uint32_t> seen_[kMostSeen] = {};  // on which core each thread was when it last came
  std::atomic<uint32_t> come_[kMostSeen] = {};              // to which round, plus one
};

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t), "a futex is four bytes");

}  // namespace stretto
