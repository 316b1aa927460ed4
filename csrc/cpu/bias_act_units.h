// How bias_act cuts a dense, non-empty tensor [outer, channels, inner].
#pragma once

#include "cpu/units.h"

namespace fastgan {

// A unit is made of pieces: each the elements of one (outer, channel) pair, or a part of a long one; with the channels innermost,
// elements that meet the same vector of biases.
struct BiasUnits : Units {
  int64_t channels, inner, piece;

  BiasUnits(int64_t numel, int64_t channels, int64_t inner) : BiasUnits(numel, channels, channels > 1 ? inner : numel, 0) {}
  bool vector_bias() const { return inner == 1 && channels > 1; }
  // The channel of the first piece of unit u; each further piece is the next channel.
  int64_t channel(int64_t u) const { return vector_bias() ? 0 : begin(u) / inner % channels; }
  // Partial sums of the bias gradient: one per piece, or one per element of a piece; and the channel of the i-th of all.
  int64_t sums_per_unit() const { return vector_bias() ? piece : unit / piece; }
  int64_t channel_of_sum(int64_t i) const { return vector_bias() ? i % piece % channels : (inner > kMost ? i / per_row : i) % channels; }

 private:
  static int64_t piece_of(int64_t channels, int64_t inner) {
    return inner == 1 && channels > 1 ? channels * std::max<int64_t>(1, 256 / channels) : std::min(inner, kMost);
  }
  static Units cut(int64_t numel, int64_t inner, int64_t piece) {
    return inner > kMost ? Units(numel / inner, inner) : Units(1, numel, piece * std::max<int64_t>(1, kMost / piece));
  }
  BiasUnits(int64_t numel, int64_t channels, int64_t inner, int)
      : Units(cut(numel, inner, piece_of(channels, inner))), channels(channels), inner(inner), piece(piece_of(channels, inner)) {}
};

}  // namespace fastgan
