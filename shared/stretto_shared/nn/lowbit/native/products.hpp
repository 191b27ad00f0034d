// Products of rows with low-bit weights, shared among the threads of a team panel by panel (panels.hpp).
#pragma once
#include "barrier.hpp"
#include "panel_tiles.hpp"

namespace stretto {

// One panel for all `count` rows.
inline VNNI void panel_of(const Matrix& matrix, int64_t panel, const Rows& rows, int64_t count, const Target& target,
                          bool by_tiles, Ahead* ahead) {
  const int64_t at = panel * kPanel;
  Part part{matrix.weights + panel * matrix.panel_bytes(),
            matrix.books ? matrix.books + panel * matrix.groups() * kPanel : nullptr,
            matrix.scales + at, matrix.groups(), at, matrix.outputs - at, rows, 0, target, ahead, false};
  while (part.first < count) {
    const int64_t left = count - part.first;
#ifdef STRETTO_TILES
    if (by_tiles && left >= kLeastTileRows) {
      const int size = left < kTileRows ? left : kTileRows;
      tiles_panel(part, size);
      part.first += size, part.again = true;
      continue;
    }
#endif
    const int size = left < kRows ? left : kRows;
    (matrix.books ? kInt4 : kInt8)[size - 1](part);
    part.first += size, part.again = true;
  }
}

// How the threads of a team share a product.
struct Turn {
  Share* shares;        // what is left of each thread's own panels
  int num_threads;      // the product was shared out among; a team may be smaller
  Ahead* ahead;         // of this thread
  int64_t used_before;  // bytes of this thread's own panels in the products before this one
};

inline int64_t first_panel(const Matrix& matrix, int thread, int num_threads) { return matrix.panels() * thread / num_threads; }

inline Stretch stretch_of(const Matrix& matrix, int thread, int num_threads) {
  const int64_t first = first_panel(matrix, thread, num_threads), end = first_panel(matrix, thread + 1, num_threads);
  return {matrix.weights + first * matrix.panel_bytes(),
          matrix.books ? matrix.books + first * matrix.groups() * kPanel : nullptr, (end - first) * matrix.groups(),
          matrix.group_bytes()};
}

inline void share_out(const Matrix& matrix, int num_threads, Share* shares) {
  for (int t = 0; t < num_threads; ++t)
    shares[t].set(first_panel(matrix, t, num_threads), first_panel(matrix, t + 1, num_threads));
}

// All panels: a thread takes its own in their order, then what others have not come to, and leaves when none is left.
inline VNNI void product(const Matrix& matrix, const Rows& rows, int64_t count, const Target& target, const Turn& turn) {
#ifdef STRETTO_TILES
  const bool by_tiles = tiles_allowed() && count >= kLeastTileRows && (matrix.books || matrix.groups() % 2 == 0);
  if (by_tiles) configure_tiles();
#else
  const bool by_tiles = false;
#endif
  const int me = thread_number();
  int64_t panel, used = turn.used_before;
  turn.ahead->used(used);
  while (turn.shares[me].take_first(panel)) {
    panel_of(matrix, panel, rows, count, target, by_tiles, turn.ahead);
    turn.ahead->used(used += matrix.panel_bytes());
  }
  for (int other = me + 1; other < me + turn.num_threads; ++other)
    while (turn.shares[other % turn.num_threads].take_last(panel))
      panel_of(matrix, panel, rows, count, target, by_tiles, nullptr);
#ifdef STRETTO_TILES
  if (by_tiles) release_tiles();
#endif
}

}  // namespace stretto
