// upfirdn2d in one stream down the image (stream.h), for the factors and filters that networks use.
//
// A thread owns two or four columns of outputs. A row of x adds to the outputs along y that are not finished, which are sums in
// registers: first filtered along x, or, with a 2-D filter, one row of it for each of them.
//
// Memory as in upfirdn2d.cu: floor 1.9 ps per float32 element of a blur on an H200, the time of 48 instructions. A blur of 4 x 4 taps
// takes 41 per output with loads, of which 16 are multiply-adds, and of 64 x 64 pixels some 10% more for the margins: at the floor's
// edge in float32, bound by instructions in 16 bits, where upfirdn2d_mma.cu takes most. This kernel has not run on a GPU yet: these are counts of
// the machine code for sm_90.
#include "cuda/stream.h"
#include "cuda/upfirdn2d.h"

namespace fastgan::resampled {
namespace {

constexpr int kMostThreads = 256;

// `taps` along either axis; up or down is 1.
template <int kUp, int kDown, int kTaps, bool kSeparable>
struct Shape {
  static constexpr int up = kUp, down = kDown, taps = kTaps;
  static constexpr bool separable = kSeparable;
  static constexpr int window = taps / up;                       // samples of a row in an output
  static constexpr int open = taps / (up > down ? up : down);    // outputs along y that a row of x is part of, in groups of `up`
  static constexpr int columns = up == 1 && down == 1 ? 4 : 2;   // of outputs, of a thread
  static constexpr int steps = 8 / down;                         // of a batch: `down` rows of x and `up` rows of y
  static_assert(taps % up == 0 && taps % down == 0 && (up == 1 || down == 1) && up <= 2);
};

struct Side {
  int in, out, before, tile, tiles;

