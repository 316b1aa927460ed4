// The way down of filtered_lrelu: rows of t along, then across to rows of y. Included inside a namespace by
// filtered_lrelu_kernel.h, once per instruction set: no include guard.

// Across to a row of y from row `which` of the two that have been filtered along, or from the ring of t if the filter is 2-D.
// `spare`: numbers after the row that may be overwritten. Whether all of the row is finite.
template <class T>
inline bool across_row(const Plan<T>& plan, Scratch<T>& scratch, T* const* rows, int64_t which, Elements<T> y, int64_t spare) {
  T* out[4];
  for (int64_t e = 0; e < plan.y_phases; ++e) out[e] = scratch.y + e * plan.out_columns;
  const bool direct = y.direct() && plan.y_phases == 1 && spare >= plan.out_columns - plan.out_w;
  if (direct) out[0] = y.direct();
  if (plan.down_separable) {
    T* row = scratch.row + which * plan.t_row();
    clear_beyond(plan, row);
    across(scratch.t_windows, row, scratch.t_across[which].data(), plan.y_phases, plan.across_down.data(), plan.down_samples, out, plan.out_columns);
  } else {
    for (int64_t a = 0, k = 0; a < plan.down_rows; ++a)
      for (int64_t place : plan.t_place) scratch.in[k++] = rows[a] + place;
    combine_plain(plan.y_phases, scratch.in.data(), plan.along_down.data(), plan.down_rows * plan.down_samples, out, 0, plan.out_columns);
  }
  return finite(direct ? out[0] : give_y(plan, scratch, y), plan.out_w);
}

// Rows o and, if `two`, o + 1 of y from the ring of t, whose rows both read: together they load them once.
template <class T>
inline bool down_rows(const Plan<T>& plan, Scratch<T>& scratch, int64_t o, bool two, Elements<T> y, int64_t spare) {
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
