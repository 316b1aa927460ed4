// Loops of gumbel_softmax on one row. Included once per instruction set by each_level.h.
#include "cpu/convert.h"

constexpr int64_t kDraws = 256;  // uniform numbers made at a time: 64 counters of Philox, whose words fit the L1 cache

// u[4 i + w] = (k + 1/2) 2^-23 with k the upper 23 bits of word w of Philox4x32-10 at counter (block + i, row, 0, 0).
template <class T>
inline void draw(int64_t block, uint32_t row, uint32_t low, uint32_t high, T* u) {
  uint32_t words[4][kDraws / 4];
#pragma omp simd
  for (int64_t i = 0; i < kDraws / 4; ++i) {
    uint32_t a = uint32_t(block + i), b = row, c = 0, d = 0, k0 = low, k1 = high;
    for (int round = 0; round < 10; ++round) {
      const uint64_t first = uint64_t{a} * 0xD2511F53u, second = uint64_t{c} * 0xCD9E8D57u;
      a = uint32_t(second >> 32) ^ b ^ k0;
      b = uint32_t(second);
      c = uint32_t(first >> 32) ^ d ^ k1;
      d = uint32_t(first);
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    words[0][i] = a, words[1][i] = b, words[2][i] = c, words[3][i] = d;
  }
  for (int64_t w = 0; w < 4; ++w)
#pragma omp simd
    for (int64_t i = 0; i < kDraws / 4; ++i) u[4 * i + w] = (T(int32_t(words[w][i] >> 9)) + T(0.5)) * T(0x1p-23);
}

// log x for normal x > 0. float: x = 2^e m, m in [sqrt(1/2), sqrt 2), log m = 2 atanh((m - 1) / (m + 1)), whose series in
// t^2 <= 0.0295 is cut after five terms (2e-9): straight-line code that vectorises, where std::log is a call per element.
template <class T>
inline T logarithm(T x) {
  if constexpr (std::is_same_v<T, float>) {
    int32_t bits;
    std::memcpy(&bits, &x, 4);
    const int32_t e = (bits - 0x3f3504f3) >> 23;  // sqrt(1/2)
    bits -= e * (1 << 23);
    float m;
    std::memcpy(&m, &bits, 4);
    const float t = (m - 1) / (m + 1), s = t * t;
    const float series = 2 + s * (2.0f / 3 + s * (2.0f / 5 + s * (2.0f / 7 + s * (2.0f / 9))));
    return float(e) * 0.693147181f + t * series;
  } else {
    return std::log(x);
  }
}

// y = softmax((x + g) / temperature) of one row; `work` holds n numbers.
template <class T>
void gumbel_row(Elements<T> x, Elements<T> y, T* work, int64_t n, T inverse, uint32_t row, uint32_t low, uint32_t high) {
  T u[kDraws];
  widen(x, work, n);
  T most = -std::numeric_limits<T>::infinity();
  for (int64_t start = 0; start < n; start += kDraws) {
    const int64_t m = std::min(kDraws, n - start);
    draw(start / 4, row, low, high, u);
    T* part = work + start;
#pragma omp simd reduction(max : most)
    for (int64_t i = 0; i < m; ++i) {
      part[i] = (part[i] - logarithm(-logarithm(u[i]))) * inverse;
      most = part[i] > most ? part[i] : most;
    }
  }
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    work[i] = exp_nonpositive(work[i] - most);
    sum += work[i];
  }
  const T scale = 1 / sum;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) work[i] *= scale;
  narrow(work, y, n);
}
