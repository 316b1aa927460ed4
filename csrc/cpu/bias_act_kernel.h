// Loops of bias_act on blocks of a dense tensor. Included once per instruction set by each_level.h.
//
// A block is `n` consecutive elements. Its bias is one number (channel outside the block: NCHW) or a vector of n numbers
// (channel inside: channels_last, linear layers). 16-bit types pass through float buffers of kBlock elements, so that one
// float loop serves three types.

constexpr int64_t kBlock = 512;

// y = clip(gain act(x + b)): one read, one write, 2 to 20 flops per element: bandwidth-bound for every activation in float32.
template <Activation A, bool kVectorBias, class T>
inline void forward_block(const T* x, const T* bias, T* y, int64_t n, T alpha, T gain, T clamp) {
  const T b0 = bias[0];
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    T v = gain * activate<A>(x[i] + (kVectorBias ? bias[i] : b0), alpha);
    v = v < -clamp ? -clamp : v;
    y[i] = v > clamp ? clamp : v;
  }
}

// dx = dy gain act'(s), dy counting as 0 where |y| >= clamp. `saved` is y, or x for swish, or null for an unclamped linear.
template <Activation A, bool kVectorBias, class T>
inline void backward_block(const T* dy, const T* saved, const T* bias, T* dx, int64_t n, T alpha, T gain, T clamp) {
  const T b0 = bias[0], inverse = T(1) / gain;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const T t = A == Activation::swish ? saved[i] + (kVectorBias ? bias[i] : b0) : saved[i] * inverse;
    const T y = A == Activation::swish ? gain * activate<A>(t, alpha) : saved[i];
    const T d = (y < T(0) ? -y : y) >= clamp ? T(0) : dy[i] * gain;
    dx[i] = times_derivative<A>(d, t, alpha);
  }
}

template <class T>
inline void scale_block(const T* dy, T* dx, int64_t n, T gain) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) dx[i] = dy[i] * gain;
}

template <class T>
inline double sum_block(const T* v, int64_t n) {
  T total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < n; ++i) total += v[i];
  return total;
}

#include "cpu/convert.h"

// One unit: n elements, whose pieces meet the same bias vector, or each the bias of the next channel.
template <Activation A, bool kVectorBias, class S, class T>
void forward_range(const S* x, const T* bias, int64_t channel, S* y, int64_t n, const Units& units, T alpha, T gain, T clamp) {
  for (int64_t start = 0; start < n; start += units.piece) {
    const int64_t size = std::min(units.piece, n - start);
    const T* b = bias + channel;
    if constexpr (std::is_same_v<S, T>) {
      forward_block<A, kVectorBias>(x + start, b, y + start, size, alpha, gain, clamp);
    } else {
      T buffer[kBlock];
      for (int64_t i = 0; i < size; i += kBlock) {
        const int64_t m = std::min(kBlock, size - i);
        widen(x + start + i, buffer, m);
        forward_block<A, kVectorBias>(buffer, b + (kVectorBias ? i : 0), buffer, m, alpha, gain, clamp);
        narrow(buffer, y + start + i, m);
      }
    }
    if (!kVectorBias && ++channel == units.channels) channel = 0;
  }
}

// The same for the backward; `sums` (null: not wanted) receives the bias gradient: a number per piece, or per element of a piece.
template <Activation A, bool kVectorBias, class S, class T>
void backward_range(const S* dy, const S* saved, const T* bias, int64_t channel, S* dx, T* sums, int64_t n, const Units& units,
                    T alpha, T gain, T clamp) {
  constexpr bool kDirect = std::is_same_v<S, T>;
  T dy_buffer[kBlock], saved_buffer[kBlock];
  for (int64_t start = 0; start < n; start += units.piece) {
    const int64_t size = std::min(units.piece, n - start);
    double total = 0;
    for (int64_t i = 0; i < size; i += kBlock) {
      const int64_t at = start + i, m = std::min(kBlock, size - i);
      const T *from, *with;
      T* to;
      if constexpr (kDirect) {
        from = dy + at, with = saved ? saved + at : nullptr, to = dx + at;
      } else {
        widen(dy + at, dy_buffer, m);
        if (saved) widen(saved + at, saved_buffer, m);
        from = to = dy_buffer, with = saved_buffer;
      }
      if (saved) backward_block<A, kVectorBias>(from, with, bias + channel + (kVectorBias ? i : 0), to, m, alpha, gain, clamp);
      else scale_block(from, to, m, gain);
      if (sums && !kVectorBias) total += sum_block(to, m);
      if (sums && kVectorBias)
        for (int64_t j = 0; j < m; ++j) sums[i + j] += to[j];
      if constexpr (!kDirect) narrow(to, dx + at, m);
    }
    if (sums && !kVectorBias) *sums++ = static_cast<T>(total);
    if (!kVectorBias && ++channel == units.channels) channel = 0;
  }
}
