// upfirdn2d of 16-bit images by up to 4 x 4 taps (of a 2-D filter, or the product of two), up 2 or down 2 or neither, as products of
// tensor cores with sums in float32.
//
// Along a row a filter is a product with a band of taps B[c][n] = h[ky][up c - down n + ..]; over ky products are added. An operand has
// 16 columns, which are 8 of x in each of two rows, so that what a lane has loaded is an operand as it is (mma.h):
//
//   mma_kernel          planes (NCHW)             Y += [X X'] [B; B']: 16 rows, 8 columns of y; X': the same of rows further down
//   mma_pixels_kernel   pixels (channels_last)    Y += [B^T B'^T] [X; X']: 8 columns of two rows of y, 8 channels; X': more of x of these
//
// A warp takes some columns of a plane, or of 16 channels, and goes down them. Rows of x come to a ring in shared memory without a
// register, those of the next step while this one is multiplied; rows of y leave through shared memory, 16 bytes a lane. By elements
// come rows of a plane that do not begin at multiples of 4 bytes, and leave those that do not begin at multiples of 16.
//
// x is exact in 16 bits. A tap is two numbers of them, within 2^-17 (BFloat16) or 2^-23 (Half, scaled to the range where it has the
// bits) of itself; the second ones are left out where all are zero, as of binomial filters. Zeros of a band are multiplied too: what
// is not finite is NaN in the columns around its own, and as many rows as four taps reach, of pixels one more.
//
// Memory as in upfirdn2d.cu: 4 bytes per output of a blur, the time of 24 instructions on an H200. A blur takes 14 per output, of
// pixels 9, up 2 it is 7 and 5 of 15, down 2 32 and 27 of 60 (sm_90, bench/predicted.py). Not run on a GPU yet.
#include "cuda/mma.h"
#include "cuda/upfirdn2d.h"

