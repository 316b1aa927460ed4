// prelu on the CPU: y = x > 0 ? x : slope x with a slope per channel (dimension 1) or one for all, and its
// gradients in one pass. torch's backward loop is not vectorised, and its sums read a tensor of its own.
#include <algorithm>
#include <vector>

#include "check.h"
#include "cpu/bias_act_units.h"
#include "cpu/elements.h"
#include "cpu/level.h"
#include "cpu/memory.h"

#define FASTGAN_KERNEL "cpu/prelu_kernel.h"
#include "cpu/each_level.h"

namespace fastgan {
namespace {

BiasUnits units_of(const Tensor& x, int64_t slopes) { return BiasUnits(x.numel(), slopes, slopes > 1 ? x.stride(1) : 1); }

// As many as a unit meets side by side.
template <class T>
std::vector<T> slope_vector(const Tensor& slope, const BiasUnits& units) {
  const std::vector<T> values = numbers<T>(slope);
  std::vector<T> slopes(units.vector_bias() ? units.piece : units.channels);
  for (size_t i = 0; i < slopes.size(); ++i) slopes[i] = values[i % values.size()];
  return slopes;
}

void check_arguments(const Tensor& x, const Tensor& slope) {
  using torch::headeronly::ScalarType;
  FASTGAN_CHECK(x.scalar_type() == ScalarType::Float || x.scalar_type() == ScalarType::Double, "prelu: x must be float32 or float64");
  FASTGAN_CHECK(slope.dim() == 1 && slope.scalar_type() == x.scalar_type() && (slope.size(0) == 1 || (x.dim() > 1 && slope.size(0) == x.size(1))),
                "prelu: slope must be a vector of 1 or x.shape[1] elements of the dtype of x");
}

int64_t grain(const BiasUnits& units) { return std::max<int64_t>(1, 32768 / std::max<int64_t>(1, units.unit)); }

Tensor prelu(Tensor x, Tensor slope) {
  check_arguments(x, slope);
  x = dense(x);
  Tensor y = new_output_like(x);
  if (x.numel() == 0) return y;
  const BiasUnits units = units_of(x, slope.size(0));
  with_sums_of(x, [&]<class T>(T) {
    const auto slopes = slope_vector<T>(slope, units);
    const T* from = pointer<T>(x);
    T* to = static_cast<T*>(y.mutable_data_ptr());
    torch::stable::parallel_for(0, units.count, grain(units), [&](int64_t first, int64_t last) {
      for (int64_t u = first; u < last; ++u) {
        const int64_t at = units.begin(u);
        FASTGAN_AT_LEVEL_FOR(T, prelu_unit<T>(from + at, slopes.data(), units.channel(u), to + at, units.size(u), units));
      }
    });
  });
  return y;
}

// -> the gradients by x and by slope
std::tuple<Tensor, Tensor> prelu_backward(Tensor dy, Tensor x, Tensor slope) {
  check_arguments(x, slope);
  check_same_size(dy, x, "x");
  x = dense(x);
  dy = in_layout_of(dy, x);
  Tensor dx = new_output_like(x), by_slope = torch::stable::new_zeros(slope, {slope.size(0)});
  if (x.numel() == 0) return {dx, by_slope};
  const BiasUnits units = units_of(x, slope.size(0));
  with_sums_of(x, [&]<class T>(T) {
    const auto slopes = slope_vector<T>(slope, units);
    const T *from = pointer<T>(dy), *with = pointer<T>(x);
    T *to = static_cast<T*>(dx.mutable_data_ptr()), *gradient = static_cast<T*>(by_slope.mutable_data_ptr());
    std::vector<T> sums(units.count * units.sums_per_unit(), T(0));
    torch::stable::parallel_for(0, units.count, grain(units), [&](int64_t first, int64_t last) {
      for (int64_t u = first; u < last; ++u) {
        const int64_t at = units.begin(u);
        FASTGAN_AT_LEVEL_FOR(T, prelu_backward_unit<T>(from + at, with + at, slopes.data(), units.channel(u), to + at,
                                                       &sums[u * units.sums_per_unit()], units.size(u), units));
      }
    });
    std::vector<double> total(units.channels, 0.0);
    for (size_t i = 0; i < sums.size(); ++i) total[units.channel_of_sum(i)] += sums[i];
    for (size_t i = 0; i < total.size(); ++i) gradient[i] = static_cast<T>(total[i]);
  });
  return {dx, by_slope};
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, m) {
  m.impl("prelu", TORCH_BOX(&fastgan::prelu));
  m.impl("prelu_backward", TORCH_BOX(&fastgan::prelu_backward));
}
