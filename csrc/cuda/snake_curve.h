// t + c sin^2(a t) of one channel, as csrc/snake.h makes it but with c in the polynomial: one multiplication less.
#pragma once

#include "activation.h"
#include "cuda/launch.h"

namespace fastgan::snaked {

// kDegree: of sin^2(pi f) / f^2 in f^2, by which sin^2 is within 5.3e-5 (3), 1.3e-6 (4) or 2e-7 (5) of itself.
template <int kDegree>
struct Curve {
  float turns, terms[kDegree + 1];

  __device__ __forceinline__ Curve(float a, float c) : turns(a * 0.318309886f) {  // 1 / pi
    constexpr float kTerms[3][6] = {{9.86908913f, -32.4143639f, 41.7167358f, -23.8721771f},
                                    {9.86959457f, -32.4679947f, 42.6786575f, -29.5957432f, 10.8608084f},
                                    {9.86960411f, -32.4696617f, 42.7269287f, -30.0985527f, 13.0371122f, -3.33621097f}};
    FASTGAN_UNROLL
    for (int k = 0; k <= kDegree; ++k) terms[k] = c * kTerms[kDegree - 3][k];
  }
  __device__ __forceinline__ float operator()(float t) const {
    const float u = t * turns, f = u - rint(u), square = f * f;
    float p = terms[kDegree];
    FASTGAN_UNROLL
    for (int k = kDegree - 1; k >= 0; --k) p = p * square + terms[k];
    return t + square * p;
  }
};

}  // namespace fastgan::snaked
