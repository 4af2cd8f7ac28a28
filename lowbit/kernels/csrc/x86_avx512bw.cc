// AVX-512 F, BW, DQ and VL without a popcount of vectors: products by look-up (lut.h) in vectors
// of 64 bytes.
#include "avx512.h"
#include "epilogue.h"
#include "lut.h"

namespace lowbit {
namespace {

struct Avx512bw {
  using B = __m512i;
  static constexpr int kBytes = 64, kPairs = 8;

  template <int R, int C, int N>
  static constexpr bool kOwnGroup = false;

  static B load(const void* from) { return _mm512_loadu_si512(from); }
  // In a register from here on: compilers would fold loads into each use, and put off sums.
  static void hold(B& a) { asm("" : "+v"(a)); }
  static B table(const uint8_t* from) {
    return _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static B look_up(B table, B index) { return _mm512_shuffle_epi8(table, index); }
  static B zero() { return _mm512_setzero_si512(); }
  static B all16(int v) { return _mm512_set1_epi16(static_cast<short>(v)); }
  static B both(B a, B b) { return _mm512_and_si512(a, b); }
  static B add8(B a, B b) { return _mm512_add_epi8(a, b); }
  static B add16(B a, B b) { return _mm512_add_epi16(a, b); }
  static B sub16(B a, B b) { return _mm512_sub_epi16(a, b); }
  template <int n>
  static B right16(B a) { return _mm512_srli_epi16(a, n); }
  template <int n>
  static B left16(B a) { return _mm512_slli_epi16(a, n); }
  static B low32(B a) { return _mm512_and_si512(a, _mm512_set1_epi32(0xffff)); }
  static B high32(B a) { return _mm512_srli_epi32(a, 16); }
  static void put(int32_t* to, B v, int shift, bool add) {
    v = _mm512_sll_epi32(v, _mm_cvtsi32_si128(shift));
    _mm512_storeu_si512(to, add ? _mm512_add_epi32(load(to), v) : v);
  }
};

void block(const Block& b) {
  each_plane(b, Lut<Avx512bw>::distances);
  Epilogue<Avx512>::finish(b, b.scratch);
}

bool supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

void gather(const Gather& g, uint32_t* words, void* out) {
  gather_lines(g, words);
  Lut<Avx512bw>::code_pixels(words, g.kw, g.pixel_count, out);
}

}  // namespace

extern const Core kAvx512bw;
const Core kAvx512bw = {"avx512bw",
                        supported,
                        kLutFilterBytes,
                        kLutPixelBytes,
                        Lut<Avx512bw>::code_filters,
                        Lut<Avx512bw>::code_pixels,
                        block,
                        pack_avx2,
                        unpack_words,
                        gather};

}  // namespace lowbit
