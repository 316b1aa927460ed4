// filtered_snake and its gradient on a GPU (fastgan/ops/filtered_snake.py states the formulas).
//
// A block makes one stretch of a row: x with what is held beyond its ends to shared memory, v of the stretch and of what the second
// filter reads beside it, then y. t and v never reach global memory: x is read once (and the filters' reach between stretches, from
// L2), y written once. Floor in float32: 2.7 ps per element at 3 TB/s; backward 4.0. Sums over a channel have a fixed order: per
// block, then over blocks. Not run on a GPU yet. Ratio 2 with 12 taps has kernels of its own: filtered_snake_packs.cu, and in
// 16 bits filtered_snake_mma.cu and filtered_snake_mma_backward.cu.
#include "cuda/filtered_snake.h"

#include <tuple>

#include "activation.h"
#include "cuda/launch.h"

namespace fastgan::snaked {
#include "snake.h"
}

namespace fastgan {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32;
constexpr int kStretch = 2048;  // elements of t that a block is responsible for
constexpr int kMostTaps = 256;  // float64 of all stretches with such filters: 75 KiB of shared memory of 99

struct Sizes {
  int64_t x_size, t_size, y_size;
  int channels, up, down, taps_u, taps_d, tiles;  // tiles: stretches of a row
  int held, first, before, after;
  bool wide;  // rows are whole aligned 128-bit packs
};

// Indices [from, until) of a signal.
struct Range {
  int64_t from, until;
  __host__ __device__ int64_t length() const { return until - from; }
};

// The x that t of [from, until) reads.
__host__ __device__ Range x_of_t(const Sizes& z, Range t) {
  return {floor_div<int64_t>(t.from + z.first - z.taps_u + z.up, z.up) - z.held, floor_div<int64_t>(t.until - 1 + z.first, z.up) - z.held + 1};
}

// Forward, tile i of a row.
struct ForwardTile {
  Range y, v, x;
  __host__ __device__ ForwardTile(const Sizes& z, int64_t i) {
    const int64_t step = kStretch / z.down;
    y = {i * step, smaller<int64_t>(z.y_size, (i + 1) * step)};
    v = {y.from * z.down - z.before, (y.until - 1) * z.down - z.before + z.taps_d};
    x = x_of_t(z, {larger<int64_t>(0, smaller<int64_t>(v.from, z.t_size - 1)), larger<int64_t>(1, smaller<int64_t>(v.until, z.t_size))});
  }
};

struct BackwardTile {
  Range x, made, dt, t, dy, read;  // x: this tile's; made: with what is held; t: dt inside of the row
  __host__ __device__ BackwardTile(const Sizes& z, int64_t i) {
    const int64_t step = kStretch / z.up;
    x = {i * step, smaller<int64_t>(z.x_size, (i + 1) * step)};
    made = {x.from == 0 ? -z.held : x.from, x.until == z.x_size ? x.until + z.held : x.until};
    dt = {(made.from + z.held) * z.up - z.first, (made.until - 1 + z.held) * z.up - z.first + z.taps_u};
    t = {larger<int64_t>(0, smaller<int64_t>(dt.from, z.t_size - 1)), larger<int64_t>(1, smaller<int64_t>(dt.until, z.t_size))};
    const int64_t low = t.from == 0 ? -z.before : t.from, high = t.until == z.t_size ? t.until + z.after : t.until;
    dy = {floor_div<int64_t>(low + z.before - z.taps_d + z.down, z.down), floor_div<int64_t>(high - 1 + z.before, z.down) + 1};
    read = x_of_t(z, t);
  }
};

// A part of a row of `size` samples to shared memory: its ends over `held` places beyond them, 0 beyond those.
template <class S, class T>
__device__ __forceinline__ void stage(const S* row, int64_t size, int held, bool wide, Range part, T* to) {
  constexpr int N = kPack<S>;
  for (int64_t at = floor_div<int64_t>(part.from, N) * N + int64_t(threadIdx.x) * N; at < part.until; at += kThreads * N) {
    // Packs that are read in part go by elements: nvcc would cut a load in two whose elements are not all used alike.
    if (wide && at >= larger<int64_t>(0, part.from) && at + N <= smaller(size, part.until)) {
      const Pack<S, N> pack = load<S, N>(row + at);
      FASTGAN_UNROLL
      for (int i = 0; i < N; ++i) to[at + i - part.from] = static_cast<T>(pack.at[i]);
    } else {
      for (int64_t i = larger(at, part.from); i < smaller(at + N, part.until); ++i)
        to[i - part.from] = i < -held || i >= size + held ? T(0) : static_cast<T>(row[larger<int64_t>(0, smaller(i, size - 1))]);
    }
  }
}

// The way back; `part` begins at a pack.
template <class S, class T>
__device__ __forceinline__ void unstage(const T* from, Range part, bool wide, S* row) {
  constexpr int N = kPack<S>;
  for (int i = threadIdx.x * N; i < part.length(); i += kThreads * N) {
    if (wide && i + N <= part.length()) {
      Pack<S, N> pack;
      FASTGAN_UNROLL
      for (int j = 0; j < N; ++j) pack.at[j] = static_cast<S>(from[i + j]);
      store(row + part.from + i, pack);
    } else {
      for (int j = i; j < i + N && j < part.length(); ++j) row[part.from + j] = static_cast<S>(from[j]);
    }
  }
}

template <class T>
__device__ __forceinline__ void stage_taps(const T* f, int taps, T* to) {
  for (int k = threadIdx.x; k < taps; k += kThreads) to[k] = f ? f[k] : T(1);
}

// sum of f[k] in[(m + shift - k) / factor - in_from] over the k for which that is an index: an upsampling filter.
template <class T>
__device__ __forceinline__ T rise(const T* f, int taps, int factor, int64_t shifted, const T* in, int64_t in_from) {
  const int64_t low = floor_div<int64_t>(shifted, factor);
  const T* from = in + (low - in_from);
  T sum = 0;
  for (int k = static_cast<int>(shifted - low * factor); k < taps; k += factor, --from) sum += f[k] * *from;
  return sum;
}

template <class T>
struct Phase {
  T f, square;
  __device__ Phase(T t, T turns) {
    const T u = t * turns;
    f = u - rint(u), square = f * f;
  }
};

template <class S, class T>
__global__ void __launch_bounds__(kThreads) forward_kernel(const S* x, const T* a, const T* c, const T* fu, const T* fd, S* y, const Sizes z) {
  T *const taps_u = reinterpret_cast<T*>(shared_memory()), *const taps_d = taps_u + z.taps_u, *const v = taps_d + z.taps_d;
  const int64_t row = blockIdx.x / z.tiles;
  const ForwardTile tile(z, blockIdx.x - row * z.tiles);
  T* const in = v + tile.v.length();
  const int channel = row % z.channels;
  const T turns = static_cast<T>(a[channel] / T(snaked::kPi)), amplitude = c[channel];
  stage_taps(fu, z.taps_u, taps_u), stage_taps(fd, z.taps_d, taps_d);
  stage(x + row * z.x_size, z.x_size, z.held, z.wide, tile.x, in);
  __syncthreads();
  for (int i = threadIdx.x; i < tile.v.length(); i += kThreads) {
    const int64_t m = larger<int64_t>(0, smaller<int64_t>(tile.v.from + i, z.t_size - 1));  // v is held beyond the ends
    const T t = T(z.up) * rise(taps_u, z.taps_u, z.up, m + z.first, in, tile.x.from + z.held);
    v[i] = t + amplitude * snaked::square_of_sine<T>(Phase<T>(t, turns).square);
  }
  __syncthreads();
  T* const out = in;
  for (int i = threadIdx.x; i < tile.y.length(); i += kThreads) {
    T sum = 0;
    for (int k = 0; k < z.taps_d; ++k) sum += taps_d[k] * v[i * z.down + k];
    out[i] = sum;
  }
  __syncthreads();
  unstage(out, tile.y, z.wide, y + row * z.y_size);
}

// by_a, by_c: [rows][tiles]
template <class S, class T>
__global__ void __launch_bounds__(kThreads, 4)
    backward_kernel(const S* dy, const S* x, const T* a, const T* c, const T* fu, const T* fd, S* dx, T* by_a, T* by_c, const Sizes z) {
  T *const taps_u = reinterpret_cast<T*>(shared_memory()), *const taps_d = taps_u + z.taps_u, *const sums = taps_d + z.taps_d;
  const int64_t row = blockIdx.x / z.tiles;
  const BackwardTile tile(z, blockIdx.x - row * z.tiles);
  T *const dt = sums + 2 * kWarps, *const in = dt + tile.dt.length(), *const gradient = in + larger(tile.read.length(), tile.x.length());
  const int channel = row % z.channels;
  const T turns = static_cast<T>(a[channel] / T(snaked::kPi)), amplitude = c[channel], slope = a[channel] * amplitude;
  stage_taps(fu, z.taps_u, taps_u), stage_taps(fd, z.taps_d, taps_d);
  stage(x + row * z.x_size, z.x_size, z.held, z.wide, tile.read, in);
  stage(dy + row * z.y_size, z.y_size, 0, z.wide, tile.dy, gradient);
  __syncthreads();
  T sum_a = 0, sum_c = 0;
  for (int i = threadIdx.x; i < tile.dt.length(); i += kThreads) {
    const int64_t m = tile.dt.from + i;
    if (m < 0 || m >= z.t_size) {
      dt[i] = 0;
      continue;
    }
    // v[0] was held before the row, v[M - 1] after it.
    const int64_t last = m == z.t_size - 1 ? m + z.after : m;
    T g = 0;
    for (int64_t h = m == 0 ? -z.before : m; h <= last; ++h) g += rise(taps_d, z.taps_d, z.down, h + z.before, gradient, tile.dy.from);
    const T t = T(z.up) * rise(taps_u, z.taps_u, z.up, m + z.first, in, tile.read.from + z.held);
    const Phase<T> phase(t, turns);
    const T sine = g * snaked::sine_of_double<T>(phase.f, phase.square);
    dt[i] = g + slope * sine;
    if (m >= tile.x.from * z.up && m < tile.x.until * z.up) {
      sum_a += t * sine;
      sum_c += g * snaked::square_of_sine<T>(phase.square);
    }
  }
  sum_a = warp_sum(sum_a), sum_c = warp_sum(sum_c);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum_a, sums[kWarps + threadIdx.x / 32] = sum_c;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < kWarps; ++w) sum_a += sums[w], sum_c += sums[kWarps + w];
    by_a[blockIdx.x] = amplitude * sum_a, by_c[blockIdx.x] = sum_c;
  }
  T* const out = in;
  for (int i = threadIdx.x; i < tile.x.length(); i += kThreads) {
    const int64_t at = tile.x.from + i;
    const int64_t last = at == z.x_size - 1 ? at + z.held : at;
    T sum = 0;
    for (int64_t h = at == 0 ? -z.held : at; h <= last; ++h) {
      const T* from = dt + ((h + z.held) * z.up - z.first - tile.dt.from);
      for (int k = 0; k < z.taps_u; ++k) sum += taps_u[k] * from[k];
    }
    out[i] = T(z.up) * sum;
  }
  __syncthreads();
  unstage(out, tile.x, z.wide, dx + row * z.x_size);
}

