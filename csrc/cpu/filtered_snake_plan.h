// What one call of filtered_snake does, worked out once: how rows are laid out, and the taps with their places.
//
// t is kept in `phases` = max(up, down) planes: t[m] lies in plane m % phases at m / phases, its place. A place has
// x_phases = phases / up samples of x and y_phases = phases / down of y, kept in planes likewise. Since 1, 2 and 4 divide each
// other, a tap then reads consecutive elements of one plane, and no inserted zero nor dropped output is computed. A row is cut into
// units of `unit` places, whose planes stay in the L1 cache.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace fastgan::snaked {

inline int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }
inline int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }
inline int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

constexpr int64_t kAlign = 16;  // elements: whole vectors at every level

template <class T>
struct Tap {
  int64_t plane, shift;
  T weight;
};

// A tap of one unit: what element 0 of the output plane reads, or of two output planes with their weights.
template <class T>
struct Source {
  const T* from;
  T weight, other;
};

// The taps of two output planes: [0, first) are of the first one alone, up to `both` of both, the others of the second one alone.
template <class T>
struct Pair {
  std::vector<Tap<T>> taps;
  std::vector<T> others;  // weights in the second plane
  int64_t first = 0, both = 0;

  Pair(const std::vector<Tap<T>>& a, const std::vector<Tap<T>>& b) {
    const auto in = [](const std::vector<Tap<T>>& taps, const Tap<T>& tap) {
      return std::find_if(taps.begin(), taps.end(), [&](const Tap<T>& t) { return t.plane == tap.plane && t.shift == tap.shift; });
    };
    const auto add = [&](const Tap<T>& tap, T other) { taps.push_back(tap), others.push_back(other); };
    for (const Tap<T>& tap : a)
      if (in(b, tap) == b.end()) add(tap, 0);
    first = taps.size();
    for (const Tap<T>& tap : a)
      if (const auto same = in(b, tap); same != b.end()) add(tap, same->weight);
    both = taps.size();
    for (const Tap<T>& tap : b)
      if (in(a, tap) == a.end()) add(tap, tap.weight);
  }
};

// How many sources two output planes have: `first`, `both` and `all` of Pair.
template <class T>
struct Both {
  int64_t first, both, all;
};

// out[plane e][i] = sum of weight in[plane][i + shift] over taps[e]
template <class T>
struct Pass {
  std::vector<std::vector<Tap<T>>> taps;
  std::vector<Pair<T>> pairs;   // of planes 0 and 1, 2 and 3
  int64_t least = 0, most = 0;  // shifts

  explicit Pass(int64_t phases) : taps(phases) {}
  void pair() {
    for (size_t e = 0; e + 1 < taps.size(); e += 2) pairs.emplace_back(taps[e], taps[e + 1]);
  }
  // The tap of output element e of place 0 that reads element `index` of the input, which has `planes` per place.
  void add(int64_t e, int64_t index, int64_t planes, T weight) {
    const int64_t shift = floor_div(index, planes);
    taps[e].push_back({index - shift * planes, shift, weight});
    least = std::min(least, shift), most = std::max(most, shift);
  }
};

template <class T>
struct Plan {
  int64_t up, down, phases, x_phases, y_phases;
  int64_t x_size, t_size, y_size, places, unit, units;  // units: of a row
  int64_t held;                                         // samples of x held beyond each end
  int64_t before, after;                                // samples of v held
  Pass<T> rise, fall;                                   // x -> t, v -> y
  Pass<T> fall_back, rise_back;                         // dy -> g, dt -> dx: their adjoints

