// Loops of conv3x3_packed. Included once per instruction set by each_level.h.

#include "cpu/vectors.h"

// A product of kRows x kVectors vectors stays in registers beside what it is made of: of one panel or, where a vector is a panel, of two.
#if defined(FASTGAN_AVX512)
constexpr int kRows = 12;
#else
constexpr int kRows = 6;
#endif
constexpr int kVectors = 2;
constexpr bool kPairs = kLanes<float> == kPanel;

constexpr int64_t kGroup = 128;  // terms of a sum that are added in one chain

using V = vector_t<float>;

constexpr float A = 0.6f, B = 1.6f, AA = A * A, BB = B * B;

// B^T d for a row or column of six.
template <class W>
inline __attribute__((always_inline)) void spread(const W* d, W* to, int64_t apart) {
  const W even_b = d[4] - BB * d[2], odd_b = A * (d[3] - BB * d[1]), even_a = d[4] - AA * d[2], odd_a = B * (d[3] - AA * d[1]);
  to[0] = AA * BB * d[0] - (AA + BB) * d[2] + d[4];
  to[apart] = even_b + odd_b, to[2 * apart] = even_b - odd_b;
  to[3 * apart] = even_a + odd_a, to[4 * apart] = even_a - odd_a;
  to[5 * apart] = AA * BB * d[1] - (AA + BB) * d[3] + d[5];
}

// A^T m for a row or column of six.
template <class W>
inline __attribute__((always_inline)) void gather(const W* m, int64_t step, W* y) {
  const W sum_a = m[step] + m[2 * step], less_a = m[step] - m[2 * step], sum_b = m[3 * step] + m[4 * step], less_b = m[3 * step] - m[4 * step];
  y[0] = m[0] + sum_a + sum_b;
  y[1] = A * less_a + B * less_b;
  y[2] = AA * sum_a + BB * sum_b;
  y[3] = AA * A * less_a + BB * B * less_b + m[5 * step];
}

// body(W{}, c): each group of lanes among n, then what is left.
template <class Body>
inline void channels_of(int64_t n, const Body& body) {
  int64_t c = 0;
  for (; c + kLanes<float> <= n; c += kLanes<float>) body(V{}, c);
  for (; c < n; ++c) body(float{}, c);
}

// B^T d B of one tile, whose pixels are from[6][6]; number e of the 36 goes to to[e * apart].
inline void packed_input(const float* const* from, int64_t channels, float* to, int64_t apart) {
  channels_of(channels, [&]<class W>(W, int64_t c) {
    W t[36];
    for (int j = 0; j < 6; ++j) {
      W d[6];
      for (int i = 0; i < 6; ++i) d[i] = load<W>(from[6 * i + j] + c);
      spread(d, t + j, 6);
    }
    for (int i = 0; i < 6; ++i) {
      W row[6];
      spread(t + 6 * i, row, 1);
      for (int j = 0; j < 6; ++j) store(to + (6 * i + j) * apart + c, row[j]);
    }
  });
}

// What becomes of A^T m A, m[e * apart + c], for `channels` outputs of one tile: + bias + other, and act as `sloped` has it.
// to, other: its pixels [4][4], null for none.
inline void packed_output(const float* m, int64_t apart, int64_t channels, const float* bias, const float* slope, const float* const* other,
                          float* const* to) {
  channels_of(channels, [&]<class W>(W, int64_t c) {
    W s[24];
    for (int j = 0; j < 6; ++j) {
      W column[6], y[4];
      for (int i = 0; i < 6; ++i) column[i] = load<W>(m + (6 * i + j) * apart + c);
      gather(column, 1, y);
      for (int i = 0; i < 4; ++i) s[6 * i + j] = y[i];
    }
    const W b = load<W>(bias + c), below = load<W>(slope + c);
    for (int i = 0; i < 4; ++i) {
      W y[4];
      gather(s + 6 * i, 1, y);
      for (int j = 0; j < 4; ++j)
        if (to[4 * i + j]) {
          W v = y[j] + b;
          if (other) v += load<W>(other[4 * i + j] + c);
          store(to[4 * i + j] + c, sloped(v, below));
        }
    }
  });
}

// out[r][kPanel] = sum over k of a[r * depth + k] b[k][kPanel], r < kRows; kColumns vectors at once, of a panel or each of its own, whose b
// and out are b_apart and out_apart away.
template <int kColumns>
inline void packed_rows(const float* a, int64_t depth, const float* b, int64_t b_apart, float* out, int64_t out_apart) {
  const int64_t skip = kPairs ? b_apart : kLanes<float>, out_skip = kPairs ? out_apart : kLanes<float>;
  for (int64_t column = 0; column < kPanel; column += (kPairs ? 1 : kColumns) * kLanes<float>) {
    for (int64_t group = 0; group < depth; group += kGroup) {
      const int64_t end = std::min(depth, group + kGroup);
      V sum[kRows][kColumns] = {};
      for (int64_t k = group; k < end; ++k) {
        V row[kColumns];
#pragma GCC unroll 2
        for (int j = 0; j < kColumns; ++j) row[j] = load<V>(b + k * kPanel + column + j * skip);
#pragma GCC unroll 12
        for (int r = 0; r < kRows; ++r) {
          const float factor = a[r * depth + k];
#pragma GCC unroll 2
          for (int j = 0; j < kColumns; ++j) sum[r][j] += factor * row[j];
        }
      }
#pragma GCC unroll 12
      for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 2
        for (int j = 0; j < kColumns; ++j) {
          float* at = out + r * kPanel + column + j * out_skip;
          store(at, group > 0 ? load<V>(at) + sum[r][j] : sum[r][j]);
        }
    }
  }
}

// `rows` rows, a multiple of 12, of `panels`, one or two.
inline void packed_product(int64_t rows, const float* a, int64_t depth, int64_t panels, const float* b, int64_t b_apart, float* out,
                           int64_t out_apart) {
  constexpr int kOne = kPairs ? 1 : kVectors;
  for (int64_t r = 0; r < rows; r += kRows) {
    const float* from = a + r * depth;
    float* to = out + r * kPanel;
    if (kPairs && panels == 2) packed_rows<kVectors>(from, depth, b, b_apart, to, out_apart);
    else
      for (int64_t p = 0; p < panels; ++p) packed_rows<kOne>(from, depth, b + p * b_apart, b_apart, to + p * out_apart, out_apart);
  }
}
