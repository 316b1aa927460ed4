// Loops of norm_act over one block, chosen by activation. Included inside a namespace by norm_act_kernel.h, once per instruction set:
// no include guard.
//
// Activations of few operations have loops of their own, which memory bounds. Of the others, of 20 operations and more, the
// activation is a pass of its own over the block, between what the linear loops do: a loop for each instead of one for each use.
// Statistics are numbers of a plane, or (kVector) those of every element.

template <class T>
using Pass = void (*)(T* values, int64_t n, T alpha);  // in place

template <Activation A, class T>
void activations(T* t, int64_t n, T alpha) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) t[j] = activate<A>(t[j], alpha);
}

template <Activation A, class T>
void slopes(T* t, int64_t n, T alpha) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) t[j] = derivative<A>(kSavesInput<A> ? t[j] : activate<A>(t[j], alpha), alpha);
}

template <class T>
void add(T* y, const T* residual, int64_t n) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) y[j] += residual[j];
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
class Forward {
 public:
  Forward(Activation act, bool vector, bool residual) {
    switch (act) {
      case Activation::linear: choose<Activation::linear>(vector, residual); break;
      case Activation::relu: choose<Activation::relu>(vector, residual); break;
      case Activation::lrelu: choose<Activation::lrelu>(vector, residual); break;
      case Activation::selu: choose<Activation::selu>(vector, residual); break;  // these two end in a product, which and the residual
      case Activation::swish: choose<Activation::swish>(vector, residual); break;  // are rounded once
      case Activation::tanh: pass_over<Activation::tanh>(vector); break;
      case Activation::sigmoid: pass_over<Activation::sigmoid>(vector); break;
      case Activation::elu: pass_over<Activation::elu>(vector); break;
      case Activation::softplus: pass_over<Activation::softplus>(vector); break;
    }
  }
  void operator()(const T* x, const T* residual, T* y, int64_t n, const Statistics<T>& s, T alpha) const {
    map_(x, residual, y, n, s, alpha);
    if (!pass_) return;
    pass_(y, n, alpha);
    if (residual) add(y, residual, n);
  }

 private:
  template <Activation A>
  void choose(bool vector, bool residual) {
    if (vector) map_ = residual ? forward<A, true, true, T> : forward<A, true, false, T>;
    else map_ = residual ? forward<A, false, true, T> : forward<A, false, false, T>;
  }
  template <Activation A>
  void pass_over(bool vector) {
    choose<Activation::linear>(vector, false);
    pass_ = activations<A, T>;
  }
  void (*map_)(const T*, const T*, T*, int64_t, const Statistics<T>&, T);
  Pass<T> pass_ = nullptr;  // null: in map_
};

// t = weight xhat + bias
template <bool kVector, class T>
void affine(const T* x, T* t, int64_t n, const Statistics<T>& s) {
  const T *mean = s.mean, *rstd = s.rstd, *weight = s.weight, *bias = s.bias;
  const T mean0 = *mean, rstd0 = *rstd, weight0 = *weight, bias0 = *bias;
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) {
    const T xhat = kVector ? (x[j] - mean[j]) * rstd[j] : (x[j] - mean0) * rstd0;
    t[j] = xhat * (kVector ? weight[j] : weight0) + (kVector ? bias[j] : bias0);
  }
}

// g = dy act'(weight xhat + bias), or dy times what a pass has found (kGiven).
template <Activation A, bool kGiven, class T>
inline __attribute__((always_inline)) T slope_times(T dy, const T* given, int64_t j, T xhat, T weight, T bias, T alpha) {
  if constexpr (kGiven) return dy * given[j];
  else return times_derivative<A>(dy, activate<A>(xhat * weight + bias, alpha), alpha);
}

