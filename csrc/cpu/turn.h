// Images from planes to pixels and back. Include after each_level.h, with a kernel that includes transpose.h.
#pragma once

#include "check.h"
#include "cpu/level.h"
#include "cpu/memory.h"

namespace fastgan {
namespace {

template <class Body>
void in_parallel(int64_t count, int64_t grain, const Body& body) {
  torch::stable::parallel_for(0, count, std::max<int64_t>(1, grain), [&](int64_t first, int64_t last) { body(first, last); });
}

// [n][rows][columns] -> [n][columns][rows]. torch's copy takes several times as long.
template <class T>
void turn(const T* from, T* to, int64_t n, int64_t rows, int64_t columns) {
  // Rows of the result that are written at once: where these are long, few, since they may meet in one set of the cache.
  const int64_t strip = rows > columns ? 16 : 64, strips = (columns + strip - 1) / strip;
  in_parallel(n * strips, std::max<int64_t>(1, 32768 / std::max<int64_t>(1, strip * rows)), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t image = i / strips * rows * columns, column = i % strips * strip;
      FASTGAN_AT_LEVEL_FOR(T,
                           transpose<T>(from + image + column, columns, to + image + column * rows, rows, rows, std::min(strip, columns - column)));
    }
  });
}

// x [N, C, ...], contiguous. Where the channels of a pixel lie side by side, by `turn`.
inline Tensor in_planes(const Tensor& x) {
  std::vector<int64_t> sizes(x.dim());
  int64_t pixels = 1, apart = x.size(1);
  bool turned = x.dim() > 2 && x.stride(1) == 1 && x.size(1) > 1 && x.element_size() == 4;
  for (int64_t d = x.dim(); d-- > 0;) {
    sizes[d] = x.size(d);
    if (d == 1) continue;
    turned = turned && (x.size(d) == 1 || x.stride(d) == apart);
    apart *= x.size(d);
    if (d > 1) pixels *= x.size(d);
  }
  if (!turned) return torch::stable::contiguous(x);
  Tensor planes = new_output(x, sizes);
  turn<float>(pointer<float>(x), mutable_pointer<float>(planes), x.size(0), pixels, x.size(1));
  return planes;
}

}  // namespace
}  // namespace fastgan
