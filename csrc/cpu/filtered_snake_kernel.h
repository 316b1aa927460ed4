// Loops of filtered_snake on one unit of one row. Included once per instruction set by each_level.h.
//
// x into planes, a pass up with the snake in registers to planes of v, a pass down to y: 24 multiply-adds and two sines of 9 per
// element of x with 12 taps and a factor of 2. All of it stays in the L1 cache. Taps lie an element apart, so that most loads are of
// two lines of memory: at 64 bytes a vector these, not the multiply-adds, took the time.

#include "cpu/convert.h"
#include "cpu/vectors.h"
#include "cpu/transpose.h"
#include "snake.h"

using snaked::BackwardUnit;
using snaked::Both;
using snaked::ForwardUnit;
using snaked::Pass;
using snaked::Plan;
using snaked::Planes;
using snaked::Source;

template <class T>
inline vector_t<T> nearest(vector_t<T> u) {
#if defined(FASTGAN_AVX512)
  return _mm512_roundscale_ps(u, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(FASTGAN_AVX2)
  if constexpr (std::is_same_v<T, float>) return _mm256_round_ps(u, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  else return _mm256_round_pd(u, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  constexpr T large = std::is_same_v<T, float> ? T(0x1.8p23) : T(0x1.8p52);
  return (u + large) - large;
#endif
}

// Of one channel.
template <class T>
struct Channel {
  T turns, amplitude, slope;  // a / pi, c, a c
  Channel(T a, T c) : turns(static_cast<T>(a / kPi)), amplitude(c), slope(a * c) {}
};

// f and f^2 of csrc/snake.h. The portable rounding is exact up to |u| = 2^22 only; the square stays in its range beyond.
template <class T>
struct Phase {
  vector_t<T> f, square;
  explicit Phase(vector_t<T> u) : f(u - nearest<T>(u)), square(f * f) {
    if (kBytes == 16) square = smaller<T>(splat(T(0.25)), square);
  }
};

template <class T>
inline vector_t<T> activated(vector_t<T> t, const Channel<T>& channel) {
  const Phase<T> phase(t * channel.turns);
  return t + channel.amplitude * square_of_sine<T>(phase.square);
}

// dt = g (1 + c a sin 2at); adds g t sin 2at and g sin^2 at to the sums.
template <class T>
inline vector_t<T> turned_back(vector_t<T> t, vector_t<T> g, const Channel<T>& channel, vector_t<T>& by_a, vector_t<T>& by_c) {
  const Phase<T> phase(t * channel.turns);
  const vector_t<T> sine = g * sine_of_double<T>(phase.f, phase.square);
  by_a += t * sine;
  by_c += g * square_of_sine<T>(phase.square);
  return g + channel.slope * sine;
}

// The taps of one output plane, or of two, as pointers to what element 0 of it reads.
template <class T>
inline int64_t aim(const std::vector<snaked::Tap<T>>& taps, const Planes<T>& in, Source<T>* sources) {
  for (size_t k = 0; k < taps.size(); ++k) sources[k] = {in.at(taps[k].plane, taps[k].shift), taps[k].weight, 0};
  return taps.size();
}
template <class T>
inline Both<T> aim(const snaked::Pair<T>& pair, const Planes<T>& in, Source<T>* sources) {
  const int64_t n = aim(pair.taps, in, sources);
  for (int64_t k = 0; k < n; ++k) sources[k].other = pair.others[k];
  return {pair.first, pair.both, n};
}

// As in_register, with AVX-512 too: loads across two lines of memory, which most of these are, take the time of two.
template <class V>
inline __attribute__((always_inline)) void loaded_once([[maybe_unused]] V& v) {
#if defined(FASTGAN_AVX512)
  asm("" : "+v"(v));
#else
  in_register(v);
#endif
}

#if defined(FASTGAN_AVX512)
// Adds `weight` times the vectors from `from`, which lies `shift` > 0 elements behind a line of memory, made in registers of whole lines.
// Each line has something of them.
template <int kVectors>
inline __attribute__((always_inline)) void add_turned(const float* from, int shift, float weight, vector_t<float>* sum) {
  using V = vector_t<float>;
  const __m512i places = _mm512_add_epi32(_mm512_set1_epi32(shift), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  from -= shift;
  V before = load<V>(from);
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    V after = load<V>(from + (v + 1) * kLanes<float>);
    loaded_once(after);
    sum[v] += weight * V(_mm512_permutex2var_ps(before, places, after));
    before = after;
  }
}
#endif

template <int kVectors, class T, class Then>
inline __attribute__((always_inline)) void block(const Source<T>* sources, int64_t n, int64_t i, const Then& then) {
  using V = vector_t<T>;
  V sum[kVectors] = {};
  for (int64_t k = 0; k < n; ++k) {
    const T* from = sources[k].from + i;
    const T weight = sources[k].weight;
#if defined(FASTGAN_AVX512)
    // A load across two lines takes the time of two, a shuffle that of one multiplication: half of the taps by each.
    const int shift = reinterpret_cast<uintptr_t>(from) % kBytes / sizeof(T);
    if (kVectors > 1 && k % 2 && shift) {
      add_turned<kVectors>(from, shift, weight, sum);
      continue;
    }
#endif
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sum[v] += weight * load<V>(from + v * kLanes<T>);
  }
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) then(i + v * kLanes<T>, sum[v]);
}

// Of two output planes: what both read is loaded once.
template <int kVectors, class T, class Then>
inline __attribute__((always_inline)) void block(const Source<T>* sources, const Both<T>& n, int64_t i, const Then& then) {
  using V = vector_t<T>;
  V sum[kVectors] = {}, other[kVectors] = {};
  int64_t k = 0;
  for (; k < n.first; ++k) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sum[v] += sources[k].weight * load<V>(sources[k].from + i + v * kLanes<T>);
  }
  for (; k < n.both; ++k) {
    const T weight = sources[k].weight, of_other = sources[k].other;
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      V read = load<V>(sources[k].from + i + v * kLanes<T>);
      loaded_once(read);
      sum[v] += weight * read, other[v] += of_other * read;
    }
  }
  for (; k < n.all; ++k) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) other[v] += sources[k].other * load<V>(sources[k].from + i + v * kLanes<T>);
  }
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) then(i + v * kLanes<T>, sum[v], other[v]);
}

