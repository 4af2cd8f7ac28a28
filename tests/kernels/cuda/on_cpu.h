// CUDA C++ on the processor, to test what kernels compute without a GPU: the part of the language
// that lowbit/kernels/cuda uses, and the functions of its device.cuh.
//
// One block runs at a time and each of its threads is a fiber, which gives way where it must wait:
// at barriers and at what a warp does together. Everything that a GPU leaves open is done the
// unkind way, so that a missing barrier or wait shows: a warp runs as far as it can before the
// next, blocks, warps and lanes go in a shuffled order, shared memory starts as garbage, and an
// asynchronous copy leaves garbage until the wait that covers it.
//
// A launch that breaks a rule stops there and says which: launch_error().
#pragma once

#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__x86_64__) && defined(__linux__) && !defined(LOWBIT_UCONTEXT)
#define LOWBIT_ASSEMBLY_SWITCH
#else
#include <ucontext.h>
#endif

#define LOWBIT_ON_CPU_EXPORT extern "C" __attribute__((visibility("default")))

#define __global__
#define __device__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define SHARED_MEMORY(name) unsigned char* name = on_cpu::block.shared

struct Index {
  unsigned x, y, z;
};
static Index threadIdx, blockIdx, blockDim, gridDim;

#define LOWBIT_VECTORS(name, type)                                                             \
  struct alignas(2 * sizeof(type)) name##2 {                                                   \
    type x, y;                                                                                 \
  };                                                                                           \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; }
#define LOWBIT_VECTORS_OF_4(name, type)                                                        \
  struct alignas(4 * sizeof(type)) name##4 {                                                   \
    type x, y, z, w;                                                                           \
  };                                                                                           \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
LOWBIT_VECTORS(int, int)
LOWBIT_VECTORS(uint, unsigned)
LOWBIT_VECTORS(ulonglong, unsigned long long)
LOWBIT_VECTORS(float, float)
LOWBIT_VECTORS_OF_4(int, int)
LOWBIT_VECTORS_OF_4(uint, unsigned)
LOWBIT_VECTORS_OF_4(float, float)
#undef LOWBIT_VECTORS
#undef LOWBIT_VECTORS_OF_4

