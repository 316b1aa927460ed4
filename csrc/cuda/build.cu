// What `fastgan info` says about this build.
#include <string>

#include "check.h"

namespace fastgan {
namespace {

std::string cuda_archs() { return FASTGAN_ARCHS; }

}  // namespace
}  // namespace fastgan

STABLE_TORCH_LIBRARY_IMPL(fastgan, CompositeExplicitAutograd, m) { m.impl("cuda_archs", TORCH_BOX(&fastgan::cuda_archs)); }
