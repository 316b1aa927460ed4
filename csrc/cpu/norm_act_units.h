// What norm_act's loops are given, and how it cuts a channels_last tensor.
#pragma once

#include "cpu/units.h"

namespace fastgan {

// Mean of n numbers and the sum of their squared distances from it.
struct Moments {
  double mean = 0, squares = 0;
  int64_t n = 0;

  void add(const Moments& other) {  // Chan, Golub, LeVeque 1983, equation 2.1
    const double all = n + other.n, apart = other.mean - mean;
    mean += apart * (other.n / all);
    squares += other.squares + apart * apart * (double(n) * other.n / all);
    n += other.n;
  }
};

// Of one plane a number each; of a sample of pixels a vector each. scale = weight rstd; mean_g = mean g, mean_gx = mean(g xhat).
template <class T>
struct Statistics {
  const T *mean, *rstd, *weight, *bias, *scale;
  const T *mean_g = nullptr, *mean_gx = nullptr;

  Statistics from(int64_t i) const {  // of the elements from the i-th on
    const auto at = [i](const T* values) { return values ? values + i : nullptr; };
    return {at(mean), at(rstd), at(weight), at(bias), at(scale), at(mean_g), at(mean_gx)};
  }
};

// mean g of a plane; NaN under an infinite weight, as the differences of dx then are.
template <class T>
inline T mean_of(double sum, int64_t n, T weight) {
  return static_cast<T>(sum / n) + 0 * weight;
}

// Samples [pixels, channels]: a unit is whole pixels of one sample.
struct PixelUnits : Units {
  int64_t channels;
  int64_t piece;  // whole pixels; at least 256 elements, so that few channels still fill vectors

  PixelUnits(int64_t samples, int64_t channels, int64_t pixels)
      : PixelUnits(samples, channels, pixels, channels * std::max<int64_t>(1, 256 / channels)) {}

 private:
  PixelUnits(int64_t samples, int64_t channels, int64_t pixels, int64_t piece)
      : Units(samples, pixels * channels, piece * std::max<int64_t>(32, kMost / piece)), channels(channels), piece(piece) {}
};

}  // namespace fastgan
