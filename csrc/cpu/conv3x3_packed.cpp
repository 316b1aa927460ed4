// 3x3 convolutions of stride 1 on the CPU with weights that stay, by Winograd's minimal filtering F(4x4, 3x3) (Lavin & Gray, 2016):
// a tile of 4x4 outputs takes 36 products per pair of channels instead of 144,
//
//     y = A^T [ sum over c of (G g G^T) (B^T d B) ] A
//
// with the points 0, +-0.6, +-1.6 and infinity, whose error is 1.7 times that of the sum in order (float32, 256 channels; with 0, 1
// and 2 it is 4 times). Numbers that are not finite spread within their tile.
#include <algorithm>
#include <cstring>
#include <utility>

#include "check.h"
#include "cpu/buffer.h"
#include "cpu/level.h"
#include "cpu/memory.h"

namespace fastgan {
namespace {
constexpr int64_t kPanel = 16;  // outputs per block of the products
}
}  // namespace fastgan

#define FASTGAN_KERNEL "cpu/conv3x3_packed_kernel.h"
#include "cpu/each_level.h"

namespace fastgan {
namespace {

constexpr int64_t kNumbers = 36;         // of a tile, per channel
constexpr int64_t kStep = 12;            // tiles: a multiple of every level's rows
constexpr int64_t kMost = 8 * kStep;     // tiles of a block
constexpr int64_t kSkew = 16;            // numbers that keep the 36 of a tile out of the same set of the L1 cache
constexpr int64_t kBlockBytes = 400000;  // of a thread's transformed tiles, in the L2 cache
// Bytes of weights that no cache keeps from one block to the next: then a block is as large as it may be, for it reads them all.
constexpr int64_t kStreamed = 12000000;

int64_t panels(int64_t channels) { return (channels + kPanel - 1) / kPanel; }

// G g G^T of weight [O, I, 3, 3] as [panel of outputs][36][I][kPanel], zero where a panel has no output.
Tensor conv3x3_pack(Tensor weight) {
  FASTGAN_CHECK(weight.dim() == 4 && weight.size(2) == 3 && weight.size(3) == 3, "conv3x3_pack: weight must be [O, I, 3, 3]");
  FASTGAN_CHECK(weight.scalar_type() == torch::headeronly::ScalarType::Float, "conv3x3_pack takes float32");
  weight = torch::stable::contiguous(weight);
  const int64_t outputs = weight.size(0), inputs = weight.size(1);
  Tensor u = torch::stable::new_empty(weight, {panels(outputs), kNumbers, inputs, kPanel});
  const float* from = pointer<float>(weight);
  float* to = mutable_pointer<float>(u);
  constexpr double a = 0.6, b = 1.6, aa = a * a, bb = b * b, na = 2 * aa * (aa - bb), nb = 2 * bb * (bb - aa);
  constexpr double g[6][3] = {{1 / (aa * bb), 0, 0},     {1 / na, a / na, aa / na},  {1 / na, -a / na, aa / na},
                              {1 / nb, b / nb, bb / nb}, {1 / nb, -b / nb, bb / nb}, {0, 0, 1}};
  torch::stable::parallel_for(0, panels(outputs) * inputs, 64, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t panel = i / inputs, c = i % inputs;
      for (int64_t o = 0; o < kPanel; ++o) {
        float* at = to + (panel * kNumbers * inputs + c) * kPanel + o;
        const int64_t output = panel * kPanel + o;
        double rows[6][3] = {};
        if (output < outputs) {
          const float* w = from + (output * inputs + c) * 9;
          for (int r = 0; r < 6; ++r)
            for (int x = 0; x < 3; ++x) rows[r][x] = g[r][0] * w[x] + g[r][1] * w[3 + x] + g[r][2] * w[6 + x];
        }
        for (int r = 0; r < 6; ++r)
          for (int s = 0; s < 6; ++s) at[(6 * r + s) * inputs * kPanel] = float(rows[r][0] * g[s][0] + rows[r][1] * g[s][1] + rows[r][2] * g[s][2]);
      }
    }
  });
  return u;
}

// An image's pixels with their channels side by side.
struct Pixels {
  float* data;
  int64_t height, width, image, row, pixel;

  explicit Pixels(Tensor& t) : Pixels(t, mutable_pointer<float>(t)) {}
  Pixels(const Tensor& t, float* data) : data(data), height(t.size(2)), width(t.size(3)), image(t.stride(0)), row(t.stride(2)), pixel(t.stride(3)) {}
  // size x size addresses from (top, left) on
  template <int size, class T>
  void find(int64_t n, int64_t top, int64_t left, T* outside, T** found) const {
    for (int64_t i = 0; i < size; ++i)
      for (int64_t j = 0; j < size; ++j) {
        const int64_t y = top + i, x = left + j;
        const bool inside = y >= 0 && y < height && x >= 0 && x < width;
        found[i * size + j] = inside ? data + n * image + y * row + x * pixel : outside;
      }
  }
};

void check_pixels(const Tensor& t, const char* name) {
  FASTGAN_CHECK(t.dim() == 4 && t.scalar_type() == torch::headeronly::ScalarType::Float && (t.stride(1) == 1 || t.size(1) == 1),
                "conv3x3_packed: ", name, " must be float32 [N, C, H, W] with the channels of a pixel side by side");
}

