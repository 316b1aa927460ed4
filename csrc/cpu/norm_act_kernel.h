// Loops of norm_act. Included once per instruction set by each_level.h.
//
// NCHW: a range is a plane, its statistics are single numbers (kVector false). channels_last: a range is whole pixels, cut into
// pieces that meet the same vectors of statistics, one element per channel, repeated where channels are few (kVector true).
// 16-bit types pass through float buffers of kBlock elements, so that one float loop serves three types.

constexpr int64_t kBlock = 4096;  // 16 KiB of float32: what is read twice in a row stays in an L1 cache
constexpr int64_t kLanes = 64;    // partial sums: four vectors of AVX-512 in flight, since one alone waits for each addition

#include "cpu/convert.h"

template <class S, class T>
struct Block {
  T values[std::is_same_v<S, T> ? 1 : kBlock];
  const T* read(const S* from, int64_t n) {
    if constexpr (std::is_same_v<S, T>) return from;
    else return widen(from, values, n), values;
  }
  T* target(S* to) {
    if constexpr (std::is_same_v<S, T>) return to;
    else return values;
  }
  void write(S* to, int64_t n) {
    if constexpr (!std::is_same_v<S, T>) narrow(values, to, n);
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

template <class T>
inline double total(const T* lanes) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < kLanes; ++j) sum += lanes[j];
  return sum;
}

template <class T>
inline double sum_block(const T* x, int64_t n) {
  T lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
#pragma omp simd
    for (int64_t j = 0; j < kLanes; ++j) lanes[j] += x[i + j];
#pragma omp simd
  for (int64_t j = 0; j < n - i; ++j) lanes[j] += x[i + j];
  return total(lanes);
}

// The moments of n elements, in one visit: of their distances from `near`, of which 4 vectors each are summed at once.
template <class T>
inline Moments moments_near(const T* x, int64_t n, T near) {
  T sums[kLanes] = {}, squares[kLanes] = {};
  const auto add = [&](int64_t i, int64_t size) __attribute__((always_inline)) {
#pragma omp simd
    for (int64_t j = 0; j < size; ++j) {
      const T d = x[i + j] - near;
      sums[j] += d;
      squares[j] += d * d;
    }
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) add(i, kLanes);
  add(i, n - i);
  const double sum = total(sums);
  return {near + sum / n, std::max(total(squares) - sum * sum / n, 0.0), n};
}

// Adds those of a plane's next block. It is near the mean of those before it, so that no digits are lost where the mean is far from
// zero: a block of n elements at a distance d from that mean adds n d^2 / 2 or more to the squares of all.
template <class S, class T>
void add_block(Moments& all, Block<S, T>& block, const S* x, int64_t n) {
  const T* v = block.read(x, n);
  all.add(moments_near(v, n, static_cast<T>(all.n ? all.mean : sum_block(v, n) / n)));
}

template <class S, class T>
Moments moments_of_plane(const S* x, int64_t n) {
  Block<S, T> block;
  Moments all;
  for_blocks(n, n, [&](int64_t at, int64_t m, int64_t) { add_block(all, block, x + at, m); });
  return all;
}

// The same of every channel of n elements (whole pixels). lanes: work space of 2 pieces.
template <class S, class T>
void moments_of_pixels(const S* x, int64_t n, int64_t channels, int64_t piece, T* lanes, Moments* moments) {
  Block<S, T> block;
  const int64_t rows = n / channels;
  T *sums = lanes, *means = lanes + piece;
  std::fill(sums, sums + piece, T(0));
  for_blocks(n, piece, [&](int64_t at, int64_t m, int64_t i) {
    const T* v = block.read(x + at, m);
#pragma omp simd
    for (int64_t j = 0; j < m; ++j) sums[i + j] += v[j];
  });
  for (int64_t c = 0; c < channels; ++c) moments[c] = {0, 0, rows};
  for (int64_t j = 0, c = 0; j < piece; ++j, c = c + 1 == channels ? 0 : c + 1) moments[c].mean += sums[j];
  for (int64_t c = 0; c < channels; ++c) moments[c].mean /= rows;
  for (int64_t j = 0, c = 0; j < piece; ++j, c = c + 1 == channels ? 0 : c + 1) means[j] = moments[c].mean;
  std::fill(sums, sums + piece, T(0));
  for_blocks(n, piece, [&](int64_t at, int64_t m, int64_t i) {
    const T* v = block.read(x + at, m);
#pragma omp simd
    for (int64_t j = 0; j < m; ++j) sums[i + j] += (v[j] - means[i + j]) * (v[j] - means[i + j]);
  });
  for (int64_t j = 0, c = 0; j < piece; ++j, c = c + 1 == channels ? 0 : c + 1) moments[c].squares += sums[j];
}

// y = act(weight rstd (x - mean) + bias) + residual: one read (two with a residual), one write.
template <Activation A, bool kVector, bool kResidual, class S, class T>
void forward_range(const S* x, const S* residual, S* y, int64_t n, int64_t piece, const Statistics<T>& s, T alpha) {
  Block<S, T> from, with, to;
  for_blocks(n, piece, [&](int64_t at, int64_t m, int64_t i) {
    const T* v = from.read(x + at, m);
    const T* r = kResidual ? with.read(residual + at, m) : nullptr;
    T* out = to.target(y + at);
    const T *mean = s.mean + (kVector ? i : 0), *scale = s.scale + (kVector ? i : 0), *bias = s.bias + (kVector ? i : 0);
    const T mean0 = mean[0], scale0 = scale[0], bias0 = bias[0];
#pragma omp simd
    for (int64_t j = 0; j < m; ++j) {
      const T t = kVector ? (v[j] - mean[j]) * scale[j] + bias[j] : (v[j] - mean0) * scale0 + bias0;
      const T u = activate<A>(t, alpha);
      out[j] = kResidual ? u + r[j] : u;
    }
    to.write(y + at, m);
  });
}

