// Which instruction set the CPU kernels run with: the best that this machine has, or the one that FASTGAN_CPU_LEVEL
// (fastgan/ops/_library.py) or a test asks for.
#pragma once

#include <type_traits>

namespace fastgan {

enum class CpuLevel { portable = 0, avx2 = 1, avx512 = 2 };

CpuLevel cpu_level();

}  // namespace fastgan

// Calls the build of a kernel function for the chosen level; each_level.h has made one namespace for each. FASTGAN_AT_LEVEL_FOR: in a
// template on T, the type the function computes in. float64, which gradient checks use alone, has no AVX-512 build: each takes its
// share of the minutes of everyone who compiles.
#if defined(__x86_64__) && defined(__GNUC__)
#define FASTGAN_AT_LEVEL(...)                                                  \
  [&] {                                                                        \
    switch (::fastgan::cpu_level()) {                                          \
      case ::fastgan::CpuLevel::avx512: return ::fastgan::avx512::__VA_ARGS__; \
      case ::fastgan::CpuLevel::avx2: return ::fastgan::avx2::__VA_ARGS__;     \
      default: return ::fastgan::portable::__VA_ARGS__;                        \
    }                                                                          \
  }()
#define FASTGAN_AT_LEVEL_FOR(T, ...)                                                                      \
  [&] {                                                                                                   \
    if constexpr (!std::is_same_v<T, double>)                                                             \
      if (::fastgan::cpu_level() == ::fastgan::CpuLevel::avx512) return ::fastgan::avx512::__VA_ARGS__;   \
    if (::fastgan::cpu_level() == ::fastgan::CpuLevel::portable) return ::fastgan::portable::__VA_ARGS__; \
    return ::fastgan::avx2::__VA_ARGS__;                                                                  \
  }()
#else
#define FASTGAN_AT_LEVEL(...) ::fastgan::portable::__VA_ARGS__
#define FASTGAN_AT_LEVEL_FOR(T, ...) ::fastgan::portable::__VA_ARGS__
#endif
