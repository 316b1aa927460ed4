// bias_act on the CPU. A dense tensor in any order of dimensions is [outer, channels, inner] with inner = stride(dim), so NCHW,
// channels_last and linear layers are one case. Bias gradients are summed in the order of units.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string>
#include <utility>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "activation.h"
#include "check.h"
#include "cpu/bias_act_units.h"
#include "cpu/elements.h"
#include "cpu/level.h"
#include "cpu/memory.h"

#define FASTGAN_KERNEL "cpu/bias_act_kernel.h"
#include "cpu/each_level.h"

namespace fastgan {
namespace {

BiasUnits units_of(const Tensor& x, bool by_channel, int64_t dim) {
  const int64_t channels = by_channel ? x.size(dim) : 1;
  return BiasUnits(x.numel(), channels, by_channel ? x.stride(dim) : 1);
}

template <class T>
std::vector<T> bias_vector(const std::optional<Tensor>& b, const BiasUnits& units) {
  std::vector<T> bias(units.vector_bias() ? units.piece : units.channels, T(-0.0));  // what changes no number, 0 included
  if (b) {
    const std::vector<T> values = numbers<T>(*b);
    for (size_t i = 0; i < bias.size(); ++i) bias[i] = values[i % values.size()];
  }
  return bias;
}

// Rounded to the tensor's type first: the stored output is compared with it. No clamp is NaN, which no comparison reaches.
template <class T>
T clamp_of(double clamp, const Tensor& x) {
  if (clamp < 0) return std::numeric_limits<T>::quiet_NaN();
  return rounded_to(stored_type(x), static_cast<T>(clamp));
}

// The least number that is stored as `limit` or above it: what an output that is computed anew, and not rounded, is compared with.
template <class T>
T stored_from(Stored type, T limit) {
  if (type == Stored::as_sums || !(limit > T(0))) return limit;
  uint32_t below = 0, found = std::bit_cast<uint32_t>(static_cast<float>(limit));  // in the order of the numbers
  while (found - below > 1) {
    const uint32_t middle = below + (found - below) / 2;
    (rounded_to<T>(type, std::bit_cast<float>(middle)) < limit ? below : found) = middle;
  }
  return std::bit_cast<float>(found);
}

void check_arguments(const Tensor& x, const std::optional<Tensor>& b, int64_t dim) {
  if (!b) return;
  FASTGAN_CHECK(dim >= 0 && dim < x.dim(), "dim ", dim, " is outside a tensor of ", x.dim(), " dimensions");
  FASTGAN_CHECK(b->dim() == 1 && b->size(0) == x.size(dim) && b->scalar_type() == x.scalar_type(),
                "b must be a vector of x.shape[dim] elements of the dtype of x");
}

int64_t grain(const BiasUnits& units) { return std::max<int64_t>(1, 32768 / std::max<int64_t>(1, units.unit)); }

Tensor bias_act(Tensor x, std::optional<Tensor> b, int64_t dim, std::string act, double alpha, double gain, double clamp) {
  check_arguments(x, b, dim);
  const auto activation = activation_named(act.c_str());
  FASTGAN_CHECK(activation, "unknown activation '", act, "'");
  x = dense(x);
  Tensor y = new_output_like(x);
  if (x.numel() == 0) return y;
  const BiasUnits units = units_of(x, b.has_value(), dim);
  with_sums_of(x, [&]<class T>(T) {
    const auto bias = bias_vector<T>(b, units);
    const Elements<T> from = elements<T>(x), to = mutable_elements<T>(y);
    const T a = alpha, g = gain, c = clamp_of<T>(clamp, x);
    torch::stable::parallel_for(0, units.count, grain(units), [&](int64_t first, int64_t last) {
      for (int64_t u = first; u < last; ++u) {
        const int64_t at = units.begin(u);
        FASTGAN_AT_LEVEL_FOR(T, forward_unit<T>(*activation, from + at, bias.data(), units.channel(u), to + at, units.size(u), units, a, g, c));
      }
    });
  });
  return y;
}

// dy: gradient of the output; saved: the output (kSavesInput: the input), or none for an unclamped linear. -> (dx, db or an empty tensor)
std::tuple<Tensor, Tensor> bias_act_backward(Tensor dy, std::optional<Tensor> saved, std::optional<Tensor> b, int64_t dim, std::string act,
                                             double alpha, double gain, double clamp, bool bias_grad) {
  check_arguments(dy, b, dim);
  FASTGAN_CHECK(!bias_grad || (dim >= 0 && dim < dy.dim()), "dim ", dim, " is outside a tensor of ", dy.dim(), " dimensions");
  if (saved) {
    check_same_size(dy, *saved, "saved");
    saved = dense(*saved);
    dy = in_layout_of(dy, *saved);
  }
  const auto activation = activation_named(act.c_str());
  FASTGAN_CHECK(activation, "unknown activation '", act, "'");
  FASTGAN_CHECK(saved || (*activation == Activation::linear && clamp < 0), "only an unclamped linear needs no saved tensor");
  dy = dense(dy);
  Tensor dx = new_output_like(dy);
  Tensor db = torch::stable::new_zeros(dy, {bias_grad ? dy.size(dim) : 0});
  if (dy.numel() == 0) return {dx, db};
  const BiasUnits units = units_of(dy, b.has_value() || bias_grad, dim);
  with_sums_of(dy, [&]<class T>(T) {
    const auto bias = bias_vector<T>(b, units);
    const Elements<T> from = elements<T>(dy), with = elements<T>(saved), to = mutable_elements<T>(dx), gradient = mutable_elements<T>(db);
    const T limit = clamp_of<T>(clamp, dy);
    const T a = alpha, g = gain, c = *activation == Activation::swish ? stored_from(stored_type(dy), limit) : limit;
    std::vector<T> sums(bias_grad ? units.count * units.sums_per_unit() : 0, T(0));
    torch::stable::parallel_for(0, units.count, grain(units), [&](int64_t first, int64_t last) {
      for (int64_t u = first; u < last; ++u) {
        const int64_t at = units.begin(u);
        FASTGAN_AT_LEVEL_FOR(T, backward_unit<T>(*activation, from + at, with ? with + at : with, bias.data(), units.channel(u), to + at,
                                                 bias_grad ? &sums[u * units.sums_per_unit()] : nullptr, units.size(u), units, a, g, c));
      }
    });
    std::vector<double> total(bias_grad ? units.channels : 0, 0.0);
    for (size_t i = 0; i < sums.size(); ++i) total[units.channel_of_sum(i)] += sums[i];
    for (size_t i = 0; i < total.size(); ++i) set(gradient, i, static_cast<T>(total[i]));
  });
  return {dx, db};
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, m) {
  m.impl("bias_act", TORCH_BOX(&fastgan::bias_act));
  m.impl("bias_act_backward", TORCH_BOX(&fastgan::bias_act_backward));
}
