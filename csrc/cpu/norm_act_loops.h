// Loops of norm_act over one block, chosen by activation. Included inside a namespace by norm_act_kernel.h, once per instruction set:
// no include guard. Statistics are numbers of a plane, or (kVector) those of every element.

// The loop of `act`, where pick.operator()<A>() is that of activation A.
template <class Pick>
auto loop_of(Activation act, const Pick& pick) {
  return [&]<int... A>(std::integer_sequence<int, A...>) {
    return std::array{pick.template operator()<static_cast<Activation>(A)>()...}[static_cast<int>(act)];
  }(std::make_integer_sequence<int, kActivations>());
}

// y = act(weight rstd (x - mean) + bias) + residual: one read (two with a residual), one write.
template <Activation A, bool kVector, bool kResidual, class T>
void forward(const T* x, const T* residual, T* y, int64_t n, const Statistics<T>& s, T alpha) {
  const T *mean = s.mean, *scale = s.scale, *bias = s.bias;
  const T mean0 = *mean, scale0 = *scale, bias0 = *bias;
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) {
    const T t = kVector ? (x[j] - mean[j]) * scale[j] + bias[j] : (x[j] - mean0) * scale0 + bias0;
    const T u = activate<A>(t, alpha);
    y[j] = kResidual ? u + residual[j] : u;
  }
}

template <class T>
auto forward_loop(Activation act, bool vector, bool residual) {
  return loop_of(act, [&]<Activation A>() {
    if (vector) return residual ? forward<A, true, true, T> : forward<A, true, false, T>;
    return residual ? forward<A, false, true, T> : forward<A, false, false, T>;
  });
}

// g = dy act'(weight xhat + bias)
template <Activation A, class T>
inline __attribute__((always_inline)) T slope_times(T dy, T xhat, T weight, T bias, T alpha) {
  const T t = xhat * weight + bias;
  return times_derivative<A>(dy, kSavesInput<A> ? t : activate<A>(t, alpha), alpha);
}

// sum g and sum g xhat of a plane's block
template <Activation A, class T>
std::pair<double, double> sum_up(const T* dy, const T* x, int64_t n, const Statistics<T>& s, T alpha) {
  const T mean = *s.mean, rstd = *s.rstd, weight = *s.weight, bias = *s.bias;
  T by_g[kSums] = {}, by_gx[kSums] = {};
  const auto add = [&](int64_t i, int64_t size) __attribute__((always_inline)) {
#pragma omp simd
    for (int64_t j = 0; j < size; ++j) {
      const T xhat = (x[i + j] - mean) * rstd, g = slope_times<A>(dy[i + j], xhat, weight, bias, alpha);
      by_g[j] += g;
      by_gx[j] += g * xhat;
    }
  };
  int64_t i = 0;
  for (; i + kSums <= n; i += kSums) add(i, kSums);
  add(i, n - i);
  return {total(by_g), total(by_gx)};
}

// The same of every element of a piece's block, added to by_g and by_gx.
template <Activation A, class T>
void sum_up_each(const T* dy, const T* x, int64_t n, const Statistics<T>& s, T alpha, T* by_g, T* by_gx) {
  const T *mean = s.mean, *rstd = s.rstd, *weight = s.weight, *bias = s.bias;
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) {
    const T xhat = (x[j] - mean[j]) * rstd[j], g = slope_times<A>(dy[j], xhat, weight[j], bias[j], alpha);
    by_g[j] += g;
    by_gx[j] += g * xhat;
  }
}

// dx = weight rstd (g - mean g - xhat mean(g xhat)): g anew, since a tensor of it would cost more than its arithmetic.
template <Activation A, bool kVector, class T>
void backward(const T* dy, const T* x, T* dx, int64_t n, const Statistics<T>& s, T alpha) {
  const T *mean = s.mean, *rstd = s.rstd, *weight = s.weight, *bias = s.bias, *scale = s.scale, *mean_g = s.mean_g, *mean_gx = s.mean_gx;
  const T mean0 = *mean, rstd0 = *rstd, weight0 = *weight, bias0 = *bias, scale0 = *scale, g0 = *mean_g, gx0 = *mean_gx;
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) {
    const T xhat = kVector ? (x[j] - mean[j]) * rstd[j] : (x[j] - mean0) * rstd0;
    const T g = slope_times<A>(dy[j], xhat, kVector ? weight[j] : weight0, kVector ? bias[j] : bias0, alpha);
    dx[j] = kVector ? scale[j] * (g - mean_g[j] - xhat * mean_gx[j]) : scale0 * (g - g0 - xhat * gx0);
  }
}

template <class T>
struct Backward {
  explicit Backward(Activation act, bool vector)
      : sums(loop_of(act, []<Activation A>() { return sum_up<A, T>; })), sums_of_each(loop_of(act, []<Activation A>() { return sum_up_each<A, T>; })),
        map(loop_of(act, [&]<Activation A>() { return vector ? backward<A, true, T> : backward<A, false, T>; })) {}

  std::pair<double, double> (*sums)(const T* dy, const T* x, int64_t n, const Statistics<T>& s, T alpha);
  void (*sums_of_each)(const T* dy, const T* x, int64_t n, const Statistics<T>& s, T alpha, T* by_g, T* by_gx);
  void (*map)(const T* dy, const T* x, T* dx, int64_t n, const Statistics<T>& s, T alpha);
};