// One warp per channel.
template <class T>
__global__ void __launch_bounds__(kThreads) finish_kernel(const T* by_a, const T* by_c, T* da, T* dc, int64_t samples, int channels, int tiles) {
  const int channel = blockIdx.x * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (channel >= channels) return;
  T a = 0, c = 0;
  for (int64_t block = lane; block < samples * tiles; block += 32) {
    const int64_t n = block / tiles, i = (n * channels + channel) * tiles + block - n * tiles;
    a += by_a[i], c += by_c[i];
  }
  a = warp_sum(a), c = warp_sum(c);
  if (lane == 0) da[channel] = a, dc[channel] = c;
}

Sizes check_sizes(const Tensor& x, const Tensor& a, const Tensor& c, const std::optional<Tensor>& fu, const std::optional<Tensor>& fd, int64_t up,
                  int64_t down) {
  FASTGAN_CHECK(x.dim() == 3, "x must have 3 dimensions");
  for (int64_t factor : {up, down}) FASTGAN_CHECK(factor == 1 || factor == 2 || factor == 4, "up and down must be 1, 2 or 4");
  for (const Tensor* v : {&a, &c})
    FASTGAN_CHECK(v->dim() == 1 && v->size(0) == x.size(1) && v->scalar_type() == accumulate_dtype_of(x),
                  "a and c must be vectors of x.shape[1] elements in float32, or float64 for a float64 x");
  FASTGAN_CHECK(fu.has_value() == fd.has_value() && (fu || (up == 1 && down == 1)), "without filters up and down must be 1");
  int64_t taps_u = 1, taps_d = 1;
  if (fu) {
    for (const Tensor& f : {*fu, *fd})
      FASTGAN_CHECK(f.dim() == 1 && f.size(0) > 0 && f.size(0) <= kMostTaps && f.scalar_type() == accumulate_dtype_of(x),
                    "filters must be vectors of at most 256 taps in float32, or float64 for a float64 x");
    taps_u = fu->size(0), taps_d = fd->size(0);
  }
  FASTGAN_CHECK(taps_u >= up, "fu must have at least `up` taps");
  FASTGAN_CHECK(x.size(1) < INT32_MAX, "more than 2^31 channels");
  Sizes z{};
  z.x_size = x.size(2), z.t_size = z.x_size * up, z.y_size = ceil_div(z.t_size, down);
  z.channels = x.size(1), z.up = up, z.down = down, z.taps_u = taps_u, z.taps_d = taps_d;
  z.tiles = ceil_div<int64_t>(z.t_size, kStretch);
  z.held = taps_u / up - 1, z.first = z.held * up + (taps_u - up) / 2, z.before = (taps_d - 1) / 2, z.after = taps_d / 2;
  FASTGAN_CHECK(x.size(0) * z.channels * z.tiles < INT32_MAX, "more than 2^31 stretches of rows");
  return z;
}