// sum g and sum g xhat of a plane's block
template <Activation A, bool kGiven, class T>
std::pair<double, double> sum_up(const T* dy, const T* x, const T* given, int64_t n, const Statistics<T>& s, T alpha) {
  const T mean = *s.mean, rstd = *s.rstd, weight = *s.weight, bias = *s.bias;
  T by_g[kSums] = {}, by_gx[kSums] = {};
  const auto add = [&](int64_t i, int64_t size) __attribute__((always_inline)) {
#pragma omp simd
    for (int64_t j = 0; j < size; ++j) {
      const T xhat = (x[i + j] - mean) * rstd, g = slope_times<A, kGiven>(dy[i + j], given, i + j, xhat, weight, bias, alpha);
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
template <Activation A, bool kGiven, class T>
void sum_up_each(const T* dy, const T* x, const T* given, int64_t n, const Statistics<T>& s, T alpha, T* by_g, T* by_gx) {
  const T *mean = s.mean, *rstd = s.rstd, *weight = s.weight, *bias = s.bias;
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) {
    const T xhat = (x[j] - mean[j]) * rstd[j], g = slope_times<A, kGiven>(dy[j], given, j, xhat, weight[j], bias[j], alpha);
    by_g[j] += g;
    by_gx[j] += g * xhat;
  }
}

// dx = weight rstd (g - mean g - xhat mean(g xhat)): g anew, since a tensor of it would cost more than its arithmetic.
template <Activation A, bool kGiven, bool kVector, class T>
void backward(const T* dy, const T* x, const T* given, T* dx, int64_t n, const Statistics<T>& s, T alpha) {
  const T *mean = s.mean, *rstd = s.rstd, *weight = s.weight, *bias = s.bias, *scale = s.scale, *mean_g = s.mean_g, *mean_gx = s.mean_gx;
  const T mean0 = *mean, rstd0 = *rstd, weight0 = *weight, bias0 = *bias, scale0 = *scale, g0 = *mean_g, gx0 = *mean_gx;
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) {
    const T xhat = kVector ? (x[j] - mean[j]) * rstd[j] : (x[j] - mean0) * rstd0;
    const T g = slope_times<A, kGiven>(dy[j], given, j, xhat, kVector ? weight[j] : weight0, kVector ? bias[j] : bias0, alpha);
    dx[j] = kVector ? scale[j] * (g - mean_g[j] - xhat * mean_gx[j]) : scale0 * (g - g0 - xhat * gx0);
  }
}

template <class T>
class Backward {
 public:
  Backward(Activation act, bool vector) : affine_(vector ? affine<true, T> : affine<false, T>) {
    switch (act) {
      case Activation::linear: choose<Activation::linear, false>(vector); break;
      case Activation::relu: choose<Activation::relu, false>(vector); break;
      case Activation::lrelu: choose<Activation::lrelu, false>(vector); break;
      case Activation::elu: choose<Activation::elu, false>(vector); break;  // these two choose between dy and a product, which is
      case Activation::softplus: choose<Activation::softplus, false>(vector); break;  // rounded before mean g is taken off
      case Activation::swish: pass_over<Activation::swish>(vector); break;
      case Activation::tanh: pass_over<Activation::tanh>(vector); break;
      case Activation::sigmoid: pass_over<Activation::sigmoid>(vector); break;
      case Activation::selu: pass_over<Activation::selu>(vector); break;
    }
  }
  std::pair<double, double> sums(const T* dy, const T* x, int64_t n, const Statistics<T>& s, T alpha) {
    return sums_(dy, x, slopes_of(x, n, s, alpha), n, s, alpha);
  }
  void sums_of_each(const T* dy, const T* x, int64_t n, const Statistics<T>& s, T alpha, T* by_g, T* by_gx) {
    sums_of_each_(dy, x, slopes_of(x, n, s, alpha), n, s, alpha, by_g, by_gx);
  }
  void map(const T* dy, const T* x, T* dx, int64_t n, const Statistics<T>& s, T alpha) {
    map_(dy, x, slopes_of(x, n, s, alpha), dx, n, s, alpha);
  }

 private:
  template <Activation A, bool kGiven>
  void choose(bool vector) {
    sums_ = sum_up<A, kGiven, T>, sums_of_each_ = sum_up_each<A, kGiven, T>;
    map_ = vector ? backward<A, kGiven, true, T> : backward<A, kGiven, false, T>;
  }
  template <Activation A>
  void pass_over(bool vector) {
    choose<Activation::linear, true>(vector);
    pass_ = slopes<A, T>;
  }
  const T* slopes_of(const T* x, int64_t n, const Statistics<T>& s, T alpha) {
    if (!pass_) return nullptr;
    affine_(x, slopes_, n, s);
    pass_(slopes_, n, alpha);
    return slopes_;
  }
  std::pair<double, double> (*sums_)(const T*, const T*, const T*, int64_t, const Statistics<T>&, T);
  void (*sums_of_each_)(const T*, const T*, const T*, int64_t, const Statistics<T>&, T, T*, T*);
  void (*map_)(const T*, const T*, const T*, T*, int64_t, const Statistics<T>&, T);
  void (*affine_)(const T*, T*, int64_t, const Statistics<T>&);
  Pass<T> pass_ = nullptr;  // null: in the loops
  T slopes_[kBlock];
};
