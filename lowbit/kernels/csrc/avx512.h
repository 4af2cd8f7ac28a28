// What the AVX-512 cores share: floats and int32 in 512-bit vectors, for epilogue.h.
#pragma once
#if defined(__GNUC__) && !defined(__clang__)
// gcc's own intrinsics start their undefined values from themselves.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "avx2.h"

namespace lowbit {
namespace {

// The first n of 16 lanes; none below 0, all above 16.
inline __mmask16 first_16(int n) {
  return n >= 16 ? 0xffff : n <= 0 ? 0 : static_cast<__mmask16>((1u << n) - 1);
}

struct Avx512 {
  using I = __m512i;
  using F = __m512;
  static constexpr int kLanes = 16, kSquare = 8;

  static I load_int(const int32_t* from) { return _mm512_loadu_si512(from); }
  static I minus_twice(I a, I b) { return _mm512_sub_epi32(a, _mm512_add_epi32(b, b)); }
  static F to_float(I v) { return _mm512_cvtepi32_ps(v); }
  static F as_float(I v) { return _mm512_castsi512_ps(v); }
  static F load(const float* from) { return _mm512_loadu_ps(from); }
  static F load_part(const float* from, int n) {
    return _mm512_maskz_loadu_ps(first_16(n), from);
  }
  static F load_zero() { return _mm512_setzero_ps(); }
  static void store(float* to, F y) { _mm512_storeu_ps(to, y); }
  static void store_part(float* to, int n, F y) { _mm512_mask_storeu_ps(to, first_16(n), y); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  // Where one operand is NaN, or both are zeros, min and max give the second.
  static F at_least(F y, float edge) { return _mm512_max_ps(_mm512_set1_ps(edge), y); }
  static F at_most(F y, float edge) { return _mm512_min_ps(_mm512_set1_ps(edge), y); }
  static F prelu(F y, F slope) {
    const __mmask16 keep = _mm512_cmp_ps_mask(y, _mm512_setzero_ps(), _CMP_GE_OQ);
    return _mm512_mask_blend_ps(keep, _mm512_mul_ps(slope, y), y);
  }
  static uint64_t below(I a, I b) { return _mm512_cmplt_epi32_mask(a, b); }
  static uint64_t below(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
  static void transpose(const float* from, ptrdiff_t from_stride, float* to,
                        ptrdiff_t to_stride) {
    transpose_8x8(from, from_stride, to, to_stride);
  }
};

}  // namespace
}  // namespace lowbit
