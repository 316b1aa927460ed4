// Transposed convolutions of stride 2 to few channels on the CPU: the last layer of a generator, and the gradient by the images of a
// discriminator's first layer. Output (Y, X) of channel c is
//
//     y = sum over inputs o, ky, kx of w[o][c][ky][kx] x[o][(Y + p - ky) / 2][(X + p - kx) / 2]
//
// over the taps that divide. The channels and both parities of X fill the registers, where a matrix product and a fold write and
// read kh kw / 4 numbers for each output. Each row depends on nothing else, so neither batches nor threads change a number.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "check.h"
#include "cpu/buffer.h"
#include "cpu/level.h"
#include "cpu/memory.h"
#include "cpu/reference.h"

namespace fastgan {
constexpr int kMostChannels = 4, kMostTaps = 2;  // of outputs; of a parity along x
}

#define FASTGAN_KERNEL "cpu/conv_to_image_kernel.h"
#include "cpu/each_level.h"

namespace fastgan {
namespace {

constexpr int64_t kRound = 32;               // a row of a parity is whole vectors, two of AVX-512 in float32
constexpr int64_t kStripBytes = 256 << 10;   // of the inputs of a strip of rows, which stay in an L2 cache
constexpr int64_t kWorth = 1 << 18;          // products that are worth a thread

int64_t round_up(int64_t n) { return (n + kRound - 1) / kRound * kRound; }

// weight [inputs, channels, kh, kw] as [ky][input][parity of x][tap][channel], and how far right of its output's column each tap reads
template <class T>
struct Taps {
  int64_t inputs, channels, rows, of_parity;
  std::vector<T> packed;
  std::vector<int64_t> shift;

