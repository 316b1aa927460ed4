// How grad_penalty cuts [rows, length] into units of work: pieces of rows. Depends on the shape only, never on the number of
// threads, so that sums taken unit by unit are the same at any thread count. No torch header: the tests execute it for
// tensors beyond 2^31 elements without their memory.
#pragma once

#include <algorithm>
#include <cstdint>

namespace fastgan {

struct RowUnits {
  static constexpr int64_t kUnit = 16384;  // elements: 64 KiB of float32, in and out fit an L2 cache
  int64_t length, unit, per_row, count;

  RowUnits(int64_t rows, int64_t length)
      : length(length), unit(std::min(length, kUnit)), per_row(length ? (length + unit - 1) / unit : 0), count(rows * per_row) {}
  int64_t row(int64_t u) const { return u / per_row; }
  int64_t begin(int64_t u) const { return u / per_row * length + u % per_row * unit; }
  int64_t size(int64_t u) const { return std::min(unit, length - u % per_row * unit); }
};

}  // namespace fastgan
