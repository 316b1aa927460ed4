// norm_act on the CPU. NCHW: a plane is one block of memory, normalised by one thread in one visit. channels_last: a visit for the
// statistics, unit by unit, and one for the map. A tensor whose samples are interleaved is copied first. Stores past the caches
// were tried: 5% faster alone, slower with a reader of the output after it (16 MiB outputs, 32 MiB of L3).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "activation.h"
#include "check.h"
#include "cpu/elements.h"
#include "cpu/level.h"
#include "cpu/memory.h"
#include "cpu/norm_act_units.h"

#define FASTGAN_KERNEL "cpu/norm_act_kernel.h"
#include "cpu/each_level.h"

namespace fastgan {
namespace {

constexpr int64_t kTwoPlanes = 512 << 10;  // bytes that stay in an L2 cache from their first visit to their second

// A dense [N, C, ...]: in planes, every plane is `pixels` consecutive elements; else every sample is [pixels, channels].
struct Shape {
  int64_t samples, channels, pixels = 1;
  bool planes, samples_whole;
  int64_t sample_stride, channel_stride;

  explicit Shape(const Tensor& x) : samples(x.size(0)), channels(x.size(1)), sample_stride(x.stride(0)), channel_stride(x.stride(1)) {
    int64_t span = 1;  // of a plane, in elements
    for (int64_t d = 2; d < x.dim(); ++d) {
      pixels *= x.size(d);
      span += (x.size(d) - 1) * x.stride(d);
    }
    planes = span == pixels;
    samples_whole = planes || (channel_stride == 1 && span == (pixels - 1) * channels + 1);
  }
  int64_t planes_count() const { return samples * channels; }
  int64_t plane(int64_t p) const { return p / channels * sample_stride + p % channels * channel_stride; }
};

Tensor planes_or_pixels(const Tensor& x) {
  const Tensor y = dense(x);
  return x.numel() == 0 || Shape(y).samples_whole ? y : torch::stable::contiguous(y);
}

// rows vectors of `channels` elements, each repeated to a piece.
template <class T>
std::vector<T> pieces(const T* values, int64_t rows, int64_t channels, int64_t piece) {
  std::vector<T> repeated(rows * piece);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < piece; ++j) repeated[r * piece + j] = values[r * channels + j % channels];
  return repeated;
}

template <class Body>
void for_ranges(int64_t count, int64_t elements, const Body& body) {
  torch::stable::parallel_for(0, count, std::max<int64_t>(1, 32768 / std::max<int64_t>(1, elements)),
                              [&](int64_t first, int64_t last) { body(first, last); });
}

template <class Body>
void for_each(int64_t count, int64_t elements, const Body& body) {
  for_ranges(count, elements, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) body(i);
  });
}

template <class T>
struct Work {
  Activation act;
  Shape shape;
  PixelUnits units;
  std::vector<T> weight, bias, scale;  // [C], [C], [N, C]
  T *mean, *rstd;                      // [N, C]
  T alpha;

  Work(Activation act, const Tensor& x, const std::optional<Tensor>& w, const std::optional<Tensor>& b, Tensor& mean, Tensor& rstd, double alpha)
      : act(act), shape(x), units(shape.samples, shape.channels, shape.pixels), weight(w ? numbers<T>(*w) : std::vector<T>(shape.channels, T(1))),
        bias(b ? numbers<T>(*b) : std::vector<T>(shape.channels, T(0))), scale(shape.planes_count()), mean(mutable_pointer<T>(mean)),
        rstd(mutable_pointer<T>(rstd)), alpha(alpha) {}

  void set_scale(int64_t p) { scale[p] = weight[p % shape.channels] * rstd[p]; }
  void set(int64_t p, const Moments& m, double eps) {
    mean[p] = static_cast<T>(m.mean);
    rstd[p] = static_cast<T>(1 / std::sqrt(m.squares / m.n + eps));
    set_scale(p);
  }
  Statistics<T> of_plane(int64_t p) const {
    const int64_t c = p % shape.channels;
    return {mean + p, rstd + p, &weight[c], &bias[c], &scale[p]};
  }
};

template <class T>
void forward_planes(Work<T>& w, Elements<T> x, Elements<T> residual, Elements<T> y, double eps) {
  const int64_t n = w.shape.pixels;
  const bool together = 2 * n * x.size() <= kTwoPlanes;
  for_ranges(w.shape.planes_count(), n, [&](int64_t first, int64_t last) {
    Moments moments;
    for (int64_t p = first; p < last; ++p) {
      const int64_t at = w.shape.plane(p);
      if (!together || p == first) moments = FASTGAN_AT_LEVEL_FOR(T, moments_of_plane<T>(x + at, n));
      w.set(p, moments, eps);
      const Statistics<T> s = w.of_plane(p);
      Elements<T> next = together && p + 1 < last ? x + w.shape.plane(p + 1) : Elements<T>{};
      moments = FASTGAN_AT_LEVEL_FOR(T, forward_plane<T>(w.act, x + at, residual ? residual + at : residual, y + at, n, s, w.alpha, next));
    }
  });
}

