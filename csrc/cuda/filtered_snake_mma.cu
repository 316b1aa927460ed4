// filtered_snake forward of 16-bit signals at ratio 2 with 12 taps (fastgan/ops/filtered_snake.py states the formulas), its filters as
// products of tensor cores with sums in float32.
//
// In packs of x and y, and blocks V of 16 samples of v (csrc/cuda/filtered_snake_mma.h),
//
//   V_p = activated([X_p X_p+1] U),   Y_p = [V_p-1 V_p] D
//
// x is exact in 16 bits. U is three BFloat16, or two Half scaled to the range where they have 22 bits: as exact as float32. v and D are
// two BFloat16 each, without the product of their second parts: within 2^-16 of D |v|. The sine's polynomial is within 5.3e-5 (BFloat16)
// or 1.3e-6 (Half) of itself: 1/37 and 1/190 of the rounding of y, whatever c is. sin^2 of MUFU would be cheaper, but its error is
// absolute: it would show where c is large and the sine small. Zeros of U and D are multiplied too: what is not finite reaches the
// packs beside its own.
//
// Instructions per output: 16 (Half 18) for the sines, 6 to halve v, 3 (2.5) products; 5 move samples or begin a piece
// (bench/predicted.py). Not run on a GPU yet.
#include "cuda/filtered_snake_mma.h"

#include "activation.h"
#include "cuda/snake_curve.h"