template <class S>
bool wide(const Sizes& z, const Tensor& x, const Tensor& y) {
  return z.x_size % kPack<S> == 0 && z.y_size % kPack<S> == 0 && aligned(x.const_data_ptr()) && aligned(y.const_data_ptr());
}

template <class T>
const T* taps(const std::optional<Tensor>& f) {
  return f ? pointer<T>(*f) : nullptr;
}

// Numbers of shared memory of the largest tile: the first has what is held at one end, the last at both if it is alone.
template <class Tile, class Count>
int64_t most(const Sizes& z, const Count& count) {
  int64_t found = 0;
  for (int64_t i : {int64_t(0), smaller<int64_t>(1, z.tiles - 1), larger<int64_t>(0, z.tiles - 2), int64_t(z.tiles) - 1})
    found = larger<int64_t>(found, count(Tile(z, i)));
  return found;
}

Tensor filtered_snake(Tensor x, Tensor a, Tensor c, std::optional<Tensor> fu, std::optional<Tensor> fd, int64_t up, int64_t down) {
  check_device(x, a, c, fu, fd);
  Sizes z = check_sizes(x, a, c, fu, fd, up, down);
  x = torch::stable::contiguous(x), a = torch::stable::contiguous(a), c = torch::stable::contiguous(c);
  if (fu) fu = torch::stable::contiguous(*fu), fd = torch::stable::contiguous(*fd);
  Tensor y = torch::stable::new_empty(x, {x.size(0), x.size(1), z.y_size});
  const OnDeviceOf device(x);
  FASTGAN_DISPATCH(x.scalar_type(), [&] {
    using T = accumulate_t<scalar_t>;
    if (x.numel() == 0) return;
    if (snaked::takes_mma(x, fu, fd, up, down)) return snaked::forward_by_mma(x, a, c, *fu, *fd, y);
    if (const int tiles = snaked::tiles_of_packs(x, nullptr, fu, fd, up, down)) return snaked::forward_in_packs(x, a, c, *fu, *fd, y, tiles);
    z.wide = wide<scalar_t>(z, x, y);
    const int64_t numbers =
        z.taps_u + z.taps_d + most<ForwardTile>(z, [](const ForwardTile& t) { return t.v.length() + larger(t.x.length(), t.y.length()); });
    launch("filtered_snake", x, dim3(x.size(0) * z.channels * z.tiles), dim3(kThreads), numbers * sizeof(T), forward_kernel<scalar_t, T>,
           pointer<scalar_t>(x), pointer<T>(a), pointer<T>(c), taps<T>(fu), taps<T>(fd), mutable_pointer<scalar_t>(y), z);
  });
  return y;
}