// then(i, sum of the taps at i) for whole vectors that cover [first, last); n: of one plane or of two.
template <class T, class Count, class Then>
inline __attribute__((always_inline)) void sums(const Source<T>* sources, const Count& n, int64_t first, int64_t last, const Then& then) {
  constexpr int64_t lanes = kLanes<T>;
  constexpr int kMost = std::is_same_v<Count, int64_t> ? 8 : kBytes == 64 ? 8 : 4;
  int64_t i = first;
  for (; i + (kMost - 1) * lanes < last; i += kMost * lanes) block<kMost>(sources, n, i, then);
  if (kMost > 4 && i + 3 * lanes < last) block<4>(sources, n, i, then), i += 4 * lanes;
  for (; i < last; i += lanes) block<1>(sources, n, i, then);
}

// What then(plane, i, sum) makes of one plane or of two.
template <class T, class Count, class Then>
inline __attribute__((always_inline)) void each_sum(const Source<T>* sources, const Count& n, int64_t first, int64_t last, const Then& then) {
  using V = vector_t<T>;
  if constexpr (std::is_same_v<Count, int64_t>) {
    sums(sources, n, first, last, [&](int64_t i, V sum) __attribute__((always_inline)) { then(0, i, sum); });
  } else {
    sums(sources, n, first, last, [&](int64_t i, V sum, V other) __attribute__((always_inline)) { then(0, i, sum), then(1, i, other); });
  }
}

// pitch: from one plane to the next.
template <class T, class Count>
__attribute__((noinline)) void plain_sums(const Source<T>* sources, Count n, int64_t first, int64_t last, T* to, int64_t pitch) {
  each_sum(sources, n, first, last, [=](int e, int64_t i, vector_t<T> sum) __attribute__((always_inline)) { store(to + e * pitch + i, sum); });
}

template <class T, class Count>
__attribute__((noinline)) void activated_sums(const Source<T>* sources, Count n, int64_t first, int64_t last, T* to, int64_t pitch,
                                              const Channel<T>& of) {
  const Channel<T> channel = of;  // stores cannot reach it
  each_sum(sources, n, first, last,
           [=, &channel](int e, int64_t i, vector_t<T> t) __attribute__((always_inline)) { store(to + e * pitch + i, activated<T>(t, channel)); });
}

template <class T, class Count>
__attribute__((noinline)) void turned_back_sums(const Source<T>* sources, Count n, int64_t first, int64_t last, const T* g, int64_t g_pitch, T* to,
                                                int64_t pitch, const Channel<T>& of, vector_t<T>& by_a, vector_t<T>& by_c) {
  using V = vector_t<T>;
  const Channel<T> channel = of;
  V sum_a = by_a, sum_c = by_c;
  each_sum(sources, n, first, last, [&](int e, int64_t i, V t) __attribute__((always_inline)) {
    store(to + e * pitch + i, turned_back<T>(t, load<V>(g + e * g_pitch + i), channel, sum_a, sum_c));
  });
  by_a = sum_a, by_c = sum_c;
}

