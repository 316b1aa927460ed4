// The activations of bias_act and norm_act, host and device. A derivative is written in s, what the backward is given: the output
// u = act(t) (before gain), or the input t of an activation whose output does not determine it (kSavesInput, in Python
// `saves_input` of fastgan/ops/bias_act.py).
//
//   activation   act(t)                        act'(t) in s               s
//   linear       t                             1                          u
//   relu         max(t, 0)                     u <= 0 ? 0 : 1             u
//   lrelu        t > 0 ? t : alpha t           u > 0 ? 1 : alpha          u   (alpha >= 0)
//   tanh         tanh t                        1 - u^2                    u
//   sigmoid      1 / (1 + e^-t)                u (1 - u)                  u
//   elu          t > 0 ? t : e^t - 1           u > 0 ? 1 : u + 1          u
//   selu         S (t > 0 ? t : A (e^t - 1))   u > 0 ? S : u + S A        u
//   softplus     t > 20 ? t : log(1 + e^t)     u > 20 ? 1 : 1 - e^-u      u
//   swish        t sigmoid(t)                  sg (1 + t (1 - sg))        t
//
// At NaN each is what torch's own derivative is there.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <optional>
#include <type_traits>

#if defined(__CUDACC__)
#define FASTGAN_HD __host__ __device__ __forceinline__
#else
#define FASTGAN_HD inline __attribute__((always_inline))
#endif

namespace fastgan {

enum class Activation { linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus, swish };

template <Activation A>
constexpr bool kSavesInput = A == Activation::swish;

constexpr double kSeluScale = 1.0507009873554805;
constexpr double kSeluAlpha = 1.6732632423543772;

// e^x = 2^n (1 + q) for x <= 0, with x = n ln 2 + r, |r| <= ln 2 / 2 and q = e^r - 1 as a polynomial (minimax degree 7, under
// 1 ulp): straight-line float code that a compiler vectorises, where std::exp is one call per element.
FASTGAN_HD void exp_parts(float x, float& scale, float& q) {
  x = x < -87.0f ? -87.0f : x;
  const float shifted = x * 1.44269504f + 12582912.0f;  // adding 1.5 * 2^23 rounds to the nearest integer
  const float n = shifted - 12582912.0f;
  float r = x - n * 0.693145752f;
  r = r - n * 1.42860677e-6f;
  float p = 1.98756912e-4f;
  p = p * r + 1.39819994e-3f;
  p = p * r + 8.33345186e-3f;
  p = p * r + 4.16657962e-2f;
  p = p * r + 1.66666657e-1f;
  p = p * r + 0.5f;
  q = p * r * r + r;
  int32_t bits;
  std::memcpy(&bits, &shifted, 4);
  bits = (bits + 127) << 23;  // the low bits of `shifted` are n
  std::memcpy(&scale, &bits, 4);
}

template <class T>
FASTGAN_HD T exp_nonpositive(T x) {
  if constexpr (std::is_same_v<T, float>) {
    float scale, q;
    exp_parts(x, scale, q);
    return x < -87.0f ? 0.0f : scale + scale * q;
  } else {
    return std::exp(x);
  }
}

template <class T>
FASTGAN_HD T expm1_nonpositive(T x) {
  if constexpr (std::is_same_v<T, float>) {
    float scale, q;
    exp_parts(x, scale, q);
    return scale * q + (scale - 1.0f);
  } else {
    return std::expm1(x);
  }
}

// log(1 + z) for z in [0, 1]: 2 artanh(s), s = z / (2 + z) <= 1/3; the first term left out is below 2e-9 of the result.
template <class T>
FASTGAN_HD T log1p_unit(T z) {
  if constexpr (std::is_same_v<T, float>) {
    const float s = z / (2.0f + z), s2 = s * s;
    float p = 1.0f / 15.0f;
    p = p * s2 + 1.0f / 13.0f;
    p = p * s2 + 1.0f / 11.0f;
    p = p * s2 + 1.0f / 9.0f;
    p = p * s2 + 1.0f / 7.0f;
    p = p * s2 + 1.0f / 5.0f;
    p = p * s2 + 1.0f / 3.0f;
    return 2.0f * (s + s * s2 * p);
  } else {
    return std::log1p(z);
  }
}

template <class T>
FASTGAN_HD T sigmoid(T t) {
  const T e = exp_nonpositive(t > T(0) ? -t : t);
  return (t > T(0) ? T(1) : e) / (T(1) + e);
}

template <Activation A, class T>
FASTGAN_HD T activate(T t, T alpha) {
  if constexpr (A == Activation::relu) return t <= T(0) ? T(0) : t;
  if constexpr (A == Activation::lrelu) return t > T(0) ? t : t * alpha;
  if constexpr (A == Activation::tanh) {
    if constexpr (!std::is_same_v<T, float>) return std::tanh(t);
    const T em1 = expm1_nonpositive(t > T(0) ? T(-2) * t : T(2) * t);
    const T u = em1 / (em1 + T(2));
    return t > T(0) ? -u : u;
  }
  if constexpr (A == Activation::sigmoid) return sigmoid(t);
  if constexpr (A == Activation::elu) return t > T(0) ? t : expm1_nonpositive(t > T(0) ? T(0) : t);
  if constexpr (A == Activation::selu) return t > T(0) ? T(kSeluScale) * t : T(kSeluScale * kSeluAlpha) * expm1_nonpositive(t > T(0) ? T(0) : t);
  if constexpr (A == Activation::softplus) {
    const T y = (t > T(0) ? t : T(0)) + log1p_unit(exp_nonpositive(t > T(0) ? -t : t));
    return t > T(20) ? t : y;
  }
  if constexpr (A == Activation::swish) return t * sigmoid(t);
  return t;
}

template <Activation A, class T>
FASTGAN_HD T derivative(T s, T alpha) {
  if constexpr (A == Activation::relu) return s <= T(0) ? T(0) : T(1);
  if constexpr (A == Activation::lrelu) return s > T(0) ? T(1) : alpha;
  if constexpr (A == Activation::tanh) return T(1) - s * s;
  if constexpr (A == Activation::sigmoid) return s * (T(1) - s);
  if constexpr (A == Activation::elu) return s > T(0) ? T(1) : s + T(1);
  if constexpr (A == Activation::selu) return s > T(0) ? T(kSeluScale) : s + T(kSeluScale * kSeluAlpha);
  if constexpr (A == Activation::softplus) return s > T(20) ? T(1) : -expm1_nonpositive(-s);
  if constexpr (A == Activation::swish) {
    const T sg = sigmoid(s);
    return sg * (T(1) + s * (T(1) - sg));
  }
  return T(1);
}

// v act'(t); 0 where relu is off, whatever v is: not NaN where it is infinite.
template <Activation A, class T>
FASTGAN_HD T times_derivative(T v, T s, T alpha) {
  if constexpr (A == Activation::relu) return s <= T(0) ? T(0) : v;
  else return v * derivative<A>(s, alpha);
}

constexpr const char* kActivationNames[] = {"linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish"};
constexpr int kActivations = std::size(kActivationNames);

inline std::optional<Activation> activation_named(const char* name) {
  for (int i = 0; i < kActivations; ++i)
    if (!std::strcmp(name, kActivationNames[i])) return static_cast<Activation>(i);
  return std::nullopt;
}

}  // namespace fastgan
