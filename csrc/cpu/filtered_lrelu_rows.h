// Work memory of filtered_lrelu, and how rows of x and y come and go. Included inside a namespace by filtered_lrelu_kernel.h, once
// per instruction set: no include guard.

constexpr int64_t kRowsAhead = 4;

// Memory of one thread: everything a plane needs, zero where nothing is ever written (margins, rows outside of the image).
template <class T>
struct Scratch {
  std::vector<uint8_t> memory;
  T *line, *x_rows, *wide_rows, *t_rows, *row, *dump, *zeros, *y;
  uint8_t *negative, *clamped, *codes;  // of a group; either the first two are used or the last
  std::vector<T> largest;               // [x_h][lanes]: the largest sizes of the numbers of a row of x
  int64_t bit_plane, bit_row;
  int64_t first_group, first_t;
  std::vector<T*> x_table, t_table;  // where row i (from first_group on) and row m (from first_t on) are kept
  std::vector<const T*> x_across[2], t_across[2], in;  // samples of the passes across, where they are separable, of two rows
  Windows<T> x_windows, t_windows;

  explicit Scratch(const Plan<T>& plan) : x_windows(plan.x_place, plan.x_phases), t_windows(plan.t_place, plan.phases) {
    const int64_t ring = plan.down_rows + plan.down + plan.up - 1;  // for two rows of y
    bit_plane = plan.columns / 8 + 8;  // word-wise reading of the last plane stays inside
    bit_row = plan.phases * bit_plane;
    largest.resize(plan.x_h * kLanes<T>);
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
    negative = at, clamped = at + bits, codes = at;
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

// The numbers at even and at odd places of two vectors, one after the other; and back.
template <class T>
struct Pairs {
  vector_t<T> first, second;
};
template <class T>
inline Pairs<T> parted(vector_t<T> a, vector_t<T> b) {
  return [&]<int... k>(std::integer_sequence<int, k...>) __attribute__((always_inline)) {
    return Pairs<T>{shuffle(a, b, integers_t<T>{2 * k...}), shuffle(a, b, integers_t<T>{2 * k + 1 ...})};
  }(std::make_integer_sequence<int, kLanes<T>>{});
}
template <class T>
inline Pairs<T> joined(vector_t<T> a, vector_t<T> b) {
  constexpr int n = kLanes<T>;
  return [&]<int... k>(std::integer_sequence<int, k...>) __attribute__((always_inline)) {
    return Pairs<T>{shuffle(a, b, integers_t<T>{k / 2 + k % 2 * n...}), shuffle(a, b, integers_t<T>{(k + n) / 2 + k % 2 * n...})};
  }(std::make_integer_sequence<int, n>{});
}

// body(i) for the numbers from i on, `step` at a time, which is a multiple of `phases`; then one(i) for less than `phases`, or for
// all of n < step.
template <class Body, class One>
inline void in_steps(int64_t n, int64_t step, int64_t phases, const Body& body, const One& one) {
  int64_t i = 0;
  for (; i + step <= n; i += step) body(i);
  if (i > 0 && i < n) i = (n - step) / phases * phases, body(i), i += step;  // once more over the last ones: no long tail
  for (; i < n; ++i) one(i);
}

// to[i % phases][i / phases] = from[i] + bias, planes `apart` numbers apart. The largest sizes, a NaN passed over.
template <int phases, class T>
inline vector_t<T> to_planes(const T* from, T bias, int64_t n, T* to, int64_t apart) {
  using V = vector_t<T>;
  V largest{};
  const auto seen = [&](V v) {
    largest = larger<T>(size_of<T>(v), largest);
    return v;
  };
  in_steps(
      n, phases * kLanes<T>, phases,
      [&](int64_t i) __attribute__((always_inline)) {
        const auto take = [&](int64_t k) { return seen(load<V>(from + i + k * kLanes<T>) + bias); };
        const auto give = [&](int64_t e, V v) { store(to + e * apart + i / phases, v); };
        if constexpr (phases == 1) {
          give(0, take(0));
        } else if constexpr (phases == 2) {
          const auto [even, odd] = parted<T>(take(0), take(1));
          give(0, even), give(1, odd);
        } else {
          const auto low = parted<T>(take(0), take(1)), high = parted<T>(take(2), take(3));
          const auto even = parted<T>(low.first, high.first), odd = parted<T>(low.second, high.second);
          give(0, even.first), give(1, odd.first), give(2, even.second), give(3, odd.second);
        }
      },
      [&](int64_t i) { to[i % phases * apart + i / phases] = seen(splat(from[i] + bias))[0]; });
  return largest;
}

// to[i] = from[i % phases][i / phases]
template <int phases, class T>
inline void from_planes(const T* from, int64_t apart, int64_t n, T* to) {
  using V = vector_t<T>;
  in_steps(
      n, phases * kLanes<T>, phases,
      [&](int64_t i) __attribute__((always_inline)) {
        const auto take = [&](int64_t e) { return load<V>(from + e * apart + i / phases); };
        const auto give = [&](int64_t k, Pairs<T> v) { store(to + i + k * kLanes<T>, v.first), store(to + i + (k + 1) * kLanes<T>, v.second); };
        if constexpr (phases == 2) {
          give(0, joined<T>(take(0), take(1)));
        } else {
          const auto even = joined<T>(take(0), take(2)), odd = joined<T>(take(1), take(3));
          give(0, joined<T>(even.first, odd.first)), give(2, joined<T>(even.second, odd.second));
        }
      },
      [&](int64_t i) { to[i] = from[i % phases * apart + i / phases]; });
}

// Row i of x as planes, in the type sums are kept in, with the bias.
template <class T>
inline void take_x(const Plan<T>& plan, Elements<T> x, int64_t i, T bias, Scratch<T>& scratch, T* row) {
  x = x + i * plan.x_w;
  const T* from = x.direct();
  if (!from) widen(x, scratch.line, plan.x_w), from = scratch.line;
  row += plan.x_margin;
  T* largest = scratch.largest.data() + i * kLanes<T>;
  if (plan.x_phases == 1) store(largest, to_planes<1>(from, bias, plan.x_w, row, plan.x_stride));
  else if (plan.x_phases == 2) store(largest, to_planes<2>(from, bias, plan.x_w, row, plan.x_stride));
  else store(largest, to_planes<4>(from, bias, plan.x_w, row, plan.x_stride));
}

// A row of y from its planes, which is returned in the type of the sums.
template <class T>
inline const T* give_y(const Plan<T>& plan, Scratch<T>& scratch, Elements<T> y) {
  T* to = y.direct() ? y.direct() : scratch.line;
  if (plan.y_phases == 1) std::memcpy(to, scratch.y, plan.out_w * sizeof(T));
  else if (plan.y_phases == 2) from_planes<2>(scratch.y, plan.out_columns, plan.out_w, to);
  else from_planes<4>(scratch.y, plan.out_columns, plan.out_w, to);
  if (!y.direct()) narrow(to, y, plan.out_w);
  return to;
}
