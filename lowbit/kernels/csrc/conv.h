// Convolutions of packed signs on any core: geometry, borders, blocks, threads. No torch here.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "core.h"

namespace lowbit {

// In the order of lowbit.kernels.Geometry; axes are depth, height, width.
struct Geometry {
  int64_t channels, out_channels, groups;
  int64_t kernel[3], stride[3], before[3], after[3], dilation[3];
  int64_t pad, offset;
  int64_t planes_x, planes_w, thermometer_x, thermometer_w;

  static constexpr int kCount = 24;
  int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  int64_t group_channels() const { return channels / groups; }
  int64_t group_filters() const { return out_channels / groups; }
  int64_t words() const { return (group_channels() + 63) / 64; }       // of 64 bits
  int64_t words32() const { return (group_channels() + 31) / 32; }     // of 32 bits
  int64_t depth_words() const { return (taps() * words32() + 1) & ~1; }  // kw of a block
  int64_t panels() const { return (group_filters() + kBlock - 1) / kBlock; }  // of a group
  int64_t columns() const { return groups * panels() * kBlock; }
  int64_t reach_x() const { return reach(planes_x, thermometer_x); }  // largest |A|
  int64_t reach_w() const { return reach(planes_w, thermometer_w); }
  int64_t thresholds() const { return thermometer_x ? planes_x : (int64_t(1) << planes_x) - 1; }
  int64_t out_size(int axis, int64_t in) const {
    const int64_t span = in + before[axis] + after[axis] - dilation[axis] * (kernel[axis] - 1) - 1;
    return span < 0 ? 0 : span / stride[axis] + 1;
  }
  static int64_t reach(int64_t planes, int64_t thermometer) {
    return thermometer ? planes : (int64_t(1) << planes) - 1;
  }
};

// "" or what is wrong with the numbers themselves.
std::string check(const Geometry& g);

// The prepared weights of one layer: header, sums of the filters, coded panels; one run of bytes
// that may be moved. Sizes in bytes.
size_t blob_size(const Core& core, const Geometry& g);
// words (planes_w, out_channels, taps, words())
void prepare(const Core& core, const Geometry& g, const uint64_t* words, uint8_t* blob);
// The core of a blob that fits g, or null with the reason.
const Core* core_of(const uint8_t* blob, size_t bytes, const Geometry& g, std::string* why);

// body(begin, end, context) over 0 … count, on some threads.
using Body = void (*)(int64_t begin, int64_t end, void* context);
struct Threads {
  int count;
  void (*run)(int64_t count, Body body, void* context);
};

// Input floats: x (n, c, d, h, w) or the same channels last; -> packed planes.
struct PackTask {
  const float* x;
  int64_t n, channels, pixels;  // pixels = d h w
  bool channels_last;
  const float* thresholds;  // (T, channels) or (T); null: 0
  bool per_channel;
  int64_t planes, groups;
  bool thermometer;
  uint64_t* out;  // (n, planes * groups * words, d, h, w)
};
void pack(const Core& core, const PackTask& task, const Threads& threads);

struct ConvTask {
  Geometry g;
  const uint8_t* blob;
  const uint64_t* x;  // (n, planes_x * groups * words, d, h, w)
  int64_t n, in[3], out[3];
  Out mode;
  bool channels_last;
  const Step* steps;
  int step_count;
  const float* params;  // (rows, out_channels)
  int64_t param_rows;
  bool has_sign_row;  // kBoth: the last row is what results are compared with, in place of 0
  const float* residual;
  bool residual_channels_last;
  const int32_t* thresholds;  // kBits: (2, out_channels)
  void* result;
  uint64_t* bits;  // (n, words of out_channels, out)
};
void convolve(const Core& core, const ConvTask& task, const Threads& threads);

// Max-pool of signs, as AND of their bits: (n, words, h, w) -> (n, words, oh, ow).
struct PoolTask {
  const uint64_t* x;
  int64_t n, words, in[2], out[2], kernel[2], stride[2], padding[2], dilation[2];
  const uint64_t* flip;  // (words) or null
  uint64_t* result;
};
void max_pool(const PoolTask& task, const Threads& threads);

// Grow-only memory of the calling thread, 64-byte aligned; `slot` tells uses apart.
void* scratch(int slot, size_t bytes);

}  // namespace lowbit
