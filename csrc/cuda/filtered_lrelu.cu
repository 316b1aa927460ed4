// filtered_lrelu and its transposed pass on a GPU. fastgan/ops/filtered_lrelu.py states the sums and the mask. The factors and filters
// that networks use stream (filtered_lrelu_stream.cu), in 16 bits they are products of tensor cores where widths are even
// (filtered_lrelu_mma.cu). For all others this file has bias, upsampling, leaky ReLU, clamp and downsampling
// of one tile of one plane in shared memory (fir.h); the upsampled grid t never reaches memory.
//
// Memory, per element of x at up 2, down 2: 8 bytes in float32 (4 in 16 bits), x read once but for margins, y written once, and
// 1 byte of mask where a gradient is wanted (2 bits for each of 4 elements of t): floor 1.9 ps at the 4.2 TB/s of an H200.
// Arithmetic, with 12 taps: 12 up along x, 24 up along y, 24 down along x, 12 down along y: 72 multiply-adds, times 1.3 for the tile's
// margins (75 x 75 elements of t for 32 x 32 outputs). In all it takes some 503 instructions per output: 26 ps on an H200, in float32
// and bfloat16 alike, 0.08 and 0.04 of the floor; with channels_last, which is copied, 40 ps.
#include <limits>

#include "cuda/filtered_lrelu.h"

#include "cuda/fir.h"

namespace fastgan {
namespace {

using fir::kThreads;
using fir::Window;

using filtered::Act;
using filtered::Axis;
using filtered::Pass;

// What the kernel knows of an axis.
struct Side {
  Window up, down;
  int x, t, y, lead, shift, tile, tiles, t_tile, x_tile;

  Side() = default;
  // align: samples of t are read four at a time, from a tile whose first column is a multiple of 4.
  Side(const Axis& a, int tile, bool align)
      : x(a.x), t(a.t), y(a.y), lead(-floor_div(a.before, a.up)), shift(a.shift), tile(tile), tiles(ceil_div(y, tile)) {
    const int skip = -shift - floor_div(-shift, 4) * 4;
    up = Window(a.up_taps, a.up, 1, lead * a.up + a.before), down = Window(a.down_taps, 1, a.down, -skip, align);
    t_tile = ceil_div<int64_t>(tile * a.down + a.down_taps - 1 + skip, 4) * 4, x_tile = up.samples(t_tile);
  }
};

struct Plan {
  Side h, v;  // along x, along y
  bool up_separable, down_separable, flip, wide_x, wide_y;
  int chunks, x_pitch, t_pitch, y_pitch;  // chunks of 4 columns of a tile of t; row lengths
  int up_y, down_x, down_y, first, second, end;  // offsets into shared memory, elements; `up_x` is 0
  int64_t channels, x_sample, x_channel, x_row, tiles;
  int mask_words;

  Plan(const Axis& x, const Axis& y, bool up_separable, bool down_separable, int rows, int columns)
      : h(x, columns, true), v(y, rows, false), up_separable(up_separable), down_separable(down_separable), chunks(h.t_tile / 4),
        x_pitch(fir::odd(h.x_tile)), t_pitch(fir::four_odd(h.t_tile)), y_pitch(fir::four_odd(columns)), mask_words(ceil_div(h.t, 32)) {
    up_y = 4 * h.up.steps * (up_separable ? 1 : v.up.taps);
    down_x = up_y + (up_separable ? 4 * v.up.steps : 0);
    down_y = down_x + 4 * h.down.steps * (down_separable ? 1 : v.down.taps);
    first = down_y + (down_separable ? 4 * v.down.steps : 0);
    // x, its rows upsampled, t, its rows downsampled, y: each pass goes from one buffer to the other.
    int sizes[2] = {v.x_tile * x_pitch, 0}, to = 0;
    const auto pass = [&](int size) { to = 1 - to, sizes[to] = larger(sizes[to], size); };
    if (up_separable) pass(v.x_tile * t_pitch);
    pass(v.t_tile * t_pitch);
    if (down_separable) pass(v.t_tile * y_pitch);
    pass(rows * y_pitch);
    second = first + ceil_div(sizes[0], 4) * 4, end = second + ceil_div(sizes[1], 4) * 4;
  }
  template <class T>
  size_t bytes(Pass pass) const {
    return end * sizeof(T) + (pass == Pass::forward ? 0 : v.t_tile * chunks);
  }
};

// Four bits of each of the two rows of the mask, for each row and chunk of 4 columns of the tile of t, and the words in memory.
struct MaskTile {
  uint8_t* nibbles;
  uint32_t* words;
  int y0, x0, rows, chunks, words_per_row, height;

