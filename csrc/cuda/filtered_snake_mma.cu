// filtered_snake forward of 16-bit signals at ratio 2 with 12 taps (fastgan/ops/filtered_snake.py states the formulas), its filters as
// products of tensor cores with sums in float32.
//
// A warp takes 16 pieces of rows, each some packs of 8 samples, and goes along all of them at once, a pack at a time: the rows of a
// are the pieces. With X_p the pack p of x, Y_p of y, and V_p the 16 samples of v from 16p + 8 on,
//
//   V_p = activated([X_p X_p+1] U),   U[k][j] = 2 fu[13 + j - 2k]
//   Y_p = [V_p-1 V_p] D,              D[k][n] = fd[k - 3 - 2n]
//
// and what a product leaves in a lane is what the next one reads there. x is exact in 16 bits. U is three BFloat16, or two Half scaled
// to the range where they have 22 bits: as exact as float32. v and D are two BFloat16 each, without the product of their second
// parts: within 2^-16 of D |v|. The sine's polynomial is within 5.3e-5 (BFloat16) or 1.3e-6 (Half) of itself: 1/37 and 1/190 of the
// rounding of y, whatever c is. sin^2 of MUFU would be cheaper, but its error is absolute: it would show where c is large and the
// sine small. Zeros of U and D are multiplied too: what is not finite reaches the packs beside its own.
//
// Instructions per output: 16 (Half 18) for the sines, 6 to halve v, 3 (2.5) products; 5 move samples or begin a piece
// (bench/predicted.py). Not run on a GPU yet.
#include "cuda/filtered_snake.h"

#include "activation.h"
#include "cuda/mma.h"
#include "cuda/snake_curve.h"

namespace fastgan::snaked {
namespace {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

constexpr int kTaps = 12, kSamples = 8;
constexpr int kWarps = 4, kThreads = 32 * kWarps, kPieces = 16;  // of a block, of a warp
constexpr int kBatch = 4;                                        // packs that a warp loads and stores at once, of each piece
constexpr int kPitch = 20;                                       // of a piece's packs in words: 8 rows' accesses meet no bank twice
constexpr int kBefore = 17, kEntries = kThreads / 2;             // of a table of pairs of taps: the first is at -17

template <class S>
constexpr int kDegree = std::is_same_v<S, Half> ? 4 : 3;  // of the sine
template <class S>
constexpr int kParts = std::is_same_v<S, Half> ? 2 : 3;  // of a tap of U
constexpr int kHalves = 2;                               // of v, and of a tap of D

template <class S>
constexpr int kWords = (kParts<S> + kHalves) * kEntries + 2 * kWarps * kPieces * kPitch;  // of shared memory

// Division of numbers below 2^31 by one that is known on the host.
struct Divisor {
  unsigned multiplier;
  int shift;

  explicit Divisor(unsigned by) : shift(31) {
    while (int64_t{1} << (shift - 31) < by) ++shift;
    multiplier = static_cast<unsigned>(ceil_div<uint64_t>(uint64_t{1} << shift, by));
  }
  __device__ __forceinline__ unsigned operator()(unsigned n) const { return static_cast<unsigned>(uint64_t{n} * multiplier >> shift); }
};

// Rows are cut into pieces of `length` packs, a multiple of kBatch; the last one begins earlier where the row is none.
struct Grid {
  static constexpr int64_t kWanted = 16 * 128 * kPieces;  // pieces at which warps may be longer: 16 on each of 128 multiprocessors

  int packs, length, pieces, channels;  // packs of a row and of a piece, pieces of a row
  unsigned all;
  Divisor by_pieces, by_channels;

  static int length_of(int64_t rows, int packs) {
    int length = 64;
    while (length > kBatch && rows * ceil_div(packs, length) < kWanted) length /= 2;
    length = smaller(length, packs / kBatch * kBatch);
    return ceil_div(ceil_div(packs, ceil_div(packs, length)), kBatch) * kBatch;
  }
  explicit Grid(const Tensor& x)
      : packs(x.size(2) / kSamples), length(length_of(x.size(0) * x.size(1), packs)), pieces(ceil_div(packs, length)), channels(x.size(1)),
        all(x.size(0) * x.size(1) * pieces), by_pieces(pieces), by_channels(channels) {}
  dim3 blocks() const { return dim3(ceil_div<unsigned>(all, kPieces * kWarps)); }
};

using Quad = Pack<unsigned, 4>;  // of 8 samples

struct Piece {
  unsigned at;  // of x: its first pack
  int channel, taken;  // taken: packs that the piece before it stores
  bool first, last, live;

