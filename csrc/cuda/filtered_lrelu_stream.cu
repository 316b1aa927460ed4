// filtered_lrelu in one stream down the image (stream.h), for the factors and separable filters that networks use.
//
// A thread owns one column of x and the `up` columns of t that begin there. For each row of x it makes `up` rows of t (along x from
// shared memory, along y from a window of registers), activates them, and adds them to the outputs along y that are not finished, in
// registers as well; what is finished goes through shared memory once more, for the filter along x.
//
// Memory as in filtered_lrelu.cu: floor 1.9 ps per float32 element of x at up 2, down 2, on an H200. Instructions: 136 for a row of x and
// a thread, of which 60 are multiply-adds, and 104 for four outputs along x, of which 48 are; with loads 175 per output, 72 of them useful, and
// with the margins of a plane of 64 x 64 (70 columns, 74 rows) a quarter more. So it is bound by instructions, in 16 bits twice as far from
// the floor: there filtered_lrelu_mma.cu takes what it can. This kernel has not run on a GPU yet: these are counts of the machine code for sm_90.
#include <limits>

#include "cuda/filtered_lrelu.h"
#include "cuda/stream.h"

namespace fastgan::filtered {
namespace {

constexpr int kFront = 4;  // elements before the first column of a finished row, which is read in packs of 4

template <int kUp, int kDown, int kUpTaps, int kDownTaps>
struct Shape {
  static constexpr int up = kUp, down = kDown, up_taps = kUpTaps, down_taps = kDownTaps;
  static constexpr int window = up_taps / up, open = down_taps / down;  // samples of x in an element of t; outputs it is part of
  static constexpr int step = up > down ? up : down;  // rows of t
  static constexpr int in = step / up, out = step / down;  // rows of x and of outputs, of a step
  static constexpr int steps = window / std::gcd(window, in);  // of a batch: then the window is where it was
  static constexpr int batch_in = in * steps, batch_t = step * steps, batch_out = out * steps;
  // Of a block: three strips of 64 outputs at up 2, down 2, and four such blocks on an SM with 72 registers of a thread; else the
  // two blocks that 128 registers let be.
  static constexpr int threads = step == 4 ? 256 : 224;
  static_assert(up_taps % up == 0 && down_taps % down == 0);
};

struct Side {
  int x, t, y, before, shift, tile, tiles;