namespace fastgan::resampled {
namespace {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

constexpr int kTaps = 4;
constexpr int kWarps = 4, kThreads = 32 * kWarps;
constexpr int kTable = kTaps * kTaps * sizeof(float);  // of the filter, at the beginning of shared memory
constexpr int kTogether = 2;                           // rows whose elements are in flight, by fours or alone
constexpr int kWanted = 2 * 16 * 132;                  // warps, for all multiprocessors of an H200

struct Plan {
  struct Side {
    int x, y, taps;        // sizes
    int x_first, y_first;  // of the first step or tile
    int phase;             // tap k of sample c and output n of a tile is up c + phase - down n
  };
  Side h, v;
  int64_t x_sample, x_channel, x_row;
  int x_column, channels;
  int tiles, steps;             // of a warp
  int strips, pieces, groups;   // of a row, of a column, of the channels
  unsigned warps;
  bool flip, words, packs;      // words of x are loaded, 16 bytes of y stored
};

// The filter as it slides, in shared memory, and 1 over what it was multiplied with: a power of two with which Half's largest tap is
// 2^12 or more, below 2^13. BFloat16 has the range of float.
template <class S>
__device__ __forceinline__ float tabulate(const float* f, const float* fy, float gain, const Plan& p, float* table) {
  if (threadIdx.x < kTaps * kTaps) {
    const int ky = threadIdx.x / kTaps, kx = threadIdx.x % kTaps;
    const int of_fy = p.flip ? ky : p.v.taps - 1 - ky, of_f = p.flip ? kx : p.h.taps - 1 - kx;
    const bool exists = ky < p.v.taps && kx < p.h.taps;
    table[threadIdx.x] = !exists ? 0.f : gain * (fy ? fy[of_fy] * f[of_f] : f[of_fy * p.h.taps + of_f]);
  }
  __syncthreads();
  float back = 1;
  if constexpr (std::is_same_v<S, Half>) {
    float largest = 0;
    FASTGAN_UNROLL
    for (int k = 0; k < kTaps * kTaps; ++k) largest = fmaxf(largest, fabsf(table[k]));
    unsigned exponent;
    memcpy(&exponent, &largest, sizeof(exponent));
    exponent = smaller(253u, 2 * 127 + 12 - (exponent >> 23));
    const unsigned bits[2] = {exponent << 23, (2 * 127 - exponent) << 23};
    float scale;
    memcpy(&scale, bits, sizeof(scale)), memcpy(&back, bits + 1, sizeof(back));
    __syncthreads();
    if (threadIdx.x < kTaps * kTaps) table[threadIdx.x] *= scale;
    __syncthreads();
  }
  return back;
}

__device__ __forceinline__ float tap(const float* table, int ky, int kx) {
  return unsigned(ky) < unsigned(kTaps) && unsigned(kx) < unsigned(kTaps) ? table[ky * kTaps + kx] : 0.f;
}

__device__ __forceinline__ bool any(bool vote) { return __ballot_sync(0xffffffffu, vote) != 0; }

// Of a turn along the rows of planes. The 8 columns of x that a turn begins with end the one before.
template <int kUp, int kDown>
struct Rows {
  static constexpr int eights = kDown, columns = 8 * kUp;        // of a turn: 8 columns of x; columns of y
  static constexpr int sums = kUp * kUp, pairs = 2 / kUp;        // products' sums of a turn: rows of either phase, 8 columns; of shifts
  static constexpr int operands = (eights + 1) * sums * pairs;   // that a turn's columns of x are multiplied with
  static constexpr int most = kDown == 2 ? 4 : 8 / kUp, together = 2 / kUp;  // turns of a step; of a loop's body
  static constexpr int rows_x = 16 * kDown, rows_y = 16 * kUp;   // of a step
  static constexpr int window = kDown == 2 ? 36 : 20;            // rows of x that a step meets, by fours
  static constexpr int ring = rows_x + window;                   // of rows in shared memory; but up 2 the even ones before the odd ones
  static constexpr int kinds = kUp == 2 ? 1 : 2, of_kind = ring / kinds;  // of these
  static constexpr int words = ceil_div((most * eights + 1) * 4, 8);                // of a lane, of a row of x
  static constexpr int pitch = 32 * words + 16, pitch_y = most * columns * 2 + 16;  // 8 rows meet no bank twice
  static constexpr int seconds = operands * 32 * 8, bytes = ring * pitch + rows_y * pitch_y;  // of a block, of a warp
};

template <class S, int kUp, int kDown>
__global__ void __launch_bounds__(kThreads, 4) mma_kernel(const S* x, const float* f, const float* fy, S* y, float gain, const Plan p) {
  using K = Rows<kUp, kDown>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;

  const unsigned id = blockIdx.x * kWarps + warp;
  const unsigned of_plane = id / p.strips, plane = of_plane / p.pieces;
  const int strip = id - of_plane * p.strips, piece = of_plane - plane * p.pieces;
  const int sample = plane / p.channels, channel = plane - sample * p.channels;
  const int x0 = p.h.x_first + strip * p.tiles * 8 * K::eights, y0 = p.v.x_first + piece * p.steps * K::rows_x;
  const int ox = strip * p.tiles * K::columns, oy = p.v.y_first + piece * p.steps * K::rows_y;
  unsigned char* const ring = shared_memory() + kTable + K::seconds + warp * K::bytes;

  // Rows of x by fours: a lane takes a word of every 8 of one.
  const int column = x0 + lane % 8 * 2, end = larger(0, smaller(p.h.x, x0 + p.tiles * 8 * K::eights + 4));
  const S* const from = x + sample * p.x_sample + channel * p.x_channel + column;
  unsigned char* const own = ring + (K::kinds == 2 ? lane / 8 % 2 * K::of_kind + lane / 16 : lane / 8) * K::pitch + lane % 8 * 4;
  int to_row = 0, next_row = y0 + lane / 8;
  const auto end_of = [&](int row) { return unsigned(row) < unsigned(p.v.x) ? end : 0; };
  const auto advance = [&]() { next_row += 4, to_row = to_row + 4 / K::kinds < K::of_kind ? to_row + 4 / K::kinds : 0; };
  const auto fetch = [&](int fours) __attribute__((always_inline)) {
    if (p.words) {
      FASTGAN_NO_UNROLL
      for (int n = 0; n < fours; ++n, advance()) {
        const S* const source = from + int64_t{next_row} * p.x_row;
        unsigned char* const target = own + to_row * K::pitch;
        const int here = end_of(next_row);
        FASTGAN_UNROLL
        for (int i = 0; i < K::words; ++i) copy_or_zero<4>(target + 32 * i, source + 16 * i, unsigned(column + 16 * i) < unsigned(here));
      }
      return;
    }
    FASTGAN_NO_UNROLL
    for (int n = 0; n < fours; n += kTogether) {
      Pack<S, 2> read[kTogether][K::words];
      FASTGAN_UNROLL
      for (int t = 0; t < kTogether; ++t) {
        const S* const source = from + int64_t{next_row + 4 * t} * p.x_row;
        const int here = n + t < fours ? end_of(next_row + 4 * t) : 0;
        FASTGAN_UNROLL
        for (int i = 0; i < 2 * K::words; ++i) {
          const int at = i / 2 * 16 + i % 2;
          read[t][i / 2].at[i % 2] = unsigned(column + at) < unsigned(here) ? source[at] : static_cast<S>(0.f);
        }
      }
      FASTGAN_UNROLL
      for (int t = 0; t < kTogether; ++t) {
        if (n + t >= fours) break;
        FASTGAN_UNROLL
        for (int i = 0; i < K::words; ++i) store(reinterpret_cast<S*>(own + to_row * K::pitch + 32 * i), read[t][i]);
        advance();
      }
    }
  };

  // The first rows come while the filter is made operands. Idle warps help with that.
  const bool idle = id >= p.warps;
  if (!idle) fetch(K::window / 4);
  float* const table = reinterpret_cast<float*>(shared_memory());
  const float back = tabulate<S>(f, fy, gain, p, table);
  unsigned first[K::operands][2], rest = 0;
  unsigned* const second = reinterpret_cast<unsigned*>(table + kTaps * kTaps) + 2 * lane;
  FASTGAN_UNROLL
  for (int o = 0; o < K::operands; ++o) {
    const int e = o / (K::sums * K::pairs), n = o / K::pairs % K::sums, r = o % K::pairs;
    Pack<unsigned, 2> of_second;
    FASTGAN_UNROLL
    for (int i = 0; i < 2; ++i) {
      const int ky = kUp == 2     ? 2 * i + (n / 2 ? 1 - p.v.phase : p.v.phase)
                     : kDown == 2 ? 2 * r + i
                                  : 2 * i + r,
                kx = kUp * (8 * e + 2 * q) + p.h.phase - kDown * (n % kUp * 8 + g);
      unsigned parts[2];
      split<S>(tap(table, ky, kx), tap(table, ky, kx + kUp), parts);
      first[o][i] = parts[0], of_second.at[i] = parts[1], rest |= parts[1];
    }
    if (warp == 0) store(second + 64 * o, of_second);
  }
  const bool exact = !any(rest & 0x7fff7fffu);
  __syncthreads();
  if (idle) return;

  // Rows of y leave by packs, some at once; in shared memory all even ones come before the odd ones, but down 2.
  constexpr int kPacks = K::most * kUp, kAtOnce = 32 / kPacks;
  unsigned char* const of_y = ring + K::ring * K::pitch;
  const int pack = lane % kPacks, left = smaller(p.h.y - ox, p.tiles * K::columns);
  const auto row_of = [](int r) { return kDown == 2 ? r : r % (8 * kUp) * 2 + r / (8 * kUp); };
  S* to = y + (int64_t{plane} * p.v.y + oy) * p.h.y + ox;
  int row = oy;

  int window = 0;  // where the ring has the first row of this step
  for (int s = 0; s < p.steps; ++s) {
    wait_for_copies();
    __syncwarp();
    if (s + 1 < p.steps) fetch(K::rows_x / 4);
    // Where in the ring the lane has a row, of the even or the odd ones.
    const auto place = [&](int row, int odd) {
      const int own_row = window + row;
      return ring + ((own_row < K::of_kind ? own_row : own_row - K::of_kind) + odd * K::of_kind) * K::pitch;
    };
    // Lane 8i + j has row j of word i of an operand. Down 2 it has rows 2j of x for 16 rows of y, and 2j + 1; the other operand those
    // two further down. Up 2 rows j, and one further down; the other operand those that rows of y of the other phase begin with. Else
    // rows of y are 2j and 2j + 1 as well: it has rows 2j, 2j + 1, 2j + 2 and 2j + 3 of x, the other operand those one further down.
    const unsigned char* at[2];
    if constexpr (kDown == 2) at[0] = place(lane % 16, lane / 16), at[1] = place(lane % 16 + 1, lane / 16);
    else if constexpr (kUp == 2) at[0] = place(lane % 16 + lane / 16, 0), at[1] = place(lane % 16 + lane / 16 + 1 - p.v.phase, 0);
    else at[0] = place(lane % 8 + lane / 16, lane / 8 % 2), at[1] = place(lane % 8 + 2, 0);
    window += K::rows_x / K::kinds;
    if (window >= K::of_kind) window -= K::of_kind;

    unsigned words[2][4];
    const auto next = [&]() __attribute__((always_inline)) {
      load_rows(at[0], words[0]);
      if constexpr (kUp * kDown == 1) {
        FASTGAN_UNROLL
        for (int i = 0; i < 3; ++i) words[1][i] = words[0][i + 1];
        load_rows(at[1], words[1][3]);
      } else {
        load_rows(at[1], words[1]);
      }
      at[0] += 16, at[1] += 16;
    };
    next();
    const auto turns = [&](auto with_second) __attribute__((always_inline)) {
      float sums[K::sums][4];
      const auto add = [&](int e) __attribute__((always_inline)) {
        FASTGAN_UNROLL
        for (int n = 0; n < K::sums; ++n) FASTGAN_UNROLL
        for (int r = 0; r < K::pairs; ++r) {
          const int o = (e * K::sums + n) * K::pairs + r, w = kUp == 2 ? n / 2 : r;
          if constexpr (decltype(with_second)::value) multiply_add<S>(sums[n], words[w], load<unsigned, 2>(second + 64 * o).at);
          multiply_add<S>(sums[n], words[w], first[o]);
        }
      };
      const auto begin = [&]() __attribute__((always_inline)) {
        FASTGAN_UNROLL
        for (int n = 0; n < 4 * K::sums; ++n) sums[n / 4][n % 4] = 0;
        add(0);
      };
      const auto give = [&](unsigned char* to) __attribute__((always_inline)) {
        FASTGAN_UNROLL
        for (int n = 0; n < 2 * K::sums; ++n) {
          const float* const pair = sums[n / 2] + n % 2 * 2;
          words_at<uint1>(to + (16 * (n / 2 / kUp) + 8 * (n % 2)) * K::pitch_y + 16 * (n / 2 % kUp))->x = word_of<S>(pair[0] * back, pair[1] * back);
        }
      };
      begin();
      unsigned char* put = of_y + g * K::pitch_y + 4 * q;
      FASTGAN_NO_UNROLL
      for (int t = 0; t < p.tiles; t += K::together) {
        FASTGAN_UNROLL
        for (int n = 0; n < K::together; ++n, put += 16 * kUp) {
          FASTGAN_UNROLL
          for (int e = 1; e <= K::eights; ++e) next(), add(e);
          give(put);
          begin();
        }
      }
    };
    if (exact) turns(std::false_type());
    else turns(std::true_type());
    __syncwarp();
    if (p.packs) {
      FASTGAN_UNROLL
      for (int n = 0; n < K::rows_y / kAtOnce; ++n) {
        const int r = row_of(kAtOnce * n) + (kDown == 2 ? 1 : 2) * (lane / kPacks);
        const auto words = load<S, 8>(reinterpret_cast<const S*>(of_y + (kAtOnce * n + lane / kPacks) * K::pitch_y + 16 * pack));
        if (8 * pack < left && unsigned(row + r) < unsigned(p.v.y)) store(to + int64_t{r} * p.h.y + 8 * pack, words);
      }
    } else {
      FASTGAN_NO_UNROLL
      for (int r = 0; r < K::rows_y; r += kTogether) {
        FASTGAN_UNROLL
        for (int t = 0; t < kTogether; ++t) {
          const S* const source = reinterpret_cast<const S*>(of_y + (r + t) * K::pitch_y);
          const int here = row_of(r + t), end_of_row = unsigned(row + here) < unsigned(p.v.y) ? left : 0;
          FASTGAN_UNROLL
          for (int c = lane; c < 8 * kPacks; c += 32)
            if (c < end_of_row) to[int64_t{here} * p.h.y + c] = source[c];
        }
      }
    }
    row += K::rows_y, to += int64_t{K::rows_y} * p.h.y;
  }
}

// Of pixels: a tile is 8 columns of two rows of y, of 16 channels. What it meets of x is taken by 8 columns of a row, in the order of
// rows, two at a time, in a blur for two tiles, of which the lower one begins `apart` products later.
template <int kUp, int kDown>
struct Pixels {
  static constexpr int eights = kDown == 2 ? 3 : 2 / kUp, rows = kDown == 2 ? 6 : kUp == 2 ? 2 : 5;  // of x, of a tile
  static constexpr int products = eights * rows / 2;
  static constexpr int across = 8 * kDown / kUp, below = 2 * kDown / kUp;           // columns and rows of x from a tile to the next
  static constexpr int stack = kUp * kDown == 1 ? 2 : 1, apart = eights * below / 2;  // of tiles at once
  static constexpr int taken = products + (stack - 1) * apart;
  static constexpr int most = kDown == 2 ? 2 : 4 * kUp;                    // tiles of a row
  static constexpr int rows_x = 4, rows_y = rows_x / below * 2;            // of a step
  static constexpr int window = 8, ring = window + rows_x;                 // rows of x that a step meets, by fours; in shared memory
  static constexpr int columns = across * (most - 1) + 8 * eights;         // of x
  static constexpr int met = kUp == 2 ? 6 : 7 * kDown + kTaps;             // of a tile
  static constexpr int pitch = 32 * columns, tile = 2 * 8 * 32;            // bytes of a row of x, of a tile of y
  static constexpr int seconds = products * 32 * 16, bytes = ring * pitch + 2 * stack * tile;  // of a block, of a warp
};

template <class S, int kUp, int kDown>
__global__ void __launch_bounds__(kThreads, 4) mma_pixels_kernel(const S* x, const float* f, const float* fy, S* y, float gain, const Plan p) {
  using K = Pixels<kUp, kDown>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;

  const unsigned id = blockIdx.x * kWarps + warp;
  const unsigned place = id / p.groups, of_sample = place / p.strips, sample = of_sample / p.pieces;
  const int group = id - place * p.groups, strip = place - of_sample * p.strips, piece = of_sample - sample * p.pieces;

  // Of 8 neighbouring pixels' 16 bytes none meet in a bank: every other four have their halves exchanged.
  unsigned char* const ring = shared_memory() + kTable + K::seconds + warp * K::bytes;
  const int x0 = p.h.x_first + strip * p.tiles * K::across, y0 = p.v.x_first + piece * p.steps * K::rows_x;
  const int ox = strip * p.tiles * 8, oy = p.v.y_first + piece * p.steps * K::rows_y;
  const int half = lane % 2, channel = 16 * group + 8 * half, pixel = lane / 2;
  const bool live = channel < p.channels;
  const int end = live ? larger(0, smaller(p.h.x, x0 + K::across * (p.tiles - 1) + K::met)) : 0;

  const S* const from = x + sample * p.x_sample + int64_t{x0 + pixel} * p.x_column + channel;
  unsigned char* const own = ring + 32 * pixel + 16 * (half ^ pixel / 4 % 2);
  int to_row = 0, next_row = y0;
  const auto fetch = [&]() __attribute__((always_inline)) {
    FASTGAN_UNROLL
    for (int r = 0; r < 4; ++r) {
      const S* const source = from + int64_t{next_row + r} * p.x_row;
      const int here = unsigned(next_row + r) < unsigned(p.v.x) ? end : 0;
      FASTGAN_UNROLL
      for (int n = 0; n < ceil_div(K::columns, 16); ++n)
        if (pixel + 16 * n < K::columns)
          copy_or_zero<16>(own + (to_row + r) * K::pitch + 512 * n, source + 16 * n * p.x_column, unsigned(x0 + pixel + 16 * n) < unsigned(here));
    }
    next_row += 4, to_row = to_row + 4 < K::ring ? to_row + 4 : 0;
  };

  const bool idle = id >= p.warps;
  if (!idle) fetch(), fetch();
  float* const table = reinterpret_cast<float*>(shared_memory());
  const float back = tabulate<S>(f, fy, gain, p, table);
  unsigned first[K::products][4], rest = 0;
  unsigned* const second = reinterpret_cast<unsigned*>(table + kTaps * kTaps) + 4 * lane;
  FASTGAN_UNROLL
  for (int n = 0; n < K::products; ++n) {
    Pack<unsigned, 4> of_second;
    FASTGAN_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int eight = 2 * n + i / 2, row = eight / K::eights, column = eight % K::eights * 8 + 2 * q;
      const int ky = kUp * row + kUp / 2 - kDown * (i % 2), kx = kUp * column + p.h.phase - kDown * g;
      unsigned parts[2];
      split<S>(tap(table, ky, kx), tap(table, ky, kx + kUp), parts);
      first[n][i] = parts[0], of_second.at[i] = parts[1], rest |= parts[1];
    }
    if (warp == 0) store(second + 128 * n, of_second);
  }
  const bool exact = !any(rest & 0x7fff7fffu);
  __syncthreads();
  if (idle) return;

