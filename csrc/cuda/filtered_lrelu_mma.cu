// filtered_lrelu of 16-bit images, down 2 with 12 taps and up 2 with 12 or 4 with 24, its filters as products of tensor cores with sums
// in float32 (fastgan/ops/filtered_lrelu.py states the formulas).
//
// A warp takes some columns of a plane and goes down it, 16 rows of t and 8 of y at a step; at a step it goes along the columns, 32 of t
// and 16 of y at a time. With X the 16 rows of x that a step needs, a product contracts one axis after the other:
//
//   C = Uy X        rows of t, columns of x           Uy[m][k] = hu[up k - m + ..]
//   T = C Ux        rows and columns of t             V: T activated
//   W = Dx V^T      columns of y, rows of t           Dx[n][k] = hd[k - 2n]
//   Y = W Dy        columns and rows of y             of this step and of the one before
//
// and what a product leaves in a lane is what the next one reads there (mma.h); only y is transposed, as pairs of its type.
//
// x is exact in 16 bits, Uy is two numbers of them, scaled to the range where Half's have 22 bits. Between products a number is
// one of TF32 for a BFloat16 y, cut to 11 bits: within 0.7 of 2^-10 of itself, where y is rounded to 2^-9; on the average y errs by 1%
// more than by its rounding, a gradient by 5% (tests/cuda/test_products.py). For Half it is two BFloat16, without the product of their
// second parts: within 2^-16. Zeros of the filters are multiplied too: what is not finite is NaN in the rows and columns around its own.
//
// Warps are on their own, or with channels_last the 8 warps of a block have 8 channels of a place (separable_pixels.h).
//
// Memory as in filtered_lrelu.cu. 128 outputs take 4 + 8 + 12 + 4 products at up 2 (Half 4 + 12 + 18 + 6), of which tensor cores have
// one in 8 cycles: 56 cycles per output, 2.3 times the floor of an H200; 16 instructions per output activate. In all it takes 67, 101
// with a mask to write, 77 with one to read, in Half 97, 126 and 98, of sm_90 in 64 columns (bench/predicted.py); channels_last 1 to 9
// more. 16 warps on an SM. Not run on a GPU yet.
#include <limits>

#include "cuda/filtered_lrelu.h"
#include "cuda/separable_operands.h"
#include "cuda/separable_pixels.h"
#include "cuda/stream.h"

