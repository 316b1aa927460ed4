// What filtered_lrelu_mma.cu and upfirdn2d_separable.cu multiply: sums of float32 and filters, as numbers that tensor cores take.
//
// For a BFloat16 y they are numbers of TF32, for Half pairs of BFloat16; mma.h has which lane holds what.
#pragma once

#include "cuda/mma.h"

namespace fastgan::separable {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

using Sums = float[4];

__device__ __forceinline__ void clear(Sums& sums) {
  FASTGAN_UNROLL
  for (int i = 0; i < 4; ++i) sums[i] = 0;
}

// Filters and what they are multiplied with, as numbers of TF32. A sum that is cut is smaller by a third of its last bit, about: the
// filters make up for that.
struct Cut {
  static constexpr float kMean = 1 + 1.39f / 4096;
  struct Operand {  // as it is to the right of a product
    Sums at;
  };
  struct Rows {  // as it is to the left of one
    Sums at;
  };
  struct Left {  // [16][16], to the left of a product
    float at[2][4];
  };
  struct alignas(16) Right {  // [16][8]
    float at[2][2];
  };

  static __device__ __forceinline__ float rounded(float value) {
    unsigned bits;
    memcpy(&bits, &value, sizeof(bits));
    bits = (bits + 0x1000) & 0xffffe000u;
    memcpy(&value, &bits, sizeof(bits));
    return value;
  }
  template <class Tap>  // tap(row, column)
  static __device__ __forceinline__ Left left(const Tap& tap) {
    const int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    Left left;
    FASTGAN_UNROLL
    for (int i = 0; i < 8; ++i) left.at[i / 4][i % 4] = rounded(kMean * tap(g + i % 2 * 8, 2 * q + i / 2 % 2 + i / 4 * 8));
    return left;
  }
  template <class Tap>
  static __device__ __forceinline__ Right right(const Tap& tap) {
    const int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    Right right;
    FASTGAN_UNROLL
    for (int i = 0; i < 4; ++i) right.at[i / 2][i % 2] = rounded(kMean * tap(2 * q + i % 2 + i / 2 * 8, g));
    return right;
  }
  static __device__ __forceinline__ Operand operand(const Sums& sums) { return Operand{{sums[0], sums[1], sums[2], sums[3]}}; }
  static __device__ __forceinline__ Rows rows(const Sums& sums) {
    const Rows rows{{sums[0], sums[2], sums[1], sums[3]}};
    return rows;
  }
  // sums += [a b] f
  static __device__ __forceinline__ void multiply(Sums& sums, const Rows& a, const Rows& b, const Right& f) {
    multiply_add(sums, a.at, f.at[0]);
    multiply_add(sums, b.at, f.at[1]);
  }
  // sums += f [a b]^T, of rows 8 half and on of a and b
  static __device__ __forceinline__ void multiply(Sums& sums, const Left& f, const Operand& a, const Operand& b, int half) {
    const float first[2] = {a.at[2 * half], a.at[2 * half + 1]}, second[2] = {b.at[2 * half], b.at[2 * half + 1]};
    multiply_add(sums, f.at[0], first);
    multiply_add(sums, f.at[1], second);
  }
};

// The same as pairs of numbers of S.
template <class S>
struct Halved {
  struct Operand {
    unsigned at[2][2];  // [part][rows 8 and on]
  };
  using Rows = Operand;
  struct Left {
    unsigned at[2][4];
  };
  struct alignas(16) Right {
    unsigned at[2][2];
  };

  template <class Tap>
  static __device__ __forceinline__ Left left(const Tap& tap) {
    const int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    Left left;
    FASTGAN_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int row = g + i % 2 * 8, column = 2 * q + i / 2 * 8;
      unsigned parts[2];
      split<S>(tap(row, column), tap(row, column + 1), parts);
      left.at[0][i] = parts[0], left.at[1][i] = parts[1];
    }
    return left;
  }
  template <class Tap>
  static __device__ __forceinline__ Right right(const Tap& tap) {
    const int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    Right right;
    FASTGAN_UNROLL
    for (int i = 0; i < 2; ++i) {
      unsigned parts[2];
      split<S>(tap(2 * q + 8 * i, g), tap(2 * q + 8 * i + 1, g), parts);
      right.at[0][i] = parts[0], right.at[1][i] = parts[1];
    }
    return right;
  }
  static __device__ __forceinline__ Operand operand(const Sums& sums) {
    Operand operand;
    FASTGAN_UNROLL
    for (int i = 0; i < 2; ++i) {
      unsigned parts[2];
      split<S>(sums[2 * i], sums[2 * i + 1], parts);
      operand.at[0][i] = parts[0], operand.at[1][i] = parts[1];
    }
    return operand;
  }
  static __device__ __forceinline__ Rows rows(const Sums& sums) { return operand(sums); }
  static __device__ __forceinline__ void multiply(Sums& sums, const Rows& a, const Rows& b, const Right& f) {
    FASTGAN_UNROLL
    for (int n = 0; n < 3; ++n) {
      const int part = n == 0, of_f = n == 1;
      const unsigned words[4] = {a.at[part][0], a.at[part][1], b.at[part][0], b.at[part][1]};
      multiply_add<S>(sums, words, f.at[of_f]);
    }
  }
  static __device__ __forceinline__ void multiply(Sums& sums, const Left& f, const Operand& a, const Operand& b, int half) {
    FASTGAN_UNROLL
    for (int n = 0; n < 3; ++n) {
      const int part = n == 0, of_f = n == 1;
      const unsigned words[2] = {a.at[part][half], b.at[part][half]};
      multiply_add<S>(sums, f.at[of_f], words);
    }
  }
};

// A power of two for the filter that meets x, whose taps and zeros after them are at `taps`, and 1 over it: Half's largest tap comes to
// 2^12 or more, below 2^13. BFloat16 has the range of float.
template <class S>
__device__ __forceinline__ Pack<float, 2> scale_of(const volatile float* taps) {
  Pack<float, 2> scale{{1, 1}};
  if constexpr (std::is_same_v<S, Half>) {
    float largest = fabsf(taps[threadIdx.x % 32]);
    FASTGAN_UNROLL
    for (int distance = 16; distance > 0; distance /= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, distance));
    unsigned exponent;
    memcpy(&exponent, &largest, sizeof(exponent));
    exponent = smaller(253u, 2 * 127 + 12 - (exponent >> 23));
    const unsigned both[2] = {exponent << 23, (2 * 127 - exponent) << 23};
    memcpy(&scale, both, sizeof(scale));
  }
  return scale;
}

// 16 bytes of shared memory.
template <class Words>
__device__ __forceinline__ void load_words(const void* from, Words& words) {
  static_assert(sizeof(words) == 16);
  const Pack<unsigned, 4> pack = load<unsigned, 4>(static_cast<const unsigned*>(from));
  memcpy(&words, &pack, sizeof(words));
}

template <class S>
using Arithmetic = std::conditional_t<std::is_same_v<S, Half>, Halved<BFloat16>, Cut>;

}  // namespace fastgan::separable
