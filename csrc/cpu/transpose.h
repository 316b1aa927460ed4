// The transposition of a matrix in registers. Included inside a namespace after vectors.h, once per instruction set: no include guard.

// to[j * to_row + i] = from[i * from_row + j] for i < rows, j < columns, in squares of 8x8 that are turned in registers: a
// square's diagonal blocks of 1, 2 and 4 numbers stay, the others change places.
template <class T>
void transpose(const T* from, int64_t from_row, T* to, int64_t to_row, int64_t rows, int64_t columns) {
  using V = typename Vector<T, 8 * sizeof(T)>::type;
  using M = typename Vector<T, 8 * sizeof(T)>::integers;
  const auto square = [&](int64_t i, int64_t j) {
    V a[8];
    for (int k = 0; k < 8; ++k) a[k] = load<V>(from + (i + k) * from_row + j);
    const auto exchange = [&](int step, M upper, M lower) {
#pragma GCC unroll 8
      for (int k = 0; k < 8; ++k)
        if (!(k & step)) {
          const V first = a[k], second = a[k + step];
          a[k] = shuffle(first, second, upper), a[k + step] = shuffle(first, second, lower);
        }
    };
    exchange(1, M{0, 8, 2, 10, 4, 12, 6, 14}, M{1, 9, 3, 11, 5, 13, 7, 15});
    exchange(2, M{0, 1, 8, 9, 4, 5, 12, 13}, M{2, 3, 10, 11, 6, 7, 14, 15});
    exchange(4, M{0, 1, 2, 3, 8, 9, 10, 11}, M{4, 5, 6, 7, 12, 13, 14, 15});
    for (int k = 0; k < 8; ++k) store(to + (j + k) * to_row + i, a[k]);
  };
  // Of 16x16, so that both sides use whole cache lines while these are near.
  const int64_t whole_rows = rows / 8 * 8, whole_columns = columns / 8 * 8;
  for (int64_t top = 0; top < whole_rows; top += 16)
    for (int64_t left = 0; left < whole_columns; left += 16)
      for (int64_t i = top; i < std::min(top + 16, whole_rows); i += 8)
        for (int64_t j = left; j < std::min(left + 16, whole_columns); j += 8) square(i, j);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = i < whole_rows ? whole_columns : 0; j < columns; ++j) to[j * to_row + i] = from[i * from_row + j];
}
