// CUDA C++ on the processor, to test what kernels compute without a GPU: the part of the language
// that lowbit/kernels/cuda uses, and the functions of its device.cuh. on_cpu.cc runs them.
#pragma once

#include <type_traits>

struct Index {
  unsigned x, y, z;
};
extern Index threadIdx, blockIdx, blockDim, gridDim;

namespace on_cpu {

// Of an array that a kernel may touch.
struct Memory {
  const void* data;
  unsigned long long bytes;
};

struct Launch {
  void (*kernel)(const void* params);
  const void* params;
  unsigned long long params_bytes;
  Index grid;
  unsigned threads, shared_bytes;
  unsigned long long seed;
  const Memory* arrays;  // null: the kernel may touch all memory
  unsigned array_count;
};

struct Counts {
  int c[4];
};

int run(const Launch& launch);
unsigned char* shared_memory();
void barrier();
void sync_warp(unsigned mask);
// These take their values out of the kernel's variables, so that only what the kernel itself reads
// and writes in memory is checked.
unsigned long long shuffle(const char* call, unsigned mask, unsigned long long bits, unsigned lane);
unsigned ballot(unsigned mask, bool predicate);
unsigned lane();
Counts matrix_product(unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1);
void copy_async(void* to, const void* from, unsigned bytes, bool valid);
void commit_copies();
void wait_for_copies(unsigned groups_in_flight);

}  // namespace on_cpu

#define __global__
#define __device__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define SHARED_MEMORY(name) unsigned char* name = on_cpu::shared_memory()

#define LOWBIT_VECTORS(name, type)                             \
  struct alignas(2 * sizeof(type)) name##2 {                   \
    type x, y;                                                 \
  };                                                           \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; }
#define LOWBIT_VECTORS_OF_4(name, type)                        \
  struct alignas(4 * sizeof(type)) name##4 {                   \
    type x, y, z, w;                                           \
  };                                                           \
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

inline void __syncthreads() { on_cpu::barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { on_cpu::sync_warp(mask); }
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return on_cpu::ballot(mask, predicate != 0);
}

namespace on_cpu {
template <class T>
T shuffle_value(const char* call, unsigned mask, T value, unsigned lane) {
  unsigned long long bits = 0;
  __builtin_memcpy(&bits, &value, sizeof value);
  bits = shuffle(call, mask, bits, lane);
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}
}  // namespace on_cpu

template <class T>
T __shfl_sync(unsigned mask, T value, int lane) {
  return on_cpu::shuffle_value("__shfl_sync", mask, value, static_cast<unsigned>(lane) % 32);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
  const unsigned lane = on_cpu::lane() ^ static_cast<unsigned>(lanes);
  return on_cpu::shuffle_value("__shfl_xor_sync", mask, value, lane < 32 ? lane : on_cpu::lane());
}

inline void mma_and_popc(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  const on_cpu::Counts counts = on_cpu::matrix_product(a[0], a[1], a[2], a[3], b[0], b[1]);
  for (int i = 0; i < 4; ++i) c[i] += counts.c[i];
}

inline void copy_async_8(void* to, const void* from, bool valid) {
  on_cpu::copy_async(to, from, 8, valid);
}
inline void copy_async_16(void* to, const void* from) { on_cpu::copy_async(to, from, 16, true); }
inline void copy_commit() { on_cpu::commit_copies(); }
template <int N>
void copy_wait() {
  on_cpu::wait_for_copies(N);
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline float __fmaf_rn(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline unsigned __float_as_uint(float x) {
  unsigned bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float __uint_as_float(unsigned x) {
  float value;
  __builtin_memcpy(&value, &x, sizeof value);
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
  if constexpr (std::is_floating_point_v<T>) return static_cast<T>(__builtin_fmin(a, b));
  return T(a) < T(b) ? T(a) : T(b);
}
template <class A, class B>
std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) return static_cast<T>(__builtin_fmax(a, b));
  return T(a) < T(b) ? T(b) : T(a);
}

// launch_<kernel>: 0, or 1 with the reason in launch_error(). params_bytes_<kernel>: sizeof Params.
#define LOWBIT_LAUNCH(kernel, Params)                                                            \
  extern "C" __attribute__((visibility("default"))) int launch_##kernel(                         \
      const void* params, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned threads,   \
      unsigned shared_bytes, unsigned long long seed, const on_cpu::Memory* arrays,              \
      unsigned array_count) {                                                                    \
    return on_cpu::run({[](const void* p) { kernel(*static_cast<const Params*>(p)); }, params,   \
                        sizeof(Params), {grid_x, grid_y, grid_z}, threads, shared_bytes, seed,   \
                        arrays, array_count});                                                   \
  }                                                                                              \
  extern "C" __attribute__((visibility("default"))) unsigned long long params_bytes_##kernel() { \
    return sizeof(Params);                                                                       \
  }
