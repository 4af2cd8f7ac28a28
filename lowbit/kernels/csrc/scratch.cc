#include <cstdlib>
#include <new>

#include "conv.h"

namespace lowbit {
namespace {

struct Slots {
  static constexpr int kCount = 16;
  void* memory[kCount] = {};
  size_t size[kCount] = {};
  ~Slots() {
    for (void* m : memory) std::free(m);
  }
};

}  // namespace

void* scratch(int slot, size_t bytes) {
  static thread_local Slots slots;
  if (slots.size[slot] < bytes) {
    const size_t rounded = (bytes + 4095) & ~size_t(4095);
    void* fresh = std::aligned_alloc(4096, rounded);
    if (!fresh) throw std::bad_alloc();
    std::free(slots.memory[slot]);
    slots.memory[slot] = fresh;
    slots.size[slot] = rounded;
  }
  return slots.memory[slot];
}

}  // namespace lowbit
