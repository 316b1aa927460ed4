// Sums of rows times taps with the activation at the end: all the arithmetic of filtered_lrelu. Included inside a namespace by
// filtered_lrelu_kernel.h, once per instruction set: no include guard.

enum class Pass { plain, activate, activate_and_mark, masked };

template <class T>
struct Act {
  T slope, clamp;
  bool gentle, clamps;   // of Plan; if not `clamps`, no element reaches the clamp
  uint8_t* negative;     // [rows][stride] bits in the order of a plane-wise row, written by activate_and_mark
  uint8_t* clamped;      // the same, if it clamps
  const uint8_t* codes;  // [rows][2 stride], read by masked
  int64_t stride;        // bytes
};

// The leaky ReLU. NaN stays NaN; so does 0 times infinity.
template <bool gentle, class T>
inline vector_t<T> leaky(vector_t<T> t, T slope) {
  if constexpr (gentle) return larger<T>(slope * t, t);  // it is not less than slope t
  const vector_t<T> zero{};
  return larger<T>(zero, t) + slope * smaller<T>(zero, t);
}

// out[j][i] = act(sum_k taps[k][j] in[k][i]) for the kVectors vectors from element i on, j < kRows.
template <int kRows, int kVectors, Pass kPass, class T>
inline __attribute__((always_inline)) void block(const T* const* in, const T* taps, int64_t n, T* const* out, int64_t i, const Act<T>& act,
                                                 int64_t bit) {
  using V = vector_t<T>;
  V sum[kRows][kVectors] = {};
  for (int64_t k = 0; k < n; ++k, taps += kRows) {
    const T* from = in[k] + i;
    asm("" : "+r"(from));  // one base with constant offsets; GCC 12 would keep an index per vector, and spill them
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      V x = load<V>(from + v * kLanes<T>);
      if (kRows > 1) in_register(x);
#pragma GCC unroll 4
      for (int j = 0; j < kRows; ++j) sum[j][v] += taps[j] * x;
    }
  }
  [[maybe_unused]] const int64_t at = bit + i, byte = kPass == Pass::plain ? 0 : at >> 3, start = kLanes<T> < 8 ? at & 7 : 0;
  const T slope = act.slope;  // stores cannot reach this copy
  [[maybe_unused]] const V high = splat(act.clamp), low = -high;
  const auto give = [&]<bool gentle, bool clamps>() __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int j = 0; j < kRows; ++j) {
      T* to = out[j] + i;
      [[maybe_unused]] uint8_t* const negative = act.negative + j * act.stride + byte;
      [[maybe_unused]] uint8_t* const clamped = act.clamped + j * act.stride + byte;
      [[maybe_unused]] const uint8_t* const codes = act.codes + 2 * (j * act.stride + byte);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        constexpr bool marks = kPass == Pass::activate_and_mark;
        V t = sum[j][v];
        if constexpr (marks) put_bits<T>(negative, start + v * kLanes<T>, not_above_zero<T>(t));
        if constexpr (kPass == Pass::masked) t = by_codes(codes, start + v * kLanes<T>, t, slope);
        if constexpr (marks || kPass == Pass::activate) t = leaky<gentle>(t, slope);
        if constexpr (marks && clamps) put_bits<T>(clamped, start + v * kLanes<T>, reaches<T>(size_of<T>(t), high));
        if constexpr (clamps) t = smaller<T>(high, larger<T>(low, t));
        store(to + v * kLanes<T>, t);
        asm("" ::: "memory");  // one vector after the other: GCC 12 would compare all first, and spill them
      }
    }
  };
  if constexpr (kPass == Pass::plain || kPass == Pass::masked) {
    give.template operator()<true, false>();
  } else {
    if (!act.gentle) give.template operator()<false, true>();
    else if (act.clamps) give.template operator()<true, true>();
    else give.template operator()<true, false>();
  }
}

