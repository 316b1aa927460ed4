// One vector of filtered_lrelu, and the bits that go with it. Included inside a namespace by filtered_lrelu_kernel.h, once per
// instruction set: no include guard.

#include "cpu/vector_bytes.h"

template <class T>
struct Lanes;
template <>
struct Lanes<float> {
  typedef float vector __attribute__((vector_size(kBytes)));
  typedef float loose __attribute__((vector_size(kBytes), aligned(4), may_alias));
  typedef int32_t integers __attribute__((vector_size(kBytes)));
};
template <>
struct Lanes<double> {
  typedef double vector __attribute__((vector_size(kBytes)));
  typedef double loose __attribute__((vector_size(kBytes), aligned(8), may_alias));
  typedef int64_t integers __attribute__((vector_size(kBytes)));
};

template <class T>
inline typename Lanes<T>::vector load(const T* p) { return *reinterpret_cast<const typename Lanes<T>::loose*>(p); }
template <class T>
inline void store(T* p, typename Lanes<T>::vector v) { *reinterpret_cast<typename Lanes<T>::loose*>(p) = v; }
template <class T>
inline typename Lanes<T>::vector splat(T value) { return value - typename Lanes<T>::vector{}; }

#if defined(FASTGAN_AVX512)
// Elements by .. by + lanes - 1 of the two vectors.
template <int by, class T>
inline typename Lanes<T>::vector shifted(typename Lanes<T>::vector low, typename Lanes<T>::vector high) {
  if constexpr (std::is_same_v<T, float>)
    return _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(high), _mm512_castps_si512(low), by));
  else
    return _mm512_castsi512_pd(_mm512_alignr_epi64(_mm512_castpd_si512(high), _mm512_castpd_si512(low), by));
}
#endif

// a > b ? a : b and a < b ? a : b: b where one is NaN. GCC 12 makes compares and blends of the operators, not these.
template <class T>
inline typename Lanes<T>::vector larger(typename Lanes<T>::vector a, typename Lanes<T>::vector b) {
#if defined(FASTGAN_AVX512)
  if constexpr (std::is_same_v<T, float>) return _mm512_max_ps(a, b);
  else return _mm512_max_pd(a, b);
#elif defined(FASTGAN_AVX2)
  if constexpr (std::is_same_v<T, float>) return _mm256_max_ps(a, b);
  else return _mm256_max_pd(a, b);
#else
  return a > b ? a : b;
#endif
}

template <class T>
inline typename Lanes<T>::vector smaller(typename Lanes<T>::vector a, typename Lanes<T>::vector b) {
#if defined(FASTGAN_AVX512)
  if constexpr (std::is_same_v<T, float>) return _mm512_min_ps(a, b);
  else return _mm512_min_pd(a, b);
#elif defined(FASTGAN_AVX2)
  if constexpr (std::is_same_v<T, float>) return _mm256_min_ps(a, b);
  else return _mm256_min_pd(a, b);
#else
  return a < b ? a : b;
#endif
}

// Lane i of the comparison in bit i.
template <class T>
inline uint32_t not_above_zero(typename Lanes<T>::vector t) {
#if defined(FASTGAN_AVX512)
  if constexpr (std::is_same_v<T, float>) return _mm512_cmp_ps_mask(t, _mm512_setzero_ps(), _CMP_NGT_UQ);
  else return _mm512_cmp_pd_mask(t, _mm512_setzero_pd(), _CMP_NGT_UQ);
#elif defined(FASTGAN_AVX2)
  if constexpr (std::is_same_v<T, float>) return _mm256_movemask_ps(_mm256_cmp_ps(t, _mm256_setzero_ps(), _CMP_NGT_UQ));
  else return _mm256_movemask_pd(_mm256_cmp_pd(t, _mm256_setzero_pd(), _CMP_NGT_UQ));
#else
  uint32_t bits = 0;
  for (int i = 0; i < kLanes<T>; ++i) bits |= uint32_t(!(t[i] > 0)) << i;
  return bits;
#endif
}

template <class T>
inline uint32_t reaches(typename Lanes<T>::vector v, typename Lanes<T>::vector limit) {
#if defined(FASTGAN_AVX512)
  if constexpr (std::is_same_v<T, float>) return _mm512_cmp_ps_mask(_mm512_abs_ps(v), limit, _CMP_GE_OQ);
  else return _mm512_cmp_pd_mask(_mm512_abs_pd(v), limit, _CMP_GE_OQ);
#elif defined(FASTGAN_AVX2)
  const typename Lanes<T>::vector size = v < 0 ? -v : v;
  if constexpr (std::is_same_v<T, float>) return _mm256_movemask_ps(_mm256_cmp_ps(size, limit, _CMP_GE_OQ));
  else return _mm256_movemask_pd(_mm256_cmp_pd(size, limit, _CMP_GE_OQ));
#else
  uint32_t bits = 0;
  for (int i = 0; i < kLanes<T>; ++i) bits |= uint32_t((v[i] < 0 ? -v[i] : v[i]) >= limit[i]) << i;
  return bits;
#endif
}

