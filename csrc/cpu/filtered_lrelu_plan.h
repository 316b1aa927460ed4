// What one call of filtered_lrelu does, worked out once: sizes, row layouts, and per phase the taps with their places.
//
// Rows of the upsampled grid are kept as `phases` = max(up, down) planes: element m lies in plane m % phases at m / phases.
// Since 1, 2 and 4 divide each other, every filter then reads consecutive elements of one plane per tap, and no element that
// is an inserted zero or is dropped by the downsampling is ever computed. Rows of x and y are split the same way into
// x_phases = phases / up and y_phases = phases / down planes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace fastgan::filtered {

inline int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }
inline int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }
inline int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

// A filter as it slides (already reversed if that was asked for), row-major; 1-D ones have height 0.
template <class T>
struct Fir {
  std::vector<T> taps;
  int64_t width = 1, height = 0;
  bool separable() const { return height == 0; }
  int64_t rows() const { return separable() ? width : height; }
  T at(int64_t k) const { return k >= 0 && k < width ? taps[k] : T(0); }
  T at(int64_t ky, int64_t kx) const { return ky < height && kx >= 0 && kx < width ? taps[ky * width + kx] : T(0); }
};

struct Sizes {
  int64_t x_h, x_w, mid_h, mid_w, out_h, out_w;
  int64_t px, py, qx, qy;  // t[m] reads x from (m - p) / up on, y[o] reads t from o down - q on
};

template <class T>
struct Plan : Sizes {
  static constexpr int64_t kAlign = 64 / sizeof(float);  // elements; at every level a whole number of vectors

  int64_t up, down, phases, x_phases, y_phases;
  bool up_separable, down_separable;
  int64_t up_rows, up_columns;      // taps per output of the first filter: ceil(taps / up)
  int64_t across_samples;           // samples of x that the `phases` outputs of one place meet, all phases together
  int64_t down_samples;             // the same of t for the y_phases outputs
  int64_t down_rows, down_columns;  // taps of the second filter
  int64_t columns, out_columns;     // elements per plane of a row of t, of y, rounded up to kAlign
  int64_t x_margin, x_stride, t_margin, t_stride;  // element 0 of plane e lies at e * stride + margin
  std::vector<int64_t> x_place;     // [across_samples], in a row of x
  std::vector<int64_t> t_place;     // [down_samples], in a row of t
  std::vector<T> across_up;         // separable: [across_samples][phases]
  std::vector<T> along_up;          // separable: [up_rows][up]; else [phases][up_rows][up_columns][up]
  std::vector<T> across_down;       // separable: [down_samples][y_phases]
  std::vector<T> along_down;        // separable: [down_rows]; else [down_rows][down_samples][y_phases]
  T slope, clamp;                   // clamp NaN: none, every comparison with it is false
  bool gentle;                      // 0 < slope <= 1: the larger of t and slope t
  T harmless;                       // if it is gentle: where all of x (with the bias) is smaller, nothing reaches the clamp