  __device__ __forceinline__ Piece(const Grid& grid, unsigned wanted) : live(wanted < grid.all) {
    const unsigned index = smaller(wanted, grid.all - 1), row = grid.by_pieces(index);
    const int piece = index - row * grid.pieces, from = smaller(piece * grid.length, grid.packs - grid.length);
    channel = row - grid.by_channels(row) * grid.channels;
    at = row * grid.packs + from;
    taken = piece * grid.length - from;
    first = piece == 0, last = piece == grid.pieces - 1;
  }
};

// Powers of two: of U and t, and back. The largest tap of Half comes to 2^13 or more, below 2^14; BFloat16 has the range of float.
struct Scale {
  float on = 1, back = 1;
};

template <class S>
__device__ __forceinline__ Scale scale_of(const float* taps) {
  Scale scale;
  if constexpr (std::is_same_v<S, Half>) {
    const Pack<float, kTaps> f = load<float, kTaps>(taps);
    float largest = 0;
    FASTGAN_UNROLL
    for (int k = 0; k < kTaps; ++k) largest = fmaxf(largest, fabsf(f.at[k]));
    unsigned exponent;
    memcpy(&exponent, &largest, sizeof(exponent));
    exponent = smaller(253u, 2 * 127 + 13 - (exponent >> 23));
    const unsigned on = exponent << 23, back = (2 * 127 - exponent) << 23;
    memcpy(&scale.on, &on, sizeof(on)), memcpy(&scale.back, &back, sizeof(back));
  }
  return scale;
}

__device__ __forceinline__ float tap(const float* taps, int k) { return k >= 0 && k < kTaps ? taps[k] : 0.f; }

// Pairs of taps as products read them: fu[k], fu[k - 2] doubled, and fd[k], fd[k + 1], each in parts.
template <class S>
__device__ __forceinline__ void tabulate(const float* fu, const float* fd, const Scale& scale, unsigned* table) {
  const int entry = threadIdx.x % kEntries, k = entry - kBefore;
  const bool of_up = threadIdx.x < kEntries;
  const float* const taps = of_up ? fu : fd;
  const float by = of_up ? 2 * scale.on : scale.back;
  const float low = by * tap(taps, k), high = by * tap(taps, of_up ? k - 2 : k + 1);
  table += of_up ? entry : kParts<S> * kEntries + entry;
  unsigned parts[kParts<S>];
  if (std::is_same_v<S, BFloat16> || of_up) split<S>(low, high, parts);
  else split<BFloat16>(low, high, parts);
  FASTGAN_UNROLL
  for (int n = 0; n < kParts<S>; ++n)
    if (n < kHalves || of_up) table[n * kEntries] = parts[n];
}

// This lane's words of U and D.
template <class S>
struct Filters {
  unsigned up[kParts<S>][2][2], down[kHalves][2][2];  // [part][8 columns of U or 16 rows of D][8 rows]

