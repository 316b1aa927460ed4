// Whether numbers are finite. Included inside a namespace, once per instruction set: no include guard.

// Infinities and NaN times 0 are NaN.
template <class T>
inline bool finite(const T* from, int64_t n) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += T(0) * from[i];
  return sum == 0;
}
