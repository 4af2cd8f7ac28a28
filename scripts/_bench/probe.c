// What the processor itself can do: its clock, its instruction ceilings, its memory.
#include <stdint.h>

// n dependent additions: a cycle each.
uint64_t chain(uint64_t n) {
  uint64_t x = n, one = 1;
  for (uint64_t i = 0; i < n; i += 16) {
#if defined(__x86_64__)
#define STEP "add %1, %0\n\t"
#elif defined(__aarch64__)
#define STEP "add %0, %0, %1\n\t"
#endif
#define FOUR STEP STEP STEP STEP
    __asm__ volatile(FOUR FOUR FOUR FOUR : "+r"(x) : "r"(one));
  }
  return x;
}

// Reads bytes of memory, a multiple of 512, in eight streams of vectors; returns their xor.
typedef uint64_t vector __attribute__((vector_size(64), aligned(4), may_alias));

uint64_t read_only(const void* memory, uint64_t bytes) {
  const vector* v = (const vector*)memory;
  vector sums[8] = {{0}};
  for (uint64_t i = 0; i < bytes / 64; i += 8)
    for (int j = 0; j < 8; ++j) sums[j] ^= v[i + j];
  for (int j = 1; j < 8; ++j) sums[0] ^= sums[j];
  uint64_t x = 0;
  for (int j = 0; j < 8; ++j) x ^= sums[0][j];
  return x;
}

#if defined(__AVX512F__) && defined(__AVX512VPOPCNTDQ__)
#define POPCOUNT 1
#else
#define POPCOUNT 0
#endif

int has_popcount(void) { return POPCOUNT; }

#if POPCOUNT
// Eight sums, zmm0 to zmm7. zmm24 and zmm25 are the operands, zmm16 to zmm23 scratch.
#define EACH(STEP) STEP(0, 8, 16) STEP(1, 9, 17) STEP(2, 10, 18) STEP(3, 11, 19) \
    STEP(4, 12, 20) STEP(5, 13, 21) STEP(6, 14, 22) STEP(7, 15, 23)
#define R(n) "%%zmm" #n
#define BIT_PRODUCTS(sum, old, new)             \
  "vpxord %%zmm24, %%zmm25, " R(new) "\n\t"     \
  "vpopcntd " R(new) ", " R(new) "\n\t"         \
  "vpaddd " R(new) ", " R(sum) ", " R(sum) "\n\t"
// Two words of prefix-coded operands: rises of the running parity.
#define PREFIX_PRODUCTS(sum, old, new)                      \
  "vpxord %%zmm24, %%zmm25, %%zmm26\n\t"                    \
  "vpxord %%zmm24, %%zmm25, " R(new) "\n\t"                 \
  "vpternlogd $0x3a, " R(new) ", " R(old) ", %%zmm26\n\t"   \
  "vpopcntd %%zmm26, %%zmm26\n\t"                           \
  "vpaddd %%zmm26, " R(sum) ", " R(sum) "\n\t"
#define FMA(sum) "vfmadd231ps %%zmm24, %%zmm25, " R(sum) "\n\t"
// Three at once, as one takes four cycles and two start in each.
#define FLOAT_PRODUCTS(sum, old, new) FMA(sum) FMA(old) FMA(new)

#define ASM(text)                                                                              \
  __asm__ volatile(text ::: "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",     \
                   "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15",        \
                   "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23",      \
                   "xmm24", "xmm25", "xmm26")

// Per round of each: 8 vectors of 512 products, 8 times two of them, 24 vectors of 16.
void bit_products(uint64_t rounds) {
  for (uint64_t i = 0; i < rounds; ++i) ASM(EACH(BIT_PRODUCTS));
}
void prefix_products(uint64_t rounds) {
  for (uint64_t i = 0; i < rounds; ++i) ASM(EACH(PREFIX_PRODUCTS));
}
void float_products(uint64_t rounds) {
  for (uint64_t i = 0; i < rounds; ++i) ASM(EACH(FLOAT_PRODUCTS));
}
#endif
