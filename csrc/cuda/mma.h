// One product of a warp's tensor cores, sums in float32: d += a b with a [16][16], b [16][8], d [16][8], spread over the lanes.
//
// With g = lane / 4 and q = lane % 4, in words of two 16-bit elements (the first in the low half):
//
//   a[0], a[1]   rows g, g + 8; columns 2q, 2q + 1      b[0]         rows 2q, 2q + 1 of column g
//   a[2], a[3]   the same of columns + 8                b[1]         rows 2q + 8, 2q + 9
//   d[0], d[1]   row g, columns 2q, 2q + 1              d[2], d[3]   row g + 8
//
// So a d, made 16-bit, is half of an a: a second product needs no exchange. The layout is that of mma.m16n8k16 in NVIDIA's PTX ISA;
// products are exact, and the sum of them and d loses what is below 2^-24 of its largest term.
//
// The same with numbers of 11 bits and the range of float32 (TF32; what is below is cut off), a [16][8], b [8][8]: mma.m16n8k8. Its
// columns of a and rows of b are in an order in which a d is an a, or the two halves of a d each the transpose of a b, as it is:
//
//   a[0], a[1]   rows g, g + 8; column 2q               b[0], b[1]   rows 2q, 2q + 1 of column g
//   a[2], a[3]   the same of column 2q + 1
#pragma once

#include "cuda/launch.h"

namespace fastgan {

// S: BFloat16 or Half, of a and b.
template <class S>
__device__ __forceinline__ void multiply_add(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifdef FASTGAN_CUDA_EMULATION
  emulation::multiply_add(d, a, b, [](uint16_t bits) {
    S value;
    std::memcpy(&value, &bits, sizeof(S));
    return static_cast<float>(value);
  });
#else
  if constexpr (std::is_same_v<S, torch::headeronly::Half>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
#endif
}

__device__ __forceinline__ void multiply_add(float (&d)[4], const float (&a)[4], const float (&b)[2]) {
#ifdef FASTGAN_CUDA_EMULATION
  emulation::multiply_add(d, a, b);
#else
  unsigned words[6];
  memcpy(words, a, sizeof(a)), memcpy(words + 4, b, sizeof(b));
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3]), "r"(words[4]), "r"(words[5]));
#endif
}

// An a from shared memory: lane 8i + j gives the address of row j's 16 bytes of word i.
__device__ __forceinline__ void load_rows(const void* row, unsigned (&a)[4]) {
#ifdef FASTGAN_CUDA_EMULATION
  emulation::load_rows(row, a);
#else
  const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
               : "r"(at)
               : "memory");
#endif
}

// A word of one: the first eight lanes give the addresses.
__device__ __forceinline__ void load_rows(const void* row, unsigned& word) {
#ifdef FASTGAN_CUDA_EMULATION
  emulation::load_rows(row, word);
#else
  const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(word) : "r"(at) : "memory");
#endif
}

// A b from shared memory: lane 8i + j (of the first 16) gives the address of row 8i + j's 16 bytes.
__device__ __forceinline__ void load_columns(const void* row, unsigned (&b)[2]) {
#ifdef FASTGAN_CUDA_EMULATION
  emulation::load_columns(row, b);
#else
  const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];" : "=r"(b[0]), "=r"(b[1]) : "r"(at) : "memory");
#endif
}

// Two of them: lane 16n + 8i + j gives the address of row 8i + j of the nth.
__device__ __forceinline__ void load_columns(const void* row, unsigned (&b)[2][2]) {
#ifdef FASTGAN_CUDA_EMULATION
  emulation::load_columns(row, b);
#else
  const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(b[0][0]), "=r"(b[0][1]), "=r"(b[1][0]), "=r"(b[1][1])
               : "r"(at)
               : "memory");
#endif
}

// Of [8][8] numbers of 16 bits, of which a lane has row g, columns 2q and 2q + 1.
__device__ __forceinline__ unsigned transposed(unsigned word) {
#ifdef FASTGAN_CUDA_EMULATION
  return emulation::transposed(word);
#else
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %0;" : "+r"(word));
  return word;
#endif
}

// 16 bytes from global to shared memory, without a register; there once wait_for_copies returns, which waits for this lane's copies.
__device__ __forceinline__ void copy_async(void* to, const void* from) {
#ifdef FASTGAN_CUDA_EMULATION
  emulation::copy_async(to, from);
#else
  const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(__cvta_generic_to_global(from)) : "memory");
#endif
}

// The same of 4 bytes, or of 16, which do not stay in L1; or zeros.
template <int kBytes>
__device__ __forceinline__ void copy_or_zero(void* to, const void* from, bool there) {
#ifdef FASTGAN_CUDA_EMULATION
  emulation::copy_async(to, there ? from : nullptr, kBytes);
#else
  const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(to));
  if constexpr (kBytes == 16) asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(there ? 16 : 0) : "memory");
  else asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(at), "l"(from), "n"(kBytes), "r"(there ? kBytes : 0) : "memory");
#endif
}

__device__ __forceinline__ void wait_for_copies() {
#ifdef FASTGAN_CUDA_EMULATION
  emulation::wait_for_copies();
#else
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// Two numbers as a word. nvcc makes of two conversions that are needed as one word three instructions, one of a slow unit.
template <class S>
__device__ __forceinline__ unsigned word_of(float low, float high) {
  unsigned word;
#ifdef FASTGAN_CUDA_EMULATION
  const Pack<S, 2> pair{{static_cast<S>(low), static_cast<S>(high)}};
  memcpy(&word, &pair, sizeof(word));
#else
  if constexpr (std::is_same_v<S, torch::headeronly::Half>) asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  else asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
#endif
  return word;
}

template <class S>
__device__ __forceinline__ Pack<float, 2> numbers_of(unsigned word) {
  Pack<float, 2> numbers;
  if constexpr (std::is_same_v<S, torch::headeronly::Half>) {
    Pack<S, 2> pair;
    memcpy(&pair, &word, sizeof(word));
    numbers = {{static_cast<float>(pair.at[0]), static_cast<float>(pair.at[1])}};
  } else {
    const Pack<unsigned, 2> bits{{word << 16, word & 0xffff0000u}};
    memcpy(&numbers, &bits, sizeof(bits));
  }
  return numbers;
}

// Words whose numbers sum to low and high, the largest first: each leaves 2^-9 (BFloat16) or 2^-12 (Half) of what it is given.
template <class S, int N>
__device__ __forceinline__ void split(float low, float high, unsigned (&words)[N]) {
  FASTGAN_UNROLL
  for (int n = 0; n < N; ++n) {
    words[n] = word_of<S>(low, high);
    const Pack<float, 2> taken = numbers_of<S>(words[n]);
    low -= taken.at[0], high -= taken.at[1];
  }
}

}  // namespace fastgan
