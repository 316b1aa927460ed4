#include "cpu/level.h"

#include <string>

#include "check.h"

namespace fastgan {
namespace {

constexpr const char* kNames[] = {"portable", "avx2", "avx512"};

CpuLevel best_here() {
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    return CpuLevel::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return CpuLevel::avx2;
#endif
  return CpuLevel::portable;
}

CpuLevel chosen = best_here();

// "" only asks; a name switches every kernel of the process (tests and benches compare levels in one run).
std::string cpu_level_op(std::string wanted) {
  if (!wanted.empty()) {
    int i = 0;
    while (i < 3 && wanted != kNames[i]) ++i;
    FASTGAN_CHECK(i < 3, "CPU level '", wanted, "' is none of portable, avx2, avx512");
    FASTGAN_CHECK(i <= static_cast<int>(best_here()), "CPU level '", wanted, "' is not available on this machine");
    chosen = static_cast<CpuLevel>(i);
  }
  return kNames[static_cast<int>(chosen)];
}

}  // namespace

CpuLevel cpu_level() { return chosen; }

}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CompositeExplicitAutograd, m) { m.impl("cpu_level", TORCH_BOX(&fastgan::cpu_level_op)); }
