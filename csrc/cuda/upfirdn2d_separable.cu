// upfirdn2d of 16-bit images by a separable filter of 12 taps, up 2 or down 2, its filters as products of tensor cores with sums in float32.
//
// With X the rows of x that 16 rows of y meet, 16 of them or down 2 48, a product contracts one axis after the other:
//
//   C = Fy X      rows of y, columns of x      Fy[m][k] = fy[up k - down m + ..]
//   Y = C Fx      rows and columns of y
//
// What the first leaves in a lane is what the second reads there; numbers as in filtered_lrelu_mma.cu, which has the same precision and
// the same way of NaN (separable_operands.h). Warps are on their own, or with channels_last the 8 warps of a block have 8 channels of a
// place (separable_pixels.h).
//
// Memory as in upfirdn2d.cu: 2.5 bytes per output up 2 and 10 down 2, the time of 15 and 60 instructions on an H200. Up 2 it takes 10 per
// output, of pixels 13, down 2 63 and 61 (sm_90, bench/predicted.py). Not run on a GPU yet.
#include "cuda/separable_operands.h"
#include "cuda/separable_pixels.h"
#include "cuda/upfirdn2d.h"

namespace fastgan::resampled {
namespace {

using namespace separable;

constexpr int kTaps = 12;
constexpr int kWarpsOf[2] = {4, kOctet};   // of a block
constexpr int kRowsY = 16;                 // of a step
constexpr int kBefore = 40, kTable = 128;  // taps in shared memory: the first one at kBefore, zeros around them
constexpr int kTables = 2 * kTable * sizeof(float);
constexpr int kWanted = 2 * 16 * 132, kLeastSteps = 4;  // warps, for all multiprocessors of an H200; of a warp

template <int kUp, int kDown, bool kLast>
struct Shape {
  static constexpr int rows_x = kRowsY * kDown / kUp, blocks = kDown == 2 ? 3 : 1;  // of a step; of 16 rows of x that it meets
  static constexpr int ring = 16 * blocks + (kLast ? 0 : rows_x);                   // rows in shared memory
  static constexpr int eights = kDown, held = kDown;                                // of 8 columns of x: of a turn, and those that it begins with
  static constexpr int columns = 8 * kUp;                                           // of y, of a turn
  static constexpr int most_turns = kDown == 2 ? (kLast ? 2 : 4) : (kLast ? 4 : 8);
};

struct Plan {
  struct Side {
    int x, y, x_first, phase;  // sizes; the first sample of the first step or turn, of which tap k is up k + phase - down n of output n
  };
  Side h, v;
  int64_t x_sample, x_channel, x_row, x_pixel;
  int channels, octets;
  int turns, steps, strips, pieces, warps;  // of a step, of a warp; of a row, of a column, in all
  int groups, pitch, warp_bytes;            // of 32 columns of x in a step; of a row of x in shared memory, of a warp
  int pairs, waiting_bytes, y_pitch;        // channels_last: as in filtered_lrelu_mma.cu
  bool flip, whole_x, whole_y;
};

template <class S, int kUp, int kDown, bool kLast>
__global__ void __launch_bounds__(32 * kWarpsOf[kLast], 16 / kWarpsOf[kLast])
    mma_separable_kernel(const S* x, const float* fx, const float* fy, S* y, float gain, const Plan p) {
  using K = Shape<kUp, kDown, kLast>;
  using A = Arithmetic<S>;
  float* const tables = reinterpret_cast<float*>(shared_memory());
  if (threadIdx.x < kTable) {
    const unsigned tap = threadIdx.x - kBefore;
    FASTGAN_UNROLL
    for (int axis = 0; axis < 2; ++axis)
      tables[axis * kTable + threadIdx.x] = tap < kTaps ? (axis ? fy : fx)[p.flip ? tap : kTaps - 1 - tap] * (axis ? 1.f : gain) : 0.f;
  }
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
  // channels_last: the octets of a place are neighbouring blocks.
  const unsigned id = kLast ? blockIdx.x / p.octets : blockIdx.x * kWarpsOf[0] + warp;
  const unsigned of_strip = id / p.strips, image = of_strip / p.pieces;
  const int strip = id - of_strip * p.strips, piece = of_strip - image * p.pieces;
  const int sample = kLast ? image : image / p.channels;
  const int first_channel = kLast ? blockIdx.x % p.octets * kOctet : image - sample * p.channels, channel = first_channel + kLast * warp;
  const S* const from = x + sample * p.x_sample + first_channel * p.x_channel;
  S* const to = kLast ? y + int64_t{sample} * p.v.y * p.h.y * p.channels + first_channel : y + int64_t{image} * p.v.y * p.h.y;
  volatile Common<S>* const common = reinterpret_cast<volatile Common<S>*>(shared_memory() + kTables);
  if (kLast && threadIdx.x == 0) common->from = from, common->to = to, common->channels = p.channels - first_channel;
  __syncthreads();
  if (!kLast && id >= unsigned(p.warps)) return;

  // Each is read where it is used: equal ones, taken for one number, would be moved to their places for every product.
  const volatile float *const along_x = tables + kBefore, *const along_y = tables + kTable + kBefore;
  const Pack<float, 2> scale = scale_of<S>(along_y);
  typename Halved<S>::Left of_rows[K::blocks];
  typename A::Right of_columns[2];  // up 2 of 8 columns of y and the next 8; down 2 of 16 columns of x and the next 16
  FASTGAN_UNROLL
  for (int b = 0; b < K::blocks; ++b)
    of_rows[b] = Halved<S>::left([&](int m, int k) { return scale.at[0] * along_y[kUp * (16 * b + k) - kDown * m + p.v.phase]; });
  FASTGAN_UNROLL
  for (int i = 0; i < 2; ++i)
    of_columns[i] = A::right(
        [&](int k, int n) { return scale.at[1] * along_x[kUp * (kDown == 2 ? 16 * i + k : k) - kDown * (kUp == 2 ? 8 * i + n : n) + p.h.phase]; });

  const int x0 = p.h.x_first + strip * p.turns * 8 * K::eights, y0 = p.v.x_first + piece * p.steps * K::rows_x;
  const int ox = strip * p.turns * K::columns, oy = piece * p.steps * kRowsY;
  unsigned char* const rings = shared_memory() + kTables + kLast * sizeof(Common<S>);
  unsigned char* const ring = rings + warp * p.warp_bytes;

  unsigned char* const waiting_x = rings + kOctet * p.warp_bytes;
  unsigned char* const ys = waiting_x + p.waiting_bytes;
  const auto fetch_pixels = [&](int first) __attribute__((always_inline)) {
    const Pixels<S, K::rows_x> rows{.channels = common->channels, .whole = p.whole_x};
    const int row = y0 + first + rows.row;
    rows.fetch(common->from + row * p.x_row + x0 * p.x_pixel, p.x_pixel, x0, p.h.x, unsigned(row) < unsigned(p.v.x), p.pairs,
               waiting_x + threadIdx.x * 16);
  };
  const auto spread_pixels = [&](int first) __attribute__((always_inline)) {
    const Pixels<S, K::rows_x> rows{};
    const int row = first + rows.row;
    if (row >= 0) rows.spread(waiting_x + threadIdx.x * 16, p.pairs, rings + row % K::ring * p.pitch, p.warp_bytes);
  };
  const auto give_pixels = [&](int s) __attribute__((always_inline)) {
    const Pixels<S, kRowsY> rows{.channels = common->channels, .whole = p.whole_y};
    const int row = oy + s * kRowsY + rows.row;
    const int columns = row < p.v.y ? smaller(p.turns * K::columns, p.h.y - ox) : 0;
    rows.gather(ys + rows.row * p.y_pitch, kRowsY * p.y_pitch, common->to + (int64_t{row} * p.h.y + ox) * p.channels, p.channels, columns);
  };

  // Rows of x from `first` on, by fours: lanes take twice 16 columns of 4 rows at once.
  [[maybe_unused]] const auto fetch = [&](int first, int fours) __attribute__((always_inline)) {
    FASTGAN_NO_UNROLL
    for (int n = 0; n < fours; ++n, first += 4) {
      const int row = y0 + first + lane / 8;
      int column = x0 + 2 * (lane % 8);
      const bool inside = unsigned(row) < unsigned(p.v.x);
      const S* source = from + row * p.x_row + column;
      unsigned char* target = ring + (first % K::ring + lane / 8) * p.pitch + lane % 8 * 4;
      FASTGAN_NO_UNROLL
      for (int i = 0; i < p.groups; ++i, column += 32, source += 32, target += 64) {
        FASTGAN_UNROLL
        for (int half = 0; half < 2; ++half)
          copy_or_zero<4>(target + 32 * half, source + 16 * half, inside && unsigned(column + 16 * half) < unsigned(p.h.x));
      }
    }
  };

  constexpr int kMet = 16 * K::blocks;
  if constexpr (kLast) {
    FASTGAN_NO_UNROLL
    for (int r = kMet % K::rows_x ? kMet % K::rows_x - K::rows_x : 0; r < kMet; r += K::rows_x) fetch_pixels(r), wait_for_copies(), spread_pixels(r);
  } else {
    fetch(0, kMet / 4);
  }
  for (int s = 0; s < p.steps; ++s) {
    wait_for_copies();
    const int next = kMet + s * K::rows_x;
    if constexpr (kLast) {
      __syncthreads();  // no warp needs what the last step had
      if (s > 0) spread_pixels(next - K::rows_x), give_pixels(s - 1);
      __syncthreads();
      if (s + 1 < p.steps) fetch_pixels(next);
      if (channel >= p.channels) continue;
    } else {
      __syncwarp();
      if (s + 1 < p.steps) fetch(next, K::rows_x / 4);
    }
    const unsigned char* columns[K::blocks];
    FASTGAN_UNROLL
    for (int b = 0; b < K::blocks; ++b) columns[b] = ring + (s * K::rows_x + 16 * b + lane % 16) % K::ring * p.pitch;
    const auto next_c = [&]() __attribute__((always_inline)) {
      Sums sums;
      clear(sums);
      FASTGAN_UNROLL
      for (int b = 0; b < K::blocks; ++b) {
        unsigned words[2];
        load_columns(columns[b], words);
        multiply_add<S>(sums, of_rows[b].at[1], words);
        multiply_add<S>(sums, of_rows[b].at[0], words);
        columns[b] += 16;
      }
      return A::rows(sums);
    };
    typename A::Rows cs[K::held + K::eights];
    FASTGAN_UNROLL
    for (int i = 0; i < K::held; ++i) cs[i] = next_c();
    const int row = oy + s * kRowsY + g;
    S* at = to + int64_t{row} * p.h.y + ox + 2 * q;
    int left = p.h.y - ox - 2 * q;
    [[maybe_unused]] unsigned char* own_y = ys + (warp * kRowsY + g) * p.y_pitch + 4 * q;
    FASTGAN_NO_UNROLL
    for (int t = 0; t < p.turns; ++t) {
      FASTGAN_UNROLL
      for (int i = 0; i < K::eights; ++i) cs[K::held + i] = next_c();
      FASTGAN_UNROLL
      for (int j = 0; j < kUp; ++j) {
        Sums sums;
        clear(sums);
        A::multiply(sums, cs[0], cs[1], of_columns[j]);
        if constexpr (kDown == 2) A::multiply(sums, cs[2], cs[3], of_columns[1]);
        FASTGAN_UNROLL
        for (int i = 0; i < 2; ++i) {
          const unsigned pair = word_of<S>(sums[2 * i], sums[2 * i + 1]);
          if constexpr (kLast) *reinterpret_cast<unsigned*>(own_y + 8 * i * p.y_pitch + 16 * j) = pair;
          else if (left > 8 * j && row + 8 * i < p.v.y) words_at<uint1>(at + int64_t{8 * i} * p.h.y + 8 * j)->x = pair;
        }
      }
      FASTGAN_UNROLL
      for (int i = 0; i < K::held; ++i) cs[i] = cs[K::eights + i];
      at += K::columns, left -= K::columns, own_y += 2 * K::columns;
    }
  }
  if constexpr (kLast) {
    __syncthreads();
    give_pixels(p.steps - 1);
  }
}

template <class S, int kUp, int kDown, bool kLast>
void run(const Tensor& x, const Tensor& fx, const Tensor& fy, Tensor& y, const Axis& ax, const Axis& ay, double gain, bool flip) {
  using K = Shape<kUp, kDown, kLast>;
  Plan p;
  p.x_sample = x.stride(0), p.x_channel = x.stride(1), p.x_row = x.stride(2), p.x_pixel = x.stride(3);
  p.channels = x.size(1), p.octets = ceil_div(p.channels, kOctet), p.flip = flip;
  const auto side = [](const Axis& a, int unit) {
    const int first = floor_div<int>(-floor_div<int>(a.before, kUp), unit) * unit;
    return Plan::Side{int(a.in), int(a.out), first, kUp * first + int(a.before)};
  };
  p.h = side(ax, kLast ? 1 : 2), p.v = side(ay, 1);
  const int columns = ceil_div(p.h.y, K::columns), steps = ceil_div(p.v.y, kRowsY);
  p.strips = ceil_div(columns, K::most_turns), p.turns = ceil_div(columns, p.strips);
  // Rows enough that those above a piece weigh little, but warps enough for all multiprocessors.
  const int64_t planes = x.size(0) * x.size(1) * p.strips;
  p.steps = steps;
  while (p.steps >= 2 * kLeastSteps && planes * ceil_div(steps, p.steps) < kWanted) p.steps = ceil_div(p.steps, 2);
  p.pieces = ceil_div(steps, p.steps);
  p.warps = planes * p.pieces;
  // Rows of an odd number of 16 bytes: 8 of them meet no bank twice.
  const int eights = K::eights * p.turns + K::held;
  p.groups = ceil_div(eights, 4), p.pitch = p.groups * 64 + 16, p.warp_bytes = K::ring * p.pitch;
  p.pairs = 4 * eights, p.waiting_bytes = ceil_div(K::rows_x * p.pairs, kOctetThreads) * kPair, p.y_pitch = p.turns * 2 * K::columns + 16;
  p.whole_x = whole_pixels(x), p.whole_y = whole_pixels(y);
  constexpr int kWarps = kWarpsOf[kLast];
  const int blocks = kLast ? p.octets * x.size(0) * p.strips * p.pieces : ceil_div(p.warps, kWarps);
  const size_t bytes = kTables + kWarps * p.warp_bytes + (kLast ? sizeof(Common<S>) + p.waiting_bytes + kOctet * kRowsY * p.y_pitch : 0);
  launch("upfirdn2d", x, dim3(blocks), dim3(32 * kWarps), bytes, mma_separable_kernel<S, kUp, kDown, kLast>, pointer<S>(x), pointer<float>(fx),
         pointer<float>(fy), mutable_pointer<S>(y), static_cast<float>(gain), p);
}

}  // namespace

bool multiply_separable(const Tensor& x, const Tensor& f, const Tensor* fy, Tensor& y, const Axis& ax, const Axis& ay, double gain, bool flip) {
  constexpr int64_t kMost = 1 << 26;
  for (const Axis* a : {&ax, &ay}) {
    if (a->taps != kTaps) return false;
    for (int64_t n : {a->in, a->out, a->before, -a->before})
      if (n >= kMost) return false;
  }
  const auto type = x.scalar_type();
  const bool half = type == torch::headeronly::ScalarType::Half;
  if (!fy || (!half && type != torch::headeronly::ScalarType::BFloat16)) return false;
  if (ax.up != ay.up || ax.down != ay.down || x.size(0) * x.size(1) * ceil_div<int64_t>(ax.out, 8) * ceil_div<int64_t>(ay.out, 16) >= INT32_MAX)
    return false;
  const bool last = x.size(1) > 1 && x.stride(1) == 1 && y.stride(1) == 1 && y.stride(3) == x.size(1) && y.stride(2) == y.size(3) * y.stride(3);
  if (!last) {
    if (x.stride(3) != 1 || !y.is_contiguous()) return false;
    for (int64_t n : {y.size(3), x.size(3), x.stride(2), x.stride(1), x.stride(0), reinterpret_cast<intptr_t>(x.const_data_ptr()) / 2})
      if (n % 2) return false;  // pairs are loaded and stored
  }
  const auto with = [&](auto up, auto down) {
    constexpr int kUp = decltype(up)::value, kDown = decltype(down)::value;
    if (ax.up != kUp || ax.down != kDown) return false;
    const auto of = [&](auto element, auto layout) { run<decltype(element), kUp, kDown, decltype(layout)::value>(x, f, *fy, y, ax, ay, gain, flip); };
    const auto of_type = [&](auto layout) { half ? of(Half(), layout) : of(BFloat16(), layout); };
    last ? of_type(std::true_type()) : of_type(std::false_type());
    return true;
  };
  constexpr std::integral_constant<int, 1> one;
  constexpr std::integral_constant<int, 2> two;
  return with(two, one) || with(one, two);
}

}  // namespace fastgan::resampled