// body<n>(i): n vectors from element i on, for [first, first + count), a whole number of vectors, in equal blocks of at most kLargest.
// Of float64, which gradient checks use alone, 2 at most: each size is code of its own to compile.
template <int kLargest, class T, class Body>
inline __attribute__((always_inline)) void in_blocks(int64_t first, int64_t count, const Body& body) {
  constexpr int kMost = sizeof(T) == 8 ? 2 : kLargest;
  int64_t left = count / kLanes<T>, i = first;
  for (int64_t blocks = (left + kMost - 1) / kMost; blocks > 0; --blocks) {
    // A division takes as long as 20 multiply-adds; of 32 bits, half of that.
    const int64_t size = blocks == 1 ? left : static_cast<uint32_t>(left + blocks - 1) / static_cast<uint32_t>(blocks);
    // clang-format off
    switch (size) {
      case 1: body.template operator()<1>(i); break;
      case 2: body.template operator()<2>(i); break;
      case 3: if constexpr (kMost >= 3) body.template operator()<3>(i); break;
      case 4: if constexpr (kMost >= 4) body.template operator()<4>(i); break;
      case 5: if constexpr (kMost >= 5) body.template operator()<5>(i); break;
      case 6: if constexpr (kMost >= 6) body.template operator()<6>(i); break;
      case 7: if constexpr (kMost >= 7) body.template operator()<7>(i); break;
      case 8: if constexpr (kMost >= 8) body.template operator()<8>(i); break;
    }
    // clang-format on
    left -= size, i += size * kLanes<T>;
  }
}

// The same for elements [first, first + count), in blocks of as many vectors as leave the sums in registers. Bit `bit + i` of act
// belongs to element i.
template <int kRows, Pass kPass, class T>
__attribute__((noinline)) void combine(const T* const* in, const T* taps, int64_t n, T* const* out, int64_t first, int64_t count, const Act<T>& act,
                                       int64_t bit) {
  constexpr int kMost = kRows == 4 ? (kBytes == 64 ? 6 : 2) : kRows == 2 ? (kBytes == 64 ? 8 : kBytes == 32 ? 6 : 5) : 8;
  in_blocks<kMost, T>(first, count,
                      [&]<int size>(int64_t i) __attribute__((always_inline)) { block<kRows, size, kPass>(in, taps, n, out, i, act, bit); });
}

// first_out[i] = sum_k taps[k] in[k][i] and second_out[i] = sum_k taps[k] in[k + apart][i], apart < n, which share most rows.
template <int kVectors, class T>
inline __attribute__((always_inline)) void block_two(const T* const* in, const T* taps, int64_t n, int64_t apart, T* first_out, T* second_out,
                                                     int64_t i) {
  using V = vector_t<T>;
  V sum[2][kVectors] = {};
  const auto add = [&]<bool first, bool second>(int64_t k) __attribute__((always_inline)) {
    const T* from = in[k] + i;
    asm("" : "+r"(from));
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      V x = load<V>(from + v * kLanes<T>);
      if (first && second) in_register(x);
      if (first) sum[0][v] += taps[k] * x;
      if (second) sum[1][v] += taps[k - apart] * x;
    }
  };
  int64_t k = 0;
  for (; k < apart; ++k) add.template operator()<true, false>(k);
  for (; k < n; ++k) add.template operator()<true, true>(k);
  for (; k < n + apart; ++k) add.template operator()<false, true>(k);
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    store(first_out + i + v * kLanes<T>, sum[0][v]);
    store(second_out + i + v * kLanes<T>, sum[1][v]);
  }
}

template <class T>
__attribute__((noinline)) void combine_two(const T* const* in, const T* taps, int64_t n, int64_t apart, T* first_out, T* second_out, int64_t first,
                                           int64_t count) {
  if (apart >= n) {
    combine<1, Pass::plain>(in, taps, n, &first_out, first, count, Act<T>{}, 0);
    combine<1, Pass::plain>(in + apart, taps, n, &second_out, first, count, Act<T>{}, 0);
    return;
  }
  in_blocks<kBytes == 16 ? 4 : 6, T>(
      first, count, [&]<int size>(int64_t i) __attribute__((always_inline)) { block_two<size>(in, taps, n, apart, first_out, second_out, i); });
}