  Taps(const Tensor& weight, int64_t padding)
      : inputs(weight.size(0)), channels(weight.size(1)), rows(weight.size(2)), of_parity(weight.size(3) / 2), packed(weight.numel()),
        shift(2 * of_parity) {
    const T* w = pointer<T>(weight);
    T* to = packed.data();
    for (int64_t b = 0; b < 2; ++b)
      for (int64_t t = 0; t < of_parity; ++t) shift[b * of_parity + t] = (b + padding - first(b, padding)) / 2 - t;
    for (int64_t ky = 0; ky < rows; ++ky)
      for (int64_t o = 0; o < inputs; ++o)
        for (int64_t b = 0; b < 2; ++b)
          for (int64_t t = 0; t < of_parity; ++t)
            for (int64_t c = 0; c < channels; ++c)
              *to++ = w[o * weight.stride(0) + c * weight.stride(1) + ky * weight.stride(2) + (first(b, padding) + 2 * t) * weight.stride(3)];
  }
  bool finite() const {
    return std::all_of(packed.begin(), packed.end(), [](T w) { return std::isfinite(w); });
  }
  static int64_t first(int64_t b, int64_t padding) { return (b + padding) % 2; }
  const T* row(int64_t ky) const { return &packed[ky * inputs * 2 * of_parity * channels]; }
};

// x [N, O, h, w], contiguous or channels_last -> y [N, C, H, W]
template <class T>
void convolve(const Tensor& x, const Taps<T>& taps, Tensor& y, int64_t padding) {
  const int64_t inputs = x.size(1), h = x.size(2), w = x.size(3), channels = y.size(1), height = y.size(2), width = y.size(3);
  const bool pixels = in_pixels(x);
  const auto [least, most] = std::minmax_element(taps.shift.begin(), taps.shift.end());
  const int64_t part = round_up((width + 1) / 2), left = round_up(std::max<int64_t>(0, -*least));
  const int64_t row = left + round_up(std::max(w, part + std::max<int64_t>(0, *most)));
  // As many rows as fit, in strips of equal size.
  const int64_t fit = kStripBytes / sizeof(T) / (inputs * row), strip_most = std::max<int64_t>(2, 2 * fit - taps.rows);
  const int64_t strips = (height + strip_most - 1) / strip_most, strip = (height + strips - 1) / strips;
  const int64_t room = (strip + taps.rows) / 2 + 1, apart = room * row;
  const T* from = pointer<T>(x);
  T* to = mutable_pointer<T>(y);
  const int64_t products = strip * width * inputs * channels * taps.rows * taps.of_parity;  // half of them, by parity of y
  const int64_t grain = std::max<int64_t>(1, 2 * kWorth / products);
  torch::stable::parallel_for(0, x.size(0) * strips, grain, [&](int64_t begin, int64_t end) {
    const Buffer<T> near = buffer<T>(inputs * apart), parts = buffer<T>(2 * channels * part);
    std::fill(&near[0], &near[inputs * apart], T(0));  // what is left and right of the rows stays so
    std::vector<const T*> rows(taps.rows), weights(taps.rows);
    for (int64_t u = begin; u < end; ++u) {
      const int64_t n = u / strips, top = u % strips * strip, bottom = std::min(height, top + strip);
      const int64_t first = std::max<int64_t>(0, (top + padding - taps.rows + 2) / 2), last = std::min(h, (bottom - 1 + padding) / 2 + 1);
      const T* image = from + n * inputs * h * w;
      for (int64_t i = first; i < last; ++i) {
        T* at = &near[(i - first) * row + left];
        if (pixels) FASTGAN_AT_LEVEL_FOR(T, transpose<T>(image + i * w * inputs, inputs, at, apart, w, inputs));
        else
          for (int64_t o = 0; o < inputs; ++o) std::copy_n(image + (o * h + i) * w, w, at + o * apart);
      }
      for (int64_t line = top; line < bottom; ++line) {
        int64_t count = 0;
        for (int64_t ky = (line + padding) % 2; ky < taps.rows; ky += 2) {
          const int64_t i = (line + padding - ky) / 2;
          if (line + padding < ky || i >= h) continue;
          rows[count] = &near[(i - first) * row + left];
          weights[count++] = taps.row(ky);
        }
        FASTGAN_AT_LEVEL_FOR(
            T, run_row<T>(channels, taps.of_parity, rows.data(), weights.data(), count, inputs, apart, taps.shift.data(), &parts[0], part));
        for (int64_t c = 0; c < channels; ++c)
          FASTGAN_AT_LEVEL_FOR(
              T, interleave<T>(&parts[2 * c * part], &parts[(2 * c + 1) * part], to + ((n * channels + c) * height + line) * width, width));
      }
    }
  });
}

Tensor conv_to_image(Tensor x, Tensor weight, std::vector<int64_t> padding, std::vector<int64_t> size) {
  using torch::headeronly::ScalarType;
  FASTGAN_CHECK(x.dim() == 4 && weight.dim() == 4, "conv_to_image: x and weight must have 4 dimensions");
  FASTGAN_CHECK(weight.size(0) == x.size(1) && weight.scalar_type() == x.scalar_type(),
                "conv_to_image: weight must be [x.shape[1], C, kh, kw] of the dtype of x");
  FASTGAN_CHECK(weight.size(1) <= kMostChannels, "conv_to_image: weight has ", weight.size(1), " outputs, expected at most 4");
  FASTGAN_CHECK(weight.size(2) >= 1 && (weight.size(3) == 2 || weight.size(3) == 4), "conv_to_image: the kernel must have 2 or 4 columns");
  FASTGAN_CHECK(padding.size() == 2 && size.size() == 2, "conv_to_image: padding and size need 2 numbers");
  for (int a = 0; a < 2; ++a) {
    const int64_t least = (x.size(2 + a) - 1) * 2 - 2 * padding[a] + weight.size(2 + a);
    FASTGAN_CHECK(padding[a] >= 0 && size[a] >= 0 && (size[a] == least || size[a] == least + 1), "conv_to_image: size[", a, "] is ", size[a],
                  ", expected ", least, " or one more");
  }
  FASTGAN_CHECK(x.scalar_type() == ScalarType::Float || x.scalar_type() == ScalarType::Double, "conv_to_image takes float32 and float64");
  Tensor y = new_output(x, {x.size(0), weight.size(1), size[0], size[1]});
  if (y.numel() == 0) return y;
  if (x.numel() == 0) return torch::stable::fill_(y, 0);
  x = torch::stable::contiguous(x, in_pixels(x) ? torch::headeronly::MemoryFormat::ChannelsLast : torch::headeronly::MemoryFormat::Contiguous);
  const auto at_precision = [&]<class T>(T) {
    const Taps<T> taps(weight, padding[1]);
    if (!taps.finite()) return tensor(reference("conv_to_image", x, weight, padding, size)[0]);  // they would meet zeros beside the rows
    convolve<T>(x, taps, y, padding[0]);
    return y;
  };
  return x.scalar_type() == ScalarType::Float ? at_precision(float{}) : at_precision(double{});
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, m) { m.impl("conv_to_image", TORCH_BOX(&fastgan::conv_to_image)); }
