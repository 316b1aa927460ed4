// 3x3 convolutions of stride 1 on the CPU by Winograd's minimal filtering F(2x2, 3x3) (Lavin & Gray, 2016): a tile of 2x2 outputs
// takes 16 products per pair of channels instead of 36,
//
//     y = A^T [ sum over c of (G g G^T) (B^T d B) ] A,        dg = G^T [ sum over tiles of (A dy A^T) (B^T d B) ] G,
//
// with factors 0, 1 and 1/2 alone in A, B and G: errors are those of summing in another order (0.7 to 1.1 times the direct
// convolution's, tests/ops/test_rounding.py). Each tile's numbers depend on nothing else, so neither batches nor threads change them.
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "check.h"
#include "cpu/buffer.h"
#include "cpu/level.h"
#include "cpu/memory.h"
#include "cpu/reference.h"

namespace fastgan {
constexpr int64_t kPanel = 32;  // channels per block of the products
}

#define FASTGAN_KERNEL "cpu/conv3x3_kernel.h"
#include "cpu/each_level.h"
#include "cpu/turn.h"

namespace fastgan {
namespace {

constexpr int64_t kNumbers = 16;            // of a tile, per channel
constexpr int64_t kSkew = 16;               // numbers that keep the 16 of a tile out of the same set of the L1 cache
constexpr int64_t kSharedBytes = 8 << 20;   // of all threads' transformed tiles, where they share them: L3
constexpr int64_t kDepth = 256;             // tiles per product of panels, 2 x 32 KiB
constexpr int64_t kTurnedBytes = 16 << 20;  // of the images whose layout is changed at a time

// Of a thread's transformed tiles, which stay in the L2 cache. Measured: Zen 4 has 1 MiB of it, Xeons since Sapphire Rapids 2,
// and an L3 cache so slow that twice the tiles per pass over the kernels take 0.8 times as long.
int64_t block_bytes() {
#ifdef _SC_LEVEL2_CACHE_SIZE
  static const bool large = sysconf(_SC_LEVEL2_CACHE_SIZE) >= (2 << 20);
#else
  constexpr bool large = false;
#endif
  return large ? 800 << 10 : 200 << 10;
}

int64_t panels(int64_t channels) { return (channels + kPanel - 1) / kPanel; }
int64_t by_four(int64_t rows) { return (rows + 3) / 4 * 4; }

Tensor images_of(const Tensor& pixels) { return torch::stable::transpose(torch::stable::transpose(pixels, 2, 3), 1, 2); }

// [N, C, H, W] -> [N, H, W, C], contiguous.
template <class T>
Tensor turned(Tensor x) {
  x = torch::stable::contiguous(x);
  Tensor pixels = new_output(x, {x.size(0), x.size(2), x.size(3), x.size(1)});
  turn<T>(pointer<T>(x), mutable_pointer<T>(pixels), x.size(0), x.size(1), x.size(2) * x.size(3));
  return pixels;
}

// The same; the same memory where x is channels_last.
template <class T>
Tensor pixels_of(Tensor x) {
  return in_pixels(x) ? torch::stable::contiguous(torch::stable::transpose(torch::stable::transpose(x, 1, 2), 2, 3)) : turned<T>(x);
}

// The tiles of outputs [N, height, width] and where their pixels lie in it and in the input around it.
struct Tiles {
  int64_t images, height, width, rows, columns, padding;

  Tiles(int64_t images, int64_t height, int64_t width, int64_t padding)
      : images(images), height(height), width(width), rows((height + 1) / 2), columns((width + 1) / 2), padding(padding) {}
  int64_t count() const { return images * rows * columns; }

  int64_t image(int64_t tile) const { return tile / (rows * columns); }

