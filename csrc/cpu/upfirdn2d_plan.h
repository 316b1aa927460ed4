// What upfirdn2d does along each axis, worked out once per call.
//
// Output o of an axis is a sum over the input samples start(o), start(o) + 1, ...: the inserted zeros are never touched. The
// weights repeat every `phases` outputs, after which the input has moved by `step` samples (up and down without their
// common factor). So for one phase the outputs o = q, q + phases, ... read input samples `step` apart with one set of weights.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <vector>

#include "cpu/elements.h"

namespace fastgan {

// Of one output: its phase, and the samples inside of the image, [first, last), among those from `start` on that meet a tap.
struct Reach {
  int64_t phase, start, first, last;
  int64_t count() const { return std::max<int64_t>(0, last - first); }
};

struct Axis {
  int64_t in, out, taps, up;
  int64_t phases, step;
  int64_t most;                // taps of a phase, at most
  std::vector<int64_t> first;  // [phases] start(q), negative in the padding
  std::vector<int64_t> tap;    // [phases] the tap that meets sample start(q); the next one is `up` further
  std::vector<int64_t> count;  // [phases] taps
  int64_t low, high;           // input samples that any output reads: [low, high), padding included

  Axis(int64_t in, int64_t out, int64_t taps, int64_t up, int64_t down, int64_t before)
      : in(in), out(out), taps(taps), up(up), phases(up / std::gcd(up, down)), step(down / std::gcd(up, down)), most((taps + up - 1) / up),
        first(phases), tap(phases), count(phases), low(INT64_MAX), high(INT64_MIN) {
    for (int64_t q = 0; q < phases; ++q) {
      const int64_t base = q * down - before;
      tap[q] = ((-base) % up + up) % up;
      first[q] = (base + tap[q]) / up;
      count[q] = tap[q] < taps ? (taps - tap[q] + up - 1) / up : 0;
      if (q < out) {
        low = std::min(low, first[q]);
        high = std::max(high, first[q] + (outputs(q) - 1) * step + most);
      }
    }
  }
  int64_t start(int64_t o) const { return phases == 1 ? first[0] + o * step : first[o % phases] + o / phases * step; }
  Reach reach(int64_t o) const {
    const int64_t phase = phases == 1 ? 0 : o % phases, from = start(o);
    return {phase, from, std::max<int64_t>(from, 0), std::min(from + count[phase], in)};
  }
  int64_t outputs(int64_t q) const { return q < out ? (out - q + phases - 1) / phases : 0; }
};

// Both axes and the filter. Separable: wx and wy hold, per phase, the weights in the order of the samples. Otherwise wxy
// holds, per pair of phases, the weights of x for each of the rows, without gaps.
template <class T>
struct Plan {
  Axis x, y;
  bool separable;
  std::vector<T> wx, wy, wxy;

  // h: [taps_y, taps_x] if hy is empty, else [taps_x]; as correlation, gain included
  Plan(const Axis& x, const Axis& y, const std::vector<T>& h, const std::vector<T>& hy) : x(x), y(y), separable(!hy.empty()) {
    if (separable) {
      wx = phase_weights(x, h), wy = phase_weights(y, hy);
      return;
    }
    wxy.assign(y.phases * x.phases * y.most * x.most, T(0));
    for (int64_t py = 0; py < y.phases; ++py)
      for (int64_t px = 0; px < x.phases; ++px)
        for (int64_t i = 0; i < y.count[py]; ++i)
          for (int64_t j = 0; j < x.count[px]; ++j)
            wxy[(py * x.phases + px) * y.most * x.most + i * x.count[px] + j] = h[(y.tap[py] + i * y.up) * x.taps + x.tap[px] + j * x.up];
  }
  const T* weights(int64_t py, int64_t px) const { return &wxy[(py * x.phases + px) * y.most * x.most]; }

 private:
  static std::vector<T> phase_weights(const Axis& axis, const std::vector<T>& h) {
    std::vector<T> w(axis.phases * axis.most, T(0));
    for (int64_t q = 0; q < axis.phases; ++q)
      for (int64_t j = 0; j < axis.count[q]; ++j) w[q * axis.most + j] = h[axis.tap[q] + j * axis.up];
    return w;
  }
};

// h = column x row to within the rounding of one multiplication, if it is: a filter that setup_filter made of a 1-D one then
// costs taps_x + taps_y instead of taps_x taps_y. Replaces h by the row and returns the column; empty if it is not.
template <class T>
std::vector<T> separate(std::vector<T>& h, int64_t rows, int64_t columns) {
  int64_t pivot = 0;
  for (int64_t i = 0; i < rows * columns; ++i)
    if (std::abs(h[i]) > std::abs(h[pivot])) pivot = i;
  const T top = h[pivot], tolerance = std::abs(top) * std::numeric_limits<T>::epsilon() * 2;
  if (!(std::abs(top) > 0)) return {};
  std::vector<T> row(h.begin() + pivot / columns * columns, h.begin() + (pivot / columns + 1) * columns), column(rows);
  for (int64_t i = 0; i < rows; ++i) column[i] = h[i * columns + pivot % columns] / top;
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j)
      if (!(std::abs(column[i] * row[j] - h[i * columns + j]) <= tolerance)) return {};
  T sum = 0;
  for (T c : column) sum += std::abs(c);
  const T scale = std::exp2(-std::ceil(std::log2(sum)));  // the column, summed over first, makes no number larger
  for (T& c : column) c *= scale;
  for (T& r : row) r /= scale;
  h = row;
  return column;
}

// Rows of numbers: an image of a batch is a plane (NCHW, group 1) or all channels of a sample (channels_last, group C).
template <class T>
struct Images {
  Elements<T> data;
  int64_t per_sample, sample_stride, image_stride, row_stride, group;
  Elements<T> image(int64_t i) const { return data + i / per_sample * sample_stride + i % per_sample * image_stride; }
};

}  // namespace fastgan