// run(n, plane): the sums of each pair of planes, and of the last one of an odd number; n is how many sources they have.
template <class T, class Run>
inline __attribute__((always_inline)) void each_output(const Pass<T>& pass, const Planes<T>& in, Source<T>* sources, const Run& run) {
  for (size_t p = 0; p < pass.pairs.size(); ++p) run(aim(pass.pairs[p], in, sources), 2 * p);
  if (pass.taps.size() % 2) run(aim(pass.taps.back(), in, sources), pass.taps.size() - 1);
}

template <class T>
inline void plain_pass(const Pass<T>& pass, const Planes<T>& in, const Planes<T>& out, int64_t first, int64_t last, Source<T>* sources) {
  each_output(pass, in, sources, [&](auto n, int64_t e) { plain_sums(sources, n, first, last, out.at(e, 0), out.length()); });
}

// A row of `size` samples in planes: its first and last sample over `held` places beyond each end, 0 beyond them.
template <class T>
void take(Elements<T> row, int64_t size, int64_t held, Planes<T>& to) {
  if (row.direct() && to.count == 1 && to.first >= 0 && to.last <= size) {  // read where it lies
    to.data = row.direct() + to.first;
    return;
  }
  if (to.count > 1) {
    for (int64_t e = 0; e < to.count; ++e)
      for (int64_t i = to.first; i < to.last; ++i) {
        const int64_t at = i * to.count + e;
        *to.at(e, i) = at < -held || at >= size + held ? T(0) : get(row, std::clamp<int64_t>(at, 0, size - 1));
      }
    return;
  }
  T* const out = to.at(0, 0);
  const auto fill = [&](int64_t from, int64_t until, T value) {
    for (int64_t i = std::max(from, to.first); i < std::min(until, to.last); ++i) out[i] = value;
  };
  const int64_t from = std::clamp<int64_t>(to.first, 0, size), until = std::clamp<int64_t>(to.last, from, size);
  fill(to.first, -held, T(0));
  fill(-held, 0, get(row, 0));
  widen(row + from, out + from, until - from);
  fill(size, size + held, get(row, size - 1));
  fill(std::max(to.first, size + held), to.last, T(0));
}

// Lets the planes be a part of the row that they are the result of, where whole vectors of it are.
template <class T>
inline bool written_in_place(Planes<T>& planes, int64_t size, Elements<T> row) {
  if (!row.direct() || planes.count != 1 || planes.first < 0 || planes.last > size) return false;
  planes.data = row.direct() + planes.first;
  return true;
}

// Elements [begin, end) of the signal.
template <class T>
void give(const Planes<T>& from, int64_t begin, int64_t end, Elements<T> row) {
  if (from.count == 1) return narrow(from.at(0, begin), row + begin, end - begin);
  T buffer[256];
  for (int64_t start = begin; start < end; start += 256) {
    const int64_t n = std::min<int64_t>(256, end - start);
    for (int64_t i = 0; i < n; ++i) buffer[i] = from.element(start + i);
    narrow(buffer, row + start, n);
  }
}

// Sets elements [begin, end) of the signal, as far as the planes have them.
template <class T>
void fill(const Planes<T>& planes, int64_t begin, int64_t end, T value) {
  for (int64_t at = std::max(begin, planes.first * planes.count); at < std::min(end, planes.last * planes.count); ++at) planes.element(at) = value;
}

// Adds elements [-before, 0) to the first and [size, size + after) to the last of `size`.
template <class T>
void fold(const Planes<T>& planes, int64_t size, int64_t before, int64_t after) {
  if (planes.first <= 0)
    for (int64_t at = -before; at < 0; ++at) planes.element(0) += planes.element(at);
  if (planes.last * planes.count >= size + after)
    for (int64_t at = size; at < size + after; ++at) planes.element(size - 1) += planes.element(at);
}

template <class T>
inline void place(std::initializer_list<Planes<T>*> all, T* work) {
  for (Planes<T>* planes : all) planes->data = work, work += planes->count * planes->length();
}

