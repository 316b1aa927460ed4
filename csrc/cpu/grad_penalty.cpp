// grad_penalty on the CPU. A sample is one block of memory in any order of its dimensions (NCHW, channels_last); a tensor whose
// samples are interleaved is copied first. Sums are taken unit by unit and added in order: same result at any thread count.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "check.h"
#include "cpu/elements.h"
#include "cpu/level.h"
#include "cpu/memory.h"
#include "cpu/units.h"

#define FASTGAN_KERNEL "cpu/grad_penalty_kernel.h"
#include "cpu/each_level.h"

namespace fastgan {
namespace {

enum class Kind { r1, wgan_gp, one_sided };

Kind kind_of(const std::string& name) {
  if (name == "r1") return Kind::r1;
  if (name == "wgan-gp") return Kind::wgan_gp;
  FASTGAN_CHECK(name == "one-sided", "kind '", name, "' is none of r1, wgan-gp, one-sided");
  return Kind::one_sided;
}

double penalty(Kind kind, double sumsq, double target) {
  if (kind == Kind::r1) return sumsq;
  const double excess = std::sqrt(sumsq) - target;
  return kind == Kind::one_sided && excess < 0 ? 0 : excess * excess;
}

// dp c, with d penalty / dg = c g: 0 at g = 0, where the norm has no derivative, and below a one-sided target, whatever dp is.
// c of an infinite norm is NaN, as torch has it: it hides no divergence.
template <class T>
T factor_of(T dp, Kind kind, T sumsq, T target) {
  if (kind == Kind::r1) return dp * 2;
  const T norm = std::sqrt(sumsq);
  if (sumsq == 0 || (kind == Kind::one_sided && norm <= target)) return 0;
  return dp * (2 * (norm - target) / norm);
}

Tensor rows_of(const Tensor& x) {
  const Tensor y = dense(x);
  const bool whole_rows = y.numel() == 0 || y.size(0) == 1 || y.stride(0) == y.numel() / y.size(0);
  return whole_rows ? y : torch::stable::contiguous(y);
}

Units units_of(const Tensor& x) { return Units(x.size(0), x.size(0) ? x.numel() / x.size(0) : 0); }

template <class F>
void for_each_unit(const Units& units, const F& body) {
  const int64_t grain = std::max<int64_t>(1, 2 * Units::kMost / std::max<int64_t>(1, units.unit));
  torch::stable::parallel_for(0, units.count, grain, [&](int64_t first, int64_t last) {
    for (int64_t u = first; u < last; ++u) body(u);
  });
}

// -> (penalty [N], squared norm [N])
std::tuple<Tensor, Tensor> grad_penalty(Tensor grad, std::string kind_name, double target) {
  FASTGAN_CHECK(grad.dim() >= 1, "grad has no dimensions");
  const Kind kind = kind_of(kind_name);
  grad = rows_of(grad);
  const Units units = units_of(grad);
  const int64_t rows = grad.size(0);
  Tensor value = torch::stable::new_empty(grad, {rows}, accumulate_dtype_of(grad));
  Tensor sumsq = torch::stable::empty_like(value);
  with_sums_of(grad, [&]<class T>(T) {
    const Elements<T> from = elements<T>(grad);
    std::vector<double> sums(units.count);
    for_each_unit(units, [&](int64_t u) { sums[u] = FASTGAN_AT_LEVEL_FOR(T, sum_of_squares<T>(from + units.begin(u), units.size(u))); });
    for (int64_t n = 0; n < rows; ++n) {
      double total = 0;
      for (int64_t u = n * units.per_row; u < (n + 1) * units.per_row; ++u) total += sums[u];
      mutable_pointer<T>(sumsq)[n] = static_cast<T>(total);
      mutable_pointer<T>(value)[n] = static_cast<T>(penalty(kind, total, target));
    }
  });
  return {value, sumsq};
}

// dg = dp c g, in the memory layout of g
Tensor grad_penalty_backward(Tensor dp, Tensor grad, Tensor sumsq, std::string kind_name, double target) {
  FASTGAN_CHECK(grad.dim() >= 1, "grad has no dimensions");
  for (const Tensor* t : {&dp, &sumsq})
    FASTGAN_CHECK(t->dim() == 1 && t->size(0) == grad.size(0), "dp and sumsq must be vectors with an element per sample");
  FASTGAN_CHECK(dp.scalar_type() == sumsq.scalar_type(), "dp and sumsq differ in dtype");
  const Kind kind = kind_of(kind_name);
  const Tensor g = rows_of(grad);
  dp = torch::stable::contiguous(dp);
  sumsq = torch::stable::contiguous(sumsq);
  Tensor dg = new_output_like(g);
  const Units units = units_of(g);
  with_sums_of(g, [&]<class T>(T) {
    FASTGAN_CHECK(dp.scalar_type() == accumulate_dtype_of(g), "dp must be float64 for a float64 gradient, else float32");
    const Elements<T> from = elements<T>(g), to = mutable_elements<T>(dg);
    const T *upstream = pointer<T>(dp), *squared = pointer<T>(sumsq);
    for_each_unit(units, [&](int64_t u) {
      const int64_t n = units.row(u), at = units.begin(u);
      const T factor = factor_of<T>(upstream[n], kind, squared[n], static_cast<T>(target));
      FASTGAN_AT_LEVEL_FOR(T, scale<T>(from + at, to + at, units.size(u), factor));
    });
  });
  return in_layout_of(dg, torch::stable::empty_like(grad));
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, m) {
  m.impl("grad_penalty", TORCH_BOX(&fastgan::grad_penalty));
  m.impl("grad_penalty_backward", TORCH_BOX(&fastgan::grad_penalty_backward));
}
