// What filtered_snake_mma.cu and filtered_snake_mma_backward.cu share: how rows are cut into pieces, the filters as operands of
// products, and the products.
//
// A warp takes 16 pieces of rows, each some packs of 8 samples, and goes along all of them at once, a pack at a time: the rows of an
// operand a are the pieces. With X_p the pack p of a signal and V_p the 16 samples of its upsampled one from 16p + 8 on, an upsampling
// filter (U, and D' of the gradient) and a downsampling one (D, U') are
//
//   V_p = [X_p X_p+1] R,    R[k][j] = f[13 + j - 2k]
//   X_p = [V_p-1 V_p] F,    F[k][n] = f[k - 3 - 2n]
//
// and what a product leaves in a lane is what the next one reads there.
#pragma once

#include "cuda/filtered_snake.h"
#include "cuda/mma.h"

namespace fastgan::snaked {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

constexpr int kTaps = 12, kSamples = 8;
constexpr int kWarps = 4, kThreads = 32 * kWarps, kPieces = 16;  // of a block, of a warp
constexpr int kBatch = 4;                                        // packs that a warp loads and stores at once, of each piece
constexpr int kPitch = 20;                                       // of a piece's packs in words: 8 rows' accesses meet no bank twice
constexpr int kBuffer = kPieces * kPitch;                        // words of a warp's packs of one signal
constexpr int kOther = 8 * kPitch;                               // words from a piece to the lane's other one
constexpr int kBefore = 17, kEntries = kThreads / 2;             // of a table of pairs of taps: the first is at -17

template <class S>
constexpr int kParts = std::is_same_v<S, Half> ? 2 : 3;  // of a tap of U
constexpr int kHalves = 2;                               // of a sample between the filters, and of another tap

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
#ifdef FASTGAN_CUDA_EMULATION
  static constexpr int64_t kWanted = 8;  // small cases have pieces of one batch and of several
#else
  static constexpr int64_t kWanted = 16 * 128 * kPieces;  // pieces at which warps may be longer: 16 on each of 128 multiprocessors
#endif

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

struct Piece {
  unsigned at;         // of x: its first pack
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

// Powers of two: of a filter and what it makes, and back. The largest tap of Half comes to 2^13 or more, below 2^14; BFloat16 has
// the range of float.
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

// This thread's entry of a table of pairs of taps as products read them, in `parts` words: f[k], f[k - 2] of a rising filter, in S;
// f[k], f[k + 1] of a falling one, in BFloat16.
template <class S>
__device__ __forceinline__ void tabulate(const float* taps, float by, bool rising, int parts, unsigned* table) {
  const int entry = threadIdx.x % kEntries, k = entry - kBefore;
  const float low = by * tap(taps, k), high = by * tap(taps, rising ? k - 2 : k + 1);
  unsigned words[kParts<S>];
  if (std::is_same_v<S, BFloat16> || rising) split<S>(low, high, words);
  else split<BFloat16>(low, high, words);
  FASTGAN_UNROLL
  for (int n = 0; n < kParts<S>; ++n)
    if (n < parts) table[n * kEntries + entry] = words[n];
}

// This lane's words of a filter.
template <int N>
struct Rising {
  unsigned at[N][2][2];  // [part][8 columns][8 rows]

  __device__ __forceinline__ explicit Rising(const unsigned* table) {
    table += kBefore + 13 + threadIdx.x % 32 / 4 - threadIdx.x % 4 * 4;
    FASTGAN_UNROLL
    for (int i = 0; i < 4; ++i) {
      FASTGAN_UNROLL
      for (int n = 0; n < N; ++n) at[n][i / 2][i % 2] = table[n * kEntries + i / 2 * 8 - i % 2 * 16];
    }
  }
};

struct Falling {
  unsigned at[kHalves][2][2];  // [part][16 rows][8 rows]

  __device__ __forceinline__ explicit Falling(const unsigned* table) {
    table += kBefore - 3 + threadIdx.x % 4 * 2 - threadIdx.x % 32 / 4 * 2;
    FASTGAN_UNROLL
    for (int i = 0; i < 4; ++i) {
      FASTGAN_UNROLL
      for (int n = 0; n < kHalves; ++n) at[n][i / 2][i % 2] = table[n * kEntries + i * 8];
    }
  }
};

using Quad = Pack<unsigned, 4>;  // of 8 samples
using Window = unsigned[4];  // of a piece and its other one: words of a pack, and of the one after it
using Sums = float[4];
using Halves = unsigned[kHalves][4];

// Half e of the 16 samples of two neighbouring packs, upsampled; v[2h + i]: column 8e + 2q + i of the lane's piece h.
template <class S, int N>
__device__ __forceinline__ void rise(const Rising<N>& filter, const Window& x, int e, Sums& v) {
  FASTGAN_UNROLL
  for (int i = 0; i < 4; ++i) v[i] = 0;
  FASTGAN_UNROLL
  for (int n = N - 1; n >= 0; --n) multiply_add<S>(v, x, filter.at[n][e]);
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

// Adds what 16 samples give to the pack before them (side 1) or after (side 0).
__device__ __forceinline__ void fall(const Falling& filter, const Halves& v, int side, Sums& y) {
  multiply_add<BFloat16>(y, v[1], filter.at[0][side]);
  multiply_add<BFloat16>(y, v[0], filter.at[1][side]);
  multiply_add<BFloat16>(y, v[0], filter.at[0][side]);
}

__device__ __forceinline__ Quad quad(const unsigned* from) { return load<unsigned, 4>(from); }

__device__ __forceinline__ unsigned word(const Quad* from, int i) { return words_at<uint1>(from->at + i)->x; }

}  // namespace fastgan::snaked
