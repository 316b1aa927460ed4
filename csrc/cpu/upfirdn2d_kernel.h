// Rows of upfirdn2d. Included once per instruction set by each_level.h.
//
// A row is `columns` groups of `group` consecutive numbers: one number in NCHW, the channels of a pixel in channels_last.
// Everything is a weighted sum of rows (`combine`): along y of input rows, along x of one row and its shifted copies.

#include "cpu/convert.h"
#include "cpu/finite.h"
#include "cpu/vectors.h"
#include "cpu/upfirdn2d_combine.h"
#include "cpu/upfirdn2d_rows.h"
#include "cpu/upfirdn2d_across.h"
#include "cpu/upfirdn2d_filter_gradient.h"

// Output rows, whose columns are numbers or few of them each. Of a separable filter: rows are summed along y into one padded row, which
// is summed along x, all phases at once (`across`) or phase by phase. Otherwise the padded rows of one output are kept, and both
// sums are one.
template <class T>
class RowFilter {
 public:
  RowFilter(const Plan<T>& plan, const Images<T>& x, Elements<T> y)
      : plan_(plan), ax_(plan.x), ay_(plan.y), x_(x), y_(y), length_(ax_.out * x.group), left_(std::max<int64_t>(ax_.low, 0)),
        read_(std::max<int64_t>(0, std::min(ax_.high, ax_.in) - left_) * x.group), across_(plan.separable ? across_for<T>(ax_, x.group) : nullptr),
        padded_(ax_, across_ ? 1 : ax_.step, x.group,
                across_          ? 2
                : plan.separable ? 1
                                 : ay_.most),
        input_(x, ax_.in * x.group, ay_.most), rows_(ay_.most), shifted_(ay_.most * ax_.most), parts_(ax_.phases),
        part_(round_up(ax_.outputs(0) * x.group)), phase_(ax_.phases > 1 ? ax_.phases * part_ : 0), line_(y.direct() ? 0 : round_up(length_)) {
    for (int64_t q = 0; q < ax_.phases && ax_.phases > 1; ++q) parts_[q] = &phase_[q * part_];
  }

  // Rows [from, to), counted over all images.
  void run(int64_t from, int64_t to) {
    int64_t image = -1;
    for (int64_t r = from, o = from % ay_.out; r < to; ++r, o = o + 1 == ay_.out ? 0 : o + 1) {
      if (image < 0 || o == 0) image = r / ay_.out, ready_ = 0, input_.begin(x_.image(image));
      const Reach taken = ay_.reach(o);
      if (across_) {
        sum_along_y(taken, r % 2);
        // A row late: what has just been stored in vectors cannot be read at another offset without waiting for it.
        if (r > from) sum_across(r - 1);
        if (r + 1 == to) sum_across(r);
      } else if (plan_.separable) {
        sum_along_y(taken, 0);
        padded_.written(0);
        by_phase(r, [&](int64_t q) { return terms_along_x(q); });
      } else {
        take_rows(taken, image);
        by_phase(r, [&](int64_t q) { return terms_of_both(taken, q); });
      }
    }
  }

 private:
  struct Terms {
    const T* weights;
    int64_t count;  // of rows in shifted_
  };

  // Row r of y, or where it waits for its conversion.
  T* result(int64_t r) { return y_.direct() ? y_.direct() + r * length_ : line_.data(); }
  void give(int64_t r) {
    if (!y_.direct()) narrow(line_.data(), y_ + r * length_, length_);
  }

  void sum_along_y(const Reach& taken, int64_t slot) {
    for (int64_t i = 0; i < taken.count(); ++i) rows_[i] = input_(taken.first + i) + left_ * x_.group;
    combine(padded_.column(slot, left_), rows_.data(), plan_.wy.data() + taken.phase * ay_.most + (taken.first - taken.start), taken.count(), read_);
  }

  void sum_across(int64_t r) {
    const int64_t pairs = ax_.out / ax_.phases, odd = ax_.out % ax_.phases, group = x_.group, last = ax_.phases - 1;
    const T* const weights[] = {plan_.wx.data(), plan_.wx.data() + last * ax_.most};
    const T* const starts[] = {padded_.column(r % 2, ax_.first[0]), padded_.column(r % 2, ax_.first[last])};
    T* const to = result(r);
    across_(to, starts, weights, pairs);
    for (int64_t g = 0; g < odd * group; ++g) {
      T sum = 0;
      for (int64_t j = 0; j < ax_.most; ++j) sum += weights[0][j] * starts[0][(pairs + j) * group + g];
      to[pairs * 2 * group + g] = sum;
    }
    give(r);
  }

  void take_rows(const Reach& taken, int64_t image) {
    for (int64_t i = std::max(taken.first, ready_); i < taken.last; ++i) {
      widen(x_.image(image) + i * x_.row_stride + left_ * x_.group, padded_.column(i % ay_.most, left_), read_);
      padded_.written(i % ay_.most);
    }
    ready_ = std::max(ready_, taken.last);
  }

