// What AVX2 and AVX-512BW share: turning and packing floats in 256-bit vectors.
#pragma once
#include <immintrin.h>

#include "block.h"

namespace lowbit {
namespace {

// The first n of eight lanes.
inline __m256i first_lanes(int n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane);
}

inline __m256i load_256(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}

inline void store_256(void* to, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(to), v); }

// to[j * to_stride + i] = from[i * from_stride + j], 8 x 8.
inline void transpose_8x8(const float* from, ptrdiff_t from_stride, float* to,
                          ptrdiff_t to_stride) {
  for (int half = 0; half < 8; half += 4) {
    __m256 r[4];
    for (int i = 0; i < 4; ++i)
      r[i] = _mm256_insertf128_ps(
          _mm256_castps128_ps256(_mm_loadu_ps(from + i * from_stride + half)),
          _mm_loadu_ps(from + (i + 4) * from_stride + half), 1);
    const __m256 a = _mm256_unpacklo_ps(r[0], r[1]), b = _mm256_unpackhi_ps(r[0], r[1]);
    const __m256 c = _mm256_unpacklo_ps(r[2], r[3]), d = _mm256_unpackhi_ps(r[2], r[3]);
    float* out = to + half * to_stride;
    _mm256_storeu_ps(out, _mm256_shuffle_ps(a, c, 0x44));
    _mm256_storeu_ps(out + to_stride, _mm256_shuffle_ps(a, c, 0xee));
    _mm256_storeu_ps(out + 2 * to_stride, _mm256_shuffle_ps(b, d, 0x44));
    _mm256_storeu_ps(out + 3 * to_stride, _mm256_shuffle_ps(b, d, 0xee));
  }
}

// Signs of up to 64 consecutive floats.
inline uint64_t signs_of_row(const float* x, const float* t, int count) {
  uint64_t word = 0;
  int c = 0;
  for (; c + 8 <= count; c += 8) {
    const __m256 edge = t ? _mm256_loadu_ps(t + c) : _mm256_setzero_ps();
    const __m256 below = _mm256_cmp_ps(_mm256_loadu_ps(x + c), edge, _CMP_LT_OQ);
    word |= uint64_t(uint32_t(_mm256_movemask_ps(below))) << c;
  }
  if (c < count) {
    // Lanes that are not there are 0 on both sides.
    const __m256i part = first_lanes(count - c);
    const __m256 edge = t ? _mm256_maskload_ps(t + c, part) : _mm256_setzero_ps();
    const __m256 below = _mm256_cmp_ps(_mm256_maskload_ps(x + c, part), edge, _CMP_LT_OQ);
    word |= uint64_t(uint32_t(_mm256_movemask_ps(below))) << c;
  }
  return word;
}

// Signs of up to 32 channels of 8 * N pixels, 8 (N - 1) + last of which are there.
template <int N>
inline void signs_of_planes(const float* x, ptrdiff_t channel_stride, int channels, const float* t,
                            __m256i part, bool whole, __m256i (&bits)[N]) {
  for (int v = 0; v < N; ++v) bits[v] = _mm256_setzero_si256();
  for (int c = channels - 1; c >= 0; --c) {
    const float* from = x + c * channel_stride;
    const __m256 edge = t ? _mm256_broadcast_ss(t + c) : _mm256_setzero_ps();
    for (int v = 0; v < N; ++v) {
      const __m256 y =
          whole ? _mm256_loadu_ps(from + 8 * v) : _mm256_maskload_ps(from + 8 * v, part);
      const __m256i below = _mm256_castps_si256(_mm256_cmp_ps(y, edge, _CMP_LT_OQ));
      bits[v] = _mm256_sub_epi32(_mm256_add_epi32(bits[v], bits[v]), below);
    }
  }
}

template <int N>
inline void pack_planes(const float* x, ptrdiff_t channel_stride, int channels, const float* t,
                        int pixels, uint64_t* out, ptrdiff_t pixel_out) {
  __m256i low[N], high[N];
  const bool whole = pixels == 8 * N;
  const __m256i part = first_lanes(pixels - 8 * (N - 1));
  const int first = channels < 32 ? channels : 32;
  signs_of_planes<N>(x, channel_stride, first, t, part, whole, low);
  signs_of_planes<N>(x + 32 * channel_stride, channel_stride, channels - first,
                     t ? t + 32 : nullptr, part, whole, high);
  for (int v = 0; v < N; ++v) {
    const __m256i a = _mm256_unpacklo_epi32(low[v], high[v]);
    const __m256i b = _mm256_unpackhi_epi32(low[v], high[v]);
    const __m256i front = _mm256_permute2x128_si256(a, b, 0x20);
    const __m256i back = _mm256_permute2x128_si256(a, b, 0x31);
    if (pixel_out == 1 && whole) {
      store_256(out + 8 * v, front);
      store_256(out + 8 * v + 4, back);
      continue;
    }
    uint64_t words[8];
    store_256(words, front);
    store_256(words + 4, back);
    for (int p = 0; p < 8 && 8 * v + p < pixels; ++p) out[(8 * v + p) * pixel_out] = words[p];
  }
}

inline void pack_avx2(const float* x, ptrdiff_t pixel_stride, ptrdiff_t channel_stride,
                      int64_t pixels, int channels, const float* t, uint64_t* out,
                      ptrdiff_t word_stride, ptrdiff_t pixel_out) {
  const bool rows = channel_stride == 1 || channels == 1;
  if (!rows && pixel_stride != 1) {
    pack_plain(x, pixel_stride, channel_stride, pixels, channels, t, out, word_stride, pixel_out);
    return;
  }
  for (int c = 0; c < channels; c += 64, out += word_stride) {
    const int count = channels - c < 64 ? channels - c : 64;
    const float* from = x + c * channel_stride;
    const float* edge = t ? t + c : nullptr;
    int64_t p = 0;
    if (rows) {
      for (; p < pixels; ++p)
        out[p * pixel_out] = signs_of_row(from + p * pixel_stride, edge, count);
      continue;
    }
    for (; p + 32 <= pixels; p += 32)
      pack_planes<4>(from + p, channel_stride, count, edge, 32, out + p * pixel_out, pixel_out);
    for (; p < pixels; p += 8)
      pack_planes<1>(from + p, channel_stride, count, edge,
                     pixels - p < 8 ? static_cast<int>(pixels - p) : 8, out + p * pixel_out,
                     pixel_out);
  }
}

}  // namespace
}  // namespace lowbit
