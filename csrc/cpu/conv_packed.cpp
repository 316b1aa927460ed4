// Convolutions on the CPU with weights that stay, straight from images in pixels (indirect convolution: Dukhan, 2019): what a pixel
// of the output is made of is a list of addresses, one per tap, zeros where the image ends, and the products run along channels.
// Any stride, dilation and groups; transposed ones with a stride s are s x s plain ones, each to every s-th pixel of the output.
#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "check.h"
#include "cpu/buffer.h"
#include "cpu/level.h"
#include "cpu/memory.h"

namespace fastgan {
namespace {
constexpr int64_t kPanel = 16;  // outputs that lie side by side in a packed weight
constexpr int64_t kBlock = 96;  // pixels of the output at a time
}
}  // namespace fastgan

#define FASTGAN_KERNEL "cpu/conv_packed_kernel.h"
#include "cpu/each_level.h"

namespace fastgan {
namespace {

constexpr int64_t kStep = 24;    // pixels: a multiple of every level's rows
constexpr int64_t kChain = 192;  // terms of a sum that are added in one chain, about

int64_t divided(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Brings a pixel into the L2 cache: groups and chunks use it in pieces, too far from each other for the machine to foresee.
void fetch(const float* pixel, int64_t channels) {
  for (int64_t c = 0; c < channels; c += 16) __builtin_prefetch(pixel + c, 0, 2);
}

// An image's pixels with their channels side by side.
struct Pixels {
  float* data;
  int64_t height, width, image, row, pixel;

  Pixels(const Tensor& t, const char* name) : data(const_cast<float*>(pointer<float>(t))) {
    FASTGAN_CHECK(t.dim() == 4 && t.scalar_type() == torch::headeronly::ScalarType::Float && (t.stride(1) == 1 || t.size(1) == 1),
                  "conv_packed: ", name, " must be float32 [N, C, H, W] with the channels of a pixel side by side");
    height = t.size(2), width = t.size(3), image = t.stride(0), row = t.stride(2), pixel = t.stride(3);
  }
  float* at(int64_t n, int64_t y, int64_t x) const { return data + n * image + y * row + x * pixel; }
};

// Along one axis the outputs first, first + apart, ...: output number i takes of input `start + i * stride + k * dilation` the tap k.
struct Axis {
  int64_t first, apart, count, taps, start, stride, dilation;
};

std::vector<Axis> axes_of(int64_t outputs, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation, bool transposed) {
  if (!transposed) return {{0, 1, outputs, kernel, -padding, stride, dilation}};
  std::vector<Axis> axes;
  for (int64_t a = 0; a < stride; ++a) {
    // Taps k = last - j stride of the input (a + padding - k) / stride: the last tap meets the first input.
    const int64_t rest = (a + padding) % stride, taps = kernel > rest ? divided(kernel - rest, stride) : 0;
    axes.push_back({a, stride, outputs > a ? divided(outputs - a, stride) : 0, taps, (a + padding) / stride - (taps - 1), 1, 1});
  }
  return axes;
}

struct Work {
  Pixels from, to, added;
  bool adds;
  int64_t groups, depth, outputs;  // depth, outputs: of a group
  const float *bias, *slope, *zeros;

  int64_t panels() const { return divided(outputs, kPanel); }
  int64_t weights(const Axis& y, const Axis& x) const { return groups * panels() * y.taps * x.taps * depth * kPanel; }

  // Outputs begin .. begin + rows - 1, of panels first .. last - 1 of all groups, with weights w [panel of a group][tap][depth][kPanel].
  void run(const Axis& y, const Axis& x, const float* w, int64_t begin, int64_t rows, int64_t first, int64_t last) const {
    const int64_t taps = y.taps * x.taps;
    const Buffer<const float*> sources = buffer<const float*>(kBlock * std::max<int64_t>(taps, 1));
    const Buffer<float> sums = buffer<float>(2 * kBlock * kPanel);
    float* targets[kBlock];
    const float* others[kBlock];
    int64_t j = begin % x.count, i = begin / x.count % y.count, n = begin / x.count / y.count;
    for (int64_t r = 0; r < rows; ++r) {
      targets[r] = to.at(n, y.first + i * y.apart, x.first + j * x.apart);
      fetch(targets[r], outputs * groups);
      if (adds) others[r] = added.at(n, y.first + i * y.apart, x.first + j * x.apart);
      const float** source = &sources[r];
      for (int64_t k = 0; k < y.taps; ++k) {
        const int64_t row = y.start + i * y.stride + k * y.dilation;
        const bool inside = row >= 0 && row < from.height;
        const float* at = from.at(n, row, 0);
        for (int64_t l = 0; l < x.taps; ++l, source += kBlock) {
          const int64_t column = x.start + j * x.stride + l * x.dilation;
          *source = inside && column >= 0 && column < from.width ? at + column * from.pixel : zeros;
          // What no tap of a pixel before has met.
          if (k >= y.taps - y.stride && l >= x.taps - x.stride) fetch(*source, depth * groups);
        }
      }
      if (++j == x.count) {
        j = 0;
        if (++i == y.count) i = 0, ++n;
      }
    }
    // Chunks: whole taps, or a part of the channels of one.
    const bool whole = depth <= kChain;
    const int64_t taps_at_once = whole ? divided(taps, std::max<int64_t>(1, divided(taps * depth, kChain))) : 1;
    const int64_t depth_at_once = whole ? depth : divided(depth, divided(depth, kChain));
    const int64_t apart = taps * depth * kPanel;
    for (int64_t panel = first, pair; panel < last; panel += pair) {
      const int64_t group = panel / panels(), output = panel % panels() * kPanel;
      pair = panel + 1 < last && output + kPanel < outputs ? 2 : 1;
      const int64_t found = std::min(pair * kPanel, outputs - output);
      const float* at = w + panel * apart;
      if (taps == 0) std::fill(&sums[0], &sums[2 * kBlock * kPanel], 0.f);
      for (int64_t tap = 0; tap < taps; tap += taps_at_once)
        for (int64_t c = 0; c < depth; c += depth_at_once) {
          const int64_t t = std::min(taps_at_once, taps - tap), d = std::min(depth_at_once, depth - c);
          const float *here = at, *next = tap + t == taps && c + d == depth ? w + (panel + pair) * apart : at + t * d * kPanel;
          FASTGAN_AT_LEVEL(packed_chunk(rows, &sources[tap * kBlock], group * depth + c, t, d, here, apart, found, tap + c > 0, &sums[0], next));
          at += t * d * kPanel;
        }
      for (int64_t p = 0; p < pair; ++p) {
        const int64_t channel = group * outputs + output + p * kPanel;
        FASTGAN_AT_LEVEL(packed_results(rows, &sums[p * kBlock * kPanel], std::min(kPanel, found - p * kPanel), bias + channel, slope + channel,
                                        adds ? others : nullptr, targets, channel));
      }
    }
  }
};

Tensor conv_packed(Tensor y, Tensor x, Tensor weight, Tensor bias, Tensor slope, std::optional<Tensor> other, int64_t groups,
                   std::vector<int64_t> kernel, std::vector<int64_t> stride, std::vector<int64_t> padding, std::vector<int64_t> dilation,
                   bool transposed) {
  for (const auto* v : {&kernel, &stride, &padding, &dilation})
    FASTGAN_CHECK(v->size() == 2, "conv_packed: kernel, stride, padding and dilation need 2 numbers");
  for (int a = 0; a < 2; ++a)
    FASTGAN_CHECK(kernel[a] > 0 && stride[a] > 0 && dilation[a] > 0 && padding[a] >= 0 && !(transposed && dilation[a] > 1),
                  "conv_packed: kernel, stride and dilation must be positive, padding not negative, and transposed ones have no dilation");
  const Pixels from(x, "x"), to(y, "y"), added(other ? *other : y, "other");
  if (other) check_same_size(*other, y, "other");
  FASTGAN_CHECK(x.size(1) > 0, "conv_packed: x has no channels");
  FASTGAN_CHECK(groups > 0 && x.size(1) % groups == 0 && y.size(1) % groups == 0 && x.size(0) == y.size(0),
                "conv_packed: groups must divide the channels of x and y, which have as many images");
  for (const Tensor& v : {bias, slope})
    FASTGAN_CHECK(v.dim() == 1 && v.size(0) == y.size(1) && v.is_contiguous() && v.scalar_type() == torch::headeronly::ScalarType::Float,
                  "conv_packed: bias and slope must be float32 vectors of the outputs");
  const Buffer<float> zeros = buffer<float>(x.size(1));
  std::fill(&zeros[0], &zeros[x.size(1)], 0.f);
  const Work work{from,     to, added, other.has_value(), groups, x.size(1) / groups, y.size(1) / groups, pointer<float>(bias), pointer<float>(slope),
                  &zeros[0]};
  const std::vector<Axis> rows = axes_of(to.height, kernel[0], stride[0], padding[0], dilation[0], transposed),
                          columns = axes_of(to.width, kernel[1], stride[1], padding[1], dilation[1], transposed);
  int64_t numbers = 0;
  for (const Axis& row : rows)
    for (const Axis& column : columns) numbers += work.weights(row, column);
  FASTGAN_CHECK(
      weight.dim() == 1 && weight.size(0) == numbers && weight.is_contiguous() && weight.scalar_type() == torch::headeronly::ScalarType::Float,
      "conv_packed: weight must be packed for this form: ", numbers, " numbers");
  if (y.numel() == 0) return y;
  const int64_t panels = work.groups * work.panels(), threads = torch::stable::get_num_threads();
  const float* w = pointer<float>(weight);
  for (const Axis& row : rows)
    for (const Axis& column : columns) {
      const int64_t pixels = y.size(0) * row.count * column.count, least = divided(pixels, kBlock);
      // As many for every thread: of three blocks one of two threads would take two.
      const int64_t blocks = least > threads ? divided(least, threads) * threads : least;
      if (blocks > 0) {
        // Blocks of equal size; where they are few, a thread takes a part of the outputs.
        const int64_t size = divided(divided(pixels, blocks), kStep) * kStep;
        const int64_t parts = std::min(panels, divided(threads, blocks)), panels_of = divided(panels, parts);
        torch::stable::parallel_for(0, blocks * parts, 1, [&](int64_t first, int64_t last) {
          for (int64_t i = first; i < last; ++i) {
            const int64_t begin = i / parts * size, from_panel = i % parts * panels_of;
            const int64_t count = std::min(size, pixels - begin), to_panel = std::min(panels, from_panel + panels_of);
            if (count > 0 && from_panel < to_panel) work.run(row, column, w, begin, count, from_panel, to_panel);
          }
        });
      }
      w += work.weights(row, column);
    }
  return y;
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, m) { m.impl("conv_packed", TORCH_BOX(&fastgan::conv_packed)); }