  Terms terms_along_x(int64_t q) {
    int64_t n = 0;
    for (; n < ax_.count[q]; ++n) shifted_[n] = padded_.at(0, ax_.first[q] + n);
    return {plan_.wx.data() + q * ax_.most, n};
  }

  Terms terms_of_both(const Reach& taken, int64_t q) {
    int64_t n = 0;
    for (int64_t i = taken.first; i < taken.last; ++i)
      for (int64_t j = 0; j < ax_.count[q]; ++j) shifted_[n++] = padded_.at(i % ay_.most, ax_.first[q] + j);
    return {plan_.weights(taken.phase, q) + (taken.first - taken.start) * ax_.count[q], n};
  }

  // Every phase of row r from its terms, and the phases' outputs in turn.
  template <class Find>
  void by_phase(int64_t r, const Find& terms_of) {
    T* const to = result(r);
    for (int64_t q = 0; q < ax_.phases; ++q) {
      const int64_t n = ax_.outputs(q) * x_.group;
      const Terms terms = terms_of(q);
      if (ax_.phases > 1) combine(&phase_[q * part_], shifted_.data(), terms.weights, terms.count, round_up(n));
      else combine(to, shifted_.data(), terms.weights, terms.count, y_.direct() ? n : round_up(n));
    }
    if (ax_.phases > 1) join(to, parts_.data(), ax_.phases, ax_.out, x_.group);
    give(r);
  }

  const Plan<T>& plan_;
  const Axis &ax_, &ay_;
  const Images<T>& x_;
  Elements<T> y_;
  int64_t length_, left_, read_;  // numbers of a row of y; the first column that is read, and numbers from there on
  Across<T> across_;
  PaddedRows<T> padded_;
  InputRows<T> input_;
  std::vector<const T*> rows_, shifted_, parts_;
  int64_t part_;
  std::vector<T> phase_, line_;
  int64_t ready_ = 0;  // rows before it are in padded_
};

// x: rows with consecutive columns. y: dense.
template <class T>
void filter_rows(const Plan<T>& plan, const Images<T>& x, Elements<T> y, int64_t from, int64_t to) {
  RowFilter<T>(plan, x, y).run(from, to);
}

// The same for channels_last with many channels: a pixel is a row of its own, and the sums along y wait in a ring of pixels.
template <class T>
void filter_pixels(const Plan<T>& plan, const Images<T>& x, Elements<T> y, int64_t from, int64_t to) {
  const bool direct = y.direct();
  const Axis &ax = plan.x, &ay = plan.y;
  const int64_t channels = x.group, slot = round_up(channels);
  InputRows<T> input(x, ax.in * channels, ay.most);
  std::vector<const T*> rows(ay.most), at(ay.most), terms(ay.most * ax.most);
  std::vector<T> ring(plan.separable ? ax.most * slot : 0), pixel(direct ? 0 : slot), weights(ay.most * ax.most);

  int64_t image = -1;
  for (int64_t r = from; r < to; ++r) {
    if (r / ay.out != image) image = r / ay.out, input.begin(x.image(image));
    const Reach down = ay.reach(r % ay.out);
    for (int64_t i = 0; i < down.count(); ++i) rows[i] = input(down.first + i);
    int64_t ready = 0;  // columns before it are in the ring
    const auto separable = [&](const Reach& right, T* to_pixel) {
      for (int64_t i = std::max(right.first, ready); i < right.last; ++i) {
        for (int64_t j = 0; j < down.count(); ++j) at[j] = rows[j] + i * channels;
        combine(&ring[i % ax.most * slot], at.data(), plan.wy.data() + down.phase * ay.most + (down.first - down.start), down.count(), channels);
      }
      ready = std::max(ready, right.last);
      int64_t n = 0;
      for (int64_t i = right.first; i < right.last; ++i) terms[n++] = &ring[i % ax.most * slot];
      combine(to_pixel, terms.data(), plan.wx.data() + right.phase * ax.most + (right.first - right.start), n, channels);
    };
    const auto of_both = [&](const Reach& right, T* to_pixel) {
      int64_t n = 0;
      for (int64_t j = 0; j < down.count(); ++j)
        for (int64_t i = right.first; i < right.last; ++i) {
          weights[n] = plan.weights(down.phase, right.phase)[(down.first - down.start + j) * ax.count[right.phase] + i - right.start];
          terms[n++] = rows[j] + i * channels;
        }
      combine(to_pixel, terms.data(), weights.data(), n, channels);
    };
    for (int64_t c = 0; c < ax.out; ++c) {
      const Elements<T> to_pixel = y + (r * ax.out + c) * channels;
      T* const result = direct ? to_pixel.direct() : pixel.data();
      if (plan.separable) separable(ax.reach(c), result);
      else of_both(ax.reach(c), result);
      if (!direct) narrow(pixel.data(), to_pixel, channels);
    }
  }
}
