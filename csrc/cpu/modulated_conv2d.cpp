// modulated_conv2d on the CPU, but for the convolution: what demodulation needs of the weight, in one read of it; and what follows
// (modulated_activation), in one file because each takes its share of the minutes of everyone who compiles.
#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "check.h"
#include "cpu/elements.h"
#include "cpu/level.h"
#include "cpu/memory.h"
#include "cpu/units.h"

namespace fastgan {
namespace {
constexpr int64_t kRow = 2048;  // elements of a row that are taken at once: what is summed across rows stays in the L1 cache
}
}  // namespace fastgan

#define FASTGAN_KERNEL "cpu/modulated_conv2d_kernel.h"
#include "cpu/each_level.h"

namespace fastgan {
namespace {

// weight [O, I, kh, kw] -> sum over the taps of weight^2 [O, I], float32 (float64 for float64)
Tensor modulated_conv2d_squares(Tensor weight) {
  FASTGAN_CHECK(weight.dim() == 4, "weight has ", weight.dim(), " dimensions, expected 4");
  weight = torch::stable::contiguous(weight);
  Tensor q = torch::stable::new_empty(weight, {weight.size(0), weight.size(1)}, accumulate_dtype_of(weight));
  const int64_t rows = q.numel(), taps = weight.size(2) * weight.size(3);
  FASTGAN_DISPATCH(weight.scalar_type(), [&] {
    using T = accumulate_t<scalar_t>;
    const scalar_t* from = pointer<scalar_t>(weight);
    T* to = mutable_pointer<T>(q);
    torch::stable::parallel_for(0, rows, std::max<int64_t>(1, 32768 / std::max<int64_t>(1, taps)), [&](int64_t first, int64_t last) {
      const scalar_t* w = from + first * taps;
      const int64_t n = last - first;
      if (taps == 9) FASTGAN_AT_LEVEL(squares_of_rows<9, scalar_t, T>(w, to + first, n, taps));
      else if (taps == 1) FASTGAN_AT_LEVEL(squares_of_rows<1, scalar_t, T>(w, to + first, n, taps));
      else FASTGAN_AT_LEVEL(squares_of_rows<0, scalar_t, T>(w, to + first, n, taps));
    });
  });
  return q;
}

// x [N, C, H, W], contiguous or channels_last: a copy where it is neither.
Tensor planes_or_pixels(const Tensor& x) {
  FASTGAN_CHECK(x.dim() == 4, "x has ", x.dim(), " dimensions, expected 4");
  const bool last =
      x.stride(1) == 1 && x.stride(3) == x.size(1) && x.stride(2) == x.size(1) * x.size(3) && x.stride(0) == x.size(1) * x.size(2) * x.size(3);
  return last ? x : torch::stable::contiguous(x);
}

// A unit is all channels of some pixels of a sample, so that sums over channels and over pixels are made in the one pass; those over
// units are added in order.
struct Cut {
  int64_t samples, channels, pixels;
  bool last;
  Units units;  // of pixels

  explicit Cut(const Tensor& x)
      : samples(x.size(0)), channels(x.size(1)), pixels(x.size(2) * x.size(3)), last(channels_last(x)), units(samples, pixels, kRow) {}

  // body(offset, first channel, rows, distance of rows, their length) for pixels of sample n
  template <class Body>
  void rows(int64_t n, int64_t pixel, int64_t size, const Body& body) const {
    const int64_t start = n * channels * pixels;
    if (!last) return body(start + pixel, 0, channels, pixels, size);
    for (int64_t c = 0; c < channels; c += kRow) body(start + pixel * channels + c, c, size, channels, std::min(kRow, channels - c));
  }