  // Addresses of size x size pixels of the image [heights, widths, channels] from (2 row - before, 2 column - before) on.
  template <int size, class T>
  void pixels(int64_t tile, T* data, int64_t heights, int64_t widths, int64_t channels, int64_t before, T* outside, T** found) const {
    const int64_t n = image(tile), top = tile / columns % rows * 2 - before, left = tile % columns * 2 - before;
    for (int64_t i = 0; i < size; ++i)
      for (int64_t j = 0; j < size; ++j) {
        const int64_t y = top + i, x = left + j;
        const bool inside = y >= 0 && y < heights && x >= 0 && x < widths;
        found[i * size + j] = inside ? data + ((n * heights + y) * widths + x) * channels : outside;
      }
  }
};

// G g G^T of the kernels of weight[inputs][outputs] as [panel of outputs][16][inputs][kPanel], zero where a panel has no output.
// transposed: weight is [inputs, outputs, 3, 3] of a transposed convolution, whose kernels are turned by 180 degrees.
template <class T>
Buffer<T> transformed_weight(const Tensor& weight, bool transposed, int64_t inputs, int64_t outputs) {
  Buffer<T> u = buffer<T>(panels(outputs) * kNumbers * inputs * kPanel);
  const T* w = pointer<T>(weight);
  const int64_t by_output = weight.stride(transposed ? 1 : 0), by_input = weight.stride(transposed ? 0 : 1);
  int64_t taps[9];
  for (int64_t tap = 0; tap < 9; ++tap) taps[transposed ? 8 - tap : tap] = tap / 3 * weight.stride(2) + tap % 3 * weight.stride(3);
  in_parallel(panels(outputs) * inputs, 64, [&](int64_t first, int64_t last) {
    alignas(64) T g[9 * kPanel];
    for (int64_t i = first; i < last; ++i) {
      const int64_t panel = i / inputs, c = i % inputs, found = std::min(kPanel, outputs - panel * kPanel);
      if (found < kPanel) std::fill(g, g + 9 * kPanel, T(0));
      for (int64_t o = 0; o < found; ++o) {
        const T* from = w + (panel * kPanel + o) * by_output + c * by_input;
        for (int64_t tap = 0; tap < 9; ++tap) g[tap * kPanel + o] = from[taps[tap]];
      }
      FASTGAN_AT_LEVEL_FOR(T, weight_panel<T>(g, &u[(panel * kNumbers * inputs + c) * kPanel], inputs * kPanel));
    }
  });
  return u;
}

// y = x * u + added: from [N, heights, widths, inputs], to [tiles.images, tiles.height, tiles.width, outputs]. spoiled(n): image n of
// these has an output that is not finite.
template <class T, class Found>
void products(const T* from, int64_t height, int64_t width, int64_t inputs, const T* u, const T* added, T* to, int64_t outputs, const Tiles& tiles,
              const Found& spoiled) {
  const Buffer<T> zeros = buffer<T>(inputs);
  std::fill(&zeros[0], &zeros[inputs], T(0));
  // Blocks of equal size, as many for every thread.
  const int64_t threads = torch::stable::get_num_threads(), bytes = kNumbers * inputs * sizeof(T);
  const int64_t most = std::clamp<int64_t>(block_bytes() / bytes, 12, 96);
  const int64_t turns = (tiles.count() + most * threads - 1) / (most * threads);
  const int64_t size = (tiles.count() + turns * threads - 1) / (turns * threads), room = by_four(size);
  const int64_t of_v = room * inputs + kSkew, of_m = room * kPanel + kSkew;
  in_parallel((tiles.count() + size - 1) / size, 1, [&](int64_t first, int64_t last) {
    const Buffer<T> v = buffer<T>(kNumbers * of_v), m = buffer<T>(kNumbers * of_m);
    std::fill(&v[0], &v[kNumbers * of_v], T(0));
    for (int64_t block = first; block < last; ++block) {
      const int64_t begin = block * size, count = std::min(size, tiles.count() - begin);
      for (int64_t t = 0; t < count; ++t) {
        const T* pixels[16];
        tiles.pixels<4, const T>(begin + t, from, height, width, inputs, tiles.padding, &zeros[0], pixels);
        FASTGAN_AT_LEVEL_FOR(T, input_tile<T>(pixels, inputs, &v[t * inputs], of_v, kPanel));
      }
      for (int64_t panel = 0; panel < panels(outputs); ++panel) {
        for (int64_t e = 0; e < kNumbers; ++e) {
          const int64_t at = panel * kNumbers + e, next = (at + 1) % (panels(outputs) * kNumbers);
          FASTGAN_AT_LEVEL_FOR(T, multiply<false, T>(by_four(count), &v[e * of_v], inputs, 1, inputs, &u[at * inputs * kPanel], &m[e * of_m],
                                                     &u[next * inputs * kPanel]));
        }
        const int64_t found = std::min(kPanel, outputs - panel * kPanel);
        for (int64_t t = 0; t < count; ++t) {
          T* pixels[4];
          tiles.pixels<2, T>(begin + t, to + panel * kPanel, tiles.height, tiles.width, outputs, 0, nullptr, pixels);
          FASTGAN_AT_LEVEL_FOR(T, output_tile<T>(&m[t * kPanel], of_m, found, &added[panel * kPanel], pixels));
          for (const T* pixel : pixels)
            if (pixel && !FASTGAN_AT_LEVEL_FOR(T, finite<T>(pixel, found))) spoiled(tiles.image(begin + t));
        }
      }
    }
  });
}

template <class T>
void forward(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, Tensor& y, int64_t padding, bool transposed,
             Spoiled& spoiled) {
  const int64_t n = x.size(0), inputs = x.size(1), height = x.size(2), width = x.size(3);
  const int64_t outputs = y.size(1), rows = y.size(2), columns = y.size(3), in = inputs * height * width, out = outputs * rows * columns;
  const Buffer<T> u = transformed_weight<T>(weight, transposed, inputs, outputs), added = buffer<T>(panels(outputs) * kPanel);
  std::fill(&added[0], &added[panels(outputs) * kPanel], T(0));
  if (bias) std::copy_n(pointer<T>(*bias), outputs, &added[0]);
  const auto images = [&](const T* from, T* to, int64_t first, int64_t count) {
    products<T>(from, height, width, inputs, &u[0], &added[0], to, outputs, Tiles(count, rows, columns, padding),
                [&](int64_t image) { spoiled.add(first + image); });
  };
  if (in_pixels(x)) return images(pointer<T>(x), mutable_pointer<T>(y), 0, n);
  const int64_t turn_of = std::clamp<int64_t>(kTurnedBytes / sizeof(T) / std::max(in, out), 1, n);
  const Buffer<T> a = buffer<T>(turn_of * in), b = buffer<T>(turn_of * out);
  for (int64_t i = 0; i < n; i += turn_of) {
    const int64_t count = std::min(turn_of, n - i);
    turn<T>(pointer<T>(x) + i * in, &a[0], count, inputs, height * width);
    images(&a[0], &b[0], i, count);
    turn<T>(&b[0], mutable_pointer<T>(y) + i * out, count, rows * columns, outputs);
  }
}

// sum over images and pixels of dy[o] x[c] at each of nine offsets -> [O, C, 3, 3]; whether all are finite
template <class T>
bool weight_gradient(const Tensor& dy, const Tensor& x, Tensor& dw, int64_t padding) {
  const int64_t height = x.size(1), width = x.size(2), inputs = x.size(3), outputs = dy.size(3);
  const Tiles tiles(x.size(0), dy.size(1), dy.size(2), padding);
  const int64_t of_x = panels(inputs), of_dy = panels(outputs);
  const int64_t bytes = kNumbers * kPanel * (of_x + of_dy) * sizeof(T);
  const int64_t size = std::min(tiles.count(), std::max(kDepth, kSharedBytes / bytes));
  const T *from = pointer<T>(x), *upstream = pointer<T>(dy);
  T* to = mutable_pointer<T>(dw);
  // [16][panel of outputs][panel of inputs][kPanel outputs][kPanel inputs], and what a block of tiles adds to it
  const int64_t sums = kNumbers * of_dy * of_x * kPanel * kPanel;
  const Buffer<T> s = buffer<T>(sums), v = buffer<T>(kNumbers * of_x * size * kPanel), d = buffer<T>(kNumbers * of_dy * size * kPanel);
  const int64_t longest = std::max(inputs, outputs);
  const Buffer<T> zeros = buffer<T>(longest);
  std::fill(&zeros[0], &zeros[longest], T(0));
  std::fill(&v[0], &v[kNumbers * of_x * size * kPanel], T(0));
  std::fill(&d[0], &d[kNumbers * of_dy * size * kPanel], T(0));
  for (int64_t begin = 0; begin < tiles.count(); begin += size) {
    const int64_t count = std::min(size, tiles.count() - begin);
    in_parallel(count, 8, [&](int64_t first, int64_t last) {
      for (int64_t t = first; t < last; ++t) {
        const T* pixels[16];
        tiles.pixels<4, const T>(begin + t, from, height, width, inputs, padding, &zeros[0], pixels);
        FASTGAN_AT_LEVEL_FOR(T, input_tile<T>(pixels, inputs, &v[t * kPanel], of_x * size * kPanel, size * kPanel));
        tiles.pixels<2, const T>(begin + t, upstream, tiles.height, tiles.width, outputs, 0, &zeros[0], pixels);
        FASTGAN_AT_LEVEL_FOR(T, gradient_tile<T>(pixels, outputs, &d[t * kPanel], of_dy * size * kPanel, size * kPanel));
      }
    });
    in_parallel(kNumbers * of_x, 1, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i)
        for (int64_t o = 0; o < of_dy; ++o) {
          const int64_t e = i / of_x;
          const T *a = &d[(e * of_dy + o) * size * kPanel], *b = &v[i * size * kPanel];
          T* sum = &s[((e * of_dy + o) * of_x + i % of_x) * kPanel * kPanel];
          for (int64_t k = 0; k < count; k += kDepth) {
            const int64_t depth = std::min(kDepth, count - k);
            if (begin + k == 0) FASTGAN_AT_LEVEL_FOR(T, multiply<false, T>(kPanel, a, 1, kPanel, depth, b, sum, b));
            else FASTGAN_AT_LEVEL_FOR(T, multiply<true, T>(kPanel, a + k * kPanel, 1, kPanel, depth, b + k * kPanel, sum, b));
          }
        }
    });
  }
  std::atomic<bool> all_finite = true;
  in_parallel(of_x * outputs, 16, [&](int64_t first, int64_t last) {
    alignas(64) T g[9 * kPanel];
    for (int64_t i = first; i < last; ++i) {
      const int64_t o = i / of_x, panel = i % of_x, found = std::min(kPanel, inputs - panel * kPanel);
      const T* sum = &s[(((o / kPanel) * of_x + panel) * kPanel + o % kPanel) * kPanel];
      FASTGAN_AT_LEVEL_FOR(T, weight_gradient_panel<T>(sum, of_dy * of_x * kPanel * kPanel, g));
      if (!FASTGAN_AT_LEVEL_FOR(T, finite<T>(g, 9 * kPanel))) all_finite = false;
      T* at = to + (o * inputs + panel * kPanel) * 9;
      for (int64_t c = 0; c < found; ++c)
        for (int64_t tap = 0; tap < 9; ++tap) at[c * 9 + tap] = g[tap * kPanel + c];
    }
  });
  return all_finite;
}

