// Counts how warps meet the banks of shared memory: compiled without a sanitizer into a library whose kernels call it, as
// -fsanitize=kernel-address makes them, before every load and store (bench/shared_memory.py).
//
// A place in the code is one instruction, and a thread's n-th visit to it belongs with the n-th of the other lanes. Memory has 32 banks of
// 4 bytes; of accesses of 8 and 16 bytes 16 and 8 lanes go at once. What goes at once takes as many turns as the most words of one bank.
#include <cstdio>
#include <unordered_map>

#include "cuda_runtime.h"

namespace emulation {
namespace {

struct Access {
  const void* place;
  uintptr_t warp, visit;
  bool operator==(const Access&) const = default;
};
struct Hash {
  size_t operator()(const Access& a) const { return reinterpret_cast<uintptr_t>(a.place) * 31 + a.warp * 1000003 + a.visit * 10000019; }
};
struct Lane {
  int lane;
  uintptr_t offset;
  size_t bytes;
};
struct Wide {
  uintptr_t offset = 0;
  size_t bytes = 0;
};

std::unordered_map<Access, std::vector<Lane>, Hash> accesses;
std::unordered_map<Access, uintptr_t, Hash> visits;  // of a thread, in place of a warp
Wide wide[1024];
uint64_t turns = 0, least = 0;

void visit(const void* at, size_t bytes, const void* place) {
  const uintptr_t offset = reinterpret_cast<uintptr_t>(at) - reinterpret_cast<uintptr_t>(shared);
  if (bytes > 16 || offset >= shared_bytes) return;
  const uintptr_t rank = thread_rank(), n = visits[{place, rank, 0}]++;
  accesses[{place, rank / 32, n}].push_back({static_cast<int>(rank % 32), offset, bytes});
}

void add_turns(const std::vector<Lane>& lanes) {
  size_t bytes = 4;
  for (const Lane& lane : lanes) bytes = std::max(bytes, lane.bytes);
  const int at_once = 128 / (bytes > 8 ? 16 : bytes > 4 ? 8 : 4);
  for (int first = 0; first < 32; first += at_once) {
    std::set<uintptr_t> words;
    for (const Lane& lane : lanes)
      if (lane.lane / at_once == first / at_once)
        for (uintptr_t word = lane.offset / 4; word * 4 < lane.offset + lane.bytes; ++word) words.insert(word);
    int banks[32] = {};
    for (uintptr_t word : words) ++banks[word % 32];
    const int most = *std::max_element(banks, banks + 32);
    turns += most, least += most > 0;
  }
}

}  // namespace

// An access of `bytes`, however g++ splits it.
void wide_access(const void* at, size_t bytes) {
  wide[thread_rank()] = {};
  visit(at, bytes, __builtin_return_address(0));
  wide[thread_rank()] = {reinterpret_cast<uintptr_t>(at), bytes};
}

void access(const void* at, size_t bytes, const void* place) {
  const Wide& last = wide[thread_rank()];
  if (reinterpret_cast<uintptr_t>(at) - last.offset < last.bytes) return;
  visit(at, bytes, place);
}

void end_block() {
  for (const auto& [_, lanes] : accesses) add_turns(lanes);
  accesses.clear(), visits.clear();
  for (Wide& one : wide) one = {};
}

// kernel, threads, bytes of shared memory, turns taken, turns without conflicts: a line of the file that FASTGAN_EMULATED_BANKS names
void end_launch(const void* kernel, int threads) {
  end_block();
  Dl_info library;
  const char* const path = std::getenv("FASTGAN_EMULATED_BANKS");
  if (path && dladdr(kernel, &library)) {
    const auto at = static_cast<const char*>(kernel) - static_cast<const char*>(library.dli_fbase);
    std::ofstream(path, std::ios::app) << at << ' ' << threads << ' ' << shared_bytes << ' ' << turns << ' ' << least << std::endl;
  }
  turns = least = 0;
}

}  // namespace emulation

#define FASTGAN_CALLED(what, bytes) \
  extern "C" void __asan_##what##bytes##_noabort(const void* at) { emulation::access(at, bytes, __builtin_return_address(0)); }
#define FASTGAN_CALLED_WITH_SIZE(what) \
  extern "C" void __asan_##what##N_noabort(const void* at, size_t bytes) { emulation::access(at, bytes, __builtin_return_address(0)); }
FASTGAN_CALLED(load, 1)
FASTGAN_CALLED(load, 2)
FASTGAN_CALLED(load, 4)
FASTGAN_CALLED(load, 8)
FASTGAN_CALLED(load, 16)
FASTGAN_CALLED(store, 1)
FASTGAN_CALLED(store, 2)
FASTGAN_CALLED(store, 4)
FASTGAN_CALLED(store, 8)
FASTGAN_CALLED(store, 16)
FASTGAN_CALLED_WITH_SIZE(load)
FASTGAN_CALLED_WITH_SIZE(store)
extern "C" void __asan_handle_no_return() {}
extern "C" void __asan_before_dynamic_init(const void*) {}
extern "C" void __asan_after_dynamic_init() {}
