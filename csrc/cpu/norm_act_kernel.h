// Ranges of norm_act. Included once per instruction set by each_level.h.
//
// NCHW: a range is a plane, its statistics are single numbers. channels_last: a range is whole pixels, cut into pieces that meet the
// same vectors of statistics, one element per channel, repeated where channels are few (`vector`). Both go block by block; 16-bit
// types pass through float buffers, so that one loop serves three types.

#include "cpu/convert.h"

constexpr int64_t kBlock = 4096;  // 16 KiB of float32: what is read twice in a row stays in an L1 cache

template <class T>
struct Block {
  T values[kBlock];
  const T* read(Elements<T> from, int64_t n) {
    if (const T* direct = from.direct()) return direct;
    return widen(from, values, n), values;
  }
  T* target(Elements<T> to) { return to.direct() ? to.direct() : values; }
  void write(Elements<T> to, int64_t n) {
    if (!to.direct()) narrow(values, to, n);
  }
};

// body(at, size, in_piece): every block of n elements, none across the end of a piece; in_piece: where in its piece it starts.
template <class Body>
inline __attribute__((always_inline)) void for_blocks(int64_t n, int64_t piece, const Body& body) {
  for (int64_t start = 0; start < n; start += piece) {
    const int64_t size = std::min(piece, n - start);
    for (int64_t i = 0; i < size; i += kBlock) body(start + i, std::min(kBlock, size - i), i);
  }
}

#include "cpu/norm_act_moments.h"
#include "cpu/norm_act_loops.h"

// n elements: whole pixels
template <class T>
void forward_range(Activation act, Elements<T> x, Elements<T> residual, Elements<T> y, int64_t n, int64_t piece, const Statistics<T>& s, T alpha) {
  Block<T> from, with, to;
  const auto loop = forward_loop<T>(act, true, bool(residual));
  for_blocks(n, piece, [&](int64_t at, int64_t m, int64_t i) {
    const T *v = from.read(x + at, m), *r = residual ? with.read(residual + at, m) : nullptr;
    loop(v, r, to.target(y + at), m, s.from(i), alpha);
    to.write(y + at, m);
  });
}

// The same of a plane, and the moments of the plane at `next` (null: none), block by block in turn: while one is written, the
// other is read. A tensor of 16 MiB takes 0.9 of the time of one after the other.
template <class T>
Moments forward_plane(Activation act, Elements<T> x, Elements<T> residual, Elements<T> y, int64_t n, const Statistics<T>& s, T alpha,
                      Elements<T> next) {
  Block<T> block, from, with, to;
  const auto loop = forward_loop<T>(act, false, bool(residual));
  Moments all;
  for_blocks(n, n, [&](int64_t at, int64_t m, int64_t) {
    if (next) add_block(all, block, next + at, m);
    const T *v = from.read(x + at, m), *r = residual ? with.read(residual + at, m) : nullptr;
    loop(v, r, to.target(y + at), m, s, alpha);
    to.write(y + at, m);
  });
  return all;
}

// dx of one plane -> sum g and sum g xhat
template <class T>
std::pair<double, double> backward_plane(Activation act, Elements<T> dy, Elements<T> x, Elements<T> dx, int64_t n, Statistics<T> s, T alpha) {
  Block<T> gradient, from, to;
  const Backward<T> loop(act, false);
  std::pair<double, double> sums{0, 0};
  for_blocks(n, n, [&](int64_t at, int64_t m, int64_t) {
    const auto [g, gx] = loop.sums(gradient.read(dy + at, m), from.read(x + at, m), m, s, alpha);
    sums.first += g;
    sums.second += gx;
  });
  const T mean_g = mean_of(sums.first, n, *s.weight), mean_gx = static_cast<T>(sums.second / n);
  s.mean_g = &mean_g, s.mean_gx = &mean_gx;
  for_blocks(n, n, [&](int64_t at, int64_t m, int64_t) {
    loop.map(gradient.read(dy + at, m), from.read(x + at, m), to.target(dx + at), m, s, alpha);
    to.write(dx + at, m);
  });
  return sums;
}

// sum g and sum g xhat of every channel of n elements (whole pixels), added to sums[0 .. channels) and sums[channels ..). lanes: work
// space of 2 pieces.
template <class T>
void sums_of_pixels(Activation act, Elements<T> dy, Elements<T> x, int64_t n, int64_t channels, int64_t piece, const Statistics<T>& s, T alpha,
                    T* lanes, double* sums) {
  Block<T> gradient, from;
  const Backward<T> loop(act, true);
  T *by_g = lanes, *by_gx = lanes + piece;
  std::fill(lanes, lanes + 2 * piece, T(0));
  for_blocks(n, piece, [&](int64_t at, int64_t m, int64_t i) {
    loop.sums_of_each(gradient.read(dy + at, m), from.read(x + at, m), m, s.from(i), alpha, by_g + i, by_gx + i);
  });
  for (int64_t j = 0, c = 0; j < piece; ++j, c = c + 1 == channels ? 0 : c + 1) {
    sums[c] += by_g[j];
    sums[channels + c] += by_gx[j];
  }
}

// dx of n elements: whole pixels, whose means are known
template <class T>
void backward_range(Activation act, Elements<T> dy, Elements<T> x, Elements<T> dx, int64_t n, int64_t piece, const Statistics<T>& s, T alpha) {
  Block<T> gradient, from, to;
  const Backward<T> loop(act, true);
  for_blocks(n, piece, [&](int64_t at, int64_t m, int64_t i) {
    loop.map(gradient.read(dy + at, m), from.read(x + at, m), to.target(dx + at), m, s.from(i), alpha);
    to.write(dx + at, m);
  });
}
