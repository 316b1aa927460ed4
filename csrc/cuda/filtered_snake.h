// filtered_snake at ratio 2 with 12 taps, the filters of BigVGAN: what csrc/cuda/filtered_snake.cu asks of filtered_snake_packs.cu,
// filtered_snake_mma.cu and filtered_snake_mma_backward.cu.
#pragma once

#include <optional>

#include "check.h"

namespace fastgan::snaked {

// In how many tiles the kernels of filtered_snake_packs.cu take a row of x (and of dy, if there is one); 0: not these arguments.
int tiles_of_packs(const Tensor& x, const Tensor* dy, const std::optional<Tensor>& fu, const std::optional<Tensor>& fd, int64_t up, int64_t down);

// All contiguous and x not empty; y and dx of the shape of x, by_a and by_c [N * C][tiles].
void forward_in_packs(const Tensor& x, const Tensor& a, const Tensor& c, const Tensor& fu, const Tensor& fd, Tensor& y, int tiles);
void backward_in_packs(const Tensor& dy, const Tensor& x, const Tensor& a, const Tensor& c, const Tensor& fu, const Tensor& fd, Tensor& dx,
                       Tensor& by_a, Tensor& by_c, int tiles);

// Whether the kernel of filtered_snake_mma.cu takes these arguments, and it.
bool takes_mma(const Tensor& x, const std::optional<Tensor>& fu, const std::optional<Tensor>& fd, int64_t up, int64_t down);
void forward_by_mma(const Tensor& x, const Tensor& a, const Tensor& c, const Tensor& fu, const Tensor& fd, Tensor& y);

// In how many pieces the kernel of filtered_snake_mma_backward.cu takes a row of x and dy; 0: not these arguments. And it: by_a and
// by_c are [N * C][pieces].
int pieces_by_mma(const Tensor& x, const Tensor& dy, const std::optional<Tensor>& fu, const std::optional<Tensor>& fd, int64_t up, int64_t down);
void backward_by_mma(const Tensor& dy, const Tensor& x, const Tensor& a, const Tensor& c, const Tensor& fu, const Tensor& fd, Tensor& dx,
                     Tensor& by_a, Tensor& by_c);

}  // namespace fastgan::snaked
