// FIR resampling that streams down an image: the part that upfirdn2d and filtered_lrelu share.
//
// A block takes some strips (some columns of one plane, and the rows that some rows of outputs need), a thread of it one or two columns.
// Rows of x come in batches through shared memory; a thread filters along x from there and along y in registers, where the last
// samples, or the sums that are not finished yet, wait. Factors and numbers of taps are compile-time constants; the phase, which the
// padding sets, is only an offset into shared memory or into the rows: no tap that does not exist is ever multiplied (a NaN reaches
// what it is part of and nothing else). With channels_last the strips of a block are neighbouring channels, and the fastest index of
// its threads.
#pragma once

#include <numeric>

#include "cuda/launch.h"

namespace fastgan::stream {

constexpr int kChannels = 8;  // strips of a block with channels_last: 32 bytes of float32
constexpr size_t kMostShared = 72 * 1024;  // of a block: three on an SM with 227 KiB; less than the 99 KiB that every GPU has

constexpr int up4(int n) { return (n + 3) / 4 * 4; }

struct Strides {
  int64_t sample, channel;
  int row, column;

  Strides() = default;
  explicit Strides(const Tensor& t) : sample(t.stride(0)), channel(t.stride(1)), row(t.stride(2)), column(t.stride(3)) {}
};

// The strips of a call and how blocks take them. Channels are the fastest index of strips, then tiles along x.
struct Grid {
  int64_t channels, samples, strips;
  int block_strips, columns;  // strips of a block, threads of a strip
  Strides x, y;
  bool last;  // channels_last

  Grid() = default;
  Grid(const Tensor& x, const Tensor& y)
      : channels(x.size(1)), samples(x.size(0)), x(x), y(y), last(y.size(1) > 1 && y.stride(1) == 1 && y.stride(3) > 1) {}

  // As many strips in a block as fill its warps best.
  void fill(int threads, int most_threads, int64_t tiles, int strip_size) {
    columns = threads, strips = channels * samples * tiles;
    double most = 0;
    for (int n = 1; n == 1 || (n * columns <= most_threads && n <= strips && shared_bytes(strip_size, n) <= kMostShared && (!last || n <= kChannels));
         ++n) {
      const double filled = last ? n : double(n * columns) / (ceil_div(n * columns, 32) * 32);
      if (filled >= most) block_strips = n, most = filled;
    }
  }
  // Whether the strips of a block are kChannels channels of one place whose elements in x are whole packs.
  template <class S>
  bool whole_pixels(const Tensor& t) const {
    constexpr int n = kPack<S>;
    return last && t.stride(1) == 1 && block_strips == kChannels && channels % kChannels == 0 && aligned(t.const_data_ptr()) &&
           t.stride(3) % n == 0 && t.stride(2) % n == 0 && t.stride(0) % n == 0;
  }
  static size_t shared_bytes(int strip_size, int n) { return n * strip_size * sizeof(float); }
  size_t shared_bytes(int strip_size) const { return shared_bytes(strip_size, block_strips); }
  dim3 threads() const { return dim3(ceil_div(block_strips * columns, 32) * 32); }
  dim3 blocks() const { return dim3(static_cast<unsigned>(ceil_div<int64_t>(strips, block_strips))); }
};

// Floats of a strip in shared memory: neighbouring channels' rows begin in neighbouring packs of 4 banks.
constexpr int strip_size(int floats) { return (floats + 27) / 32 * 32 + 4; }

// The strip of this thread; where there is none (live is false) it is one that may be looked at.
struct Strip {
  int thread, index, tile_x, tile_y;  // thread of the strip, strip of the block
  int64_t sample, channel;
  bool live;

  __device__ __forceinline__ Strip(const Grid& grid, int tiles_x, int tiles_y) {
    const int inner = grid.last ? grid.block_strips : grid.columns, outer = threadIdx.x / inner, rest = threadIdx.x - outer * inner;
    index = grid.last ? rest : outer, thread = grid.last ? outer : rest;
    int64_t id = int64_t(blockIdx.x) * grid.block_strips + index;
    live = index < grid.block_strips && thread < grid.columns && id < grid.strips;
    if (!live) id = 0, index = 0;
    const int64_t place = id / grid.channels, row_of_tiles = place / tiles_x;
    channel = id - place * grid.channels, tile_x = place - row_of_tiles * tiles_x;
    sample = row_of_tiles / tiles_y, tile_y = row_of_tiles - sample * tiles_y;
  }
  template <class S>
  __device__ __forceinline__ S* of(S* image, const Strides& strides) const {
    return image + sample * strides.sample + channel * strides.channel;
  }
};

// `items` in each of some rows, which `threads` share: one after the other, without a division.
struct Share {
  int items, rows_on, items_on;  // from one item of a thread to its next

  Share() = default;
  Share(int items, int threads) : items(items), rows_on(threads / items), items_on(threads % items) {}
};

struct Item {
  int row, item;

