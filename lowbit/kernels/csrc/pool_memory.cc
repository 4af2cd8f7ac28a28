#include "pool_memory.h"

#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

namespace lowbit {
namespace {

constexpr size_t kSmallest = size_t(128) << 10, kLargest = size_t(32) << 20;
constexpr size_t kHeld = size_t(64) << 20;
constexpr size_t kPage = 4096;

struct Pool {
  struct Free {
    void* memory;
    size_t bytes;
  };
  std::mutex mutex;
  std::vector<Free> free;  // the oldest first
  size_t held = 0;

  void drop(size_t i) {
    held -= free[i].bytes;
    free.erase(free.begin() + static_cast<ptrdiff_t>(i));
  }
};

Pool& pool() {
  static Pool* const all = new Pool;  // never destroyed: tensors may outlive what is static
  return *all;
}

size_t rounded(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

}  // namespace

bool is_pooled(size_t bytes) { return bytes >= kSmallest && bytes <= kLargest; }

void* take(size_t bytes) {
  bytes = rounded(bytes);
  Pool& p = pool();
  // Where another thread has the lock (or had it when this process was forked): new memory.
  std::unique_lock<std::mutex> lock(p.mutex, std::try_to_lock);
  if (lock.owns_lock())
    for (size_t i = p.free.size(); i-- > 0;)
      if (p.free[i].bytes == bytes) {
        void* memory = p.free[i].memory;
        p.drop(i);
        return memory;
      }
  void* memory = std::aligned_alloc(kPage, bytes);
  if (!memory) throw std::bad_alloc();
  return memory;
}

void give_back(void* memory, size_t bytes) {
  bytes = rounded(bytes);
  Pool& p = pool();
  std::unique_lock<std::mutex> lock(p.mutex, std::try_to_lock);
  if (!lock.owns_lock()) {
    std::free(memory);
    return;
  }
  while (!p.free.empty() && p.held + bytes > kHeld) {
    std::free(p.free.front().memory);
    p.drop(0);
  }
  p.free.push_back({memory, bytes});
  p.held += bytes;
}

}  // namespace lowbit