// y = act(convolution of x + bias + other), act: not above zero times slope [O], 0 being ReLU's; written to y, all in pixels, maybe a part of wider ones.
Tensor conv3x3_packed(Tensor y, Tensor x, Tensor u, Tensor bias, Tensor slope, std::optional<Tensor> other, int64_t padding) {
  check_pixels(y, "y"), check_pixels(x, "x");
  const int64_t outputs = y.size(1), inputs = x.size(1);
  FASTGAN_CHECK(inputs > 0, "conv3x3_packed: x has no channels");
  FASTGAN_CHECK(u.dim() == 4 && u.is_contiguous() && u.size(0) == panels(outputs) && u.size(1) == kNumbers && u.size(2) == inputs &&
                    u.size(3) == kPanel && u.scalar_type() == torch::headeronly::ScalarType::Float,
                "conv3x3_packed: u must be conv3x3_pack of a weight for these channels");
  for (const Tensor& v : {bias, slope})
    FASTGAN_CHECK(v.dim() == 1 && v.size(0) == outputs && v.is_contiguous() && v.scalar_type() == torch::headeronly::ScalarType::Float,
                  "conv3x3_packed: bias and slope must be float32 vectors of the outputs");
  FASTGAN_CHECK(
      padding >= 0 && padding <= 2 && y.size(0) == x.size(0) && y.size(2) == x.size(2) + 2 * padding - 2 && y.size(3) == x.size(3) + 2 * padding - 2,
      "conv3x3_packed: y must have the size of the convolution's output");
  if (other) check_pixels(*other, "other"), check_same_size(*other, y, "other");
  if (y.numel() == 0) return y;
  const Pixels to(y), from(x, const_cast<float*>(pointer<float>(x)));
  const Pixels added = other ? Pixels(*other, const_cast<float*>(pointer<float>(*other))) : to;
  const float *weight = pointer<float>(u), *shift = pointer<float>(bias), *below = pointer<float>(slope);
  const int64_t rows = (to.height + 3) / 4, columns = (to.width + 3) / 4, tiles = y.size(0) * rows * columns;
  const Buffer<float> zeros = buffer<float>(inputs);
  std::fill(&zeros[0], &zeros[inputs], 0.f);
  // Blocks of equal size, as many for every thread.
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t most =
      std::clamp<int64_t>(u.numel() * 4 > kStreamed ? kMost : kBlockBytes / (kNumbers * inputs * 4) / kStep * kStep, 2 * kStep, kMost);
  const int64_t turns = (tiles + most * threads - 1) / (most * threads);
  const int64_t size = ((tiles + turns * threads - 1) / (turns * threads) + kStep - 1) / kStep * kStep;
  const int64_t of_v = size * inputs + kSkew, of_m = 2 * size * kPanel + kSkew;
  torch::stable::parallel_for(0, (tiles + size - 1) / size, 1, [&](int64_t first, int64_t last) {
    const Buffer<float> v = buffer<float>(kNumbers * of_v), m = buffer<float>(kNumbers * of_m);
    std::fill(&v[0], &v[kNumbers * of_v], 0.f);
    for (int64_t block = first; block < last; ++block) {
      const int64_t begin = block * size, count = std::min(size, tiles - begin), room = (count + kStep - 1) / kStep * kStep;
      const auto place = [&](int64_t t, int64_t& n, int64_t& top, int64_t& left) {
        n = (begin + t) / (rows * columns), top = (begin + t) / columns % rows * 4, left = (begin + t) % columns * 4;
      };
      int64_t n, top, left;
      for (int64_t t = 0; t < count; ++t) {
        const float* pixels[36];
        place(t, n, top, left);
        from.find<6, const float>(n, top - padding, left - padding, &zeros[0], pixels);
        FASTGAN_AT_LEVEL(packed_input(pixels, inputs, &v[t * inputs], of_v));
      }
      for (int64_t panel = 0; panel < panels(outputs); ++panel) {
        const int64_t half = panel % 2 * size * kPanel, of_panel = kNumbers * inputs * kPanel;
        if (half == 0)
          for (int64_t e = 0; e < kNumbers; ++e)
            FASTGAN_AT_LEVEL(packed_product(room, &v[e * of_v], inputs, std::min<int64_t>(2, panels(outputs) - panel),
                                            weight + panel * of_panel + e * inputs * kPanel, of_panel, &m[e * of_m], size * kPanel));
        const int64_t channel = panel * kPanel, found = std::min(kPanel, outputs - channel);
        for (int64_t t = 0; t < count; ++t) {
          float *pixels[16], *sums[16];
          place(t, n, top, left);
          to.find<4, float>(n, top, left, nullptr, pixels);
          if (other) added.find<4, float>(n, top, left, nullptr, sums);
          for (int i = 0; i < 16; ++i)
            if (pixels[i]) pixels[i] += channel;
          if (other)
            for (float*& sum : sums)
              if (sum) sum += channel;
          FASTGAN_AT_LEVEL(packed_output(&m[half + t * kPanel], of_m, found, shift + channel, below + channel, other ? sums : nullptr, pixels));
        }
      }
    }
  });
  return y;
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, m) {
  m.impl("conv3x3_pack", TORCH_BOX(&fastgan::conv3x3_pack));
  m.impl("conv3x3_packed", TORCH_BOX(&fastgan::conv3x3_packed));
}
