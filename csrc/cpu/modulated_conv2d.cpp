// modulated_conv2d on the CPU: what demodulation needs of the weight, in one read of it.
#include <algorithm>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "check.h"
#include "cpu/level.h"

#define FASTGAN_KERNEL "cpu/modulated_conv2d_kernel.h"
#include "cpu/each_level.h"

namespace fastgan {
namespace {

// weight [O, I, kh, kw] -> sum over the taps of weight^2 [O, I], float32 (float64 for float64)
Tensor modulated_conv2d_squares(Tensor weight) {
  FASTGAN_CHECK(weight.dim() == 4, "weight has ", weight.dim(), " dimensions, expected 4");
  weight = torch::stable::contiguous(weight);
  Tensor q = torch::stable::new_empty(weight, {weight.size(0), weight.size(1)}, accumulate_dtype_of(weight));
  const int64_t rows = q.numel(), taps = weight.size(2) * weight.size(3);
  FASTGAN_DISPATCH(weight.scalar_type(), [&] {
    using T = accumulate_t<scalar_t>;
    const scalar_t* from = pointer<scalar_t>(weight);
    T* to = mutable_pointer<T>(q);
    torch::stable::parallel_for(0, rows, std::max<int64_t>(1, 32768 / std::max<int64_t>(1, taps)), [&](int64_t first, int64_t last) {
      const scalar_t* w = from + first * taps;
      const int64_t n = last - first;
      if (taps == 9) FASTGAN_AT_LEVEL(squares_of_rows<9, scalar_t, T>(w, to + first, n, taps));
      else if (taps == 1) FASTGAN_AT_LEVEL(squares_of_rows<1, scalar_t, T>(w, to + first, n, taps));
      else FASTGAN_AT_LEVEL(squares_of_rows<0, scalar_t, T>(w, to + first, n, taps));
    });
  });
  return q;
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, m) { m.impl("modulated_conv2d_squares", TORCH_BOX(&fastgan::modulated_conv2d_squares)); }