  Side() = default;
  Side(const Axis& a) : x(a.x), t(a.t), y(a.y), before(a.before), shift(a.shift), tile(0), tiles(0) {}
  // The first sample that the outputs from `o` on need, and the first element of t that is made from sample s on.
  __host__ __device__ __forceinline__ int first(int o, int up, int down) const { return -floor_div(before + shift - o * down, up); }
  __host__ __device__ __forceinline__ int first_t(int s, int up) const { return before + up * s - (up - 1); }
};

struct Plan {
  Side h, v;
  stream::Grid grid;
  int batches, steps;
  int x_pitch, groups, y_pitch, mask_words, mask_pitch;
  int y_at, marks_at, bias_at, strip_size;  // shared memory of a strip, in floats
  stream::Share load, store, marks;
  float limit;  // the clamp, or infinity
  bool flip, wide_x, wide_pixels, wide_y;
};

// Four threads' marks, `n` bits low in each byte, side by side.
template <int n>
__device__ __forceinline__ uint32_t side_by_side(uint32_t bytes) {
  bytes &= ((1u << n) - 1) * 0x01010101u;
  bytes = (bytes | bytes >> (8 - n)) & ((1u << 2 * n) - 1) * 0x00010001u;
  return (bytes | bytes >> 2 * (8 - n)) & ((1u << 4 * n) - 1);
}

// 32 bits of a row of the mask [row][2][words], from element t0 on: negative, and clamped, which all is outside of the grid.
__device__ __forceinline__ Pack<uint32_t, 2> read_mask(const uint32_t* mask, int words, int height, int width, int row, int t0) {
  Pack<uint32_t, 2> bits{{0, ~0u}};
  if (row < 0 || row >= height || t0 >= width || t0 <= -32) return bits;
  const int word = floor_div(t0, 32), shift = t0 - 32 * word;
  FASTGAN_UNROLL
  for (int kind = 0; kind < 2; ++kind) {
    const uint32_t* const from = mask + (int64_t(2) * row + kind) * words;
    const uint64_t low = word >= 0 ? from[word] : 0, high = shift && word + 1 < words ? from[word + 1] : 0;
    bits.at[kind] = static_cast<uint32_t>((high << 32 | low) >> shift);
  }
  if (t0 < 0) bits.at[1] |= (1u << -t0) - 1;
  if (width - t0 < 32) bits.at[1] |= ~0u << (width - t0);
  return bits;
}

template <Pass kPass, class S, class K>
__global__ void __launch_bounds__(K::threads, K::step == 4             ? 2
                                              : kPass == Pass::forward ? 4
                                                                       : 3)
    stream_kernel(const S* x, const S* bias, const float* fu, const float* fd, S* y, uint32_t* mask, const Act<float> act, const Plan p) {
  const stream::Strip strip(p.grid, p.h.tiles, p.v.tiles);
  const int c = strip.thread, ox = strip.tile_x * p.h.tile, oy = strip.tile_y * p.v.tile;
  const int end_y = smaller(oy + p.v.tile, p.v.y);
  const int x0 = p.h.first(ox, K::up, K::down), y0 = p.v.first(oy, K::up, K::down);
  const int tx0 = p.h.first_t(x0, K::up), ty0 = p.v.first_t(y0, K::up) - K::up * (K::window - 1);  // of thread 0, of step 0
  const int delay = (ty0 + p.v.shift) & (K::down - 1);
  const int out0 = (ty0 + p.v.shift - delay) / K::down - (K::open - 1);  // the output that step 0 finishes

  float* const all = reinterpret_cast<float*>(shared_memory());  // of the block's strips
  float* const xs = all + strip.index * p.strip_size;
  float* const ys = xs + p.y_at;
  // Masked: [2][batch_t][mask_pitch] pairs of words. Forward with a mask: [2][batch_t][mask_pitch] bytes, one of each thread.
  uint32_t* const read = reinterpret_cast<uint32_t*>(xs + p.marks_at);
  uint8_t* const made = reinterpret_cast<uint8_t*>(xs + p.marks_at);
  uint32_t* const words = mask + (strip.sample * p.grid.channels + strip.channel) * p.v.t * 2 * p.mask_words;
  const int start = p.wide_x ? floor_div(x0, kPack<S>) * kPack<S> : x0;
  const stream::Rows<S> rows{
      strip.of(x, p.grid.x) - (p.wide_pixels ? strip.index : 0), p.grid.x.row, p.grid.x.column, p.v.x, p.h.x, start, p.x_pitch, 0,
      bias ? static_cast<float>(bias[strip.channel]) : 0.f};
  S* const to = strip.of(y, p.grid.y);

  const stream::Item first_load(p.load, p.wide_pixels ? threadIdx.x : c), first_store(p.store, c);
  const auto load_batch = [&](int batch) {
    const int half = batch & 1;
    float* const at = xs + half * K::batch_in * p.x_pitch;
    if (p.wide_x) rows.template load<kPack<S>, 1>(y0 + batch * K::batch_in, K::batch_in, at, p.load, first_load);
    else if (p.wide_pixels)
      rows.template load_pixels<kPass != Pass::masked>(y0 + batch * K::batch_in, K::batch_in, all + half * K::batch_in * p.x_pitch, all + p.bias_at,
                                                       p.strip_size, p.load, first_load);
    else rows.template load<1, 2>(y0 + batch * K::batch_in, K::batch_in, at, p.load, first_load);
    if constexpr (kPass == Pass::masked) {
      for (stream::Item item(p.marks, c); item.row < K::batch_t; item.next(p.marks))
        store(read + 2 * ((half * K::batch_t + item.row) * p.mask_pitch + item.item),
              read_mask(words, p.mask_words, p.v.t, p.h.t, ty0 + batch * K::batch_t + item.row, tx0 + 32 * item.item));
    }
  };

  float hu[K::up_taps], hd[K::down_taps];
  FASTGAN_UNROLL
  for (int k = 0; k < K::up_taps; ++k) hu[k] = fu[p.flip ? k : K::up_taps - 1 - k];
  FASTGAN_UNROLL
  for (int k = 0; k < K::down_taps; ++k) hd[k] = fd[p.flip ? k : K::down_taps - 1 - k];
  const int column = kFront + tx0 + p.h.shift - K::down * ox + K::up * c;  // of this thread in a finished row
  float window[K::window][K::up] = {}, sums[K::open][K::up] = {}, late[K::down][K::up] = {};

  // Row i of x of a batch: `up` rows of t from t[0] on.
  const auto upsample = [&](const float* from, int i, float (*t)[K::up]) {
    float in[K::window];
    FASTGAN_UNROLL
    for (int a = 0; a < K::window; ++a) in[a] = from[a];
    FASTGAN_UNROLL
    for (int j = 0; j < K::up; ++j) {
      float sum = 0;
      FASTGAN_UNROLL
      for (int a = 0; a < K::window; ++a) sum += hu[K::up * a + K::up - 1 - j] * in[a];
      window[i % K::window][j] = sum;
    }
    FASTGAN_UNROLL
    for (int r = 0; r < K::up; ++r) FASTGAN_UNROLL
    for (int j = 0; j < K::up; ++j) {
      float sum = 0;
      FASTGAN_UNROLL
      for (int a = 0; a < K::window; ++a) sum += hu[K::up * a + K::up - 1 - r] * window[(i + 1 + a) % K::window][j];
      t[r][j] = sum;
    }
  };
  // Row `row` of t of the two batches in shared memory.
  const auto activate = [&](float (&t)[K::up], int row) {
    if constexpr (kPass == Pass::masked) {
      const Pack<uint32_t, 2> bits = load<uint32_t, 2>(read + 2 * (row * p.mask_pitch + K::up * c / 32));
      const uint32_t negative = bits.at[0] >> (K::up * c % 32), clamped = bits.at[1] >> (K::up * c % 32);
      FASTGAN_UNROLL
      for (int j = 0; j < K::up; ++j) t[j] = clamped >> j & 1 ? 0.f : t[j] * (negative >> j & 1 ? act.negative : act.positive);
    } else {
      uint32_t marks = 0;
      FASTGAN_UNROLL
      for (int j = 0; j < K::up; ++j) {
        const bool positive = t[j] > 0.f;
        t[j] *= positive ? act.positive : act.negative;
        if constexpr (kPass == Pass::forward_and_mask)
          marks |= (positive ? 0u : 1u << j) | (t[j] >= act.clamp || t[j] <= -act.clamp ? 1u << (K::up + j) : 0u);
        t[j] = limited(t[j], p.limit);
      }
      if constexpr (kPass == Pass::forward_and_mask) made[row * p.mask_pitch + c] = static_cast<uint8_t>(marks);
    }
  };
  // The rows of a step, `delay` rows later: then they begin at the first tap of an output.
  const auto delayed = [&](float (&t)[K::step][K::up]) {
    constexpr int kLate = K::down - 1;
    FASTGAN_UNROLL
    for (int j = 0; j < K::up; ++j) {
      float all[kLate + K::step];
      FASTGAN_UNROLL
      for (int r = 0; r < kLate + K::step; ++r) all[r] = r < kLate ? late[r][j] : t[r - kLate][j];
      FASTGAN_UNROLL
      for (int r = 0; r < kLate; ++r) late[r][j] = all[K::step + r];
      FASTGAN_UNROLL
      for (int bit = 1; bit < K::down; bit *= 2) FASTGAN_UNROLL
      for (int r = kLate + K::step - 1; r >= bit; --r) all[r] = delay & bit ? all[r - bit] : all[r];
      FASTGAN_UNROLL
      for (int r = 0; r < K::step; ++r) t[r][j] = all[kLate + r];
    }
  };
  // `down` rows of t: one row of outputs is finished.
  const auto downsample = [&](const float (*t)[K::up], float* at) {
    FASTGAN_UNROLL
    for (int j = 0; j < K::up; ++j) FASTGAN_UNROLL
    for (int i = K::open - 1; i >= 0; --i) {
      float sum = i ? sums[i - 1][j] : 0.f;
      FASTGAN_UNROLL
      for (int d = 0; d < K::down; ++d) sum += hd[K::down * i + d] * t[d][j];
      sums[i][j] = sum;
    }
    Pack<float, K::up> done;
    FASTGAN_UNROLL
    for (int j = 0; j < K::up; ++j) done.at[j] = sums[K::open - 1][j];
    if (column % K::up == 0) {
      store(at + column, done);
    } else {
      FASTGAN_UNROLL
      for (int j = 0; j < K::up; ++j) at[column + j] = done.at[j];
    }
  };
  const auto store_batch = [&](int batch) {
    const int half = batch & 1;
    for (stream::Item item = first_store; item.row < K::batch_out; item.next(p.store)) {
      const int o = out0 + batch * K::batch_out + item.row, column = ox + 4 * item.item, left = p.h.y - column;
      if (o < oy || o >= end_y || left <= 0) continue;
      const float* const from = ys + (half * K::batch_out + item.row) * p.y_pitch + kFront + 4 * K::down * item.item;
      constexpr int kReads = (3 * K::down + K::down_taps + 3) / 4;
      float in[4 * kReads], sum[4] = {};
      FASTGAN_UNROLL
      for (int i = 0; i < kReads; ++i) {
        const Pack<float, 4> pack = load<float, 4>(from + 4 * i);
        FASTGAN_UNROLL
        for (int n = 0; n < 4; ++n) in[4 * i + n] = pack.at[n];
      }
      FASTGAN_UNROLL
      for (int k = 0; k < K::down_taps; ++k) FASTGAN_UNROLL
      for (int n = 0; n < 4; ++n) sum[n] += hd[k] * in[K::down * n + k];
      S* const at = to + int64_t{o} * p.grid.y.row + int64_t{column} * p.grid.y.column;
      Pack<S, 4> pack;
      FASTGAN_UNROLL
      for (int n = 0; n < 4; ++n) pack.at[n] = static_cast<S>(sum[n]);
      if (p.wide_y) {
        store(at, pack);
      } else {
        FASTGAN_UNROLL
        for (int n = 0; n < 4; ++n)
          if (n < left) at[n * p.grid.y.column] = pack.at[n];
      }
    }
  };
  // A strip owns the mask up to where the next one starts; the last one owns the rest.
  const int end_tx = ox + p.h.tile < p.h.y ? (ox + p.h.tile) * K::down : p.h.t, end_ty = oy + p.v.tile < p.v.y ? (oy + p.v.tile) * K::down : p.v.t;
  const auto store_marks = [&](int batch) {
    constexpr int kBytes = 32 / K::up;
    const int half = batch & 1, early = ox * K::down - tx0;  // elements of thread 0 that are before the first word
    for (stream::Item item(p.marks, c); item.row < K::batch_t; item.next(p.marks)) {
      const int m = ty0 + batch * K::batch_t + item.row, left = end_tx - ox * K::down - 32 * item.item;
      if (m < oy * K::down || m >= end_ty || left <= 0) continue;
      const uint8_t* const from = made + (half * K::batch_t + item.row) * p.mask_pitch + kBytes * item.item;
      uint64_t bits[2] = {};
      FASTGAN_UNROLL
      for (int i = 0; i < kBytes / 4; ++i) {
        uint32_t bytes;
        memcpy(&bytes, from + 4 * i, 4);
        bits[0] |= uint64_t(side_by_side<K::up>(bytes)) << (4 * K::up * i);
        bits[1] |= uint64_t(side_by_side<K::up>(bytes >> K::up)) << (4 * K::up * i);
      }
      const uint64_t next = from[kBytes];
      bits[0] |= (next & ((1 << K::up) - 1)) << 32, bits[1] |= next >> K::up << 32;
      const int64_t at = int64_t(2 * m) * p.mask_words + ox * K::down / 32 + item.item;
      FASTGAN_UNROLL
      for (int kind = 0; kind < 2; ++kind)
        words[at + kind * p.mask_words] = static_cast<uint32_t>(bits[kind] >> early) & (left < 32 ? (1u << left) - 1 : ~0u);
    }
  };

  if (kPass != Pass::masked && p.wide_pixels) {
    if (strip.live && c == 0) xs[p.bias_at] = rows.bias;
    __syncthreads();
  }
  if (strip.live) load_batch(0);
  __syncthreads();
  for (int batch = 0; batch < p.batches; ++batch) {
    const int half = batch & 1;
    if (strip.live) {
      if (batch + 1 < p.batches) load_batch(batch + 1);
      FASTGAN_UNROLL
      for (int s = 0; s < K::steps; ++s) {
        if (batch * K::steps + s >= p.steps) continue;
        float t[K::step][K::up];
        FASTGAN_UNROLL
        for (int i = 0; i < K::in; ++i)
          upsample(xs + (half * K::batch_in + s * K::in + i) * p.x_pitch + c + x0 - start, s * K::in + i, t + i * K::up);
        FASTGAN_UNROLL
        for (int r = 0; r < K::step; ++r) activate(t[r], half * K::batch_t + s * K::step + r);
        delayed(t);
        FASTGAN_UNROLL
        for (int g = 0; g < K::out; ++g) downsample(t + g * K::down, ys + (half * K::batch_out + s * K::out + g) * p.y_pitch);
      }
    }
    __syncthreads();
    if (strip.live) {
      store_batch(batch);
      if constexpr (kPass == Pass::forward_and_mask) store_marks(batch);
    }
  }
}

template <class S, class K>
Plan make_plan(Pass pass, const Tensor& x, const Tensor& y, const Axis& ax, const Axis& ay, int columns, int rows) {
  const int kN = kPack<S>;
  Plan p;
  p.h = Side(ax), p.v = Side(ay), p.h.tile = columns, p.v.tile = rows;
  p.h.tiles = ceil_div(p.h.y, p.h.tile), p.v.tiles = ceil_div(p.v.y, p.v.tile);
  p.grid = stream::Grid(x, y);
  p.wide_x = whole_packs<S>(x), p.wide_y = !p.grid.last && y.size(3) % 4 == 0;

  const int s0 = p.h.first(0, K::up, K::down), most = K::down * (columns - 1) + K::down_taps - 1 + K::down - 1;
  const int threads = -floor_div(p.h.before + p.h.shift - most, K::up) - s0 + 1;
  const int packs = p.wide_x ? ceil_div(kN - 1 + threads + K::window - 1, kN) : threads + K::window - 1;
  p.x_pitch = stream::up4(p.wide_x ? packs * kN : packs);
  p.groups = ceil_div(columns, 4);
  p.y_pitch = stream::up4(kFront + larger(4 * K::down * p.groups + K::down_taps, threads * K::up));
  p.load = stream::Share(packs, threads), p.store = stream::Share(p.groups, threads);

  const int ty0 = p.v.first_t(p.v.first(0, K::up, K::down), K::up) - K::up * (K::window - 1), delay = (ty0 + p.v.shift) & (K::down - 1);
  const int out0 = (ty0 + p.v.shift - delay) / K::down - (K::open - 1);
  p.steps = ceil_div(smaller(rows, p.v.y) - out0, K::out);
  p.mask_words = ceil_div(p.h.t, 32), p.mask_pitch = 0;
  int mark_floats = 0;
  if (pass == Pass::masked) {
    p.mask_pitch = ceil_div(threads * K::up, 32), mark_floats = 2 * K::batch_t * p.mask_pitch * 2;
    p.marks = stream::Share(p.mask_pitch, threads);
  } else if (pass == Pass::forward_and_mask) {
    const int words = ceil_div(K::down * columns + K::down_taps + K::down, 32);
    p.mask_pitch = 16 * ceil_div(larger(words * 32 / K::up + 1, threads), 16), mark_floats = 2 * K::batch_t * p.mask_pitch / 4;
    p.marks = stream::Share(words, threads);
    p.steps = larger(p.steps, ceil_div(p.v.t - (p.v.tiles - 1) * rows * K::down - ty0, K::step));
  }
  p.batches = ceil_div(p.steps, K::steps);
  p.y_at = 2 * K::batch_in * p.x_pitch, p.marks_at = p.y_at + 2 * K::batch_out * p.y_pitch;
  p.bias_at = p.marks_at + mark_floats;
  p.strip_size = stream::strip_size(p.bias_at + 1);
  p.grid.fill(threads, K::threads, p.h.tiles * p.v.tiles, p.strip_size);
  p.wide_pixels = !p.wide_x && p.grid.template whole_pixels<S>(x);
  if (p.wide_pixels) p.load = stream::Share(packs * stream::kChannels / kN, threads * stream::kChannels);
  return p;
}

template <Pass kPass, class S, class K>
void run(const Tensor& x, const Tensor* b, const Tensor& fu, const Tensor& fd, Tensor& y, uint32_t* mask, const Axis& ax, const Axis& ay,
         const Act<float>& act, bool flip) {
  const bool last = stream::Grid(x, y).last;
  const int most_threads = last ? K::threads / stream::kChannels : K::threads;
  const int unit = 32 / K::down;  // tiles along x start at a word of the mask
  const int most_columns = ((most_threads - 2) * K::up - K::down_taps - K::down) / K::down / unit * unit;
  const int tiles_x = ceil_div<int64_t>(ax.y, most_columns),
            columns = smaller<int>(most_columns, ceil_div<int64_t>(ceil_div<int64_t>(ax.y, tiles_x), unit) * unit);
  const int width = tiles_x == 1 ? stream::up4(ax.y) : columns;
  // Rows enough for every multiprocessor to have several blocks, but not so few that the window's first rows weigh.
  const int64_t planes = x.size(0) * x.size(1) * tiles_x * width;
  const int tiles_y = smaller<int64_t>(ceil_div<int64_t>(int64_t{800} * 224, planes), ceil_div<int64_t>(ay.y, 32));
  Plan p = make_plan<S, K>(kPass, x, y, ax, ay, width, tiles_y == 1 ? stream::up4(ay.y) : stream::up4(ceil_div<int64_t>(ay.y, tiles_y)));
  p.flip = flip, p.limit = act.clamp == act.clamp ? act.clamp : std::numeric_limits<float>::infinity();
  launch("filtered_lrelu", x, p.grid.blocks(), p.grid.threads(), p.grid.shared_bytes(p.strip_size), stream_kernel<kPass, S, K>, pointer<S>(x),
         b ? pointer<S>(*b) : nullptr, pointer<float>(fu), pointer<float>(fd), mutable_pointer<S>(y), mask, act, p);
}

}  // namespace

bool stream(Pass pass, const Tensor& x, const Tensor* b, const Tensor& fu, const Tensor& fd, Tensor& y, uint32_t* mask, const Axis& ax,
            const Axis& ay, double gain, double slope, double clamp, bool flip) {
  if (!is_short(ax) || !is_short(ay) || fu.dim() != 1 || fd.dim() != 1 || !stream::fits(x, y)) return false;
  const Act<float> act{static_cast<float>(gain), static_cast<float>(gain * slope),
                       clamp < 0 ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(clamp)};
  const auto with = [&](auto shape) {
    using K = decltype(shape);
    if (ax.up != K::up || ax.down != K::down || fu.size(0) != K::up_taps || fd.size(0) != K::down_taps) return false;
    return stream::with_type(x, [&](auto element) {
      using S = decltype(element);
      switch (pass) {
        case Pass::forward: return run<Pass::forward, S, K>(x, b, fu, fd, y, mask, ax, ay, act, flip);
        case Pass::forward_and_mask: return run<Pass::forward_and_mask, S, K>(x, b, fu, fd, y, mask, ax, ay, act, flip);
        case Pass::masked: return run<Pass::masked, S, K>(x, b, fu, fd, y, mask, ax, ay, act, flip);
      }
    });
  };
  return with(Shape<2, 2, 12, 12>()) || with(Shape<4, 2, 24, 12>()) || with(Shape<2, 4, 12, 24>());
}

}  // namespace fastgan::filtered
