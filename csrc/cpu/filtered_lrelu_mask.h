// The mask of filtered_lrelu: two bits of each element of t, and how they lie in planes. Included inside a namespace after vectors.h,
// once per instruction set: no include guard.

// Lane i of the comparison in bit i.
template <class T>
inline uint32_t not_above_zero(vector_t<T> t) {
#if defined(FASTGAN_AVX512)
  return _mm512_cmp_ps_mask(t, _mm512_setzero_ps(), _CMP_NGT_UQ);
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
inline uint32_t reaches(vector_t<T> v, vector_t<T> limit) {
#if defined(FASTGAN_AVX512)
  return _mm512_cmp_ps_mask(_mm512_abs_ps(v), limit, _CMP_GE_OQ);
#elif defined(FASTGAN_AVX2)
  const vector_t<T> size = (vector_t<T>)((integers_t<T>)v & std::numeric_limits<std::conditional_t<sizeof(T) == 8, int64_t, int32_t>>::max());
  if constexpr (std::is_same_v<T, float>) return _mm256_movemask_ps(_mm256_cmp_ps(size, limit, _CMP_GE_OQ));
  else return _mm256_movemask_pd(_mm256_cmp_pd(size, limit, _CMP_GE_OQ));
#else
  uint32_t bits = 0;
  for (int i = 0; i < kLanes<T>; ++i) bits |= uint32_t((v[i] < 0 ? -v[i] : v[i]) >= limit[i]) << i;
  return bits;
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

// yes where the bit of a lane of the vector that starts at element i is set, else no.
template <class T>
inline vector_t<T> choose(const uint8_t* bytes, int64_t i, vector_t<T> yes, vector_t<T> no) {
#if defined(FASTGAN_AVX512)
  return _mm512_mask_blend_ps(get_bits<T>(bytes, i), no, yes);
#elif defined(FASTGAN_AVX2)
  // A blend looks at the sign of each lane: there its bit of the byte, which is in all bytes, is moved.
  if constexpr (std::is_same_v<T, float>) {
    const __m256i all = _mm256_set1_epi8(static_cast<char>(bytes[i / 8]));
    return _mm256_blendv_ps(no, yes, _mm256_castsi256_ps(_mm256_sllv_epi32(all, _mm256_setr_epi32(7, 6, 5, 4, 3, 2, 1, 0))));
  } else {
    const __m256i all = _mm256_set1_epi64x(int64_t{get_bits<T>(bytes, i)} << 60);
    return _mm256_blendv_pd(no, yes, _mm256_castsi256_pd(_mm256_sllv_epi64(all, _mm256_setr_epi64x(3, 2, 1, 0))));
  }
#else
  integers_t<T> lane;
  for (int k = 0; k < kLanes<T>; ++k) lane[k] = 1 << k;
  return ((lane & static_cast<int>(get_bits<T>(bytes, i))) != 0) ? yes : no;
#endif
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
