// Loops of conv3x3. Included once per instruction set by each_level.h.

#include "cpu/finite.h"
#include "cpu/vectors.h"
#include "cpu/transpose.h"

// A product of kRows x 2 vectors stays in registers.
#if defined(FASTGAN_AVX512)
constexpr int kRows = 12;
#else
constexpr int kRows = 4;
#endif

// The terms of a sum are added in chains, chains in groups, and these in turn: its error grows by the root of the longest of the
// three. One chain of 512 terms had 3 times the error of torch's convolution (oneDNN); so it is 0.9 of that.
constexpr int64_t kChain = 16, kGroup = 128;

// body(V{}, c): each group of lanes among n, then what is left.
template <class T, class Body>
inline void each_lane(int64_t n, const Body& body) {
  int64_t c = 0;
  for (; c + kLanes<T> <= n; c += kLanes<T>) body(vector_t<T>{}, c);
  for (; c < n; ++c) body(T{}, c);
}

// B^T d B for the pixels from[4][4] of one tile; number e of the 16 goes to to[e * apart + place(c)].
template <class T>
void input_tile(const T* const* from, int64_t channels, T* to, int64_t apart, int64_t panel_apart) {
  each_lane<T>(channels, [&]<class V>(V, int64_t c) {
    V d[4][4], t[4][4];
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j) d[i][j] = load<V>(from[4 * i + j] + c);
    for (int j = 0; j < 4; ++j) t[0][j] = d[0][j] - d[2][j], t[1][j] = d[1][j] + d[2][j], t[2][j] = d[2][j] - d[1][j], t[3][j] = d[1][j] - d[3][j];
    T* at = to + c / kPanel * panel_apart + c % kPanel;
    for (int i = 0; i < 4; ++i) {
      store(at + (4 * i) * apart, t[i][0] - t[i][2]);
      store(at + (4 * i + 1) * apart, t[i][1] + t[i][2]);
      store(at + (4 * i + 2) * apart, t[i][2] - t[i][1]);
      store(at + (4 * i + 3) * apart, t[i][1] - t[i][3]);
    }
  });
}

// A d A^T for the pixels from[2][2]: the transpose of output_tile.
template <class T>
void gradient_tile(const T* const* from, int64_t channels, T* to, int64_t apart, int64_t panel_apart) {
  each_lane<T>(channels, [&]<class V>(V, int64_t c) {
    V t[4][2];
    for (int j = 0; j < 2; ++j) {
      const V above = load<V>(from[j] + c), below = load<V>(from[2 + j] + c);
      t[0][j] = above, t[1][j] = above + below, t[2][j] = above - below, t[3][j] = -below;
    }
    T* at = to + c / kPanel * panel_apart + c % kPanel;
    for (int i = 0; i < 4; ++i) {
      store(at + (4 * i) * apart, t[i][0]);
      store(at + (4 * i + 1) * apart, t[i][0] + t[i][1]);
      store(at + (4 * i + 2) * apart, t[i][0] - t[i][1]);
      store(at + (4 * i + 3) * apart, -t[i][1]);
    }
  });
}

// A^T m A + bias for `channels` outputs of one tile, m[e * apart + c]; to: where its four pixels go, null for none.
template <class T>
void output_tile(const T* m, int64_t apart, int64_t channels, const T* bias, T* const* to) {
  each_lane<T>(channels, [&]<class V>(V, int64_t c) {
    V s[2][4];
    for (int j = 0; j < 4; ++j) {
      const V m0 = load<V>(m + j * apart + c), m1 = load<V>(m + (4 + j) * apart + c), m2 = load<V>(m + (8 + j) * apart + c),
              m3 = load<V>(m + (12 + j) * apart + c);
      s[0][j] = m0 + m1 + m2, s[1][j] = m1 - m2 - m3;
    }
    const V b = load<V>(bias + c);
    for (int i = 0; i < 2; ++i) {
      if (to[2 * i]) store(to[2 * i] + c, s[i][0] + s[i][1] + s[i][2] + b);
      if (to[2 * i + 1]) store(to[2 * i + 1] + c, s[i][1] - s[i][2] - s[i][3] + b);
    }
  });
}

// G g G^T of kPanel kernels g[9][kPanel]; number e goes to to[e * apart].
template <class T>
void weight_panel(const T* g, T* to, int64_t apart) {
  using V = vector_t<T>;
  for (int64_t c = 0; c < kPanel; c += kLanes<T>) {
    V t[4][3];
    for (int j = 0; j < 3; ++j) {
      const V g0 = load<V>(g + j * kPanel + c), g1 = load<V>(g + (3 + j) * kPanel + c), g2 = load<V>(g + (6 + j) * kPanel + c);
      t[0][j] = g0, t[1][j] = T(0.5) * (g0 + g2 + g1), t[2][j] = T(0.5) * (g0 + g2 - g1), t[3][j] = g2;
    }
    for (int i = 0; i < 4; ++i) {
      store(to + (4 * i) * apart + c, t[i][0]);
      store(to + (4 * i + 1) * apart + c, T(0.5) * (t[i][0] + t[i][2] + t[i][1]));
      store(to + (4 * i + 2) * apart + c, T(0.5) * (t[i][0] + t[i][2] - t[i][1]));
      store(to + (4 * i + 3) * apart + c, t[i][2]);
    }
  }
}