template <class T>
void moments_of_all_pixels(Work<T>& w, Elements<T> x, double eps) {
  const PixelUnits& units = w.units;
  std::vector<Moments> moments(units.count * units.channels);
  for_each(units.count, units.unit, [&](int64_t u) {
    std::vector<T> lanes(2 * units.piece);
    Elements<T> from = x + units.row(u) * w.shape.sample_stride + units.within(u);
    FASTGAN_AT_LEVEL_FOR(T, moments_of_pixels<T>(from, units.size(u), units.channels, units.piece, lanes.data(), &moments[u * units.channels]));
  });
  for_each(w.shape.planes_count(), units.per_row, [&](int64_t p) {
    Moments all;
    const int64_t sample = p / units.channels, c = p % units.channels;
    for (int64_t u = sample * units.per_row; u < (sample + 1) * units.per_row; ++u) all.add(moments[u * units.channels + c]);
    w.set(p, all, eps);
  });
}

template <class T>
void forward_pixels(Work<T>& w, Elements<T> x, Elements<T> residual, Elements<T> y, double eps) {
  const PixelUnits& units = w.units;
  const int64_t piece = units.piece, channels = units.channels, samples = w.shape.samples;
  moments_of_all_pixels(w, x, eps);
  const std::vector<T> mean = pieces(w.mean, samples, channels, piece), scale = pieces(w.scale.data(), samples, channels, piece),
                       bias = pieces(w.bias.data(), 1, channels, piece);
  for_each(units.count, units.unit, [&](int64_t u) {
    const int64_t n = units.size(u), at = units.row(u) * w.shape.sample_stride + units.within(u), row = units.row(u) * piece;
    const Statistics<T> s{&mean[row], nullptr, nullptr, bias.data(), &scale[row]};
    FASTGAN_AT_LEVEL_FOR(T, forward_range<T>(w.act, x + at, residual ? residual + at : residual, y + at, n, piece, s, w.alpha));
  });
}

// sum_g, sum_gx: [N, C]
template <class T>
void backward_planes(Work<T>& w, Elements<T> dy, Elements<T> x, Elements<T> dx, T* sum_g, T* sum_gx) {
  const int64_t n = w.shape.pixels;
  for_each(w.shape.planes_count(), n, [&](int64_t p) {
    const int64_t at = w.shape.plane(p);
    w.set_scale(p);
    const auto [g, gx] = FASTGAN_AT_LEVEL_FOR(T, backward_plane<T>(w.act, dy + at, x + at, dx + at, n, w.of_plane(p), w.alpha));
    sum_g[p] = static_cast<T>(g), sum_gx[p] = static_cast<T>(gx);
  });
}

template <class T>
void backward_pixels(Work<T>& w, Elements<T> dy, Elements<T> x, Elements<T> dx, T* sum_g, T* sum_gx) {
  const PixelUnits& units = w.units;
  const int64_t piece = units.piece, channels = units.channels, samples = w.shape.samples, all = w.shape.planes_count();
  for (int64_t p = 0; p < all; ++p) w.set_scale(p);
  const std::vector<T> mean = pieces<T>(w.mean, samples, channels, piece), rstd = pieces<T>(w.rstd, samples, channels, piece),
                       scale = pieces(w.scale.data(), samples, channels, piece), weight = pieces(w.weight.data(), 1, channels, piece),
                       bias = pieces(w.bias.data(), 1, channels, piece);
  const auto statistics = [&](int64_t u) {
    const int64_t row = units.row(u) * piece;
    return Statistics<T>{&mean[row], &rstd[row], weight.data(), bias.data(), &scale[row]};
  };
  std::vector<double> sums(units.count * 2 * channels);
  for_each(units.count, units.unit, [&](int64_t u) {
    std::vector<T> lanes(2 * piece);
    const int64_t at = units.row(u) * w.shape.sample_stride + units.within(u);
    FASTGAN_AT_LEVEL_FOR(
        T, sums_of_pixels<T>(w.act, dy + at, x + at, units.size(u), channels, piece, statistics(u), w.alpha, lanes.data(), &sums[u * 2 * channels]));
  });
  std::vector<T> mean_g(all), mean_gx(all);
  for_each(all, units.per_row, [&](int64_t p) {
    double g = 0, gx = 0;
    const int64_t sample = p / channels, c = p % channels;
    for (int64_t u = sample * units.per_row; u < (sample + 1) * units.per_row; ++u) {
      g += sums[u * 2 * channels + c];
      gx += sums[(u * 2 + 1) * channels + c];
    }
    sum_g[p] = static_cast<T>(g), sum_gx[p] = static_cast<T>(gx);
    mean_g[p] = mean_of(g, w.shape.pixels, w.weight[c]), mean_gx[p] = static_cast<T>(gx / w.shape.pixels);
  });
  const std::vector<T> g = pieces(mean_g.data(), samples, channels, piece), gx = pieces(mean_gx.data(), samples, channels, piece);
  for_each(units.count, units.unit, [&](int64_t u) {
    const int64_t at = units.row(u) * w.shape.sample_stride + units.within(u);
    Statistics<T> s = statistics(u);
    s.mean_g = &g[units.row(u) * piece], s.mean_gx = &gx[units.row(u) * piece];
    FASTGAN_AT_LEVEL_FOR(T, backward_range<T>(w.act, dy + at, x + at, dx + at, units.size(u), piece, s, w.alpha));
  });
}

