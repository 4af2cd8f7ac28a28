// AVX2 with FMA: products by look-up (lut.h) in vectors of 32 bytes.
#include <immintrin.h>

#include "avx2.h"
#include "epilogue.h"
#include "lut.h"

namespace lowbit {
namespace {

struct Avx2 {
  using B = __m256i;
  static constexpr int kBytes = 32, kPairs = 2;

  template <int R, int C, int N>
  static constexpr bool kOwnGroup = R == 2 && C == 2 && N == 3;

  // Lut::add for two pairs and all filters. Sums, tables and temporaries fill the 16 registers;
  // compilers that order the instructions themselves spill within the loop (230 to 265 products
  // a cycle).
  template <int At>
  static inline __attribute__((always_inline)) void look_up_four(const uint8_t* tables,
                                                                 const uint8_t* w,
                                                                 const uint8_t* x, bool fresh,
                                                                 B (&t)[2][2]) {
    B first, second, filters;
    uint64_t at;
#define LOWBIT_TABLES                             \
  "movzwl %c[x_at](%[x]), %k[at]\n\t"             \
  "vbroadcasti128 (%[tables],%q[at]), %[first]\n\t" \
  "movzwl 4+%c[x_at](%[x]), %k[at]\n\t"           \
  "vbroadcasti128 (%[tables],%q[at]), %[second]\n\t"
    if (fresh) {
      asm volatile(LOWBIT_TABLES
                   "vmovdqu %c[w_at](%[w]), %[filters]\n\t"
                   "vpshufb %[filters], %[first], %[t00]\n\t"
                   "vpshufb %[filters], %[second], %[t10]\n\t"
                   "vmovdqu 32+%c[w_at](%[w]), %[filters]\n\t"
                   "vpshufb %[filters], %[first], %[t01]\n\t"
                   "vpshufb %[filters], %[second], %[t11]\n\t"
                   : [t00] "=&x"(t[0][0]), [t01] "=&x"(t[0][1]), [t10] "=&x"(t[1][0]),
                     [t11] "=&x"(t[1][1]), [first] "=&x"(first), [second] "=&x"(second),
                     [filters] "=&x"(filters), [at] "=&r"(at)
                   : [tables] "r"(tables), [w] "r"(w), [x] "r"(x), [w_at] "i"(At * kBlock),
                     [x_at] "i"(lut_offset(At, 0))
                   : "memory");
    } else {
      B one;
      asm volatile(LOWBIT_TABLES
                   "vmovdqu %c[w_at](%[w]), %[filters]\n\t"
                   "vpshufb %[filters], %[first], %[one]\n\t"
                   "vpaddb %[one], %[t00], %[t00]\n\t"
                   "vpshufb %[filters], %[second], %[one]\n\t"
                   "vpaddb %[one], %[t10], %[t10]\n\t"
                   "vmovdqu 32+%c[w_at](%[w]), %[filters]\n\t"
                   "vpshufb %[filters], %[first], %[first]\n\t"
                   "vpaddb %[first], %[t01], %[t01]\n\t"
                   "vpshufb %[filters], %[second], %[second]\n\t"
                   "vpaddb %[second], %[t11], %[t11]\n\t"
                   : [t00] "+x"(t[0][0]), [t01] "+x"(t[0][1]), [t10] "+x"(t[1][0]),
                     [t11] "+x"(t[1][1]), [first] "=&x"(first), [second] "=&x"(second),
                     [filters] "=&x"(filters), [one] "=&x"(one), [at] "=&r"(at)
                   : [tables] "r"(tables), [w] "r"(w), [x] "r"(x), [w_at] "i"(At * kBlock),
                     [x_at] "i"(lut_offset(At, 0))
                   : "memory");
    }
#undef LOWBIT_TABLES
  }

  template <int At>
  static inline __attribute__((always_inline)) void add_group(const uint8_t* tables,
                                                              const uint8_t* w, const uint8_t* x,
                                                              B (&whole)[2][2], B (&high)[2][2]) {
    B t[2][2];
    look_up_four<At>(tables, w, x, true, t);
    look_up_four<At + 1>(tables, w, x, false, t);
    look_up_four<At + 2>(tables, w, x, false, t);
    for (int r = 0; r < 2; ++r)
      for (int c = 0; c < 2; ++c)
        asm volatile(
            "vpaddb %[t], %[whole], %[whole]\n\t"
            "vpsrlw $4, %[t], %[t]\n\t"
            "vpaddb %[t], %[high], %[high]\n\t"
            : [whole] "+x"(whole[r][c]), [high] "+x"(high[r][c]), [t] "+x"(t[r][c]));
  }

