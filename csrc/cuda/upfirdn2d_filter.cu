// The gradient of upfirdn2d in its filter, on a GPU: a correlation of x with dy, one sum of products per tap.
//
// A block takes some rows of dy, a warp of it a tap at a time: outputs that the tap brings to a sample of x are `phases` apart,
// that sample moves by `step`, so no lane meets an inserted zero; where dy is not finite these are met too, as 0 times it is NaN. Sums
// of a row are kept in the type of f, all others in float64, in an order that depends on the shapes alone; a second kernel adds the
// blocks up.
// Memory: x and dy read once, 8 bytes per element of a float32 blur, 2.7 ps at 3 TB/s, 4.0 at 2 TB/s; but each is read once per tap
// from L1, with 1 multiply-add and some 10 other instructions: 16 taps take 6 ps per element at 29 T instructions/s. So it is bound
// by instructions, not memory. Not run on a GPU yet: these are estimates.
#include "cuda/launch.h"

namespace fastgan {
namespace {

constexpr int kThreads = 128;
constexpr int64_t kOutputs = 4096;  // of a block, at least: 16 KiB of float32 dy, which stay in L1
constexpr int64_t kMostBlocks = 8192;
constexpr int64_t kMostSize = 1 << 29, kMostFactor = 1 << 24;  // positions, and steps of 32 lanes, are 32-bit numbers

struct Side {
  int in, out, taps, up, down, before, phases, step;

