// What an instruction set provides for int8: products of matrices, and loops over numbers.
//
// Files of instruction sets take raw pointers and include nothing but this, int8_loops.h and their
// intrinsics, as core.h says. Loops may be plain C++: each file compiles them with its own flags.
// The formulas are those of lowbit.functional.int8, in float32, without fused multiply-adds.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace lowbit {

constexpr int kTile = 48;            // columns of a tile of products
constexpr int64_t kMaxDepth = 32768;  // what int32 sums of 8-bit products hold, zero points and all

// A tile: sums[i * kTile + j] = sum of x[i * x_stride + c] * w[j * w_stride + c] over c < depth, in
// int32 that wraps, and w_sums[j] = sum of w[j * w_stride + c]. What lies past `columns` is any.
struct Products {
  const uint8_t* x;
  ptrdiff_t x_stride;
  int64_t rows;
  const int8_t* w;
  ptrdiff_t w_stride;
  int columns;  // 1 … kTile
  int64_t depth;
  // The columns as `pack` makes them, or null; and memory for them, 64-byte aligned.
  const int8_t* packed;
  int8_t* scratch;
  int32_t* sums;
  int32_t* w_sums;
};

// clamp(round(v) + zero_point), half to even: v is clamped to low … high first, which are the
// limits of the integers less the zero point; NaN becomes low.
struct Rounding {
  float inverse;  // of the scale
  float low, high;
  int32_t zero_point;
};

// What follows the sums of one row of a tile, all of it kTile wide.
struct Finish {
  const int32_t* sums;
  const int32_t* w_sums;
  const int32_t* w_zeros;  // null: 0
  int32_t x_zero, x_sum;   // x_sum: of the row, where there are w_zeros
  int64_t depth;
  const float* real;  // the centred sums themselves, in place of all above; or null
  float x_scale;
  const float* w_scales;
  const float* bias;  // or null
  bool relu;
};

struct Affine {
  float zero_point, scale;
};

struct Mean {
  int32_t shift;    // zero points of all the elements that are in the sum
  int32_t divisor;  // 1 … 2^15
  int32_t zero_point;
};

struct Int8Core {
  const char* name;
  const char* isa;  // what LOWBIT_ISA calls it
  bool (*supported)();

  // Bytes of `packed` for one tile, 0 where there is no such form; then packed.
  size_t (*packed_bytes)(int64_t depth);
  void (*pack)(const int8_t* w, ptrdiff_t w_stride, int columns, int64_t depth, int8_t* packed);
  void (*multiply)(const Products&);
  // y[j] for j < kTile: the sums in real numbers, scaled, with bias, and ReLU.
  void (*finish)(const Finish&, float* y);
  // y + residual, then ReLU if asked for; the residual in float32.
  void (*add_real)(float* y, const float* residual, int n, bool relu);

  // Each [2] is for uint8 and for int8.
  // Zero point before rounding: round(y * inverse + zero_point), low and high the integers' own.
  void (*requantize_row[2])(const float* y, int n, Rounding r, void* out);
  void (*quantize[2])(const float* x, int64_t n, Rounding r, void* out);
  void (*dequantize[2])(const void* x, int64_t n, Affine a, float* out);
  // `rows` of n, in each x_row and out_row apart.
  void (*requantize[2])(const void* x, ptrdiff_t x_row, int64_t rows, int64_t n, Affine a,
                        Rounding r, void* out, ptrdiff_t out_row);
  void (*add[2])(const void* x, const void* y, int64_t n, Affine a, Affine b, Rounding r,
                 void* out);
  // r.inverse is the factor of (x - a.zero_point) * (y - b.zero_point).
  void (*mul[2])(const void* x, const void* y, int64_t n, Affine a, Affine b, Rounding r,
                 void* out);
  void (*most[2])(const void* x, int64_t n, void* out);  // out = max(out, x)
  void (*clamp[2])(const void* x, int64_t n, int low, int high, void* out);
  // Of n channels at `count` places, side by side `step` channels apart: the greatest of each.
  void (*most_of[2])(const void* x, ptrdiff_t step, int64_t count, int64_t n, void* out);
  // out = x, or += x where it is not the first.
  void (*sum[2])(const void* x, int64_t n, bool first, int32_t* out);
  // Of sums at `count` places like those: round((their sum - m.shift) / m.divisor) + zero_point.
  void (*mean_of[2])(const int32_t* x, ptrdiff_t step, int64_t count, int64_t n, Mean m, void* out);

  // n planes' bytes side by side: out[i * channels + c] = x[c * plane + i], i < n.
  void (*interleave)(const uint8_t* x, ptrdiff_t plane, int64_t channels, int64_t n, uint8_t* out);
  // The least and the greatest, and whether all are finite; low and high are joined with theirs.
  bool (*range)(const float* x, int64_t n, float* low, float* high);
  int32_t (*sum_of)(const uint8_t* x, int64_t n);

  // The gates of one row: x and h its products, gate after gate, each n long.
  void (*lstm)(const float* x, const float* h, int64_t n, float* c, float* out);
  void (*gru)(const float* x, const float* h, int64_t n, const float* before, float* out);
  void (*tanh)(const float* x, const float* h, int64_t n, float* out);
  void (*relu)(const float* x, const float* h, int64_t n, float* out);
};

// The cores compiled in, best first; ends with null.
extern const Int8Core* const kInt8Cores[];

}  // namespace lowbit
