// The size of a vector of the instruction set. Included inside a namespace, once per instruction set: no include guard.

#if defined(FASTGAN_AVX512)
constexpr int kBytes = 64;
#elif defined(FASTGAN_AVX2)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif

template <class T>
constexpr int kLanes = kBytes / sizeof(T);
