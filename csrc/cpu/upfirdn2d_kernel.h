// Loops of upfirdn2d on rows of an image. Included once per instruction set by each_level.h.
//
// A row is `columns` groups of `group` consecutive numbers: one number in NCHW, the channels of a pixel in channels_last.
// Everything is a weighted sum of rows (`combine`): along y of input rows, along x of one row and its shifted copies.

#include "cpu/convert.h"

constexpr int kDirect = 12;  // rows that one pass adds up: their weights and the sum stay in registers

#include "cpu/finite.h"
#include "cpu/vectors.h"
#include "cpu/upfirdn2d_across.h"

template <int kRows, bool kAdd, class T>
void combine_rows(T* __restrict to, const T* const* rows, const T* weights, int64_t n) {
  constexpr int64_t kStep = 64 / sizeof(T);
  const T* r[kRows];
  T w[kRows];
  for (int j = 0; j < kRows; ++j) r[j] = rows[j], w[j] = weights[j];
  const auto range = [&](int64_t i, int64_t end) {
#pragma omp simd
    for (int64_t k = i; k < end; ++k) {
      T sum = kAdd ? to[k] + w[0] * r[0][k] : w[0] * r[0][k];
      for (int j = 1; j < kRows; ++j) sum += w[j] * r[j][k];
      to[k] = sum;
    }
  };
  const int64_t whole = n / kStep * kStep;
  range(0, whole);
  if (whole == n) return;
  // The last vector overlaps the one before: no scalar tail.
  if (!kAdd && whole > 0) range(n - kStep, n - kStep + kStep);
  else range(whole, n);
}

// to[0, n) = sum of weights[j] rows[j][0, n); `to` is none of the rows.
template <class T>
void combine(T* to, const T* const* rows, const T* weights, int64_t count, int64_t n) {
  using Pass = void (*)(T*, const T* const*, const T*, int64_t);
  static constexpr Pass first[kDirect] = {
      combine_rows<1, false, T>, combine_rows<2, false, T>, combine_rows<3, false, T>,  combine_rows<4, false, T>,
      combine_rows<5, false, T>, combine_rows<6, false, T>, combine_rows<7, false, T>,  combine_rows<8, false, T>,
      combine_rows<9, false, T>, combine_rows<10, false, T>, combine_rows<11, false, T>, combine_rows<12, false, T>};
  if (count == 0) std::fill(to, to + n, T(0));
  else first[std::min<int64_t>(count, kDirect) - 1](to, rows, weights, n);
  int64_t j = kDirect;
  for (; j + 4 <= count; j += 4) combine_rows<4, true, T>(to, rows + j, weights + j, n);
  for (; j < count; ++j) combine_rows<1, true, T>(to, rows + j, weights + j, n);
}

template <int kGroup, class T>
inline void copy_group(const T* from, T* to, int64_t group) {
  for (int64_t g = 0; g < (kGroup ? kGroup : group); ++g) to[g] = from[g];
}

// parts[r][i] = row[i count + r]: every count-th column of `columns` ones starts a part.
template <int kCount, int kGroup, class T>
void split_as(const T* row, T* const* parts, int64_t count, int64_t columns, int64_t group) {
  const int64_t parts_count = kCount ? kCount : count, size = kGroup ? kGroup : group, whole = columns / parts_count;
  if constexpr (kCount == 2 && kGroup == 1) {
    T* __restrict even = parts[0];
    T* __restrict odd = parts[1];
#pragma omp simd
    for (int64_t i = 0; i < whole; ++i) even[i] = row[2 * i], odd[i] = row[2 * i + 1];
  } else {
    for (int64_t r = 0; r < parts_count; ++r)
      for (int64_t i = 0; i < whole; ++i) copy_group<kGroup>(row + (i * parts_count + r) * size, parts[r] + i * size, size);
  }
  for (int64_t r = 0; r < columns % parts_count; ++r)
    copy_group<kGroup>(row + (whole * parts_count + r) * size, parts[r] + whole * size, size);
}