  Side(int64_t in, int64_t out, int64_t taps, int64_t up, int64_t down, int64_t before)
      : in(in), out(out), taps(taps), up(up), down(down), before(before) {
    int a = up, b = down;
    while (b) a = std::exchange(b, a % b);
    phases = up / a, step = down / a;
  }
  // The first output that tap k brings to a sample of x (`out` if there is none), and that sample.
  __device__ __forceinline__ int first_output(int k, int& sample) const {
    for (int o = 0; o < smaller(phases, out); ++o) {
      const int place = o * down + k - before;
      sample = floor_div(place, up);
      if (sample * up == place) return o;
    }
    return out;
  }
  // Whether tap k brings output o to a sample of x, and not to an inserted zero or one around it.
  __device__ __forceinline__ bool meets(int o, int k) const {
    const int place = o * down + k - before, sample = floor_div(place, up);
    return sample * up == place && sample >= 0 && sample < in;
  }
};

// Of the numbers of a block, in every thread.
template <class S>
__device__ __forceinline__ bool all_finite(const S* from, int64_t n) {
  using T = accumulate_t<S>;
  int* const found = reinterpret_cast<int*>(shared_memory());  // one for each warp
  T zero = 0;  // NaN where one is not finite
  for (int64_t i = threadIdx.x; i < n; i += kThreads) zero += T(0) * static_cast<T>(from[i]);
  zero = warp_sum(zero);
  if (threadIdx.x % 32 == 0) found[threadIdx.x / 32] = zero == T(0);
  __syncthreads();
  bool all = true;
  for (int warp = 0; warp < kThreads / 32; ++warp) all = all && found[warp];
  return all;
}

template <class S>
__global__ void __launch_bounds__(kThreads)
    correlate_kernel(const S* x, const S* dy, double* partial, const Side h, const Side v, int64_t rows, int rows_per_block) {
  using T = accumulate_t<S>;
  const int taps = h.taps * v.taps, lane = threadIdx.x % 32;
  const int64_t first = int64_t(blockIdx.x) * rows_per_block, end = smaller(first + rows_per_block, rows);
  const bool finite = all_finite(dy + first * h.out, (end - first) * h.out);
  for (int tap = threadIdx.x / 32; tap < taps; tap += kThreads / 32) {
    const int ty = tap / h.taps, tx = tap - ty * h.taps;
    int sample;
    const int ox = h.first_output(tx, sample);
    double sum = 0;
    for (int64_t row = first; row < end && ox < h.out; ++row) {
      const int64_t plane = row / v.out;
      const int place = int(row - plane * v.out) * v.down + ty - v.before, y = floor_div(place, v.up);
      if (y * v.up != place || y < 0 || y >= v.in) continue;
      const S *from = x + (plane * v.in + y) * h.in, *with = dy + row * h.out;
      T line = 0;
      for (int o = ox + lane * h.phases, i = sample + lane * h.step; o < h.out && i < h.in; o += 32 * h.phases, i += 32 * h.step)
        if (i >= 0) line += static_cast<T>(from[i]) * static_cast<T>(with[o]);
      sum += line;
    }
    for (int64_t row = first; row < end && !finite; ++row)
      for (int o = lane; o < h.out; o += 32)
        if (!h.meets(o, tx) || !v.meets(int(row % v.out), ty)) sum += T(0) * static_cast<T>(dy[row * h.out + o]);
    sum = warp_sum(sum);
    if (lane == 0) partial[int64_t(blockIdx.x) * taps + tap] = sum;
  }
}

// One tap of df per warp.
template <class T>
__global__ void __launch_bounds__(kThreads) total_kernel(const double* partial, T* df, int blocks, int taps, bool flip, double gain) {
  const int tap = (blockIdx.x * kThreads + threadIdx.x) / 32, lane = threadIdx.x % 32;
  double sum = 0;
  for (int b = lane; b < blocks && tap < taps; b += 32) sum += partial[int64_t(b) * taps + tap];
  sum = warp_sum(sum);
  if (lane == 0 && tap < taps) df[flip ? tap : taps - 1 - tap] = static_cast<T>(gain * sum);
}

Tensor upfirdn2d_filter_backward(Tensor x, Tensor dy, std::vector<int64_t> taps, std::vector<int64_t> up, std::vector<int64_t> down,
                                 std::vector<int64_t> padding, bool flip_filter, double gain) {
  check_device(x, dy);
  FASTGAN_CHECK(x.dim() == 4 && dy.dim() == 4 && dy.scalar_type() == x.scalar_type(), "x and dy must have 4 dimensions and one dtype");
  FASTGAN_CHECK(taps.size() == 2 && up.size() == 2 && down.size() == 2 && padding.size() == 4, "taps, up and down need 2 numbers, padding 4");
  FASTGAN_CHECK(dy.size(0) == x.size(0) && dy.size(1) == x.size(1), "dy does not have the shape of the output");
  const auto side = [&](int a) {
    FASTGAN_CHECK(up[a] >= 1 && down[a] >= 1 && taps[a] >= 1, "up, down and taps must be >= 1");
    FASTGAN_CHECK(up[a] < kMostFactor && down[a] < kMostFactor, "up and down must be below 2^24");
    const int64_t in = x.size(3 - a), out = dy.size(3 - a), size = in * up[a] + padding[2 * a] + padding[2 * a + 1];
    FASTGAN_CHECK(size >= taps[a] && out == (size - taps[a]) / down[a] + 1, "dy does not have the shape of the output");
    for (int64_t n : {size, in * up[a], out * down[a], taps[a], padding[2 * a], -padding[2 * a]})
      FASTGAN_CHECK(n < kMostSize, "sizes and paddings must be below 2^29");
    return Side(in, out, taps[a], up[a], down[a], padding[2 * a]);
  };
  const Side h = side(0), v = side(1);
  FASTGAN_CHECK(taps[0] * taps[1] < kMostSize, "the filter must have fewer than 2^29 taps");
  const int64_t count = taps[0] * taps[1], rows = x.size(0) * x.size(1) * v.out;
  const int64_t rows_per_block = larger(ceil_div<int64_t>(kOutputs, h.out), ceil_div(rows, kMostBlocks)), blocks = ceil_div(rows, rows_per_block);
  x = torch::stable::contiguous(x), dy = torch::stable::contiguous(dy);
  Tensor partial = torch::stable::new_empty(x, {blocks, count}, torch::headeronly::ScalarType::Double), df = partial;
  const OnDeviceOf device(x);
  FASTGAN_DISPATCH(x.scalar_type(), [&] {
    using T = accumulate_t<scalar_t>;
    df = torch::stable::new_empty(x, {taps[1], taps[0]}, accumulate_dtype<scalar_t>);
    if (blocks > 0)
      launch("upfirdn2d_filter_backward", x, dim3(blocks), dim3(kThreads), kThreads / 32 * sizeof(int), correlate_kernel<scalar_t>,
             pointer<scalar_t>(x), pointer<scalar_t>(dy), mutable_pointer<double>(partial), h, v, rows, static_cast<int>(rows_per_block));
    launch("upfirdn2d_filter_backward", x, dim3(ceil_div<int64_t>(count, kThreads / 32)), dim3(kThreads), 0, total_kernel<T>,
           pointer<double>(partial), mutable_pointer<T>(df), static_cast<int>(blocks), static_cast<int>(count), flip_filter, gain);
  });
  return df;
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(FASTGAN_NAMESPACE, FASTGAN_DISPATCH_KEY, m) {
  m.impl("upfirdn2d_filter_backward", TORCH_BOX(&fastgan::upfirdn2d_filter_backward));
}
