// filtered_snake and its gradient on the CPU. Work is cut into units of a row; an output is the same sum whichever thread computes
// it, and sums over units are added in order.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <tuple>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "activation.h"
#include "check.h"
#include "cpu/buffer.h"
#include "cpu/elements.h"
#include "cpu/filtered_snake_plan.h"
#include "cpu/level.h"
#include "cpu/memory.h"
#include "cpu/units.h"

#define FASTGAN_KERNEL "cpu/filtered_snake_kernel.h"
#include "cpu/each_level.h"
#include "cpu/turn.h"

namespace fastgan {
namespace {

constexpr int64_t kGrain = 16384;  // elements of x per task

void check_arguments(const Tensor& x, const Tensor& a, const Tensor& c, const std::optional<Tensor>& fu, const std::optional<Tensor>& fd, int64_t up,
                     int64_t down) {
  FASTGAN_CHECK(x.dim() == 3, "x must have 3 dimensions");
  for (int64_t factor : {up, down}) FASTGAN_CHECK(factor == 1 || factor == 2 || factor == 4, "up and down must be 1, 2 or 4");
  for (const Tensor* v : {&a, &c})
    FASTGAN_CHECK(v->dim() == 1 && v->size(0) == x.size(1) && v->scalar_type() == accumulate_dtype_of(x),
                  "a and c must be vectors of x.shape[1] elements in float32, or float64 for a float64 x");
  FASTGAN_CHECK(fu.has_value() == fd.has_value() && (fu || (up == 1 && down == 1)), "without filters up and down must be 1");
  if (!fu) return;
  for (const Tensor& f : {*fu, *fd})
    FASTGAN_CHECK(f.dim() == 1 && f.size(0) > 0 && f.scalar_type() == accumulate_dtype_of(x),
                  "filters must be vectors in float32, or float64 for a float64 x");
  FASTGAN_CHECK(fu->size(0) >= up, "fu must have at least `up` taps");
}

template <class T>
snaked::Plan<T> plan_of(const Tensor& x, const Tensor& fu, const Tensor& fd, int64_t up, int64_t down) {
  return {x.size(2), numbers<T>(fu), numbers<T>(fd), up, down};
}

// Elements of the largest unit: the first has what is held at one end, the last at both if it is alone.
template <class Unit, class T>
int64_t work_of(const snaked::Plan<T>& plan) {
  int64_t most = 0;
  for (int64_t u : {int64_t(0), std::min<int64_t>(1, plan.units - 1), std::max<int64_t>(0, plan.units - 2), plan.units - 1})
    most = std::max(most, Unit(plan, u).elements());
  return most;
}

Tensor filtered_snake(Tensor x, Tensor a, Tensor c, std::optional<Tensor> fu, std::optional<Tensor> fd, int64_t up, int64_t down) {
  check_arguments(x, a, c, fu, fd, up, down);
  x = in_planes(x);
  const int64_t channels = x.size(1), size = x.size(2), rows = x.size(0) * channels, y_size = (size * up + down - 1) / down;
  Tensor y = new_output(x, {x.size(0), channels, y_size});
  if (x.numel() == 0) return y;
  with_sums_of(x, [&]<class T>(T) {
    const Elements<T> from = elements<T>(x), to = mutable_elements<T>(y);
    const std::vector<T> as = numbers<T>(a), cs = numbers<T>(c);
    if (!fu) {
      const Units units(rows, size);
      torch::stable::parallel_for(0, units.count, std::max<int64_t>(1, kGrain / units.unit), [&](int64_t first, int64_t last) {
        for (int64_t u = first; u < last; ++u) {
          const int64_t channel = units.row(u) % channels;
          FASTGAN_AT_LEVEL_FOR(T, forward_range<T>(from + units.begin(u), to + units.begin(u), units.size(u), as[channel], cs[channel]));
        }
      });
      return;
    }
    const auto plan = plan_of<T>(x, *fu, *fd, up, down);
    const int64_t work = work_of<snaked::ForwardUnit<T>>(plan), taps = 2 * std::max(fu->size(0), fd->size(0));
    torch::stable::parallel_for(0, rows * plan.units, std::max<int64_t>(1, kGrain * plan.units / size), [&](int64_t first, int64_t last) {
      const auto numbers = buffer<T>(work);
      const auto sources = buffer<snaked::Source<T>>(taps);
      for (int64_t u = first; u < last; ++u) {
        const int64_t row = u / plan.units, channel = row % channels;
        FASTGAN_AT_LEVEL_FOR(
            T, forward_unit<T>(plan, u % plan.units, from + row * size, as[channel], cs[channel], to + row * y_size, numbers.get(), sources.get()));
      }
    });
  });
  return y;
}

std::tuple<Tensor, Tensor, Tensor> filtered_snake_backward(Tensor dy, Tensor x, Tensor a, Tensor c, std::optional<Tensor> fu,
                                                           std::optional<Tensor> fd, int64_t up, int64_t down) {
  check_arguments(x, a, c, fu, fd, up, down);
  const int64_t channels = x.size(1), size = x.size(2), rows = x.size(0) * channels, y_size = (size * up + down - 1) / down;
  FASTGAN_CHECK(dy.dim() == 3 && dy.size(0) == x.size(0) && dy.size(1) == channels && dy.size(2) == y_size && dy.scalar_type() == x.scalar_type(),
                "dy must have the shape of y and the dtype of x");
  x = in_planes(x), dy = in_planes(dy);
  Tensor dx = new_output(x, {x.size(0), channels, size}), da = torch::stable::empty_like(a), dc = torch::stable::empty_like(c);
  with_sums_of(x, [&]<class T>(T) {
    const Elements<T> from = elements<T>(x), gradient = elements<T>(dy), to = mutable_elements<T>(dx);
    const std::vector<T> as = numbers<T>(a), cs = numbers<T>(c);
    std::vector<double> found;  // [rows][units of a row][2]
    int64_t per_row = 0;
    if (x.numel() == 0) {
    } else if (!fu) {
      const Units units(rows, size);
      per_row = units.per_row, found.resize(2 * units.count);
      torch::stable::parallel_for(0, units.count, std::max<int64_t>(1, kGrain / units.unit), [&](int64_t first, int64_t last) {
        for (int64_t u = first; u < last; ++u) {
          const int64_t channel = units.row(u) % channels, at = units.begin(u);
          FASTGAN_AT_LEVEL_FOR(T, backward_range<T>(gradient + at, from + at, to + at, units.size(u), as[channel], cs[channel], &found[2 * u]));
        }
      });
    } else {
      const auto plan = plan_of<T>(x, *fu, *fd, up, down);
      const int64_t work = work_of<snaked::BackwardUnit<T>>(plan), taps = 2 * std::max(fu->size(0), fd->size(0));
      per_row = plan.units, found.resize(2 * rows * per_row);
      torch::stable::parallel_for(0, rows * per_row, std::max<int64_t>(1, kGrain * per_row / size), [&](int64_t first, int64_t last) {
        const auto numbers = buffer<T>(work);
        const auto sources = buffer<snaked::Source<T>>(taps);
        for (int64_t u = first; u < last; ++u) {
          const int64_t row = u / per_row, channel = row % channels;
          FASTGAN_AT_LEVEL_FOR(T, backward_unit<T>(plan, u % per_row, gradient + row * y_size, from + row * size, as[channel], cs[channel],
                                                   to + row * size, &found[2 * u], numbers.get(), sources.get()));
        }
      });
    }
    for (int64_t channel = 0; channel < channels; ++channel) {
      double by_a = 0, by_c = 0;
      for (int64_t row = channel; row < rows; row += channels)
        for (int64_t u = row * per_row; u < (row + 1) * per_row; ++u) by_a += found[2 * u], by_c += found[2 * u + 1];
      mutable_pointer<T>(da)[channel] = static_cast<T>(cs[channel] * by_a), mutable_pointer<T>(dc)[channel] = static_cast<T>(by_c);
    }
  });
  return {dx, da, dc};
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, m) {
  m.impl("filtered_snake", TORCH_BOX(&fastgan::filtered_snake));
  m.impl("filtered_snake_backward", TORCH_BOX(&fastgan::filtered_snake_backward));
}
