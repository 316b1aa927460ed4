// Work memory of a kernel, kept from one call to the next.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <utility>

namespace fastgan {

// As many pieces as were ever in use at once. Allocated anew they would cost fresh pages, and leave holes between the activations
// of a network: a CycleGAN step took 15% more memory.
struct BufferPool {
  std::mutex lock;
  std::multimap<size_t, void*> idle;

  static BufferPool& of_process() {
    static BufferPool* const pool = new BufferPool;
    return *pool;
  }
  std::pair<void*, size_t> take(size_t bytes) {
    const std::lock_guard<std::mutex> guard(lock);
    auto found = idle.lower_bound(bytes);
    const bool fits = found != idle.end();
    if (!fits && !idle.empty()) --found;  // the largest makes place for a larger one
    std::pair<void*, size_t> taken{nullptr, bytes};
    if (found != idle.end()) {
      if (fits) taken = {found->second, found->first};
      else ::operator delete(found->second, std::align_val_t(64));
      idle.erase(found);
    }
    if (!fits) taken.first = ::operator new(bytes, std::align_val_t(64));
    return taken;
  }
  void give(void* data, size_t bytes) {
    const std::lock_guard<std::mutex> guard(lock);
    idle.emplace(bytes, data);
  }
};

struct GiveBack {
  size_t bytes;
  void operator()(void* data) const { BufferPool::of_process().give(data, bytes); }
};
template <class T>
using Buffer = std::unique_ptr<T[], GiveBack>;
// Not initialised.
template <class T>
Buffer<T> buffer(int64_t elements) {
  const auto [data, bytes] = BufferPool::of_process().take(std::max<int64_t>(1, elements) * sizeof(T));
  return Buffer<T>(static_cast<T*>(data), GiveBack{bytes});
}

}  // namespace fastgan
