// Loops of bias_act on a dense tensor. Included once per instruction set by each_level.h.
//
// A range is `n` elements in pieces (bias_act_units.h). The bias of a piece is one number (channel outside of it: NCHW) or a vector
// of numbers (channel inside: channels_last, linear layers). 16-bit types pass through float buffers, so that one loop serves
// three types; a loop is chosen by its activation once per range.

#include "cpu/convert.h"

constexpr int64_t kChunk = 512;  // elements that are converted, and whose gradients are summed, while they are in the L1 cache

// y = clip(gain act(x + b)): one read, one write, 2 to 20 flops per element: bandwidth-bound for every activation in float32.
template <Activation A, bool kVectorBias, class T>
void forward(const T* x, const T* bias, int64_t channel, T* y, int64_t n, const BiasUnits& units, T alpha, T gain, T clamp) {
  for (int64_t start = 0; start < n; start += units.piece) {
    const int64_t size = std::min(units.piece, n - start);
    const T *from = x + start, *b = bias + channel;
    const T b0 = b[0];
    T* to = y + start;
#pragma omp simd
    for (int64_t i = 0; i < size; ++i) {
      T v = gain * activate<A>(from[i] + (kVectorBias ? b[i] : b0), alpha);
      v = v < -clamp ? -clamp : v;
      to[i] = v > clamp ? clamp : v;
    }
    if (!kVectorBias && ++channel == units.channels) channel = 0;
  }
}

// dx = dy gain act'(s), dy counting as 0 where |y| >= clamp. `saved` is y, or x where kSavesInput.
template <Activation A, bool kVectorBias, class T>
void backward(const T* dy, const T* saved, const T* bias, int64_t channel, T* dx, int64_t n, const BiasUnits& units, T alpha, T gain, T clamp) {
  const T inverse = T(1) / gain;
  for (int64_t start = 0; start < n; start += units.piece) {
    const int64_t size = std::min(units.piece, n - start);
    const T *from = dy + start, *with = saved + start, *b = bias + channel;
    const T b0 = b[0];
    T* to = dx + start;
#pragma omp simd
    for (int64_t i = 0; i < size; ++i) {
      const T t = kSavesInput<A> ? with[i] + (kVectorBias ? b[i] : b0) : with[i] * inverse;
      const T y = kSavesInput<A> ? gain * activate<A>(t, alpha) : with[i];
      const T d = (y < T(0) ? -y : y) >= clamp ? T(0) : from[i] * gain;
      to[i] = times_derivative<A>(d, t, alpha);
    }
    if (!kVectorBias && ++channel == units.channels) channel = 0;
  }
}

template <bool kVectorBias, class T>
auto forward_loop(Activation act) {
  static constexpr auto loops = []<int... A>(std::integer_sequence<int, A...>) {
    return std::array{forward<static_cast<Activation>(A), kVectorBias, T>...};
  }(std::make_integer_sequence<int, kActivations>());
  return loops[static_cast<int>(act)];
}

template <bool kVectorBias, class T>
auto backward_loop(Activation act) {
  static constexpr auto loops = []<int... A>(std::integer_sequence<int, A...>) {
    return std::array{backward<static_cast<Activation>(A), kVectorBias, T>...};
  }(std::make_integer_sequence<int, kActivations>());
  return loops[static_cast<int>(act)];
}

template <class T>
inline void scale(const T* dy, T* dx, int64_t n, T gain) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) dx[i] = dy[i] * gain;
}

template <class T>
inline double sum(const T* v, int64_t n) {
  T total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < n; ++i) total += v[i];
  return total;
}

// Of [at, at + size) in a range: the number of the piece it begins in, and where in it.
struct Chunk {
  int64_t at, size, piece, within;
};

// body(chunk): whole pieces, as many as are kChunk elements (at most `most`), or a part of a longer one.
template <class Body>
inline void for_chunks(int64_t n, int64_t piece, int64_t most, const Body& body) {
  const int64_t pieces = std::clamp<int64_t>(kChunk / piece, 1, most), whole = pieces * piece;
  for (int64_t start = 0, p = 0; start < n; start += whole, p += pieces) {
    const int64_t size = std::min(whole, n - start), step = pieces > 1 ? whole : kChunk;
    for (int64_t i = 0; i < size; i += step) body(Chunk{start + i, std::min(step, size - i), p, i});
  }
}

// One unit. channel: that of its first piece.
template <class T>
void forward_unit(Activation act, Elements<T> x, const T* bias, int64_t channel, Elements<T> y, int64_t n, const BiasUnits& units, T alpha, T gain,
                  T clamp) {
  const bool vector = units.vector_bias();
  const auto loop = vector ? forward_loop<true, T>(act) : forward_loop<false, T>(act);
  if (const T* from = x.direct()) {
    loop(from, bias, channel, y.direct(), n, units, alpha, gain, clamp);
  } else {
    T buffer[kChunk];
    for_chunks(n, units.piece, vector ? 1 : kChunk, [&](const Chunk& c) {
      widen(x + c.at, buffer, c.size);
      if (vector) loop(buffer, bias + c.within, 0, buffer, c.size, units, alpha, gain, clamp);
      else loop(buffer, bias, (channel + c.piece) % units.channels, buffer, c.size, units, alpha, gain, clamp);
      narrow(buffer, y + c.at, c.size);
    });
  }
}

// The same for the backward; saved is null for an unclamped linear. `sums` (null: not wanted) receives the bias gradient: a number
// per piece, or per element of a piece.
template <class T>
void backward_unit(Activation act, Elements<T> dy, Elements<T> saved, const T* bias, int64_t channel, Elements<T> dx, T* sums, int64_t n,
                   const BiasUnits& units, T alpha, T gain, T clamp) {
  const bool direct = dy.direct();
  const bool vector = units.vector_bias();
  const auto loop = vector ? backward_loop<true, T>(act) : backward_loop<false, T>(act);
  T dy_buffer[kChunk], saved_buffer[kChunk];
  double total = 0;
  for_chunks(n, units.piece, vector ? 1 : kChunk, [&](const Chunk& c) {
    const T *from, *with = nullptr;
    T* to;
    if (direct) {
      from = dy.direct() + c.at, to = dx.direct() + c.at;
      if (saved) with = saved.direct() + c.at;
    } else {
      widen(dy + c.at, dy_buffer, c.size);
      if (saved) widen(saved + c.at, saved_buffer, c.size);
      from = to = dy_buffer, with = saved_buffer;
    }
    if (!saved) scale(from, to, c.size, gain);
    else if (vector) loop(from, with, bias + c.within, 0, to, c.size, units, alpha, gain, clamp);
    else loop(from, with, bias, (channel + c.piece) % units.channels, to, c.size, units, alpha, gain, clamp);
    if (sums && vector) {
      for (int64_t j = 0; j < c.size; ++j) sums[c.within + j] += to[j];
    } else if (sums) {
      for (int64_t i = 0, p = c.piece; i < c.size; i += units.piece, ++p) {
        if (c.within == 0) total = 0;
        total += sum(to + i, std::min(units.piece, c.size - i));
        sums[p] = static_cast<T>(total);
      }
    }
    if (!direct) narrow(to, dx + c.at, c.size);
  });
}