  static B load(const uint8_t* from) { return load_256(from); }
  // In a register from here on: compilers would fold loads into each use, and put off sums.
  static void hold(B& a) { asm("" : "+x"(a)); }
  static B table(const uint8_t* from) {
    return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static B look_up(B table, B index) { return _mm256_shuffle_epi8(table, index); }
  static B zero() { return _mm256_setzero_si256(); }
  static B all16(int v) { return _mm256_set1_epi16(static_cast<short>(v)); }
  static B both(B a, B b) { return _mm256_and_si256(a, b); }
  static B add8(B a, B b) { return _mm256_add_epi8(a, b); }
  static B add16(B a, B b) { return _mm256_add_epi16(a, b); }
  static B sub16(B a, B b) { return _mm256_sub_epi16(a, b); }
  template <int n>
  static B right16(B a) { return _mm256_srli_epi16(a, n); }
  template <int n>
  static B left16(B a) { return _mm256_slli_epi16(a, n); }
  static B low32(B a) { return _mm256_and_si256(a, _mm256_set1_epi32(0xffff)); }
  static B high32(B a) { return _mm256_srli_epi32(a, 16); }
  static void put(int32_t* to, B v, int shift, bool add) {
    v = _mm256_sll_epi32(v, _mm_cvtsi32_si128(shift));
    store_256(to, add ? _mm256_add_epi32(load_256(to), v) : v);
  }

  using I = __m256i;
  using F = __m256;
  static constexpr int kLanes = 8, kSquare = 8;

  static I load_int(const int32_t* from) { return load_256(from); }
  static I minus_twice(I a, I b) { return _mm256_sub_epi32(a, _mm256_add_epi32(b, b)); }
  static F to_float(I v) { return _mm256_cvtepi32_ps(v); }
  static F as_float(I v) { return _mm256_castsi256_ps(v); }
  static F load(const float* from) { return _mm256_loadu_ps(from); }
  static F load_part(const float* from, int n) {
    return _mm256_maskload_ps(from, first_lanes(n));
  }
  static F load_zero() { return _mm256_setzero_ps(); }
  static void store(float* to, F y) { _mm256_storeu_ps(to, y); }
  static void store_part(float* to, int n, F y) { _mm256_maskstore_ps(to, first_lanes(n), y); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  // Where one operand is NaN, or both are zeros, min and max give the second.
  static F at_least(F y, float edge) { return _mm256_max_ps(_mm256_set1_ps(edge), y); }
  static F at_most(F y, float edge) { return _mm256_min_ps(_mm256_set1_ps(edge), y); }
  static F prelu(F y, F slope) {
    const F keep = _mm256_cmp_ps(y, _mm256_setzero_ps(), _CMP_GE_OQ);
    return _mm256_blendv_ps(_mm256_mul_ps(slope, y), y, keep);
  }
  static uint64_t below(I a, I b) {
    return uint32_t(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(b, a))));
  }
  static uint64_t below(F a, F b) {
    return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_LT_OQ)));
  }
  static void transpose(const float* from, ptrdiff_t from_stride, float* to,
                        ptrdiff_t to_stride) {
    transpose_8x8(from, from_stride, to, to_stride);
  }
};

void block(const Block& b) {
  each_plane(b, Lut<Avx2>::distances);
  Epilogue<Avx2>::finish(b, b.scratch);
}

bool supported() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

void gather(const Gather& g, uint32_t* words, void* out) {
  gather_lines(g, words);
  Lut<Avx2>::code_pixels(words, g.kw, g.pixel_count, out);
}

}  // namespace

extern const Core kAvx2;
const Core kAvx2 = {"avx2",
                    supported,
                    kLutFilterBytes,
                    kLutPixelBytes,
                    Lut<Avx2>::code_filters,
                    Lut<Avx2>::code_pixels,
                    block,
                    pack_avx2,
                    unpack_words,
                    gather};

}  // namespace lowbit
