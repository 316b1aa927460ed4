// Loops of conv_packed. Included once per instruction set by each_level.h.

#include "cpu/vectors.h"

// A product of kRows x kVectors vectors stays in registers beside what it is made of: of one panel or, where a vector is a panel, of two.
#if defined(FASTGAN_AVX512)
constexpr int kRows = 8;
#else
constexpr int kRows = 6;
#endif
constexpr int kVectors = 2;
constexpr bool kPairs = kLanes<float> == kPanel;

using V = vector_t<float>;

// body(W{}, c): each group of lanes among n, then what is left.
template <class Body>
inline void channels_of(int64_t n, const Body& body) {
  int64_t c = 0;
  for (; c + kLanes<float> <= n; c += kLanes<float>) body(V{}, c);
  for (; c < n; ++c) body(float{}, c);
}

// sums[r][kPanel] (+)= the products of R pixels, from[tap][kBlock] + channel, with w[tap][depth][kPanel]; of a pair of panels also the
// next sums[kBlock][kPanel], with w + apart. Meanwhile what will be used next comes nearer, `step` bytes from `next` on per term.
template <int R, int kColumns>
void products(const float* const* from, int64_t channel, int64_t taps, int64_t depth, const float* w, int64_t apart, bool add, float* sums,
              const char* next, int64_t step) {
  const int64_t skip = kPairs ? apart : kLanes<float>, sums_skip = kPairs ? kBlock * kPanel : kLanes<float>;
  for (int64_t column = 0; column < (kColumns == 1 ? 1 : kPanel); column += (kPairs ? 1 : kColumns) * kLanes<float>) {
    V sum[R][kColumns] = {};
    const float* b = w + column;
    const char* near = next;
    for (int64_t tap = 0; tap < taps; ++tap) {
      const float* a[R];
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) a[r] = from[tap * kBlock + r] + channel;
      for (int64_t k = 0; k < depth; ++k, b += kPanel, near += step) {
        V row[kColumns];
#pragma GCC unroll 2
        for (int j = 0; j < kColumns; ++j) row[j] = load<V>(b + j * skip);
        __builtin_prefetch(near);
        if (kPairs && kColumns == 2) __builtin_prefetch(near + apart * sizeof(float));
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r) {
          const float factor = a[r][k];
#pragma GCC unroll 2
          for (int j = 0; j < kColumns; ++j) sum[r][j] += factor * row[j];
        }
      }
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int j = 0; j < kColumns; ++j) {
        float* at = sums + r * kPanel + column + j * sums_skip;
        store(at, add ? load<V>(at) + sum[r][j] : sum[r][j]);
      }
  }
}

using Products = void (*)(const float* const*, int64_t, int64_t, int64_t, const float*, int64_t, bool, float*, const char*, int64_t);

template <int kColumns, int... R>
constexpr std::array<Products, sizeof...(R)> products_of(std::integer_sequence<int, R...>) {
  return {products<R + 1, kColumns>...};
}

// The same for `rows` pixels; `outputs` are wanted, of one panel or a pair.
inline void packed_chunk(int64_t rows, const float* const* from, int64_t channel, int64_t taps, int64_t depth, const float* w, int64_t apart,
                         int64_t outputs, bool add, float* sums, const float* next) {
  if (!kPairs && outputs > kPanel) {
    packed_chunk(rows, from, channel, taps, depth, w, apart, kPanel, add, sums, w + apart);
    return packed_chunk(rows, from, channel, taps, depth, w + apart, apart, outputs - kPanel, add, sums + kBlock * kPanel, next);
  }
  static constexpr auto wide = products_of<kVectors>(std::make_integer_sequence<int, kRows>());
  static constexpr auto narrow = products_of<1>(std::make_integer_sequence<int, kRows>());
  const auto& which = outputs <= kLanes<float> ? narrow : wide;
  const int64_t bytes = taps * depth * kPanel * sizeof(float);
  for (int64_t r = 0; r < rows; r += kRows) {
    const int64_t here = std::min<int64_t>(kRows, rows - r);
    const char* near = reinterpret_cast<const char*>(next) + bytes * r / rows;
    which[here - 1](from + r, channel, taps, depth, w, apart, add, sums + r * kPanel, near, kPanel * sizeof(float) * here / rows);
  }
}

// to[r][c] = act(sums[r][c] + bias + other), act as `sloped` has it.
inline void packed_results(int64_t rows, const float* sums, int64_t outputs, const float* bias, const float* slope, const float* const* other,
                           float* const* to, int64_t channel) {
  channels_of(outputs, [&]<class W>(W, int64_t c) {
    const W b = load<W>(bias + c), below = load<W>(slope + c);
    for (int64_t r = 0; r < rows; ++r) {
      W v = load<W>(sums + r * kPanel + c) + b;
      if (other) v += load<W>(other[r] + channel + c);
      store(to[r] + channel + c, sloped(v, below));
    }
  });
}
