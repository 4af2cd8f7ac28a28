// `finish` of block.h in the vectors V of an instruction set, to the same bits.
//
// V has kLanes lanes, I of int32 and F of float, and V::transpose of kSquare x kSquare floats.
#pragma once
#include "block.h"

namespace lowbit {
namespace {

// to[j * to_stride + i] = from[i * from_stride + j] for i < rows, j < columns.
template <class V>
void transpose(const float* from, ptrdiff_t from_stride, int rows, int columns, float* to,
               ptrdiff_t to_stride) {
  constexpr int kS = V::kSquare;
  const int full_rows = rows - rows % kS, full_columns = columns - columns % kS;
  for (int j = 0; j < full_columns; j += kS)
    for (int i = 0; i < full_rows; i += kS)
      V::transpose(from + i * from_stride + j, from_stride, to + j * to_stride + i, to_stride);
  for (int j = 0; j < columns; ++j)
    for (int i = j < full_columns ? full_rows : 0; i < rows; ++i)
      to[j * to_stride + i] = from[i * from_stride + j];
}

template <class V>
struct Epilogue {
  using I = typename V::I;
  using F = typename V::F;
  static constexpr int kL = V::kLanes;
  static constexpr int kVectors = 4;  // this many are in registers at a time
  static constexpr int kFilters = kVectors * kL;

  static F residual(const float* from, int rest) {
    return rest >= kL ? V::load(from) : rest > 0 ? V::load_part(from, rest) : V::load_zero();
  }

  static inline __attribute__((always_inline)) void steps(const Block& b, int f,
                                                          const float* added, F (&y)[kVectors]) {
    const float* row = b.params ? b.params + f : nullptr;
    for (int k = 0; k < b.step_count; ++k) {
      switch (b.steps[k]) {
        case kAffine:
          for (int i = 0; i < kVectors; ++i)
            y[i] = V::fma(y[i], V::load(row + i * kL), V::load(row + b.param_stride + i * kL));
          row += 2 * b.param_stride;
          break;
        case kRelu:
          for (int i = 0; i < kVectors; ++i) y[i] = V::at_least(y[i], 0.0f);
          break;
        case kResidual:
          for (int i = 0; i < kVectors; ++i)
            y[i] = V::add(y[i], residual(added + i * kL, b.filter_count - f - i * kL));
          break;
        case kPrelu:
          for (int i = 0; i < kVectors; ++i) y[i] = V::prelu(y[i], V::load(row + i * kL));
          row += b.param_stride;
          break;
        case kShift:
          for (int i = 0; i < kVectors; ++i) y[i] = V::add(y[i], V::load(row + i * kL));
          row += b.param_stride;
          break;
        case kHardtanh:
          for (int i = 0; i < kVectors; ++i) y[i] = V::at_most(V::at_least(y[i], -1.0f), 1.0f);
          break;
      }
    }
  }

  static void put(float* to, int rest, F y) {
    if (rest >= kL)
      V::store(to, y);
    else if (rest > 0)
      V::store_part(to, rest, y);
  }

  static void finish(const Block& b, const int32_t* tile) {
    const uint64_t mask = low_bits(b.filter_count);
    const bool direct = b.filter_stride == 1, floats = b.out == Out::kFloat || b.out == Out::kBoth;
    // Rows that wait to be transposed: of residuals before a pixel's turn, of results after.
    float* rows = reinterpret_cast<float*>(b.scratch + kBlock * kBlock);
    const bool turned = floats && b.residual && b.residual_filter != 1;
    if (turned)
      transpose<V>(b.residual, b.residual_filter, b.filter_count, b.pixel_count, rows, kBlock);
    float* result = static_cast<float*>(b.result);
    alignas(64) int32_t threshold[kBlock] = {};
    alignas(64) float sign_below[kBlock] = {};
    if (b.out == Out::kBits)
      __builtin_memcpy(threshold, b.threshold, sizeof(int32_t) * b.filter_count);
    if (b.out == Out::kBoth)
      __builtin_memcpy(sign_below, b.sign_below, sizeof(float) * b.filter_count);

    for (int p = 0; p < b.pixel_count; ++p) {
      const int32_t* d = tile + p * kBlock;
      const int32_t* base = b.base + b.class_of[p] * b.base_stride;
      const float* added = nullptr;
      if (floats && b.residual)
        added = turned ? rows + p * kBlock : b.residual + p * b.residual_pixel;
      uint64_t word = 0;
      for (int f = 0; f < b.filter_count; f += kFilters) {
        I v[kVectors];
        for (int i = 0; i < kVectors; ++i)
          v[i] = V::minus_twice(V::load_int(base + f + i * kL), V::load_int(d + f + i * kL));
        if (b.out == Out::kBits) {
          for (int i = 0; i < kVectors; ++i)
            word |= V::below(v[i], V::load_int(threshold + f + i * kL)) << (f + i * kL);
          continue;
        }
        F y[kVectors];
        if (floats) {
          for (int i = 0; i < kVectors; ++i) y[i] = V::to_float(v[i]);
          steps(b, f, added ? added + f : nullptr, y);
        } else {
          for (int i = 0; i < kVectors; ++i) y[i] = V::as_float(v[i]);
        }
        for (int i = 0; i < kVectors; ++i) {
          const int rest = b.filter_count - f - i * kL;
          if (direct)
            put(result + p * b.pixel_stride + f + i * kL, rest, y[i]);
          else
            V::store(rows + p * kBlock + f + i * kL, y[i]);
        }
        if (b.out == Out::kBoth)
          for (int i = 0; i < kVectors; ++i)
            word |= V::below(y[i], V::load(sign_below + f + i * kL)) << (f + i * kL);
      }
      if (b.out == Out::kBits || b.out == Out::kBoth)
        b.bits[b.bit_offset[p]] = (b.out == Out::kBits ? word ^ b.flip : word) & mask;
    }
    if (!direct && b.out != Out::kBits)
      transpose<V>(rows, kBlock, b.pixel_count, b.filter_count, result,
                   b.filter_stride);
  }
};

}  // namespace
}  // namespace lowbit
