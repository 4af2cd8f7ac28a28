// NEON: four filters in the lanes of a register, pixels broadcast.
#pragma once
#include <arm_neon.h>

#include "block.h"
#include "epilogue.h"

namespace lowbit {
namespace {

void copy_words(const uint32_t* words, int kw, void* out) {
  uint32_t* to = static_cast<uint32_t*>(out);
  for (int i = 0; i < kw * kBlock; i += 4) vst1q_u32(to + i, vld1q_u32(words + i));
}

void code_pixels(uint32_t* words, int kw, int, void* out) {
  if (out != words) copy_words(words, kw, out);
}

// Four pixels times four vectors of filters, into rows of the tile. Count is a struct of the
// instruction set: it counts in a register S over at most kWords words, and adds what it counted
// to 32-bit lanes.
template <class Count>
void neon_tile(const uint8_t* w, const uint8_t* x, int kw, int shift, bool add, int32_t* to) {
  using S = typename Count::S;
  uint32x4_t total[4][4];
  for (int p = 0; p < 4; ++p)
    for (int v = 0; v < 4; ++v) total[p][v] = vdupq_n_u32(0);
  for (int k = 0; k < kw; k += Count::kWords) {
    const int end = kw - k < Count::kWords ? kw : k + Count::kWords;
    S sum[4][4];
    for (int p = 0; p < 4; ++p)
      for (int v = 0; v < 4; ++v) sum[p][v] = Count::zero();
    for (int i = k; i < end; ++i) {
      const uint8x16_t pixels = vld1q_u8(x + i * 4 * kBlock);
      uint8x16_t filters[4];
      for (int v = 0; v < 4; ++v) filters[v] = vld1q_u8(w + i * 4 * kBlock + 16 * v);
      const uint32x4_t four = vreinterpretq_u32_u8(pixels);
      const uint8x16_t same[4] = {vreinterpretq_u8_u32(vdupq_laneq_u32(four, 0)),
                                  vreinterpretq_u8_u32(vdupq_laneq_u32(four, 1)),
                                  vreinterpretq_u8_u32(vdupq_laneq_u32(four, 2)),
                                  vreinterpretq_u8_u32(vdupq_laneq_u32(four, 3))};
      for (int p = 0; p < 4; ++p)
        for (int v = 0; v < 4; ++v)
          sum[p][v] = Count::add(sum[p][v], vcntq_u8(veorq_u8(same[p], filters[v])));
    }
    for (int p = 0; p < 4; ++p)
      for (int v = 0; v < 4; ++v) total[p][v] = Count::widen(total[p][v], sum[p][v]);
  }
  const int32x4_t left = vdupq_n_s32(shift);
  for (int p = 0; p < 4; ++p)
    for (int v = 0; v < 4; ++v) {
      int32_t* at = to + p * kBlock + 4 * v;
      const int32x4_t d = vshlq_s32(vreinterpretq_s32_u32(total[p][v]), left);
      vst1q_s32(at, add ? vaddq_s32(vld1q_s32(at), d) : d);
    }
}

template <class Count>
void neon_distances(const uint8_t* filters, const uint8_t* pixels, int kw, int pixel_count,
                    int filter_count, int shift, bool add, int32_t* tile) {
  for (int p = 0; p < pixel_count; p += 4)
    for (int f = 0; f < filter_count; f += 16)
      neon_tile<Count>(filters + 4 * f, pixels + 4 * p, kw, shift, add, tile + p * kBlock + f);
}

// The vectors of epilogue.h.
struct NeonVectors {
  using I = int32x4_t;
  using F = float32x4_t;
  static constexpr int kLanes = 4, kSquare = 4;

  static I load_int(const int32_t* from) { return vld1q_s32(from); }
  static I minus_twice(I a, I b) { return vsubq_s32(a, vaddq_s32(b, b)); }
  static F to_float(I v) { return vcvtq_f32_s32(v); }
  static F as_float(I v) { return vreinterpretq_f32_s32(v); }
  static F load(const float* from) { return vld1q_f32(from); }
  static F load_part(const float* from, int n) {
    float part[4] = {};
    for (int i = 0; i < n; ++i) part[i] = from[i];
    return vld1q_f32(part);
  }
  static F load_zero() { return vdupq_n_f32(0); }
  static void store(float* to, F y) { vst1q_f32(to, y); }
  static void store_part(float* to, int n, F y) {
    // As integers: int32 results come here as well.
    uint32_t part[4];
    vst1q_u32(part, vreinterpretq_u32_f32(y));
    __builtin_memcpy(to, part, sizeof(float) * n);
  }
  static F add(F a, F b) { return vaddq_f32(a, b); }
  static F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
  // By comparison, because max(-0, 0) is 0.
  static F at_least(F y, float edge) {
    const F least = vdupq_n_f32(edge);
    return vbslq_f32(vcltq_f32(y, least), least, y);
  }
  static F at_most(F y, float edge) {
    const F most = vdupq_n_f32(edge);
    return vbslq_f32(vcgtq_f32(y, most), most, y);
  }
  static F prelu(F y, F slope) { return vbslq_f32(vcgezq_f32(y), y, vmulq_f32(slope, y)); }
  static uint64_t bits(uint32x4_t mask) {
    const uint32x4_t place = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(mask, place));
  }
  static uint64_t below(I a, I b) { return bits(vcltq_s32(a, b)); }
  static uint64_t below(F a, F b) { return bits(vcltq_f32(a, b)); }
  static void transpose(const float* from, ptrdiff_t from_stride, float* to,
                        ptrdiff_t to_stride) {
    const F r0 = load(from), r1 = load(from + from_stride);
    const F r2 = load(from + 2 * from_stride), r3 = load(from + 3 * from_stride);
    const float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(r0, r1));
    const float64x2_t b = vreinterpretq_f64_f32(vtrn2q_f32(r0, r1));
    const float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(r2, r3));
    const float64x2_t d = vreinterpretq_f64_f32(vtrn2q_f32(r2, r3));
    store(to, vreinterpretq_f32_f64(vtrn1q_f64(a, c)));
    store(to + to_stride, vreinterpretq_f32_f64(vtrn1q_f64(b, d)));
    store(to + 2 * to_stride, vreinterpretq_f32_f64(vtrn2q_f64(a, c)));
    store(to + 3 * to_stride, vreinterpretq_f32_f64(vtrn2q_f64(b, d)));
  }
};