namespace fastgan::filtered {
namespace {

using namespace separable;

constexpr int kDown = 2, kDownTaps = 12, kPhase = 6;  // kPhase: taps of fu / up
constexpr int kWarpsOf[2] = {4, kOctet};  // of a block: each on its own, or those of 8 channels with channels_last
constexpr int kRowsT = 16, kRowsY = kRowsT / kDown, kColumnsT = 32, kColumnsY = kColumnsT / kDown;  // of a step, of a turn in it
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kMostTurns[2] = {8, 4}, kLeastSteps = 4;                                              // of a step, of a warp
constexpr int kBefore = 40, kTable = 128;  // taps in shared memory: the first one at kBefore, zeros around them
constexpr int kTables = (2 * kTable + 4 * 4 * 32) * sizeof(float);  // of fu and fd; Dy and the last part of Dx

template <int kUp, bool kLast>
struct Shape {
  static constexpr int up_taps = kPhase * kUp;
  static constexpr int rows_x = kRowsT / kUp;            // of a step
  static constexpr int ring = 16 + (kLast ? 0 : rows_x);  // those of a step's products, and of the next step where they come at once
  static constexpr int columns_x = kColumnsT / kUp, tiles = columns_x / 8;  // of a turn
};

struct Plan {
  struct Side {
    int x, t, y, x_first, t_first, phase;  // the first of the first step and turn; phase: up x_first - t_first + before
  };
  Side h, v;
  int64_t x_sample, x_channel, x_row;
  int channels, mask_words;
  int turns, groups, steps, strips, pieces, warps;  // of a step, of 32 columns of x of a step, of a warp; of a row, of a column, in all
  int pitch, ring_bytes, warp_bytes;        // of a row of x in shared memory, of all of them, of a warp
  bool flip;
};

// With channels_last.
struct PixelPlan {
  int64_t x_pixel;
  int octets, pairs;           // of channels; of pixels in a row of x
  int waiting_bytes, y_pitch;  // of rows of x that wait, of a row of y in shared memory
  bool whole_x, whole_y;
};

// Two numbers of Half into [-limit, limit] of theirs; NaN stays NaN.
__device__ __forceinline__ unsigned within(unsigned word, unsigned limit) {
#ifdef FASTGAN_CUDA_EMULATION
  const Pack<float, 2> value = numbers_of<Half>(word), most = numbers_of<Half>(limit);
  return word_of<Half>(limited(value.at[0], most.at[0]), limited(value.at[1], most.at[1]));
#else
  asm("min.NaN.f16x2 %0, %0, %1;" : "+r"(word) : "r"(limit));
  asm("max.NaN.f16x2 %0, %0, %1;" : "+r"(word) : "r"(limit ^ 0x80008000u));
  return word;
#endif
}

__device__ __forceinline__ unsigned funnel(unsigned low, unsigned high, int shift) {
#ifdef FASTGAN_CUDA_EMULATION
  return static_cast<unsigned>((uint64_t{high} << 32 | low) >> shift);
#else
  return __funnelshift_r(low, high, shift);
#endif
}

// Activated; `bit` is set in bits[0] where not t > 0 and in bits[1] where |v| >= limit, which a NaN is not. As instructions under
// predicates: nvcc selects.
__device__ __forceinline__ float marked(float t, float slope, float limit, unsigned bit, unsigned (&bits)[2]) {
#ifdef FASTGAN_CUDA_EMULATION
  if (!(t > 0)) t *= slope, bits[0] |= bit;
  if (std::fabs(t) >= limit) t = std::copysign(limit, t), bits[1] |= bit;
#else
  asm("{\n\t.reg .pred p;\n\t.reg .f32 size;\n\t"
      "setp.leu.f32 p, %0, 0f00000000;\n\t@p mul.f32 %0, %0, %3;\n\t@p or.b32 %1, %1, %5;\n\t"
      "abs.f32 size, %0;\n\tsetp.ge.f32 p, size, %4;\n\t@p copysign.f32 %0, %0, %4;\n\t@p or.b32 %2, %2, %5;\n\t}"
      : "+f"(t), "+r"(bits[0]), "+r"(bits[1])
      : "f"(slope), "f"(limit), "r"(bit));
#endif
  return t;
}

template <Pass kPass, class S, int kUp, bool kLast>
__global__ void __launch_bounds__(32 * kWarpsOf[kLast], 16 / kWarpsOf[kLast])
    mma_kernel(const S* x, const S* bias, const float* fu, const float* fd, S* y, uint32_t* mask, float gain, float slope, float limit, const Plan p,
               const PixelPlan pixels) {
  using K = Shape<kUp, kLast>;
  using A = Arithmetic<S>;
  using Operand = typename A::Operand;
  using Rows = typename A::Rows;
  float* const tables = reinterpret_cast<float*>(shared_memory());
  const unsigned tap = threadIdx.x - kBefore;
  if (threadIdx.x < kTable) {
    tables[threadIdx.x] = tap < K::up_taps ? fu[p.flip ? tap : K::up_taps - 1 - tap] : 0.f;
    tables[kTable + threadIdx.x] = tap < kDownTaps ? fd[p.flip ? tap : kDownTaps - 1 - tap] : 0.f;
  }
  __syncthreads();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
  // Each is read where it is used: equal ones, taken for one number, would be moved to their places for every product.
  const volatile float *const up = tables + kBefore, *const down = tables + kTable + kBefore;
  // Dy and the last part of Dx have no registers of their own.
  using Right = typename A::Right;
  using Left = typename A::Left;
  Right* const down_rows = reinterpret_cast<Right*>(tables + 2 * kTable) + lane;
  float* const last_columns = tables + 2 * kTable + 2 * 4 * 32 + 4 * lane;
  if (warp < 2) {
    down_rows[32 * warp] = A::right([&](int k, int n) { return down[16 * warp + k - kDown * n]; });
  } else if (warp == 2) {
    const Left left = A::left([&](int m, int k) { return down[32 + k - kDown * m]; });
    FASTGAN_UNROLL
    for (int n = 0; n < 2; ++n) {
      Pack<float, 4> part;
      memcpy(&part, left.at[n], sizeof(part));
      store(last_columns + n * 128, part);
    }
  }
  __syncthreads();
  // channels_last: the octets of a place are neighbouring blocks, as memory is read in more than 16 bytes at once.
  const unsigned id = kLast ? blockIdx.x / pixels.octets : blockIdx.x * kWarpsOf[0] + warp;
  if (!kLast && id >= unsigned(p.warps)) return;
  const unsigned of_strip = id / p.strips, image = of_strip / p.pieces;
  const int strip = id - of_strip * p.strips, piece = of_strip - image * p.pieces;
  const int sample = kLast ? image : image / p.channels;
  const int first_channel = kLast ? blockIdx.x % pixels.octets * kOctet : image - sample * p.channels, channel = first_channel + kLast * warp;
  const unsigned plane = kLast ? sample * p.channels + channel : image;
  const bool there = !kLast || channel < p.channels;

  const Pack<float, 2> scale = scale_of<S>(up);
  auto of_rows = Halved<S>::left([&](int m, int k) { return scale.at[0] * up[kUp * k - m + p.v.phase]; });
  Right of_columns[kUp];
  Left down_columns[2];
  FASTGAN_UNROLL
  for (int j = 0; j < kUp; ++j) of_columns[j] = A::right([&](int k, int n) { return gain * scale.at[1] * up[kUp * k - (8 * j + n) + p.h.phase]; });
  FASTGAN_UNROLL
  for (int j = 0; j < 2; ++j) down_columns[j] = A::left([&](int m, int k) { return down[16 * j + k - kDown * m]; });

  unsigned char* const ring = shared_memory() + kTables + kLast * sizeof(Common<S>) + warp * p.warp_bytes;
  float* const open = reinterpret_cast<float*>(ring + p.ring_bytes) + 4 * lane;  // what outputs have of the step before, by turns
  const int x0 = p.h.x_first + strip * p.turns * K::columns_x, y0 = p.v.x_first + piece * p.steps * K::rows_x;
  const int tx0 = p.h.t_first + strip * p.turns * kColumnsT, ty0 = p.v.t_first + piece * p.steps * kRowsT;
  const int ox = strip * p.turns * kColumnsY + 2 * q, oy = piece * p.steps * kRowsY + g;
  const bool last_strip = strip + 1 == p.strips, last_piece = piece + 1 == p.pieces;
  const S* const from = x + sample * p.x_sample + first_channel * p.x_channel;
  S* const to = kLast ? y + int64_t{sample} * p.v.y * p.h.y * p.channels + first_channel : y + int64_t{plane} * p.v.y * p.h.y;
  [[maybe_unused]] const unsigned bias_word = kPass != Pass::masked && bias && there ? word_of<S>(static_cast<float>(bias[channel]), 0.f) : 0;

  // What a convolution of Half could not hold is infinite in x: a limit is there to catch it.
  [[maybe_unused]] const unsigned largest = limit < kInfinity ? 0x7bff7bffu : 0x7c007c00u;

  // channels_last: rows of x to where they wait, from `first` on, and from there to the rings of all warps, from row `at` on; and the
  // rows of y that step s has finished. Registers are few: what is rarely needed is in shared memory.
  unsigned char* const rings = shared_memory() + kTables + sizeof(Common<S>);
  unsigned char* const waiting_x = rings + kOctet * p.warp_bytes;
  unsigned char* const ys = waiting_x + pixels.waiting_bytes;
  volatile Common<S>* const common = reinterpret_cast<volatile Common<S>*>(shared_memory() + kTables);
  if constexpr (kLast) {
    if (threadIdx.x == 0) common->from = from, common->to = to, common->channels = p.channels - first_channel;
    __syncthreads();
  }
  const auto fetch_pixels = [&](int first) __attribute__((always_inline)) {
    const Pixels<S, K::rows_x> rows{.channels = common->channels, .whole = pixels.whole_x};
    const int row = y0 + first + rows.row;
    rows.fetch(common->from + row * p.x_row + x0 * pixels.x_pixel, pixels.x_pixel, x0, p.h.x, unsigned(row) < unsigned(p.v.x), pixels.pairs,
               waiting_x + threadIdx.x * 16);
  };
  const auto spread_pixels = [&](int at) __attribute__((always_inline)) {
    const Pixels<S, K::rows_x> rows{};
    rows.spread(waiting_x + threadIdx.x * 16, pixels.pairs, rings + (at + rows.row) % 16 * p.pitch, p.warp_bytes);
  };
  const auto give_pixels = [&](int s) __attribute__((always_inline)) {
    const Pixels<S, kRowsY> rows{.channels = common->channels, .whole = pixels.whole_y};
    const int row = (piece * p.steps + s - 1) * kRowsY + rows.row, column = strip * p.turns * kColumnsY;
    const int columns = row < p.v.y ? smaller(p.turns * kColumnsY, p.h.y - column) : 0;
    rows.gather(ys + rows.row * pixels.y_pitch, kRowsY * pixels.y_pitch, common->to + (int64_t{row} * p.h.y + column) * p.channels, p.channels,
                columns);
  };

  // A step's rows of x, from row `first` of this warp on, to row `at` of the ring and on: lanes take twice 16 columns of 4 rows at once.
  [[maybe_unused]] const auto fetch = [&](int first, int at) __attribute__((always_inline)) {
    constexpr int kRows = K::rows_x / 4;
    const S* source[kRows];
    bool inside[kRows];
    int column = x0 + 2 * (lane % 8);
    FASTGAN_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const int row = y0 + first + lane / 8 + 4 * r;
      source[r] = from + row * p.x_row + column, inside[r] = unsigned(row) < unsigned(p.v.x);
    }
    unsigned char* target = ring + (at + lane / 8) * p.pitch + lane % 8 * 4;
    FASTGAN_NO_UNROLL
    for (int n = 0; n < p.groups; ++n, column += 32, target += 64) {
      FASTGAN_UNROLL
      for (int r = 0; r < kRows; ++r) {
        FASTGAN_UNROLL
        for (int half = 0; half < 2; ++half)
          copy_or_zero<4>(target + 4 * r * p.pitch + 32 * half, source[r] + 16 * half, inside[r] && unsigned(column + 16 * half) < unsigned(p.h.x));
        source[r] += 32;
      }
    }
  };

