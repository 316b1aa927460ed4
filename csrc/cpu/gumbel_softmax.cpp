// gumbel_softmax on the CPU: noise, softmax and temperature in one pass over each row; the noise is never stored. A row's result
// depends on its number alone: the same at any thread count.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "activation.h"
#include "check.h"
#include "cpu/elements.h"
#include "cpu/level.h"

#define FASTGAN_KERNEL "cpu/gumbel_softmax_kernel.h"
#include "cpu/each_level.h"

namespace fastgan {
namespace {

Tensor gumbel_softmax(Tensor logits, double temperature, Tensor seed) {
  FASTGAN_CHECK(logits.dim() >= 1, "logits has no dimensions");
  FASTGAN_CHECK(temperature > 0, "temperature is ", temperature, ", expected a number above 0");
  FASTGAN_CHECK(seed.numel() == 1 && seed.scalar_type() == torch::headeronly::ScalarType::Long && seed.is_cpu(),
                "seed must be one int64 number in memory of the CPU");
  logits = torch::stable::contiguous(logits);
  Tensor y = torch::stable::empty_like(logits);
  const int64_t columns = logits.size(logits.dim() - 1);
  if (logits.numel() == 0) return y;
  const int64_t rows = logits.numel() / columns;
  const uint64_t key = static_cast<uint64_t>(*pointer<int64_t>(seed));
  const uint32_t low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(key >> 32);
  with_sums_of(logits, [&]<class T>(T) {
    const Elements<T> from = elements<T>(logits), to = mutable_elements<T>(y);
    const int64_t grain = std::max<int64_t>(1, 4096 / columns);
    torch::stable::parallel_for(0, rows, grain, [&](int64_t first, int64_t last) {
      std::vector<T> work(columns);
      for (int64_t r = first; r < last; ++r)
        FASTGAN_AT_LEVEL_FOR(T, gumbel_row<T>(from + r * columns, to + r * columns, work.data(), columns, static_cast<T>(1 / temperature),
                                              static_cast<uint32_t>(r), low, high));
    });
  });
  return y;
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CPU, m) { m.impl("gumbel_softmax", TORCH_BOX(&fastgan::gumbel_softmax)); }