template <class Count>
void neon_block(const Block& b) {
  each_plane(b, neon_distances<Count>);
  Epilogue<NeonVectors>::finish(b, b.scratch);
}

// Signs of 16 consecutive floats, one byte each, as the bits 1, 2, 4 … 128 twice.
inline uint8x16_t sign_bytes(const float* x, const float* t) {
  static const uint8_t kPlace[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  uint16x4_t quarter[4];
  for (int i = 0; i < 4; ++i) {
    const float32x4_t edge = t ? vld1q_f32(t + 4 * i) : vdupq_n_f32(0);
    quarter[i] = vmovn_u32(vcltq_f32(vld1q_f32(x + 4 * i), edge));
  }
  const uint8x8_t front = vmovn_u16(vcombine_u16(quarter[0], quarter[1]));
  const uint8x8_t back = vmovn_u16(vcombine_u16(quarter[2], quarter[3]));
  return vandq_u8(vcombine_u8(front, back), vld1q_u8(kPlace));
}

inline uint64_t signs_of_row(const float* x, const float* t, int count) {
  if (count == 64) {
    const uint8x16_t a = vpaddq_u8(sign_bytes(x, t), sign_bytes(x + 16, t ? t + 16 : t));
    const uint8x16_t b =
        vpaddq_u8(sign_bytes(x + 32, t ? t + 32 : t), sign_bytes(x + 48, t ? t + 48 : t));
    const uint8x16_t c = vpaddq_u8(a, b);
    return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(c, c)), 0);
  }
  uint64_t word = 0;
  for (int c = 0; c < count; ++c) word |= uint64_t(x[c] < (t ? t[c] : 0.0f)) << c;
  return word;
}

// Signs of up to 32 channels of four pixels.
inline uint32x4_t signs_of_planes(const float* x, ptrdiff_t channel_stride, int channels,
                                  const float* t) {
  uint32x4_t bits = vdupq_n_u32(0);
  for (int c = 0; c < channels; ++c) {
    const float32x4_t edge = vdupq_n_f32(t ? t[c] : 0.0f);
    // Each sign enters at the top.
    bits = vsriq_n_u32(vcltq_f32(vld1q_f32(x + c * channel_stride), edge), bits, 1);
  }
  return vshlq_u32(bits, vdupq_n_s32(channels - 32));
}

void pack_neon(const float* x, ptrdiff_t pixel_stride, ptrdiff_t channel_stride, int64_t pixels,
               int channels, const float* t, uint64_t* out, ptrdiff_t word_stride,
               ptrdiff_t pixel_out) {
  const bool rows = channel_stride == 1 || channels == 1;
  for (int c = 0; c < channels; c += 64, out += word_stride) {
    const int count = channels - c < 64 ? channels - c : 64;
    const float* from = x + c * channel_stride;
    const float* edge = t ? t + c : nullptr;
    int64_t p = 0;
    if (rows)
      for (; p < pixels; ++p)
        out[p * pixel_out] = signs_of_row(from + p * pixel_stride, edge, count);
    else if (pixel_stride == 1)
      for (; p + 4 <= pixels; p += 4) {
        const int first = count < 32 ? count : 32;
        const uint32x4_t low = signs_of_planes(from + p, channel_stride, first, edge);
        const uint32x4_t high = signs_of_planes(from + p + 32 * channel_stride, channel_stride,
                                                count - first, edge ? edge + 32 : edge);
        const uint64x2_t front = vreinterpretq_u64_u32(vzip1q_u32(low, high));
        const uint64x2_t back = vreinterpretq_u64_u32(vzip2q_u32(low, high));
        uint64_t* to = out + p * pixel_out;
        to[0] = vgetq_lane_u64(front, 0);
        to[pixel_out] = vgetq_lane_u64(front, 1);
        to[2 * pixel_out] = vgetq_lane_u64(back, 0);
        to[3 * pixel_out] = vgetq_lane_u64(back, 1);
      }
    if (p < pixels)
      pack_plain(from + p * pixel_stride, pixel_stride, channel_stride, pixels - p, count, edge,
                 out + p * pixel_out, 0, pixel_out);
  }
}

}  // namespace
}  // namespace lowbit
