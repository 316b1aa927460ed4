// filtered_snake and its gradient at ratio 2 with 12 taps (fastgan/ops/filtered_snake.py states the formulas), in registers.
//
// A thread takes a pack of 8 samples of a row. With such filters
//
//   t[2i]     = 2 sum_a fu[11 - 2a] x[i - 3 + a]        0 <= a < 6
//   t[2i + 1] = 2 sum_a fu[10 - 2a] x[i - 2 + a]
//   y[o]      = sum_k fd[k] v[2o - 5 + k]               0 <= k < 12
//
// and D' is of the form of U, U' of the form of D. So a thread loads its pack and 3 samples to each side, makes 16 samples of t and v,
// and needs 5 of its neighbours' v to each side: these alone pass through shared memory. The first and the last thread of a block
// only serve their neighbour. Forward there is no kernel for 16-bit signals here: csrc/cuda/filtered_snake_mma.cu has theirs.
#include "cuda/filtered_snake.h"

#include "activation.h"
#include "cuda/snake_curve.h"
#include "cuda/stream.h"

namespace fastgan::snaked {
namespace {
#include "snake.h"

constexpr int kTaps = 12, kSamples = 8, kBeside = 3;  // samples of a pack, and to each side of it
constexpr int kFine = 2 * kSamples, kEdge = 5;        // of t or v: a thread's own, and of its neighbours to each side
constexpr int kPitch = 12;                            // of a thread's edges in shared memory: 8 lanes' accesses meet no bank twice
constexpr int kMostThreads = 256, kMostWarps = kMostThreads / 32;

using Taps = Pack<float, kTaps>;
using Window = float[kSamples + 2 * kBeside];
using Fine = float[kFine + 2 * kEdge];

struct Grid {
  int packs, packs_per_tile;

