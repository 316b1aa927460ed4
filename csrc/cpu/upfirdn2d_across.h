// Sums along x of upfirdn2d for factors of 2. Included inside a namespace by upfirdn2d_kernel.h, once per instruction set: no
// include guard.

// Along x of a row whose columns are single numbers, for factors 1 and 2: all phases at once and in place, where split, combine
// and join would go over the row three times. to[kPhases i + q] = sum_j weights[q][j] row[q][kStep i + j], 0 <= i < n.
template <class T>
using Across = void (*)(T* to, const T* const* row, const T* const* weights, int64_t n);

template <int kTaps, int kPhases, int kStep, class T>
void across(T* __restrict to, const T* const* row, const T* const* weights, int64_t n) {
  constexpr int64_t kBlock = 64 / sizeof(T);
  const T *r0 = row[0], *r1 = row[kPhases - 1];
  T w0[kTaps], w1[kTaps];
  for (int j = 0; j < kTaps; ++j) w0[j] = weights[0][j], w1[j] = weights[kPhases - 1][j];
  const auto range = [&](int64_t first, int64_t end) {
#pragma omp simd
    for (int64_t i = first; i < end; ++i) {
      T sum0 = w0[0] * r0[kStep * i], sum1 = w1[0] * r1[kStep * i];
      for (int j = 1; j < kTaps; ++j) sum0 += w0[j] * r0[kStep * i + j], sum1 += w1[j] * r1[kStep * i + j];
      to[kPhases * i] = sum0;
      if constexpr (kPhases == 2) to[2 * i + 1] = sum1;
    }
  };
  const int64_t whole = n / kBlock * kBlock;
  range(0, whole);
  if (whole > 0 && whole < n) range(n - kBlock, n);  // once more over the last ones: no scalar tail
  else range(whole, n);
}

// The same of columns of 3 numbers (an image in channels_last), for kPhases 2 and kStep 1: kColumns of them fill most of a vector.
template <int kTaps, class T>
void across_pixels(T* __restrict to, const T* const* row, const T* const* weights, int64_t n) {
  constexpr int kWide = std::max<int>(kBytes, 4 * sizeof(T));  // one column or more
  constexpr int kSize = kWide / sizeof(T), kColumns = kSize / 3, kNumbers = 3 * kColumns;
  using V = typename Vector<T, kWide>::type;
  typename Vector<T, kWide>::integers place[2];  // of the outputs among both phases' numbers: column, phase, channel
  for (int k = 0; k < 2 * kSize; ++k) place[k / kSize][k % kSize] = k < 2 * kNumbers ? k / 6 * 3 + k % 3 + k / 3 % 2 * kSize : 0;
  const T *r0 = row[0], *r1 = row[1];
  int64_t i = 0;
  for (; 6 * i + 2 * kSize <= 6 * n; i += kColumns) {  // what is too much, the next ones overwrite
    V sum[2] = {}, x;
    for (int j = 0; j < kTaps; ++j) {
      std::memcpy(&x, r0 + 3 * (i + j), sizeof x), sum[0] += weights[0][j] * x;
      std::memcpy(&x, r1 + 3 * (i + j), sizeof x), sum[1] += weights[1][j] * x;
    }
    for (int half = 0; half < 2; ++half) {
      const V y = shuffle(sum[0], sum[1], place[half]);
      std::memcpy(to + 6 * i + half * kSize, &y, sizeof y);
    }
  }
  for (; i < n; ++i)
    for (int q = 0; q < 2; ++q)
      for (int g = 0; g < 3; ++g) {
        T sum = 0;
        for (int j = 0; j < kTaps; ++j) sum += weights[q][j] * row[q][3 * (i + j) + g];
        to[6 * i + 3 * q + g] = sum;
      }
}

template <int kPhases, int kStep, class T, int... kTaps>
constexpr std::array<Across<T>, sizeof...(kTaps)> across_by_taps(std::integer_sequence<int, kTaps...>) {
  return {across<kTaps + 1, kPhases, kStep, T>...};
}

template <class T, int... kTaps>
constexpr std::array<Across<T>, sizeof...(kTaps)> across_pixels_by_taps(std::integer_sequence<int, kTaps...>) {
  return {across_pixels<kTaps + 1, T>...};
}

// The loop for an axis, null where there is none: the phases must have as many taps and, but for an odd end, as many outputs.
template <class T>
Across<T> across_for(const Axis& x, int64_t group) {
  static constexpr auto doubling = across_by_taps<2, 1, T>(std::make_integer_sequence<int, kDirect / 2>());
  static constexpr auto halving = across_by_taps<1, 2, T>(std::make_integer_sequence<int, kDirect>());
  if (x.most < 1 || x.count[0] != x.most || x.count[x.phases - 1] != x.most) return nullptr;
  static constexpr auto pixels = across_pixels_by_taps<T>(std::make_integer_sequence<int, kDirect / 2>());
  if (x.phases == 2 && x.step == 1 && x.most <= kDirect / 2) return group == 1 ? doubling[x.most - 1] : group == 3 ? pixels[x.most - 1] : nullptr;
  if (group == 1 && x.phases == 1 && x.step == 2 && x.most <= kDirect) return halving[x.most - 1];
  return nullptr;
}
