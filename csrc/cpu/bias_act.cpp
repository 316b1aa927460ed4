// bias_act on the CPU. A dense tensor in any order of dimensions is [outer, channels, inner] with inner = stride(dim), so NCHW,
// channels_last and linear layers are one case. Work is cut into units that depend on the shape only, never on the number of
// threads, and bias gradients are summed in the order of units: same result at any thread count.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "activation.h"
#include "check.h"
#include "cpu/level.h"
#include "cpu/memory.h"

#define FASTGAN_KERNEL "cpu/bias_act_kernel.h"
#include "cpu/each_level.h"

namespace fastgan {
namespace {

constexpr int64_t kUnit = 16384;  // elements: 64 KiB of float32, in and out fit an L2 cache

struct Shape {
  int64_t numel = 1, channels = 1, inner = 1;
  int64_t units = 0, unit = 0;  // number of units; elements of a unit (the last of a row may be shorter)
  int64_t piece = 0;            // elements that share one bias vector (inner == 1), else the unit
  int64_t units_per_row = 1;    // inner > 1: a row is one (outer, channel) pair
  bool vector_bias() const { return inner == 1 && channels > 1; }

  Shape(const Tensor& x, bool has_bias, int64_t dim) : numel(x.numel()) {
    if (has_bias && numel > 0) channels = x.size(dim), inner = channels > 1 ? x.stride(dim) : numel;
    if (!has_bias) inner = numel;
    if (numel == 0) return;
    if (vector_bias()) {
      piece = channels * std::max<int64_t>(1, 256 / channels);
      unit = piece * std::max<int64_t>(1, kUnit / piece);
      units = (numel + unit - 1) / unit;
    } else {
      piece = unit = std::min(inner, kUnit);
      units_per_row = (inner + unit - 1) / unit;
      units = numel / inner * units_per_row;
    }
  }
  int64_t begin(int64_t u) const { return vector_bias() ? u * unit : u / units_per_row * inner + u % units_per_row * unit; }
  int64_t size(int64_t u) const {
    return vector_bias() ? std::min(unit, numel - u * unit) : std::min(unit, inner - u % units_per_row * unit);
  }
  int64_t channel(int64_t u) const { return vector_bias() ? 0 : u / units_per_row % channels; }
  int64_t sums_per_unit() const { return vector_bias() ? piece : 1; }
};

template <class S>
using accumulate_t = std::conditional_t<std::is_same_v<S, double>, double, float>;

template <class S, class T>
std::vector<T> bias_vector(const std::optional<Tensor>& b, const Shape& shape) {
  std::vector<T> bias(shape.vector_bias() ? shape.piece : shape.channels, T(0));
  if (b) {
    const Tensor values = torch::stable::contiguous(*b);
    for (size_t i = 0; i < bias.size(); ++i) bias[i] = static_cast<T>(pointer<S>(values)[i % shape.channels]);
  }
  return bias;
}

template <class S, class T>
T clamp_of(double clamp) {  // rounded to the tensor's type first: the stored output is compared with it
  return clamp < 0 ? std::numeric_limits<T>::infinity() : static_cast<T>(static_cast<S>(static_cast<T>(clamp)));
}

void check_arguments(const Tensor& x, const std::optional<Tensor>& b, int64_t dim) {
  if (!b) return;
  FASTGAN_CHECK(dim >= 0 && dim < x.dim(), "dim ", dim, " is outside a tensor of ", x.dim(), " dimensions");
  FASTGAN_CHECK(b->dim() == 1 && b->size(0) == x.size(dim) && b->scalar_type() == x.scalar_type(),
                "b must be a vector of x.shape[dim] elements of the dtype of x");
}

int64_t grain(const Shape& shape) { return std::max<int64_t>(1, 32768 / std::max<int64_t>(1, shape.unit)); }

Tensor bias_act(Tensor x, std::optional<Tensor> b, int64_t dim, std::string act, double alpha, double gain, double clamp) {
  check_arguments(x, b, dim);
  x = dense(x);
  Tensor y = torch::stable::empty_like(x);
  const Shape shape(x, b.has_value(), dim);
  FASTGAN_DISPATCH(x.scalar_type(), [&] {
    using T = accumulate_t<scalar_t>;
    const auto bias = bias_vector<scalar_t, T>(b, shape);
    const scalar_t* from = pointer<scalar_t>(x);
    scalar_t* to = mutable_pointer<scalar_t>(y);
    advise_huge_pages(to, shape.numel * sizeof(scalar_t));
    const T a = alpha, g = gain, c = clamp_of<scalar_t, T>(clamp);
    const bool known = with_activation(act.c_str(), [&]<Activation A>() {
      torch::stable::parallel_for(0, shape.units, grain(shape), [&](int64_t first, int64_t last) {
        for (int64_t u = first; u < last; ++u) {
          const int64_t at = shape.begin(u), n = shape.size(u);
          if (shape.vector_bias()) FASTGAN_AT_LEVEL(forward_range<A, true, scalar_t, T>(from + at, bias.data(), to + at, n, shape.piece, a, g, c));
          else FASTGAN_AT_LEVEL(forward_range<A, false, scalar_t, T>(from + at, &bias[shape.channel(u)], to + at, n, shape.piece, a, g, c));
        }
      });
    });
    FASTGAN_CHECK(known, "unknown activation '", act, "'");
  });
  return y;
}

// dy: gradient of the output; saved: the output (swish: the input), or none for an unclamped linear. -> (dx, db or an empty tensor)
std::tuple<Tensor, Tensor> bias_act_backward(Tensor dy, std::optional<Tensor> saved, std::optional<Tensor> b, int64_t dim,
                                             std::string act, double alpha, double gain, double clamp, bool bias_grad) {
  check_arguments(dy, b, dim);
  if (saved) {
    check_same_size(dy, *saved, "saved");
    saved = dense(*saved);
    dy = in_layout_of(dy, *saved);
  }
  FASTGAN_CHECK(saved || (act == "linear" && clamp < 0), "only an unclamped linear needs no saved tensor");
  dy = dense(dy);
  Tensor dx = torch::stable::empty_like(dy);
  Tensor db = torch::stable::new_zeros(dy, {bias_grad ? dy.size(dim) : 0});
  const Shape shape(dy, b.has_value(), dim);
  FASTGAN_DISPATCH(dy.scalar_type(), [&] {
    using T = accumulate_t<scalar_t>;
    const auto bias = bias_vector<scalar_t, T>(b, shape);
    const scalar_t* from = pointer<scalar_t>(dy);
    const scalar_t* with = saved ? pointer<scalar_t>(*saved) : nullptr;
    scalar_t* to = mutable_pointer<scalar_t>(dx);
    advise_huge_pages(to, shape.numel * sizeof(scalar_t));
    const T a = alpha, g = gain, c = clamp_of<scalar_t, T>(clamp);
    std::vector<T> sums(bias_grad ? shape.units * shape.sums_per_unit() : 0, T(0));
    const bool known = with_activation(act.c_str(), [&]<Activation A>() {
      torch::stable::parallel_for(0, shape.units, grain(shape), [&](int64_t first, int64_t last) {
        for (int64_t u = first; u < last; ++u) {
          const int64_t at = shape.begin(u), n = shape.size(u);
          const scalar_t* s = with ? with + at : nullptr;
          T* sum = bias_grad ? &sums[u * shape.sums_per_unit()] : nullptr;
          if (shape.vector_bias()) FASTGAN_AT_LEVEL(backward_range<A, true, scalar_t, T>(from + at, s, bias.data(), to + at, sum, n, shape.piece, a, g, c));
          else FASTGAN_AT_LEVEL(backward_range<A, false, scalar_t, T>(from + at, s, &bias[shape.channel(u)], to + at, sum, n, shape.piece, a, g, c));
        }
      });
    });
    FASTGAN_CHECK(known, "unknown activation '", act, "'");
    std::vector<double> total(bias_grad ? shape.channels : 0, 0.0);
    for (size_t i = 0; i < sums.size(); ++i)
      total[shape.vector_bias() ? i % shape.piece % shape.channels : shape.channel(i)] += sums[i];
    for (size_t i = 0; i < total.size(); ++i) mutable_pointer<scalar_t>(db)[i] = static_cast<scalar_t>(static_cast<T>(total[i]));
  });
  return {dx, db};
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, m) {
  m.impl("bias_act", TORCH_BOX(&fastgan::bias_act));
  m.impl("bias_act_backward", TORCH_BOX(&fastgan::bias_act_backward));
}
