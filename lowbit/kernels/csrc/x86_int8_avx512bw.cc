// AVX-512BW without VNNI: as AVX2, in vectors of twice the length.
#include "int8_avx512.h"

namespace lowbit {
namespace {

struct Avx512bw {
  using X = __m512i;  // 32 of 16 bits
  using W = __m512i;
  using I = __m512i;
  static constexpr int kBytes = 32, kRows = 4;
  static constexpr bool kFlipped = false;

  static X load_x(const uint8_t* from) {
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static W load_w(const int8_t* from) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static X load_part(const uint8_t* from, int n) {
    return _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(~0u >> (32 - n), from));
  }
  static W load_part(const int8_t* from, int n) {
    return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(~0u >> (32 - n), from));
  }
  static X ones() { return _mm512_set1_epi16(1); }
  static I zero() { return _mm512_setzero_si512(); }
  static I dot(I s, X x, W w) { return _mm512_add_epi32(s, _mm512_madd_epi16(x, w)); }
  static void reduce(const I (&s)[4], int32_t* to) { reduce_512(s, to); }
};

bool supported() { return has_avx512bw(); }

}  // namespace

extern const Int8Core kInt8Avx512bw;
const Int8Core kInt8Avx512bw = {"avx512bw", "avx512bw",
                                supported,  no_packed_form,
                                no_pack,    Rows<Avx512bw>::multiply, LOWBIT_INT8_LOOPS};

}  // namespace lowbit
