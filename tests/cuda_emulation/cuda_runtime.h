// The part of the CUDA runtime that csrc/cuda uses, on CPU threads: g++ finds this header where nvcc finds the real one.
//
// Blocks run one after another. The threads of a block are fibers (fast: parity tests), or OS threads with a real barrier
// under -DFASTGAN_EMULATION_THREADS (races and bounds: ThreadSanitizer and AddressSanitizer see them). Shared memory has the
// size that was asked for and is filled with NaN before every block. Launches beyond the limits of a GPU are refused, and so are
// those in which an access was not aligned to its size.
#pragma once

#include <dlfcn.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <csetjmp>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <set>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define FASTGAN_CUDA_EMULATION 1

#ifdef FASTGAN_EMULATION_THREADS
#define EMULATION_OWN thread_local
#else
#define EMULATION_OWN
#endif

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
// At any address: emulation::check_alignment says which a GPU refuses.
struct __attribute__((packed, may_alias)) uint1 {
  unsigned x;
};
struct __attribute__((packed, may_alias)) uint2 {
  unsigned x, y;
};
struct __attribute__((packed, may_alias)) uint4 {
  unsigned x, y, z, w;
};

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9, cudaErrorMisalignedAddress = 716 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
struct cudaLaunchAttribute {};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

inline EMULATION_OWN dim3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace emulation {

constexpr size_t kSharedByDefault = 48 * 1024;

// KiB a block may ask for: by default what sm_86, 89 and 120 have, the least of the architectures that are built for.
inline size_t shared_at_most() {
  const char* set = std::getenv("FASTGAN_EMULATED_SHARED_KIB");
  return (set ? std::atoi(set) : 99) * size_t{1024};
}

#ifdef FASTGAN_EMULATION_BANKS  // banks.cpp
void wide_access(const void* at, size_t bytes);
void end_block();
void end_launch(const void* kernel, int threads);
#else
inline void wide_access(const void*, size_t) {}
inline void end_block() {}
inline void end_launch(const void*, int) {}
#endif

inline std::atomic<bool> misaligned{false};
__attribute__((always_inline)) inline void check_alignment(const void* at, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(at) % bytes) misaligned = true;
  wide_access(at, bytes);
}

inline std::mutex launching;
inline cudaError_t last_error = cudaSuccess;
inline cudaError_t failed(cudaError_t error) { return last_error = error; }
inline std::map<const void*, size_t> shared_limit;

// Adds where `kernel` begins in this library to the file that FASTGAN_EMULATED_LAUNCHES names, once: emulated.py has the names.
inline void note(const void* kernel) {
  static const char* const path = std::getenv("FASTGAN_EMULATED_LAUNCHES");
  static std::set<const void*> noted;
  Dl_info library;
  if (!path || !noted.insert(kernel).second || !dladdr(kernel, &library)) return;
  std::ofstream(path, std::ios::app) << static_cast<const char*>(kernel) - static_cast<const char*>(library.dli_fbase) << std::endl;
}

inline unsigned char* shared = nullptr;
inline size_t shared_bytes = 0;
inline uint64_t exchange[1024];

#ifdef FASTGAN_EMULATION_THREADS

class Barrier {
 public:
  void reset(int threads) { live_ = threads, waiting_ = 0; }
  void wait() {
    std::unique_lock lock(mutex_);
    const uint64_t generation = generation_;
    ++waiting_;
    if (!release()) released_.wait(lock, [&] { return generation != generation_; });
  }
  void leave() {  // an exited thread is not waited for
    std::unique_lock lock(mutex_);
    --live_;
    if (waiting_ > 0) release();
  }

 private:
  bool release() {
    if (waiting_ < live_) return false;
    waiting_ = 0, ++generation_;
    released_.notify_all();
    return true;
  }
  std::mutex mutex_;
  std::condition_variable released_;
  int live_ = 0, waiting_ = 0;
  uint64_t generation_ = 0;
};

#else

// Cooperative: a fiber runs until it waits. ucontext makes the stacks; setjmp switches, since swapcontext is a system call.
struct Fiber {
  ucontext_t context;
  jmp_buf at;
  bool done = true;
  dim3 index;
};
inline std::vector<std::unique_ptr<Fiber>> fibers;
inline std::vector<std::unique_ptr<char[]>> stacks;
inline const std::function<void()>* job = nullptr;
inline int running = 0, count = 0, left = 0;
inline jmp_buf main_at;
inline ucontext_t main_context;
constexpr size_t kStack = 128 * 1024;

__attribute__((noinline)) inline void go_on() {
  do running = running + 1 == count ? 0 : running + 1;
  while (fibers[running]->done);
  threadIdx = fibers[running]->index;
  _longjmp(fibers[running]->at, 1);
}