// The same of a plane, and the moments of the plane at `next` (null: none), block by block in turn: while one is written, the
// other is read. A tensor of 16 MiB takes 0.9 of the time of one after the other.
template <Activation A, bool kResidual, class S, class T>
Moments forward_plane(const S* x, const S* residual, S* y, int64_t n, const Statistics<T>& s, T alpha, const S* next) {
  Block<S, T> block;
  Moments all;
  for_blocks(n, n, [&](int64_t at, int64_t m, int64_t) {
    if (next) add_block(all, block, next + at, m);
    forward_range<A, false, kResidual, S, T>(x + at, kResidual ? residual + at : nullptr, y + at, m, m, s, alpha);
  });
  return all;
}

// g = dy act'(weight xhat + bias)
template <Activation A, class T>
inline __attribute__((always_inline)) T slope_times(T dy, T xhat, T weight, T bias, T alpha) {
  const T t = xhat * weight + bias;
  return times_derivative<A>(dy, A == Activation::swish ? t : activate<A>(t, alpha), alpha);
}

// sum g and sum g xhat of one plane
template <Activation A, class S, class T>
std::pair<double, double> sums_of_plane(const S* dy, const S* x, int64_t n, const Statistics<T>& s, T alpha) {
  Block<S, T> gradient, from;
  const T mean = *s.mean, rstd = *s.rstd, weight = *s.weight, bias = *s.bias;
  std::pair<double, double> sums{0, 0};
  for_blocks(n, n, [&](int64_t at, int64_t m, int64_t) {
    const T *d = gradient.read(dy + at, m), *v = from.read(x + at, m);
    T by_g[kLanes] = {}, by_gx[kLanes] = {};
    const auto add = [&](int64_t i, int64_t size) __attribute__((always_inline)) {
#pragma omp simd
      for (int64_t j = 0; j < size; ++j) {
        const T xhat = (v[i + j] - mean) * rstd, g = slope_times<A>(d[i + j], xhat, weight, bias, alpha);
        by_g[j] += g;
        by_gx[j] += g * xhat;
      }
    };
    int64_t i = 0;
    for (; i + kLanes <= m; i += kLanes) add(i, kLanes);
    add(i, m - i);
    sums.first += total(by_g);
    sums.second += total(by_gx);
  });
  return sums;
}

// The same of every channel of n elements (whole pixels), summed up in sums[0 .. channels) and sums[channels ..): lanes as above.
template <Activation A, class S, class T>
void sums_of_pixels(const S* dy, const S* x, int64_t n, int64_t channels, int64_t piece, const Statistics<T>& s, T alpha, T* lanes,
                    double* sums) {
  Block<S, T> gradient, from;
  T *by_g = lanes, *by_gx = lanes + piece;
  std::fill(lanes, lanes + 2 * piece, T(0));
  for_blocks(n, piece, [&](int64_t at, int64_t m, int64_t i) {
    const T *d = gradient.read(dy + at, m), *v = from.read(x + at, m);
    const T *mean = s.mean + i, *rstd = s.rstd + i, *weight = s.weight + i, *bias = s.bias + i;
#pragma omp simd
    for (int64_t j = 0; j < m; ++j) {
      const T xhat = (v[j] - mean[j]) * rstd[j], g = slope_times<A>(d[j], xhat, weight[j], bias[j], alpha);
      by_g[i + j] += g;
      by_gx[i + j] += g * xhat;
    }
  });
  for (int64_t j = 0, c = 0; j < piece; ++j, c = c + 1 == channels ? 0 : c + 1) {
    sums[c] += by_g[j];
    sums[channels + c] += by_gx[j];
  }
}

// dx = weight rstd (g - mean g - xhat mean(g xhat)): g anew, since a tensor of it would cost more than its arithmetic.
template <Activation A, bool kVector, class S, class T>
void backward_range(const S* dy, const S* x, S* dx, int64_t n, int64_t piece, const Statistics<T>& s, T alpha) {
  Block<S, T> gradient, from, to;
  for_blocks(n, piece, [&](int64_t at, int64_t m, int64_t i) {
    const T *d = gradient.read(dy + at, m), *v = from.read(x + at, m);
    T* out = to.target(dx + at);
    const int64_t k = kVector ? i : 0;
    const T *mean = s.mean + k, *rstd = s.rstd + k, *weight = s.weight + k, *bias = s.bias + k, *scale = s.scale + k;
    const T *mean_g = s.mean_g + k, *mean_gx = s.mean_gx + k;
    const T mean0 = *mean, rstd0 = *rstd, weight0 = *weight, bias0 = *bias, scale0 = *scale, g0 = *mean_g, gx0 = *mean_gx;
#pragma omp simd
    for (int64_t j = 0; j < m; ++j) {
      const T xhat = kVector ? (v[j] - mean[j]) * rstd[j] : (v[j] - mean0) * rstd0;
      const T g = slope_times<A>(d[j], xhat, kVector ? weight[j] : weight0, kVector ? bias[j] : bias0, alpha);
      out[j] = kVector ? scale[j] * (g - mean_g[j] - xhat * mean_gx[j]) : scale0 * (g - g0 - xhat * gx0);
    }
    to.write(dx + at, m);
  });
}