  // A tile of y in shared memory: the lane's word of channels 0 to 7 of a row, of channels 8 to 15; the 16 bytes that it stores.
  unsigned char* const of_y = ring + K::ring * K::pitch;
  const int put = 32 * g + 16 * (g / 4) + 4 * q, get = 16 * lane ^ lane / 8 % 2 * 16;
  const int of_tile = pixel % 8, left = live ? p.h.y - ox - of_tile : 0;
  S* const to = y + (int64_t{sample} * p.v.y * p.h.y + ox + of_tile) * p.channels + channel;
  const int64_t row_of_y = int64_t{p.h.y} * p.channels, tile_of_y = int64_t{8} * p.channels;
  int tile = 0;

  int window = 0;  // where the ring has the first row of this step
  for (int s = 0; s < p.steps; ++s) {
    wait_for_copies();
    __syncwarp();
    if (s + 1 < p.steps) fetch();
    FASTGAN_NO_UNROLL
    for (int below = 0; below < K::rows_x; below += K::stack * K::below) {
      const int first_row = oy + s * K::rows_y + below / K::below * 2;
      if (first_row >= p.v.y) break;
      // Lane 8i + j has pixel j of word i of two operands: 8 columns, the next 8 of the order, the same of the other 8 channels.
      const unsigned char* at[K::taken];
      FASTGAN_UNROLL
      for (int n = 0; n < K::taken; ++n) {
        const int eight = 2 * n + lane / 8 % 2, row = window + below + eight / K::eights, column = eight % K::eights * 8 + lane % 8;
        at[n] = ring + (row < K::ring ? row : row - K::ring) * K::pitch + 32 * column + 16 * (lane / 16 ^ lane / 4 % 2);
      }
      // Up 2 the next tile begins where the halves are exchanged.
      int hop = kUp == 2 ? 128 + 16 - 32 * (lane / 16 ^ lane / 4 % 2) : 32 * K::across;
      const int row = first_row + lane / 16;
      S* store_at = to + row * row_of_y;
      int columns[K::stack];
      FASTGAN_UNROLL
      for (int i = 0; i < K::stack; ++i) columns[i] = unsigned(row + 2 * i) < unsigned(p.v.y) ? left : 0;
      const auto tiles = [&](auto with_second) __attribute__((always_inline)) {
        FASTGAN_NO_UNROLL
        for (int t = 0; t < p.tiles; ++t) {
          float sums[K::stack][2][4] = {};
          FASTGAN_UNROLL
          for (int n = 0; n < K::taken; ++n) {
            unsigned words[2][2];
            load_columns(at[n], words);
            at[n] += hop;
            FASTGAN_UNROLL
            for (int i = 0; i < K::stack; ++i) {
              const int o = n - i * K::apart;
              if (o < 0 || o >= K::products) continue;
              if constexpr (decltype(with_second)::value) {
                const Pack<unsigned, 4> of_second = load<unsigned, 4>(second + 128 * o);
                multiply_add<S>(sums[i][0], of_second.at, words[0]);
                multiply_add<S>(sums[i][1], of_second.at, words[1]);
              }
              multiply_add<S>(sums[i][0], first[o], words[0]);
              multiply_add<S>(sums[i][1], first[o], words[1]);
            }
          }
          if (kUp == 2) hop = 2 * 128 - hop;
          FASTGAN_UNROLL
          for (int n = 0; n < 4 * K::stack; ++n) {
            const float* const pair = sums[n / 4][n / 2 % 2] + n % 2 * 2;
            words_at<uint1>(of_y + tile + n / 4 * K::tile + 256 * (n % 2) + (put ^ n / 2 % 2 * 16))->x = word_of<S>(pair[0] * back, pair[1] * back);
          }
          __syncwarp();  // the other tiles' place is free: who is here has read them
          FASTGAN_UNROLL
          for (int i = 0; i < K::stack; ++i)
            if (8 * t < columns[i]) store(store_at + 2 * i * row_of_y, load<S, 8>(reinterpret_cast<const S*>(of_y + tile + i * K::tile + get)));
          store_at += tile_of_y, tile ^= K::stack * K::tile;
        }
      };
      if (exact) tiles(std::false_type());
      else tiles(std::true_type());
    }
    window = window + 4 < K::ring ? window + 4 : 0;
  }
}

template <class S, int kUp, int kDown>
void run(const Tensor& x, const Tensor& f, const Tensor* fy, Tensor& y, const Axis& ax, const Axis& ay, double gain, bool flip, bool pixels) {
  using R = Rows<kUp, kDown>;
  using P = Pixels<kUp, kDown>;
  Plan p;
  p.x_sample = x.stride(0), p.x_channel = x.stride(1), p.x_row = x.stride(2), p.x_column = x.stride(3);
  p.channels = x.size(1), p.flip = flip;
  // The first samples that output 0 meets; of the rows of planes, which are loaded by words, an even one. Up 2 two rows of pixels meet
  // the same ones, of which the first may be row -1.
  const auto side = [](const Axis& a, int unit) {
    const int first = floor_div<int>(-floor_div<int>(a.before, kUp), unit) * unit;
    return Plan::Side{int(a.in), int(a.out), int(a.taps), first, 0, kUp * first + int(a.before)};
  };
  p.h = side(ax, pixels ? 1 : 2), p.v = side(ay, 1);
  if (pixels && kUp == 2) p.v.y_first = p.v.phase - 1;
  const int columns = pixels ? 8 : R::columns, together = pixels ? 1 : R::together, tiles = ceil_div(p.h.y, columns),
            rows = pixels ? P::rows_y : R::rows_y;
  p.strips = ceil_div(tiles, pixels ? P::most : R::most), p.tiles = ceil_div(tiles, p.strips * together) * together;
  p.groups = pixels ? ceil_div(p.channels, 16) : p.channels;
  // Rows enough that those above a piece weigh little, but warps enough for all multiprocessors.
  const int64_t columns_of_all = x.size(0) * p.groups * p.strips;
  const int steps = ceil_div(p.v.y - p.v.y_first, rows), least = ceil_div(32, rows);
  p.steps = steps;
  while (p.steps >= 2 * least && columns_of_all * ceil_div(steps, p.steps) < kWanted) p.steps = ceil_div(p.steps, 2);
  p.pieces = ceil_div(steps, p.steps);
  p.warps = columns_of_all * p.pieces;
  const auto even = [&](const Tensor& t) {
    for (int64_t n : {t.size(3), t.stride(2), t.stride(1), t.stride(0), reinterpret_cast<intptr_t>(t.const_data_ptr()) / 2})
      if (n % 2) return false;
    return true;
  };
  p.words = even(x), p.packs = whole_packs<S>(y);
  launch("upfirdn2d", x, dim3(ceil_div<unsigned>(p.warps, kWarps)), dim3(kThreads),
         kTable + (pixels ? P::seconds + kWarps * P::bytes : R::seconds + kWarps * R::bytes),
         pixels ? mma_pixels_kernel<S, kUp, kDown> : mma_kernel<S, kUp, kDown>, pointer<S>(x), pointer<float>(f), fy ? pointer<float>(*fy) : nullptr,
         mutable_pointer<S>(y), static_cast<float>(gain), p);
}

}  // namespace