// row[i count + r] = parts[r][i], the inverse.
template <int kCount, int kGroup, class T>
void join_as(T* __restrict row, const T* const* parts, int64_t count, int64_t columns, int64_t group) {
  const int64_t parts_count = kCount ? kCount : count, size = kGroup ? kGroup : group, whole = columns / parts_count;
  if constexpr (kCount == 2 && kGroup == 1) {
    const T *even = parts[0], *odd = parts[1];
#pragma omp simd
    for (int64_t i = 0; i < whole; ++i) row[2 * i] = even[i], row[2 * i + 1] = odd[i];
  } else if constexpr (kCount == 4 && kGroup == 1) {
    const T *p0 = parts[0], *p1 = parts[1], *p2 = parts[2], *p3 = parts[3];
#pragma omp simd
    for (int64_t i = 0; i < whole; ++i) row[4 * i] = p0[i], row[4 * i + 1] = p1[i], row[4 * i + 2] = p2[i], row[4 * i + 3] = p3[i];
  } else if constexpr (kGroup == 3) {
    // Four numbers in one move: what is too much, the next column overwrites. The last columns are copied as they are.
    const int64_t safe = std::max<int64_t>(0, whole - 1);
    for (int64_t i = 0; i < safe; ++i)
      for (int64_t r = 0; r < parts_count; ++r) std::memcpy(row + (i * parts_count + r) * 3, parts[r] + i * 3, 4 * sizeof(T));
    for (int64_t i = safe; i < whole; ++i)
      for (int64_t r = 0; r < parts_count; ++r) copy_group<3>(parts[r] + i * 3, row + (i * parts_count + r) * 3, 3);
  } else {
    for (int64_t i = 0; i < whole; ++i)
      for (int64_t r = 0; r < parts_count; ++r) copy_group<kGroup>(parts[r] + i * size, row + (i * parts_count + r) * size, size);
  }
  for (int64_t r = 0; r < columns % parts_count; ++r)
    copy_group<kGroup>(parts[r] + whole * size, row + (whole * parts_count + r) * size, size);
}

template <class T>
void split(const T* row, T* const* parts, int64_t count, int64_t columns, int64_t group) {
  if (group == 1) return (count == 2 ? split_as<2, 1, T> : count == 4 ? split_as<4, 1, T> : split_as<0, 1, T>)(row, parts, count, columns, group);
  return (group == 3 ? split_as<0, 3, T> : split_as<0, 0, T>)(row, parts, count, columns, group);
}

template <class T>
void join(T* row, const T* const* parts, int64_t count, int64_t columns, int64_t group) {
  if (group == 1) return (count == 2 ? join_as<2, 1, T> : count == 4 ? join_as<4, 1, T> : join_as<0, 1, T>)(row, parts, count, columns, group);
  if (group == 3) return join_as<0, 3, T>(row, parts, count, columns, group);
  return join_as<0, 0, T>(row, parts, count, columns, group);
}

// The input rows of one image in T, each converted once. Rows must be asked for in ascending order, at most `size` apart.
template <class S, class T>
struct InputRows {
  const S* image = nullptr;
  int64_t stride, length, size, next = 0;
  std::vector<T> ring;

  InputRows(int64_t stride, int64_t length, int64_t size) : stride(stride), length(length), size(size) {
    if constexpr (!std::is_same_v<S, T>) ring.resize(size * length);
  }
  void begin(const S* new_image) { image = new_image, next = 0; }
  const T* operator()(int64_t i) {
    if constexpr (std::is_same_v<S, T>) {
      return image + i * stride;
    } else {
      T* row = &ring[i % size * length];
      if (i >= next) widen(image + i * stride, row, length), next = i + 1;
      return row;
    }
  }
};

inline int64_t round_up(int64_t n) { return (n + 15) / 16 * 16; }

// Rows with the padding around them, cut into `step` parts, so that what one phase reads is consecutive.
template <class T>
struct PaddedRows {
  int64_t low, step, group, columns, part;
  std::vector<T> parts, whole;
  std::vector<T*> of;  // [slots][step]

  PaddedRows(const Axis& x, int64_t step, int64_t group, int64_t slots)
      : low(x.low), step(step), group(group), columns(x.high - x.low), part(round_up((columns + step - 1) / step * group + 16)),
        parts(slots * step * part + 32), whole(step > 1 ? columns * group : 0), of(slots * step) {
    for (size_t i = 0; i < of.size(); ++i) of[i] = &parts[i * part];
  }
  // where input column c of the row is to be written; padding is zero from the start
  T* column(int64_t slot, int64_t c) { return (step > 1 ? whole.data() : of[slot]) + (c - low) * group; }
  void written(int64_t slot) {
    if (step > 1) split(whole.data(), &of[slot * step], step, columns, group);
  }
  const T* at(int64_t slot, int64_t c) const { return of[slot * step + (c - low) % step] + (c - low) / step * group; }
};

