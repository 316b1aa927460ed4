// filtered_snake's gradient for 16-bit signals at ratio 2 with 12 taps (fastgan/ops/filtered_snake.py states the formulas), its filters
// as products of tensor cores with sums in float32.
//
// In packs of x, dy and dx, and blocks T, G and E of 16 samples of t, g and dt (csrc/cuda/filtered_snake_mma.h),
//
//   T_p = [X_p X_p+1] U,   G_p = [dY_p dY_p+1] D',   E_p = G_p (1 + 2 a c sin(a T_p) cos(a T_p)),   dX_p = [E_p-1 E_p] U'
//
// and the sums of da and dc are of a lane's samples, then of four lanes: one number for each piece. x and dy are exact in 16 bits, U is
// as forward; D', U' and E are two words each: within 2^-16 of D' |dy| and U' |E|. sin^2 is the square of the sine, sin(2 a t) twice its
// product with the cosine: the one within 9.4e-7 of itself, the other within 3e-5 (BFloat16) or 2.1e-7 (Half), 1/65 and 1/200 of the
// rounding of dx, whatever c is. Zeros of the filters are multiplied too: what is not finite reaches the packs beside its own.
//
// Bytes per output: 6, the time of 36 instructions on an H200. Instructions: 32 (Half 34) for sines and sums, 6 to halve E, 4 (3.5)
// products; 13 move samples or begin a piece (bench/predicted.py). Not run on a GPU yet.
#include "cuda/filtered_snake_mma.h"

namespace fastgan::snaked {
namespace {

constexpr int kBuffers = 5;  // of a warp: two batches of x and dy, one of dx
template <class S>
constexpr int kWords = (kParts<S> + 2 * kHalves) * kEntries + kWarps * kBuffers * kBuffer;  // of shared memory

// Of a row, t and g as they are scaled.
template <class S>
struct Bend {
  float turns, slope;  // a / pi, 2 a c

