// The gradient of upfirdn2d in its filter. Included inside a namespace by upfirdn2d_kernel.h, once per instruction set: no
// include guard.

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
template <class T>
void correlate_rows(const Axis& ax, const Axis& ay, const Images<T>& x, Elements<T> dy, int64_t from, int64_t to, double* sums) {
  const int64_t group = x.group, length = ax.out * group, left = std::max<int64_t>(ax.low, 0);
  const int64_t read = std::max<int64_t>(0, std::min(ax.high, ax.in) - left) * group;
  PaddedRows<T> padded(ax, ax.step, group, ay.most);
  const int64_t part = round_up(ax.outputs(0) * group);
  std::vector<T> line(length), phase(ax.phases * part);
  std::vector<T*> parts(ax.phases);
  for (int64_t q = 0; q < ax.phases; ++q) parts[q] = &phase[q * part];
  int64_t image = -1, ready = 0;
  for (int64_t r = from; r < to; ++r) {
    const Reach taken = ay.reach(r % ay.out);
    if (r / ay.out != image) image = r / ay.out, ready = 0;
    for (int64_t i = std::max(taken.first, ready); i < taken.last; ++i) {
      widen(x.image(image) + i * x.row_stride + left * group, padded.column(i % ay.most, left), read);
      padded.written(i % ay.most);
    }
    ready = std::max(ready, taken.last);
    widen(dy + r * length, line.data(), length);
    if (!finite(line.data(), length)) sums[0] = std::numeric_limits<double>::quiet_NaN();  // it may meet nothing but zeros
    split(line.data(), parts.data(), ax.phases, ax.out, group);
    for (int64_t i = taken.first; i < taken.last; ++i)
      for (int64_t q = 0; q < ax.phases; ++q)
        for (int64_t j = 0; j < ax.count[q]; ++j)
          sums[(ay.tap[taken.phase] + (i - taken.start) * ay.up) * ax.taps + ax.tap[q] + j * ax.up] +=
              dot(parts[q], padded.at(i % ay.most, ax.first[q] + j), ax.outputs(q) * group);
  }
}