// Output rows [from, to), counted over all images. x: rows with consecutive columns. y: dense.
template <class S, class T>
void filter_rows(const Plan<T>& plan, const Images<S>& x, S* y, int64_t from, int64_t to) {
  constexpr bool kSame = std::is_same_v<S, T>;
  const Axis &ax = plan.x, &ay = plan.y;
  const int64_t group = x.group, length = ax.out * group, left = std::max<int64_t>(ax.low, 0);
  const int64_t read = std::max<int64_t>(0, std::min(ax.high, ax.in) - left) * group;
  const Across<T> whole_row = plan.separable ? across_for<T>(ax, group) : nullptr;
  PaddedRows<T> padded(ax, whole_row ? 1 : ax.step, group, whole_row ? 2 : plan.separable ? 1 : ay.most);
  InputRows<S, T> input(x.row_stride, ax.in * group, ay.most);
  std::vector<const T*> rows(ay.most), shifted(ay.most * ax.most), parts(ax.phases);
  const int64_t part = round_up(ax.outputs(0) * group);
  std::vector<T> phase(ax.phases > 1 ? ax.phases * part : 0), line(kSame ? 0 : round_up(length));
  for (int64_t q = 0; q < ax.phases && ax.phases > 1; ++q) parts[q] = &phase[q * part];
  const int64_t pairs = ax.out / ax.phases, odd = ax.out % ax.phases;
  const T* const weights_of[] = {plan.wx.data(), plan.wx.data() + (ax.phases - 1) * ax.most};
  // Row r a row late: what has just been stored in vectors cannot be read at another offset without waiting for it.
  const auto along_x = [&](int64_t r) {
    T* result;
    if constexpr (kSame) result = y + r * length;
    else result = line.data();
    const T* const starts[] = {padded.column(r % 2, ax.first[0]), padded.column(r % 2, ax.first[ax.phases - 1])};
    whole_row(result, starts, weights_of, pairs);
    for (int64_t g = 0; g < odd * group; ++g) {
      T sum = 0;
      for (int64_t j = 0; j < ax.most; ++j) sum += weights_of[0][j] * starts[0][(pairs + j) * group + g];
      result[pairs * 2 * group + g] = sum;
    }
    if constexpr (!kSame) narrow(line.data(), y + r * length, length);
  };

  int64_t image = -1, ready = 0;  // rows before `ready` are in `padded`
  for (int64_t r = from, o = from % ay.out; r < to; ++r, o = o + 1 == ay.out ? 0 : o + 1) {
    const int64_t py = ay.phases == 1 ? 0 : o % ay.phases, start = ay.start(o);
    if (image < 0 || o == 0) image = r / ay.out, ready = 0, input.begin(x.image(image));
    const int64_t first = std::max<int64_t>(start, 0), last = std::min(start + ay.count[py], ay.in);
    const int64_t count = std::max<int64_t>(0, last - first);
    if (plan.separable) {
      for (int64_t i = 0; i < count; ++i) rows[i] = input(first + i) + left * group;
      combine(padded.column(whole_row ? r % 2 : 0, left), rows.data(), plan.wy.data() + py * ay.most + (first - start), count, read);
      if (whole_row) {
        if (r > from) along_x(r - 1);
        if (r + 1 == to) along_x(r);
        continue;
      }
      padded.written(0);
    } else {
      for (int64_t i = std::max(first, ready); i < last; ++i) {
        widen(x.image(image) + i * x.row_stride + left * group, padded.column(i % ay.most, left), read);
        padded.written(i % ay.most);
      }
      ready = std::max(ready, last);
    }
    S* row = y + r * length;
    T* result;
    if constexpr (kSame) result = row;
    else result = line.data();
    for (int64_t q = 0; q < ax.phases; ++q) {
      const int64_t taps = ax.count[q], n = ax.outputs(q) * group;
      int64_t terms = 0;
      const T* weights;
      if (plan.separable) {
        weights = plan.wx.data() + q * ax.most;
        for (; terms < taps; ++terms) shifted[terms] = padded.at(0, ax.first[q] + terms);
      } else {
        weights = plan.weights(py, q) + (first - start) * taps;
        for (int64_t i = first; i < last; ++i)
          for (int64_t j = 0; j < taps; ++j) shifted[terms++] = padded.at(i % ay.most, ax.first[q] + j);
      }
      if (ax.phases > 1) combine(&phase[q * part], shifted.data(), weights, terms, round_up(n));
      else combine(result, shifted.data(), weights, terms, kSame ? n : round_up(n));
    }
    if (ax.phases > 1) join(result, parts.data(), ax.phases, ax.out, group);
    if constexpr (!kSame) narrow(line.data(), row, length);
  }
}