  Plan(int64_t x_size, const std::vector<T>& fu, const std::vector<T>& fd, int64_t up, int64_t down)
      : up(up), down(down), phases(std::max(up, down)), x_phases(phases / up), y_phases(phases / down), x_size(x_size), t_size(x_size * up),
        y_size(ceil_div(t_size, down)), places(ceil_div(t_size, phases)), unit(std::min(2048 / phases, round_up(places, kAlign))),
        units(ceil_div(places, unit)), held(int64_t(fu.size()) / up - 1), before((int64_t(fd.size()) - 1) / 2), after(fd.size() / 2), rise(phases),
        fall(y_phases), fall_back(phases), rise_back(x_phases) {
    const int64_t taps_u = fu.size(), taps_d = fd.size(), first = held * up + (taps_u - up) / 2;
    for (int64_t e = 0; e < phases; ++e) {
      for (int64_t k = 0; k < taps_u; ++k)
        if ((e + first - k) % up == 0) rise.add(e, (e + first - k) / up - held, x_phases, T(up) * fu[k]);
      for (int64_t k = 0; k < taps_d; ++k)
        if ((e + before - k) % down == 0) fall_back.add(e, (e + before - k) / down, y_phases, fd[k]);
    }
    for (int64_t e = 0; e < y_phases; ++e)
      for (int64_t k = 0; k < taps_d; ++k) fall.add(e, e * down + k - before, phases, fd[k]);
    for (int64_t e = 0; e < x_phases; ++e)
      for (int64_t k = 0; k < taps_u; ++k) rise_back.add(e, (e + held) * up - first + k, phases, T(up) * fu[k]);
    for (Pass<T>* pass : {&rise, &fall, &fall_back, &rise_back}) pass->pair();
  }
};

// The planes of a signal around one unit: element i of plane e, counted in places of the row, is at(e, i), for first <= i < last.
template <class T>
struct Planes {
  int64_t count, first, last;
  T* data = nullptr;

  Planes(int64_t count, int64_t first, int64_t last) : count(count), first(first), last(last) {}
  int64_t length() const { return round_up(last - first, kAlign); }  // of memory: what begins a plane is aligned
  T* at(int64_t e, int64_t i) const { return data + e * length() + i - first; }
  T& element(int64_t index) const {  // of the signal
    const int64_t i = floor_div(index, count);
    return *at(index - i * count, i);
  }
};

// The ranges that unit u of a row works on, so that passes may compute whole kAlign elements.
template <class T>
struct ForwardUnit {
  int64_t begin, end;  // of y
  Planes<T> y, v, x;
  int64_t first, last;  // of t: what y reads of it inside the row

  ForwardUnit(const Plan<T>& p, int64_t u)
      : begin(u * p.unit), end(std::min(p.places, begin + p.unit)), y(p.y_phases, begin, begin + round_up(end - begin, kAlign)),
        v(p.phases, y.first + p.fall.least, y.last + p.fall.most + kAlign), x(p.x_phases, 0, 0), first(std::max<int64_t>(0, v.first)),
        last(std::min(p.places, v.last - kAlign)) {
    x.first = first + p.rise.least, x.last = last + kAlign + p.rise.most;
  }
  int64_t elements() const { return y.count * y.length() + v.count * v.length() + x.count * x.length(); }
};

template <class T>
struct BackwardUnit {
  int64_t begin, end;  // of x
  Planes<T> dx, dt, g, dy, x;
  int64_t first, last;  // of t: what dx reads of its gradient inside the row

  BackwardUnit(const Plan<T>& p, int64_t u)
      : begin(u * p.unit), end(std::min(p.places, begin + p.unit)), dx(p.x_phases, begin, end), dt(p.phases, 0, 0), g(p.phases, 0, 0),
        dy(p.y_phases, 0, 0), x(p.x_phases, 0, 0) {
    // What is held is added to the ends, by the units that have them.
    if (begin == 0) dx.first = floor_div(-p.held, p.x_phases);
    if (end == p.places) dx.last = ceil_div(p.x_size + p.held, p.x_phases);
    dx.last = dx.first + round_up(dx.last - dx.first, kAlign);
    dt.first = dx.first + p.rise_back.least, dt.last = dx.last + p.rise_back.most;
    first = std::max<int64_t>(0, dt.first), last = std::min(p.places, dt.last);
    dt.last = std::max(dt.last, last + kAlign);
    g.first = first == 0 ? floor_div(-p.before, p.phases) : first;
    g.last = last == p.places ? ceil_div(p.t_size + p.after, p.phases) : last;
    g.last = g.first + round_up(std::max(g.last, last + kAlign) - g.first, kAlign);
    dy.first = g.first + p.fall_back.least, dy.last = g.last + p.fall_back.most;
    x.first = first + p.rise.least, x.last = last + kAlign + p.rise.most;
  }
  int64_t elements() const {
    int64_t sum = 0;
    for (const Planes<T>* planes : {&dx, &dt, &g, &dy, &x}) sum += planes->count * planes->length();
    return sum;
  }
};

}  // namespace fastgan::snaked
