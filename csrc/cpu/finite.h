// Whether numbers are finite. Included inside a namespace, once per instruction set: no include guard.

// The exponent of an infinity or a NaN is all ones: as integers, without their sign, they are the largest. A sum would wait for each
// addition.
template <class T>
inline bool finite(const T* from, int64_t n) {
  using Bits = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;
  const T infinity = std::numeric_limits<T>::infinity();
  Bits most = 0, limit;
  std::memcpy(&limit, &infinity, sizeof limit);
#pragma omp simd reduction(max : most)
  for (int64_t i = 0; i < n; ++i) {
    Bits bits;
    std::memcpy(&bits, from + i, sizeof bits);
    bits &= std::numeric_limits<Bits>::max();
    most = bits > most ? bits : most;
  }
  return most < limit;
}