std::tuple<Tensor, Tensor, Tensor> filtered_snake_backward(Tensor dy, Tensor x, Tensor a, Tensor c, std::optional<Tensor> fu,
                                                           std::optional<Tensor> fd, int64_t up, int64_t down) {
  check_device(x, dy, a, c, fu, fd);
  Sizes z = check_sizes(x, a, c, fu, fd, up, down);
  FASTGAN_CHECK(dy.dim() == 3 && dy.size(0) == x.size(0) && dy.size(1) == x.size(1) && dy.size(2) == z.y_size && dy.scalar_type() == x.scalar_type(),
                "dy must have the shape of y and the dtype of x");
  x = torch::stable::contiguous(x), dy = torch::stable::contiguous(dy), a = torch::stable::contiguous(a), c = torch::stable::contiguous(c);
  if (fu) fu = torch::stable::contiguous(*fu), fd = torch::stable::contiguous(*fd);
  Tensor dx = torch::stable::new_empty(x, {x.size(0), x.size(1), z.x_size});
  Tensor da = torch::stable::new_empty(a, {a.size(0)}), dc = torch::stable::new_empty(a, {a.size(0)});
  const OnDeviceOf device(x);
  FASTGAN_DISPATCH(x.scalar_type(), [&] {
    using T = accumulate_t<scalar_t>;
    const int pieces = x.numel() > 0 ? snaked::pieces_by_mma(x, dy, fu, fd, up, down) : 0;
    const int tiles_of_packs = pieces ? 0 : snaked::tiles_of_packs(x, &dy, fu, fd, up, down);
    if (pieces || tiles_of_packs) z.tiles = pieces + tiles_of_packs;
    const int64_t blocks = x.size(0) * z.channels * z.tiles;
    Tensor by_a = torch::stable::new_empty(a, {blocks}), by_c = torch::stable::new_empty(a, {blocks});
    if (pieces) {
      snaked::backward_by_mma(dy, x, a, c, *fu, *fd, dx, by_a, by_c);
    } else if (x.numel() > 0 && tiles_of_packs) {
      snaked::backward_in_packs(dy, x, a, c, *fu, *fd, dx, by_a, by_c, tiles_of_packs);
    } else if (x.numel() > 0) {
      z.wide = wide<scalar_t>(z, x, dx) && aligned(dy.const_data_ptr());
      const int64_t numbers = z.taps_u + z.taps_d + 2 * kWarps + most<BackwardTile>(z, [](const BackwardTile& t) {
                                return t.dt.length() + larger(t.read.length(), t.x.length()) + t.dy.length();
                              });
      launch("filtered_snake_backward", x, dim3(blocks), dim3(kThreads), numbers * sizeof(T), backward_kernel<scalar_t, T>, pointer<scalar_t>(dy),
             pointer<scalar_t>(x), pointer<T>(a), pointer<T>(c), taps<T>(fu), taps<T>(fd), mutable_pointer<scalar_t>(dx), mutable_pointer<T>(by_a),
             mutable_pointer<T>(by_c), z);
    }
    if (z.channels > 0)
      launch("filtered_snake_backward", x, dim3(ceil_div(z.channels, kWarps)), dim3(kThreads), 0, finish_kernel<T>, pointer<T>(by_a),
             pointer<T>(by_c), mutable_pointer<T>(da), mutable_pointer<T>(dc), x.numel() > 0 ? x.size(0) : int64_t(0), z.channels, z.tiles);
  });
  return {dx, da, dc};
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(FASTGAN_NAMESPACE, FASTGAN_DISPATCH_KEY, m) {
  m.impl("filtered_snake", TORCH_BOX(&fastgan::filtered_snake));
  m.impl("filtered_snake_backward", TORCH_BOX(&fastgan::filtered_snake_backward));
}
