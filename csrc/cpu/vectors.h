// Vectors of numbers, the widest that the instruction set has. Included inside a namespace, once per instruction set: no include
// guard.

#if defined(FASTGAN_AVX512)
constexpr int kBytes = 64;
#elif defined(FASTGAN_AVX2)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif

template <class T>
constexpr int kLanes = kBytes / sizeof(T);

template <class T, int kSize = kBytes>
struct Vector {
  typedef T type __attribute__((vector_size(kSize)));
  typedef std::conditional_t<sizeof(T) == 8, int64_t, int32_t> integers __attribute__((vector_size(kSize)));
};
template <class T>
using vector_t = typename Vector<T>::type;
template <class T>
using integers_t = typename Vector<T>::integers;

// V: a vector, or one number where the channels that are left do not fill one.
template <class V, class T>
inline V load(const T* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
template <class V, class T>
inline void store(T* to, V v) {
  std::memcpy(to, &v, sizeof v);
}
// Has a vector that is used twice be loaded once: GCC 12 would make a load of each use, of which an AVX2 machine does as few in a cycle
// as of multiply-adds.
template <class V>
inline __attribute__((always_inline)) void in_register([[maybe_unused]] V& v) {
#if defined(FASTGAN_AVX2)
  asm("" : "+x"(v));
#endif
}
template <class T>
inline vector_t<T> splat(T value) {
  return value - vector_t<T>{};
}

// v, times `below` where not above zero. below = 0 is ReLU: 0 at -infinity, where the product is NaN.
template <class V>
inline __attribute__((always_inline)) V sloped(V v, V below) {
  const V less = ((v <= 0) & (below == 0)) ? V{} : v * below;
  return v > 0 ? v : less;
}

// The numbers of a, and of b after them, at `places`. clang shuffles by constants alone.
template <class V, class I>
inline __attribute__((always_inline)) V shuffle(V a, V b, I places) {
#if defined(__clang__)
  constexpr int n = sizeof(I) / sizeof(places[0]);
  V y;
  for (int k = 0; k < n; ++k) y[k] = places[k] < n ? a[places[k]] : b[places[k] - n];
  return y;
#else
  return __builtin_shuffle(a, b, places);
#endif
}

// a > b ? a : b and a < b ? a : b: b where one is NaN. GCC 12 makes compares and blends of the operators, not these.
template <class T>
inline vector_t<T> larger(vector_t<T> a, vector_t<T> b) {
#if defined(FASTGAN_AVX512)
  return _mm512_max_ps(a, b);
#elif defined(FASTGAN_AVX2)
  if constexpr (std::is_same_v<T, float>) return _mm256_max_ps(a, b);
  else return _mm256_max_pd(a, b);
#else
  return a > b ? a : b;
#endif
}

template <class T>
inline vector_t<T> smaller(vector_t<T> a, vector_t<T> b) {
#if defined(FASTGAN_AVX512)
  return _mm512_min_ps(a, b);
#elif defined(FASTGAN_AVX2)
  if constexpr (std::is_same_v<T, float>) return _mm256_min_ps(a, b);
  else return _mm256_min_pd(a, b);
#else
  return a < b ? a : b;
#endif
}