__attribute__((noinline)) inline void yield() {
  if (!_setjmp(fibers[running]->at)) go_on();
}

__attribute__((noinline)) inline void finish() {
  fibers[running]->done = true;
  if (_setjmp(fibers[running]->at)) return;
  if (--left == 0) _longjmp(main_at, 1);
  go_on();
}

void leave_barriers();

inline void fiber_main(int self) {
  if (!_setjmp(fibers[self]->at)) swapcontext(&fibers[self]->context, &main_context);
  for (;;) {
    (*job)();
    leave_barriers();
    finish();
  }
}

inline void need_fibers(int threads) {
  while (static_cast<int>(fibers.size()) < threads) {
    fibers.push_back(std::make_unique<Fiber>());
    stacks.emplace_back(new char[kStack]);
    ucontext_t& context = fibers.back()->context;
    getcontext(&context);
    context.uc_stack.ss_sp = stacks.back().get();
    context.uc_stack.ss_size = kStack;
    context.uc_link = nullptr;
    makecontext(&context, reinterpret_cast<void (*)()>(fiber_main), 1, static_cast<int>(fibers.size()) - 1);
    swapcontext(&main_context, &context);
  }
}

class Barrier {
 public:
  void reset(int threads) { live_ = threads, waiting_ = 0; }
  void wait() {
    const uint64_t generation = generation_;
    ++waiting_;
    release();
    while (generation == generation_) yield();
  }
  void leave() {
    --live_;
    if (waiting_ > 0) release();
  }

 private:
  void release() {
    if (waiting_ == live_) waiting_ = 0, ++generation_;
  }
  int live_ = 0, waiting_ = 0;
  volatile uint64_t generation_ = 0;
};

#endif

inline Barrier block_barrier, warp_barrier[32];

inline int thread_rank() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }

inline void leave_barriers() {
  warp_barrier[thread_rank() / 32].leave();
  block_barrier.leave();
}

inline void start_block(int threads) {
  end_block();
  if (shared) std::memset(shared, 0xff, shared_bytes);
  block_barrier.reset(threads);
  for (int w = 0; w * 32 < threads; ++w) warp_barrier[w].reset(std::min(32, threads - w * 32));
}

inline dim3 index_of(int rank, const dim3& size) { return dim3(rank % size.x, rank / size.x % size.y, rank / (size.x * size.y)); }

#ifdef FASTGAN_EMULATION_THREADS
inline void run_grid(const std::function<void()>& body, int threads, uint64_t blocks) {
  for (uint64_t b = 0; b < blocks; ++b) {
    start_block(threads);
    std::vector<std::thread> team;
    for (int t = 0; t < threads; ++t)
      team.emplace_back([&, t] {
        threadIdx = index_of(t, blockDim);
        blockIdx = dim3(b % gridDim.x, b / gridDim.x % gridDim.y, b / gridDim.x / gridDim.y);
        body();
        leave_barriers();
      });
    for (std::thread& t : team) t.join();
  }
}
#else
inline void run_grid(const std::function<void()>& body, int threads, uint64_t blocks) {
  need_fibers(threads);
  job = &body, count = threads;
  for (int t = 0; t < threads; ++t) fibers[t]->index = index_of(t, blockDim);
  for (volatile uint64_t b = 0; b < blocks; b = b + 1) {
    start_block(threads);
    blockIdx = dim3(b % gridDim.x, b / gridDim.x % gridDim.y, b / gridDim.x / gridDim.y);
    for (int t = 0; t < threads; ++t) fibers[t]->done = false;
    left = count, running = count - 1;
    if (!_setjmp(main_at)) go_on();
  }
}
#endif

template <class Value>
Value from_lane(Value value, int lane) {  // of the same warp
  static_assert(sizeof(Value) <= 8);
  const int rank = thread_rank(), warp = rank / 32;
  std::memcpy(&exchange[rank], &value, sizeof(Value));
  warp_barrier[warp].wait();
  Value result;
  std::memcpy(&result, &exchange[warp * 32 + lane], sizeof(Value));
  warp_barrier[warp].wait();
  return result;
}

// d += a b of a warp's tensor cores, fragments as mma.m16n8k16 has them; widen: the number of 16 bits. Terms are cut off below
// 2^-24 of the largest of a sum, and sums to float: what is known of the hardware is no coarser.
inline unsigned fragments[1024][6];

