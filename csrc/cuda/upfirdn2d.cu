// upfirdn2d on a GPU; its adjoint is the same op.
//
// On tensor cores (upfirdn2d_mma.cu): in 16 bits up to 4 x 4 taps and factors of at most 2. Streaming (upfirdn2d_stream.cu): the factors and
// filters that networks use, in any layout. For all others:
//
// Tiled: up and down in {1, 2, 4}, at most 32 taps, rows of consecutive columns (NCHW). A block filters one tile of one plane in
// shared memory (fir.h). Memory: x is read once but for the tile's margin, y written once: 8 bytes per element of a float32 blur,
// 4 in 16 bits; floor 1.9 ps per float32 element at the 4.2 TB/s that an H200 copies at. It is bound by instructions, some 160 per
// output of 4 x 4 taps: 15.9 ps on an H200, 0.12 of the floor.
//
// Direct: everything else, in particular channels_last: a thread makes one 128-bit pack of channels of one pixel, reading
// taps_x taps_y / up^2 packs, neighbours' reads from L1: 64 bytes per float32 element of a 4 x 4 blur. 7.5 ps on an H200, 0.27 of the
// floor; bfloat16 5.2 ps, 0.19.
#include "cuda/upfirdn2d.h"

#include "cuda/fir.h"

namespace fastgan {
namespace {

using fir::kThreads;
using fir::Window;

using resampled::Axis;

// The first sample of output 0, which it meets with tap `shift` of the window.
int64_t lead(const Axis& a) { return -floor_div(a.before, a.up); }

Window window(const Axis& a) { return Window(a.taps, a.up, a.down, lead(a) * a.up + a.before); }

bool tiled(const Axis& a) {
  const auto factor = [](int64_t n) { return n == 1 || n == 2 || n == 4; };
  return factor(a.up) && factor(a.down) && a.taps <= fir::kMostTaps && a.in < fir::kMostSize && a.out < fir::kMostSize && a.before < fir::kMostSize &&
         a.before > -fir::kMostSize;
}

struct Tiles {
  Window wx, wy;
  int lead_x, lead_y, height, width, out_h, out_w, tile_h, tile_w, tiles_y, tiles_x;
  int rows, columns, x_pitch, middle_pitch, y_pitch;  // of a tile of x; row lengths
  int second_table, first_buffer, second_buffer, end;  // offsets into shared memory, elements
  int64_t channels, x_sample, x_channel, x_row;
  bool separable, flip, wide_x, wide_y;

