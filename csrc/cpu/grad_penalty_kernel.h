// Loops of grad_penalty on n consecutive elements. Included once per instruction set by each_level.h.
#include "cpu/convert.h"

constexpr int64_t kPiece = 512;  // elements of a 16-bit type that are widened at a time

// Sum of squares. 64 partial sums: four vectors of AVX-512 in flight, since one alone waits four cycles for each addition.
template <class T>
inline double squares(const T* x, int64_t n) {
  T partial[64] = {};
  int64_t i = 0;
  for (; i + 64 <= n; i += 64)
#pragma omp simd
    for (int64_t j = 0; j < 64; ++j) partial[j] += x[i + j] * x[i + j];
  double total = 0;
  for (; i < n; ++i) total += double(x[i]) * double(x[i]);
  for (const T value : partial) total += value;
  return total;
}

template <class T>
double sum_of_squares(Elements<T> x, int64_t n) {
  if (x.direct()) return squares(x.direct(), n);
  T buffer[kPiece];
  double total = 0;
  for (int64_t i = 0; i < n; i += kPiece) {
    const int64_t m = std::min(kPiece, n - i);
    widen(x + i, buffer, m);
    total += squares(buffer, m);
  }
  return total;
}

template <class T>
inline void scale_row(const T* x, T* y, int64_t n, T factor) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * factor;
}

// y = factor x
template <class T>
void scale(Elements<T> x, Elements<T> y, int64_t n, T factor) {
  if (x.direct()) return scale_row(x.direct(), y.direct(), n, factor);
  T buffer[kPiece];
  for (int64_t i = 0; i < n; i += kPiece) {
    const int64_t m = std::min(kPiece, n - i);
    widen(x + i, buffer, m);
    scale_row(buffer, buffer, m, factor);
    narrow(buffer, y + i, m);
  }
}