  __device__ __forceinline__ Filters(const unsigned* of_up, const unsigned* of_down) {
    const int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    of_up += kBefore + 13 + g - 4 * q, of_down += kBefore + 2 * q - 3 - 2 * g;
    FASTGAN_UNROLL
    for (int i = 0; i < 4; ++i) {
      FASTGAN_UNROLL
      for (int n = 0; n < kParts<S>; ++n) up[n][i / 2][i % 2] = of_up[n * kEntries + i / 2 * 8 - i % 2 * 16];
      FASTGAN_UNROLL
      for (int n = 0; n < kHalves; ++n) down[n][i / 2][i % 2] = of_down[n * kEntries + i * 8];
    }
  }
};

using Sums = float[4];

using Halves = unsigned[kHalves][4];

// The 16 samples of t of two neighbouring packs of x, activated; v[e][2h + i]: column 8e + 2q + i of the lane's piece h
template <class S>
__device__ __forceinline__ void rise(const Filters<S>& filters, const Curve<kDegree<S>> (&curves)[2], const unsigned (&x)[4], Sums (&v)[2]) {
  FASTGAN_UNROLL
  for (int e = 0; e < 2; ++e) {
    FASTGAN_UNROLL
    for (int i = 0; i < 4; ++i) v[e][i] = 0;
    FASTGAN_UNROLL
    for (int n = kParts<S> - 1; n >= 0; --n) multiply_add<S>(v[e], x, filters.up[n][e]);
    FASTGAN_UNROLL
    for (int i = 0; i < 4; ++i) v[e][i] = curves[i / 2](v[e][i]);
  }
}

__device__ __forceinline__ void halve(const Sums (&v)[2], Halves& halves) {
  FASTGAN_UNROLL
  for (int i = 0; i < 4; ++i) {
    unsigned parts[kHalves];
    split<BFloat16>(v[i / 2][i % 2 * 2], v[i / 2][i % 2 * 2 + 1], parts);
    FASTGAN_UNROLL
    for (int n = 0; n < kHalves; ++n) halves[n][i] = parts[n];
  }
}

// Adds what 16 samples of v give to the pack of y before them (side 1) or after (side 0).
template <class S>
__device__ __forceinline__ void fall(const Filters<S>& filters, const Halves& v, int side, Sums& y) {
  multiply_add<BFloat16>(y, v[1], filters.down[0][side]);
  multiply_add<BFloat16>(y, v[0], filters.down[1][side]);
  multiply_add<BFloat16>(y, v[0], filters.down[0][side]);
}

__device__ __forceinline__ Quad quad(const unsigned* from) { return load<unsigned, 4>(from); }

__device__ __forceinline__ unsigned word(const Quad* from, int i) { return words_at<uint1>(from->at + i)->x; }

template <class S>
__global__ void __launch_bounds__(kThreads, 4)
    mma_kernel(const Quad* x, const float* a, const float* c, const float* fu, const float* fd, Quad* y, const Grid grid) {
  unsigned* const shared = reinterpret_cast<unsigned*>(shared_memory());
  unsigned *const up = shared, *const down = up + kParts<S> * kEntries, *const batches = down + kHalves * kEntries;
  const Scale scale = scale_of<S>(fu);
  tabulate<S>(fu, fd, scale, up);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
  const unsigned piece = (blockIdx.x * kWarps + warp) * kPieces + g;
  const Piece pieces[2] = {Piece(grid, piece), Piece(grid, piece + 8)};
  const Curve<kDegree<S>> curves[2] = {Curve<kDegree<S>>(a[pieces[0].channel] * scale.back, c[pieces[0].channel] * scale.on),
                                       Curve<kDegree<S>>(a[pieces[1].channel] * scale.back, c[pieces[1].channel] * scale.on)};
  // Of a batch, after the last pack of x before it: the pack that this lane loads, and the row whose address it gives to load_rows, of
  // that pack before or of the one after it. Of a batch of y, which is one step behind: its pack, and its word of the first pack.
  constexpr int kOther = 8 * kPitch;  // words from a piece to the lane's other one
  unsigned* const batch = batches + warp * 2 * kPieces * kPitch;
  unsigned *const own = batch + g * kPitch + 4 * (1 + q), *const done = own + kPieces * kPitch - 4, *const carried = batch + g * kPitch + q,
                  *const result = carried + kPieces * kPitch;
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
  const Filters<S> filters(up, down);
  Sums v[2], sums;
  Halves halves;
  const auto finish = [&](int p) __attribute__((always_inline)) {
    fall(filters, halves, 1, sums);
    FASTGAN_UNROLL
    for (int h = 0; h < 2; ++h) result[h * kOther + 4 * p] = word_of<S>(sums[2 * h], sums[2 * h + 1]);
  };
  const auto begin = [&]() __attribute__((always_inline)) {
    FASTGAN_UNROLL
    for (int i = 0; i < 4; ++i) sums[i] = 0;
    fall(filters, halves, 0, sums);
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
    unsigned windows[kBatch][4];
    FASTGAN_UNROLL
    for (int p = 0; p < kBatch; ++p) load_rows(row + 4 * p, windows[p]);
    __syncwarp();
    FASTGAN_UNROLL
    for (int h = 0; h < 2; ++h) carried[h * kOther] = windows[kBatch - 1][2 + h];
    FASTGAN_UNROLL
    for (int p = 0; p < kBatch; ++p) {
      rise(filters, curves, windows[p], v);
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
  unsigned window[4];
  __syncwarp();
  FASTGAN_UNROLL
  for (int h = 0; h < 2; ++h) {
    window[h] = carried[h * kOther];
    const unsigned after = word(x + at[h] - q - pieces[h].last, pieces[h].last ? 3 : q);
    window[2 + h] = pieces[h].last ? (after >> 16) * 0x10001 : after;  // held
  }
  rise(filters, curves, window, v);
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
