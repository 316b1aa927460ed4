// The way up of filtered_lrelu: rows of x across, then along to rows of t with the activation. Included inside a namespace by
// filtered_lrelu_kernel.h, once per instruction set: no include guard.

template <int kUp, class T>
inline auto combine_with(Pass pass) {
  return pass == Pass::activate ? combine<kUp, Pass::activate, T>
         : pass == Pass::masked ? combine<kUp, Pass::masked, T>
                                : combine<kUp, Pass::activate_and_mark, T>;
}

// The group of `up` rows of t that read the rows of x from u on: t[py + u up - j] meets their taps j, j + up, ...
template <class T>
inline void up_group(const Plan<T>& plan, Pass pass, bool clamps, T* const* rows, Scratch<T>& scratch, T* const* out) {
  const auto combine = plan.up == 1 ? combine_with<1, T>(pass) : plan.up == 2 ? combine_with<2, T>(pass) : combine_with<4, T>(pass);
  const Act<T> act{plan.slope, plan.clamp, plan.gentle, clamps, scratch.negative, scratch.clamped, scratch.codes, scratch.bit_row};
  for (int64_t r = 0; r < plan.phases; ++r) {
    const int64_t at = r * plan.t_stride + plan.t_margin, bit = r * scratch.bit_plane * 8 - at;
    if (plan.up_separable) {
      combine(rows, plan.along_up.data(), plan.up_rows, out, at, plan.columns, act, bit);
    } else {
      const int64_t n = plan.up_rows * plan.up_columns, first = plan.first_sample(r) - plan.first_sample(0);
      for (int64_t a = 0, k = 0; a < plan.up_rows; ++a)
        for (int64_t c = 0; c < plan.up_columns; ++c, ++k) scratch.in[k] = rows[a] + plan.x_place[first + c] - at;
      combine(scratch.in.data(), plan.along_up.data() + r * n * plan.up, n, out, at, plan.columns, act, bit);
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

// Rows of t of one plane, group by group: the next one is made when a row of y needs it.
template <class T>
class RowsOfT {
 public:
  // own_first, own_last: the rows whose mask is to be written (activate_and_mark).
  RowsOfT(const Plan<T>& plan, Pass pass, Scratch<T>& scratch, Elements<T> x, T bias, uint8_t* mask, int64_t own_first, int64_t own_last)
      : plan_(plan), pass_(pass), scratch_(scratch), x_(x), bias_(bias), mask_(mask), own_first_(own_first), own_last_(own_last) {}

  // Passes over rows before `row`, unless the mask needs them.
  void skip_to(int64_t row) {
    const int64_t needed = filtered::ceil_div(row - plan_.py, plan_.up);
    if (group_ == INT64_MIN || (pass_ != Pass::activate_and_mark && group_ < needed)) group_ = needed;
  }
  void make_until(int64_t end) {
    while (plan_.py + (group_ - 1) * plan_.up < end - 1) make_group();
  }

 private:
  bool inside(int64_t m) const { return m >= 0 && m < plan_.mid_h; }
  int64_t row_of_group(int64_t j) const { return plan_.py + group_ * plan_.up - j; }
  uint8_t* mask_of(int64_t m, int which) const { return mask_ + (m * 2 + which) * plan_.mask_row(); }
  T* copy_of(int64_t i) { return scratch_.x_rows + i % 2 * plan_.x_row(); }

  void make_group() {
    take_rows();
    T* out[4];
    for (int64_t j = 0; j < plan_.up; ++j) {
      const int64_t m = row_of_group(j);
      out[j] = inside(m) ? *scratch_.t_from(m) : scratch_.dump;
      if (pass_ == Pass::masked && inside(m)) read_mask(m, j);
    }
    const bool marks = pass_ == Pass::activate_and_mark;
    if (marks && kLanes<T> < 8) std::memset(scratch_.negative, 0, 2 * plan_.up * scratch_.bit_row);
    T* const* rows = scratch_.x_from(group_);
    const bool clamps = may_clamp();
    up_group(plan_, pass_, clamps, rows, scratch_, out);
    for (int64_t j = 0; j < plan_.up; ++j) {
      const int64_t m = row_of_group(j);
      if (!inside(m)) continue;
      if (!plan_.down_separable) clear_beyond(plan_, out[j]);
      if (marks && m >= own_first_ && m < own_last_) write_mask(m, j, clamps);
    }
    ++group_;
  }

  // Whether an element of the group may reach the clamp: with a clamp of 256 few ever do.
  bool may_clamp() const {
    if (pass_ == Pass::masked) return false;
    vector_t<T> largest{};
    for (int64_t i = std::max<int64_t>(group_, 0); i < std::min(group_ + plan_.up_rows, plan_.x_h); ++i)
      largest = larger<T>(load<vector_t<T>>(scratch_.largest.data() + i * kLanes<T>), largest);
    return !plan_.gentle || reaches<T>(largest, splat(plan_.harmless));
  }

  // The rows of x that the group reads and no group before it: filtered across, or as they are before a 2-D filter.
  void take_rows() {
    T* const* rows = scratch_.x_from(group_);
    const int64_t end = std::min(group_ + plan_.up_rows, plan_.x_h);
    for (int64_t i = std::max(next_x_, std::max<int64_t>(0, group_)); i < end; ++i, next_x_ = i) {
      expect<false>(x_ + (i + kRowsAhead) * plan_.x_w, plan_.x_w);
      if (!plan_.up_separable) {
        take_x(plan_, x_, i, bias_, scratch_, rows[i - group_]);
        continue;
      }
      // One row ahead: what has just been stored is not yet there to be loaded across its vectors.
      for (taken_ = std::max(taken_, i - 1); taken_ < std::min(i + 1, plan_.x_h - 1);) {
        ++taken_;
        take_x(plan_, x_, taken_, bias_, scratch_, copy_of(taken_));
      }
      T* wide[4];
      for (int64_t r = 0; r < plan_.phases; ++r) wide[r] = rows[i - group_] + r * plan_.t_stride + plan_.t_margin;
      across(scratch_.x_windows, copy_of(i), scratch_.x_across[i % 2].data(), plan_.phases, plan_.across_up.data(), plan_.across_samples, wide,
             plan_.columns);
    }
  }

  void read_mask(int64_t m, int64_t j) {
    expect_bytes<false>(mask_of(m + 2 * kRowsAhead, 0), 2 * plan_.mask_row());
    codes_from_mask(mask_of(m, 0), mask_of(m, 1), 2 * scratch_.bit_plane, plan_.phases, plan_.mid_w, scratch_.codes + 2 * j * scratch_.bit_row);
  }
  void write_mask(int64_t m, int64_t j, bool clamps) {
    expect_bytes<true>(mask_of(m + 2 * kRowsAhead, 0), 2 * plan_.mask_row());
    mask_from_planes(scratch_.negative + j * scratch_.bit_row, scratch_.bit_plane, plan_.phases, plan_.mid_w, mask_of(m, 0));
    if (clamps) mask_from_planes(scratch_.clamped + j * scratch_.bit_row, scratch_.bit_plane, plan_.phases, plan_.mid_w, mask_of(m, 1));
    else std::memset(mask_of(m, 1), 0, plan_.mask_row());
  }

  const Plan<T>& plan_;
  const Pass pass_;
  Scratch<T>& scratch_;
  Elements<T> x_;
  T bias_;
  uint8_t* mask_;
  int64_t own_first_, own_last_;
  int64_t group_ = INT64_MIN, next_x_ = 0, taken_ = -1;  // next group, next row of x, the last of which a copy was made
};
