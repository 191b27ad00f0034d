// AMX: whether this process may use tiles, and their shapes. Without them everything is computed with VNNI, to the same
// integers.
#pragma once
#include <cstdint>

namespace stretto {

constexpr int kTileRows = 16, kLeastTileRows = 5;  // fewer rows are as fast without

}  // namespace stretto

#if defined(__linux__) && defined(__has_include)
#if __has_include(<amxint8intrin.h>)
#define STRETTO_TILES
#endif
#endif

#ifdef STRETTO_TILES
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define AMX __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi,amx-tile,amx-int8")))

namespace stretto {

// Asks the system for tiles, once for the process; false where the processor or the system has none.
inline bool ask_for_tiles() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned kTile = 1u << 24, kInt8 = 1u << 25;
  if (!(d & kTile) || !(d & kInt8)) return false;
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

inline bool& tiles_wanted() {
  static bool wanted = true;
  return wanted;
}

inline bool tiles_allowed() {
  static const bool allowed = ask_for_tiles();
  return allowed && tiles_wanted();
}

struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes_per_row[16] = {};
  uint8_t rows[16] = {};
};

// Has what was written to memory there before the next tile is loaded: GCC's intrinsics do not say what they read.
inline void settle(const void* written) { asm volatile("" : : "r"(written) : "memory"); }

// All eight tiles: 16 rows of 64 bytes; those of sums and of what they are sums of, 0 to 5, may have fewer rows.
inline AMX void configure_tiles(int64_t rows = kTileRows) {
  TileShapes shapes;
  for (int tile = 0; tile < 8; ++tile) {
    shapes.bytes_per_row[tile] = 64;
    shapes.rows[tile] = tile < 6 ? rows : kTileRows;
  }
  settle(&shapes);
  _tile_loadconfig(&shapes);
}

inline AMX void release_tiles() { _tile_release(); }

}  // namespace stretto
#endif