  // body(unit, sample, its first pixel, number of pixels)
  template <class Body>
  void each(const Body& body) const {
    torch::stable::parallel_for(0, units.count, std::max<int64_t>(1, 32768 / std::max<int64_t>(1, units.unit * channels)),
                                [&](int64_t u, int64_t end) {
                                  for (; u < end; ++u) body(u, units.row(u), units.within(u), units.size(u));
                                });
  }
};

void check_planes(const Tensor& x, const Tensor& scale, const Tensor& bias) {
  FASTGAN_CHECK(scale.dim() == 2 && scale.size(0) == x.size(0) && scale.size(1) == x.size(1) && scale.scalar_type() == accumulate_dtype_of(x),
                "scale must be [N, C], of the type of sums");
  FASTGAN_CHECK(bias.dim() == 1 && bias.size(0) == x.size(1) && bias.scalar_type() == x.scalar_type(), "bias must be [C], of the dtype of x");
}

// Rounded to the tensor's type: the stored output is compared with it. No clamp is NaN, which no comparison reaches.
template <class T>
T clamp_of(double clamp, const Tensor& x) {
  return clamp < 0 ? std::numeric_limits<T>::quiet_NaN() : rounded_to(stored_type(x), static_cast<T>(clamp));
}

Tensor modulated_activation(Tensor given, Tensor scale, std::optional<Tensor> noise, Tensor bias, double alpha, double gain, double clamp) {
  const Tensor x = planes_or_pixels(given);
  check_planes(x, scale, bias);
  const Cut cut(x);
  FASTGAN_CHECK(!noise || ((noise->numel() == cut.pixels || noise->numel() == cut.samples * cut.pixels) && noise->scalar_type() == x.scalar_type()),
                "noise must be [N or 1, 1, H, W], of the dtype of x");
  Tensor y = new_output_like(x);
  if (x.numel() == 0) return in_layout_of(y, torch::stable::empty_like(given));
  scale = torch::stable::contiguous(scale);
  if (noise) noise = torch::stable::contiguous(*noise);
  const int64_t distance = noise && noise->numel() > cut.pixels ? cut.pixels : 0;  // of one sample's noise from the next one's
  with_sums_of(x, [&]<class T>(T) {
    const std::vector<T> biases = numbers<T>(bias);
    const Elements<T> from = elements<T>(x), added = elements<T>(noise), to = mutable_elements<T>(y);
    const T a = alpha, g = gain, limit = clamp_of<T>(clamp, x);
    cut.each([&](int64_t, int64_t n, int64_t pixel, int64_t size) {
      const T* factors = pointer<T>(scale) + n * cut.channels;
      T noises[kRow] = {};
      if (added) FASTGAN_AT_LEVEL_FOR(T, widen(added + (n * distance + pixel), noises, size));
      cut.rows(n, pixel, size, [&](int64_t at, int64_t c, int64_t rows, int64_t stride, int64_t length) {
        if (cut.last)
          FASTGAN_AT_LEVEL_FOR(T, forward_rows<true>(from + at, to + at, rows, stride, length, factors + c, &biases[c], noises, a, g, limit));
        else FASTGAN_AT_LEVEL_FOR(T, forward_rows<false>(from + at, to + at, rows, stride, length, factors, noises, &biases[0], a, g, limit));
      });
    });
  });
  return in_layout_of(y, torch::stable::empty_like(given));
}

// -> (dx, dscale, dnoise [N, 1, H, W], dbias)
std::tuple<Tensor, Tensor, Tensor, Tensor> modulated_activation_backward(Tensor dy, Tensor y, Tensor given, Tensor scale, Tensor bias, double alpha,
                                                                         double gain, double clamp) {
  const Tensor x = planes_or_pixels(given);
  check_planes(x, scale, bias);
  check_same_size(x, dy, "dy");
  check_same_size(x, y, "y");
  dy = in_layout_of(dy, x), y = in_layout_of(y, x);
  const Cut cut(x);
  Tensor dx = new_output_like(x), dnoise = torch::stable::new_zeros(x, {cut.samples, 1, x.size(2), x.size(3)});
  Tensor dscale = torch::stable::new_zeros(scale, {cut.samples, cut.channels}), dbias = torch::stable::new_zeros(bias, {cut.channels});
  if (x.numel() == 0) return {in_layout_of(dx, torch::stable::empty_like(given)), dscale, dnoise, dbias};
  scale = torch::stable::contiguous(scale);
  with_sums_of(x, [&]<class T>(T) {
    const Elements<T> gradient = elements<T>(dy), output = elements<T>(y), input = elements<T>(x), to = mutable_elements<T>(dx),
                      of_noise = mutable_elements<T>(dnoise);
    const T a = alpha, g = gain, limit = clamp_of<T>(clamp, x);
    std::vector<T> sums(2 * cut.units.count * cut.channels, T(0));  // per unit: of dt x and of dt, by channel
    cut.each([&](int64_t u, int64_t n, int64_t pixel, int64_t size) {
      const T* factors = pointer<T>(scale) + n * cut.channels;
      T noises[kRow] = {}, *scales = &sums[2 * u * cut.channels], *biases = scales + cut.channels;
      cut.rows(n, pixel, size, [&](int64_t at, int64_t c, int64_t rows, int64_t stride, int64_t length) {
        const Elements<T> read[] = {gradient + at, output + at, input + at};
        if (cut.last)
          FASTGAN_AT_LEVEL_FOR(T, backward_rows<true>(read, to + at, rows, stride, length, factors + c, scales + c, biases + c, noises, a, g, limit));
        else FASTGAN_AT_LEVEL_FOR(T, backward_rows<false>(read, to + at, rows, stride, length, factors, scales, noises, biases, a, g, limit));
      });
      FASTGAN_AT_LEVEL_FOR(T, narrow(noises, of_noise + (n * cut.pixels + pixel), size));
    });
    std::vector<double> biases(cut.channels, 0.0);
    T* by_scale = mutable_pointer<T>(dscale);
    for (int64_t n = 0, u = 0; n < cut.samples; ++n, u += cut.units.per_row)
      for (int64_t c = 0; c < cut.channels; ++c) {
        double total = 0;
        for (int64_t i = u; i < u + cut.units.per_row; ++i) {
          total += sums[2 * i * cut.channels + c];
          biases[c] += sums[(2 * i + 1) * cut.channels + c];
        }
        by_scale[n * cut.channels + c] = static_cast<T>(total);
      }
    for (int64_t c = 0; c < cut.channels; ++c) set(mutable_elements<T>(dbias), c, static_cast<T>(biases[c]));
  });
  return {in_layout_of(dx, torch::stable::empty_like(given)), dscale, dnoise, dbias};
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, m) {
  m.impl("modulated_conv2d_squares", TORCH_BOX(&fastgan::modulated_conv2d_squares));
  m.impl("modulated_activation", TORCH_BOX(&fastgan::modulated_activation));
  m.impl("modulated_activation_backward", TORCH_BOX(&fastgan::modulated_activation_backward));
}
