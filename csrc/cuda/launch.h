// What every CUDA kernel uses: the launch, 128-bit memory accesses, shared memory, sums over a warp. The same source is compiled
// by nvcc for GPUs and by g++ against tests/cuda_emulation/cuda_runtime.h for CPU tensors.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "check.h"

#ifndef FASTGAN_NAMESPACE
#define FASTGAN_NAMESPACE fastgan
#define FASTGAN_DISPATCH_KEY CUDA
#endif

#ifdef FASTGAN_CUDA_EMULATION
#define FASTGAN_UNROLL
#define FASTGAN_NO_UNROLL
#else
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/headeronly/util/shim_utils.h>
#define FASTGAN_UNROLL _Pragma("unroll")
#define FASTGAN_NO_UNROLL _Pragma("unroll 1")
#endif

namespace fastgan {

template <class T>
__host__ __device__ constexpr T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

// Rounds towards minus infinity; b > 0.
template <class T>
__host__ __device__ constexpr T floor_div(T a, T b) {
  return a >= 0 ? a / b : -((b - 1 - a) / b);
}

template <class T>
__host__ __device__ constexpr T smaller(T a, T b) {
  return a < b ? a : b;
}

template <class T>
__host__ __device__ constexpr T larger(T a, T b) {
  return a > b ? a : b;
}

// How many elements of S a 128-bit access moves.
template <class S>
constexpr int kPack = 16 / sizeof(S);

template <class S, int N>
struct alignas(N * sizeof(S) < 16 ? N * sizeof(S) : 16) Pack {
  S at[N];
};

// The widest access that divides `bytes`.
template <size_t bytes>
using Word = std::conditional_t<bytes % 16 == 0, uint4, std::conditional_t<bytes % 8 == 0, uint2, uint1>>;

// Where words begin. A GPU ends a kernel that reads one at another address than a multiple of its size; the emulation says so.
template <class W, class S>
__device__ __forceinline__ auto* words_at(S* at) {
#ifdef FASTGAN_CUDA_EMULATION
  emulation::check_alignment(at, sizeof(W));
#endif
  return reinterpret_cast<std::conditional_t<std::is_const_v<S>, const W, W>*>(at);
}

// N consecutive elements in the widest accesses; `from` is aligned to one.
template <class S, int N>
__device__ __forceinline__ Pack<S, N> load(const S* from) {
  Pack<S, N> pack;
  if constexpr (N > 1 && sizeof(pack) % 4 == 0) {
    using W = Word<sizeof(pack)>;
    W words[sizeof(pack) / sizeof(W)];
    FASTGAN_UNROLL
    for (size_t i = 0; i < sizeof(pack) / sizeof(W); ++i) words[i] = words_at<W>(from)[i];
    memcpy(&pack, words, sizeof(pack));
  } else {
    FASTGAN_UNROLL
    for (int i = 0; i < N; ++i) pack.at[i] = from[i];
  }
  return pack;
}

template <class S, int N>
__device__ __forceinline__ void store(S* to, const Pack<S, N>& pack) {
  if constexpr (N > 1 && sizeof(pack) % 4 == 0) {
    using W = Word<sizeof(pack)>;
    W words[sizeof(pack) / sizeof(W)];
    memcpy(words, &pack, sizeof(pack));
    FASTGAN_UNROLL
    for (size_t i = 0; i < sizeof(pack) / sizeof(W); ++i) words_at<W>(to)[i] = words[i];
  } else {
    FASTGAN_UNROLL
    for (int i = 0; i < N; ++i) to[i] = pack.at[i];
  }
}

inline bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// Whether every row of a tensor [N, C, H, W] is a whole number of aligned 128-bit packs.
template <class S>
bool whole_packs(const Tensor& t) {
  const int64_t n = kPack<S>;
  return t.stride(3) == 1 && aligned(t.const_data_ptr()) && t.size(3) % n == 0 && t.stride(2) % n == 0 && t.stride(1) % n == 0 &&
         t.stride(0) % n == 0;
}

// The dynamic shared memory of the block, aligned to 16 bytes.
__device__ __forceinline__ unsigned char* shared_memory() {
#ifdef FASTGAN_CUDA_EMULATION
  return emulation::shared;
#else
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
#endif
}

// The sum over the 32 lanes of a warp, in every lane, in an order that does not depend on timing.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
  FASTGAN_UNROLL
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

inline cudaStream_t current_stream(const Tensor& x) {
#ifdef FASTGAN_CUDA_EMULATION
  (void)x;
  return nullptr;
#else
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
#endif
}

// Makes the device of x current while it lives.
#ifdef FASTGAN_CUDA_EMULATION
struct OnDeviceOf {
  explicit OnDeviceOf(const Tensor&) {}
};
#else
struct OnDeviceOf {
  explicit OnDeviceOf(const Tensor& x) : guard(x.get_device_index()) {}
  torch::stable::accelerator::DeviceGuard guard;
};
#endif

// `x`, and each of the others that is there, on one device of the kind this was compiled for: the dispatcher looks at one argument.
template <class... Others>
void check_device(const Tensor& x, const Others&... others) {
#ifdef FASTGAN_CUDA_EMULATION
  FASTGAN_CHECK(x.is_cpu(), "a tensor is not on the CPU, expected all of them there");
#else
  FASTGAN_CHECK(x.is_cuda(), "a tensor is not on a CUDA device, expected all of them on one");
#endif
  const auto check = [&](const Tensor& t) {
    FASTGAN_CHECK(t.device() == x.device(), "a tensor is on another device than the input, expected all of them on one");
  };
  const auto check_if_there = [&](const auto& t) {
    if constexpr (std::is_same_v<std::decay_t<decltype(t)>, Tensor>) check(t);
    else if (t) check(*t);
  };
  (check_if_there(others), ...);
}

// A failed launch is one exception: without cudaGetLastError the runtime would hand it to torch's next check too.
inline void check_launch(cudaError_t error, const char* name, dim3 grid, dim3 block, size_t shared_bytes) {
  if (error == cudaSuccess) return;
  cudaGetLastError();
  FASTGAN_CHECK(false, name, ": ", cudaGetErrorString(error), " (", grid.x, " blocks of ", block.x, " threads with ", shared_bytes,
                " bytes of shared memory)");
}

// kernel(arguments...) on the current stream of the device of x. More than the default 48 KiB of shared memory are asked for.
template <class... Expected, class... Given>
void launch(const char* name, const Tensor& x, dim3 grid, dim3 block, size_t shared_bytes, void (*kernel)(Expected...), Given&&... arguments) {
  const auto check = [&](cudaError_t error) { check_launch(error, name, grid, block, shared_bytes); };
  if (shared_bytes > 48 * 1024)
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)));
  cudaLaunchConfig_t config = {};
  config.gridDim = grid, config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = current_stream(x);
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Given>(arguments)...));
}

}  // namespace fastgan