  // scale: factor of t, of either sign (a negative one moves behind the activation, which is odd in the pair of them).
  Plan(const Sizes& sizes, const Fir<T>& fu, const Fir<T>& fd, int64_t up_, int64_t down_, double scale, double slope_, double clamp_)
      : Sizes(sizes), up(up_), down(down_), phases(std::max(up_, down_)), x_phases(phases / up_), y_phases(phases / down_),
        up_separable(fu.separable()), down_separable(fd.separable()), up_rows(ceil_div(fu.rows(), up_)), up_columns(ceil_div(fu.width, up_)),
        down_rows(fd.rows()), down_columns(fd.width), columns(round_up(ceil_div(mid_w, phases), kAlign)),
        out_columns(round_up(ceil_div(out_w, y_phases), kAlign)), slope(static_cast<T>(slope_)),
        clamp(clamp_ < 0 ? std::numeric_limits<T>::quiet_NaN() : static_cast<T>(clamp_)) {
    const T before = static_cast<T>(scale < 0 ? -scale : scale), after = scale < 0 ? T(-1) : T(1);
    across_samples = first_sample(phases - 1) - first_sample(0) + up_columns;
    down_samples = (y_phases - 1) * down + down_columns;
    place_up();
    place_down();
    if (up_separable) {
      for (int64_t i = first_sample(0); i < first_sample(0) + across_samples; ++i)
        for (int64_t r = 0; r < phases; ++r) across_up.push_back(fu.at(i * up + px - r));
      for (int64_t a = 0; a < up_rows; ++a)
        for (int64_t j = 0; j < up; ++j) along_up.push_back(before * fu.at(j + a * up));
    } else {
      for (int64_t r = 0; r < phases; ++r)
        for (int64_t a = 0; a < up_rows; ++a)
          for (int64_t c = 0; c < up_columns; ++c)
            for (int64_t j = 0; j < up; ++j) along_up.push_back(before * fu.at(j + a * up, (first_sample(r) + c) * up + px - r));
    }
    gentle = slope > 0 && slope <= 1, harmless = below_clamp();
    for (int64_t a = 0; a < down_rows; ++a) {
      if (down_separable) along_down.push_back(after * fd.at(a));
      for (int64_t k = 0; k < (a > 0 && down_separable ? 0 : down_samples); ++k)
        for (int64_t e = 0; e < y_phases; ++e) {
          const int64_t tap = k - e * down;
          if (down_separable) across_down.push_back(fd.at(tap));
          else along_down.push_back(after * fd.at(a, tap));
        }
    }
  }

  // The first sample of x that t[r] meets, with tap i up + px - r.
  int64_t first_sample(int64_t r) const { return ceil_div(r - px, up); }
  int64_t x_row() const { return x_phases * x_stride; }
  int64_t t_row() const { return phases * t_stride; }
  bool reads_beyond() const { return (out_w - 1) * down - qx + down_columns > mid_w; }
  int64_t mask_row() const { return (mid_w + 31) / 32 * 4; }  // bytes

 private:
  // The largest sum of the sizes of taps that one output meets: taps[k][j] for output j.
  static double gain_of(const std::vector<T>& taps, int64_t outputs) {
    double most = 0;
    for (int64_t j = 0; j < outputs; ++j) {
      double sum = 0;
      for (size_t k = j; k < taps.size(); k += outputs) sum += std::abs(static_cast<double>(taps[k]));
      if (sum != sum) return sum;
      most = std::max(most, sum);
    }
    return most;
  }

  T below_clamp() const {
    if (clamp != clamp) return std::numeric_limits<T>::infinity();
    // Of a 2-D filter that of all phases together, which is more than that of one.
    const double gain = gain_of(along_up, up) * (up_separable ? gain_of(across_up, phases) : 1);
    // The sums are rounded; numbers near the smallest ones are rounded by more.
    const double bound = clamp / gain * 0.9999;
    return bound > 1e-30 ? static_cast<T>(bound) : T(0);
  }

  void place_up() {
    const int64_t first = first_sample(0), least = floor_div(first, x_phases);
    const int64_t most = floor_div(first + across_samples - 1, x_phases);
    x_margin = std::max<int64_t>(0, -least);
    x_stride = round_up(x_margin + std::max(ceil_div(x_w, x_phases), columns + std::max<int64_t>(0, most)), kAlign);
    for (int64_t i = first; i < first + across_samples; ++i) {
      const int64_t shift = floor_div(i, x_phases);
      x_place.push_back((i - shift * x_phases) * x_stride + x_margin + shift);
    }
  }

  void place_down() {
    const int64_t least = floor_div(-qx, phases), most = floor_div(down_samples - 1 - qx, phases);
    t_margin = round_up(std::max<int64_t>(0, -least), kAlign);
    t_stride = round_up(t_margin + std::max(columns, out_columns + std::max<int64_t>(0, most)), kAlign);
    for (int64_t m = -qx; m < down_samples - qx; ++m) {
      const int64_t shift = floor_div(m, phases);
      t_place.push_back((m - shift * phases) * t_stride + t_margin + shift);
    }
  }
};

}  // namespace fastgan::filtered
