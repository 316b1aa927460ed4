// Work memory of filtered_lrelu, and how rows of x and y come and go. Included inside a namespace by filtered_lrelu_kernel.h, once
// per instruction set: no include guard.

constexpr int64_t kRowsAhead = 4;

// Memory of one thread: everything a plane needs, zero where nothing is ever written (margins, rows outside of the image).
template <class T>
struct Scratch {
  std::vector<uint8_t> memory;
  T *line, *x_rows, *wide_rows, *t_rows, *row, *dump, *zeros, *y;
  uint8_t *negative, *clamped;
  int64_t bit_plane, bit_row;
  int64_t first_group, first_t;
  std::vector<T*> x_table, t_table;  // where row i (from first_group on) and row m (from first_t on) are kept
  std::vector<const T*> x_across[2], t_across[2], in;  // samples of the passes across, where they are separable, of two rows
  Windows<T> x_windows, t_windows;

  explicit Scratch(const Plan<T>& plan) : x_windows(plan.x_place, plan.x_phases), t_windows(plan.t_place, plan.phases) {
    const int64_t ring = plan.down_rows + plan.down + plan.up - 1;  // for two rows of y
    bit_plane = plan.columns / 8 + 8;  // word-wise reading of the last plane stays inside
    bit_row = plan.phases * bit_plane;
    const int64_t line_size = std::max(plan.x_w, plan.out_w);
    const int64_t sizes[] = {line_size,
                             (plan.up_separable ? 2 : plan.up_rows) * plan.x_row(),
                             plan.up_separable ? plan.up_rows * plan.t_row() : 0,
                             ring * plan.t_row(),
                             2 * plan.t_row(),
                             plan.t_row(),
                             std::max(plan.x_row(), plan.t_row()),
                             plan.y_phases * plan.out_columns};
    T** const places[] = {&line, &x_rows, &wide_rows, &t_rows, &row, &dump, &zeros, &y};
    int64_t total = 0;
    for (int64_t size : sizes) total += filtered::round_up(size, plan.kAlign);
    const int64_t bits = plan.up * bit_row;
    memory.resize(64 + total * sizeof(T) + 2 * bits);
    uint8_t* at = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
    for (int i = 0; i < 8; ++i) {
      *places[i] = reinterpret_cast<T*>(at);
      at += filtered::round_up(sizes[i], plan.kAlign) * sizeof(T);
    }
    negative = at, clamped = at + bits;
    first_group = filtered::ceil_div(-plan.py, plan.up);
    for (int64_t i = first_group; i < filtered::ceil_div(plan.mid_h - plan.py, plan.up) + plan.up_rows; ++i)
      x_table.push_back(i < 0 || i >= plan.x_h ? zeros
                        : plan.up_separable    ? wide_rows + i % plan.up_rows * plan.t_row()
                                               : x_rows + i % plan.up_rows * plan.x_row());
    first_t = std::min<int64_t>(0, -plan.qy);
    for (int64_t m = first_t; m < std::max(plan.mid_h, plan.out_h * plan.down - plan.qy + plan.down_rows); ++m)
      t_table.push_back(m < 0 || m >= plan.mid_h ? zeros : t_rows + m % ring * plan.t_row());
    for (int64_t i = 0; i < 2; ++i) {
      for (int64_t place : plan.x_place) x_across[i].push_back(x_rows + i * plan.x_row() + place);
      for (int64_t place : plan.t_place) t_across[i].push_back(row + i * plan.t_row() + place);
    }
    in.resize(std::max(plan.up_rows * plan.up_columns, plan.down_rows * plan.down_samples));
  }
  T* const* x_from(int64_t i) const { return x_table.data() + (i - first_group); }
  T* const* t_from(int64_t m) const { return t_table.data() + (m - first_t); }
};

// Brings a row that is needed soon into the cache: the passes leave the memory idle, and a row of x takes as long to arrive
// as it takes to use. It may lie beyond the tensor: nothing is read.
template <bool kWrite>
inline void expect_bytes(const void* row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const char*>(row) + i, kWrite);
}
template <bool kWrite, class T>
inline void expect(Elements<T> row, int64_t n) {
  expect_bytes<kWrite>(row.data, n * row.size());
}

// Row i of x as planes, in the type sums are kept in, with the bias.
template <class T>
inline void take_x(const Plan<T>& plan, Elements<T> x, T bias, Scratch<T>& scratch, T* row) {
  T* to = plan.x_phases == 1 ? row + plan.x_margin : scratch.line;
  const int64_t n = plan.x_w;
  int64_t i = 0;
  if (const T* from = x.direct()) {
    const auto add = [&](int64_t at) { store(to + at, load<vector_t<T>>(from + at) + bias); };
    for (; i + kLanes<T> <= n; i += kLanes<T>) add(i);
    if (i < n && i > 0) add(n - kLanes<T>), i = n;  // once more over the last ones: no scalar tail
    for (; i < n; ++i) to[i] = from[i] + bias;
  } else {
    widen(x, to, n);
    for (; i < n; ++i) to[i] += bias;
  }
  if (plan.x_phases == 1) return;
  for (int64_t e = 0; e < plan.x_phases; ++e)
    for (int64_t i = e, j = e * plan.x_stride + plan.x_margin; i < n; i += plan.x_phases, ++j) row[j] = to[i];
}

// A row of y from its planes, which is returned in the type of the sums.
template <class T>
inline const T* give_y(const Plan<T>& plan, Scratch<T>& scratch, Elements<T> y) {
  T* to = y.direct() ? y.direct() : scratch.line;
  const T *even = scratch.y, *odd = even + plan.out_columns;
  if (plan.y_phases == 1) {
    std::memcpy(to, even, plan.out_w * sizeof(T));
  } else if (plan.y_phases == 2) {
    const int64_t whole = plan.out_w / 2;
#pragma omp simd
    for (int64_t j = 0; j < whole; ++j) to[2 * j] = even[j], to[2 * j + 1] = odd[j];
    if (plan.out_w % 2) to[plan.out_w - 1] = even[whole];
  } else {
    for (int64_t e = 0; e < plan.y_phases; ++e)
      for (int64_t j = 0; j * plan.y_phases + e < plan.out_w; ++j) to[j * plan.y_phases + e] = scratch.y[e * plan.out_columns + j];
  }
  if (!y.direct()) narrow(to, y, plan.out_w);
  return to;
}