template <class Body>
void at_precision(const Tensor& x, const Body& body) {
  using torch::headeronly::ScalarType;
  FASTGAN_CHECK(x.scalar_type() == ScalarType::Float || x.scalar_type() == ScalarType::Double, "conv3x3 takes float32 and float64");
  if (x.scalar_type() == ScalarType::Float) body(float{});
  else body(double{});
}

void check_images(const Tensor& x, const Tensor& other, const char* name) {
  FASTGAN_CHECK(x.dim() == 4 && other.dim() == 4, "conv3x3: x and ", name, " must have 4 dimensions");
  FASTGAN_CHECK(x.scalar_type() == other.scalar_type(), "conv3x3: ", name, " has another dtype than x");
}

Tensor conv3x3(Tensor x, Tensor weight, std::optional<Tensor> bias, int64_t padding, bool transposed) {
  check_images(x, weight, "weight");
  FASTGAN_CHECK(weight.size(2) == 3 && weight.size(3) == 3 && weight.size(transposed ? 0 : 1) == x.size(1),
                "conv3x3: weight must be 3x3 for the channels of x");
  FASTGAN_CHECK(padding >= 0 && padding <= 2, "conv3x3: padding is ", padding, ", expected 0, 1 or 2");
  const int64_t outputs = weight.size(transposed ? 1 : 0), border = transposed ? 2 - padding : padding;
  FASTGAN_CHECK(!bias || (bias->dim() == 1 && bias->size(0) == outputs && bias->scalar_type() == x.scalar_type()),
                "conv3x3: bias must be a vector of the outputs");
  const int64_t height = x.size(2) + 2 * border - 2, width = x.size(3) + 2 * border - 2;
  FASTGAN_CHECK(height > 0 && width > 0, "conv3x3: x is smaller than the kernel");
  if (x.numel() == 0 || outputs == 0) return tensor(reference("conv3x3", x, weight, bias, padding, transposed)[0]);
  if (bias) bias = torch::stable::contiguous(*bias);
  const bool last = in_pixels(x);
  Tensor y = new_images(x, x.size(0), outputs, height, width, last);
  Spoiled spoiled(x.size(0));
  at_precision(x, [&]<class T>(T) {
    forward<T>(last ? images_of(pixels_of<T>(x)) : torch::stable::contiguous(x), weight, bias, y, border, transposed, spoiled);
  });
  spoiled.each([&](int64_t n) { replace_sample(y, n, tensor(reference("conv3x3", sample(x, n), weight, bias, padding, transposed)[0])); });
  return y;
}