bool multiply(const Tensor& x, const Tensor& f, const Tensor* fy, Tensor& y, const Axis& ax, const Axis& ay, double gain, bool flip) {
  constexpr int64_t kMost = 1 << 26;
  for (const Axis* a : {&ax, &ay}) {
    if (a->taps > kTaps) return false;
    for (int64_t n : {a->in, a->out, a->before, -a->before})
      if (n >= kMost) return false;
  }
  if (ax.up != ay.up || ax.down != ay.down) return false;
  const auto type = x.scalar_type();
  const bool half = type == torch::headeronly::ScalarType::Half;
  if (!half && type != torch::headeronly::ScalarType::BFloat16) return false;
  const bool pixels = x.size(1) > 1 && y.stride(1) == 1 && y.stride(3) > 1;
  if (pixels) {
    if (x.size(1) % 8 || x.stride(1) != 1 || !aligned(x.const_data_ptr()) || !aligned(y.const_data_ptr()) || x.stride(3) >= kMost) return false;
    for (int d : {0, 2, 3})
      if (x.stride(d) % 8) return false;
  } else if (x.size(3) > 1 && x.stride(3) != 1) {
    return false;
  }
  if (x.size(0) * x.size(1) * ceil_div<int64_t>(ax.out, 8) * ceil_div<int64_t>(ay.out, 2) >= INT32_MAX) return false;
  const auto with = [&](auto up, auto down) {
    constexpr int kUp = decltype(up)::value, kDown = decltype(down)::value;
    if (ax.up != kUp || ax.down != kDown) return false;
    if (half) run<Half, kUp, kDown>(x, f, fy, y, ax, ay, gain, flip, pixels);
    else run<BFloat16, kUp, kDown>(x, f, fy, y, ax, ay, gain, flip, pixels);
    return true;
  };
  constexpr std::integral_constant<int, 1> one;
  constexpr std::integral_constant<int, 2> two;
  return with(one, one) || with(two, one) || with(one, two);
}

}  // namespace fastgan::resampled
