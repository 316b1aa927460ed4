// Rows of upfirdn2d in the type of the sums: converted, padded, and cut into parts of every n-th column. Included inside a
// namespace by upfirdn2d_kernel.h, once per instruction set: no include guard.

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
  for (int64_t r = 0; r < columns % parts_count; ++r) copy_group<kGroup>(row + (whole * parts_count + r) * size, parts[r] + whole * size, size);
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
  for (int64_t r = 0; r < columns % parts_count; ++r) copy_group<kGroup>(parts[r] + whole * size, row + (whole * parts_count + r) * size, size);
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
template <class T>
struct InputRows {
  Elements<T> image;
  int64_t stride, length, size, next = 0;
  std::vector<T> ring;

  InputRows(const Images<T>& x, int64_t length, int64_t size)
      : stride(x.row_stride), length(length), size(size), ring(x.data.direct() ? 0 : size * length) {}
  void begin(Elements<T> new_image) { image = new_image, next = 0; }
  const T* operator()(int64_t i) {
    if (const T* rows = image.direct()) return rows + i * stride;
    T* row = &ring[i % size * length];
    if (i >= next) widen(image + i * stride, row, length), next = i + 1;
    return row;
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
