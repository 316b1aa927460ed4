// What the two forms of filtered_lrelu on a GPU share: the three passes and the numbers of an axis.
#pragma once

#include "cuda/launch.h"

namespace fastgan::filtered {

enum class Pass { forward, forward_and_mask, masked };

// One axis: t[m] meets x from (m - before) / up on, y[o] meets t from o down - shift on.
struct Axis {
  int64_t x, t, y, up_taps, down_taps, up, down, before, shift;
};

// Whether places along an axis, up to 32 times as many, are 32-bit numbers.
constexpr int64_t kMost = 1 << 26;
inline bool is_short(const Axis& a) {
  for (int64_t n : {a.x, a.t, a.y, a.before, -a.before, a.shift, -a.shift})
    if (n >= kMost) return false;
  return true;
}

template <class T>
struct Act {
  T positive, negative, clamp;  // factors of t; clamp NaN: none, every comparison with it is false
};

// Into [-limit, limit]; NaN stays NaN.
__device__ __forceinline__ float limited(float value, float limit) {
#ifdef FASTGAN_CUDA_EMULATION
  return value > limit ? limit : value < -limit ? -limit : value;
#else
  asm("min.NaN.f32 %0, %0, %1;" : "+f"(value) : "f"(limit));
  asm("max.NaN.f32 %0, %0, %1;" : "+f"(value) : "f"(-limit));
  return value;
#endif
}

// Runs the kernel of tensor cores (filtered_lrelu_mma.cu) where there is one for these factors, filters and types; else false.
bool multiply(Pass pass, const Tensor& x, const Tensor* b, const Tensor& fu, const Tensor& fd, Tensor& y, uint32_t* mask, const Axis& ax,
              const Axis& ay, double gain, double slope, double clamp, bool flip);

// Runs the streaming kernel (filtered_lrelu_stream.cu) where there is one for these factors and filters; else false.
bool stream(Pass pass, const Tensor& x, const Tensor* b, const Tensor& fu, const Tensor& fd, Tensor& y, uint32_t* mask, const Axis& ax,
            const Axis& ay, double gain, double slope, double clamp, bool flip);

}  // namespace fastgan::filtered
