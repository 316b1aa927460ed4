// Weighted sums of rows: all the arithmetic of upfirdn2d but what is done across. Included inside a namespace by
// upfirdn2d_kernel.h, once per instruction set: no include guard.

constexpr int kDirect = 12;  // rows that one pass adds up: their weights and the sum stay in registers

template <int kRows, bool kAdd, class T>
void combine_rows(T* __restrict to, const T* const* rows, const T* weights, int64_t n) {
  constexpr int64_t kStep = 64 / sizeof(T);
  const T* r[kRows];
  T w[kRows];
  for (int j = 0; j < kRows; ++j) r[j] = rows[j], w[j] = weights[j];
  const auto range = [&](int64_t i, int64_t end) {
#pragma omp simd
    for (int64_t k = i; k < end; ++k) {
      T sum = kAdd ? to[k] + w[0] * r[0][k] : w[0] * r[0][k];
      for (int j = 1; j < kRows; ++j) sum += w[j] * r[j][k];
      to[k] = sum;
    }
  };
  const int64_t whole = n / kStep * kStep;
  range(0, whole);
  if (whole == n) return;
  // The last vector overlaps the one before: no scalar tail.
  if (!kAdd && whole > 0) range(n - kStep, n - kStep + kStep);
  else range(whole, n);
}

// to[0, n) = sum of weights[j] rows[j][0, n); `to` is none of the rows.
template <class T>
void combine(T* to, const T* const* rows, const T* weights, int64_t count, int64_t n) {
  using Pass = void (*)(T*, const T* const*, const T*, int64_t);
  static constexpr Pass first[kDirect] = {combine_rows<1, false, T>,  combine_rows<2, false, T>,  combine_rows<3, false, T>,
                                          combine_rows<4, false, T>,  combine_rows<5, false, T>,  combine_rows<6, false, T>,
                                          combine_rows<7, false, T>,  combine_rows<8, false, T>,  combine_rows<9, false, T>,
                                          combine_rows<10, false, T>, combine_rows<11, false, T>, combine_rows<12, false, T>};
  if (count == 0) std::fill(to, to + n, T(0));
  else first[std::min<int64_t>(count, kDirect) - 1](to, rows, weights, n);
  int64_t j = kDirect;
  for (; j + 4 <= count; j += 4) combine_rows<4, true, T>(to, rows + j, weights + j, n);
  for (; j < count; ++j) combine_rows<1, true, T>(to, rows + j, weights + j, n);
}
