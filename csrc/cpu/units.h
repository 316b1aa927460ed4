// How a tensor is cut into units of work: by its shape only, never by the number of threads, so that sums taken unit by unit are
// the same at any thread count. No torch header here and in what extends it: the tests execute both for tensors beyond 2^31 elements
// without their memory.
#pragma once

#include <algorithm>
#include <cstdint>

namespace fastgan {

// Rows of `length` elements, one after the other, each cut into units, the last of which may be shorter.
struct Units {
  static constexpr int64_t kMost = 16384;  // elements: 64 KiB of float32, in and out fit an L2 cache
  int64_t length, unit, per_row, count;

  Units(int64_t rows, int64_t length, int64_t unit = kMost)
      : length(length), unit(std::min(length, unit)), per_row(length ? (length + unit - 1) / unit : 0), count(rows * per_row) {}
  int64_t row(int64_t u) const { return u / per_row; }
  int64_t within(int64_t u) const { return u % per_row * unit; }  // where it begins in its row
  int64_t begin(int64_t u) const { return row(u) * length + within(u); }
  int64_t size(int64_t u) const { return std::min(unit, length - within(u)); }
};

}  // namespace fastgan
