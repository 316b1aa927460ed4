// What a kernel leaves to its op's reference. A kernel that subtracts neighbours (conv3x3) makes NaN of infinities, one that fills
// its vectors with taps of 0 makes NaN beyond a filter, and one that passes over zeros hides a NaN of the filter: where an output is
// not finite, the definition decides which are what.
#pragma once

#include <torch/csrc/stable/stableivalue_conversions.h>

#include <array>
#include <atomic>
#include <memory>
#include <string>

#include "check.h"

namespace fastgan {

// The result of fastgan::<op>_reference, in its first places.
template <class... Arguments>
std::array<StableIValue, sizeof...(Arguments)> reference(const std::string& op, const Arguments&... arguments) {
  std::array<StableIValue, sizeof...(Arguments)> stack{torch::stable::detail::from(arguments)...};
  const std::string name = "fastgan::" + op + "_reference";
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(name.c_str(), "", stack.data(), TORCH_ABI_VERSION));
  return stack;
}

inline Tensor tensor(StableIValue value) { return torch::stable::detail::to<Tensor>(value); }

// Samples of a batch whose outputs a kernel found not to be finite; several threads may find the same one.
class Spoiled {
 public:
  explicit Spoiled(int64_t samples) : samples_(samples), found_(new std::atomic<bool>[samples]()) {}
  void add(int64_t sample) { found_[sample].store(true, std::memory_order_relaxed); }

  // body(n) for each of them.
  template <class Body>
  void each(const Body& body) const {
    for (int64_t n = 0; n < samples_; ++n)
      if (found_[n]) body(n);
  }

 private:
  int64_t samples_;
  std::unique_ptr<std::atomic<bool>[]> found_;
};

inline Tensor sample(Tensor x, int64_t n) { return torch::stable::narrow(x, 0, n, 1); }

inline void replace_sample(Tensor y, int64_t n, const Tensor& by) {
  Tensor part = sample(y, n);
  torch::stable::copy_(part, by);
}

}  // namespace fastgan
