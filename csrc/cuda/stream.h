// FIR resampling that streams down an image: the part that upfirdn2d and filtered_lrelu share.
//
// A block takes some strips (columns of one plane, all rows that one output row after the other needs), a thread of it one column
// of samples. Rows of x come in batches through shared memory; a thread filters along x from there and along y in registers, where
// the last samples or the sums that are not finished yet wait: their places are compile-time constants, since a batch is as many
// rows as a window. Factors and numbers of taps are compile-time constants; the phase, which the padding sets, is only an offset
// into shared memory, or a row more of delay: no tap that does not exist is ever multiplied (a NaN reaches what it is part of).
// With channels_last the strips of a block are neighbouring channels and the fastest index of its threads.
#pragma once

#include <numeric>

#include "cuda/launch.h"

namespace fastgan::stream {

constexpr int kMostThreads = 256;

constexpr int up4(int n) { return (n + 3) / 4 * 4; }

// Of `n` items of each of some rows: which ones a thread takes when `threads` share them.
struct Share {
  int lanes, rows;  // items of a row at a time, rows at a time

  Share() = default;
  Share(int items, int threads) : lanes(smaller(items, threads)), rows(threads / lanes) {}

  // take(row, item) for those of `thread`, of `rows_in_all` rows of `items`.
  template <class Take>
  __device__ __forceinline__ void each(int thread, int rows_in_all, int items, Take&& take) const {
    const int row0 = thread / lanes, item0 = thread - row0 * lanes;
    for (int row = row0; row < rows_in_all && row0 < rows; row += rows)
      for (int item = item0; item < items; item += lanes) take(row, item);
  }
};

// Rows of a plane on their way to shared memory, zero outside of it; `packs` packs of N elements from column `first` on.
template <class S>
struct Rows {
  const S* plane;
  int64_t row_stride, column_stride;
  int height, width, first, packs, pitch;
  float bias;

  template <int N>
  __device__ __forceinline__ void load(int y0, int rows, float* to, const Share& share, int thread) const {
    share.each(thread, rows, packs, [&](int row, int pack) {
      const int y = y0 + row, x = first + pack * N;
      Pack<float, N> values = {};
      if (y >= 0 && y < height && x >= 0 && x < width) {
        const Pack<S, N> read = fastgan::load<S, N>(plane + y * row_stride + (N == 1 ? x * column_stride : x));
        FASTGAN_UNROLL
        for (int i = 0; i < N; ++i) values.at[i] = static_cast<float>(read.at[i]) + bias;
      }
      store(to + row * pitch + pack * N, values);
    });
  }
};

// Whether every row of a tensor [N, C, H, W] with consecutive columns is a whole number of aligned 128-bit packs.
template <class S>
bool whole_packs(const Tensor& t) {
  const int64_t n = kPack<S>;
  return aligned(t.const_data_ptr()) && t.size(3) % n == 0 && t.stride(2) % n == 0 && t.stride(1) % n == 0 && t.stride(0) % n == 0;
}

// Strips of `columns` threads in a block that fills its warps best.
inline int strips_of_a_block(int columns, int64_t strips) {
  int best = 1;
  double most = 0;
  for (int n = 1; n * columns <= kMostThreads && n <= strips; ++n) {
    const double filled = double(n * columns) / (ceil_div(n * columns, 32) * 32);
    if (filled >= most) best = n, most = filled;
  }
  return best;
}

}  // namespace fastgan::stream