Tensor conv3x3_weight(Tensor dy, Tensor x, int64_t padding) {
  check_images(x, dy, "dy");
  FASTGAN_CHECK(dy.size(0) == x.size(0) && dy.size(2) == x.size(2) + 2 * padding - 2 && dy.size(3) == x.size(3) + 2 * padding - 2,
                "conv3x3_weight: dy must have the size of the convolution's output");
  Tensor dw = torch::stable::new_empty(x, {dy.size(1), x.size(1), 3, 3});
  if (dy.numel() == 0 || x.numel() == 0) return tensor(reference("conv3x3_weight", dy, x, padding)[0]);
  bool all_finite;
  at_precision(x, [&]<class T>(T) { all_finite = weight_gradient<T>(pixels_of<T>(dy), pixels_of<T>(x), dw, padding); });
  return all_finite ? dw : tensor(reference("conv3x3_weight", dy, x, padding)[0]);
}

Tensor to_pixels(Tensor x) {
  FASTGAN_CHECK(x.dim() == 4 && x.scalar_type() == torch::headeronly::ScalarType::Float, "to_pixels: x must be float32 [N, C, H, W]");
  return images_of(turned<float>(x));
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, m) {
  m.impl("conv3x3", TORCH_BOX(&fastgan::conv3x3));
  m.impl("conv3x3_weight", TORCH_BOX(&fastgan::conv3x3_weight));
  m.impl("to_pixels", TORCH_BOX(&fastgan::to_pixels));
}
