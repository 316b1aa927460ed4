// upfirdn2d on the CPU, and its gradient in the filter. NCHW and channels_last both keep their layout. A row of the output
// depends on no other row, so the result does not depend on how rows are shared among threads; the gradient in the filter is
// summed over units of rows that depend on the shape only.
#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "check.h"
#include "cpu/level.h"
#include "cpu/memory.h"
#include "cpu/reference.h"
#include "cpu/upfirdn2d_plan.h"

#define FASTGAN_KERNEL "cpu/upfirdn2d_kernel.h"
#include "cpu/each_level.h"

namespace fastgan {
namespace {

constexpr int64_t kGrain = 32768;       // outputs that are worth a thread
constexpr int64_t kPixelChannels = 32;  // from so many channels on, a channels_last pixel is filtered as a row of its own

// x itself where the columns of a row are consecutive, else a copy that keeps the layout.
Tensor with_dense_rows(const Tensor& x, bool last) {
  if (x.size(3) <= 1 || x.stride(3) == (last ? x.size(1) : 1)) return x;
  return torch::stable::contiguous(x, last ? torch::headeronly::MemoryFormat::ChannelsLast : torch::headeronly::MemoryFormat::Contiguous);
}

Tensor dense_like(const Tensor& x, bool last) {
  return torch::stable::contiguous(x, last ? torch::headeronly::MemoryFormat::ChannelsLast : torch::headeronly::MemoryFormat::Contiguous);
}

template <class T>
Images<T> images(const Tensor& x, bool last) {
  if (last) return {elements<T>(x), 1, x.stride(0), 0, x.stride(2), x.size(1)};
  return {elements<T>(x), x.size(1), x.stride(0), x.stride(1), x.stride(2), 1};
}

struct Arguments {
  std::vector<int64_t> up, down, padding;
  int64_t taps_x, taps_y;

