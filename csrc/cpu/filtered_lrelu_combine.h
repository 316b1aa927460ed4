// Sums of rows times taps with the activation at the end: all the arithmetic of filtered_lrelu. Included inside a namespace by
// filtered_lrelu_kernel.h, once per instruction set: no include guard.

enum class Pass { plain, activate, activate_and_mark, masked };

template <class T>
struct Act {
  T slope, clamp;
  uint8_t* negative;  // [rows][stride] bits in the order of a plane-wise row, written by activate_and_mark, read by masked
  uint8_t* clamped;
  int64_t stride;  // bytes
};

template <Pass kPass, class T>
inline typename Lanes<T>::vector activate(typename Lanes<T>::vector t, const Act<T>& act, int64_t row, int64_t i) {
  using V = typename Lanes<T>::vector;
  if constexpr (kPass == Pass::plain) {
    return t;
  } else if constexpr (kPass == Pass::masked) {
    const V v = choose<T>(get_bits<T>(act.negative + row * act.stride, i), t * act.slope, t);
    return choose<T>(get_bits<T>(act.clamped + row * act.stride, i), V{}, v);
  } else {
    const V zero{}, high = splat(act.clamp), low = -high;
    const V v = larger<T>(zero, t) + act.slope * smaller<T>(zero, t);  // NaN stays NaN
    if constexpr (kPass == Pass::activate_and_mark) {
      put_bits<T>(act.negative + row * act.stride, i, not_above_zero<T>(t));
      put_bits<T>(act.clamped + row * act.stride, i, reaches<T>(v, high));
    }
    return smaller<T>(high, larger<T>(low, v));
  }
}

// out[j][i] = act(sum_k taps[k][j] in[k][i]) for the kVectors vectors from element i on, j < kRows.
template <int kRows, int kVectors, Pass kPass, class T>
inline __attribute__((always_inline)) void block(const T* const* in, const T* taps, int64_t n, T* const* out, int64_t i,
                                                 const Act<T>& act, int64_t bit) {
  using V = typename Lanes<T>::vector;
  V sum[kRows][kVectors] = {};
  for (int64_t k = 0; k < n; ++k, taps += kRows) {
    const T* from = in[k] + i;
    asm("" : "+r"(from));  // one base with constant offsets; GCC 12 would keep an index per vector, and spill them
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const V x = load(from + v * kLanes<T>);
#pragma GCC unroll 4
      for (int j = 0; j < kRows; ++j) sum[j][v] += taps[j] * x;
    }
  }
  const Act<T> local = act;  // stores to `out` cannot reach it
#pragma GCC unroll 4
  for (int j = 0; j < kRows; ++j) {
    T* to = out[j] + i;
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      store(to + v * kLanes<T>, activate<kPass, T>(sum[j][v], local, j, bit + i + v * kLanes<T>));
      asm("" ::: "memory");  // one vector after the other: GCC 12 would compare all first, and spill them
    }
  }
}

// The same for elements [first, first + count), a whole number of vectors, in equal blocks of as many as leave the sums in
// registers. Bit `bit + i` of act belongs to element i.
template <int kRows, Pass kPass, class T>
__attribute__((noinline)) void combine(const T* const* in, const T* taps, int64_t n, T* const* out, int64_t first, int64_t count,
                                       const Act<T>& act, int64_t bit) {
  constexpr int kMost = kBytes == 64 ? (kRows == 4 ? 6 : 8) : (kRows == 4 ? 2 : kRows == 2 ? 5 : 8);
  int64_t left = count / kLanes<T>, i = first;
  for (int64_t blocks = (left + kMost - 1) / kMost; blocks > 0; --blocks) {
    const int64_t size = blocks == 1 ? left : (left + blocks - 1) / blocks;  // a division takes as long as 20 multiply-adds
    switch (size) {
      case 1: block<kRows, 1, kPass>(in, taps, n, out, i, act, bit); break;
      case 2: block<kRows, 2, kPass>(in, taps, n, out, i, act, bit); break;
      case 3: if constexpr (kMost >= 3) block<kRows, 3, kPass>(in, taps, n, out, i, act, bit); break;
      case 4: if constexpr (kMost >= 3) block<kRows, 4, kPass>(in, taps, n, out, i, act, bit); break;
      case 5: if constexpr (kMost >= 5) block<kRows, 5, kPass>(in, taps, n, out, i, act, bit); break;
      case 6: if constexpr (kMost >= 6) block<kRows, 6, kPass>(in, taps, n, out, i, act, bit); break;
      case 7: if constexpr (kMost >= 7) block<kRows, 7, kPass>(in, taps, n, out, i, act, bit); break;
      case 8: if constexpr (kMost >= 7) block<kRows, 8, kPass>(in, taps, n, out, i, act, bit); break;
    }
    left -= size, i += size * kLanes<T>;
  }
}

template <class T>
inline void combine_plain(int64_t rows, const T* const* in, const T* taps, int64_t n, T* const* out, int64_t first, int64_t count) {
  if (rows == 1) combine<1, Pass::plain>(in, taps, n, out, first, count, Act<T>{}, 0);
  else if (rows == 2) combine<2, Pass::plain>(in, taps, n, out, first, count, Act<T>{}, 0);
  else combine<4, Pass::plain>(in, taps, n, out, first, count, Act<T>{}, 0);
}
