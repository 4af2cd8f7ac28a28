// AVX2: bytes widened to 16 bits before they are multiplied. VPMADDUBSW, which multiplies bytes,
// adds pairs of products in 16 bits, where 2 * 255 * 127 does not fit.
#include <immintrin.h>

#include "int8_gates.h"
#include "int8_loops.h"
#include "int8_rows.h"

namespace lowbit {
namespace {

struct Avx2 {
  using X = __m256i;  // 16 of 16 bits
  using W = __m256i;
  using I = __m256i;
  static constexpr int kBytes = 16, kRows = 2;
  static constexpr bool kFlipped = false;

  static __m128i load(const void* from) {
    return _mm_loadu_si128(static_cast<const __m128i*>(from));
  }
  static X load_x(const uint8_t* from) { return _mm256_cvtepu8_epi16(load(from)); }
  static W load_w(const int8_t* from) { return _mm256_cvtepi8_epi16(load(from)); }
  template <class T>
  static __m256i load_part(const T* from, int n) {
    alignas(16) T bytes[kBytes] = {};
    memcpy(bytes, from, static_cast<size_t>(n));
    return T(-1) < T(0) ? _mm256_cvtepi8_epi16(load(bytes)) : _mm256_cvtepu8_epi16(load(bytes));
  }
  static X ones() { return _mm256_set1_epi16(1); }
  static I zero() { return _mm256_setzero_si256(); }
  static I dot(I s, X x, W w) { return _mm256_add_epi32(s, _mm256_madd_epi16(x, w)); }
  static void reduce(const I (&s)[4], int32_t* to) {
    const I a = _mm256_hadd_epi32(s[0], s[1]), b = _mm256_hadd_epi32(s[2], s[3]);
    const I c = _mm256_hadd_epi32(a, b);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                     _mm_add_epi32(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1)));
  }
};

bool supported() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

}  // namespace

extern const Int8Core kInt8Avx2;
const Int8Core kInt8Avx2 = {"avx2",  "avx2",
                            supported, no_packed_form,
                            no_pack, Rows<Avx2>::multiply, LOWBIT_INT8_LOOPS};

}  // namespace lowbit
