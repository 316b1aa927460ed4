// Rows of float16, bfloat16 and back. Included inside a namespace by the kernel headers of each_level.h, after cpu/elements.h, once per
// instruction set: no include guard. n elements; `from` and `to` do not overlap.

template <class T, class S>
inline void widen(const S* from, T* to, int64_t n) {
  int64_t i = 0;
#if defined(FASTGAN_AVX512)
  if constexpr (std::is_same_v<S, torch::headeronly::Half>)
    for (; i + 16 <= n; i += 16) _mm512_storeu_ps(to + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)(from + i))));
#elif defined(FASTGAN_AVX2)
  if constexpr (std::is_same_v<S, torch::headeronly::Half>)
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(from + i))));
#endif
  for (; i < n; ++i) {
    if constexpr (std::is_same_v<S, torch::headeronly::BFloat16>) {
      const uint32_t bits = uint32_t(from[i].x) << 16;
      std::memcpy(to + i, &bits, 4);
    } else {
      to[i] = static_cast<T>(from[i]);
    }
  }
}

template <class T, class S>
inline void narrow(const T* from, S* to, int64_t n) {
  int64_t i = 0;
#if defined(FASTGAN_AVX512)
  if constexpr (std::is_same_v<S, torch::headeronly::Half>)
    for (; i + 16 <= n; i += 16) _mm256_storeu_si256((__m256i*)(to + i), _mm512_cvtps_ph(_mm512_loadu_ps(from + i), 0));
#elif defined(FASTGAN_AVX2)
  if constexpr (std::is_same_v<S, torch::headeronly::Half>)
    for (; i + 8 <= n; i += 8) _mm_storeu_si128((__m128i*)(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i), 0));
#endif
  for (; i < n; ++i) {
    if constexpr (std::is_same_v<S, torch::headeronly::BFloat16>) {
      // Round to nearest even on the upper half of the bits; a NaN keeps a set mantissa bit.
      uint32_t bits;
      std::memcpy(&bits, from + i, 4);
      const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
      to[i].x = static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16) | 0x40 : rounded);
    } else {
      to[i] = static_cast<S>(from[i]);
    }
  }
}

// float64 is never stored in 16 bits.
template <class T>
void widen(Elements<T> from, T* to, int64_t n) {
  if constexpr (std::is_same_v<T, float>) {
    if (from.type == Stored::half) return widen(reinterpret_cast<const torch::headeronly::Half*>(from.data), to, n);
    if (from.type == Stored::bfloat16) return widen(reinterpret_cast<const torch::headeronly::BFloat16*>(from.data), to, n);
  }
  std::memcpy(to, from.data, n * sizeof(T));
}

template <class T>
void narrow(const T* from, Elements<T> to, int64_t n) {
  if constexpr (std::is_same_v<T, float>) {
    if (to.type == Stored::half) return narrow(from, reinterpret_cast<torch::headeronly::Half*>(to.data), n);
    if (to.type == Stored::bfloat16) return narrow(from, reinterpret_cast<torch::headeronly::BFloat16*>(to.data), n);
  }
  std::memcpy(to.data, from, n * sizeof(T));
}