template <size_t N>
float sum_of_terms(const double (&terms)[N]) {
  double largest = 0, sum = 0;
  for (double term : terms) {
    if (!std::isfinite(term)) return static_cast<float>(std::accumulate(std::begin(terms), std::end(terms), 0.0));
    largest = std::max(largest, std::fabs(term));
  }
  if (largest == 0) return 0;
  const double unit = std::ldexp(1.0, std::ilogb(largest) - 24);
  for (double term : terms) sum += std::trunc(term / unit) * unit;
  const float rounded = static_cast<float>(sum);
  return std::fabs(rounded) > std::fabs(sum) ? std::nextafter(rounded, 0.0f) : rounded;
}

// ldmatrix of four parts: lane 8i + j gives the address of row j of part i, whose words come to lanes 4j to 4j + 3. That lane reads
// them before any barrier: a sanitizer sees that it did not wait for who wrote them.
inline void load_rows(const void* row, unsigned (&words)[4]) {
  const int rank = thread_rank(), warp = rank / 32, lane = rank % 32;
  check_alignment(row, 16);
  std::memcpy(fragments[rank], row, 16);
  warp_barrier[warp].wait();
  for (int i = 0; i < 4; ++i) words[i] = fragments[warp * 32 + 8 * i + lane / 4][lane % 4];
  warp_barrier[warp].wait();
}

inline void load_rows(const void* row, unsigned& word) {
  const int rank = thread_rank(), warp = rank / 32, lane = rank % 32;
  if (lane < 8) check_alignment(row, 16), std::memcpy(fragments[rank], row, 16);
  warp_barrier[warp].wait();
  word = fragments[warp * 32 + lane / 4][lane % 4];
  warp_barrier[warp].wait();
}

// cp.async: a thread's copies, which happen at the latest moment that the hardware may take; NaN is there before.
struct Copy {
  void* to;
  const void* from;  // none: zeros
  size_t bytes;
};
inline std::vector<Copy> copies[1024];

__attribute__((noinline, no_sanitize_address)) inline void spoil(void* to, size_t bytes) { std::memset(to, 0xff, bytes); }

inline void copy_async(void* to, const void* from, size_t bytes = 16) {
  if (reinterpret_cast<uintptr_t>(to) % bytes || reinterpret_cast<uintptr_t>(from) % bytes) misaligned = true;
  spoil(to, bytes);
  copies[thread_rank()].push_back({to, from, bytes});
}

inline void wait_for_copies() {
  for (const auto& [to, from, bytes] : copies[thread_rank()]) from ? std::memcpy(to, from, bytes) : std::memset(to, 0, bytes);
  copies[thread_rank()].clear();
}

// ldmatrix of two parts, transposed: lane 8i + j (of the first 16) gives the address of row j of part i, which it reads as above.
inline void load_columns(const void* row, unsigned (&words)[2]) {
  const int rank = thread_rank(), warp = rank / 32, lane = rank % 32;
  if (lane < 16) check_alignment(row, 16), std::memcpy(fragments[rank], row, 16);
  warp_barrier[warp].wait();
  const auto number = [&](int row) { return fragments[warp * 32 + row][lane / 8] >> lane / 4 % 2 * 16 & 0xffff; };
  for (int i = 0; i < 2; ++i) words[i] = number(8 * i + lane % 4 * 2) | number(8 * i + lane % 4 * 2 + 1) << 16;
  warp_barrier[warp].wait();
}

inline void load_columns(const void* row, unsigned (&words)[2][2]) {  // the lanes from 16 on give those of the second
  const int rank = thread_rank(), warp = rank / 32, lane = rank % 32;
  check_alignment(row, 16), std::memcpy(fragments[rank], row, 16);
  warp_barrier[warp].wait();
  const auto number = [&](int row) { return fragments[warp * 32 + row][lane / 8] >> lane / 4 % 2 * 16 & 0xffff; };
  for (int i = 0; i < 4; ++i) words[i / 2][i % 2] = number(8 * i + lane % 4 * 2) | number(8 * i + lane % 4 * 2 + 1) << 16;
  warp_barrier[warp].wait();
}

inline unsigned transposed(unsigned word) {
  const int lane = thread_rank() % 32, row = lane % 4 * 2, column = lane / 4;
  const unsigned low = from_lane(word, row * 4 + column / 2), high = from_lane(word, row * 4 + 4 + column / 2);
  return (low >> column % 2 * 16 & 0xffff) | (high >> column % 2 * 16) << 16;
}

// As mma.m16n8k8 has them, of TF32.
inline void multiply_add(float (&d)[4], const float (&a)[4], const float (&b)[2]) {
  const int rank = thread_rank(), warp = rank / 32, lane = rank % 32;
  std::memcpy(fragments[rank], a, sizeof(a)), std::memcpy(fragments[rank] + 4, b, sizeof(b));
  warp_barrier[warp].wait();
  const auto number = [&](int lane, int word) {
    const unsigned bits = fragments[warp * 32 + lane][word] & 0xffffe000u;
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return double(value);
  };
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4, column = lane % 4 * 2 + i % 2;
    double terms[9] = {d[i]};
    for (int k = 0; k < 8; ++k) terms[1 + k] = number(row * 4 + k % 4, i / 2 + k / 4 * 2) * number(column * 4 + k % 4, 4 + k / 4);
    d[i] = sum_of_terms(terms);
  }
  warp_barrier[warp].wait();
}

