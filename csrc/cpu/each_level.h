// Compiles FASTGAN_KERNEL (a header of plain loops, without includes of its own) once per instruction set, each in its own
// namespace: fastgan::portable, fastgan::avx2, fastgan::avx512. Include every header the kernel needs before this one.
// No include guard: one .cpp may set FASTGAN_KERNEL again and include this again.
#define FASTGAN_LEVEL portable
namespace fastgan::portable {
#include FASTGAN_KERNEL
}
#undef FASTGAN_LEVEL

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,bmi2,prefer-vector-width=256")
#define FASTGAN_LEVEL avx2
#define FASTGAN_AVX2 1
namespace fastgan::avx2 {
#include FASTGAN_KERNEL
}
#undef FASTGAN_AVX2
#undef FASTGAN_LEVEL
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,bmi,bmi2,prefer-vector-width=512")
#define FASTGAN_LEVEL avx512
#define FASTGAN_AVX512 1
namespace fastgan::avx512 {
#include FASTGAN_KERNEL
}
#undef FASTGAN_AVX512
#undef FASTGAN_LEVEL
#pragma GCC pop_options

#endif
#undef FASTGAN_KERNEL
