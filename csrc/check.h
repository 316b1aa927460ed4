// The few checks every entry uses. Python has already named the argument and what was expected; these keep a direct call
// of torch.ops.fastgan.* from reading memory it does not own.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <type_traits>

#define FASTGAN_CHECK(condition, ...) STD_TORCH_CHECK(condition, "fastgan: ", __VA_ARGS__)

namespace fastgan {

using torch::stable::Tensor;

inline bool same_layout(const Tensor& a, const Tensor& b) {
  if (a.dim() != b.dim()) return false;
  for (int64_t d = 0; d < a.dim(); ++d)
    if (a.size(d) != b.size(d) || (a.size(d) > 1 && a.stride(d) != b.stride(d))) return false;
  return true;
}

inline void check_same_size(const Tensor& a, const Tensor& b, const char* name) {
  FASTGAN_CHECK(a.dim() == b.dim(), name, " has ", b.dim(), " dimensions, expected ", a.dim());
  for (int64_t d = 0; d < a.dim(); ++d)
    FASTGAN_CHECK(a.size(d) == b.size(d), name, " has size ", b.size(d), " in dimension ", d, ", expected ", a.size(d));
  FASTGAN_CHECK(a.scalar_type() == b.scalar_type(), name, " has another dtype than its partner");
}

// x in the memory layout of `like`; a copy only where the two differ.
inline Tensor in_layout_of(const Tensor& x, const Tensor& like) {
  if (same_layout(x, like)) return x;
  Tensor copy = torch::stable::empty_like(like);
  torch::stable::copy_(copy, x);
  return copy;
}

// x itself if its elements fill one block of memory (in any order of dimensions), else a copy in the layout that
// torch.empty_like(x) gives, which is also the layout of the result.
inline Tensor dense(const Tensor& x) { return x.is_contiguous() ? x : in_layout_of(x, torch::stable::empty_like(x)); }

// What sums of S, and filters beside tensors of S, are kept in.
template <class S>
using accumulate_t = std::conditional_t<std::is_same_v<S, double>, double, float>;
template <class S>
constexpr auto accumulate_dtype = std::is_same_v<S, double> ? torch::headeronly::ScalarType::Double : torch::headeronly::ScalarType::Float;

inline torch::headeronly::ScalarType accumulate_dtype_of(const Tensor& x) {
  using torch::headeronly::ScalarType;
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

template <class scalar_t>
const scalar_t* pointer(const Tensor& t) {
  return static_cast<const scalar_t*>(t.const_data_ptr());
}

template <class scalar_t>
scalar_t* mutable_pointer(Tensor& t) {
  return static_cast<scalar_t*>(t.mutable_data_ptr());
}

}  // namespace fastgan

// clang-format off
// Calls body<scalar_t>() for the four floating-point types; anything else is an error.
#define FASTGAN_DISPATCH(dtype, ...)                                                                            \
  [&] {                                                                                                         \
    switch (dtype) {                                                                                            \
      case torch::headeronly::ScalarType::Float: { using scalar_t = float; return __VA_ARGS__(); }              \
      case torch::headeronly::ScalarType::Double: { using scalar_t = double; return __VA_ARGS__(); }            \
      case torch::headeronly::ScalarType::Half: { using scalar_t = torch::headeronly::Half; return __VA_ARGS__(); }        \
      case torch::headeronly::ScalarType::BFloat16: { using scalar_t = torch::headeronly::BFloat16; return __VA_ARGS__(); } \
      default: STD_TORCH_CHECK(false, "fastgan: dtype must be float16, bfloat16, float32 or float64");          \
    }                                                                                                           \
  }()
// clang-format on