namespace fastgan::snaked {
namespace {

template <class S>
constexpr int kDegree = std::is_same_v<S, Half> ? 4 : 3;  // of the sine

template <class S>
constexpr int kWords = (kParts<S> + kHalves) * kEntries + 2 * kWarps * kBuffer;  // of shared memory

template <class S>
__global__ void __launch_bounds__(kThreads, 4)
    mma_kernel(const Quad* x, const float* a, const float* c, const float* fu, const float* fd, Quad* y, const Grid grid) {
  unsigned* const shared = reinterpret_cast<unsigned*>(shared_memory());
  unsigned *const up = shared, *const down = up + kParts<S> * kEntries, *const batches = down + kHalves * kEntries;
  const Scale scale = scale_of<S>(fu);
  const bool of_up = threadIdx.x < kEntries;
  tabulate<S>(of_up ? fu : fd, of_up ? 2 * scale.on : scale.back, of_up, of_up ? kParts<S> : kHalves, of_up ? up : down);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
  const unsigned piece = (blockIdx.x * kWarps + warp) * kPieces + g;
  const Piece pieces[2] = {Piece(grid, piece), Piece(grid, piece + 8)};
  const Curve<kDegree<S>> curves[2] = {Curve<kDegree<S>>(a[pieces[0].channel] * scale.back, c[pieces[0].channel] * scale.on),
                                       Curve<kDegree<S>>(a[pieces[1].channel] * scale.back, c[pieces[1].channel] * scale.on)};
  // Of a batch, after the last pack of x before it: the pack that this lane loads, and the row whose address it gives to load_rows, of
  // that pack before or of the one after it. Of a batch of y, which is one step behind: its pack, and its word of the first pack.
  unsigned* const batch = batches + warp * 2 * kBuffer;
  unsigned *const own = batch + g * kPitch + 4 * (1 + q), *const done = own + kBuffer - 4, *const carried = batch + g * kPitch + q,
                  *const result = carried + kBuffer;
  const unsigned* const row = batch + lane % 16 * kPitch + lane / 16 * 4;
  const int turns = grid.length / kBatch;
  unsigned at[2];  // the lane's pack of x and y
  Quad next[2];
  int wait[2];     // turns before the first whose pack of y this lane stores
  FASTGAN_UNROLL
  for (int h = 0; h < 2; ++h) {
    at[h] = pieces[h].at + q;
    next[h] = quad(x[at[h]].at);
    const unsigned before = word(x + pieces[h].at - !pieces[h].first, pieces[h].first ? 0 : q);
    carried[h * kOther] = pieces[h].first ? (before & 0xffff) * 0x10001 : before;  // held
    wait[h] = pieces[h].live ? ceil_div(pieces[h].taken - q, kBatch) : INT32_MAX;
  }
  __syncthreads();
  const Rising<kParts<S>> rising(up);
  const Falling falling(down);
  Sums v[2], sums;
  Halves halves;
  const auto activate = [&](const Window& window) __attribute__((always_inline)) {
    FASTGAN_UNROLL
    for (int e = 0; e < 2; ++e) {
      rise<S>(rising, window, e, v[e]);
      FASTGAN_UNROLL
      for (int i = 0; i < 4; ++i) v[e][i] = curves[i / 2](v[e][i]);
    }
  };
  const auto finish = [&](int p) __attribute__((always_inline)) {
    fall(falling, halves, 1, sums);
    FASTGAN_UNROLL
    for (int h = 0; h < 2; ++h) result[h * kOther + 4 * p] = word_of<S>(sums[2 * h], sums[2 * h + 1]);
  };
  const auto begin = [&]() __attribute__((always_inline)) {
    FASTGAN_UNROLL
    for (int i = 0; i < 4; ++i) sums[i] = 0;
    fall(falling, halves, 0, sums);
  };
  const auto put = [&](int turn) __attribute__((always_inline)) {
    __syncwarp();
    const Quad packs[2] = {quad(done), quad(done + kOther)};
    __syncwarp();
    FASTGAN_UNROLL
    for (int h = 0; h < 2; ++h)
      if (turn >= wait[h]) store((y + at[h])[-kBatch].at, packs[h]);
  };
  const auto work = [&](int turn, bool first) __attribute__((always_inline)) {
    // The next batch is loaded before the barrier, which nvcc moves no load across: it would put it where the batch begins.
    FASTGAN_UNROLL
    for (int h = 0; h < 2; ++h) {
      store(own + h * kOther, next[h]);
      next[h] = quad(x[at[h] + (turn + 1 < turns ? kBatch : 0)].at);
    }
    __syncwarp();
    Window windows[kBatch];
    FASTGAN_UNROLL
    for (int p = 0; p < kBatch; ++p) load_rows(row + 4 * p, windows[p]);
    __syncwarp();
    FASTGAN_UNROLL
    for (int h = 0; h < 2; ++h) carried[h * kOther] = windows[kBatch - 1][2 + h];
    FASTGAN_UNROLL
    for (int p = 0; p < kBatch; ++p) {
      activate(windows[p]);
      FASTGAN_UNROLL
      for (int i = 0; first && p == 0 && i < 4; ++i) {
        const float held = __shfl_sync(0xffffffffu, v[1][i / 2 * 2], 4 * g);
        if (pieces[i / 2].first) v[0][i] = held;
      }
      halve(v, halves);
      if (!first || p > 0) finish(p == 0 ? kBatch - 1 : p - 1);
      if (!first && p == 0) put(turn - 1);
      begin();
    }
    FASTGAN_UNROLL
    for (int h = 0; h < 2; ++h) at[h] += kBatch;
  };
  work(0, true);
  for (int turn = 1; turn < turns; ++turn) work(turn, false);
  Window window;
  __syncwarp();
  FASTGAN_UNROLL
  for (int h = 0; h < 2; ++h) {
    window[h] = carried[h * kOther];
    const unsigned after = word(x + at[h] - q - pieces[h].last, pieces[h].last ? 3 : q);
    window[2 + h] = pieces[h].last ? (after >> 16) * 0x10001 : after;  // held
  }
  activate(window);
  FASTGAN_UNROLL
  for (int i = 0; i < 4; ++i) {
    const float held = __shfl_sync(0xffffffffu, v[0][i / 2 * 2 + 1], 4 * g + 3);
    if (pieces[i / 2].last) v[1][i] = held;
  }
  halve(v, halves);
  finish(kBatch - 1);
  put(turns - 1);
}

}  // namespace

bool takes_mma(const Tensor& x, const std::optional<Tensor>& fu, const std::optional<Tensor>& fd, int64_t up, int64_t down) {
  if (x.element_size() != 2 || up != 2 || down != 2 || !fu || fu->size(0) != kTaps || fd->size(0) != kTaps) return false;
  for (const Tensor* t : {&x, &*fu})
    if (!aligned(t->const_data_ptr())) return false;
  return x.size(2) % kSamples == 0 && x.size(2) >= kBatch * kSamples && x.numel() / kSamples < int64_t{1} << 31;
}

void forward_by_mma(const Tensor& x, const Tensor& a, const Tensor& c, const Tensor& fu, const Tensor& fd, Tensor& y) {
  const Grid grid(x);
  const auto run = [&](auto element) {
    using S = decltype(element);
    launch("filtered_snake", x, grid.blocks(), dim3(kThreads), kWords<S> * sizeof(unsigned), mma_kernel<S>, pointer<Quad>(x), pointer<float>(a),
           pointer<float>(c), pointer<float>(fu), pointer<float>(fd), mutable_pointer<Quad>(y), grid);
  };
  if (x.scalar_type() == torch::headeronly::ScalarType::Half) run(Half());
  else run(BFloat16());
}

}  // namespace fastgan::snaked
