// How bias_act cuts a dense, non-empty tensor [outer, channels, inner] into units of work: by its shape only, never by the
// number of threads, so that sums taken unit by unit are the same at any thread count. No torch header: the tests execute this
// for tensors beyond 2^31 elements without their memory.
#pragma once

#include <algorithm>
#include <cstdint>

namespace fastgan {

constexpr int64_t kUnit = 16384;  // elements: 64 KiB of float32, in and out fit an L2 cache

// A row is one (outer, channel) pair. A unit is made of pieces: several rows, or a part of one long row, or, with the channels
// innermost, elements that meet the same vector of biases.
struct Units {
  int64_t numel, channels, inner;
  int64_t piece = 0, unit = 0;  // elements; the last unit of the tensor or of a long row may be shorter
  int64_t count = 0;
  int64_t units_per_row = 1;    // above 1: long rows

  Units(int64_t numel, int64_t channels, int64_t inner) : numel(numel), channels(channels), inner(channels > 1 ? inner : numel) {
    if (vector_bias()) piece = channels * std::max<int64_t>(1, 256 / channels);
    else piece = std::min(this->inner, kUnit);
    if (this->inner > kUnit) {
      unit = kUnit;
      units_per_row = (this->inner + unit - 1) / unit;
      count = numel / this->inner * units_per_row;
    } else {
      unit = piece * std::max<int64_t>(1, kUnit / piece);
      count = (numel + unit - 1) / unit;
    }
  }
  bool vector_bias() const { return inner == 1 && channels > 1; }
  int64_t begin(int64_t u) const { return units_per_row > 1 ? u / units_per_row * inner + u % units_per_row * unit : u * unit; }
  int64_t size(int64_t u) const {
    return std::min(unit, units_per_row > 1 ? inner - u % units_per_row * unit : numel - u * unit);
  }
  // The channel of the first piece of unit u; each further piece is the next channel.
  int64_t channel(int64_t u) const {
    return vector_bias() ? 0 : units_per_row > 1 ? u / units_per_row % channels : u * (unit / piece) % channels;
  }
  // Partial sums of the bias gradient: one per piece, or one per element of a piece; and the channel of the i-th of all.
  int64_t sums_per_unit() const { return vector_bias() ? piece : unit / piece; }
  int64_t channel_of_sum(int64_t i) const { return vector_bias() ? i % piece % channels : i / units_per_row % channels; }
};

}  // namespace fastgan
