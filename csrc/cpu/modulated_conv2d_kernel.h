// Loops of modulated_conv2d. Included once per instruction set by each_level.h.

#include "cpu/convert.h"

// q[r] = sum of squares of n rows of kTaps elements (0: of `taps`, known only now). With the number of taps known, the sum is
// unrolled, which makes 3x3 3.4 times faster than torch's square and sum.
template <int64_t kTaps, class S, class T>
void squares_of_rows(const S* w, T* q, int64_t n, int64_t taps) {
  if constexpr (kTaps > 0) {
#pragma omp simd
    for (int64_t r = 0; r < n; ++r) {
      T sum = 0;
#pragma GCC unroll 16
      for (int64_t j = 0; j < kTaps; ++j) {
        const T v = static_cast<T>(w[r * kTaps + j]);
        sum += v * v;
      }
      q[r] = sum;
    }
  } else {
    for (int64_t r = 0; r < n; ++r) {
      T sum = 0;
      for (int64_t j = 0; j < taps; ++j) sum += static_cast<T>(w[r * taps + j]) * static_cast<T>(w[r * taps + j]);
      q[r] = sum;
    }
  }
}

// modulated_activation. A row is pixels of one channel (NCHW), with one scale and one bias and a vector of noise, or channels of one
// pixel (kLast), with vectors of scales and biases and one noise: t = scale x + vector + number.
template <bool kLast, class T>
void forward(const T* x, const T* scale, const T* vector, T number, T* y, int64_t n, T alpha, T gain, T clamp) {
  const T scale0 = scale[0];
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const T t = x[i] * (kLast ? scale[i] : scale0) + (vector[i] + number);
    T v = gain * (t > T(0) ? t : t * alpha);
    v = v < -clamp ? -clamp : v;
    y[i] = v > clamp ? clamp : v;
  }
}

// dx = dt scale. Sums of dt are added to `vector` and `number`, sums of dt x to `scales`.
template <bool kLast, class T>
void backward(const T* dy, const T* y, const T* x, const T* scale, T* dx, T* scales, T* vector, T& number, int64_t n, T alpha, T gain, T clamp) {
  const T scale0 = scale[0], below = gain * alpha;
  T sum = 0, product = 0;
#pragma omp simd reduction(+ : sum, product)
  for (int64_t i = 0; i < n; ++i) {
    const T v = y[i], dt = (v < T(0) ? -v : v) >= clamp ? T(0) : dy[i] * (v > T(0) ? gain : below);
    dx[i] = dt * (kLast ? scale[i] : scale0);
    vector[i] += dt;
    sum += dt;
    if (kLast) scales[i] += dt * x[i];
    else product += dt * x[i];
  }
  number += sum;
  if (!kLast) scales[0] += product;
}

// `rows` rows of n <= kRow elements, `stride` apart; `numbers` are one for each.
template <bool kLast, class T>
void forward_rows(Elements<T> x, Elements<T> y, int64_t rows, int64_t stride, int64_t n, const T* scale, const T* vector, const T* numbers, T alpha,
                  T gain, T clamp) {
  T buffer[kRow];
  for (int64_t r = 0; r < rows; ++r, x = x + stride, y = y + stride, scale += !kLast) {
    const T* from = x.direct();
    if (!from) widen(x, buffer, n);
    forward<kLast>(from ? from : buffer, scale, vector, numbers[r], from ? y.direct() : buffer, n, alpha, gain, clamp);
    if (!from) narrow(buffer, y, n);
  }
}

template <bool kLast, class T>
void backward_rows(const Elements<T> (&read)[3], Elements<T> dx, int64_t rows, int64_t stride, int64_t n, const T* scale, T* scales, T* vector,
                   T* numbers, T alpha, T gain, T clamp) {
  T buffers[3][kRow];
  for (int64_t r = 0; r < rows; ++r, scale += !kLast, scales += !kLast) {
    const Elements<T> to = dx + r * stride;
    const T* from[3];
    for (int i = 0; i < 3; ++i) {
      const Elements<T> row = read[i] + r * stride;
      from[i] = row.direct() ? row.direct() : buffers[i];
      if (!row.direct()) widen(row, buffers[i], n);
    }
    T* result = to.direct() ? to.direct() : buffers[0];
    backward<kLast>(from[0], from[1], from[2], scale, result, scales, vector, numbers[r], n, alpha, gain, clamp);
    if (!to.direct()) narrow(buffers[0], to, n);
  }
}