  __device__ __forceinline__ void load() const {
    const int first = floor_div(x0, 32), count = floor_div(x0 + 4 * chunks - 1, 32) + 1 - first;
    for (int item = threadIdx.x; item < rows * count; item += kThreads) {
      const int row = item / count, word = first + item - row * count, y = y0 + row;
      if (y < 0 || y >= height || word < 0 || word >= words_per_row) continue;
      const uint32_t negative = words[int64_t(2 * y) * words_per_row + word], clamped = words[int64_t(2 * y + 1) * words_per_row + word];
      FASTGAN_UNROLL
      for (int i = 0; i < 8; ++i) {
        const int chunk = floor_div(32 * word - x0, 4) + i;
        if (chunk >= 0 && chunk < chunks) nibbles[row * chunks + chunk] = ((negative >> (4 * i)) & 15) | ((clamped >> (4 * i)) & 15) << 4;
      }
    }
  }

  // Rows [0, end_y) and words [0, end_x) of the tile; x0 is a multiple of 32.
  __device__ __forceinline__ void store(int end_y, int end_x) const {
    for (int item = threadIdx.x; item < end_y * end_x; item += kThreads) {
      const int row = item / end_x, word = item - row * end_x;
      uint32_t negative = 0, clamped = 0;
      FASTGAN_UNROLL
      for (int i = 0; i < 8; ++i) {
        const int chunk = 8 * word + i;
        const uint32_t bits = chunk < chunks ? nibbles[row * chunks + chunk] : 0;
        negative |= (bits & 15) << (4 * i), clamped |= (bits >> 4) << (4 * i);
      }
      const int64_t at = int64_t(2 * (y0 + row)) * words_per_row + x0 / 32 + word;
      words[at] = negative, words[at + words_per_row] = clamped;
    }
  }
};

template <Pass kPass, class S>
__global__ void __launch_bounds__(kThreads, sizeof(accumulate_t<S>) == 8 ? 4 : 6)
    filtered_lrelu_kernel(const S* x, const S* bias, const accumulate_t<S>* fu, const accumulate_t<S>* fd, S* y, uint32_t* mask,
                          const Act<accumulate_t<S>> act, const Plan p) {
  using T = accumulate_t<S>;
  T* const memory = reinterpret_cast<T*>(shared_memory());
  fir::make_table(memory, fu, p.up_separable ? 1 : p.v.up.taps, p.h.up, p.flip, T(1));
  if (p.up_separable) fir::make_table(memory + p.up_y, fu, 1, p.v.up, p.flip, T(1));
  fir::make_table(memory + p.down_x, fd, p.down_separable ? 1 : p.v.down.taps, p.h.down, p.flip, T(1));
  if (p.down_separable) fir::make_table(memory + p.down_y, fd, 1, p.v.down, p.flip, T(1));
  for (int64_t tile = blockIdx.x; tile < p.tiles; tile += gridDim.x) {
    T *from = memory + p.first, *to = memory + p.second;
    const auto next = [&] {
      __syncthreads();
      T* const made = to;
      to = from, from = made;
    };
    const int64_t row_of_tiles = tile / p.h.tiles, plane = row_of_tiles / p.v.tiles, channel = plane % p.channels;
    const int tile_x = tile - row_of_tiles * p.h.tiles, tile_y = row_of_tiles - plane * p.v.tiles;
    const int ox = tile_x * p.h.tile, oy = tile_y * p.v.tile;
    const int tx = floor_div(ox * p.h.down.down - p.h.shift, 4) * 4, ty = floor_div(oy * p.v.down.down - p.v.shift, 4) * 4;
    const MaskTile bits{
        reinterpret_cast<uint8_t*>(memory + p.end), mask + plane * p.v.t * 2 * p.mask_words, ty, tx, p.v.t_tile, p.chunks, p.mask_words, p.v.t};
    fir::load_tile(x + plane / p.channels * p.x_sample + channel * p.x_channel, p.x_row, p.v.x, p.h.x, ty / p.v.up.up + p.v.lead,
                   tx / p.h.up.up + p.h.lead, from, p.x_pitch, p.v.x_tile, p.h.x_tile, bias ? static_cast<T>(bias[channel]) : T(0), p.wide_x);
    if (kPass == Pass::masked) bits.load();
    __syncthreads();

    const auto activate = [&](int row, int chunk, const T(&t)[4]) {
      const bool row_inside = ty + row >= 0 && ty + row < p.v.t;
      uint32_t marks = kPass == Pass::masked ? bits.nibbles[row * p.chunks + chunk] : 0;
      Pack<T, 4> values;
      FASTGAN_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int column = tx + 4 * chunk + i;
        const bool inside = row_inside && column >= 0 && column < p.h.t;
        if constexpr (kPass == Pass::masked) {
          const T value = t[i] * (marks >> i & 1 ? act.negative : act.positive);
          values.at[i] = inside && !(marks >> (4 + i) & 1) ? value : T(0);
        } else {
          T value = t[i] * (t[i] > T(0) ? act.positive : act.negative);
          const bool over = value >= act.clamp, under = value <= -act.clamp;
          if (inside) marks |= (t[i] > T(0) ? 0 : 1) << i | (over || under ? 1 : 0) << (4 + i);
          value = over ? act.clamp : under ? -act.clamp : value;
          values.at[i] = inside ? value : T(0);
        }
      }
      store(to + row * p.t_pitch + 4 * chunk, values);
      if (kPass == Pass::forward_and_mask) bits.nibbles[row * p.chunks + chunk] = marks;
    };
    if (p.up_separable) {
      fir::along_x<1>(from, p.x_pitch, to, p.t_pitch, p.v.x_tile, p.chunks, p.h.up, memory);
      next();
      fir::along_y(from, p.t_pitch, p.v.t_tile / 4, p.chunks, p.v.up, memory + p.up_y, activate);
    } else {
      fir::along_both<1>(from, p.x_pitch, p.v.t_tile, p.chunks, p.h.up, p.v.up, memory, activate);
    }
    next();
    if (kPass == Pass::forward_and_mask) {
      // A tile owns t up to where the next one starts; the last one owns the rest.
      const int end_y = (tile_y + 1 == p.v.tiles ? p.v.t : (oy + p.v.tile) * p.v.down.down) - ty;
      const int end_x = (tile_x + 1 == p.h.tiles ? p.h.t : (ox + p.h.tile) * p.h.down.down) - tx;
      bits.store(end_y, ceil_div(end_x, 32));
    }

    const auto give = [&](int row, int chunk, const T(&values)[4]) {
      Pack<T, 4> pack;
      FASTGAN_UNROLL
      for (int i = 0; i < 4; ++i) pack.at[i] = values[i];
      store(to + row * p.y_pitch + 4 * chunk, pack);
    };
    if (p.down_separable) {
      fir::along_x<4>(from, p.t_pitch, to, p.y_pitch, p.v.t_tile, p.h.tile / 4, p.h.down, memory + p.down_x);
      next();
      fir::along_y(from, p.y_pitch, p.v.tile / 4, p.h.tile / 4, p.v.down, memory + p.down_y, give);
    } else {
      fir::along_both<4>(from, p.t_pitch, p.v.tile, p.h.tile / 4, p.h.down, p.v.down, memory + p.down_x, give);
    }
    next();
    fir::store_tile(from, p.y_pitch, y + (plane * p.v.y + oy) * p.h.y + ox, p.h.y, smaller(p.v.tile, p.v.y - oy), smaller(p.h.tile, p.h.y - ox),
                    p.wide_y);
    __syncthreads();
  }
}

// The largest tile in at most 64 KiB (three blocks on an SM with 227 KiB). Its columns of t are a multiple of 32, so that no two
// tiles write one word of the mask.
template <class T>
Plan choose_plan(const Axis& x, const Axis& y, bool up_separable, bool down_separable, Pass pass) {
  static constexpr int kSizes[][2] = {{32, 32}, {16, 32}, {16, 16}, {8, 32}, {8, 16}, {8, 8}, {4, 32}, {4, 16}};
  for (const auto& [rows, columns] : kSizes) {
    if (columns * x.down % 32 || (rows > 4 && rows >= 2 * y.y)) continue;
    const Plan plan(x, y, up_separable, down_separable, rows, columns);
    if (plan.bytes<T>(pass) <= 64 * 1024) return plan;
  }
  return Plan(x, y, up_separable, down_separable, 4, 32 / x.down);
}

void check_arguments(const Tensor& x, const Tensor& fu, const Tensor& fd, int64_t up, int64_t down, const std::vector<int64_t>& numbers) {
  FASTGAN_CHECK(x.dim() == 4, "x must have 4 dimensions");
  const bool wide = x.scalar_type() == torch::headeronly::ScalarType::Double;
  for (const Tensor* f : {&fu, &fd}) {
    FASTGAN_CHECK((f->dim() == 1 || f->dim() == 2) && f->numel() > 0, "a filter must have 1 or 2 dimensions");
    FASTGAN_CHECK(f->size(0) <= fir::kMostTaps && f->size(f->dim() - 1) <= fir::kMostTaps, "a filter has more than ", fir::kMostTaps, " taps");
    FASTGAN_CHECK(f->scalar_type() == (wide ? torch::headeronly::ScalarType::Double : torch::headeronly::ScalarType::Float),
                  "filters must be float32, or float64 for a float64 x");
  }
  for (int64_t factor : {up, down}) FASTGAN_CHECK(factor == 1 || factor == 2 || factor == 4, "up and down must be 1, 2 or 4");
  for (int64_t n : numbers) FASTGAN_CHECK(n < fir::kMostSize && n > -fir::kMostSize, "sizes and paddings must be below 2^29");
  FASTGAN_CHECK(x.size(2) < fir::kMostSize && x.size(3) < fir::kMostSize, "height and width must be below 2^29");
}

template <Pass kPass>
Tensor run(Tensor x, std::optional<Tensor> b, Tensor fu, Tensor fd, const Axis& ax, const Axis& ay, double gain, double slope, double clamp,
           bool flip, uint32_t* mask) {
  fu = torch::stable::contiguous(fu), fd = torch::stable::contiguous(fd);
  if (b) b = torch::stable::contiguous(*b);
  const bool last = x.size(1) > 1 && x.stride(1) == 1 && x.stride(3) > 1;
  Tensor y = torch::stable::new_empty(
      x, last ? std::vector<int64_t>{x.size(0), ay.y, ax.y, x.size(1)} : std::vector<int64_t>{x.size(0), x.size(1), ay.y, ax.y});
  if (last) y = torch::stable::transpose(torch::stable::transpose(y, 2, 3), 1, 2);
  if (y.numel() == 0) return y;
  const OnDeviceOf device(x);
  if (filtered::multiply(kPass, x, b ? &*b : nullptr, fu, fd, y, mask, ax, ay, gain, slope, clamp, flip)) return y;
  if (filtered::stream(kPass, x, b ? &*b : nullptr, fu, fd, y, mask, ax, ay, gain, slope, clamp, flip)) return y;
  if (x.size(3) > 1 && x.stride(3) != 1) x = torch::stable::contiguous(x);
  Tensor made = last ? torch::stable::new_empty(x, {x.size(0), x.size(1), ay.y, ax.y}) : y;
  FASTGAN_DISPATCH(x.scalar_type(), [&] {
    using T = accumulate_t<scalar_t>;
    Plan plan = choose_plan<T>(ax, ay, fu.dim() == 1, fd.dim() == 1, kPass);
    plan.flip = flip, plan.wide_x = whole_packs<scalar_t>(x), plan.wide_y = whole_packs<scalar_t>(made);
    plan.channels = x.size(1), plan.x_sample = x.stride(0), plan.x_channel = x.stride(1), plan.x_row = x.stride(2);
    plan.tiles = x.size(0) * x.size(1) * plan.h.tiles * plan.v.tiles;
    const Act<T> act{static_cast<T>(gain), static_cast<T>(gain * slope), clamp < 0 ? std::numeric_limits<T>::quiet_NaN() : static_cast<T>(clamp)};
    launch("filtered_lrelu", x, dim3(smaller<int64_t>(plan.tiles, INT32_MAX)), dim3(kThreads), plan.template bytes<T>(kPass),
           filtered_lrelu_kernel<kPass, scalar_t>, pointer<scalar_t>(x), b ? pointer<scalar_t>(*b) : nullptr, pointer<T>(fu), pointer<T>(fd),
           mutable_pointer<scalar_t>(made), mask, act, plan);
  });
  if (last) torch::stable::copy_(y, made);
  return y;
}

std::tuple<Tensor, Tensor> filtered_lrelu(Tensor x, std::optional<Tensor> b, Tensor fu, Tensor fd, int64_t up, int64_t down,
                                          std::vector<int64_t> padding, double gain, double slope, double clamp, bool flip_filter, bool save_mask) {
  check_device(x, b, fu, fd);
  FASTGAN_CHECK(padding.size() == 4, "padding must have 4 numbers");
  check_arguments(x, fu, fd, up, down, padding);
  FASTGAN_CHECK(!b || (b->dim() == 1 && b->size(0) == x.size(1) && b->scalar_type() == x.scalar_type()),
                "b must be a vector of x.shape[1] elements of the dtype of x");
  const auto axis = [&](int a) {
    const int64_t up_taps = fu.size(a == 0 ? fu.dim() - 1 : 0), down_taps = fd.size(a == 0 ? fd.dim() - 1 : 0), size = x.size(3 - a);
    const int64_t t = size * up + padding[2 * a] + padding[2 * a + 1] - up_taps + 1;
    FASTGAN_CHECK(t >= down_taps, "the upsampled image is smaller than fd");
    FASTGAN_CHECK(t < fir::kMostSize, "the upsampled image must be below 2^29 along either axis");
    return Axis{size, t, (t - down_taps) / down + 1, up_taps, down_taps, up, down, padding[2 * a], 0};
  };
  const Axis ax = axis(0), ay = axis(1);
  const auto bytes = torch::headeronly::ScalarType::Byte;
  const double factor = gain * up * up;
  if (!save_mask)
    return {run<Pass::forward>(x, b, fu, fd, ax, ay, factor, slope, clamp, flip_filter, nullptr), torch::stable::new_empty(x, {0}, bytes)};
  Tensor mask = torch::stable::new_empty(x, {x.size(0), x.size(1), ay.t, 2, ceil_div<int64_t>(ax.t, 32) * 4}, bytes);
  return {run<Pass::forward_and_mask>(x, b, fu, fd, ax, ay, factor, slope, clamp, flip_filter, mutable_pointer<uint32_t>(mask)), mask};
}

Tensor filtered_lrelu_backward(Tensor x, Tensor mask, Tensor fu, Tensor fd, int64_t up, int64_t down, std::vector<int64_t> offset,
                               std::vector<int64_t> size, double gain, double slope, bool flip_filter) {
  check_device(x, mask, fu, fd);
  FASTGAN_CHECK(offset.size() == 4 && size.size() == 4, "offset and size must have 4 numbers each");
  check_arguments(x, fu, fd, up, down, offset);
  check_arguments(x, fu, fd, up, down, size);
  FASTGAN_CHECK(size[0] >= 1 && size[1] >= 1 && size[2] >= 0 && size[3] >= 0, "sizes must not be negative");
  const int64_t expected[] = {x.size(0), x.size(1), size[1], 2, ceil_div<int64_t>(size[0], 32) * 4};
  FASTGAN_CHECK(mask.dim() == 5 && mask.scalar_type() == torch::headeronly::ScalarType::Byte, "mask must be uint8 of 5 dimensions");
  for (int64_t d = 0; d < 5; ++d)
    FASTGAN_CHECK(mask.size(d) == expected[d], "mask has size ", mask.size(d), " in dimension ", d, ", expected ", expected[d]);
  mask = torch::stable::contiguous(mask);
  FASTGAN_CHECK(reinterpret_cast<uintptr_t>(mask.const_data_ptr()) % 4 == 0, "mask must start at a multiple of 4 bytes");
  const auto axis = [&](int a) {
    return Axis{x.size(3 - a), size[a],   size[2 + a],  fu.size(a == 0 ? fu.dim() - 1 : 0), fd.size(a == 0 ? fd.dim() - 1 : 0), up,
                down,          offset[a], offset[2 + a]};
  };
  uint32_t* words = const_cast<uint32_t*>(pointer<uint32_t>(mask));  // only read
  return run<Pass::masked>(x, std::nullopt, fu, fd, axis(0), axis(1), gain, slope, -1.0, flip_filter, words);
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(FASTGAN_NAMESPACE, FASTGAN_DISPATCH_KEY, m) {
  m.impl("filtered_lrelu", TORCH_BOX(&fastgan::filtered_lrelu));
  m.impl("filtered_lrelu_backward", TORCH_BOX(&fastgan::filtered_lrelu_backward));
}
