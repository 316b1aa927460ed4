// Loops of filtered_lrelu on one plane (one channel of one image). Included once per instruction set by each_level.h.
//
// Four passes over rows that stay in the first two caches: across x (to rings of `up_rows` rows), along to `up` rows of t at
// once with the activation in registers (to a ring of t), along to one row, across to one row of y. All four are `combine`:
// a sum of rows times taps. A tap costs one load per vector and output row: with 12 taps the passes along are bound by the
// multiply-adds, the passes across by loads that straddle two cache lines.
//
// With AVX2 the activation and the sign bits of a vector of t take four instructions on the ports of its multiply-adds, of which there
// are six (12 taps, up 2), and the bench's floor counts those alone. So nothing looks at the clamp where x is too small to reach it
// (Plan::harmless), and a gradient multiplies by factors that it looks up by the bits of the mask.

using filtered::Plan;

#include "cpu/convert.h"
#include "cpu/finite.h"
#include "cpu/vectors.h"
#include "cpu/transpose.h"
#include "cpu/filtered_lrelu_mask.h"
#include "cpu/filtered_lrelu_combine.h"
#include "cpu/filtered_lrelu_rows.h"
#include "cpu/filtered_lrelu_up.h"
#include "cpu/filtered_lrelu_down.h"

// Rows [first, last) of y of one plane; whether all are finite. A band writes the rows of the mask that its own rows of y read first.
template <class T>
bool plane(const Plan<T>& plan, Pass pass, Scratch<T>& scratch, Elements<T> x, T bias, Elements<T> y, uint8_t* mask, int64_t first, int64_t last) {
  const bool marks = pass == Pass::activate_and_mark;
  const int64_t own_first = first == 0 ? 0 : first * plan.down, own_last = last == plan.out_h ? plan.mid_h : last * plan.down;
  RowsOfT<T> t(plan, pass, scratch, x, bias, mask, own_first, own_last);
  bool all_finite = true;
  for (int64_t o = first, step = 1; o < last; o += step) {
    step = plan.down_separable && o + 1 < last ? 2 : 1;
    t.skip_to(marks && o == first ? own_first : std::max<int64_t>(0, o * plan.down - plan.qy));
    t.make_until(std::min(plan.mid_h, (o + step - 1) * plan.down - plan.qy + plan.down_rows));
    expect<true>(y + (o + kRowsAhead) * plan.out_w, step * plan.out_w);
    all_finite &= down_rows(plan, scratch, o, step == 2, y + o * plan.out_w, (last - o - 1) * plan.out_w);
  }
  if (marks) t.make_until(own_last);
  return all_finite;
}

// Bands [first, last) of [N C planes][bands]. spoiled(n): sample n has an output that is not finite.
template <class T, class Found>
void filtered_bands(const Plan<T>& plan, Elements<T> x, const T* bias, int64_t channels, Elements<T> y, uint8_t* mask, bool read_mask, int64_t bands,
                    int64_t first, int64_t last, const Found& spoiled) {
  Scratch<T> scratch(plan);
  const Pass pass = !mask ? Pass::activate : read_mask ? Pass::masked : Pass::activate_and_mark;
  const int64_t mask_plane = plan.mid_h * 2 * plan.mask_row();
  for (int64_t unit = first; unit < last; ++unit) {
    const int64_t p = unit / bands, band = unit % bands;
    const bool all_finite = plane(plan, pass, scratch, x + p * plan.x_h * plan.x_w, bias ? bias[p % channels] : T(0), y + p * plan.out_h * plan.out_w,
                                  mask ? mask + p * mask_plane : nullptr, plan.out_h * band / bands, plan.out_h * (band + 1) / bands);
    if (!all_finite) spoiled(p / channels);
  }
}
