// Loops of modulated_conv2d. Included once per instruction set by each_level.h.

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