// G^T s G for kPanel sums s[e * apart]: their kernels' gradients g[9][kPanel].
template <class T>
void weight_gradient_panel(const T* s, int64_t apart, T* g) {
  using V = vector_t<T>;
  for (int64_t c = 0; c < kPanel; c += kLanes<T>) {
    V t[3][4];
    for (int j = 0; j < 4; ++j) {
      const V s0 = load<V>(s + j * apart + c), s1 = load<V>(s + (4 + j) * apart + c), s2 = load<V>(s + (8 + j) * apart + c),
              s3 = load<V>(s + (12 + j) * apart + c);
      const V half = T(0.5) * (s1 + s2);
      t[0][j] = s0 + half, t[1][j] = T(0.5) * (s1 - s2), t[2][j] = half + s3;
    }
    for (int i = 0; i < 3; ++i) {
      const V half = T(0.5) * (t[i][1] + t[i][2]);
      store(g + (3 * i) * kPanel + c, t[i][0] + half);
      store(g + (3 * i + 1) * kPanel + c, T(0.5) * (t[i][1] - t[i][2]));
      store(g + (3 * i + 2) * kPanel + c, half + t[i][3]);
    }
  }
}

// out[r][kPanel] (+)= sum over k of a[r * a_row + k * a_step] b[k][kPanel], r < R, two vectors of columns at a time. Fetches
// from `next` on by next_step bytes per k: two lines, as many as one row has.
template <int R, bool kAdd, class T>
inline void multiply_rows(const T* a, int64_t a_row, int64_t a_step, int64_t depth, const T* b, T* out, const char* next, int64_t next_step) {
  using V = vector_t<T>;
  for (int64_t column = 0; column < kPanel; column += 2 * kLanes<T>) {
    T* const to = out + column;
    for (int64_t group = 0; group < depth; group += kGroup) {
      const int64_t end = std::min(depth, group + kGroup);
      V total[R][2] = {};
      for (int64_t chain = group; chain < end; chain += kChain) {
        V sum[R][2] = {};
        for (int64_t k = chain; k < std::min(end, chain + kChain); ++k) {
          const V left = load<V>(b + k * kPanel + column), right = load<V>(b + k * kPanel + column + kLanes<T>);
          const T* from = a + k * a_step;
          __builtin_prefetch(next + k * next_step);
          __builtin_prefetch(next + k * next_step + 64);
#pragma GCC unroll 12
          for (int r = 0; r < R; ++r) {
            const T factor = from[r * a_row];
            sum[r][0] += factor * left;
            sum[r][1] += factor * right;
          }
        }
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r)
          for (int j = 0; j < 2; ++j) total[r][j] += sum[r][j];
      }
      for (int r = 0; r < R; ++r)
        for (int j = 0; j < 2; ++j) {
          T* at = to + r * kPanel + j * kLanes<T>;
          store(at, kAdd || group > 0 ? load<V>(at) + total[r][j] : total[r][j]);
        }
    }
  }
}

// `rows` rows, a multiple of 4; meanwhile, evenly, [depth][kPanel] from `next` on come nearer: a panel of kernels from the L3
// cache as fast as 12 rows use it up takes three times as long as these.
template <bool kAdd, class T>
void multiply(int64_t rows, const T* a, int64_t a_row, int64_t a_step, int64_t depth, const T* b, T* out, const T* next) {
  int64_t r = 0;
  const auto piece = [&]<int R>(std::integral_constant<int, R>) {
    const char* from = reinterpret_cast<const char*>(next) + r * depth * kPanel * sizeof(T) / rows;
    multiply_rows<R, kAdd>(a + r * a_row, a_row, a_step, depth, b, out + r * kPanel, from, kPanel * sizeof(T) * R / rows);
    r += R;
  };
  if constexpr (kRows > 8)  // 4 rows cannot keep both units of multiplication busy: none are left over if 8 and 8 can be
    for (int64_t left = rows; left >= 8; left = rows - r) {
      if (left == kRows || left > 16) piece(std::integral_constant<int, kRows>{});
      else piece(std::integral_constant<int, 8>{});
    }
  while (r < rows) piece(std::integral_constant<int, 4>{});
}