template <class T>
inline void combine_plain(int64_t rows, const T* const* in, const T* taps, int64_t n, T* const* out, int64_t first, int64_t count) {
  if (rows == 1) combine<1, Pass::plain>(in, taps, n, out, first, count, Act<T>{}, 0);
  else if (rows == 2) combine<2, Pass::plain>(in, taps, n, out, first, count, Act<T>{}, 0);
  else combine<4, Pass::plain>(in, taps, n, out, first, count, Act<T>{}, 0);
}

// Samples of a pass across that lie one after the other in `count` planes: sample k is element k / count of plane k % count.
template <class T>
struct Windows {
  int64_t count = 0;            // 0: they do not lie so, or two vectors make no shifted one in one instruction
  int64_t places[4], sizes[4];  // of planes: where sample p lies, how many samples it has

  Windows(const std::vector<int64_t>& found, int64_t planes) {
    const int64_t n = found.size();
    if (kBytes != 64 || n < planes || (n + planes - 1) / planes > kLanes<T>) return;
    for (int64_t k = 0; k < n; ++k)
      if (found[k] != found[k % planes] + k / planes) return;
    for (; count < planes; ++count) places[count] = found[count], sizes[count] = (n - count + planes - 1) / planes;
  }
};

#if defined(FASTGAN_AVX512)
// Elements by .. by + lanes - 1 of the two vectors.
template <int by>
inline vector_t<float> shifted(vector_t<float> low, vector_t<float> high) {
  return _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(high), _mm512_castps_si512(low), by));
}

// out[j][i] = sum_k taps[k][j] sample k of element i, for kVectors vectors: each vector is loaded once, and a sample is
// cut out of two. A load that straddles two cache lines takes 2.5 to 4 cycles (Zen 4), a cut one, beside the multiply-adds.
template <int kRows, int kVectors, class T>
inline __attribute__((always_inline)) void block_across(const Windows<T>& windows, const T* row, const T* taps, T* const* out, int64_t i) {
  using V = vector_t<T>;
  V sum[kRows][kVectors] = {};
  for (int64_t p = 0; p < windows.count; ++p) {
    const T* from = row + windows.places[p] + i;
    V window[kVectors + 1];
#pragma GCC unroll 8
    for (int v = 0; v <= kVectors; ++v) window[v] = load<V>(from + v * kLanes<T>);
    const int64_t size = windows.sizes[p], apart = windows.count * kRows;
    const T* tap = taps + p * kRows;
    const auto add = [&]<int by>() __attribute__((always_inline)) {
      if (by >= size) return false;
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        const V x = by == 0 ? window[v] : shifted<by>(window[v], window[v + 1]);
#pragma GCC unroll 4
        for (int j = 0; j < kRows; ++j) sum[j][v] += tap[j] * x;
      }
      tap += apart;
      return true;
    };
    [&]<int... by>(std::integer_sequence<int, by...>)
        __attribute__((always_inline)) { (add.template operator()<by>() && ...); }(std::make_integer_sequence<int, kLanes<T>>{});
  }
#pragma GCC unroll 4
  for (int j = 0; j < kRows; ++j)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) store(out[j] + i + v * kLanes<T>, sum[j][v]);
}

template <int kRows, class T>
__attribute__((noinline)) void across_rows(const Windows<T>& windows, const T* row, const T* taps, T* const* out, int64_t count) {
  in_blocks<kRows == 4 ? 4 : 6, T>(
      0, count, [&]<int size>(int64_t i) __attribute__((always_inline)) { block_across<kRows, size>(windows, row, taps, out, i); });
}
#endif

// A pass across: of `row`, whose samples are windows or, else, at `in`.
template <class T>
inline void across(const Windows<T>& windows, const T* row, const T* const* in, int64_t rows, const T* taps, int64_t n, T* const* out,
                   int64_t count) {
#if defined(FASTGAN_AVX512)
  if (windows.count > 0) {
    if (rows == 1) across_rows<1>(windows, row, taps, out, count);
    else if (rows == 2) across_rows<2>(windows, row, taps, out, count);
    else across_rows<4>(windows, row, taps, out, count);
    return;
  }
#endif
  combine_plain(rows, in, taps, n, out, 0, count);
}