  // Of the mask: the lane's row of the 16 of a step and its kind; its word of 32 columns goes to or comes from the others of its four.
  uint32_t* const bits_of_plane = mask + int64_t{plane} * p.v.t * 2 * p.mask_words;
  const int mask_row = ty0 + g + q / 2 * 8, kind = q % 2;

  FASTGAN_NO_UNROLL
  for (int r = 0; r < 16; r += K::rows_x) {
    if constexpr (kLast) fetch_pixels(r), wait_for_copies(), spread_pixels(r);
    else fetch(r, r);
  }
  int window = 0;  // where the ring has the first row of this step
  for (int s = 0; s <= p.steps; ++s) {
    wait_for_copies();
    if constexpr (kLast) {
      __syncthreads();  // no warp needs what the last step had
      if (s > 0) spread_pixels((s - 1) * K::rows_x);
      if (s > 1) give_pixels(s - 1);
      __syncthreads();
      if (s < p.steps) fetch_pixels(16 + s * K::rows_x);
      if (!there) continue;
    } else {
      __syncwarp();
      if (s < p.steps) fetch(16 + s * K::rows_x, window < K::rows_x ? window + 16 : window - K::rows_x);
    }
    const int ring_row = window + lane % 16;
    const unsigned char* columns = ring + (ring_row < K::ring ? ring_row : ring_row - K::ring) * p.pitch;
    window = window + K::rows_x < K::ring ? window + K::rows_x : 0;

    // Row 14 of X, which no tap of Uy meets, is the bias where there is a column of x, and its column of Uy the sum of the row where
    // there is a row of x.
    if constexpr (kPass != Pass::masked) {
      const int first = y0 + s * K::rows_x;
      if (first < K::rows_x || first + 16 > p.v.x || s == 0) {
        Sums sums;
        clear(sums);
        unsigned ones[2];
        FASTGAN_UNROLL
        for (int i = 0; i < 2; ++i) {
          const int row = first + 2 * q + 8 * i;
          ones[i] = word_of<S>(unsigned(row) < unsigned(p.v.x) ? 1.f : 0.f, unsigned(row + 1) < unsigned(p.v.x) ? 1.f : 0.f);
        }
        FASTGAN_UNROLL
        for (int n = 1; n >= 0; --n) {
          if (q == 3) of_rows.at[n][2] = of_rows.at[n][3] = 0;
          multiply_add<S>(sums, of_rows.at[n], ones);
        }
        FASTGAN_UNROLL
        for (int i = 0; i < 2; ++i) {
          unsigned parts[2];
          split<S>(sums[2 * i], 0.f, parts);
          if (q == 3) of_rows.at[0][2 + i] = parts[0], of_rows.at[1][2 + i] = parts[1];
        }
      }
    }
    int column = x0 + g;
    const auto next_c = [&]() __attribute__((always_inline)) {
      unsigned words[2];
      load_columns(columns, words);
      if constexpr (kPass != Pass::masked) {
        if constexpr (std::is_same_v<S, Half>) words[0] = within(words[0], largest), words[1] = within(words[1], largest);
        if (q == 3) words[1] = unsigned(column) < unsigned(p.h.x) ? bias_word : 0;
      }
      Sums sums;
      clear(sums);
      multiply_add<S>(sums, of_rows.at[1], words);
      multiply_add<S>(sums, of_rows.at[0], words);
      columns += 16, column += 8;
      return A::rows(sums);
    };
    // The lane's place in y, and the columns that are left from there on; a row that this warp does not write has none.
    const int row = oy + (s - 1) * kRowsY;
    [[maybe_unused]] int at = row * p.h.y + ox, left = s > 0 && row < p.v.y ? p.h.y - ox : 0;
    [[maybe_unused]] unsigned char* own_y = ys + (warp * kRowsY + g) * pixels.y_pitch + 4 * q;
    float* waiting = open;
    const int row_t = mask_row + s * kRowsT;
    const bool in_mask = unsigned(row_t) < unsigned(p.v.t) && (kPass == Pass::masked || s < p.steps || last_piece);
    [[maybe_unused]] const int first_word = (row_t * 2 + kind) * p.mask_words;
    [[maybe_unused]] const int words = in_mask ? p.mask_words : 0;
    [[maybe_unused]] int word = tx0 >> 5;
    [[maybe_unused]] const auto word_of_mask = [&](int at) __attribute__((always_inline)) {
      unsigned bits = kind ? ~0u : 0;  // outside of the grid all is clamped
      if (unsigned(at) < unsigned(words)) {
        bits = bits_of_plane[first_word + at];
        if (kind && 32 * (at + 1) > p.h.t) bits |= ~0u << p.h.t % 32;
      }
      return bits;
    };
    [[maybe_unused]] unsigned low, high;
    if constexpr (kPass == Pass::masked) low = word_of_mask(word), high = word_of_mask(word + 1);

    Rows c = next_c();
    Sums w[2], before[2];  // columns of y that this turn begins and those that it finishes, [rows 8 and on of t]
    // 32 columns of t, or 16 at the end of a strip: they finish 16 columns of y, and begin as many.
    const auto turn = [&](int i, auto whole) __attribute__((always_inline)) {
      constexpr bool kWhole = decltype(whole)::value;
      Rows cs[K::tiles + 1];
      cs[0] = c;
      FASTGAN_UNROLL
      for (int n = 0; n < (kWhole ? K::tiles : 1); ++n) cs[n + 1] = next_c();
      unsigned bits[2][2] = {};  // [rows 8 and on of t][kind], the lane's from bit 0 on
      if constexpr (kPass == Pass::masked) {
        const unsigned own = funnel(low, high, tx0 & 31);
        low = high, ++word;
        if constexpr (kWhole) high = word_of_mask(word + 1);
        FASTGAN_UNROLL
        for (int n = 0; n < 4; ++n) bits[n / 2][n % 2] = __shfl_sync(0xffffffffu, own, 4 * g + n) >> 2 * q;
      }
      Operand v[2];
      const auto activate = [&](int from) __attribute__((always_inline)) {
        FASTGAN_UNROLL
        for (int n = 0; n < 2; ++n) {
          const int j = from + n;
          Sums t;
          clear(t);
          A::multiply(t, cs[j / kUp], cs[j / kUp + 1], of_columns[j % kUp]);
          FASTGAN_UNROLL
          for (int e = 0; e < 4; ++e) {
            [[maybe_unused]] unsigned (&of_row)[2] = bits[e / 2];
            [[maybe_unused]] const unsigned bit = 1u << (8 * j + e % 2);
            if constexpr (kPass == Pass::masked) t[e] = of_row[1] & bit ? 0.f : of_row[0] & bit ? slope * t[e] : t[e];
            else if constexpr (kPass == Pass::forward) t[e] = limited(fmaxf(t[e], slope * t[e]), limit);
            else t[e] = marked(t[e], slope, limit, bit, of_row);
          }
          v[n] = A::operand(t);
        }
      };
      activate(0);
      Left last;
      FASTGAN_UNROLL
      for (int n = 0; n < 2; ++n) load_words(last_columns + n * 128, last.at[n]);
      FASTGAN_UNROLL
      for (int half = 0; half < 2; ++half) {
        A::multiply(before[half], last, v[0], v[1], half);
        clear(w[half]);
        if constexpr (kWhole) A::multiply(w[half], down_columns[0], v[0], v[1], half);
      }
      if (i > 0) {
        const Rows first = A::rows(before[0]), second = A::rows(before[1]);
        Pack<float, 4> done = load<float, 4>(waiting), begun{};
        Right rows;
        load_words(down_rows + 32, rows);
        A::multiply(done.at, first, second, rows);
        load_words(down_rows, rows);
        A::multiply(begun.at, first, second, rows);
        store(waiting, begun);
        FASTGAN_UNROLL
        for (int h = 0; h < 2; ++h) {
          const unsigned pair = transposed(word_of<S>(done.at[2 * h], done.at[2 * h + 1]));
          if constexpr (kLast) *reinterpret_cast<unsigned*>(own_y + 16 * h) = pair;
          else if (left > 8 * h) words_at<uint1>(to + at + 8 * h)->x = pair;
        }
        at += kColumnsY, left -= kColumnsY, own_y += 2 * kColumnsY, waiting += 128;
      }
      if constexpr (kWhole) {
        activate(2);
        FASTGAN_UNROLL
        for (int half = 0; half < 2; ++half) {
          A::multiply(w[half], down_columns[1], v[0], v[1], half);
          FASTGAN_UNROLL
          for (int n = 0; n < 4; ++n) before[half][n] = w[half][n];
        }
        c = cs[K::tiles];
      }
      if constexpr (kPass == Pass::forward_and_mask) {
        FASTGAN_UNROLL
        for (int n = 0; n < 4; ++n) bits[n / 2][n % 2] <<= 2 * q;
        unsigned halves[2];
        FASTGAN_UNROLL
        for (int n = 0; n < 2; ++n) halves[n] = (q / 2 ? bits[1][n] : bits[0][n]) | __shfl_xor_sync(0xffffffffu, q / 2 ? bits[0][n] : bits[1][n], 2);
        const unsigned own = (kind ? halves[1] : halves[0]) | __shfl_xor_sync(0xffffffffu, kind ? halves[0] : halves[1], 1);
        // A strip owns the words that begin in it, and the last one the rest.
        if (word < words && (kWhole || last_strip)) bits_of_plane[first_word + word] = 32 * (word + 1) > p.h.t ? own & ((1u << p.h.t % 32) - 1) : own;
        ++word;
      }
    };
    clear(before[0]), clear(before[1]);
    for (int i = 0; i < p.turns; ++i) turn(i, std::true_type());
    turn(p.turns, std::false_type());
  }
  if constexpr (kLast) {
    __syncthreads();
    give_pixels(p.steps);
  }
}

template <Pass kPass, class S, int kUp, bool kLast>
void run(const Tensor& x, const Tensor* b, const Tensor& fu, const Tensor& fd, Tensor& y, uint32_t* mask, const Axis& ax, const Axis& ay, double gain,
         double slope, double clamp, bool flip) {
  using K = Shape<kUp, kLast>;
  Plan p;
  p.x_sample = x.stride(0), p.x_channel = x.stride(1), p.x_row = x.stride(2);
  p.channels = x.size(1), p.mask_words = ceil_div<int64_t>(ax.t, 32), p.flip = flip;
  const auto side = [](const Axis& a, int unit) {
    Plan::Side side{};
    side.x = a.x, side.t = a.t, side.y = a.y, side.t_first = -a.shift;
    side.x_first = floor_div<int>(-floor_div<int>(a.before - side.t_first, kUp), unit) * unit;
    side.phase = kUp * side.x_first - side.t_first + a.before;
    return side;
  };
  p.h = side(ax, 2), p.v = side(ay, 1);
  const int columns = ceil_div(p.h.y, kColumnsY);
  p.strips = ceil_div(columns, kMostTurns[kLast]), p.turns = ceil_div(columns, p.strips);
  // Rows enough that a piece's first step, which finishes nothing, weighs little, but warps enough for all multiprocessors.
  const int64_t planes = x.size(0) * x.size(1) * p.strips;
  p.steps = ceil_div(p.v.y, kRowsY);
  while (p.steps >= 2 * kLeastSteps && planes * ceil_div(ceil_div(p.v.y, kRowsY), p.steps) < 2 * 16 * 132) p.steps = ceil_div(p.steps, 2);
  p.pieces = ceil_div(ceil_div(p.v.y, kRowsY), p.steps);
  p.warps = planes * p.pieces;
  // Rows of an odd number of 16 bytes: 8 of them meet no bank twice.
  p.groups = ceil_div(K::tiles * p.turns + 2, 4), p.pitch = p.groups * 64 + 16;
  p.ring_bytes = K::ring * p.pitch, p.warp_bytes = p.ring_bytes + p.turns * 128 * sizeof(float);
  const int pairs = 4 * (K::tiles * p.turns + 2);
  const PixelPlan pixels{.x_pixel = x.stride(3),
                         .octets = ceil_div(p.channels, kOctet),
                         .pairs = pairs,
                         .waiting_bytes = ceil_div(K::rows_x * pairs, kOctetThreads) * kPair,
                         .y_pitch = p.turns * 2 * kColumnsY + 16,
                         .whole_x = whole_pixels(x),
                         .whole_y = whole_pixels(y)};
  const float limit = clamp >= 0 ? static_cast<float>(clamp) : kPass == Pass::forward ? kInfinity : std::numeric_limits<float>::quiet_NaN();
  constexpr int kWarps = kWarpsOf[kLast];
  const int blocks = kLast ? pixels.octets * x.size(0) * p.strips * p.pieces : ceil_div(p.warps, kWarps);
  const size_t bytes = kTables + kWarps * p.warp_bytes + (kLast ? sizeof(Common<S>) + pixels.waiting_bytes + kOctet * kRowsY * pixels.y_pitch : 0);
  launch("filtered_lrelu", x, dim3(blocks), dim3(32 * kWarps), bytes, mma_kernel<kPass, S, kUp, kLast>, pointer<S>(x), b ? pointer<S>(*b) : nullptr,
         pointer<float>(fu), pointer<float>(fd), mutable_pointer<S>(y), mask, static_cast<float>(gain), static_cast<float>(slope), limit, p, pixels);
}

}  // namespace

