// int8 layers on any core: blocks and threads. No torch here. Tensors are rows of numbers, whose
// formulas are those of lowbit.functional.int8.
#pragma once
#include "conv.h"
#include "int8_core.h"

namespace lowbit {

enum class Code : int8_t { kUint8 = 0, kInt8 = 1, kFloat = 2 };

// The limits of the integers less the zero point, for loops that add it after rounding.
Rounding rounding_of(Code code, double scale, int64_t zero_point, bool relu = false);

// FBGEMM's ChooseQuantizationParams over 0 … levels, as lowbit.functional.int8.choose_qparams.
struct Grid {
  double scale;
  int32_t zero_point;
};
Grid choose_grid(double low, double high, int levels);

// y (rows, columns) of x (rows, depth) and w (columns, depth).
struct LinearTask {
  const uint8_t* x;  // each row may be read in groups of 4 bytes
  ptrdiff_t x_stride;
  int64_t rows, depth, columns;
  const int8_t* w;
  float x_scale;
  int32_t x_zero;
  const float* w_scales;  // one, or one for each column
  bool per_column;
  const int32_t* w_zeros;  // for each column; null: 0
  const float* bias;       // or null
  bool relu;
  Code out_code;
  double out_scale;
  int64_t out_zero;
  const void* residual;  // (rows, columns) of residual_code, or null
  Code residual_code;
  double residual_scale;
  int64_t residual_zero;
  void* out;
  const int8_t* packed;  // all tiles, as pack_tiles makes them, or null
};
void linear(const Int8Core& core, const LinearTask& task, const Threads& threads);
// Bytes of all packed tiles, 0 where the core has none; and those.
size_t packed_tiles_bytes(const Int8Core& core, int64_t columns, int64_t depth);
void pack_tiles(const Int8Core& core, const int8_t* w, int64_t columns, int64_t depth,
                int8_t* packed);

// x (rows, depth) float32 as codes with x_stride = code_stride(depth), on the grid of all of x;
// false, and nothing written, where a value is not finite.
ptrdiff_t code_stride(int64_t depth);
bool quantize_rows(const Int8Core& core, const float* x, int64_t rows, int64_t depth, int levels,
                   uint8_t* codes, Grid* grid, const Threads& threads);

// `lowbit.functional.int8.dynamic.linear`: y (rows, columns) float32; w_scales as LinearTask has
// them, and x, x_scale, x_zero and the output's are not given.
void linear_dynamic(const Int8Core& core, LinearTask task, const float* x, int levels,
                    const Threads& threads);

enum class Gates : int8_t { kLstm, kGru, kTanh, kRelu };

// One layer in one direction. Steps have batch_sizes[t] rows of x and y, or all `batch`.
struct RecurrentTask {
  Gates gates;
  int64_t steps, batch, features, hidden;
  const int64_t* batch_sizes;  // or null; they do not grow
  const float* x;
  LinearTask ih, hh;  // their weights: w, w_scales, per_column, w_zeros, bias
  bool reverse;
  int levels;
  float *h, *c;  // (batch, hidden), at the start and, in place, at the end; c of an LSTM alone
  float* y;
};
void recurrent(const Int8Core& core, const RecurrentTask& task, const Threads& threads);

// body(core loop) over 0 … n in pieces, on several threads where n is large.
template <class F>
void in_pieces(int64_t n, int64_t piece, const Threads& threads, const F& body) {
  if (threads.count < 2 || n < 2 * piece) {
    if (n > 0) body(0, n);
    return;
  }
  struct Context {
    const F* body;
    int64_t n, piece;
  } context = {&body, n, piece};
  const auto run = [](int64_t begin, int64_t end, void* given) {
    const Context& c = *static_cast<Context*>(given);
    const int64_t last = end * c.piece < c.n ? end * c.piece : c.n;
    (*c.body)(begin * c.piece, last);
  };
  threads.run((n + piece - 1) / piece, run, &context);
}

// Windows over (n, h, w, c) of bytes, channels last.
struct WindowTask {
  Code code;
  const void* x;
  int64_t n, channels, in[2], out[2], kernel[2], stride[2], padding[2], dilation[2];
  void* y;
  // Means alone.
  int32_t zero_point;
  bool count_include_pad;
  int64_t divisor;  // 0: the elements of the window
  bool adaptive;    // windows divide the axes into out[i] parts
};
void max_windows(const Int8Core& core, const WindowTask& task, const Threads& threads);
void mean_windows(const Int8Core& core, const WindowTask& task, const Threads& threads);

}  // namespace lowbit
