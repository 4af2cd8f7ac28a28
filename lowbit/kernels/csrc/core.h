// What an instruction set provides: the arithmetic on one block of pixels and one panel of filters.
//
// Signs are bits (1 = negative), 32 to a word. A block holds up to 64 pixels (or rows of a matrix),
// a panel up to 64 filters (or output features), both with kw words along the depth, as words
// [kw][64]: word k of pixel p is words[64 * k + p]. kw is even, and what is not filled is 0.
//
// Files of instruction sets take raw pointers and include nothing but this, block.h and their
// intrinsics, so that per-file compiler flags cannot leak into functions that others link to.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace lowbit {

constexpr int kBlock = 64;
constexpr int kMaxPlanes = 8;
constexpr int kMaxSteps = 16;

// What is done to y = float(V); each consumes its rows of the parameters in order.
enum Step : int8_t {
  kAffine = 1,    // y = fma(y, row, next row)
  kRelu = 2,      // y = max(y, 0); NaN stays
  kResidual = 3,  // y = y + residual
  kPrelu = 4,     // y = y >= 0 ? y : row * y
  kShift = 5,     // y = y + row
  kHardtanh = 6,  // y = clamp(y, -1, 1); NaN stays
};

enum class Out : int8_t { kInt = 0, kFloat = 1, kBits = 2, kBoth = 3 };

// A panel times a block. D[p][f] = sum over planes of popcount(x xor w) << (shift_x + shift_w),
// V = base - 2 D, and then as `out` says.
struct Block {
  const uint8_t* filters;  // codings of the panel, one for each plane, `filter_plane` bytes apart
  const uint8_t* pixels;   // codings of the block, one for each plane, `pixel_plane` bytes apart
  size_t filter_plane, pixel_plane;
  int planes_w, planes_x;
  int8_t shift_w[kMaxPlanes], shift_x[kMaxPlanes];
  int kw;
  int filter_count, pixel_count;  // 1 … 64

  // base[class_of[p] * base_stride + f]. A class is a set of pixels with the same taps in the
  // padding; readable for 64 filters whatever filter_count says.
  const int32_t* base;
  ptrdiff_t base_stride;
  const uint16_t* class_of;
  // The same for at most 16 classes, base_by_filter[16 * f + class], or null; given where results
  // are stored by planes.
  const int32_t* base_by_filter;

  // Element (p, f) of an int32 or float result is result[p * pixel_stride + f * filter_stride]:
  // filter_stride is 1 (channels last), or pixel_stride is (by planes).
  Out out;
  void* result;
  ptrdiff_t pixel_stride, filter_stride;

  Step steps[kMaxSteps];
  int step_count;
  const float* params;  // rows [..][param_stride], readable for 64 filters
  ptrdiff_t param_stride;
  // The residual at (p, f) is residual[p * residual_pixel + f * residual_filter]; one of them is 1.
  const float* residual;
  ptrdiff_t residual_pixel, residual_filter;

  // Packed signs: bit f of bits[bit_offset[p]]. kBits: (V < threshold[f]) xor flip's bit f.
  // kBoth: y < sign_below[f]. Both are readable for 64 filters; bits from filter_count on are 0.
  uint64_t* bits;
  const int64_t* bit_offset;
  const int32_t* threshold;
  uint64_t flip;
  const float* sign_below;

  int32_t* scratch;  // 2 * 64 * 64 words, 64-byte aligned
};

// Lines of input words under each tap, which make the words of a block: for tap t, word w and
// strip i, word [t * words32 + w] of pixel to_i + j is planes[w * word_stride + tap[t] + from_i + j]
// for j < count_i; words up to kw are 0. Strips ascend and fill the block; 16 words may be read
// past the end of any.
struct Gather {
  const uint32_t* planes;
  ptrdiff_t word_stride;
  int words32, taps, strips, kw, pixel_count;
  const int32_t* tap;
  int32_t from[kBlock];
  int16_t to[kBlock], count[kBlock];
};

struct Core {
  const char* name;
  bool (*supported)();

  // Bytes that one word position of 64 filters (or 64 pixels) takes when coded.
  int filter_bytes, pixel_bytes;
  // words [kw][64] -> filter_bytes * kw bytes, 64-byte aligned; done once, when weights are
  // prepared.
  void (*code_filters)(const uint32_t* words, int kw, void* out);
  // words [kw][64] -> pixel_bytes * kw bytes, 64-byte aligned; `words` may be overwritten, and
  // may be `out`. Done for every block.
  void (*code_pixels)(uint32_t* words, int kw, int pixel_count, void* out);

  // b.pixel_count is that of code_pixels.
  void (*block)(const Block&);

  // Signs of floats: bit c % 64 of out[(c / 64) * word_stride + p * pixel_out] =
  // x[p * pixel_stride + c * channel_stride] < t[c] (t null: 0), for p < pixels, c < channels.
  // pixel_stride or channel_stride is 1 (or any, when there is one pixel or channel).
  void (*pack)(const float* x, ptrdiff_t pixel_stride, ptrdiff_t channel_stride, int64_t pixels,
               int channels, const float* t, uint64_t* out, ptrdiff_t word_stride,
               ptrdiff_t pixel_out);

  // Halves of every `step`-th 64-bit word: low[i], high[i] of from[i * step]; high may be null.
  void (*unpack)(const uint64_t* from, ptrdiff_t step, int64_t count, uint32_t* low,
                 uint32_t* high);
  // Gathers and codes: what code_pixels makes of these words. `words` is memory for kw * 64 words
  // and 16 more, and may be `out`.
  void (*gather)(const Gather&, uint32_t* words, void* out);
};

// The cores compiled in, best first; ends with null. Not all need be supported here.
extern const Core* const kCores[];

}  // namespace lowbit