bool multiply(Pass pass, const Tensor& x, const Tensor* b, const Tensor& fu, const Tensor& fd, Tensor& y, uint32_t* mask, const Axis& ax,
              const Axis& ay, double gain, double slope, double clamp, bool flip) {
  if (!is_short(ax) || !is_short(ay) || ax.y * ay.y >= kMost || (ax.t + 32) * ay.t >= 8 * kMost) return false;  // of a plane
  const auto type = x.scalar_type();
  const bool half = type == torch::headeronly::ScalarType::Half;
  if (!half && type != torch::headeronly::ScalarType::BFloat16) return false;
  if (fu.dim() != 1 || fd.dim() != 1 || fu.size(0) != kPhase * ax.up || ax.down != kDown || fd.size(0) != kDownTaps) return false;
  const bool last = x.size(1) > 1 && x.stride(1) == 1 && y.stride(1) == 1;
  if (!last) {
    if (x.stride(3) != 1 || y.stride(3) != 1) return false;
    for (int64_t n : {y.size(3), x.size(3), x.stride(2), x.stride(1), x.stride(0), reinterpret_cast<intptr_t>(x.const_data_ptr()) / 2})
      if (n % 2) return false;  // pairs are loaded and stored
  }
  if (x.size(0) * x.size(1) * ceil_div<int64_t>(ax.y, 16) * ceil_div<int64_t>(ay.y, 8) >= INT32_MAX) return false;
  // The activation is the larger of t and slope t, and the gain is part of t.
  if (pass != Pass::masked && !(gain > 0 && slope <= 1)) return false;
  const auto with = [&](auto shape) {
    constexpr int kUp = decltype(shape)::value;
    const auto of = [&](auto element, auto layout) {
      using S = decltype(element);
      constexpr bool kLast = decltype(layout)::value;
      switch (pass) {
        case Pass::forward: return run<Pass::forward, S, kUp, kLast>(x, b, fu, fd, y, mask, ax, ay, gain, slope, clamp, flip);
        case Pass::forward_and_mask: return run<Pass::forward_and_mask, S, kUp, kLast>(x, b, fu, fd, y, mask, ax, ay, gain, slope, clamp, flip);
        case Pass::masked: return run<Pass::masked, S, kUp, kLast>(x, b, fu, fd, y, mask, ax, ay, gain, slope, clamp, flip);
      }
    };
    const auto of_type = [&](auto layout) { half ? of(Half(), layout) : of(BFloat16(), layout); };
    last ? of_type(std::true_type()) : of_type(std::false_type());
    return true;
  };
  if (ax.up == 2) return with(std::integral_constant<int, 2>());
  return ax.up == 4 && with(std::integral_constant<int, 4>());
}

}  // namespace fastgan::filtered
