// AVX-512 with VNNI, whose VPDPBUSD adds four products of uint8 and int8 to 32 bits.
//
// Few rows are multiplied as they lie. For more the columns are packed: bytes 4 c … 4 c + 3 of 16
// rows of w side by side in a vector, which one broadcast of four bytes of x multiplies.
#include "int8_avx512.h"

namespace lowbit {
namespace {

using I = __m512i;

// Measured on Zen 4: from so many rows on packing pays for itself.
constexpr int64_t kFewRows = 6;

struct Vnni {
  using X = __m512i;
  using W = __m512i;
  using I = __m512i;
  static constexpr int kBytes = 64, kRows = 4;
  static constexpr bool kFlipped = false;

  static X load_x(const uint8_t* from) { return _mm512_loadu_si512(from); }
  static W load_w(const int8_t* from) { return _mm512_loadu_si512(from); }
  static __m512i load_part(const void* from, int n) {
    return _mm512_maskz_loadu_epi8(~uint64_t(0) >> (64 - n), from);
  }
  static X ones() { return _mm512_set1_epi8(1); }
  static I zero() { return _mm512_setzero_si512(); }
  static I dot(I s, X x, W w) { return _mm512_dpbusd_epi32(s, x, w); }
  static void reduce(const I (&s)[4], int32_t* to) { reduce_512(s, to); }
};

// 16 rows of 16 words of 32 bits, turned.
inline void transpose(I (&r)[16]) {
  I t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

// Packed: the sums of the columns, then for each four bytes of depth `groups` vectors.
constexpr size_t kHeader = 4 * 64;

int groups_of(int columns) { return (columns + 15) / 16; }

size_t packed_bytes(int64_t depth) {
  return kHeader + static_cast<size_t>((depth + 63) / 64) * 64 * kTile;
}

void pack(const int8_t* w, ptrdiff_t w_stride, int columns, int64_t depth, int8_t* packed) {
  const int groups = groups_of(columns);
  int32_t* w_sums = reinterpret_cast<int32_t*>(packed);
  for (int g = 0; g < groups; ++g) {
    int8_t* to = packed + kHeader + 64 * g;
    // Of a last group that is not full, the last column stands in for the others.
    const int8_t* rows[16];
    for (int i = 0; i < 16; ++i)
      rows[i] = w + (16 * g + i < columns ? 16 * g + i : columns - 1) * w_stride;
    I total = _mm512_setzero_si512();
    for (int64_t c = 0; c < depth; c += 64) {
      const __mmask64 mask = depth - c < 64 ? ~uint64_t(0) >> (64 - (depth - c)) : ~uint64_t(0);
      I r[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) r[i] = _mm512_maskz_loadu_epi8(mask, rows[i] + c);
      transpose(r);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        total = _mm512_dpbusd_epi32(total, _mm512_set1_epi8(1), r[i]);
        _mm512_store_si512(to + (c / 4 + i) * 64 * groups, r[i]);
      }
    }
    _mm512_store_si512(w_sums + 16 * g, total);
  }
}

// Four bytes anywhere: broadcast from memory, which a copy to a register first would not be.
typedef int32_t __attribute__((aligned(1), may_alias)) Word;

template <int R, int G>
inline void packed_block(const uint8_t* x, ptrdiff_t x_stride, const int8_t* w, int64_t words,
                         int32_t* sums) {
  I s[R][G];
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 3
    for (int g = 0; g < G; ++g) s[i][g] = _mm512_setzero_si512();
  for (int64_t c = 0; c < words; ++c) {
    I b[G];
#pragma GCC unroll 3
    for (int g = 0; g < G; ++g) b[g] = _mm512_load_si512(w + (c * G + g) * 64);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      const I a = _mm512_set1_epi32(*reinterpret_cast<const Word*>(x + i * x_stride + 4 * c));
#pragma GCC unroll 3
      for (int g = 0; g < G; ++g) s[i][g] = _mm512_dpbusd_epi32(s[i][g], a, b[g]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 3
    for (int g = 0; g < G; ++g) _mm512_storeu_si512(sums + i * kTile + 16 * g, s[i][g]);
}

template <int R, int G>
inline void last_block(int rows, const uint8_t* x, ptrdiff_t x_stride, const int8_t* w,
                       int64_t words, int32_t* sums) {
  if constexpr (R > 0) {
    if (rows == R)
      packed_block<R, G>(x, x_stride, w, words, sums);
    else
      last_block<R - 1, G>(rows, x, x_stride, w, words, sums);
  }
}

template <int G>
void multiply_packed(const Products& p, const int8_t* w) {
  const int64_t words = (p.depth + 3) / 4;
  int64_t i = 0;
  for (; i + 8 <= p.rows; i += 8)
    packed_block<8, G>(p.x + i * p.x_stride, p.x_stride, w, words, p.sums + i * kTile);
  last_block<7, G>(static_cast<int>(p.rows - i), p.x + i * p.x_stride, p.x_stride, w, words,
                   p.sums + i * kTile);
}

void multiply(const Products& p) {
  if (!p.packed && p.rows < kFewRows) {
    Rows<Vnni>::multiply(p);
    return;
  }
  const int8_t* packed = p.packed;
  if (!packed) {
    pack(p.w, p.w_stride, p.columns, p.depth, p.scratch);
    packed = p.scratch;
  }
  memcpy(p.w_sums, packed, sizeof(int32_t) * kTile);
  const int groups = groups_of(p.columns);
  if (groups == 1) multiply_packed<1>(p, packed + kHeader);
  if (groups == 2) multiply_packed<2>(p, packed + kHeader);
  if (groups == 3) multiply_packed<3>(p, packed + kHeader);
}

bool supported() { return has_avx512bw() && __builtin_cpu_supports("avx512vnni"); }

}  // namespace

extern const Int8Core kInt8Avx512Vnni;
const Int8Core kInt8Avx512Vnni = {"avx512_vnni", "avx512_vpopcntdq",
                                  supported,     packed_bytes,
                                  pack,          multiply, LOWBIT_INT8_LOOPS};

}  // namespace lowbit