  void check(const Tensor& x) const {
    FASTGAN_CHECK(x.dim() == 4, "x has ", x.dim(), " dimensions, expected 4");
    FASTGAN_CHECK(up.size() == 2 && down.size() == 2 && padding.size() == 4, "up and down need 2 numbers, padding 4");
    for (int a = 0; a < 2; ++a) FASTGAN_CHECK(up[a] >= 1 && down[a] >= 1, "up and down must be >= 1");
    FASTGAN_CHECK(taps_x >= 1 && taps_y >= 1, "the filter has no taps");
    FASTGAN_CHECK(padded(x, 0) >= taps_x && padded(x, 1) >= taps_y, "the padded image is smaller than the filter");
  }
  int64_t padded(const Tensor& x, int axis) const { return x.size(3 - axis) * up[axis] + padding[2 * axis] + padding[2 * axis + 1]; }
  Axis axis(const Tensor& x, int a) const {
    const int64_t taps = a ? taps_y : taps_x;
    return Axis(x.size(3 - a), (padded(x, a) - taps) / down[a] + 1, taps, up[a], down[a], padding[2 * a]);
  }
};

template <class T>
std::vector<T> correlation_weights(const Tensor& f, bool flip_filter, T gain) {
  const Tensor dense = torch::stable::contiguous(f);
  std::vector<T> h(pointer<T>(dense), pointer<T>(dense) + dense.numel());
  if (!flip_filter) std::reverse(h.begin(), h.end());
  for (T& value : h) value *= gain;
  return h;
}

template <class T>
bool all_finite(const std::vector<T>& values) {
  return std::all_of(values.begin(), values.end(), [](T value) { return std::isfinite(value); });
}

Tensor upfirdn2d(Tensor x, Tensor f, std::optional<Tensor> fy, std::vector<int64_t> up, std::vector<int64_t> down, std::vector<int64_t> padding,
                 bool flip_filter, double gain) {
  FASTGAN_CHECK(f.dim() == (fy ? 1 : 2) && (!fy || fy->dim() == 1), "the filter must be [taps_y, taps_x], or two of [taps]");
  FASTGAN_CHECK(!fy || fy->scalar_type() == f.scalar_type(), "f and fy must have one dtype");
  const Arguments arguments{up, down, padding, f.size(f.dim() - 1), fy ? fy->size(0) : f.size(0)};
  arguments.check(x);
  const bool last = channels_last(x);
  const Axis ax = arguments.axis(x, 0), ay = arguments.axis(x, 1);
  Tensor y = new_images(x, x.size(0), x.size(1), ay.out, ax.out, last);
  if (y.numel() == 0) return y;
  x = with_dense_rows(x, last);
  bool finite = true;
  with_sums_of(x, [&]<class T>(T) {
    FASTGAN_CHECK(f.scalar_type() == accumulate_dtype_of(x), "f must be float32, or float64 for a float64 x");
    std::vector<T> h = correlation_weights<T>(f, flip_filter, gain);
    finite = all_finite(h) && (!fy || all_finite(correlation_weights<T>(*fy, flip_filter, 1)));
    if (!finite) return;
    const std::vector<T> hy = fy ? correlation_weights<T>(*fy, flip_filter, 1) : separate(h, ay.taps, ax.taps);
    const Plan<T> plan(ax, ay, h, hy);
    const Images<T> from = images<T>(x, last);
    const Elements<T> to = mutable_elements<T>(y);
    const int64_t rows = y.numel() / (ax.out * from.group), grain = std::max<int64_t>(1, kGrain / (ax.out * from.group));
    torch::stable::parallel_for(0, rows, grain, [&](int64_t first, int64_t end) {
      if (from.group >= kPixelChannels) FASTGAN_AT_LEVEL_FOR(T, filter_pixels<T>(plan, from, to, first, end));
      else FASTGAN_AT_LEVEL_FOR(T, filter_rows<T>(plan, from, to, first, end));
    });
  });
  // Inserted zeros and padding are passed over here: they make NaN of a tap that is not finite.
  return finite ? y : tensor(reference("upfirdn2d", x, f, fy, up, down, padding, flip_filter, gain)[0]);
}

Tensor upfirdn2d_filter_backward(Tensor x, Tensor dy, std::vector<int64_t> taps, std::vector<int64_t> up, std::vector<int64_t> down,
                                 std::vector<int64_t> padding, bool flip_filter, double gain) {
  FASTGAN_CHECK(taps.size() == 2, "taps needs 2 numbers");
  const Arguments arguments{up, down, padding, taps[0], taps[1]};
  arguments.check(x);
  const bool last = channels_last(x);
  const Axis ax = arguments.axis(x, 0), ay = arguments.axis(x, 1);
  FASTGAN_CHECK(dy.dim() == 4 && dy.size(0) == x.size(0) && dy.size(1) == x.size(1) && dy.size(2) == ay.out && dy.size(3) == ax.out,
                "dy does not have the shape of the output");
  FASTGAN_CHECK(dy.scalar_type() == x.scalar_type(), "dy and x must have one dtype");
  Tensor df = torch::stable::new_empty(x, {ay.taps, ax.taps}, accumulate_dtype_of(x));
  x = with_dense_rows(x, last);
  dy = dense_like(dy, last);
  bool finite = true;
  with_sums_of(x, [&]<class T>(T) {
    const Images<T> from = images<T>(x, last);
    const Elements<T> with = elements<T>(dy);
    const int64_t size = ay.taps * ax.taps, rows = dy.numel() / (ax.out * from.group);
    const int64_t unit = std::max<int64_t>(std::max<int64_t>(1, kGrain / (ax.out * from.group)), (rows + 255) / 256);
    const int64_t units = (rows + unit - 1) / unit;
    std::vector<double> sums(std::max<int64_t>(1, units) * size, 0.0);
    torch::stable::parallel_for(0, units, 1, [&](int64_t first, int64_t end) {
      for (int64_t u = first; u < end; ++u)
        FASTGAN_AT_LEVEL_FOR(T, correlate_rows<T>(ax, ay, from, with, u * unit, std::min(rows, (u + 1) * unit), &sums[u * size]));
    });
    for (int64_t u = 1; u < units; ++u)
      for (int64_t i = 0; i < size; ++i) sums[i] += sums[u * size + i];
    T* result = mutable_pointer<T>(df);
    for (int64_t i = 0; i < size; ++i) result[flip_filter ? i : size - 1 - i] = static_cast<T>(gain * sums[i]);
    finite = all_finite(sums);
  });
  return finite ? df : tensor(reference("upfirdn2d_filter_backward", x, dy, taps, up, down, padding, flip_filter, gain)[0]);
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, m) {
  m.impl("upfirdn2d", TORCH_BOX(&fastgan::upfirdn2d));
  m.impl("upfirdn2d_filter_backward", TORCH_BOX(&fastgan::upfirdn2d_filter_backward));
}