void check_arguments(const Tensor& x, const std::optional<Tensor>& weight, const std::optional<Tensor>& bias) {
  FASTGAN_CHECK(x.dim() >= 3, "x must have the shape [N, C, ...] with a spatial dimension");
  for (const std::optional<Tensor>* v : {&weight, &bias})
    FASTGAN_CHECK(!*v || ((*v)->dim() == 1 && (*v)->size(0) == x.size(1) && (*v)->scalar_type() == x.scalar_type()),
                  "weight and bias must be vectors of x.shape[1] elements of the dtype of x");
}

// -> (y, mean [N, C], rstd [N, C])
std::tuple<Tensor, Tensor, Tensor> norm_act(Tensor input, std::optional<Tensor> weight, std::optional<Tensor> bias, std::optional<Tensor> residual,
                                            std::string act, double alpha, double eps) {
  check_arguments(input, weight, bias);
  if (residual) check_same_size(input, *residual, "residual");
  const auto activation = activation_named(act.c_str());
  FASTGAN_CHECK(activation, "unknown activation '", act, "'");
  const Tensor x = planes_or_pixels(input);
  Tensor y = new_output_like(x);
  Tensor mean = torch::stable::new_empty(x, {x.size(0), x.size(1)}, accumulate_dtype_of(x));
  Tensor rstd = torch::stable::empty_like(mean);
  if (x.numel() == 0) {
    for (Tensor* t : {&mean, &rstd}) torch::stable::fill_(*t, std::numeric_limits<double>::quiet_NaN());
    return {y, mean, rstd};
  }
  if (residual) residual = in_layout_of(*residual, x);
  with_sums_of(x, [&]<class T>(T) {
    Work<T> work(*activation, x, weight, bias, mean, rstd, alpha);
    const Elements<T> from = elements<T>(x), with = elements<T>(residual), to = mutable_elements<T>(y);
    if (work.shape.planes) forward_planes<T>(work, from, with, to, eps);
    else forward_pixels<T>(work, from, with, to, eps);
  });
  return {in_layout_of(y, torch::stable::empty_like(input)), mean, rstd};
}

// -> (dx, sum g [N, C], sum g xhat [N, C])
std::tuple<Tensor, Tensor, Tensor> norm_act_backward(Tensor dy, Tensor input, std::optional<Tensor> weight, std::optional<Tensor> bias, Tensor mean,
                                                     Tensor rstd, std::string act, double alpha, double) {
  check_arguments(input, weight, bias);
  check_same_size(input, dy, "dy");
  for (const Tensor* t : {&mean, &rstd})
    FASTGAN_CHECK(t->dim() == 2 && t->size(0) == input.size(0) && t->size(1) == input.size(1) && t->scalar_type() == accumulate_dtype_of(input),
                  "mean and rstd must be [N, C] in float32 (float64 for a float64 x)");
  const auto activation = activation_named(act.c_str());
  FASTGAN_CHECK(activation, "unknown activation '", act, "'");
  const Tensor x = planes_or_pixels(input);
  dy = in_layout_of(dy, x);
  mean = torch::stable::contiguous(mean);
  rstd = torch::stable::contiguous(rstd);
  Tensor dx = new_output_like(x), sum_g = torch::stable::empty_like(mean), sum_gx = torch::stable::empty_like(mean);
  if (x.numel() == 0) return {dx, torch::stable::fill_(sum_g, 0), torch::stable::fill_(sum_gx, 0)};
  with_sums_of(x, [&]<class T>(T) {
    Work<T> work(*activation, x, weight, bias, mean, rstd, alpha);
    const Elements<T> upstream = elements<T>(dy), from = elements<T>(x), to = mutable_elements<T>(dx);
    T *g = mutable_pointer<T>(sum_g), *gx = mutable_pointer<T>(sum_gx);
    if (work.shape.planes) backward_planes<T>(work, upstream, from, to, g, gx);
    else backward_pixels<T>(work, upstream, from, to, g, gx);
  });
  return {in_layout_of(dx, torch::stable::empty_like(input)), sum_g, sum_gx};
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, m) {
  m.impl("norm_act", TORCH_BOX(&fastgan::norm_act));
  m.impl("norm_act_backward", TORCH_BOX(&fastgan::norm_act_backward));
}