template <class Widen>
void multiply_add(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], const Widen& widen) {
  const int rank = thread_rank(), warp = rank / 32, lane = rank % 32, row = lane / 4, column = lane % 4 * 2;
  std::copy(std::begin(a), std::end(a), fragments[rank]);
  std::copy(std::begin(b), std::end(b), fragments[rank] + 4);
  warp_barrier[warp].wait();
  const auto number = [&](int lane, int word, int half) { return double(widen(fragments[warp * 32 + lane][word] >> 16 * half & 0xffff)); };
  for (int i = 0; i < 4; ++i) {
    double terms[17] = {d[i]};
    for (int k = 0; k < 16; ++k)
      terms[1 + k] = number(row * 4 + k % 8 / 2, i / 2 + k / 8 * 2, k % 2) * number((column + i % 2) * 4 + k % 8 / 2, 4 + k / 8, k % 2);
    d[i] = sum_of_terms(terms);
  }
  warp_barrier[warp].wait();
}

}  // namespace emulation

inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  const uint64_t both = uint64_t{high} << 32 | low;
  unsigned word = 0;
  for (int i = 0; i < 4; ++i) word |= static_cast<unsigned>(both >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
  return word;
}

inline void __syncthreads() { emulation::block_barrier.wait(); }
inline void __syncwarp(unsigned = 0xffffffff) { emulation::warp_barrier[emulation::thread_rank() / 32].wait(); }

template <class Value>
Value __shfl_sync(unsigned, Value value, int lane) {
  return emulation::from_lane(value, lane);
}

template <class Value>
Value __shfl_xor_sync(unsigned, Value value, int distance) {
  return emulation::from_lane(value, (emulation::thread_rank() % 32) ^ distance);
}

inline unsigned __ballot_sync(unsigned, bool vote) {
  unsigned votes = 0;
  const int rank = emulation::thread_rank(), warp = rank / 32;
  emulation::exchange[rank] = vote;
  emulation::warp_barrier[warp].wait();
  for (int lane = 0; lane < 32; ++lane) votes |= static_cast<unsigned>(emulation::exchange[warp * 32 + lane]) << lane;
  emulation::warp_barrier[warp].wait();
  return votes;
}

inline cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int bytes) {
  if (bytes < 0 || static_cast<size_t>(bytes) > emulation::shared_at_most()) return emulation::failed(cudaErrorInvalidValue);
  std::lock_guard lock(emulation::launching);
  emulation::shared_limit[kernel] = bytes;
  return cudaSuccess;
}

template <class... Expected, class... Given>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Expected...), Given&&... given) {
  std::lock_guard lock(emulation::launching);
  const dim3 &grid = config->gridDim, &block = config->blockDim;
  const uint64_t threads = uint64_t(block.x) * block.y * block.z;
  if (threads < 1 || threads > 1024 || block.z > 64 || grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.x > 0x7fffffffu || grid.y > 65535 ||
      grid.z > 65535)
    return emulation::failed(cudaErrorInvalidConfiguration);
  const auto found = emulation::shared_limit.find(reinterpret_cast<const void*>(kernel));
  if (config->dynamicSmemBytes > (found == emulation::shared_limit.end() ? emulation::kSharedByDefault : found->second))
    return emulation::failed(cudaErrorInvalidValue);
  emulation::note(reinterpret_cast<const void*>(kernel));
  const std::tuple<Expected...> arguments(std::forward<Given>(given)...);
  emulation::shared_bytes = config->dynamicSmemBytes;
  std::unique_ptr<unsigned char[]> memory(emulation::shared_bytes ? new unsigned char[emulation::shared_bytes] : nullptr);
  emulation::shared = memory.get();
  blockDim = block, gridDim = grid;
  emulation::run_grid([&] { std::apply(kernel, arguments); }, static_cast<int>(threads), uint64_t(grid.x) * grid.y * grid.z);
  emulation::end_launch(reinterpret_cast<const void*>(kernel), static_cast<int>(threads));
  return emulation::misaligned.exchange(false) ? emulation::failed(cudaErrorMisalignedAddress) : cudaSuccess;
}

inline cudaError_t cudaGetLastError() { return std::exchange(emulation::last_error, cudaSuccess); }
inline const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorMisalignedAddress: return "misaligned address";
    default: return "invalid argument";
  }
}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
