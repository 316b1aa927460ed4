// Large outputs: the first touch of a page costs the kernel more than the arithmetic does.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/headeronly/util/shim_utils.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "check.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastgan {

constexpr int64_t kHugePage = int64_t{2} << 20;

// Asks for large pages under [first, first + bytes), as far as it holds whole ones. It is advice: nothing depends on it.
inline void advise_huge_pages(uintptr_t first, int64_t bytes) {
#if defined(__linux__)
  const uintptr_t from = (first + kHugePage - 1) / kHugePage * kHugePage, end = (first + bytes) / kHugePage * kHugePage;
  if (end > from) madvise(reinterpret_cast<void*>(from), end - from, MADV_HUGEPAGE);
#else
  (void)first, (void)bytes;
#endif
}

// torch.empty_strided of a dense tensor, on the device of `like`, and in its dtype unless another is given. From 8 MiB on it asks
// for pages of 2 MiB: one fault for 512. From 32 MiB on, where glibc maps a block anew for each call and starts it anywhere, it
// begins where such a page does: the two ends would lie in small pages, up to 511 each. To fill 33.5 MB for the first time two
// threads take 2.5 ms as it comes and 1.5 ms so (Zen 5, Linux 6.18). The 4 MiB that the storage is larger by are never touched, but
// torch.save of such an output writes them.
inline Tensor new_output(const Tensor& like, const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides,
                         std::optional<torch::headeronly::ScalarType> dtype = std::nullopt) {
  int64_t numel = 1;
  for (int64_t n : sizes) numel *= n;
  const int64_t element = dtype == torch::headeronly::ScalarType::Byte ? 1 : like.element_size(), bytes = numel * element;
  const bool mapped = bytes >= 16 * kHugePage;
  Tensor block = torch::stable::new_empty(like, {numel + (mapped ? 2 * kHugePage / element : 0)}, dtype);
  int64_t offset = 0;
  if (bytes >= 4 * kHugePage) {
    const uintptr_t start = reinterpret_cast<uintptr_t>(block.mutable_data_ptr());
    const uintptr_t first = mapped ? (start + kHugePage - 1) / kHugePage * kHugePage : start;
    const int64_t tail = bytes % kHugePage;  // in a large page of its own only if it fills a good part of it
    advise_huge_pages(first, mapped && 4 * tail >= kHugePage ? bytes - tail + kHugePage : bytes);
    offset = (first - start) / element;
  }
  AtenTensorHandle view;
  TORCH_ERROR_CODE_CHECK(aoti_torch__reinterpret_tensor(block.get(), sizes.size(), sizes.data(), strides.data(), offset, &view));
  return Tensor(view);
}

inline Tensor new_output(const Tensor& like, const std::vector<int64_t>& sizes, std::optional<torch::headeronly::ScalarType> dtype = std::nullopt) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t d = sizes.size(); d-- > 1;) strides[d - 1] = strides[d] * std::max<int64_t>(sizes[d], 1);  // as torch has it
  return new_output(like, sizes, strides, dtype);
}

// torch.empty_like(x) of a dense x.
inline Tensor new_output_like(const Tensor& x) {
  std::vector<int64_t> sizes(x.dim()), strides(x.dim());
  for (int64_t d = 0; d < x.dim(); ++d) sizes[d] = x.size(d), strides[d] = x.stride(d);
  return new_output(x, sizes, strides);
}

// Whether the channels of a pixel of x [N, C, H, W] lie side by side.
inline bool in_pixels(const Tensor& x) { return x.stride(1) == 1 && x.size(1) > 1; }

// The same, but not of [N, C, 1, 1], which is contiguous as well.
inline bool channels_last(const Tensor& x) { return x.size(1) > 1 && x.stride(1) == 1 && x.stride(3) > 1; }

// [n, c, height, width], contiguous or channels_last.
inline Tensor new_images(const Tensor& like, int64_t n, int64_t c, int64_t height, int64_t width, bool last) {
  if (!last) return new_output(like, {n, c, height, width});
  const int64_t pixel = std::max<int64_t>(c, 1), row = std::max<int64_t>(width, 1) * pixel;
  return new_output(like, {n, c, height, width}, {std::max<int64_t>(height, 1) * row, 1, row, pixel});
}

}  // namespace fastgan
