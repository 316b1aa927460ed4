// The weights of modulated_conv2d on a GPU and their gradients (fastgan/ops/modulated_conv2d.py states the formulas); the
// convolution itself is cuDNN's.
//
// Weights: a block makes one row W[n, o]: a first pass sums squares, a second one, which finds its row in L1, scales and writes.
// Memory: 4 bytes written per element in float32 (2 in 16 bits); the N readings of `weight` come from L2. Floor 1.3 ps per
// float32 element at 3 TB/s, 2.0 at 2 TB/s. Arithmetic: 5 operations per element.
// Gradients: dw is read twice, by the sums over k and by the sum over n, the second time from L2 where it fits (50 MB on an H100,
// 40 MB on an A100); everything else is smaller by a factor of k or N. Floor, from memory both times: 2.7 and 4.0 ps per float32
// element. Arithmetic: 10 operations per element. Sums have a fixed order. Not run on a GPU yet: these are estimates.
//
// Squares, all that the shared form needs of the weight for d: read once, 4 bytes per float32 element, where torch's square and sum
// move 12 (in 16 bits 2 for 18, as it makes float32 of them first).
#include "cuda/launch.h"

namespace fastgan {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kStaged = 2304;   // products in shared memory: 256 channels of a 3 x 3 kernel
constexpr int kMostStaged = 64; // elements of a kernel that is staged; a larger one is summed by one thread per channel
constexpr double kEpsilon = 1e-8;

__device__ __forceinline__ float inverse_root(float x) { return rsqrtf(x); }
__device__ __forceinline__ double inverse_root(double x) { return rsqrt(x); }

// The sum over the block, in thread 0, by way of kWarps numbers of shared memory.
template <class T>
__device__ __forceinline__ T block_sum(T value, T* shared) {
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  T sum = 0;
  if (threadIdx.x == 0)
    for (int w = 0; w < kWarps; ++w) sum += shared[w];
  return sum;
}

// weight [out, in, taps], styles and gain [samples, in] (gain may be null).
struct Sizes {
  int64_t samples, out, in;
  int taps;
  bool demodulate, wide;
  int64_t row() const { return in * taps; }
};

// kTaps > 0: the taps, so that the division that finds an element's channel is one by a constant.
template <int kTaps>
__device__ __forceinline__ int channel_of(int element, int taps) {
  return element / (kTaps ? kTaps : taps);
}

template <int N, int kTaps, class S, class T>
__device__ __forceinline__ void make_row(const S* w, const S* s, const S* m, S* to, T* d, T* shared, int length, int taps, bool demodulate) {
  T sum = 0;
  if (demodulate) {
    for (int e = threadIdx.x * N; e < length; e += kThreads * N) {
      const Pack<S, N> pack = load<S, N>(w + e);
      FASTGAN_UNROLL
      for (int i = 0; i < N; ++i) {
        const T value = static_cast<T>(pack.at[i]) * static_cast<T>(s[channel_of<kTaps>(e + i, taps)]);
        sum += value * value;
      }
    }
    sum = block_sum(sum, shared);
  }
  if (threadIdx.x == 0) shared[kWarps] = *d = demodulate ? inverse_root(sum + T(kEpsilon)) : T(1);
  __syncthreads();
  const T scale = shared[kWarps];
  for (int e = threadIdx.x * N; e < length; e += kThreads * N) {
    const Pack<S, N> pack = load<S, N>(w + e);
    Pack<S, N> result;
    FASTGAN_UNROLL
    for (int i = 0; i < N; ++i) {
      const int c = channel_of<kTaps>(e + i, taps);
      const T value = static_cast<T>(pack.at[i]) * static_cast<T>(s[c]) * scale;
      result.at[i] = static_cast<S>(m ? value * static_cast<T>(m[c]) : value);
    }
    store(to + e, result);
  }
}

template <int kTaps, class S>
__global__ void __launch_bounds__(kThreads) weight_kernel(const S* weight, const S* styles, const S* gain, S* to, accumulate_t<S>* d, const Sizes z) {
  using T = accumulate_t<S>;
  T* const shared = reinterpret_cast<T*>(shared_memory());
  const int64_t n = blockIdx.x / z.out, o = blockIdx.x - n * z.out, length = z.in * z.taps;
  const S *w = weight + o * length, *s = styles + n * z.in, *m = gain ? gain + n * z.in : nullptr;
  S* row = to + blockIdx.x * length;
  if (z.wide) make_row<kPack<S>, kTaps>(w, s, m, row, d + blockIdx.x, shared, length, z.taps, z.demodulate);
  else make_row<1, kTaps>(w, s, m, row, d + blockIdx.x, shared, length, z.taps, z.demodulate);
}

// Kernels of a row that a block takes at a time, a multiple of the widest pack.
__host__ __device__ __forceinline__ int kernels_staged(int taps) { return taps <= kMostStaged ? kStaged / larger(1, taps) / 8 * 8 : kThreads; }

// The products of elements [0, count) of two rows, and the squares of the second, to shared memory.
template <int N, class S, class T>
__device__ __forceinline__ void stage(const S* g, const S* w, T* products, T* squares, int count) {
  for (int e = threadIdx.x * N; e < count; e += kThreads * N) {
    const Pack<S, N> a = load<S, N>(g + e), b = load<S, N>(w + e);
    FASTGAN_UNROLL
    for (int i = 0; i < N; ++i) {
      const T value = static_cast<T>(b.at[i]);
      products[e + i] = static_cast<T>(a.at[i]) * value, squares[e + i] = value * value;
    }
  }
}

template <int N, class S, class T>
__device__ __forceinline__ void stage_squares(const S* w, T* squares, int count) {
  for (int e = threadIdx.x * N; e < count; e += kThreads * N) {
    const Pack<S, N> pack = load<S, N>(w + e);
    Pack<T, N> result;
    FASTGAN_UNROLL
    for (int i = 0; i < N; ++i) result.at[i] = static_cast<T>(pack.at[i]) * static_cast<T>(pack.at[i]);
    store(squares + e, result);
  }
}

// One row of dw: b[n, o, i], a d^3 [n, o], and by the first sample q[o, i].
template <class S>
__global__ void __launch_bounds__(kThreads) sums_kernel(const S* dw, const S* weight, const S* styles, const S* gain, const accumulate_t<S>* d,
                                                        accumulate_t<S>* b, accumulate_t<S>* q, accumulate_t<S>* ad3, const Sizes z) {
  using T = accumulate_t<S>;
  T *const shared = reinterpret_cast<T*>(shared_memory()), *const products = shared + kWarps, *const squares = products + kStaged;
  const int64_t n = blockIdx.x / z.out, o = blockIdx.x - n * z.out, length = z.in * z.taps;
  const S *g = dw + blockIdx.x * length, *w = weight + o * length;
  const bool staged = z.taps <= kMostStaged;
  const int step = kernels_staged(z.taps);
  T a = 0;
  for (int first = 0; first < z.in; first += step) {
    const int count = smaller<int64_t>(step, z.in - first), at = first * z.taps;
    if (staged) {
      if (z.wide) stage<kPack<S>>(g + at, w + at, products, squares, count * z.taps);
      else stage<1>(g + at, w + at, products, squares, count * z.taps);
      __syncthreads();
    }
    for (int i = threadIdx.x; i < count; i += kThreads) {
      T product = 0, square = 0;
      for (int k = i * z.taps; k < (i + 1) * z.taps; ++k) {
        if (staged) {
          product += products[k], square += squares[k];
        } else {
          const T value = static_cast<T>(w[at + k]);
          product += static_cast<T>(g[at + k]) * value, square += value * value;
        }
      }
      const int64_t c = first + i;
      b[blockIdx.x * z.in + c] = product;
      if (n == 0) q[o * z.in + c] = square;
      a += product * static_cast<T>(styles[n * z.in + c]) * (gain ? static_cast<T>(gain[n * z.in + c]) : T(1));
    }
    __syncthreads();
  }
  a = block_sum(a, shared);
  if (threadIdx.x == 0) ad3[blockIdx.x] = z.demodulate ? a * d[blockIdx.x] * d[blockIdx.x] * d[blockIdx.x] : T(0);
}

template <int N, int kTaps, class S, class T>
__device__ __forceinline__ void weight_gradient(const S* dw, const S* weight, const S* styles, const S* gain, const T* d, const T* ad3, S* to,
                                                const Sizes& z, int64_t o, int e) {
  const int64_t length = z.in * z.taps;
  if (e >= length) return;
  T sum[N] = {}, change[N] = {};
  for (int64_t n = 0; n < z.samples; ++n) {
    const Pack<S, N> pack = load<S, N>(dw + (n * z.out + o) * length + e);
    const T scale = d[n * z.out + o], by_d = ad3[n * z.out + o];
    FASTGAN_UNROLL
    for (int i = 0; i < N; ++i) {
      const int64_t c = n * z.in + channel_of<kTaps>(e + i, z.taps);
      const T s = static_cast<T>(styles[c]), m = gain ? static_cast<T>(gain[c]) : T(1);
      sum[i] += static_cast<T>(pack.at[i]) * (s * m * scale), change[i] += by_d * s * s;
    }
  }
  const Pack<S, N> w = load<S, N>(weight + o * length + e);
  Pack<S, N> result;
  FASTGAN_UNROLL
  for (int i = 0; i < N; ++i) result.at[i] = static_cast<S>(sum[i] - static_cast<T>(w.at[i]) * change[i]);
  store(to + o * length + e, result);
}

template <int kTaps, class S>
__global__ void __launch_bounds__(kThreads)
    weight_gradient_kernel(const S* dw, const S* weight, const S* styles, const S* gain, const accumulate_t<S>* d, const accumulate_t<S>* ad3, S* to,
                           int parts, const Sizes z) {
  const int64_t o = blockIdx.x / parts;
  const int e = (blockIdx.x - o * parts) * kThreads + threadIdx.x;
  if (z.wide) weight_gradient<kPack<S>, kTaps>(dw, weight, styles, gain, d, ad3, to, z, o, e * kPack<S>);
  else weight_gradient<1, kTaps>(dw, weight, styles, gain, d, ad3, to, z, o, e);
}

// 32 channels of one sample, one per lane; the output channels are shared among the warps.
template <class S>
__global__ void __launch_bounds__(kThreads)
    style_gradient_kernel(const S* styles, const S* gain, const accumulate_t<S>* d, const accumulate_t<S>* b, const accumulate_t<S>* q,
                          const accumulate_t<S>* ad3, S* dstyles, S* dgain, int parts, const Sizes z) {
  using T = accumulate_t<S>;
  T *const by_b = reinterpret_cast<T*>(shared_memory()), *const by_q = by_b + kThreads;
  const int64_t n = blockIdx.x / parts, i = (blockIdx.x - n * parts) * 32 + threadIdx.x % 32, at = n * z.in + i;
  T db = 0, dq = 0;
  if (i < z.in)
    for (int64_t o = threadIdx.x / 32; o < z.out; o += kWarps) {
      db += d[n * z.out + o] * b[(n * z.out + o) * z.in + i];
      dq += ad3[n * z.out + o] * q[o * z.in + i];
    }
  by_b[threadIdx.x] = db, by_q[threadIdx.x] = dq;
  __syncthreads();
  if (threadIdx.x >= 32 || i >= z.in) return;
  for (int w = 1; w < kWarps; ++w) db += by_b[32 * w + threadIdx.x], dq += by_q[32 * w + threadIdx.x];
  const T s = static_cast<T>(styles[at]), m = gain ? static_cast<T>(gain[at]) : T(1);
  dstyles[at] = static_cast<S>(m * db - s * dq), dgain[at] = static_cast<S>(s * db);
}

// q of `count` kernels of weight, which lie one after the other: a block squares them on their way to shared memory.
template <class S>
__global__ void __launch_bounds__(kThreads) squares_kernel(const S* weight, accumulate_t<S>* q, int64_t kernels, int taps, int step, bool wide) {
  using T = accumulate_t<S>;
  T* const squares = reinterpret_cast<T*>(shared_memory());
  const int64_t first = int64_t{blockIdx.x} * step;
  const int count = smaller<int64_t>(step, kernels - first);
  const S* const w = weight + first * taps;
  const bool staged = taps <= kMostStaged;
  if (staged) {
    if (wide) stage_squares<kPack<S>>(w, squares, count * taps);
    else stage_squares<1>(w, squares, count * taps);
    __syncthreads();
  }
  for (int i = threadIdx.x; i < count; i += kThreads) {
    T sum = 0;
    for (int k = 0; k < taps; ++k) {
      if (staged) {
        sum += squares[i * taps + k];
      } else {
        const T value = static_cast<T>(w[int64_t{i} * taps + k]);
        sum += value * value;
      }
    }
    q[first + i] = sum;
  }
}

Sizes check_sizes(const Tensor& weight, const Tensor& styles, const std::optional<Tensor>& gain, bool demodulate) {
  FASTGAN_CHECK(weight.dim() == 4 && styles.dim() == 2 && styles.size(1) == weight.size(1), "expected weight [O, I, kh, kw], styles [N, I]");
  FASTGAN_CHECK(styles.scalar_type() == weight.scalar_type(), "styles and weight must have one dtype");
  if (gain) check_same_size(styles, *gain, "gain");
  const int64_t taps = weight.size(2) * weight.size(3);
  // A block reaches at most one step beyond the end of its row.
  FASTGAN_CHECK(weight.size(1) * taps < INT32_MAX - kThreads * 16, "I kh kw must be below 2^31");
  FASTGAN_CHECK(weight.size(0) * styles.size(0) < INT32_MAX, "N O must be below 2^31");
  return {styles.size(0), weight.size(0), weight.size(1), static_cast<int>(taps), demodulate, false};
}

// body.operator()<kTaps>()
template <class Body>
void with_taps(int taps, Body&& body) {
  if (taps == 1) body.template operator()<1>();
  else if (taps == 9) body.template operator()<9>();
  else body.template operator()<0>();
}

std::tuple<Tensor, Tensor> modulated_conv2d_weight(Tensor weight, Tensor styles, std::optional<Tensor> gain, bool demodulate) {
  check_device(weight, styles, gain);
  Sizes z = check_sizes(weight, styles, gain, demodulate);
  weight = torch::stable::contiguous(weight), styles = torch::stable::contiguous(styles);
  if (gain) gain = torch::stable::contiguous(*gain);
  Tensor w = torch::stable::new_empty(weight, {z.samples, z.out, z.in, weight.size(2), weight.size(3)}), d = weight;
  const OnDeviceOf device(weight);
  FASTGAN_DISPATCH(weight.scalar_type(), [&] {
    using T = accumulate_t<scalar_t>;
    d = torch::stable::new_empty(weight, {z.samples, z.out}, accumulate_dtype<scalar_t>);
    if (z.samples * z.out == 0) return;
    z.wide = z.row() % kPack<scalar_t> == 0 && aligned(weight.const_data_ptr()) && aligned(w.const_data_ptr());
    with_taps(z.taps, [&]<int kTaps>() {
      launch("modulated_conv2d_weight", weight, dim3(z.samples * z.out), dim3(kThreads), (kWarps + 1) * sizeof(T), weight_kernel<kTaps, scalar_t>,
             pointer<scalar_t>(weight), pointer<scalar_t>(styles), gain ? pointer<scalar_t>(*gain) : nullptr, mutable_pointer<scalar_t>(w),
             mutable_pointer<T>(d), z);
    });
  });
  return {w, d};
}

std::tuple<Tensor, Tensor, Tensor> modulated_conv2d_weight_backward(Tensor dw, Tensor weight, Tensor styles, std::optional<Tensor> gain, Tensor d,
                                                                    bool demodulate) {
  check_device(weight, dw, styles, gain, d);
  Sizes z = check_sizes(weight, styles, gain, demodulate);
  FASTGAN_CHECK(dw.dim() == 5 && dw.size(0) == z.samples && dw.size(1) == z.out && dw.size(2) == z.in && dw.size(3) == weight.size(2) &&
                    dw.size(4) == weight.size(3) && dw.scalar_type() == weight.scalar_type(),
                "dw must be [N, O, I, kh, kw] of the dtype of weight");
  FASTGAN_CHECK(d.dim() == 2 && d.size(0) == z.samples && d.size(1) == z.out, "d must be [N, O]");
  dw = torch::stable::contiguous(dw), weight = torch::stable::contiguous(weight);
  styles = torch::stable::contiguous(styles), d = torch::stable::contiguous(d);
  if (gain) gain = torch::stable::contiguous(*gain);
  Tensor dweight = torch::stable::new_empty(weight, {z.out, z.in, weight.size(2), weight.size(3)});
  Tensor dstyles = torch::stable::new_empty(styles, {z.samples, z.in}), dgain = torch::stable::new_empty(styles, {z.samples, z.in});
  const OnDeviceOf device(weight);
  FASTGAN_DISPATCH(weight.scalar_type(), [&] {
    using T = accumulate_t<scalar_t>;
    FASTGAN_CHECK(d.scalar_type() == accumulate_dtype<scalar_t>, "d must be float32, or float64 for a float64 weight");
    const auto sums = [&](std::vector<int64_t> size) { return torch::stable::new_empty(weight, size, accumulate_dtype<scalar_t>); };
    Tensor b = sums({z.samples, z.out, z.in}), q = sums({z.out, z.in}), ad3 = sums({z.samples, z.out});
    const scalar_t *dw_ = pointer<scalar_t>(dw), *weight_ = pointer<scalar_t>(weight), *styles_ = pointer<scalar_t>(styles);
    const scalar_t* gain_ = gain ? pointer<scalar_t>(*gain) : nullptr;
    z.wide = z.row() % kPack<scalar_t> == 0 && aligned(dw_) && aligned(weight_) && aligned(dweight.const_data_ptr());
    if (z.samples * z.out > 0)
      launch("modulated_conv2d_weight_backward", weight, dim3(z.samples * z.out), dim3(kThreads), (kWarps + 2 * kStaged) * sizeof(T),
             sums_kernel<scalar_t>, dw_, weight_, styles_, gain_, pointer<T>(d), mutable_pointer<T>(b), mutable_pointer<T>(q),
             mutable_pointer<T>(ad3), z);
    if (dweight.numel() > 0) {
      const int64_t parts = ceil_div<int64_t>(z.row(), kThreads * (z.wide ? kPack<scalar_t> : 1));
      with_taps(z.taps, [&]<int kTaps>() {
        launch("modulated_conv2d_weight_backward", weight, dim3(z.out * parts), dim3(kThreads), 0, weight_gradient_kernel<kTaps, scalar_t>, dw_,
               weight_, styles_, gain_, pointer<T>(d), pointer<T>(ad3), mutable_pointer<scalar_t>(dweight), static_cast<int>(parts), z);
      });
    }
    if (dstyles.numel() > 0) {
      const int64_t parts = ceil_div<int64_t>(z.in, 32);
      launch("modulated_conv2d_weight_backward", weight, dim3(z.samples * parts), dim3(kThreads), 2 * kThreads * sizeof(T),
             style_gradient_kernel<scalar_t>, styles_, gain_, pointer<T>(d), pointer<T>(b), pointer<T>(q), pointer<T>(ad3),
             mutable_pointer<scalar_t>(dstyles), mutable_pointer<scalar_t>(dgain), static_cast<int>(parts), z);
    }
  });
  return {dweight, dstyles, dgain};
}

Tensor modulated_conv2d_squares(Tensor weight) {
  check_device(weight);
  FASTGAN_CHECK(weight.dim() == 4, "expected weight [O, I, kh, kw]");
  weight = torch::stable::contiguous(weight);
  const int64_t kernels = weight.size(0) * weight.size(1), taps = weight.size(2) * weight.size(3);
  FASTGAN_CHECK(kernels < INT32_MAX && taps < INT32_MAX, "O I and kh kw must be below 2^31");
  Tensor q = weight;
  const OnDeviceOf device(weight);
  FASTGAN_DISPATCH(weight.scalar_type(), [&] {
    using T = accumulate_t<scalar_t>;
    q = torch::stable::new_empty(weight, {weight.size(0), weight.size(1)}, accumulate_dtype<scalar_t>);
    if (kernels == 0) return;
    const int step = kernels_staged(taps);
    const bool wide = kernels * taps % kPack<scalar_t> == 0 && aligned(weight.const_data_ptr());
    launch("modulated_conv2d_squares", weight, dim3(ceil_div<int64_t>(kernels, step)), dim3(kThreads), kStaged * sizeof(T), squares_kernel<scalar_t>,
           pointer<scalar_t>(weight), mutable_pointer<T>(q), kernels, static_cast<int>(taps), step, wide);
  });
  return q;
}

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(FASTGAN_NAMESPACE, FASTGAN_DISPATCH_KEY, m) {
  m.impl("modulated_conv2d_weight", TORCH_BOX(&fastgan::modulated_conv2d_weight));
  m.impl("modulated_conv2d_weight_backward", TORCH_BOX(&fastgan::modulated_conv2d_weight_backward));
  m.impl("modulated_conv2d_squares", TORCH_BOX(&fastgan::modulated_conv2d_squares));
}
