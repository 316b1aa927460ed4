// Means and variances of norm_act. Included inside a namespace by norm_act_kernel.h, once per instruction set: no include guard.

constexpr int64_t kSums = 64;  // partial sums: four vectors of AVX-512 in flight, since one alone waits for each addition

template <class T>
inline double total(const T* lanes) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < kSums; ++j) sum += lanes[j];
  return sum;
}

template <class T>
inline double sum_block(const T* x, int64_t n) {
  T lanes[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= n; i += kSums)
#pragma omp simd
    for (int64_t j = 0; j < kSums; ++j) lanes[j] += x[i + j];
#pragma omp simd
  for (int64_t j = 0; j < n - i; ++j) lanes[j] += x[i + j];
  return total(lanes);
}

// The moments of n elements, in one visit: of their distances from `near`, of which 4 vectors each are summed at once.
template <class T>
inline Moments moments_near(const T* x, int64_t n, T near) {
  T sums[kSums] = {}, squares[kSums] = {};
  const auto add = [&](int64_t i, int64_t size) __attribute__((always_inline)) {
#pragma omp simd
    for (int64_t j = 0; j < size; ++j) {
      const T d = x[i + j] - near;
      sums[j] += d;
      squares[j] += d * d;
    }
  };
  int64_t i = 0;
  for (; i + kSums <= n; i += kSums) add(i, kSums);
  add(i, n - i);
  const double sum = total(sums);
  return {near + sum / n, std::max(total(squares) - sum * sum / n, 0.0), n};
}

// Adds those of a plane's next block. It is near the mean of those before it, so that no digits are lost where the mean is far from
// zero: a block of n elements at a distance d from that mean adds n d^2 / 2 or more to the squares of all.
template <class T>
void add_block(Moments& all, Block<T>& block, Elements<T> x, int64_t n) {
  const T* v = block.read(x, n);
  all.add(moments_near(v, n, static_cast<T>(all.n ? all.mean : sum_block(v, n) / n)));
}

template <class T>
Moments moments_of_plane(Elements<T> x, int64_t n) {
  Block<T> block;
  Moments all;
  for_blocks(n, n, [&](int64_t at, int64_t m, int64_t) { add_block(all, block, x + at, m); });
  return all;
}

// The same of every channel of n elements (whole pixels). lanes: work space of 2 pieces.
template <class T>
void moments_of_pixels(Elements<T> x, int64_t n, int64_t channels, int64_t piece, T* lanes, Moments* moments) {
  Block<T> block;
  const int64_t rows = n / channels;
  T *sums = lanes, *means = lanes + piece;
  std::fill(sums, sums + piece, T(0));
  for_blocks(n, piece, [&](int64_t at, int64_t m, int64_t i) {
    const T* v = block.read(x + at, m);
#pragma omp simd
    for (int64_t j = 0; j < m; ++j) sums[i + j] += v[j];
  });
  for (int64_t c = 0; c < channels; ++c) moments[c] = {0, 0, rows};
  for (int64_t j = 0, c = 0; j < piece; ++j, c = c + 1 == channels ? 0 : c + 1) moments[c].mean += sums[j];
  for (int64_t c = 0; c < channels; ++c) moments[c].mean /= rows;
  for (int64_t j = 0, c = 0; j < piece; ++j, c = c + 1 == channels ? 0 : c + 1) means[j] = moments[c].mean;
  std::fill(sums, sums + piece, T(0));
  for_blocks(n, piece, [&](int64_t at, int64_t m, int64_t i) {
    const T* v = block.read(x + at, m);
#pragma omp simd
    for (int64_t j = 0; j < m; ++j) sums[i + j] += (v[j] - means[i + j]) * (v[j] - means[i + j]);
  });
  for (int64_t j = 0, c = 0; j < piece; ++j, c = c + 1 == channels ? 0 : c + 1) moments[c].squares += sums[j];
}