namespace on_cpu {
namespace {

constexpr int kLanes = 32;
constexpr unsigned kMaxThreads = 1024, kMaxShared = 227 * 1024;  // of compute capability 9.0
constexpr unsigned char kGarbage = 0xCD, kInFlight = 0xA5, kMargin = 0x5A;
constexpr size_t kMarginBytes = 1024;
// 64 KB and some cache lines: with a power of two all stacks would share the same few lines.
constexpr size_t kStackBytes = 64 * 1024 + 9 * 64;

struct Copy {
  void* to;
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
  const char* call;        // that it waits at
  unsigned calls;          // of its warp, so far
  std::vector<Copy> copies;      // the oldest first
  std::vector<size_t> groups;    // where each committed group ends in copies
};

// What the lanes bring to a call of the warp. There are two, for a lane may bring its part to the
// next call while others still read this one.
struct Parts {
  alignas(16) unsigned char bytes[kLanes][32];
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Parts> parts;  // two a warp
  std::unique_ptr<unsigned char[]> stacks{new unsigned char[kMaxThreads * kStackBytes]};
  std::unique_ptr<unsigned char[]> memory{new unsigned char[kMaxShared + 2 * kMarginBytes + 64]};
  unsigned char* shared;
  size_t shared_bytes;
  Fiber main;
  unsigned thread;  // that runs
  void (*kernel)(const void*);
  const void* params;
  uint64_t random;
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

inline void switch_fiber(Fiber& from, Fiber& to) {
  lowbit_switch(&from.stack_pointer, to.stack_pointer);
}

inline void prepare(Fiber& fiber, unsigned char* stack, void (*entry)()) {
  const auto top = (reinterpret_cast<uintptr_t>(stack) + kStackBytes) & ~uintptr_t(63);
  void** const words = reinterpret_cast<void**>(top);
  words[-1] = nullptr;  // where entry would return to
  words[-2] = reinterpret_cast<void*>(entry);
  for (int i = 3; i <= 8; ++i) words[-i] = nullptr;
  fiber.stack_pointer = words - 8;
}
#else
inline void switch_fiber(Fiber& from, Fiber& to) { swapcontext(&from.context, &to.context); }

inline void prepare(Fiber& fiber, unsigned char* stack, void (*entry)()) {
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = stack;
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
}
#endif

inline Fiber& self() { return block.fibers[block.thread]; }

__attribute__((noinline)) void give_way(Waits waits, const char* call) {
  Fiber& fiber = self();
  fiber.waits = waits;
  fiber.call = call;
  switch_fiber(fiber, block.main);
}

__attribute__((format(printf, 1, 2))) inline void report(const char* format, ...) {
  if (block.error[0]) return;
  va_list values;
  va_start(values, format);
  int n = std::vsnprintf(block.error, sizeof block.error, format, values);
  va_end(values);
  if (n < 0 || n >= static_cast<int>(sizeof block.error)) return;
  std::snprintf(block.error + n, sizeof block.error - n, " [block (%u, %u, %u)]", blockIdx.x,
                blockIdx.y, blockIdx.z);
}

// Ends the launch from within a thread, which is never continued.
#define LOWBIT_RULE(kept, format, ...)                                       \
  do {                                                                       \
    if (!(kept)) {                                                           \
      on_cpu::report("thread %u: " format, on_cpu::block.thread, __VA_ARGS__); \
      on_cpu::give_way(on_cpu::Waits::kReturned, "");                         \
    }                                                                        \
  } while (0)

inline void run_thread() {
  block.kernel(block.params);
  give_way(Waits::kReturned, "");
}

inline void resume(unsigned thread) {
  block.thread = thread;
  threadIdx = {thread, 0, 0};
  block.fibers[thread].waits = Waits::kNot;
  switch_fiber(block.main, block.fibers[thread]);
}

template <class T>
void shuffle(T* items, size_t count) {
  for (size_t i = count; i > 1; --i) {
    block.random ^= block.random << 13;
    block.random ^= block.random >> 7;
    block.random ^= block.random << 17;
    std::swap(items[i - 1], items[(block.random >> 32) % i]);
  }
}

inline unsigned count(unsigned first, unsigned threads, Waits waits) {
  unsigned n = 0;
  for (unsigned t = first; t < first + threads; ++t) n += block.fibers[t].waits == waits;
  return n;
}

// Runs a warp until all its lanes have returned or wait for the rest of the block.
inline bool run_warp(unsigned warp) {
  const unsigned first = warp * kLanes;
  unsigned char order[kLanes];
  for (int i = 0; i < kLanes; ++i) order[i] = static_cast<unsigned char>(i);
  for (;;) {
    shuffle(order, kLanes);
    for (unsigned char lane : order) {
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

inline bool margins_are_kept() {
  for (size_t i = 0; i < kMarginBytes; ++i) {
    if (block.shared[-1 - static_cast<ptrdiff_t>(i)] != kMargin)
      report("wrote %zu bytes before shared memory", i + 1);
    if (block.shared[block.shared_bytes + i] != kMargin)
      report("wrote at byte %zu of %zu bytes of shared memory", block.shared_bytes + i,
             block.shared_bytes);
  }
  return !block.error[0];
}

inline bool run_block() {
  std::memset(block.shared - kMarginBytes, kMargin, block.shared_bytes + 2 * kMarginBytes);
  std::memset(block.shared, kGarbage, block.shared_bytes);
  const unsigned threads = blockDim.x;
  for (unsigned t = 0; t < threads; ++t) {
    Fiber& fiber = block.fibers[t];
    prepare(fiber, block.stacks.get() + t * kStackBytes, run_thread);
    fiber.waits = Waits::kNot;
    fiber.calls = 0;
    fiber.copies.clear();
    fiber.groups.clear();
  }
  unsigned char order[kMaxThreads / kLanes];
  const unsigned warps = threads / kLanes;
  for (unsigned w = 0; w < warps; ++w) order[w] = static_cast<unsigned char>(w);
  for (;;) {
    shuffle(order, warps);
    for (unsigned w = 0; w < warps; ++w)
      if (!run_warp(order[w])) return false;
    const unsigned waiting = count(0, threads, Waits::kForBlock);
    if (waiting == 0) return margins_are_kept();
    if (waiting < threads) {
      report("deadlock: %u of %u threads wait at __syncthreads, %u have returned", waiting,
             threads, threads - waiting);
      return false;
    }
    for (unsigned t = 0; t < threads; ++t) block.fibers[t].waits = Waits::kNot;
  }
}

inline int launch(void (*kernel)(const void*), const void* params, Index grid, unsigned threads,
                  unsigned shared_bytes, uint64_t seed) {
  block.error[0] = 0;
  blockIdx = {0, 0, 0};
  gridDim = grid;
  blockDim = {threads, 1, 1};
  if (threads == 0 || threads > kMaxThreads || threads % kLanes != 0)
    report("a block of %u threads; it takes 32 to 1024, a multiple of 32", threads);
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffff || grid.y > 65535 ||
      grid.z > 65535)
    report("a grid of (%u, %u, %u); it takes 1 to (2147483647, 65535, 65535)", grid.x, grid.y,
           grid.z);
  if (shared_bytes > kMaxShared)
    report("%u bytes of shared memory; a block has at most %u", shared_bytes, kMaxShared);
  if (block.error[0]) return 1;

  block.kernel = kernel;
  block.params = params;
  block.random = (seed + 1) * 0x9E3779B97F4A7C15u | 1;
  block.fibers.resize(kMaxThreads);
  block.parts.resize(2 * kMaxThreads / kLanes);
  // Aligned to 16 bytes and no more, which is what a kernel may count on.
  const auto memory = reinterpret_cast<uintptr_t>(block.memory.get()) + kMarginBytes;
  block.shared = reinterpret_cast<unsigned char*>((memory + 31) / 32 * 32 + 16);
  block.shared_bytes = shared_bytes;

  std::vector<uint64_t> order(static_cast<uint64_t>(grid.x) * grid.y * grid.z);
  for (uint64_t i = 0; i < order.size(); ++i) order[i] = i;
  shuffle(order.data(), order.size());
  for (uint64_t i : order) {
    blockIdx = {static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                static_cast<unsigned>(i / grid.x / grid.y)};
    if (!run_block()) return 1;
  }
  return 0;
}

inline unsigned lane() { return block.thread % kLanes; }

// Gives part to the warp, waits for all lanes, and returns what they gave.
template <class T>
const Parts& together(const char* call, const T& part) {
  static_assert(sizeof(T) <= sizeof(Parts::bytes[0]), "a lane's part is larger than its place");
  Parts& parts = block.parts[2 * (block.thread / kLanes) + self().calls++ % 2];
  std::memcpy(parts.bytes[lane()], &part, sizeof(T));
  give_way(Waits::kForWarp, call);
  return parts;
}

template <class T>
T part_of(const Parts& parts, unsigned lane) {
  T part;
  std::memcpy(&part, parts.bytes[lane], sizeof(T));
  return part;
}

inline void check_mask(const char* call, unsigned mask) {
  LOWBIT_RULE(mask == 0xffffffffu, "%s of mask 0x%08x; only full warps run here", call, mask);
}

inline void copy_async(void* to, const void* from, unsigned bytes, bool valid) {
  const auto at = static_cast<unsigned char*>(to) - block.shared;
  LOWBIT_RULE(at >= 0 && at + bytes <= static_cast<ptrdiff_t>(block.shared_bytes),
              "an asynchronous copy to byte %td of %zu bytes of shared memory", at,
              block.shared_bytes);
  LOWBIT_RULE(at % bytes == 0 && reinterpret_cast<uintptr_t>(from) % bytes == 0,
              "an asynchronous copy of %u bytes from %p to byte %td; both must be aligned to it",
              bytes, from, at);
  std::memset(to, kInFlight, bytes);
  self().copies.push_back({to, valid ? from : nullptr, bytes});
}

inline void wait_for_copies(size_t groups_in_flight) {
  Fiber& fiber = self();
  if (fiber.groups.size() <= groups_in_flight) return;
  const size_t landed = fiber.groups.size() - groups_in_flight;
  const size_t end = fiber.groups[landed - 1];
  for (size_t i = 0; i < end; ++i) {
    const Copy& copy = fiber.copies[i];
    if (copy.from)
      std::memcpy(copy.to, copy.from, copy.bytes);
    else
      std::memset(copy.to, 0, copy.bytes);
  }
  fiber.copies.erase(fiber.copies.begin(), fiber.copies.begin() + static_cast<ptrdiff_t>(end));
  fiber.groups.erase(fiber.groups.begin(), fiber.groups.begin() + static_cast<ptrdiff_t>(landed));
  for (size_t& group : fiber.groups) group -= end;
}

}  // namespace
}  // namespace on_cpu

inline void __syncthreads() { on_cpu::give_way(on_cpu::Waits::kForBlock, "__syncthreads"); }

inline void __syncwarp(unsigned mask = 0xffffffffu) {
  on_cpu::check_mask("__syncwarp", mask);
  on_cpu::together("__syncwarp", 0);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int lane) {
  on_cpu::check_mask("__shfl_sync", mask);
  const auto& parts = on_cpu::together("__shfl_sync", value);
  return on_cpu::part_of<T>(parts, static_cast<unsigned>(lane) % on_cpu::kLanes);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
  on_cpu::check_mask("__shfl_xor_sync", mask);
  const unsigned lane = on_cpu::lane() ^ static_cast<unsigned>(lanes);
  const auto& parts = on_cpu::together("__shfl_xor_sync", value);
  return lane < on_cpu::kLanes ? on_cpu::part_of<T>(parts, lane) : value;
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  on_cpu::check_mask("__ballot_sync", mask);
  const auto& parts = on_cpu::together("__ballot_sync", predicate);
  unsigned votes = 0;
  for (unsigned i = 0; i < on_cpu::kLanes; ++i)
    votes |= static_cast<unsigned>(on_cpu::part_of<int>(parts, i) != 0) << i;
  return votes;
}

// PTX m16n8k256 .b1: with g = lane / 4 and t = lane % 4, a[0] and a[2] are words t and t + 4 of row
// g, a[1] and a[3] those of row g + 8, b[0] and b[1] those of column g; c[0] and c[1] are row g,
// columns 2t and 2t + 1, c[2] and c[3] row g + 8.
inline void mma_and_popc(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  struct Part {
    unsigned a[4], b[2];
  };
  const Part part{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const auto& parts = on_cpu::together("mma_and_popc", part);
  const unsigned g = on_cpu::lane() / 4, t = on_cpu::lane() % 4;
  for (unsigned word = 0; word < 4; ++word) {
    const Part row = on_cpu::part_of<Part>(parts, 4 * g + word);
    for (unsigned i = 0; i < 2; ++i) {
      const Part column = on_cpu::part_of<Part>(parts, 4 * (2 * t + i) + word);
      c[i] += __builtin_popcount(row.a[0] & column.b[0]) +
              __builtin_popcount(row.a[2] & column.b[1]);
      c[2 + i] += __builtin_popcount(row.a[1] & column.b[0]) +
                  __builtin_popcount(row.a[3] & column.b[1]);
    }
  }
}

inline void copy_async_8(void* to, const void* from, bool valid) {
  on_cpu::copy_async(to, from, 8, valid);
}
inline void copy_async_16(void* to, const void* from) { on_cpu::copy_async(to, from, 16, true); }
inline void copy_commit() {
  on_cpu::Fiber& fiber = on_cpu::self();
  fiber.groups.push_back(fiber.copies.size());
}
template <int N>
void copy_wait() {
  on_cpu::wait_for_copies(N);
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline unsigned __float_as_uint(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float __uint_as_float(unsigned x) {
  float value;
  std::memcpy(&value, &x, sizeof value);
  return value;
}
template <class T>
T __ldg(const T* from) {
  return *from;
}
// Of mixed integers in their common type, of a NaN and a number the number, as CUDA has them.
template <class A, class B>
std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) return std::fmin(T(a), T(b));
  return T(a) < T(b) ? T(a) : T(b);
}
template <class A, class B>
std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) return std::fmax(T(a), T(b));
  return T(a) < T(b) ? T(b) : T(a);
}

LOWBIT_ON_CPU_EXPORT const char* launch_error() { return on_cpu::block.error; }

// launch_<kernel>: 0, or 1 with the reason in launch_error(). params_bytes_<kernel>: sizeof Params.
#define LOWBIT_LAUNCH(kernel, Params)                                                            \
  LOWBIT_ON_CPU_EXPORT int launch_##kernel(const void* params, unsigned grid_x, unsigned grid_y, \
                                           unsigned grid_z, unsigned threads,                    \
                                           unsigned shared_bytes, unsigned long long seed) {     \
    return on_cpu::launch([](const void* p) { kernel(*static_cast<const Params*>(p)); }, params, \
                          {grid_x, grid_y, grid_z}, threads, shared_bytes, seed);                \
  }                                                                                              \
  LOWBIT_ON_CPU_EXPORT unsigned long long params_bytes_##kernel() { return sizeof(Params); }
