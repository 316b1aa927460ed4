// Loops of prelu on a dense tensor in the pieces of bias_act_units.h. Included once per instruction set by each_level.h.

constexpr int64_t kChunk = 512;  // elements whose gradients are summed in one chain

// Both are computed, so that a loop is a vector's.
template <class T>
inline T chosen(T x, T above, T below) {
  return x > T(0) ? above : below;
}

// y = x > 0 ? x : slope x. slope: of a piece one number, or a vector as long as it.
template <class T>
void prelu_unit(const T* x, const T* slope, int64_t channel, T* y, int64_t n, const BiasUnits& units) {
  for (int64_t start = 0; start < n; start += units.piece) {
    const int64_t size = std::min(units.piece, n - start);
    const T* from = x + start;
    T* to = y + start;
    if (units.vector_bias()) {
#pragma omp simd
      for (int64_t i = 0; i < size; ++i) to[i] = chosen(from[i], from[i], from[i] * slope[i]);
    } else {
      const T a = slope[channel];
#pragma omp simd
      for (int64_t i = 0; i < size; ++i) to[i] = chosen(from[i], from[i], from[i] * a);
      if (++channel == units.channels) channel = 0;
    }
  }
}

// dx = x > 0 ? dy : slope dy, and of x > 0 ? 0 : x dy the sum of each piece, or for each element of it, added to `sums`.
template <class T>
void prelu_backward_unit(const T* dy, const T* x, const T* slope, int64_t channel, T* dx, T* sums, int64_t n, const BiasUnits& units) {
  for (int64_t start = 0; start < n; start += units.piece) {
    const int64_t size = std::min(units.piece, n - start);
    const T *from = dy + start, *with = x + start;
    T* to = dx + start;
    if (units.vector_bias()) {
#pragma omp simd
      for (int64_t i = 0; i < size; ++i) {
        const T d = from[i], v = with[i];
        to[i] = chosen(v, d, d * slope[i]);
        sums[i] += chosen(v, T(0), d * v);
      }
    } else {
      const T a = slope[channel];
      double total = 0;
      for (int64_t at = 0; at < size; at += kChunk) {
        const int64_t end = std::min(at + kChunk, size);
        T part = 0;
#pragma omp simd reduction(+ : part)
        for (int64_t i = at; i < end; ++i) {
          const T d = from[i], v = with[i];
          to[i] = chosen(v, d, d * a);
          part += chosen(v, T(0), d * v);
        }
        total += part;
      }
      *sums++ = static_cast<T>(total);
      if (++channel == units.channels) channel = 0;
    }
  }
}