template <class T>
inline typename Lanes<T>::vector choose(uint32_t bits, typename Lanes<T>::vector yes, typename Lanes<T>::vector no) {
#if defined(FASTGAN_AVX512)
  if constexpr (std::is_same_v<T, float>) return _mm512_mask_blend_ps(bits, no, yes);
  else return _mm512_mask_blend_pd(bits, no, yes);
#else
  typename Lanes<T>::integers lane;
  for (int i = 0; i < kLanes<T>; ++i) lane[i] = 1 << i;
  return ((lane & static_cast<int>(bits)) != 0) ? yes : no;
#endif
}

// Bits of one vector that starts at element i; put needs the bytes to be zero before where a vector is less than a byte.
template <class T>
inline void put_bits(uint8_t* bytes, int64_t i, uint32_t bits) {
  if constexpr (kLanes<T> == 16) {
    const uint16_t two = static_cast<uint16_t>(bits);
    std::memcpy(bytes + i / 8, &two, 2);
  } else if constexpr (kLanes<T> == 8) {
    bytes[i / 8] = static_cast<uint8_t>(bits);
  } else {
    bytes[i / 8] |= static_cast<uint8_t>(bits << (i % 8));
  }
}

template <class T>
inline uint32_t get_bits(const uint8_t* bytes, int64_t i) {
  if constexpr (kLanes<T> == 16) {
    uint16_t two;
    std::memcpy(&two, bytes + i / 8, 2);
    return two;
  } else {
    return bytes[i / 8] >> (i % 8);
  }
}

// Bit i of a 64 / phases bit number to bit i * phases, and back.
template <int phases>
inline uint64_t spread(uint64_t bits) {
  if constexpr (phases == 1) return bits;
#if defined(FASTGAN_AVX2) || defined(FASTGAN_AVX512)
  return _pdep_u64(bits, phases == 2 ? 0x5555555555555555u : 0x1111111111111111u);
#else
  uint64_t result = 0;
  for (int64_t i = 0; i < 64 / phases; ++i) result |= ((bits >> i) & 1) << (i * phases);
  return result;
#endif
}

template <int phases>
inline uint64_t gather(uint64_t bits) {
  if constexpr (phases == 1) return bits;
#if defined(FASTGAN_AVX2) || defined(FASTGAN_AVX512)
  return _pext_u64(bits, phases == 2 ? 0x5555555555555555u : 0x1111111111111111u);
#else
  uint64_t result = 0;
  for (int64_t i = 0; i < 64 / phases; ++i) result |= ((bits >> (i * phases)) & 1) << i;
  return result;
#endif
}

// A row of the mask from its planes, `plane` bytes apart; a row is a whole number of 4 bytes. Bits from `width` on are 0.
template <int phases>
inline void mask_from_planes(const uint8_t* planes, int64_t plane, int64_t width, uint8_t* mask) {
  constexpr int64_t bytes = 8 / phases;
  for (int64_t w = 0; w * 64 < width; ++w) {
    uint64_t word = 0;
#pragma GCC unroll 4
    for (int r = 0; r < phases; ++r) {
      uint64_t bits = 0;
      std::memcpy(&bits, planes + r * plane + w * bytes, bytes);
      word |= spread<phases>(bits) << r;
    }
    const int64_t left = width - w * 64;
    if (left < 64) word &= (uint64_t{1} << left) - 1;
    if (left > 32) std::memcpy(mask + 8 * w, &word, 8);
    else std::memcpy(mask + 8 * w, &word, 4);
  }
}

template <int phases>
inline void planes_from_mask(const uint8_t* mask, int64_t plane, int64_t width, uint8_t* planes) {
  constexpr int64_t bytes = 8 / phases;
  for (int64_t w = 0; w * 64 < width; ++w) {
    uint64_t word = 0;
    if (width - w * 64 > 32) std::memcpy(&word, mask + 8 * w, 8);
    else std::memcpy(&word, mask + 8 * w, 4);
#pragma GCC unroll 4
    for (int r = 0; r < phases; ++r) {
      const uint64_t bits = gather<phases>(word >> r);
      std::memcpy(planes + r * plane + w * bytes, &bits, bytes);
    }
  }
}

inline void mask_from_planes(const uint8_t* planes, int64_t plane, int64_t phases, int64_t width, uint8_t* mask) {
  if (phases == 1) mask_from_planes<1>(planes, plane, width, mask);
  else if (phases == 2) mask_from_planes<2>(planes, plane, width, mask);
  else mask_from_planes<4>(planes, plane, width, mask);
}

inline void planes_from_mask(const uint8_t* mask, int64_t plane, int64_t phases, int64_t width, uint8_t* planes) {
  if (phases == 1) planes_from_mask<1>(mask, plane, width, planes);
  else if (phases == 2) planes_from_mask<2>(mask, plane, width, planes);
  else planes_from_mask<4>(mask, plane, width, planes);
}
