// Runs kernels on the processor: one block at a time, each of its threads a fiber that gives way
// where it must wait, at barriers and at what a warp does together.
//
// What a GPU leaves open is done the unkind way, so that a mistake shows: a warp runs as far as it
// can before the next, blocks, warps and lanes go in a shuffled order, shared memory starts as
// garbage, and an asynchronous copy leaves garbage until the wait that covers it. Kernels are
// compiled with the instrumentation of the thread and the undefined behaviour sanitizers, whose
// functions are here: each access to memory is checked for its bounds, its alignment, and in shared
// memory for races. A launch that breaks a rule stops there and says which.
#include "on_cpu.h"

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#if defined(__x86_64__) && defined(__linux__) && !defined(LOWBIT_UCONTEXT)
#define LOWBIT_ASSEMBLY_SWITCH
#else
#include <ucontext.h>
#endif

Index threadIdx, blockIdx, blockDim, gridDim;

// Where this library lies: the linker's names.
extern "C" __attribute__((visibility("hidden"))) const unsigned char __ehdr_start[];
extern "C" __attribute__((visibility("hidden"))) const unsigned char _end[];

namespace on_cpu {
namespace {

constexpr unsigned kLanes = 32;
constexpr unsigned kMaxThreads = 1024, kMaxShared = 227 * 1024;  // of compute capability 9.0
constexpr unsigned char kGarbage = 0xCD, kInFlight = 0xA5;
constexpr size_t kMargin = 4096;  // on both sides of shared memory
// 64 KB and some cache lines: with a power of two all stacks would share the same few lines.
constexpr size_t kStackBytes = 64 * 1024 + 9 * 64;

struct Copy {
  unsigned char* to;
  const void* from;  // null: zeros
  unsigned bytes;
};

enum class Waits { kNot, kForWarp, kForBlock, kReturned };

struct Fiber {
#ifdef LOWBIT_ASSEMBLY_SWITCH
  void* stack_pointer;
#else
  ucontext_t context;
#endif
  Waits waits;
  const char* call;  // that it waits at
  unsigned calls;    // of its warp, so far
  uint32_t barriers, warp_barriers;  // that it has passed
  std::vector<Copy> copies;          // the oldest first
  std::vector<size_t> groups;        // where each committed group ends in copies
};

// What the lanes bring to a call of the warp. There are two, for a lane may bring its part to the
// next call while others still read this one.
struct Part {
  unsigned long long words[3];
};
struct Parts {
  Part of[kLanes];
};

// A thread that touched a byte, and when.
struct Touch {
  uint32_t barriers, warp_barriers;
  uint16_t thread;
};
struct Byte {
  Touch write, reads[2];  // the last of two threads
};

struct Block {
  std::vector<Fiber> fibers = std::vector<Fiber>(kMaxThreads);
  std::vector<Parts> parts = std::vector<Parts>(2 * kMaxThreads / kLanes);
  std::vector<Byte> bytes;  // of shared memory
  std::unique_ptr<unsigned char[]> stacks{new unsigned char[kMaxThreads * kStackBytes]};
  std::unique_ptr<unsigned char[]> memory{new unsigned char[kMaxShared + 2 * kMargin]};
  unsigned char* shared = nullptr;
  Fiber main;
  unsigned thread = 0;  // that runs
  bool in_kernel = false;
  Launch launch;
  uint64_t random;
  uint32_t barriers = 1;  // that threads start with: more than any of the blocks before
  char error[512];
};
Block block;

#ifdef LOWBIT_ASSEMBLY_SWITCH
// Keeps the registers that a call preserves; the floating-point modes never change here.
extern "C" void lowbit_switch(void** from, void* to);
asm(R"(
.text
.p2align 4
.type lowbit_switch, @function
lowbit_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size lowbit_switch, . - lowbit_switch
)");

void switch_fiber(Fiber& from, Fiber& to) { lowbit_switch(&from.stack_pointer, to.stack_pointer); }

void prepare(Fiber& fiber, unsigned char* stack, void (*entry)()) {
  const auto top = (reinterpret_cast<uintptr_t>(stack) + kStackBytes) & ~uintptr_t(63);
  void** const words = reinterpret_cast<void**>(top);
  words[-1] = nullptr;  // where entry would return to
  words[-2] = reinterpret_cast<void*>(entry);
  for (int i = 3; i <= 8; ++i) words[-i] = nullptr;
  fiber.stack_pointer = words - 8;
}
#else
void switch_fiber(Fiber& from, Fiber& to) { swapcontext(&from.context, &to.context); }

void prepare(Fiber& fiber, unsigned char* stack, void (*entry)()) {
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = stack;
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
}
#endif

Fiber& self() { return block.fibers[block.thread]; }

void give_way(Waits waits, const char* call) {
  Fiber& fiber = self();
  fiber.waits = waits;
  fiber.call = call;
  switch_fiber(fiber, block.main);
}

__attribute__((format(printf, 1, 2))) void report(const char* format, ...) {
  if (block.error[0]) return;
  va_list values;
  va_start(values, format);
  const int n = std::vsnprintf(block.error, sizeof block.error, format, values);
  va_end(values);
  if (n < 0 || n >= static_cast<int>(sizeof block.error)) return;
  std::snprintf(block.error + n, sizeof block.error - n, " [block (%u, %u, %u)]", blockIdx.x,
                blockIdx.y, blockIdx.z);
}

// Ends the launch from within a thread, which is never continued.
#define LOWBIT_RULE(kept, format, ...)                             \
  do {                                                             \
    if (!(kept)) {                                                 \
      report("thread %u: " format, block.thread, __VA_ARGS__);     \
      give_way(Waits::kReturned, "");                              \
    }                                                              \
  } while (0)

void run_thread() {
  block.launch.kernel(block.launch.params);
  give_way(Waits::kReturned, "");
}

void resume(unsigned thread) {
  block.thread = thread;
  threadIdx = {thread, 0, 0};
  block.fibers[thread].waits = Waits::kNot;
  block.in_kernel = true;
  switch_fiber(block.main, block.fibers[thread]);
  block.in_kernel = false;
}

template <class T>
void shuffle_order(T* items, size_t count) {
  for (size_t i = count; i > 1; --i) {
    block.random ^= block.random << 13;
    block.random ^= block.random >> 7;
    block.random ^= block.random << 17;
    std::swap(items[i - 1], items[(block.random >> 32) % i]);
  }
}

unsigned count(unsigned first, unsigned threads, Waits waits) {
  unsigned n = 0;
  for (unsigned t = first; t < first + threads; ++t) n += block.fibers[t].waits == waits;
  return n;
}

// Runs a warp until all its lanes have returned or wait for the rest of the block.
bool run_warp(unsigned warp) {
  const unsigned first = warp * kLanes;
  unsigned char order[kLanes];
  for (unsigned i = 0; i < kLanes; ++i) order[i] = static_cast<unsigned char>(i);
  for (;;) {
    shuffle_order(order, kLanes);
    for (const unsigned char lane : order) {
      const Waits waits = block.fibers[first + lane].waits;
      if (waits != Waits::kNot && waits != Waits::kForWarp) continue;
      resume(first + lane);
      if (block.error[0]) return false;
    }
    const unsigned waiting = count(first, kLanes, Waits::kForWarp);
    if (waiting == 0) return true;
    const Fiber* example = &block.fibers[first];
    while (example->waits != Waits::kForWarp) ++example;
    for (unsigned t = first; t < first + kLanes; ++t) {
      const Fiber& fiber = block.fibers[t];
      if (fiber.waits == Waits::kForWarp && std::strcmp(fiber.call, example->call) != 0)
        report("deadlock: lanes of warp %u wait at different calls, %s and %s", warp,
               example->call, fiber.call);
    }
    if (waiting < kLanes)
      report("deadlock: %u lanes of warp %u wait at %s, %u at __syncthreads, %u have returned",
             waiting, warp, example->call, count(first, kLanes, Waits::kForBlock),
             count(first, kLanes, Waits::kReturned));
    if (block.error[0]) return false;
  }
}

bool run_block() {
  std::memset(block.shared, kGarbage, block.launch.shared_bytes);
  const unsigned threads = block.launch.threads;
  for (unsigned t = 0; t < threads; ++t) {
    Fiber& fiber = block.fibers[t];
    prepare(fiber, block.stacks.get() + t * kStackBytes, run_thread);
    fiber.waits = Waits::kNot;
    fiber.calls = 0;
    fiber.barriers = block.barriers;
    fiber.warp_barriers = 0;
    fiber.copies.clear();
    fiber.groups.clear();
  }
  unsigned char order[kMaxThreads / kLanes];
  const unsigned warps = threads / kLanes;
  for (unsigned w = 0; w < warps; ++w) order[w] = static_cast<unsigned char>(w);
  for (;;) {
    ++block.barriers;
    shuffle_order(order, warps);
    for (unsigned w = 0; w < warps; ++w)
      if (!run_warp(order[w])) return false;
    const unsigned waiting = count(0, threads, Waits::kForBlock);
    if (waiting == 0) return true;
    if (waiting < threads) {
      report("deadlock: %u of %u threads wait at __syncthreads, %u have returned", waiting,
             threads, threads - waiting);
      return false;
    }
    for (unsigned t = 0; t < threads; ++t) block.fibers[t].waits = Waits::kNot;
  }
}

// Gives part to the warp, waits for all lanes, and returns what they gave.
const Parts& together(const char* call, Part part) {
  Parts& parts = block.parts[2 * (block.thread / kLanes) + self().calls++ % 2];
  parts.of[lane()] = part;
  give_way(Waits::kForWarp, call);
  return parts;
}

void check_mask(const char* call, unsigned mask) {
  LOWBIT_RULE(mask == 0xffffffffu, "%s of mask 0x%08x; only full warps run here", call, mask);
}

// Whether a barrier lies between a touch and what the fiber does now.
bool comes_before(const Touch& touch, const Fiber& fiber) {
  if (touch.thread == block.thread || touch.barriers < fiber.barriers) return true;
  return touch.thread / kLanes == block.thread / kLanes &&
         touch.warp_barriers < fiber.warp_barriers;
}

void touch_shared(ptrdiff_t at, size_t bytes, bool writes) {
  const Fiber& fiber = self();
  const Touch touch{fiber.barriers, fiber.warp_barriers, static_cast<uint16_t>(block.thread)};
  for (size_t i = 0; i < bytes; ++i) {
    Byte& byte = block.bytes[at + i];
    LOWBIT_RULE(comes_before(byte.write, fiber),
                "race at byte %td of shared memory: it %s what thread %u wrote, and no barrier "
                "lies between",
                at, writes ? "overwrites" : "reads", byte.write.thread);
    if (writes) {
      for (const Touch& read : byte.reads)
        LOWBIT_RULE(comes_before(read, fiber),
                    "race at byte %td of shared memory: it overwrites what thread %u read, and no "
                    "barrier lies between",
                    at, read.thread);
      byte.write = touch;
    } else {
      if (byte.reads[0].thread != block.thread) byte.reads[1] = byte.reads[0];
      byte.reads[0] = touch;
    }
  }
}

bool lies_in(const void* p, size_t bytes, const void* data, size_t data_bytes) {
  const size_t at = reinterpret_cast<uintptr_t>(p) - reinterpret_cast<uintptr_t>(data);
  return at < data_bytes && bytes <= data_bytes - at;
}

void touch(const void* p, size_t bytes, bool writes) {
  if (!block.in_kernel) return;
  const Launch& launch = block.launch;
  const char* const verb = writes ? "writes" : "reads";
  if (lies_in(p, 1, block.memory.get(), kMaxShared + 2 * kMargin)) {
    const ptrdiff_t at = static_cast<const unsigned char*>(p) - block.shared;
    LOWBIT_RULE(at >= 0 && at + bytes <= launch.shared_bytes,
                "it %s %zu bytes at byte %td of %u bytes of shared memory", verb, bytes, at,
                launch.shared_bytes);
    touch_shared(at, bytes, writes);
    return;
  }
  if (!launch.arrays || lies_in(p, bytes, block.stacks.get(), kMaxThreads * kStackBytes) ||
      lies_in(p, bytes, __ehdr_start, _end - __ehdr_start) ||
      lies_in(p, bytes, launch.params, launch.params_bytes))
    return;
  LOWBIT_RULE(launch.array_count > 0, "it %s %zu bytes of memory, and is given no array", verb,
              bytes);
  const Memory* nearest = launch.arrays;
  ptrdiff_t offset = PTRDIFF_MAX;
  for (const Memory* a = launch.arrays; a < launch.arrays + launch.array_count; ++a) {
    if (lies_in(p, bytes, a->data, a->bytes)) return;
    const ptrdiff_t at = static_cast<const unsigned char*>(p) -
                         static_cast<const unsigned char*>(a->data);
    if (std::abs(at) < std::abs(offset)) {
      offset = at;
      nearest = a;
    }
  }
  LOWBIT_RULE(false,
              "it %s %zu bytes outside of the arrays, at byte %td of array %td of %llu bytes", verb,
              bytes, offset, nearest - launch.arrays, nearest->bytes);
}

}  // namespace

unsigned lane() { return block.thread % kLanes; }

unsigned char* shared_memory() { return block.shared; }

void barrier() {
  give_way(Waits::kForBlock, "__syncthreads");
  ++self().barriers;
}

void sync_warp(unsigned mask) {
  check_mask("__syncwarp", mask);
  together("__syncwarp", {});
  ++self().warp_barriers;
}

unsigned long long shuffle(const char* call, unsigned mask, unsigned long long bits,
                           unsigned lane) {
  check_mask(call, mask);
  return together(call, {{bits}}).of[lane].words[0];
}

unsigned ballot(unsigned mask, bool predicate) {
  check_mask("__ballot_sync", mask);
  const Parts& parts = together("__ballot_sync", {{predicate}});
  unsigned votes = 0;
  for (unsigned i = 0; i < kLanes; ++i) votes |= static_cast<unsigned>(parts.of[i].words[0]) << i;
  return votes;
}

// PTX m16n8k256 .b1: with g = lane / 4 and t = lane % 4, a0 and a2 are words t and t + 4 of row g,
// a1 and a3 those of row g + 8, b0 and b1 those of column g; c[0] and c[1] are row g, columns 2t
// and 2t + 1, c[2] and c[3] row g + 8.
Counts matrix_product(unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                      unsigned b1) {
  const auto both = [](unsigned low, unsigned high) {
    return low | static_cast<unsigned long long>(high) << 32;
  };
  const Parts& parts = together("mma_and_popc", {{both(a0, a2), both(a1, a3), both(b0, b1)}});
  const unsigned g = lane() / 4, t = lane() % 4;
  Counts counts{};
  for (unsigned word = 0; word < 4; ++word) {
    const Part& row = parts.of[4 * g + word];
    for (unsigned i = 0; i < 2; ++i) {
      const unsigned long long column = parts.of[4 * (2 * t + i) + word].words[2];
      counts.c[i] += __builtin_popcountll(row.words[0] & column);
      counts.c[2 + i] += __builtin_popcountll(row.words[1] & column);
    }
  }
  return counts;
}

void copy_async(void* to, const void* from, unsigned bytes, bool valid) {
  LOWBIT_RULE(lies_in(to, bytes, block.shared, block.launch.shared_bytes),
              "an asynchronous copy to byte %td of %u bytes of shared memory",
              static_cast<unsigned char*>(to) - block.shared, block.launch.shared_bytes);
  LOWBIT_RULE(reinterpret_cast<uintptr_t>(to) % bytes == 0 &&
                  reinterpret_cast<uintptr_t>(from) % bytes == 0,
              "an asynchronous copy of %u bytes from %p to byte %td; both must be aligned to it",
              bytes, from, static_cast<unsigned char*>(to) - block.shared);
  if (valid) touch(from, bytes, false);
  touch(to, bytes, true);
  std::memset(to, kInFlight, bytes);
  self().copies.push_back({static_cast<unsigned char*>(to), valid ? from : nullptr, bytes});
}

void commit_copies() { self().groups.push_back(self().copies.size()); }

void wait_for_copies(unsigned groups_in_flight) {
  Fiber& fiber = self();
  if (fiber.groups.size() <= groups_in_flight) return;
  const ptrdiff_t landed = static_cast<ptrdiff_t>(fiber.groups.size() - groups_in_flight);
  const ptrdiff_t end = static_cast<ptrdiff_t>(fiber.groups[landed - 1]);
  for (ptrdiff_t i = 0; i < end; ++i) {
    const Copy& copy = fiber.copies[i];
    touch(copy.to, copy.bytes, true);
    if (copy.from)
      std::memcpy(copy.to, copy.from, copy.bytes);
    else
      std::memset(copy.to, 0, copy.bytes);
  }
  fiber.copies.erase(fiber.copies.begin(), fiber.copies.begin() + end);
  fiber.groups.erase(fiber.groups.begin(), fiber.groups.begin() + landed);
  for (size_t& group : fiber.groups) group -= end;
}

int run(const Launch& launch) {
  block.error[0] = 0;
  block.launch = launch;
  blockIdx = {0, 0, 0};
  gridDim = launch.grid;
  blockDim = {launch.threads, 1, 1};
  const Index grid = launch.grid;
  if (launch.threads == 0 || launch.threads > kMaxThreads || launch.threads % kLanes != 0)
    report("a block of %u threads; it takes 32 to 1024, a multiple of 32", launch.threads);
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffff || grid.y > 65535 ||
      grid.z > 65535)
    report("a grid of (%u, %u, %u); it takes 1 to (2147483647, 65535, 65535)", grid.x, grid.y,
           grid.z);
  if (launch.shared_bytes > kMaxShared)
    report("%u bytes of shared memory; a block has at most %u", launch.shared_bytes, kMaxShared);
  if (block.error[0]) return 1;