  __device__ __forceinline__ Item(const Share& share, int thread) : row(thread / share.items), item(thread - row * share.items) {}
  __device__ __forceinline__ void next(const Share& share) {
    row += share.rows_on, item += share.items_on;
    if (item >= share.items) item -= share.items, ++row;
  }
};

// Rows of a plane on their way to shared memory, zero outside of it: packs of N elements from column `first` on, which comes to element
// `odd` (0 or 1) of a row. kPairs: of a row the even pairs of elements lie in its first half and the odd ones in the second, so that
// threads that read pairs 4 elements apart meet no bank twice.
template <class S, bool kPairs = false>
struct Rows {
  const S* plane;
  int row_stride, column_stride, height, width, first, pitch, odd;
  float bias;

  // Where element 4 fours + n of a row lies.
  __device__ __forceinline__ int place(int fours, int n) const {
    return kPairs ? (n & 2 ? pitch / 2 : 0) + 2 * (fours + (n >> 2)) + (n & 1) : 4 * fours + n;
  }

  // kAtOnce: loads in flight, of a thread
  template <int N, int kAtOnce>
  __device__ __forceinline__ void load(int y0, int rows, float* to, const Share& share, Item item) const {
    while (item.row < rows) {
      Pack<S, N> read[kAtOnce];
      int at[kAtOnce];
      bool inside[kAtOnce];
      FASTGAN_UNROLL
      for (int i = 0; i < kAtOnce; ++i, item.next(share)) {
        const int y = y0 + item.row, x = first + item.item * N;
        at[i] =
            item.row < rows ? item.row * pitch + (N == 1 ? place((item.item + odd) >> 2, (item.item + odd) & 3) : place(item.item * (N / 4), 0)) : -1;
        inside[i] = at[i] >= 0 && unsigned(y) < unsigned(height) && unsigned(x) < unsigned(width);
        if (inside[i]) read[i] = fastgan::load<S, N>(plane + int64_t{y} * row_stride + (N == 1 ? int64_t{x} * column_stride : x));
      }
      FASTGAN_UNROLL
      for (int i = 0; i < kAtOnce; ++i) {
        if (at[i] < 0) break;
        Pack<float, N> values;
        FASTGAN_UNROLL
        for (int n = 0; n < N; ++n) values.at[n] = inside[i] ? static_cast<float>(read[i].at[n]) + bias : 0.f;
        float* const first_place = to + at[i];
        if (N > 1 && odd) {
          first_place[place(0, 1)] = values.at[0], first_place[place(0, N)] = values.at[N - 1];
          FASTGAN_UNROLL
          for (int n = 1; n + 1 < N; n += 2) store(first_place + place(0, n + 1), Pack<float, 2>{{values.at[n], values.at[n + 1]}});
        } else if constexpr (N > 1 && kPairs) {
          FASTGAN_UNROLL
          for (int n = 0; n < N; n += 2) store(first_place + place(0, n), Pack<float, 2>{{values.at[n], values.at[n + 1]}});
        } else {
          store(first_place, values);
        }
      }
    }
  }

  // The same of all strips of a block, from `to` and `biases` on `strip_size` apart, whose channels lie innermost (Grid::whole_pixels):
  // `plane` is the first one's. An item is a pack of a pixel.
  template <bool kBias>
  __device__ __forceinline__ void load_pixels(int y0, int rows, float* to, const float* biases, int strip_size, const Share& share, Item item) const {
    constexpr int N = kPack<S>, kPacks = kChannels / N;
    for (; item.row < rows; item.next(share)) {
      const int pixel = item.item / kPacks, channel = item.item % kPacks * N, y = y0 + item.row, x = first + pixel;
      const bool inside = unsigned(y) < unsigned(height) && unsigned(x) < unsigned(width);
      Pack<S, N> read{};
      if (inside) read = fastgan::load<S, N>(plane + int64_t{y} * row_stride + int64_t{x} * column_stride + channel);
      FASTGAN_UNROLL
      for (int n = 0; n < N; ++n) {
        const int strip = (channel + n) * strip_size;
        to[strip + item.row * pitch + place(pixel >> 2, pixel & 3)] = static_cast<float>(read.at[n]) + (kBias && inside ? biases[strip] : 0.f);
      }
    }
  }
};

// Whether the numbers of a call fit those that kernels take.
inline bool fits(const Tensor& x, const Tensor& y) {
  for (const Tensor* t : {&x, &y})
    if (t->stride(2) > INT32_MAX || t->stride(3) > INT32_MAX) return false;
  return x.size(0) * x.size(1) <= int64_t{1} << 30;
}

// run(element of the type of x); false for float64, which has no streaming kernel.
template <class Run>
bool with_type(const Tensor& x, Run&& run) {
  using torch::headeronly::ScalarType;
  switch (x.scalar_type()) {
    case ScalarType::Float: run(float()); return true;
    case ScalarType::Half: run(torch::headeronly::Half()); return true;
    case ScalarType::BFloat16: run(torch::headeronly::BFloat16()); return true;
    default: return false;
  }
}

}  // namespace fastgan::stream
