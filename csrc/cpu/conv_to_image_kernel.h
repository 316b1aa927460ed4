// Loops of conv_to_image. Included once per instruction set by each_level.h.

#include "cpu/vectors.h"
#include "cpu/transpose.h"

// Else GCC reads it anew for each product that it goes into: 24 reads where 8 do, and reads are what the loop waits for.
template <class V>
inline __attribute__((always_inline)) V in_register(V v) {
#if defined(FASTGAN_AVX512) || defined(FASTGAN_AVX2)
  asm("" : "+v"(v));
#endif
  return v;
}

constexpr int64_t kChain = 16;  // inputs whose products are added one after the other: a sum of such sums has a smaller error

// One row of outputs, its even and its odd columns in parts of their own: parts[(2 c + b) part + m] is column 2 m + b of channel c,
//
//     sum over k < count, o < inputs, t < kTaps of weights[k][o][b][t][c] rows[k][o apart + m + shift[b][t]].
//
// Floor: 2 kChannels kTaps products per number that is read, as many as the units of multiplication can do meanwhile.
template <int kChannels, int kTaps, class T>
void row_of_outputs(const T* const* rows, const T* const* weights, int64_t count, int64_t inputs, int64_t apart, const int64_t* shift, T* parts,
                    int64_t part) {
  using V = vector_t<T>;
  constexpr int kVectors = kBytes == 64 ? 2 : 1;  // else there are too few registers for their sums
  for (int64_t m = 0; m < part; m += kVectors * kLanes<T>) {
    V total[2 * kChannels][kVectors] = {};
    for (int64_t k = 0; k < count; ++k) {
      const T *x = rows[k] + m, *w = weights[k];
      for (int64_t chain = 0; chain < inputs; chain += kChain) {
        V sum[2 * kChannels][kVectors] = {};
        for (int64_t o = chain; o < std::min(inputs, chain + kChain); ++o, x += apart, w += 2 * kTaps * kChannels) {
#pragma GCC unroll 4
          for (int i = 0; i < 2 * kTaps; ++i) {
            V at[kVectors];
#pragma GCC unroll 2
            for (int v = 0; v < kVectors; ++v) at[v] = in_register(load<V>(x + shift[i] + v * kLanes<T>));
#pragma GCC unroll 4
            for (int c = 0; c < kChannels; ++c) {
              const T factor = w[i * kChannels + c];
#pragma GCC unroll 2
              for (int v = 0; v < kVectors; ++v) sum[2 * c + i / kTaps][v] += factor * at[v];
            }
          }
        }
        for (int i = 0; i < 2 * kChannels; ++i)
          for (int v = 0; v < kVectors; ++v) total[i][v] += sum[i][v];
      }
    }
    for (int i = 0; i < 2 * kChannels; ++i)
      for (int v = 0; v < kVectors; ++v) store(parts + i * part + m + v * kLanes<T>, total[i][v]);
  }
}

template <class T>
void run_row(int64_t channels, int64_t taps, const T* const* rows, const T* const* weights, int64_t count, int64_t inputs, int64_t apart,
             const int64_t* shift, T* parts, int64_t part) {
  using Row = void (*)(const T* const*, const T* const*, int64_t, int64_t, int64_t, const int64_t*, T*, int64_t);
  static constexpr Row all[kMostChannels][kMostTaps] = {{row_of_outputs<1, 1, T>, row_of_outputs<1, 2, T>},
                                                        {row_of_outputs<2, 1, T>, row_of_outputs<2, 2, T>},
                                                        {row_of_outputs<3, 1, T>, row_of_outputs<3, 2, T>},
                                                        {row_of_outputs<4, 1, T>, row_of_outputs<4, 2, T>}};
  all[channels - 1][taps - 1](rows, weights, count, inputs, apart, shift, parts, part);
}

template <class T>
void interleave(const T* even, const T* odd, T* __restrict to, int64_t n) {
#pragma omp simd
  for (int64_t m = 0; m < n / 2; ++m) to[2 * m] = even[m], to[2 * m + 1] = odd[m];
  if (n % 2) to[n - 1] = even[n / 2];
}