  // The grid is tiles x channels x samples: no division by numbers that are known at run time.
  Grid(const Tensor& x, int tiles) : packs(x.size(2) / kSamples), packs_per_tile(ceil_div(packs, tiles)) {}
  dim3 threads() const { return dim3(ceil_div(packs_per_tile + 2, 32) * 32); }
};

// Of this thread.
struct Place {
  int64_t row, at;  // where its pack begins in x
  bool first, last, live;
  __device__ __forceinline__ explicit Place(const Grid& grid) {
    const int wanted = static_cast<int>(blockIdx.x) * grid.packs_per_tile + static_cast<int>(threadIdx.x) - 1;
    const int pack = larger(0, smaller(wanted, grid.packs - 1));
    row = int64_t{blockIdx.z} * gridDim.y + blockIdx.y;
    at = (row * grid.packs + pack) * kSamples;
    first = pack == 0, last = pack == grid.packs - 1;
    live = wanted == pack && threadIdx.x > 0 && static_cast<int>(threadIdx.x) <= grid.packs_per_tile;
  }
};

// The pack and what is beside it. Beyond a row: its ends if they are held, else 0.
template <bool kHeld, class S>
__device__ __forceinline__ void read(const S* from, const Place& place, Window& in) {
  const S* const at = from + place.at;
  const Pack<S, 4> before = load<S, 4>(place.first ? at : at - 4), after = load<S, 4>(place.last ? at : at + kSamples);
  const Pack<S, kSamples> own = load<S, kSamples>(at);
  FASTGAN_UNROLL
  for (int i = 0; i < kSamples; ++i) in[kBeside + i] = static_cast<float>(own.at[i]);
  const float low = kHeld ? in[kBeside] : 0.f, high = kHeld ? in[kBeside + kSamples - 1] : 0.f;
  FASTGAN_UNROLL
  for (int i = 0; i < kBeside; ++i) {
    in[i] = place.first ? low : static_cast<float>(before.at[4 - kBeside + i]);
    in[kBeside + kSamples + i] = place.last ? high : static_cast<float>(after.at[i]);
  }
}

// Sample j of the thread's 16 of U x / 2 or D' dy.
__device__ __forceinline__ float rise(const Taps& f, const Window& in, int j) {
  float sum = 0;
  FASTGAN_UNROLL
  for (int a = 0; a < kTaps / 2; ++a) sum += f.at[kTaps - 1 - j % 2 - 2 * a] * in[j / 2 + j % 2 + a];
  return sum;
}

// Sample i of the thread's 8 of D v or U' dt / 2.
__device__ __forceinline__ float fall(const Taps& f, const Fine& fine, int i) {
  float sum = 0;
  FASTGAN_UNROLL
  for (int k = 0; k < kTaps; ++k) sum += f.at[k] * fine[2 * i + k];
  return sum;
}

// The neighbours' samples beside the thread's own. Beyond a row: its ends if they are held, else 0.
template <bool kHeld>
__device__ __forceinline__ void exchange(float* edges, const Place& place, Fine& fine) {
  float *const mine = edges + kPitch * threadIdx.x, *const own = fine + kEdge;
  store(mine, Pack<float, 4>{{own[0], own[1], own[2], own[3]}});
  mine[4] = own[4], mine[7] = own[kFine - 5];
  store(mine + 8, Pack<float, 4>{{own[kFine - 4], own[kFine - 3], own[kFine - 2], own[kFine - 1]}});
  __syncthreads();
  const float low = kHeld ? own[0] : 0.f, high = kHeld ? own[kFine - 1] : 0.f;
  const float* const left = threadIdx.x == 0 ? mine : mine - kPitch;
  const float* const right = threadIdx.x + 1 == blockDim.x ? mine : mine + kPitch;
  const Pack<float, 4> before = load<float, 4>(left + 8), after = load<float, 4>(right);
  const float before0 = left[7], after4 = right[4];
  fine[0] = place.first ? low : before0, fine[kFine + 2 * kEdge - 1] = place.last ? high : after4;
  FASTGAN_UNROLL
  for (int i = 0; i < 4; ++i) {
    fine[1 + i] = place.first ? low : before.at[i];
    fine[kEdge + kFine + i] = place.last ? high : after.at[i];
  }
}

template <class S>
__device__ __forceinline__ void write(S* to, const Place& place, const float (&from)[kSamples]) {
  if (!place.live) return;
  Pack<S, kSamples> pack;
  FASTGAN_UNROLL
  for (int i = 0; i < kSamples; ++i) pack.at[i] = static_cast<S>(from[i]);
  store(to + place.at, pack);
}

struct Phase {
  float f, square;
  __device__ __forceinline__ Phase(float half_t, float turns) {
    const float u = half_t * turns;
    f = u - rint(u), square = f * f;
  }
};

// Of half a t.
__device__ __forceinline__ float turns_of(float a) { return a * static_cast<float>(2 / kPi); }

template <class S>
__global__ void __launch_bounds__(kMostThreads, 3)
    forward_kernel(const S* x, const float* a, const float* c, const float* fu, const float* fd, S* y, const Grid grid) {
  const Place place(grid);
  const Curve<5> half_of(2 * a[blockIdx.y], c[blockIdx.y] / 2);  // v / 2 of t / 2
  const Taps up = load<float, kTaps>(fu), down = load<float, kTaps>(fd);
  Window in;
  read<true>(x, place, in);
  Fine half_v;
  FASTGAN_UNROLL
  for (int j = 0; j < kFine; ++j) half_v[kEdge + j] = half_of(rise(up, in, j));
  exchange<true>(reinterpret_cast<float*>(shared_memory()), place, half_v);
  float out[kSamples];
  FASTGAN_UNROLL
  for (int i = 0; i < kSamples; ++i) out[i] = 2 * fall(down, half_v, i);
  write(y, place, out);
}

// What v[0] gives to the samples that were held before the row and v[M - 1] to those after it comes back to them.
__device__ __forceinline__ float gradient_of_first(const Taps& f, const Window& in) {
  float taps = 0, sum = 0;
  FASTGAN_UNROLL
  for (int i = kBeside - 1; i >= 0; --i) {  // dy[i] by the taps 0 .. 5 - 2i
    const int k = kEdge - 2 * i;
    taps += f.at[k - 1] + f.at[k];
    sum += taps * in[kBeside + i];
  }
  return sum;
}

__device__ __forceinline__ float gradient_of_last(const Taps& f, const Window& in) {
  float taps = 0, sum = 0;
  FASTGAN_UNROLL
  for (int i = kBeside - 1; i >= 0; --i) {  // dy[T - 1 - i] by the taps 6 + 2i .. 11
    const int k = kTaps / 2 + 2 * i;
    taps += f.at[k] + f.at[k + 1];
    sum += taps * in[kBeside + kSamples - 1 - i];
  }
  return sum;
}

// The same of x[0] and x[T - 1]: dt[m] goes to x[0] by the taps m + 5, m + 7, ..., dt[M - 1 - m] to x[T - 1] by 6 - m, 4 - m, ...
__device__ __forceinline__ float down_to_first(const Taps& f, const float* dt) {
  float sums[kTaps - kEdge + 2] = {}, sum = 0;
  FASTGAN_UNROLL
  for (int m = kTaps - kEdge - 1; m >= 0; --m) {
    sums[m] = sums[m + 2] + f.at[m + kEdge];
    sum += sums[m] * dt[m];
  }
  return sum;
}

__device__ __forceinline__ float down_to_last(const Taps& f, const float* dt) {
  float sums[kTaps / 2 + 3] = {}, sum = 0;
  FASTGAN_UNROLL
  for (int m = kTaps / 2; m >= 0; --m) {
    sums[m] = sums[m + 2] + f.at[kTaps / 2 - m];
    sum += sums[m] * dt[kFine - 1 - m];
  }
  return sum;
}

// by_a, by_c: [rows][tiles]
template <class S>
__global__ void __launch_bounds__(kMostThreads, 3) backward_kernel(const S* dy, const S* x, const float* a, const float* c, const float* fu,
                                                                   const float* fd, S* dx, float* by_a, float* by_c, const Grid grid) {
  float* const sums = reinterpret_cast<float*>(shared_memory()) + kPitch * blockDim.x;
  const Place place(grid);
  const float turns = turns_of(a[blockIdx.y]), amplitude = c[blockIdx.y], slope = a[blockIdx.y] * amplitude;
  const Taps up = load<float, kTaps>(fu), down = load<float, kTaps>(fd);
  Window in, gradient;
  read<true>(x, place, in);
  read<false>(dy, place, gradient);
  Fine dt;
  float sum_a = 0, sum_c = 0;
  FASTGAN_UNROLL
  for (int j = 0; j < kFine; ++j) {
    float g = rise(down, gradient, j);
    if (j == 0 && place.first) g = gradient_of_first(down, gradient);
    if (j == kFine - 1 && place.last) g = gradient_of_last(down, gradient);
    const float half_t = rise(up, in, j);
    const Phase phase(half_t, turns);
    const float sine = g * sine_of_double<float>(phase.f, phase.square);
    dt[kEdge + j] = g + slope * sine;
    sum_a += half_t * sine;
    sum_c += g * square_of_sine<float>(phase.square);
  }
  sum_a = warp_sum(place.live ? sum_a : 0.f), sum_c = warp_sum(place.live ? sum_c : 0.f);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum_a, sums[kMostWarps + threadIdx.x / 32] = sum_c;
  exchange<false>(reinterpret_cast<float*>(shared_memory()), place, dt);
  if (threadIdx.x == 0) {
    FASTGAN_UNROLL
    for (unsigned w = 1; w < kMostWarps; ++w)
      if (w < blockDim.x / 32) sum_a += sums[w], sum_c += sums[kMostWarps + w];
    const int64_t block = place.row * gridDim.x + blockIdx.x;
    by_a[block] = 2 * amplitude * sum_a, by_c[block] = sum_c;
  }
  float out[kSamples];
  FASTGAN_UNROLL
  for (int i = 0; i < kSamples; ++i) out[i] = 2 * fall(up, dt, i);
  if (place.first) out[0] = 2 * down_to_first(up, dt + kEdge);
  if (place.last) out[kSamples - 1] = 2 * down_to_last(up, dt + kEdge);
  write(dx, place, out);
}

size_t shared_bytes(const Grid& grid) { return (kPitch * grid.threads().x + 2 * kMostWarps) * sizeof(float); }

}  // namespace

int tiles_of_packs(const Tensor& x, const Tensor* dy, const std::optional<Tensor>& fu, const std::optional<Tensor>& fd, int64_t up, int64_t down) {
  if (x.scalar_type() == torch::headeronly::ScalarType::Double || up != 2 || down != 2 || !fu || fu->size(0) != kTaps || fd->size(0) != kTaps)
    return 0;
  if (!dy && x.element_size() == 2) return 0;  // forward is filtered_snake_mma.cu's
  for (const Tensor* t : {&x, dy, &*fu, &*fd})
    if (t && !aligned(t->const_data_ptr())) return 0;
  constexpr int64_t kMostBlocks = 65535;  // along y and z
  if (x.size(2) % kSamples || x.size(2) >= int64_t{1} << 30 || x.size(0) > kMostBlocks || x.size(1) > kMostBlocks) return 0;
  return ceil_div<int64_t>(x.size(2) / kSamples, kMostThreads - 2);
}

void forward_in_packs(const Tensor& x, const Tensor& a, const Tensor& c, const Tensor& fu, const Tensor& fd, Tensor& y, int tiles) {
  const Grid grid(x, tiles);
  launch("filtered_snake", x, dim3(tiles, x.size(1), x.size(0)), grid.threads(), shared_bytes(grid), forward_kernel<float>, pointer<float>(x),
         pointer<float>(a), pointer<float>(c), pointer<float>(fu), pointer<float>(fd), mutable_pointer<float>(y), grid);
}

void backward_in_packs(const Tensor& dy, const Tensor& x, const Tensor& a, const Tensor& c, const Tensor& fu, const Tensor& fd, Tensor& dx,
                       Tensor& by_a, Tensor& by_c, int tiles) {
  const Grid grid(x, tiles);
  stream::with_type(x, [&](auto element) {
    using S = decltype(element);
    launch("filtered_snake_backward", x, dim3(tiles, x.size(1), x.size(0)), grid.threads(), shared_bytes(grid), backward_kernel<S>, pointer<S>(dy),
           pointer<S>(x), pointer<float>(a), pointer<float>(c), pointer<float>(fu), pointer<float>(fd), mutable_pointer<S>(dx),
           mutable_pointer<float>(by_a), mutable_pointer<float>(by_c), grid);
  });
}

}  // namespace fastgan::snaked
