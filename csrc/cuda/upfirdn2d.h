// What the forms of upfirdn2d on a GPU share: the numbers of an axis.
#pragma once

#include "cuda/launch.h"

namespace fastgan::resampled {

// One axis of a call, in samples of x and outputs: y[o] = sum_k h[k] x[(o down + k - before) / up] over integer indices.
struct Axis {
  int64_t in, out, taps, up, down, before;
};

// Runs the kernels of tensor cores (upfirdn2d_mma.cu) where there is one for this type, layout, factors and filters; else false.
bool multiply(const Tensor& x, const Tensor& f, const Tensor* fy, Tensor& y, const Axis& ax, const Axis& ay, double gain, bool flip);

// The same of separable filters of 12 taps (upfirdn2d_separable.cu).
bool multiply_separable(const Tensor& x, const Tensor& f, const Tensor* fy, Tensor& y, const Axis& ax, const Axis& ay, double gain, bool flip);

// Runs the streaming kernel (upfirdn2d_stream.cu) where there is one for these factors and filters; else false.
bool stream(const Tensor& x, const Tensor& f, const Tensor* fy, Tensor& y, const Axis& ax, const Axis& ay, double gain, bool flip);

}  // namespace fastgan::resampled