// Unit u of a row; work: ForwardUnit::elements() numbers, sources: as many as two planes have taps.
template <class T>
void forward_unit(const Plan<T>& plan, int64_t u, Elements<T> x_row, T a, T c, Elements<T> y_row, T* work, Source<T>* sources) {
  ForwardUnit<T> at(plan, u);
  place({&at.y, &at.v, &at.x}, work);
  take(x_row, plan.x_size, plan.held, at.x);
  const Channel<T> channel(a, c);
  each_output(plan.rise, at.x, sources,
              [&](auto n, int64_t e) { activated_sums(sources, n, at.first, at.last, at.v.at(e, 0), at.v.length(), channel); });
  if (at.v.first < 0) fill(at.v, at.v.first * plan.phases, 0, at.v.element(0));
  if (at.last == plan.places) fill(at.v, plan.t_size, at.v.last * plan.phases, at.v.element(plan.t_size - 1));
  const bool in_place = written_in_place(at.y, plan.y_size, y_row);
  plain_pass(plan.fall, at.v, at.y, at.begin, at.end, sources);
  if (!in_place) give(at.y, at.begin * plan.y_phases, std::min(at.end * plan.y_phases, plan.y_size), y_row);
}

// sums: of g t sin 2at and of g sin^2 at over the t of this unit.
template <class T>
void backward_unit(const Plan<T>& plan, int64_t u, Elements<T> dy_row, Elements<T> x_row, T a, T c, Elements<T> dx_row, double* found, T* work,
                   Source<T>* sources) {
  using V = vector_t<T>;
  BackwardUnit<T> at(plan, u);
  place({&at.dx, &at.dt, &at.g, &at.dy, &at.x}, work);
  take(dy_row, plan.y_size, 0, at.dy);
  plain_pass(plan.fall_back, at.dy, at.g, at.g.first, at.g.last, sources);
  fold(at.g, plan.t_size, plan.before, plan.after);
  fill(at.g, plan.t_size, at.g.last * plan.phases, T(0));
  take(x_row, plan.x_size, plan.held, at.x);
  const Channel<T> channel(a, c);
  V by_a{}, by_c{}, others{};
  each_output(plan.rise, at.x, sources, [&](auto n, int64_t e) {
    const auto part = [&](int64_t first, int64_t last, V& by_a, V& by_c) {
      turned_back_sums(sources, n, first, last, at.g.at(e, 0), at.g.length(), at.dt.at(e, 0), at.dt.length(), channel, by_a, by_c);
    };
    part(at.first, at.begin, others, others);
    part(at.begin, at.end, by_a, by_c);
    part(at.end, at.last, others, others);
  });
  fill(at.dt, at.dt.first * plan.phases, 0, T(0));
  fill(at.dt, plan.t_size, at.dt.last * plan.phases, T(0));
  const bool in_place = written_in_place(at.dx, plan.x_size, dx_row);
  plain_pass(plan.rise_back, at.dt, at.dx, at.dx.first, at.dx.last, sources);
  fold(at.dx, plan.x_size, plan.held, plan.held);
  if (!in_place) give(at.dx, at.begin * plan.x_phases, std::min(at.end * plan.x_phases, plan.x_size), dx_row);
  found[0] = found[1] = 0;
  for (int k = 0; k < kLanes<T>; ++k) found[0] += by_a[k], found[1] += by_c[k];
}

// The same of n elements without filters.
constexpr int64_t kPiece = 512;

template <class T>
void forward_range(Elements<T> x, Elements<T> y, int64_t n, T a, T c) {
  const Channel<T> channel(a, c);
  alignas(64) T piece[kPiece];
  for (int64_t start = 0; start < n; start += kPiece) {
    const int64_t m = std::min(kPiece, n - start);
    widen(x + start, piece, m);
    for (int64_t i = m; i % kLanes<T>; ++i) piece[i] = 0;
    for (int64_t i = 0; i < m; i += kLanes<T>) store(piece + i, activated<T>(load<vector_t<T>>(piece + i), channel));
    narrow(piece, y + start, m);
  }
}

template <class T>
void backward_range(Elements<T> dy, Elements<T> x, Elements<T> dx, int64_t n, T a, T c, double* found) {
  const Channel<T> channel(a, c);
  alignas(64) T t[kPiece], g[kPiece];
  found[0] = found[1] = 0;
  for (int64_t start = 0; start < n; start += kPiece) {
    const int64_t m = std::min(kPiece, n - start);
    widen(x + start, t, m);
    widen(dy + start, g, m);
    for (int64_t i = m; i % kLanes<T>; ++i) t[i] = g[i] = 0;
    vector_t<T> by_a{}, by_c{};
    for (int64_t i = 0; i < m; i += kLanes<T>) store(g + i, turned_back<T>(load<vector_t<T>>(t + i), load<vector_t<T>>(g + i), channel, by_a, by_c));
    narrow(g, dx + start, m);
    for (int k = 0; k < kLanes<T>; ++k) found[0] += by_a[k], found[1] += by_c[k];
  }
}