// The same for channels_last with many channels: a pixel is a row of its own, and the sums along y wait in a ring of pixels.
template <class S, class T>
void filter_pixels(const Plan<T>& plan, const Images<S>& x, S* y, int64_t from, int64_t to) {
  constexpr bool kSame = std::is_same_v<S, T>;
  const Axis &ax = plan.x, &ay = plan.y;
  const int64_t channels = x.group, slot = round_up(channels);
  InputRows<S, T> input(x.row_stride, ax.in * channels, ay.most);
  std::vector<const T*> rows(ay.most), terms(ay.most * ax.most);
  std::vector<T> ring(plan.separable ? ax.most * slot : 0), pixel(kSame ? 0 : slot), weights(ay.most * ax.most);
  std::vector<const T*> at(ay.most);

  int64_t image = -1;
  for (int64_t r = from; r < to; ++r) {
    const int64_t o = r % ay.out, py = o % ay.phases, start = ay.start(o);
    if (r / ay.out != image) image = r / ay.out, input.begin(x.image(image));
    const int64_t first = std::max<int64_t>(start, 0), last = std::min(start + ay.count[py], ay.in);
    const int64_t count = std::max<int64_t>(0, last - first);
    for (int64_t i = 0; i < count; ++i) rows[i] = input(first + i);
    int64_t ready = 0;  // columns before it are in the ring
    for (int64_t c = 0; c < ax.out; ++c) {
      const int64_t px = c % ax.phases, taps = ax.count[px], begin = ax.start(c);
      const int64_t west = std::max<int64_t>(begin, 0), east = std::min(begin + taps, ax.in);
      S* to_pixel = y + (r * ax.out + c) * channels;
      T* result;
      if constexpr (kSame) result = to_pixel;
      else result = pixel.data();
      int64_t n = 0;
      if (plan.separable) {
        for (int64_t i = std::max(west, ready); i < east; ++i) {
          for (int64_t j = 0; j < count; ++j) at[j] = rows[j] + i * channels;
          combine(&ring[i % ax.most * slot], at.data(), plan.wy.data() + py * ay.most + (first - start), count, channels);
        }
        ready = std::max(ready, east);
        for (int64_t i = west; i < east; ++i) terms[n++] = &ring[i % ax.most * slot];
        combine(result, terms.data(), plan.wx.data() + px * ax.most + (west - begin), n, channels);
      } else {
        for (int64_t j = 0; j < count; ++j)
          for (int64_t i = west; i < east; ++i) {
            weights[n] = plan.weights(py, px)[(first - start + j) * taps + i - begin];
            terms[n++] = rows[j] + i * channels;
          }
        combine(result, terms.data(), weights.data(), n, channels);
      }
      if constexpr (!kSame) narrow(pixel.data(), to_pixel, channels);
    }
  }
}

// In pieces, as an error in the type of the numbers grows with their count: a row of pixels may have thousands.
template <class T>
inline double dot(const T* a, const T* b, int64_t n) {
  constexpr int64_t kPiece = 256;
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kPiece) {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = begin; i < std::min(n, begin + kPiece); ++i) sum += a[i] * b[i];
    total += sum;
  }
  return total;
}

// Adds to sums[taps_y taps_x] what the output rows [from, to) contribute to the gradient in h: dy times the sample that each
// tap met; NaN where dy is not finite. dy: dense rows of `x.group` wide columns.
template <class S, class T>
void correlate_rows(const Axis& ax, const Axis& ay, const Images<S>& x, const S* dy, int64_t from, int64_t to, double* sums) {
  const int64_t group = x.group, length = ax.out * group, left = std::max<int64_t>(ax.low, 0);
  const int64_t read = std::max<int64_t>(0, std::min(ax.high, ax.in) - left) * group;
  PaddedRows<T> padded(ax, ax.step, group, ay.most);
  const int64_t part = round_up(ax.outputs(0) * group);
  std::vector<T> line(length), phase(ax.phases * part);
  std::vector<T*> parts(ax.phases);
  for (int64_t q = 0; q < ax.phases; ++q) parts[q] = &phase[q * part];
  int64_t image = -1, ready = 0;
  for (int64_t r = from; r < to; ++r) {
    const int64_t o = r % ay.out, py = o % ay.phases, start = ay.start(o);
    if (r / ay.out != image) image = r / ay.out, ready = 0;
    const int64_t first = std::max<int64_t>(start, 0), last = std::min(start + ay.count[py], ay.in);
    for (int64_t i = std::max(first, ready); i < last; ++i) {
      widen(x.image(image) + i * x.row_stride + left * group, padded.column(i % ay.most, left), read);
      padded.written(i % ay.most);
    }
    ready = std::max(ready, last);
    widen(dy + r * length, line.data(), length);
    if (!finite(line.data(), length)) sums[0] = std::numeric_limits<double>::quiet_NaN();  // it may meet nothing but zeros
    split(line.data(), parts.data(), ax.phases, ax.out, group);
    for (int64_t i = first; i < last; ++i)
      for (int64_t q = 0; q < ax.phases; ++q)
        for (int64_t j = 0; j < ax.count[q]; ++j)
          sums[(ay.tap[py] + (i - start) * ay.up) * ax.taps + ax.tap[q] + j * ax.up] +=
              dot(parts[q], padded.at(i % ay.most, ax.first[q] + j), ax.outputs(q) * group);
  }
}
