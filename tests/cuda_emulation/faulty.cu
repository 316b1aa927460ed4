// A throw-away kernel with seeded faults, which proves that the emulation can fail: it reverses every 64 elements of x through
// shared memory. fault: 0 none, 1 an index out of bounds, 2 no barrier, 3 a grid that is one block short, 4 a pair of elements at an
// address that is no multiple of a pair's size, 5 elements two words apart, of which two meet in each bank.
#include "cuda/launch.h"

namespace fastgan {
namespace {

__global__ void reverse_kernel(const float* x, float* y, int64_t n, int64_t fault) {
  float* tile = reinterpret_cast<float*>(shared_memory());
  const int64_t at = int64_t(blockIdx.x) * 64 + threadIdx.x, apart = fault == 5 ? 2 : 1;
  tile[threadIdx.x * apart] = at < n || fault == 1 ? x[at] : 0;
  if (fault == 4 && at == 0) tile[0] = load<float, 2>(x + 1).at[0];
  if (fault != 2) __syncthreads();
  const int64_t first = int64_t(blockIdx.x) * 64, size = smaller<int64_t>(64, n - first);
  if (at < n) y[at] = tile[(size - 1 - threadIdx.x) * apart];
}

Tensor reverse(Tensor x, int64_t fault) {
  Tensor y = torch::stable::empty_like(x);
  const int64_t n = x.numel(), blocks = ceil_div<int64_t>(n, 64) - (fault == 3);
  launch("reverse", x, dim3(blocks), dim3(64), (fault == 5 ? 128 : 64) * sizeof(float), reverse_kernel, pointer<float>(x), mutable_pointer<float>(y), n, fault);
  return y;
}

// What torch's next check would find.
int64_t last_error() { return cudaGetLastError(); }

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_FRAGMENT(FASTGAN_NAMESPACE, m) {
  m.def("faulty_reverse(Tensor x, int fault) -> Tensor");
  m.def("faulty_last_error() -> int");
}
STABLE_TORCH_LIBRARY_IMPL(FASTGAN_NAMESPACE, FASTGAN_DISPATCH_KEY, m) { m.impl("faulty_reverse", TORCH_BOX(&fastgan::reverse)); }
STABLE_TORCH_LIBRARY_IMPL(FASTGAN_NAMESPACE, CompositeExplicitAutograd, m) { m.impl("faulty_last_error", TORCH_BOX(&fastgan::last_error)); }
