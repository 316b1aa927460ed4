// FIR resampling of a tile in shared memory, the common part of upfirdn2d and filtered_lrelu.
//
// Per axis, with h the filter as it slides: y[o] = sum_tap h[tap] x[(o down + tap - before) / up] over integer indices. Outputs
// are made in groups of 4, which lie `stride` samples apart: sample k of a group meets output j with tap k up + shift - j down.
// A group's weights are a table [steps][4] in shared memory, one 128-bit broadcast per sample, the same for every group since
// 4 down is a multiple of up. A sample is read once for its 4 outputs; each pass also shares a weight among 2 rows, or 4 columns.
// Where a tap does not exist its weight is -0 and the product is left out, so that a NaN reaches no output it is not part of; a
// tap of the filter that is zero has +0 and is taken, as in the definition.
#pragma once

#include "cuda/launch.h"

namespace fastgan::fir {

constexpr int kThreads = 128;
constexpr int64_t kMostTaps = 32;
constexpr int64_t kMostSize = 1 << 29;  // sizes and paddings of a tiled image: coordinates are 32-bit numbers

struct Window {
  int taps, up, down, shift;
  int steps, stride;

  Window() = default;
  // align: samples are read four at a time
  Window(int64_t taps, int64_t up, int64_t down, int64_t shift, bool align = false)
      : taps(taps), up(up), down(down), shift(shift), steps((taps - 1 - shift + 3 * down) / up + 1), stride(4 * down / up) {
    if (align) steps = ceil_div(steps, 4) * 4;
  }
  int samples(int outputs) const { return (outputs / 4 - 1) * stride + steps; }
};

// Row lengths without bank conflicts: of 32-bit accesses by 32 lanes on 32 rows; of 128-bit accesses likewise.
inline int odd(int n) { return n | 1; }
inline int four_odd(int n) { return 4 * (ceil_div(n, 4) | 1); }

// The weights of window `w` from one row of taps (rows = 1) or from all rows of a 2-D filter: table [rows][steps][4].
template <class T>
__device__ __forceinline__ void make_table(T* table, const T* f, int rows, const Window& w, bool flip, T gain) {
  for (int i = threadIdx.x; i < rows * w.steps * 4; i += kThreads) {
    const int j = i % 4, k = i / 4 % w.steps, row = i / 4 / w.steps;
    const int tap = k * w.up + w.shift - j * w.down;
    const int from = flip ? row * w.taps + tap : (rows - row) * w.taps - 1 - tap;
    table[i] = tap >= 0 && tap < w.taps ? f[from] * gain + T(0) : -T(0);
  }
}

// Whether a weight of a table is that of a tap: not -0.
template <class T>
__device__ __forceinline__ bool exists(T weight) {
  using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  Bits bits;
  memcpy(&bits, &weight, sizeof(T));
  return bits != Bits{1} << (8 * sizeof(T) - 1);
}

// sum[j] += weights[j] x, for each of N numbers x.
template <int N, class T>
__device__ __forceinline__ void add(T (&sum)[4][N], const Pack<T, 4>& weights, const T (&x)[N]) {
  FASTGAN_UNROLL
  for (int j = 0; j < 4; ++j)
    if (exists(weights.at[j])) {
      FASTGAN_UNROLL
      for (int v = 0; v < N; ++v) sum[j][v] += weights.at[j] * x[v];
    }
}

// sum[j][0] and sum[j][1]: the 4 outputs of the windows at a and at b; kWide samples per access.
template <int kWide, class T>
__device__ __forceinline__ void add_windows(T (&sum)[4][2], const T* a, const T* b, const T* table, int steps) {
  for (int k = 0; k < steps; k += kWide) {
    const Pack<T, kWide> xa = load<T, kWide>(a + k), xb = load<T, kWide>(b + k);
    FASTGAN_UNROLL
    for (int i = 0; i < kWide; ++i) {
      const T x[2] = {xa.at[i], xb.at[i]};
      add(sum, load<T, 4>(table + 4 * (k + i)), x);
    }
  }
}

// Along x: `rows` rows of `groups` groups of outputs. Lanes lie on consecutive rows.
template <int kWide, class T>
__device__ __forceinline__ void along_x(const T* in, int in_pitch, T* out, int out_pitch, int rows, int groups, const Window& w, const T* table) {
  const int half = (rows + 1) / 2;
  for (int item = threadIdx.x; item < half * groups; item += kThreads) {
    const int g = item / half, a = item - g * half, b = a + half < rows ? a + half : a;
    T sum[4][2] = {};
    add_windows<kWide>(sum, in + a * in_pitch + g * w.stride, in + b * in_pitch + g * w.stride, table, w.steps);
    Pack<T, 4> first, second;
    FASTGAN_UNROLL
    for (int j = 0; j < 4; ++j) first.at[j] = sum[j][0], second.at[j] = sum[j][1];
    store(out + a * out_pitch + 4 * g, first);
    if (b != a) store(out + b * out_pitch + 4 * g, second);
  }
}

// Along y: `groups` groups of output rows of `chunks` times 4 columns. give(row, chunk, values) takes the results.
template <class T, class Give>
__device__ __forceinline__ void along_y(const T* in, int pitch, int groups, int chunks, const Window& w, const T* table, Give&& give) {
  for (int item = threadIdx.x; item < groups * chunks; item += kThreads) {
    const int g = item / chunks, chunk = item - g * chunks;
    const T* from = in + g * w.stride * pitch + 4 * chunk;
    T sum[4][4] = {};
    for (int k = 0; k < w.steps; ++k) add(sum, load<T, 4>(table + 4 * k), load<T, 4>(from + k * pitch).at);
    FASTGAN_UNROLL
    for (int j = 0; j < 4; ++j) give(4 * g + j, chunk, sum[j]);
  }
}

// Both axes at once, for a 2-D filter: rows and 4 columns of outputs as in along_y, two chunks at a time.
template <int kWide, class T, class Give>
__device__ __forceinline__ void along_both(const T* in, int pitch, int rows, int chunks, const Window& wx, const Window& wy, const T* table,
                                           Give&& give) {
  const int half = (chunks + 1) / 2;
  for (int item = threadIdx.x; item < rows * half; item += kThreads) {
    const int c = item / rows, row = item - c * rows, d = c + half < chunks ? c + half : c;
    const int j = row % 4, first = larger(0, -floor_div(wy.shift - j * wy.down, wy.up));
    const T* from = in + (row / 4 * wy.stride + first) * pitch;
    T sum[4][2] = {};
    for (int tap = first * wy.up + wy.shift - j * wy.down; tap < wy.taps; tap += wy.up, from += pitch)
      add_windows<kWide>(sum, from + c * wx.stride, from + d * wx.stride, table + tap * wx.steps * 4, wx.steps);
    T one[4], other[4];
    FASTGAN_UNROLL
    for (int i = 0; i < 4; ++i) one[i] = sum[i][0], other[i] = sum[i][1];
    give(row, c, one);
    if (d != c) give(row, d, other);
  }
}

// A rectangle of an image, zero outside of it: tile[r][c] = image[y0 + r][x0 + c] + bias. `wide`: rows are whole 128-bit packs.
template <class S, class T>
__device__ __forceinline__ void load_tile(const S* image, int64_t row_stride, int height, int width, int y0, int x0, T* tile, int pitch, int rows,
                                          int columns, T bias, bool wide) {
  constexpr int kN = kPack<S>;
  if (wide) {
    const int start = floor_div(x0, kN) * kN, packs = ceil_div(x0 + columns - start, kN);
    for (int item = threadIdx.x; item < rows * packs; item += kThreads) {
      const int r = item / packs, x = start + (item - r * packs) * kN, y = y0 + r;
      const bool inside = y >= 0 && y < height && x >= 0 && x < width;
      Pack<S, kN> pack;
      if (inside) pack = load<S, kN>(image + y * row_stride + x);
      FASTGAN_UNROLL
      for (int i = 0; i < kN; ++i)
        if (x + i >= x0 && x + i < x0 + columns) tile[r * pitch + x + i - x0] = inside ? static_cast<T>(pack.at[i]) + bias : T(0);
    }
  } else {
    for (int item = threadIdx.x; item < rows * columns; item += kThreads) {
      const int r = item / columns, c = item - r * columns, y = y0 + r, x = x0 + c;
      const bool inside = y >= 0 && y < height && x >= 0 && x < width;
      tile[r * pitch + c] = inside ? static_cast<T>(image[y * row_stride + x]) + bias : T(0);
    }
  }
}

// The first `rows` x `columns` of a tile to memory; `wide`: columns and rows of memory are whole 128-bit packs.
template <class S, class T>
__device__ __forceinline__ void store_tile(const T* tile, int pitch, S* to, int64_t row_stride, int rows, int columns, bool wide) {
  constexpr int kN = kPack<S>;
  if (wide) {
    const int packs = columns / kN;
    for (int item = threadIdx.x; item < rows * packs; item += kThreads) {
      const int r = item / packs, c = (item - r * packs) * kN;
      const Pack<T, kN> values = load<T, kN>(tile + r * pitch + c);
      Pack<S, kN> pack;
      FASTGAN_UNROLL
      for (int i = 0; i < kN; ++i) pack.at[i] = static_cast<S>(values.at[i]);
      store(to + r * row_stride + c, pack);
    }
  } else {
    for (int item = threadIdx.x; item < rows * columns; item += kThreads) {
      const int r = item / columns, c = item - r * columns;
      to[r * row_stride + c] = static_cast<S>(tile[r * pitch + c]);
    }
  }
}

}  // namespace fastgan::fir