  Side() = default;
  explicit Side(const Axis& a) : in(a.in), out(a.out), before(a.before), tile(0), tiles(0) {}
  // The first sample that output o meets.
  __host__ __device__ __forceinline__ int first(int o, int up, int down) const { return -floor_div(before - o * down, up); }
};

struct Plan {
  Side h, v;
  stream::Grid grid;
  int x_pitch, strip_size, steps;
  stream::Share load;
  bool flip, wide_x, wide_pixels, wide_y;
};

template <class S, class K>
__global__ void __launch_bounds__(kMostThreads, 3) stream_kernel(const S* x, const float* f, const float* fy, S* y, float gain, const Plan p) {
  const stream::Strip strip(p.grid, p.h.tiles, p.v.tiles);
  const int c = strip.thread, ox = strip.tile_x * p.h.tile, oy = strip.tile_y * p.v.tile;
  const int x0 = p.h.first(ox, K::up, K::down), y0 = p.v.first(oy, K::up, K::down), end_y = smaller(oy + p.v.tile, p.v.out);
  const int start = p.wide_x ? floor_div(x0, kPack<S>) * kPack<S> : x0, odd = K::up == 1 ? (x0 - start) & 1 : 0;
  float* const xs = reinterpret_cast<float*>(shared_memory()) + strip.index * p.strip_size;
  const stream::Rows<S, K::down == 2> rows{
      strip.of(x, p.grid.x) - (p.wide_pixels ? strip.index : 0), p.grid.x.row, p.grid.x.column, p.v.in, p.h.in, start, p.x_pitch, odd, 0.f};
  const stream::Item first_item(p.load, p.wide_pixels ? threadIdx.x : c);
  const auto load_batch = [&](int batch) {
    constexpr int kRows = K::steps * K::down, kAtOnce = K::taps > 4 || sizeof(S) == 2 ? 1 : 2;
    const int first = batch * kRows, count = smaller(kRows, p.steps * K::down - first);
    float* const at = xs + (batch & 1) * kRows * p.x_pitch;
    if (p.wide_x) rows.template load<kPack<S>, kAtOnce>(y0 + first, count, at, p.load, first_item);
    else if (p.wide_pixels)
      rows.template load_pixels<false>(y0 + first, count, at - strip.index * p.strip_size, nullptr, p.strip_size, p.load, first_item);
    else rows.template load<1, 2 * kAtOnce>(y0 + first, count, at, p.load, first_item);
  };

  // The taps as they slide. Column j of a thread meets taps kx0 + up a, from sample `offset` of the window on.
  const auto flipped = [&](int k, int n) { return p.flip ? k : n - 1 - k; };
  const auto first_tap = [&](int j) { return K::up == 1 ? 0 : (p.h.before - j) & (K::up - 1); };
  const int offset = K::up == 1 ? 1 : p.h.first(ox + 1, K::up, 1) - x0;  // of column 1
  constexpr int kColumns = K::up;  // that differ in their taps
  float wx[kColumns][K::window], wy[K::taps], w[K::taps][kColumns][K::window];
  FASTGAN_UNROLL
  for (int j = 0; j < kColumns; ++j) FASTGAN_UNROLL
  for (int a = 0; a < K::window; ++a) {
    const int kx = first_tap(j) + K::up * a;
    if constexpr (K::separable) {
      wx[j][a] = f[flipped(kx, K::taps)] * gain;
    } else {
      FASTGAN_UNROLL
      for (int k = 0; k < K::taps; ++k) w[k][j][a] = f[flipped(k * K::taps + kx, K::taps * K::taps)] * gain;
    }
  }
  if constexpr (K::separable) {
    FASTGAN_UNROLL
    for (int k = 0; k < K::taps; ++k) wy[k] = fy[flipped(k, K::taps)];
  }

  float sums[K::open][K::up][K::columns] = {};
  // Where a row holds this thread's samples from the first one on: of pairs (stream.h) the even ones, and the odd ones.
  const int from = x0 - start + odd + (K::up == 1 ? K::columns * K::down : 1) * c;
  const int even_pairs = rows.place(from >> 2, from & 3), odd_pairs = rows.place((from + 2) >> 2, (from + 2) & 3);
  // Row d of a step.
  const auto add = [&](const float* row, int d) {
    float in[K::columns][K::window];
    if constexpr (K::up == 1) {
      constexpr int kReads = ((K::columns - 1) * K::down + K::window + 1) / 2;
      float all[2 * kReads];
      FASTGAN_UNROLL
      for (int i = 0; i < kReads; ++i) {
        const Pack<float, 2> pack = load<float, 2>(row + (K::down == 2 ? (i % 2 ? odd_pairs - 1 : even_pairs) + i : from + 2 * i));
        all[2 * i] = pack.at[0], all[2 * i + 1] = pack.at[1];
      }
      FASTGAN_UNROLL
      for (int j = 0; j < K::columns; ++j) FASTGAN_UNROLL
      for (int a = 0; a < K::window; ++a) in[j][a] = all[j * K::down + a];
    } else {
      FASTGAN_UNROLL
      for (int j = 0; j < K::columns; ++j) FASTGAN_UNROLL
      for (int a = 0; a < K::window; ++a) in[j][a] = row[from + a + (j ? offset : 0)];
    }
    FASTGAN_UNROLL
    for (int j = 0; j < K::columns; ++j) {
      float line = 0;
      if constexpr (K::separable) {
        FASTGAN_UNROLL
        for (int a = 0; a < K::window; ++a) line += wx[j % kColumns][a] * in[j][a];
      }
      FASTGAN_UNROLL
      for (int i = K::open - 1; i >= 0; --i) FASTGAN_UNROLL
      for (int r = 0; r < K::up; ++r) {
        const int tap = K::up > 1 ? K::up * i + K::up - 1 - r : K::down * i + d;
        float sum = d > 0 ? sums[i][r][j] : i > 0 ? sums[i - 1][r][j] : 0.f;
        if constexpr (K::separable) {
          sum += wy[tap] * line;
        } else {
          FASTGAN_UNROLL
          for (int a = 0; a < K::window; ++a) sum += w[tap][j % kColumns][a] * in[j][a];
        }
        sums[i][r][j] = sum;
      }
    }
  };
  // The output rows of step 0, which is too early for any that is wanted.
  int o = K::up > 1 ? p.v.before + K::up * (y0 - K::open + 1) - (K::up - 1) : oy - K::open + 1;
  const int left = p.h.out - ox - K::columns * c;
  const bool wide = p.wide_y && left > 0;
  S* to = strip.of(y, p.grid.y) + int64_t{o} * p.grid.y.row + int64_t{ox + K::columns * c} * p.grid.y.column;
  // What a step has finished.
  const auto give = [&] {
    FASTGAN_UNROLL
    for (int r = 0; r < K::up; ++r, ++o, to += p.grid.y.row) {
      if (o < oy || o >= end_y) continue;
      Pack<S, K::columns> pack;
      FASTGAN_UNROLL
      for (int j = 0; j < K::columns; ++j) pack.at[j] = static_cast<S>(sums[K::open - 1][r][j]);
      if (wide) {
        store(to, pack);
      } else {
        FASTGAN_UNROLL
        for (int j = 0; j < K::columns; ++j)
          if (j < left) to[j * p.grid.y.column] = pack.at[j];
      }
    }
  };

  const int batches = ceil_div(p.steps, K::steps);
  if (strip.live) load_batch(0);
  for (int batch = 0; batch < batches; ++batch) {
    __syncthreads();
    if (!strip.live) continue;
    if (batch + 1 < batches) load_batch(batch + 1);
    const float* at = xs + (batch & 1) * K::steps * K::down * p.x_pitch;
    FASTGAN_UNROLL
    for (int s = 0; s < K::steps; ++s) {
      if (batch * K::steps + s >= p.steps) continue;
      FASTGAN_UNROLL
      for (int d = 0; d < K::down; ++d) add(at + (s * K::down + d) * p.x_pitch, d);
      give();
    }
  }
}

template <class S, class K>
void run(const Tensor& x, const Tensor& f, const Tensor* fy, Tensor& y, const Axis& ax, const Axis& ay, double gain, bool flip) {
  Plan p;
  p.h = Side(ax), p.v = Side(ay), p.flip = flip;
  p.grid = stream::Grid(x, y);
  p.wide_x = whole_packs<S>(x), p.wide_y = !p.grid.last && y.size(3) % K::columns == 0;
  const int most = (p.grid.last ? kMostThreads / stream::kChannels : kMostThreads / 2) * K::columns;
  const auto split = [](int n, int parts, int unit) { return ceil_div(ceil_div(n, parts), unit) * unit; };
  p.h.tile = split(p.h.out, ceil_div(p.h.out, most), 4), p.h.tiles = ceil_div(p.h.out, p.h.tile);
  const int threads = ceil_div(p.h.tile, K::columns);
  // Rows enough for every multiprocessor to have several blocks, but not so few that the first ones weigh.
  const int64_t warps = x.size(0) * x.size(1) * p.h.tiles * threads / 32;
  p.v.tile = split(p.v.out, smaller<int64_t>(8192 / (warps + 1) + 1, ceil_div(p.v.out, 32)), 2), p.v.tiles = ceil_div(p.v.out, p.v.tile);

  const int x0 = p.h.first(0, K::up, K::down), last = p.h.first(p.h.tile - 1, K::up, K::down) + K::window - 1, kN = kPack<S>;
  const int packs = p.wide_x ? ceil_div(last - x0 + kN, kN) : last - x0 + 1;
  p.x_pitch = stream::up4(packs * (p.wide_x ? kN : 1) + 2);
  p.load = stream::Share(packs, threads);
  p.strip_size = stream::strip_size(2 * K::steps * K::down * p.x_pitch);
  p.steps = K::up > 1 ? p.v.first(p.v.tile - 1, K::up, 1) - p.v.first(0, K::up, 1) + K::open : p.v.tile + K::open - 1;
  p.grid.fill(threads, kMostThreads, p.h.tiles * p.v.tiles, p.strip_size);
  p.wide_pixels = !p.wide_x && p.grid.template whole_pixels<S>(x);
  if (p.wide_pixels) p.load = stream::Share(packs * stream::kChannels / kN, threads * stream::kChannels);
  launch("upfirdn2d", x, p.grid.blocks(), p.grid.threads(), p.grid.shared_bytes(p.strip_size), stream_kernel<S, K>, pointer<S>(x), pointer<float>(f),
         fy ? pointer<float>(*fy) : nullptr, mutable_pointer<S>(y), static_cast<float>(gain), p);
}

}  // namespace

bool stream(const Tensor& x, const Tensor& f, const Tensor* fy, Tensor& y, const Axis& ax, const Axis& ay, double gain, bool flip) {
  constexpr int64_t kMost = 1 << 26;
  for (const Axis* a : {&ax, &ay})
    for (int64_t n : {a->in, a->out, a->before, -a->before})
      if (n >= kMost) return false;
  if (!stream::fits(x, y) || ax.taps != ay.taps || ax.up != ay.up || ax.down != ay.down) return false;
  const auto with = [&](auto shape) {
    using K = decltype(shape);
    return ax.up == K::up && ax.down == K::down && ax.taps == K::taps && (fy != nullptr) == K::separable &&
           stream::with_type(x, [&](auto element) { run<decltype(element), K>(x, f, fy, y, ax, ay, gain, flip); });
  };
  return with(Shape<1, 1, 4, false>()) || with(Shape<2, 1, 4, false>()) || with(Shape<1, 2, 4, false>()) || with(Shape<1, 1, 4, true>()) ||
         with(Shape<2, 1, 4, true>()) || with(Shape<1, 2, 4, true>()) || with(Shape<2, 1, 12, true>()) || with(Shape<1, 2, 12, true>());
}

}  // namespace fastgan::resampled