  Tiles(const Axis& ax, const Axis& ay, bool separable, int h, int w)
      : wx(window(ax)), wy(window(ay)), lead_x(lead(ax)), lead_y(lead(ay)), height(ay.in), width(ax.in), out_h(ay.out), out_w(ax.out), tile_h(h),
        tile_w(w), tiles_y(ceil_div(out_h, h)), tiles_x(ceil_div(out_w, w)), rows(wy.samples(h)), columns(wx.samples(w)), x_pitch(fir::odd(columns)),
        middle_pitch(fir::four_odd(w)), y_pitch(fir::four_odd(w)), second_table(4 * wx.steps * (separable ? 1 : wy.taps)), separable(separable) {
    const auto up4 = [](int n) { return ceil_div(n, 4) * 4; };
    const int middle = separable ? rows * middle_pitch : h * y_pitch, y = separable ? h * y_pitch : 0;
    first_buffer = second_table + (separable ? 4 * wy.steps : 0);
    second_buffer = first_buffer + up4(larger(rows * x_pitch, y));
    end = second_buffer + middle;
  }
};

// The largest tile in at most 48 KiB that is not much larger than the image.
template <class T>
Tiles choose_tiles(const Axis& ax, const Axis& ay, bool separable) {
  static constexpr int kSizes[][2] = {{32, 64}, {16, 64}, {32, 32}, {16, 32}, {8, 32}, {8, 16}, {8, 8}, {4, 8}};
  for (const auto& [h, w] : kSizes) {
    const Tiles tiles(ax, ay, separable, h, w);
    if (tiles.end * sizeof(T) <= 48 * 1024 && (w == 8 || (w < 2 * ax.out && h < 2 * ay.out))) return tiles;
  }
  return Tiles(ax, ay, separable, 4, 8);  // of 2-D filters of 32 x 32 taps in float64: 73 KiB
}

template <class S>
__global__ void __launch_bounds__(kThreads)
    tile_kernel(const S* x, const accumulate_t<S>* f, const accumulate_t<S>* fy, S* y, accumulate_t<S> gain, const Tiles t) {
  using T = accumulate_t<S>;
  T* const memory = reinterpret_cast<T*>(shared_memory());
  T *const first = memory + t.first_buffer, *const second = memory + t.second_buffer;
  const int64_t image = blockIdx.x / t.tiles_x, plane = image / t.tiles_y;
  const int ox = (blockIdx.x - image * t.tiles_x) * t.tile_w, oy = (image - plane * t.tiles_y) * t.tile_h;
  fir::make_table(memory, f, t.separable ? 1 : t.wy.taps, t.wx, t.flip, gain);
  if (t.separable) fir::make_table(memory + t.second_table, fy, 1, t.wy, t.flip, T(1));
  const S* from = x + plane / t.channels * t.x_sample + plane % t.channels * t.x_channel;
  fir::load_tile(from, t.x_row, t.height, t.width, oy / 4 * t.wy.stride + t.lead_y, ox / 4 * t.wx.stride + t.lead_x, first, t.x_pitch, t.rows,
                 t.columns, T(0), t.wide_x);
  __syncthreads();
  T* result = t.separable ? first : second;
  const auto give = [&](int row, int chunk, const T(&values)[4]) {
    Pack<T, 4> pack;
    FASTGAN_UNROLL
    for (int i = 0; i < 4; ++i) pack.at[i] = values[i];
    store(result + row * t.y_pitch + 4 * chunk, pack);
  };
  if (t.separable) {
    fir::along_x<1>(first, t.x_pitch, second, t.middle_pitch, t.rows, t.tile_w / 4, t.wx, memory);
    __syncthreads();
    fir::along_y(second, t.middle_pitch, t.tile_h / 4, t.tile_w / 4, t.wy, memory + t.second_table, give);
  } else {
    fir::along_both<1>(first, t.x_pitch, t.tile_h, t.tile_w / 4, t.wx, t.wy, memory, give);
  }
  __syncthreads();
  fir::store_tile(result, t.y_pitch, y + (plane * t.out_h + oy) * t.out_w + ox, t.out_w, smaller(t.tile_h, t.out_h - oy),
                  smaller(t.tile_w, t.out_w - ox), t.wide_y);
}

// A call of the direct kernel in indices of one width. Axis 0 is x.
template <class Index>
struct Direct {
  Index in[2], out[2], taps[2], up[2], down[2], before[2];
  Index channels, total;  // in packs
  Index sample, channel, row, column;  // strides of x
  bool last, separable, flip;
};

template <class S, int N, class Index>
__global__ void direct_kernel(const S* x, const accumulate_t<S>* f, const accumulate_t<S>* fy, S* y, accumulate_t<S> gain, const Direct<Index> d) {
  using T = accumulate_t<S>;
  const Index index = Index(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= d.total) return;
  Index rest = index, c = 0, o[2];
  if (d.last) c = rest % d.channels, rest /= d.channels;
  o[0] = rest % d.out[0], rest /= d.out[0];
  o[1] = rest % d.out[1], rest /= d.out[1];
  if (!d.last) c = rest % d.channels, rest /= d.channels;
  Index start[2], tap[2];
  FASTGAN_UNROLL
  for (int a = 0; a < 2; ++a) {
    const Index base = o[a] * d.down[a] - d.before[a];
    start[a] = larger<Index>(0, -floor_div(-base, d.up[a]));
    tap[a] = start[a] * d.up[a] - base;
  }
  const S* from = x + rest * d.sample + c * N * d.channel;
  T sum[N] = {};
  for (Index i = start[1], ty = tap[1]; i < d.in[1] && ty < d.taps[1]; ++i, ty += d.up[1]) {
    const Index fr = d.flip ? ty : d.taps[1] - 1 - ty;
    T line[N] = {};
    for (Index j = start[0], tx = tap[0]; j < d.in[0] && tx < d.taps[0]; ++j, tx += d.up[0]) {
      const T weight = f[(d.separable ? 0 : fr * d.taps[0]) + (d.flip ? tx : d.taps[0] - 1 - tx)];
      const Pack<S, N> pack = load<S, N>(from + i * d.row + j * d.column);
      FASTGAN_UNROLL
      for (int v = 0; v < N; ++v) line[v] += weight * static_cast<T>(pack.at[v]);
    }
    const T weight = d.separable ? fy[fr] : T(1);
    FASTGAN_UNROLL
    for (int v = 0; v < N; ++v) sum[v] += weight * line[v];
  }
  Pack<S, N> result;
  FASTGAN_UNROLL
  for (int v = 0; v < N; ++v) result.at[v] = static_cast<S>(sum[v] * gain);
  store(y + int64_t(index) * N, result);
}

template <class S, int N, class Index>
void launch_direct(const Tensor& x, const accumulate_t<S>* f, const accumulate_t<S>* fy, Tensor& y, double gain, const Axis (&axes)[2], bool last,
                   bool flip) {
  Direct<Index> d;
  for (int a = 0; a < 2; ++a)
    d.in[a] = axes[a].in, d.out[a] = axes[a].out, d.taps[a] = axes[a].taps, d.up[a] = axes[a].up, d.down[a] = axes[a].down,
    d.before[a] = axes[a].before;
  d.channels = x.size(1) / N, d.total = y.numel() / N;
  d.sample = x.stride(0), d.channel = x.stride(1), d.row = x.stride(2), d.column = x.stride(3);
  d.last = last, d.separable = fy != nullptr, d.flip = flip;
  launch("upfirdn2d", x, dim3(ceil_div<int64_t>(y.numel() / N, kThreads)), dim3(kThreads), 0, direct_kernel<S, N, Index>, pointer<S>(x), f, fy,
         mutable_pointer<S>(y), static_cast<accumulate_t<S>>(gain), d);
}

// Whether 32-bit indices reach every element and every position between elements.
bool fits_32_bits(const Tensor& x, const Tensor& y, const Axis (&axes)[2]) {
  int64_t most = y.numel() + kThreads, reach = 0;
  for (int d = 0; d < 4; ++d) reach += (x.size(d) - 1) * x.stride(d);
  for (const Axis& a : axes) most = larger(most, larger(a.in * a.up, a.out * a.down) + (a.before < 0 ? -a.before : a.before) + a.taps + a.up);
  return larger(most, reach) < INT32_MAX;
}

bool channels_last(const Tensor& x) { return x.size(1) > 1 && x.stride(1) == 1 && x.stride(3) > 1; }

Tensor upfirdn2d(Tensor x, Tensor f, std::optional<Tensor> fy, std::vector<int64_t> up, std::vector<int64_t> down, std::vector<int64_t> padding,
                 bool flip_filter, double gain) {
  check_device(x, f, fy);
  FASTGAN_CHECK(x.dim() == 4, "x has ", x.dim(), " dimensions, expected 4");
  FASTGAN_CHECK(up.size() == 2 && down.size() == 2 && padding.size() == 4, "up and down need 2 numbers, padding 4");
  FASTGAN_CHECK(f.dim() == (fy ? 1 : 2) && (!fy || fy->dim() == 1), "the filter must be [taps_y, taps_x], or two of [taps]");
  Axis axes[2];
  for (int a = 0; a < 2; ++a) {
    FASTGAN_CHECK(up[a] >= 1 && down[a] >= 1, "up and down must be >= 1");
    const int64_t taps = a == 0 ? f.size(f.dim() - 1) : fy ? fy->size(0) : f.size(0);
    const int64_t size = x.size(3 - a) * up[a] + padding[2 * a] + padding[2 * a + 1];
    FASTGAN_CHECK(taps >= 1 && size >= taps, "the padded image is smaller than the filter");
    axes[a] = {x.size(3 - a), (size - taps) / down[a] + 1, taps, up[a], down[a], padding[2 * a]};
  }
  const auto& [ax, ay] = axes;
  const bool last = channels_last(x);
  Tensor y = torch::stable::new_empty(
      x, last ? std::vector<int64_t>{x.size(0), ay.out, ax.out, x.size(1)} : std::vector<int64_t>{x.size(0), x.size(1), ay.out, ax.out});
  const auto result = [&] { return last ? torch::stable::transpose(torch::stable::transpose(y, 1, 3), 2, 3) : y; };
  if (y.numel() == 0) return result();
  f = torch::stable::contiguous(f);
  if (fy) fy = torch::stable::contiguous(*fy);
  Tensor strided = result();
  const OnDeviceOf device(x);
  FASTGAN_DISPATCH(x.scalar_type(), [&] {
    using T = accumulate_t<scalar_t>;
    FASTGAN_CHECK(f.scalar_type() == accumulate_dtype<scalar_t> && (!fy || fy->scalar_type() == f.scalar_type()),
                  "f must be float32, or float64 for a float64 x");
    const T *taps = pointer<T>(f), *taps_y = fy ? pointer<T>(*fy) : nullptr;
    if (resampled::multiply(x, f, fy ? &*fy : nullptr, strided, ax, ay, gain, flip_filter)) return;
    if (resampled::multiply_separable(x, f, fy ? &*fy : nullptr, strided, ax, ay, gain, flip_filter)) return;
    if (resampled::stream(x, f, fy ? &*fy : nullptr, strided, ax, ay, gain, flip_filter)) return;
    const bool rows = !last && (x.size(3) <= 1 || x.stride(3) == 1);
    if (rows && tiled(ax) && tiled(ay) && ax.out * ay.out >= 32) {
      Tiles tiles = choose_tiles<T>(ax, ay, fy.has_value());
      const int64_t blocks = x.size(0) * x.size(1) * tiles.tiles_y * tiles.tiles_x;
      if (blocks <= INT32_MAX) {
        tiles.channels = x.size(1), tiles.x_sample = x.stride(0), tiles.x_channel = x.stride(1), tiles.x_row = x.stride(2);
        tiles.flip = flip_filter, tiles.wide_x = whole_packs<scalar_t>(x), tiles.wide_y = whole_packs<scalar_t>(y);
        launch("upfirdn2d", x, dim3(blocks), dim3(kThreads), tiles.end * sizeof(T), tile_kernel<scalar_t>, pointer<scalar_t>(x), taps, taps_y,
               mutable_pointer<scalar_t>(y), static_cast<T>(gain), tiles);
        return;
      }
    }
    constexpr int kN = kPack<scalar_t>;
    bool packs = last && aligned(x.const_data_ptr()) && aligned(y.const_data_ptr()) && x.size(1) % kN == 0;
    for (int d : {0, 2, 3}) packs = packs && x.stride(d) % kN == 0;
    if (!fits_32_bits(x, y, axes)) launch_direct<scalar_t, 1, int64_t>(x, taps, taps_y, y, gain, axes, last, flip_filter);
    else if (packs) launch_direct<scalar_t, kN, int32_t>(x, taps, taps_y, y, gain, axes, last, flip_filter);
    else launch_direct<scalar_t, 1, int32_t>(x, taps, taps_y, y, gain, axes, last, flip_filter);
  });
  return strided;
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(FASTGAN_NAMESPACE, FASTGAN_DISPATCH_KEY, m) { m.impl("upfirdn2d", TORCH_BOX(&fastgan::upfirdn2d)); }
