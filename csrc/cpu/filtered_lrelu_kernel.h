// Loops of filtered_lrelu on one plane (one channel of one image). Included once per instruction set by each_level.h.
//
// Four passes over rows that stay in the first two caches: across x (to rings of `up_rows` rows), along to `up` rows of t at
// once with the activation in registers (to a ring of t), along to one row, across to one row of y. All four are `combine`:
// a sum of rows times taps. A tap costs one load per vector and output row: with 12 taps the passes along are bound by the
// multiply-adds, the passes across by loads that straddle two cache lines.

namespace {

using filtered::Plan;

#include "cpu/convert.h"
#include "cpu/finite.h"
#include "cpu/filtered_lrelu_vector.h"
#include "cpu/filtered_lrelu_combine.h"

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
    const int64_t sizes[] = {line_size, (plan.up_separable ? 2 : plan.up_rows) * plan.x_row(),
                             plan.up_separable ? plan.up_rows * plan.t_row() : 0, ring * plan.t_row(), 2 * plan.t_row(), plan.t_row(),
                             std::max(plan.x_row(), plan.t_row()), plan.y_phases * plan.out_columns};
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
      x_table.push_back(i < 0 || i >= plan.x_h ? zeros : plan.up_separable ? wide_rows + i % plan.up_rows * plan.t_row()
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
template <bool kWrite, class S>
inline void expect(const S* row, int64_t n) {
  for (int64_t i = 0; i < n; i += 64 / sizeof(S)) __builtin_prefetch(row + i, kWrite);
}

// Row i of x as planes, in the type sums are kept in, with the bias.
template <class S, class T>
inline void take_x(const Plan<T>& plan, const S* x, T bias, Scratch<T>& scratch, T* row) {
  T* to = plan.x_phases == 1 ? row + plan.x_margin : scratch.line;
  const int64_t n = plan.x_w;
  int64_t i = 0;
  if constexpr (std::is_same_v<S, T>) {
    const auto add = [&](int64_t at) { store(to + at, load(x + at) + bias); };
    for (; i + kLanes<T> <= n; i += kLanes<T>) add(i);
    if (i < n && i > 0) add(n - kLanes<T>), i = n;  // once more over the last ones: no scalar tail
    for (; i < n; ++i) to[i] = x[i] + bias;
  } else {
    widen(x, to, n);
    for (; i < n; ++i) to[i] += bias;
  }
  if (plan.x_phases == 1) return;
  for (int64_t e = 0; e < plan.x_phases; ++e)
    for (int64_t i = e, j = e * plan.x_stride + plan.x_margin; i < n; i += plan.x_phases, ++j) row[j] = to[i];
}

// A row of y from its planes, which is returned in the type of the sums.
template <class S, class T>
inline const T* give_y(const Plan<T>& plan, Scratch<T>& scratch, S* y) {
  T* to = scratch.line;
  if constexpr (std::is_same_v<S, T>) to = y;
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
  if constexpr (!std::is_same_v<S, T>) narrow(to, y, plan.out_w);
  return to;
}

// The group of `up` rows of t that read the rows of x from u on: t[py + u up - j] meets their taps j, j + up, ...
template <int kUp, Pass kPass, class T>
inline void up_group(const Plan<T>& plan, T* const* rows, Scratch<T>& scratch, T* const* out) {
  const Act<T> act{plan.slope, plan.clamp, scratch.negative, scratch.clamped, scratch.bit_row};
  for (int64_t r = 0; r < plan.phases; ++r) {
    const int64_t at = r * plan.t_stride + plan.t_margin, bit = r * scratch.bit_plane * 8 - at;
    if (plan.up_separable) {
      combine<kUp, kPass>(rows, plan.along_up.data(), plan.up_rows, out, at, plan.columns, act, bit);
    } else {
      const int64_t n = plan.up_rows * plan.up_columns, first = plan.first_sample(r) - plan.first_sample(0);
      for (int64_t a = 0, k = 0; a < plan.up_rows; ++a)
        for (int64_t c = 0; c < plan.up_columns; ++c, ++k) scratch.in[k] = rows[a] + plan.x_place[first + c] - at;
      combine<kUp, kPass>(scratch.in.data(), plan.along_up.data() + r * n * kUp, n, out, at, plan.columns, act, bit);
    }
  }
}

// What lies beyond the grid is zero to the second filter, where an output reads it.
template <class T>
inline void clear_beyond(const Plan<T>& plan, T* row) {
  if (!plan.reads_beyond()) return;
  for (int64_t r = 0; r < plan.phases; ++r) {
    T* plane = row + r * plan.t_stride + plan.t_margin;
    for (int64_t i = std::max<int64_t>(0, filtered::ceil_div(plan.mid_w - r, plan.phases)); i < plan.columns; ++i) plane[i] = 0;
  }
}

// Across to a row of y from row `which` of the two that have been filtered along, or from the ring of t if the filter is 2-D.
// `spare`: numbers after the row that may be overwritten. Whether all of the row is finite.
template <class S, class T>
inline bool across_row(const Plan<T>& plan, Scratch<T>& scratch, T* const* rows, int64_t which, S* y, int64_t spare) {
  T* out[4];
  for (int64_t e = 0; e < plan.y_phases; ++e) out[e] = scratch.y + e * plan.out_columns;
  bool direct = false;
  if constexpr (std::is_same_v<S, T>) {
    direct = plan.y_phases == 1 && spare >= plan.out_columns - plan.out_w;
    if (direct) out[0] = y;
  }
  if (plan.down_separable) {
    T* row = scratch.row + which * plan.t_row();
    clear_beyond(plan, row);
    across(scratch.t_windows, row, scratch.t_across[which].data(), plan.y_phases, plan.across_down.data(), plan.down_samples, out, plan.out_columns);
  } else {
    for (int64_t a = 0, k = 0; a < plan.down_rows; ++a)
      for (int64_t place : plan.t_place) scratch.in[k++] = rows[a] + place;
    combine_plain(plan.y_phases, scratch.in.data(), plan.along_down.data(), plan.down_rows * plan.down_samples, out, 0, plan.out_columns);
  }
  return finite(direct ? out[0] : give_y<S>(plan, scratch, y), plan.out_w);
}

// Rows o and, if `two`, o + 1 of y from the ring of t, whose rows both read: together they load them once.
template <class S, class T>
inline bool down_rows(const Plan<T>& plan, Scratch<T>& scratch, int64_t o, bool two, S* y, int64_t spare) {
  T* const* rows = scratch.t_from(o * plan.down - plan.qy);
  if (plan.down_separable)
    for (int64_t r = 0; r < plan.phases; ++r) {
      const int64_t at = r * plan.t_stride + plan.t_margin;
      if (two) combine_two(rows, plan.along_down.data(), plan.down_rows, plan.down, scratch.row, scratch.row + plan.t_row(), at, plan.columns);
      else combine<1, Pass::plain>(rows, plan.along_down.data(), plan.down_rows, &scratch.row, at, plan.columns, Act<T>{}, 0);
    }
  const bool first = across_row(plan, scratch, rows, 0, y, spare);
  return (!two || across_row(plan, scratch, rows, 1, y + plan.out_w, spare - plan.out_w)) && first;
}

// Rows [first, last) of y of one plane; whether all are finite. A band writes the rows of the mask that its own rows of y read first.
template <Pass kPass, class S, class T>
bool plane(const Plan<T>& plan, Scratch<T>& scratch, const S* x, T bias, S* y, uint8_t* mask, int64_t first, int64_t last) {
  const bool marks = kPass == Pass::activate_and_mark;
  const int64_t own_first = first == 0 ? 0 : first * plan.down, own_last = last == plan.out_h ? plan.mid_h : last * plan.down;
  const int64_t row_bytes = plan.mask_row();
  int64_t u = INT64_MIN, next_x = 0, taken = -1;  // next group, next row of x, the last of which a copy was made
  const auto copied = [&](int64_t i) { return scratch.x_rows + i % 2 * plan.x_row(); };
  const auto group = [&] {
    T* const* rows = scratch.x_from(u);
    for (int64_t i = std::max(next_x, std::max<int64_t>(0, u)); i < std::min(u + plan.up_rows, plan.x_h); ++i, next_x = i) {
      expect<false>(x + (i + kRowsAhead) * plan.x_w, plan.x_w);
      if (!plan.up_separable) {
        take_x(plan, x + i * plan.x_w, bias, scratch, rows[i - u]);
        continue;
      }
      // One row ahead: what has just been stored is not yet there to be loaded across its vectors.
      for (taken = std::max(taken, i - 1); taken < std::min(i + 1, plan.x_h - 1);) ++taken, take_x(plan, x + taken * plan.x_w, bias, scratch, copied(taken));
      T* wide[4];
      for (int64_t r = 0; r < plan.phases; ++r) wide[r] = rows[i - u] + r * plan.t_stride + plan.t_margin;
      across(scratch.x_windows, copied(i), scratch.x_across[i % 2].data(), plan.phases, plan.across_up.data(), plan.across_samples, wide, plan.columns);
    }
    T* out[4];
    for (int64_t j = 0; j < plan.up; ++j) {
      const int64_t m = plan.py + u * plan.up - j;
      const bool inside = m >= 0 && m < plan.mid_h;
      out[j] = inside ? *scratch.t_from(m) : scratch.dump;
      if (kPass == Pass::masked && inside) {
        planes_from_mask(mask + m * 2 * row_bytes, scratch.bit_plane, plan.phases, plan.mid_w, scratch.negative + j * scratch.bit_row);
        planes_from_mask(mask + (m * 2 + 1) * row_bytes, scratch.bit_plane, plan.phases, plan.mid_w, scratch.clamped + j * scratch.bit_row);
      }
    }
    if (marks && kLanes<T> < 8) std::memset(scratch.negative, 0, 2 * plan.up * scratch.bit_row);
    if (plan.up == 1) up_group<1, kPass>(plan, rows, scratch, out);
    else if (plan.up == 2) up_group<2, kPass>(plan, rows, scratch, out);
    else up_group<4, kPass>(plan, rows, scratch, out);
    for (int64_t j = 0; j < plan.up; ++j) {
      const int64_t m = plan.py + u * plan.up - j;
      if (m < 0 || m >= plan.mid_h) continue;
      if (!plan.down_separable) clear_beyond(plan, out[j]);
      if (marks && m >= own_first && m < own_last) {
        mask_from_planes(scratch.negative + j * scratch.bit_row, scratch.bit_plane, plan.phases, plan.mid_w, mask + m * 2 * row_bytes);
        mask_from_planes(scratch.clamped + j * scratch.bit_row, scratch.bit_plane, plan.phases, plan.mid_w, mask + (m * 2 + 1) * row_bytes);
      }
    }
    ++u;
  };
  bool all_finite = true;
  for (int64_t o = first, step = 1; o < last; o += step) {
    step = plan.down_separable && o + 1 < last ? 2 : 1;
    const int64_t from = std::max<int64_t>(0, o * plan.down - plan.qy);
    const int64_t to = std::min(plan.mid_h, (o + step - 1) * plan.down - plan.qy + plan.down_rows);
    // Without a mask to write, rows of t that no output reads are passed over.
    const int64_t needed = filtered::ceil_div((marks && o == first ? own_first : from) - plan.py, plan.up);
    if (u == INT64_MIN || (!marks && u < needed)) u = needed;
    while (plan.py + (u - 1) * plan.up < to - 1) group();
    expect<true>(y + (o + kRowsAhead) * plan.out_w, step * plan.out_w);
    all_finite &= down_rows(plan, scratch, o, step == 2, y + o * plan.out_w, (last - o - 1) * plan.out_w);
  }
  if (marks)
    while (plan.py + (u - 1) * plan.up < own_last - 1) group();
  return all_finite;
}

// Bands [first, last) of [N C planes][bands]. spoiled(n): sample n has an output that is not finite.
template <class S, class T, class Found>
void filtered_bands(const Plan<T>& plan, const S* x, const T* bias, int64_t channels, S* y, uint8_t* mask, bool read_mask,
                    int64_t bands, int64_t first, int64_t last, const Found& spoiled) {
  Scratch<T> scratch(plan);
  const int64_t mask_plane = plan.mid_h * 2 * plan.mask_row();
  for (int64_t unit = first; unit < last; ++unit) {
    const int64_t p = unit / bands, band = unit % bands;
    const int64_t from = plan.out_h * band / bands, to = plan.out_h * (band + 1) / bands;
    const S* x_plane = x + p * plan.x_h * plan.x_w;
    S* y_plane = y + p * plan.out_h * plan.out_w;
    const T b = bias ? bias[p % channels] : T(0);
    bool all_finite;
    if (!mask) all_finite = plane<Pass::activate>(plan, scratch, x_plane, b, y_plane, nullptr, from, to);
    else if (read_mask) all_finite = plane<Pass::masked>(plan, scratch, x_plane, b, y_plane, mask + p * mask_plane, from, to);
    else all_finite = plane<Pass::activate_and_mark>(plan, scratch, x_plane, b, y_plane, mask + p * mask_plane, from, to);
    if (!all_finite) spoiled(p / channels);
  }
}

}  // namespace
