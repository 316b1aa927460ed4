// filtered_lrelu and its transposed pass on the CPU. Work is cut into planes, and into bands of rows where there are few of
// them; an output is the same sum whichever band or thread computes it.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "check.h"
#include "cpu/elements.h"
#include "cpu/filtered_lrelu_plan.h"
#include "cpu/level.h"
#include "cpu/memory.h"
#include "cpu/reference.h"

#define FASTGAN_KERNEL "cpu/filtered_lrelu_kernel.h"
#include "cpu/each_level.h"
#include "cpu/turn.h"

namespace fastgan {
namespace {

constexpr int64_t kMostTaps = 32;
constexpr int64_t kLeastUnits = 8;   // bands are cut until there are that many units
constexpr int64_t kLeastBand = 16;   // rows of y: each band computes the filters' halo anew

template <class T>
filtered::Fir<T> slide(const Tensor& f, bool flip) {
  const Tensor dense = torch::stable::contiguous(f);
  filtered::Fir<T> fir;
  fir.width = f.size(f.dim() - 1), fir.height = f.dim() == 2 ? f.size(0) : 0;
  fir.taps.assign(pointer<T>(dense), pointer<T>(dense) + dense.numel());
  if (!flip) std::reverse(fir.taps.begin(), fir.taps.end());
  return fir;
}

void check_arguments(const Tensor& x, const Tensor& fu, const Tensor& fd, int64_t up, int64_t down) {
  FASTGAN_CHECK(x.dim() == 4, "x must have 4 dimensions");
  for (const Tensor* f : {&fu, &fd}) {
    FASTGAN_CHECK((f->dim() == 1 || f->dim() == 2) && f->numel() > 0, "a filter must have 1 or 2 dimensions");
    FASTGAN_CHECK(f->size(0) <= kMostTaps && f->size(f->dim() - 1) <= kMostTaps, "a filter has more than ", kMostTaps, " taps");
    FASTGAN_CHECK(f->scalar_type() == accumulate_dtype_of(x), "filters must be float32, or float64 for a float64 x");
  }
  for (int64_t factor : {up, down}) FASTGAN_CHECK(factor == 1 || factor == 2 || factor == 4, "up and down must be 1, 2 or 4");
}

Tensor run(Tensor x, const std::optional<Tensor>& b, const Tensor& fu, const Tensor& fd, int64_t up, int64_t down, const filtered::Sizes& sizes,
           double gain, double slope, double clamp, bool flip, Tensor* mask, bool read_mask, Spoiled& spoiled) {
  const bool last = channels_last(x);
  x = in_planes(x);
  const int64_t n = x.size(0), c = x.size(1);
  Tensor y = new_images(x, n, c, sizes.out_h, sizes.out_w, false);
  if (y.numel() > 0) {
    const int64_t planes = n * c;
    const int64_t wanted = planes >= kLeastUnits ? 1 : (kLeastUnits + planes - 1) / planes;
    const int64_t bands = std::max<int64_t>(1, std::min(wanted, sizes.out_h / kLeastBand));
    with_sums_of(x, [&]<class T>(T) {
      const filtered::Plan<T> plan(sizes, slide<T>(fu, flip), slide<T>(fd, flip), up, down, gain, slope, clamp);
      const std::vector<T> bias = b ? numbers<T>(*b) : std::vector<T>{};
      const Elements<T> from = elements<T>(x), to = mutable_elements<T>(y);
      uint8_t* bits = mask ? static_cast<uint8_t*>(read_mask ? const_cast<void*>(mask->const_data_ptr()) : mask->mutable_data_ptr()) : nullptr;
      torch::stable::parallel_for(0, planes * bands, 1, [&](int64_t first, int64_t end) {
        FASTGAN_AT_LEVEL_FOR(T, filtered_bands(plan, from, b ? bias.data() : nullptr, c, to, bits, read_mask, bands, first, end,
                                               [&](int64_t sample) { spoiled.add(sample); }));
      });
    });
  }
  if (!last) return y;
  Tensor pixels = new_images(y, n, c, sizes.out_h, sizes.out_w, true);
  if (y.element_size() == 4) turn<float>(pointer<float>(y), mutable_pointer<float>(pixels), n, c, sizes.out_h * sizes.out_w);
  else torch::stable::copy_(pixels, y);
  return pixels;
}

int64_t taps_x(const Tensor& f) { return f.size(f.dim() - 1); }
int64_t taps_y(const Tensor& f) { return f.size(0); }

std::tuple<Tensor, Tensor> filtered_lrelu(Tensor x, std::optional<Tensor> b, Tensor fu, Tensor fd, int64_t up, int64_t down,
                                          std::vector<int64_t> padding, double gain, double slope, double clamp, bool flip_filter, bool save_mask) {
  check_arguments(x, fu, fd, up, down);
  FASTGAN_CHECK(padding.size() == 4, "padding must have 4 numbers");
  FASTGAN_CHECK(!b || (b->dim() == 1 && b->size(0) == x.size(1) && b->scalar_type() == x.scalar_type()),
                "b must be a vector of x.shape[1] elements of the dtype of x");
  filtered::Sizes sizes{};
  sizes.x_h = x.size(2), sizes.x_w = x.size(3);
  sizes.mid_w = sizes.x_w * up + padding[0] + padding[1] - taps_x(fu) + 1;
  sizes.mid_h = sizes.x_h * up + padding[2] + padding[3] - taps_y(fu) + 1;
  FASTGAN_CHECK(sizes.mid_w >= taps_x(fd) && sizes.mid_h >= taps_y(fd), "the upsampled image is smaller than fd");
  sizes.out_w = (sizes.mid_w - taps_x(fd)) / down + 1, sizes.out_h = (sizes.mid_h - taps_y(fd)) / down + 1;
  sizes.px = padding[0], sizes.py = padding[2];
  const auto bytes = torch::headeronly::ScalarType::Byte;
  Tensor mask =
      save_mask ? new_output(x, {x.size(0), x.size(1), sizes.mid_h, 2, (sizes.mid_w + 31) / 32 * 4}, bytes) : torch::stable::new_empty(x, {0}, bytes);
  Spoiled spoiled(x.size(0));
  Tensor y = run(x, b, fu, fd, up, down, sizes, gain * up * up, slope, clamp, flip_filter, save_mask ? &mask : nullptr, false, spoiled);
  spoiled.each([&](int64_t n) {
    const auto found = reference("filtered_lrelu", sample(x, n), b, fu, fd, up, down, padding, gain, slope, clamp, flip_filter, save_mask);
    const Tensor bits = tensor(found[1]);
    replace_sample(y, n, tensor(found[0]));
    if (save_mask) replace_sample(mask, n, bits);
  });
  return {y, mask};
}

Tensor filtered_lrelu_backward(Tensor x, Tensor mask, Tensor fu, Tensor fd, int64_t up, int64_t down, std::vector<int64_t> offset,
                               std::vector<int64_t> size, double gain, double slope, bool flip_filter) {
  check_arguments(x, fu, fd, up, down);
  FASTGAN_CHECK(offset.size() == 4 && size.size() == 4, "offset and size must have 4 numbers each");
  FASTGAN_CHECK(size[0] >= 1 && size[1] >= 1 && size[2] >= 0 && size[3] >= 0, "sizes must not be negative");
  const int64_t expected[] = {x.size(0), x.size(1), size[1], 2, (size[0] + 31) / 32 * 4};
  FASTGAN_CHECK(mask.dim() == 5 && mask.scalar_type() == torch::headeronly::ScalarType::Byte, "mask must be uint8 of 5 dimensions");
  for (int64_t d = 0; d < 5; ++d)
    FASTGAN_CHECK(mask.size(d) == expected[d], "mask has size ", mask.size(d), " in dimension ", d, ", expected ", expected[d]);
  mask = torch::stable::contiguous(mask);
  const filtered::Sizes sizes{x.size(2), x.size(3), size[1], size[0], size[3], size[2], offset[0], offset[1], offset[2], offset[3]};
  Spoiled spoiled(x.size(0));
  Tensor y = run(x, std::nullopt, fu, fd, up, down, sizes, gain, slope, -1.0, flip_filter, &mask, true, spoiled);
  spoiled.each([&](int64_t n) {
    const auto found = reference("filtered_lrelu_backward", sample(x, n), sample(mask, n), fu, fd, up, down, offset, size, gain, slope, flip_filter);
    replace_sample(y, n, tensor(found[0]));
  });
  return y;
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, m) {
  m.impl("filtered_lrelu", TORCH_BOX(&fastgan::filtered_lrelu));
  m.impl("filtered_lrelu_backward", TORCH_BOX(&fastgan::filtered_lrelu_backward));
}
