// Compiles FASTGAN_KERNEL (a header of plain loops) once per instruction set, each in its own namespace: fastgan::portable,
// fastgan::avx2, fastgan::avx512; level.h calls the one of this machine. Include every header the kernel needs before this one, except
// those that are made for it, which have no include guard. Nothing of a kernel has a name outside of its .cpp.
namespace fastgan::portable {
namespace {
#include FASTGAN_KERNEL
}
}

#if defined(__x86_64__) && defined(__GNUC__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,bmi,bmi2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,bmi2,prefer-vector-width=256")
#endif
#define FASTGAN_AVX2 1
namespace fastgan::avx2 {
namespace {
#include FASTGAN_KERNEL
}
}
#undef FASTGAN_AVX2

#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,bmi,bmi2"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,bmi,bmi2,prefer-vector-width=512")
#endif
#define FASTGAN_AVX512 1
namespace fastgan::avx512 {
namespace {
#include FASTGAN_KERNEL
}
}
#undef FASTGAN_AVX512

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
