// What `fastgan info` says about this build.
#include <string>

#include "check.h"

namespace fastgan {
namespace {

#if defined(__clang__)
std::string compiler() { return __VERSION__; }
#elif defined(__GNUC__)
std::string compiler() { return std::string("GCC ") + __VERSION__; }
#else
std::string compiler() { return "unknown"; }
#endif

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CompositeExplicitAutograd, m) { m.impl("compiler", TORCH_BOX(&fastgan::compiler)); }
