// The mask of filtered_lrelu: two bits of each element of t, and how they lie in planes. They are written bit by bit, since few
// elements are clamped, and read as codes of two: 1 where t was not above zero, 2 or 3 where it was clamped. Included inside a
// namespace after vectors.h, once per instruction set: no include guard.

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
inline vector_t<T> size_of(vector_t<T> v) {
  return (vector_t<T>)((integers_t<T>)v & std::numeric_limits<std::conditional_t<sizeof(T) == 8, int64_t, int32_t>>::max());
}

// size >= limit
template <class T>
inline uint32_t reaches(vector_t<T> size, vector_t<T> limit) {
#if defined(FASTGAN_AVX512)
  return _mm512_cmp_ps_mask(size, limit, _CMP_GE_OQ);
#elif defined(FASTGAN_AVX2)
  if constexpr (std::is_same_v<T, float>) return _mm256_movemask_ps(_mm256_cmp_ps(size, limit, _CMP_GE_OQ));
  else return _mm256_movemask_pd(_mm256_cmp_pd(size, limit, _CMP_GE_OQ));
#else
  uint32_t bits = 0;
  for (int i = 0; i < kLanes<T>; ++i) bits |= uint32_t(size[i] >= limit[i]) << i;
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

// t, times slope or 0 where the codes of its lanes, from element i on, say so. Reads 4 bytes. An infinity times 0 is NaN, which is
// left to the reference.
template <class T>
inline vector_t<T> by_codes(const uint8_t* codes, int64_t i, vector_t<T> t, T slope) {
#if defined(FASTGAN_AVX2) || defined(FASTGAN_AVX512)
  // A permutation within four numbers looks up the factor of each lane by its two lowest bits.
  if constexpr (std::is_same_v<T, float>) {
    int32_t word;
    std::memcpy(&word, codes + i / 4, 4);
#if defined(FASTGAN_AVX512)
    const __m512i places = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512 factors = _mm512_broadcast_f32x4(_mm_setr_ps(1, slope, 0, 0));
    return t * _mm512_permutevar_ps(factors, _mm512_srlv_epi32(_mm512_set1_epi32(word), places));
#else
    const __m256 factors = _mm256_setr_ps(1, slope, 0, 0, 1, slope, 0, 0);
    return t * _mm256_permutevar_ps(factors, _mm256_srlv_epi32(_mm256_set1_epi32(word), _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14)));
#endif
  }
#endif
  const int word = codes[i / 4] >> (2 * (i % 4));  // four lanes at most
  integers_t<T> lane;
  for (int k = 0; k < kLanes<T>; ++k) lane[k] = 1 << (2 * k);
  const vector_t<T> v = ((lane & word) != 0) ? t * slope : t;
  return ((2 * lane & word) != 0) ? vector_t<T>{} : v;
}

// Bit i of a 64 / phases bit number to bit i * phases.
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

// The codes, from bit 0 on, of every `phases`th of the elements whose bits these are, as many as fill 64 bits at most.
template <int phases>
inline uint64_t codes_of(uint64_t negative, uint64_t clamped) {
  if constexpr (phases == 1) return spread<2>(negative & 0xffffffffu) | spread<2>(clamped & 0xffffffffu) << 1;
  constexpr uint64_t kept = phases == 2 ? 0x5555555555555555u : 0x1111111111111111u;
  uint64_t pairs = (negative & kept) | (clamped & kept) << 1;
  if constexpr (phases == 4) {  // two of four bits
#if defined(FASTGAN_AVX2) || defined(FASTGAN_AVX512)
    pairs = _pext_u64(pairs, 0x3333333333333333u);
#else
    pairs = (pairs | pairs >> 2) & 0x0f0f0f0f0f0f0f0fu;
    pairs = (pairs | pairs >> 4) & 0x00ff00ff00ff00ffu;
    pairs = (pairs | pairs >> 8) & 0x0000ffff0000ffffu;
    pairs = (pairs | pairs >> 16) & 0xffffffffu;
#endif
  }
  return pairs;
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

// Planes of codes, `plane` bytes apart, from the two rows of the mask of one row of t.
template <int phases>
inline void codes_from_mask(const uint8_t* negative, const uint8_t* clamped, int64_t plane, int64_t width, uint8_t* codes) {
  constexpr int64_t bytes = 16 / phases;
  for (int64_t w = 0; w * 64 < width; ++w) {
    uint64_t below = 0, beyond = 0;
    if (width - w * 64 > 32) std::memcpy(&below, negative + 8 * w, 8), std::memcpy(&beyond, clamped + 8 * w, 8);
    else std::memcpy(&below, negative + 8 * w, 4), std::memcpy(&beyond, clamped + 8 * w, 4);
#pragma GCC unroll 4
    for (int r = 0; r < phases; ++r) {
      const uint64_t found[] = {codes_of<phases>(below >> r, beyond >> r), phases == 1 ? codes_of<phases>(below >> 32, beyond >> 32) : 0};
      std::memcpy(codes + r * plane + w * bytes, found, bytes);
    }
  }
}

inline void mask_from_planes(const uint8_t* planes, int64_t plane, int64_t phases, int64_t width, uint8_t* mask) {
  if (phases == 1) mask_from_planes<1>(planes, plane, width, mask);
  else if (phases == 2) mask_from_planes<2>(planes, plane, width, mask);
  else mask_from_planes<4>(planes, plane, width, mask);
}

inline void codes_from_mask(const uint8_t* negative, const uint8_t* clamped, int64_t plane, int64_t phases, int64_t width, uint8_t* codes) {
  if (phases == 1) codes_from_mask<1>(negative, clamped, plane, width, codes);
  else if (phases == 2) codes_from_mask<2>(negative, clamped, plane, width, codes);
  else codes_from_mask<4>(negative, clamped, plane, width, codes);
}
