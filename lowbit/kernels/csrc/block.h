// What all instruction sets share, as templates and static functions: each of their files includes
// this within its own anonymous namespace, and so compiles it with its own flags.
//
// `finish` is the readable specification of a block's epilogue.
#pragma once
#include "core.h"

namespace lowbit {
namespace {

inline float fma_once(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

// y[0 … n) of pixel or filter strips through the steps. `row(i)` and `residual(i)` say where the
// parameters and the residual of element i lie: by filter along a strip of filters (stride 1), or
// one filter's value for a strip of pixels (stride 0).
struct Strip {
  const float* params;
  ptrdiff_t param_stride;
  int param_step;  // 1: element i is filter i; 0: all are the same filter
  const float* residual;
  ptrdiff_t residual_step;
};

inline void run_steps(const Step* steps, int count, const Strip& s, int n, float* y) {
  const float* row = s.params;
  for (int k = 0; k < count; ++k) {
    switch (steps[k]) {
      case kAffine: {
        const float *a = row, *b = row + s.param_stride;
        if (s.param_step)
          for (int i = 0; i < n; ++i) y[i] = fma_once(y[i], a[i], b[i]);
        else
          for (int i = 0; i < n; ++i) y[i] = fma_once(y[i], a[0], b[0]);
        row += 2 * s.param_stride;
        break;
      }
      case kRelu:
        for (int i = 0; i < n; ++i) y[i] = y[i] < 0 ? 0 : y[i];
        break;
      case kResidual:
        if (s.residual_step == 1)
          for (int i = 0; i < n; ++i) y[i] += s.residual[i];
        else
          for (int i = 0; i < n; ++i) y[i] += s.residual[i * s.residual_step];
        break;
      case kPrelu:
        if (s.param_step)
          for (int i = 0; i < n; ++i) y[i] = y[i] >= 0 ? y[i] : row[i] * y[i];
        else
          for (int i = 0; i < n; ++i) y[i] = y[i] >= 0 ? y[i] : row[0] * y[i];
        row += s.param_stride;
        break;
      case kShift:
        if (s.param_step)
          for (int i = 0; i < n; ++i) y[i] += row[i];
        else
          for (int i = 0; i < n; ++i) y[i] += row[0];
        row += s.param_stride;
        break;
      case kHardtanh:
        for (int i = 0; i < n; ++i) y[i] = y[i] < -1 ? -1 : y[i] > 1 ? 1 : y[i];
        break;
    }
  }
}

inline uint64_t low_bits(int count) {
  return count >= 64 ? ~uint64_t(0) : (uint64_t(1) << count) - 1;
}

// The epilogue of a tile D[p][f] (64 columns).
inline void finish(const Block& b, const int32_t* tile) {
  const uint64_t mask = low_bits(b.filter_count);
  const bool last = b.filter_stride == 1;
  float* strip = reinterpret_cast<float*>(b.scratch + kBlock * kBlock);
  for (int p = 0; p < b.pixel_count; ++p) {
    const int32_t* d = tile + p * kBlock;
    const int32_t* base = b.base + b.class_of[p] * b.base_stride;
    int32_t v[kBlock];
    // Unsigned: columns without a filter hold anything.
    for (int f = 0; f < kBlock; ++f)
      v[f] = static_cast<int32_t>(uint32_t(base[f]) - 2u * uint32_t(d[f]));
    if (b.out == Out::kBits) {
      uint64_t word = 0;
      for (int f = 0; f < b.filter_count; ++f)
        word |= uint64_t(v[f] < b.threshold[f]) << f;
      b.bits[b.bit_offset[p]] = (word ^ b.flip) & mask;
      continue;
    }
    if (b.out == Out::kInt) {
      int32_t* out = static_cast<int32_t*>(b.result) + p * b.pixel_stride;
      for (int f = 0; f < b.filter_count; ++f) out[f * b.filter_stride] = v[f];
      continue;
    }
    float* y = strip + p * kBlock;
    for (int f = 0; f < kBlock; ++f) y[f] = static_cast<float>(v[f]);
    Strip s{b.params, b.param_stride, 1, nullptr, b.residual_filter};
    if (b.residual) s.residual = b.residual + p * b.residual_pixel;
    run_steps(b.steps, b.step_count, s, b.filter_count, y);
    if (last) {
      float* out = static_cast<float*>(b.result) + p * b.pixel_stride;
      for (int f = 0; f < b.filter_count; ++f) out[f] = y[f];
    }
    if (b.out == Out::kBoth) {
      uint64_t word = 0;
      for (int f = 0; f < b.filter_count; ++f) word |= uint64_t(y[f] < b.sign_below[f]) << f;
      b.bits[b.bit_offset[p]] = word & mask;
    }
  }
  if (!last && (b.out == Out::kFloat || b.out == Out::kBoth)) {
    // By filters, so that stores are consecutive.
    for (int f = 0; f < b.filter_count; ++f) {
      float* out = static_cast<float*>(b.result) + f * b.filter_stride;
      for (int p = 0; p < b.pixel_count; ++p) out[p] = strip[p * kBlock + f];
    }
  }
}

// The sums of all planes in a tile [pixel][filter], by a function that adds distances << shift.
template <class Distances>
void each_plane(const Block& b, Distances distances) {
  for (int i = 0; i < b.planes_w; ++i)
    for (int j = 0; j < b.planes_x; ++j)
      distances(b.filters + i * b.filter_plane, b.pixels + j * b.pixel_plane, b.kw, b.pixel_count,
                b.filter_count, b.shift_w[i] + b.shift_x[j], i + j > 0, b.scratch);
}

inline void unpack_words(const uint64_t* from, ptrdiff_t step, int64_t count, uint32_t* low,
                         uint32_t* high) {
  if (step == 1 && high) {
    for (int64_t i = 0; i < count; ++i) low[i] = static_cast<uint32_t>(from[i]);
    for (int64_t i = 0; i < count; ++i) high[i] = static_cast<uint32_t>(from[i] >> 32);
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t word = from[i * step];
    low[i] = static_cast<uint32_t>(word);
    if (high) high[i] = static_cast<uint32_t>(word >> 32);
  }
}

// The words of a block, not coded.
inline void gather_lines(const Gather& g, uint32_t* words) {
  uint32_t* row = words;
  for (int t = 0; t < g.taps; ++t) {
    const uint32_t* plane = g.planes + g.tap[t];
    for (int w = 0; w < g.words32; ++w, plane += g.word_stride, row += kBlock)
      for (int i = 0; i < g.strips; ++i) {
        // Whole vectors: what is too much is overwritten by the next strip or row.
        const uint32_t* from = plane + g.from[i];
        uint32_t* to = row + g.to[i];
        for (int j = 0; j < g.count[i]; j += 16) __builtin_memcpy(to + j, from + j, 64);
      }
  }
  for (int k = g.taps * g.words32; k < g.kw; ++k, row += kBlock) __builtin_memset(row, 0, 4 * kBlock);
}

inline void pack_plain(const float* x, ptrdiff_t pixel_stride, ptrdiff_t channel_stride,
                       int64_t pixels, int channels, const float* t, uint64_t* out,
                       ptrdiff_t word_stride, ptrdiff_t pixel_out) {
  for (int first = 0; first < channels; first += 64) {
    const int count = channels - first < 64 ? channels - first : 64;
    for (int64_t p = 0; p < pixels; ++p) {
      const float* from = x + p * pixel_stride + first * channel_stride;
      uint64_t word = 0;
      for (int c = 0; c < count; ++c)
        word |= uint64_t(from[c * channel_stride] < (t ? t[first + c] : 0.0f)) << c;
      out[(first / 64) * word_stride + p * pixel_out] = word;
    }
  }
}

}  // namespace
}  // namespace lowbit