  if (block.bytes.size() < launch.shared_bytes) block.bytes.resize(launch.shared_bytes);
  block.random = (launch.seed + 1) * 0x9E3779B97F4A7C15u | 1;
  // Aligned to 16 bytes and no more, which is what a kernel may count on.
  const auto memory = reinterpret_cast<uintptr_t>(block.memory.get());
  block.shared = block.memory.get() + ((memory + 31) / 32 * 32 - memory) + kMargin / 2 + 16;

  std::vector<uint64_t> order(static_cast<uint64_t>(grid.x) * grid.y * grid.z);
  for (uint64_t i = 0; i < order.size(); ++i) order[i] = i;
  shuffle_order(order.data(), order.size());
  for (const uint64_t i : order) {
    blockIdx = {static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                static_cast<unsigned>(i / grid.x / grid.y)};
    if (!run_block()) return 1;
  }
  return 0;
}

}  // namespace on_cpu

extern "C" {

__attribute__((visibility("default"))) const char* launch_error() { return on_cpu::block.error; }

// What the compiler calls for -fsanitize=thread.
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
#define LOWBIT_TOUCH(bytes)                                                                  \
  void __tsan_read##bytes(void* p) { on_cpu::touch(p, bytes, false); }                       \
  void __tsan_write##bytes(void* p) { on_cpu::touch(p, bytes, true); }                       \
  void __tsan_unaligned_read##bytes(void* p) { on_cpu::touch(p, bytes, false); }             \
  void __tsan_unaligned_write##bytes(void* p) { on_cpu::touch(p, bytes, true); }
LOWBIT_TOUCH(1)
LOWBIT_TOUCH(2)
LOWBIT_TOUCH(4)
LOWBIT_TOUCH(8)
LOWBIT_TOUCH(16)
void __tsan_read_range(void* p, size_t bytes) { on_cpu::touch(p, bytes, false); }
void __tsan_write_range(void* p, size_t bytes) { on_cpu::touch(p, bytes, true); }
void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
  on_cpu::touch(from, bytes, false);
  on_cpu::touch(to, bytes, true);
  return std::memcpy(to, from, bytes);
}
void* __tsan_memset(void* to, int value, size_t bytes) {
  on_cpu::touch(to, bytes, true);
  return std::memset(to, value, bytes);
}

// And for -fsanitize=undefined: each is told where first.
struct Place {
  const char* file;
  uint32_t line, column;
};
#define LOWBIT_UNDEFINED(name, what)                                                            \
  void __ubsan_handle_##name##_abort(const Place* place, ...) {                                 \
    const char* const slash = std::strrchr(place->file, '/');                                   \
    on_cpu::report("thread %u: %s:%u: " what, on_cpu::block.thread,                             \
                   slash ? slash + 1 : place->file, place->line);                               \
    on_cpu::give_way(on_cpu::Waits::kReturned, "");                                             \
  }
LOWBIT_UNDEFINED(type_mismatch_v1, "a null or misaligned address")
LOWBIT_UNDEFINED(out_of_bounds, "an index outside of its array")
LOWBIT_UNDEFINED(shift_out_of_bounds, "a shift by as many bits as the type has, or more")
LOWBIT_UNDEFINED(divrem_overflow, "a division by zero")
LOWBIT_UNDEFINED(add_overflow, "an int overflows")
LOWBIT_UNDEFINED(sub_overflow, "an int overflows")
LOWBIT_UNDEFINED(mul_overflow, "an int overflows")
LOWBIT_UNDEFINED(negate_overflow, "an int overflows")

}  // extern "C"