  // g becomes dt. With f the phase in half turns and z = f^2 - 1/4, sin(pi f) = f P(z) and cos(pi f) = z Q(z).
  __device__ __forceinline__ void operator()(float t, float& g, float& by_a, float& by_c) const {
    const float u = t * turns, f = u - rint(u), z = f * f - 0.25f;
    const float sine = f * (((z * -0.55839605f + 2.12480792f) * z - 4.00026459f) * z + 1.99999812f);
    float q;
    if constexpr (std::is_same_v<S, Half>) q = ((z * 0.21648632f - 1.11367176f) * z + 3.14168034f) * z - 3.141592f;
    else q = (z * -1.19331449f + 3.13444979f) * z - 3.14168624f;
    const float part = g * sine, bent = part * (z * q);
    by_c += part * sine;
    by_a += t * bent;
    g += slope * bent;
  }
};

// Of four lanes, in each.
__device__ __forceinline__ float quad_sum(float value) {
  value += __shfl_xor_sync(0xffffffffu, value, 1);
  return value + __shfl_xor_sync(0xffffffffu, value, 2);
}

// by_a, by_c: [pieces]
template <class S>
__global__ void __launch_bounds__(kThreads, 4) mma_backward_kernel(const Quad* dy, const Quad* x, const float* a, const float* c, const float* fu,
                                                                   const float* fd, Quad* dx, float* by_a, float* by_c, const Grid grid) {
  unsigned* const shared = reinterpret_cast<unsigned*>(shared_memory());
  unsigned *const up = shared, *const down = up + kParts<S> * kEntries, *const back = down + kHalves * kEntries;
  const Scale of_t = scale_of<S>(fu), of_g = scale_of<S>(fd);
  const bool of_up = threadIdx.x < kEntries;
  tabulate<S>(of_up ? fu : fd, of_up ? 2 * of_t.on : of_g.on, true, of_up ? kParts<S> : kHalves, of_up ? up : down);
  if (of_up) tabulate<S>(fu, 2 * of_g.back, false, kHalves, back);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
  const unsigned piece = (blockIdx.x * kWarps + warp) * kPieces + g;
  const Piece pieces[2] = {Piece(grid, piece), Piece(grid, piece + 8)};
  // Of a batch of x, after the last pack before it: the pack that this lane loads, its word of that pack before, and the row whose
  // address it gives to load_rows, of that pack or of the one after it. dy lies one buffer behind, the next batch of both two. Of a
  // batch of dx, which is one step behind: its pack, and its word of the first pack.
  constexpr int kNext = 2 * kBuffer;
  unsigned* const batch = back + kHalves * kEntries + warp * kBuffers * kBuffer;
  unsigned *const own = batch + g * kPitch + 4 * (1 + q), *const done = own + 2 * kNext - 4, *const carried = batch + g * kPitch + q,
                  *const result = carried + 2 * kNext;
  const unsigned* const row = batch + lane % 16 * kPitch + lane / 16 * 4;
  const int turns = grid.length / kBatch;
  const bool firsts[2] = {pieces[0].first, pieces[1].first}, lasts[2] = {pieces[0].last, pieces[1].last};
  Bend<S> bends[2];
  float factors[2], sum_a[2] = {}, sum_c[2] = {};  // by_a is factor times sum
  unsigned at[2];  // the lane's first pack
  int wait[2];     // turns before the first whose pack of dx this lane stores and whose sums count, less for a row's first piece
  const auto fetch = [&](int turn) __attribute__((always_inline)) {
    FASTGAN_UNROLL
    for (int h = 0; h < 2; ++h) {
      unsigned* const to = own + turn % 2 * kNext + h * kOther;
      copy_async(to, x + (at[h] + turn * kBatch)), copy_async(to + kBuffer, dy + (at[h] + turn * kBatch));
    }
  };
  FASTGAN_UNROLL
  for (int h = 0; h < 2; ++h) {
    const Piece& it = pieces[h];
    const float frequency = a[it.channel], amplitude = c[it.channel];
    bends[h].turns = frequency * of_t.back * 0.318309886f, bends[h].slope = 2 * frequency * amplitude;
    factors[h] = 2 * amplitude * of_t.back * of_g.back;
    at[h] = it.at + q;
    const unsigned pack = it.at - !it.first;
    const int of = it.first ? 0 : q;
    const unsigned before = word(x + pack, of), gradient = word(dy + pack, of);
    carried[h * kOther] = it.first ? (before & 0xffff) * 0x10001 : before;  // held
    carried[kBuffer + h * kOther] = it.first ? 0 : gradient;
    wait[h] = !it.live ? INT32_MAX : it.first ? -1 : it.taken / kBatch;
  }
  fetch(0);
  __syncthreads();
  const Rising<kParts<S>> rising(up);
  const Rising<kHalves> lowering(down);
  const Falling falling(back);
  Sums sums;
  Halves halves;
  Window windows[2];  // of x and of dy
  const auto look = [&](int turn, int p) __attribute__((always_inline)) {
    FASTGAN_UNROLL
    for (int s = 0; s < 2; ++s) load_rows(row + turn % 2 * kNext + s * kBuffer + 4 * p, windows[s]);
  };
  // At a row's end, what samples beyond it have comes back to the one that was held for them. `there`: where that one lies, 1 the row's
  // first, which begins the second half of a block or the pack after it; 0 its last, which ends the first half or the pack before.
  const auto held_by = [&](int there) __attribute__((always_inline)) { return q == (there ? 0 : 3); };
  // E of what lies in two packs of x and of dy; `there` -1: no row of these has an end here, else those of ends.
  const auto differentiate = [&](int there, const bool (&ends)[2]) __attribute__((always_inline)) {
    Sums t, dt[2];
    FASTGAN_UNROLL
    for (int e = 0; e < 2; ++e) rise<S>(lowering, windows[1], e, dt[e]);
    FASTGAN_UNROLL
    for (int h = 0; there >= 0 && h < 2; ++h) {
      float* const beyond = dt[1 - there] + 2 * h;
      const float held = quad_sum(beyond[0] + beyond[1]);
      if (!ends[h]) continue;
      beyond[0] = beyond[1] = 0;
      if (held_by(there)) dt[there][2 * h + 1 - there] += held;
    }
    FASTGAN_UNROLL
    for (int e = 0; e < 2; ++e) {
      rise<S>(rising, windows[0], e, t);
      FASTGAN_UNROLL
      for (int i = 0; i < 4; ++i) bends[i / 2](t[i], dt[e][i], sum_a[i / 2], sum_c[i / 2]);
    }
    halve(dt, halves);
  };
  const auto fold = [&](int there, const bool (&ends)[2]) __attribute__((always_inline)) {
    Sums beyond = {};
    fall(falling, halves, there, beyond);
    FASTGAN_UNROLL
    for (int h = 0; h < 2; ++h) {
      const float held = quad_sum(beyond[2 * h] + beyond[2 * h + 1]);
      if (ends[h] && held_by(there)) sums[2 * h + 1 - there] += held;
    }
  };
  const auto clear = [&]() __attribute__((always_inline)) {
    FASTGAN_UNROLL
    for (int i = 0; i < 4; ++i) sums[i] = 0;
  };
  const auto finish = [&](int p) __attribute__((always_inline)) {
    fall(falling, halves, 1, sums);
    FASTGAN_UNROLL
    for (int h = 0; h < 2; ++h) result[h * kOther + 4 * p] = word_of<S>(sums[2 * h], sums[2 * h + 1]);
  };
  const auto put = [&](int turn) __attribute__((always_inline)) {
    __syncwarp();
    const Quad packs[2] = {quad(done), quad(done + kOther)};
    __syncwarp();
    FASTGAN_UNROLL
    for (int h = 0; h < 2; ++h)
      if (turn >= wait[h]) store(dx[at[h] + turn * kBatch].at, packs[h]);
  };
  // A batch is there, and the one after it on its way.
  const auto arrive = [&](int turn) __attribute__((always_inline)) {
    wait_for_copies();
    __syncwarp();
    if (turn + 1 < turns) fetch(turn + 1);
  };
  const auto forget = [&](int turn) __attribute__((always_inline)) {  // sums of the piece before
    FASTGAN_UNROLL
    for (int h = 0; h < 2; ++h)
      if (turn == wait[h]) sum_a[h] = sum_c[h] = 0;
  };
  const auto go_on = [&](int turn) __attribute__((always_inline)) {  // to the batch's last pack
#pragma unroll 1  // else ptxas spills for the sake of interleaving
    for (int p = 1; p < kBatch; ++p) {
      look(turn, p);
      differentiate(-1, firsts);
      finish(p - 1);
      clear();
      fall(falling, halves, 0, sums);
    }
  };
  arrive(0);
  look(0, 0);
  differentiate(1, firsts);
  forget(0);
  clear();
  fold(1, firsts);
  fall(falling, halves, 0, sums);
  int turn = 0;
  for (; turn + 1 < turns; ++turn) {
    go_on(turn);
    FASTGAN_UNROLL
    for (int i = 0; i < 4; ++i) carried[(turn + 1) % 2 * kNext + i / 2 * kBuffer + i % 2 * kOther] = windows[i / 2][2 + i % 2];
    arrive(turn + 1);
    look(turn + 1, 0);
    differentiate(-1, firsts);
    forget(turn + 1);
    finish(kBatch - 1);
    put(turn);
    clear();
    fall(falling, halves, 0, sums);
  }
  go_on(turn);
  FASTGAN_UNROLL
  for (int h = 0; h < 2; ++h) {
    const unsigned pack = at[h] - q + grid.length - lasts[h];
    const int of = lasts[h] ? 3 : q;
    const unsigned after = word(x + pack, of), gradient = word(dy + pack, of);
    windows[0][h] = windows[0][2 + h], windows[0][2 + h] = lasts[h] ? (after >> 16) * 0x10001 : after;  // held
    windows[1][h] = windows[1][2 + h], windows[1][2 + h] = lasts[h] ? 0 : gradient;
  }
  differentiate(0, lasts);
  fold(0, lasts);
  finish(kBatch - 1);
  put(turn);
  FASTGAN_UNROLL
  for (int h = 0; h < 2; ++h) {
    const float of_a = quad_sum(sum_a[h]), of_c = quad_sum(sum_c[h]);
    if (wait[h] == INT32_MAX || q > 0) continue;
    by_a[piece + 8 * h] = factors[h] * of_a, by_c[piece + 8 * h] = of_g.back * of_c;
  }
}

}  // namespace

int pieces_by_mma(const Tensor& x, const Tensor& dy, const std::optional<Tensor>& fu, const std::optional<Tensor>& fd, int64_t up, int64_t down) {
  if (!takes_mma(x, fu, fd, up, down) || x.size(2) % (kBatch * kSamples) || !aligned(dy.const_data_ptr()) || !aligned(fd->const_data_ptr())) return 0;
  return Grid(x).pieces;
}

void backward_by_mma(const Tensor& dy, const Tensor& x, const Tensor& a, const Tensor& c, const Tensor& fu, const Tensor& fd, Tensor& dx,
                     Tensor& by_a, Tensor& by_c) {
  const Grid grid(x);
  const auto run = [&](auto element) {
    using S = decltype(element);
    launch("filtered_snake_backward", x, grid.blocks(), dim3(kThreads), kWords<S> * sizeof(unsigned), mma_backward_kernel<S>, pointer<Quad>(dy),
           pointer<Quad>(x), pointer<float>(a), pointer<float>(c), pointer<float>(fu), pointer<float>(fd), mutable_pointer<Quad>(dx),
           mutable_pointer<float>(by_a), mutable_pointer<float>(by_c), grid);
  };
  if (x.scalar_type() == torch::headeronly::ScalarType::Half) run(Half());
  else run(BFloat16());
}

}  // namespace fastgan::snaked
