// Panels of low-bit weights by rows in AMX tiles; the sums are those of panels.hpp.
#pragma once
#include "panels.hpp"

namespace stretto {

#ifdef STRETTO_TILES
// One step of 64 inputs for four blocks: `w` holds for each word the four blocks' 64 bytes.
inline AMX void multiply_tiles(const int8_t* x, int64_t x_stride, const uint8_t* w) {
  constexpr int64_t kWord = kPanel * 4;
  _tile_loadd(4, x, x_stride);
  _tile_loadd(5, w, kWord);
  _tile_loadd(6, w + 64, kWord);
  _tile_dpbsud(0, 4, 5);
  _tile_loadd(7, w + 128, kWord);
  _tile_dpbsud(1, 4, 6);
  _tile_loadd(5, w + 192, kWord);
  _tile_dpbsud(2, 4, 7);
  _tile_dpbsud(3, 4, 5);
}

// The tiles of two groups of 32 inputs, one for each block. All four lie in one page: a load of a tile would wait for a
// store at the same place of another page.
constexpr int64_t kTileBytes = kTileRows * 64;
struct alignas(4096) Unpacked {
  uint8_t tiles[kBlocks][kTileBytes];
};

// What to ask of the memory while two groups are used.
struct Asked {
  const uint8_t* of[2];
};

inline VNNI Asked asked_for(const Part& p, int64_t group) {
  const uint8_t* first = p.next(group);
  return {{first, group + 1 < p.groups ? p.next(group + 1) : first}};
}

// One block's part of two groups, as a tile. A group that is not there leaves what was there, which inputs of nought make
// nothing of.
inline VNNI void unpack(const Part& p, const Codebooks& codebooks, int64_t group, int block, const Asked& asked, uint8_t* to) {
  for (int half = 0; half < 2 && group + half < p.groups; ++half) {
    const int64_t at = (group + half) * kBlocks + block;
    const uint8_t* w = p.weights + at * 4 * 64;
    const __m512i books = codebooks.books_of(p.books + at * kLanes);
    for (int pair = 0; pair < 4; ++pair, to += 2 * 64) {
      const __m512i both = _mm512_loadu_si512(w + pair * 64);
      ask_for(asked.of[half] + (block * 4 + pair) * 64);
      _mm512_store_si512(to, codebooks.even(both, books));
      _mm512_store_si512(to + 64, codebooks.odd(both, books));
    }
  }
}

// While a tile is made, the one before the last is multiplied: by then it is in the cache.
inline AMX void multiply_unpacked(const Part& p) {
  static thread_local Unpacked unpacked;
  uint8_t(*tiles)[kTileBytes] = unpacked.tiles;
  const Codebooks codebooks;
  const int8_t* x = p.line(0);
  for (int64_t group = 0; group < p.groups; group += 2, x += 2 * kGroup) {
    const Asked asked = asked_for(p, group);
    unpack(p, codebooks, group, 0, asked, tiles[0]);
    settle(tiles);
    if (group) {
      _tile_loadd(5, tiles[2], 64);
      _tile_dpbsud(2, 4, 5);
    }
    unpack(p, codebooks, group, 1, asked, tiles[1]);
    settle(tiles);
    if (group) {
      _tile_loadd(6, tiles[3], 64);
      _tile_dpbsud(3, 4, 6);
    }
    _tile_loadd(4, x, p.rows.stride);
    unpack(p, codebooks, group, 2, asked, tiles[2]);
    settle(tiles);
    _tile_loadd(7, tiles[0], 64);
    _tile_dpbsud(0, 4, 7);
    unpack(p, codebooks, group, 3, asked, tiles[3]);
    settle(tiles);
    _tile_loadd(5, tiles[1], 64);
    _tile_dpbsud(1, 4, 5);
  }
  _tile_loadd(5, tiles[2], 64);
  _tile_dpbsud(2, 4, 5);
  _tile_loadd(6, tiles[3], 64);
  _tile_dpbsud(3, 4, 6);
}

inline AMX void tiles_panel(const Part& p, int count) {
  alignas(64) int32_t sums[kBlocks][kTileRows][kLanes];
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  if (p.books) {
    multiply_unpacked(p);
  } else {
    const uint8_t* w = p.weights;
    for (int64_t input = 0; input < p.groups * kGroup; input += 64, w += 64 * kPanel) {
      for (int half = 0; half < 2; ++half) {
        const uint8_t* next = p.next(input / kGroup + half);
        for (int line = 0; line < kPanel / 2; ++line) ask_for(next + line * 64);
      }
      multiply_tiles(p.line(0) + input, p.rows.stride, w);
    }
  }
  _tile_stored(0, sums[0], 64);
  _tile_stored(1, sums[1], 64);
  _tile_stored(2, sums[2], 64);
  _tile_stored(3, sums[3], 64);
  for (int r = 0; r < count; ++r) {
    const __m512i begin = _mm512_set1_epi32(p.begin(r));
    for (int block = 0; block < kBlocks && block * kLanes < p.left; ++block)
      p.finish_block(_mm512_add_epi32(_mm512_load_si512(sums[block][r]), begin), r, block);
  }
}
#endif

}  // namespace stretto
