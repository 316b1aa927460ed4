// What norm_act's loops are given, and how a channels_last tensor is cut into units of work: by the shape only, never by the
// number of threads, so that sums taken unit by unit are the same at any thread count. No torch header: the tests execute it for
// tensors beyond 2^31 elements without their memory.
#pragma once

#include <algorithm>
#include <cstdint>

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
};

// Samples [pixels, channels]: a unit is whole pixels of one sample.
struct PixelUnits {
  static constexpr int64_t kUnit = 16384;  // elements: 64 KiB of float32, read twice out of an L2 cache
  int64_t channels, length;                // length: elements of a sample
  int64_t piece;                           // whole pixels; at least 256 elements, so that few channels still fill vectors
  int64_t unit, per_sample, count;

  PixelUnits(int64_t samples, int64_t channels, int64_t pixels)
      : channels(channels), length(pixels * channels), piece(channels * std::max<int64_t>(1, 256 / channels)),
        unit(piece * std::max<int64_t>(32, kUnit / piece)), per_sample((length + unit - 1) / unit), count(samples * per_sample) {}
  int64_t sample(int64_t u) const { return u / per_sample; }
  int64_t begin(int64_t u) const { return u % per_sample * unit; }  // within its sample
  int64_t size(int64_t u) const { return std::min(unit, length - begin(u)); }
};

}  // namespace fastgan
