// A convolution as panels of filters times blocks of up to 64 output pixels. A block's words are
// gathered as if the padding held zeros (signs of +1); what that gets wrong is the same for all
// pixels with the same taps in the padding, and is put right in `base`, one row for each such
// class of pixels, before the first block. So padding costs nothing in the blocks.
#include <cstring>
#include <vector>

#include "blob.h"

namespace lowbit {
namespace {

// The taps of one axis that lie inside the input, for each output coordinate.
struct Axis {
  std::vector<int64_t> first, last;  // of each class: taps first … last - 1 are inside
  std::vector<uint16_t> class_of;    // of each coordinate

  void find(int64_t out, int64_t in, int64_t taps, int64_t stride, int64_t before,
            int64_t dilation, bool same) {
    first.clear();
    last.clear();
    class_of.assign(out, 0);
    if (same) {
      first.push_back(0);
      last.push_back(taps);
      return;
    }
    for (int64_t o = 0; o < out; ++o) {
      const int64_t start = o * stride - before;  // the input coordinate of tap 0
      int64_t low = start < 0 ? (-start + dilation - 1) / dilation : 0, high = taps;
      if (start + (taps - 1) * dilation >= in)
        high = start >= in ? 0 : (in - start + dilation - 1) / dilation;
      if (low > high) low = high;
      size_t c = first.size();
      // Neighbours mostly share a class; sizes are small where they do not.
      while (c > 0 && (first[c - 1] != low || last[c - 1] != high)) --c;
      if (c == 0) {
        first.push_back(low);
        last.push_back(high);
        c = first.size();
      }
      class_of[o] = static_cast<uint16_t>(c - 1);
    }
  }
};

constexpr float kZeros[kBlock] = {};

struct Run {
  const Core* core;
  const ConvTask* t;
  Blob at;
  const Axis* axes = nullptr;               // depth, height, width
  size_t classes = 1;
  const int32_t* base = nullptr;            // [classes][columns]
  const int32_t* base_by_filter = nullptr;  // [columns][16], or null
  const float* params = nullptr;            // [rows][columns]
  const int32_t* thresholds = nullptr;      // [columns]
  const uint64_t* flips = nullptr;          // [columns / 64]
  int64_t out_pixels = 0;                   // of an image
  bool images = false;                      // each image is one pixel
  // A block is `block` pixels in a row, over the ends of lines and, where each pixel is stored
  // by itself, of images; else each image has blocks of its own.
  int64_t pixels = 0, block = 0, blocks_per_run = 0;  // pixels: of an image, or of all
  int64_t blocks = 0, splits = 1;           // splits: tasks that share a block's panels
};

void make_base(const ConvTask& t, const Blob& at, const Axis* axes, int32_t* base) {
  const Geometry& g = t.g;
  const int64_t columns = g.columns();
  const int32_t* sums = reinterpret_cast<const int32_t*>(t.blob + at.sums);
  const int32_t all =
      static_cast<int32_t>(g.taps() * g.group_channels() * g.reach_x() * g.reach_w());
  const int32_t offset = static_cast<int32_t>(g.offset);
  const int32_t outside = static_cast<int32_t>(g.pad - g.reach_x() - g.offset);
  for (size_t a = 0; a < axes[0].first.size(); ++a)
    for (size_t b = 0; b < axes[1].first.size(); ++b)
      for (size_t c = 0; c < axes[2].first.size(); ++c, base += columns) {
        for (int64_t i = 0; i < columns; ++i) base[i] = all + offset * sums[i];
        if (outside == 0) continue;
        for (int64_t kd = 0, tap = 0; kd < g.kernel[0]; ++kd)
          for (int64_t kh = 0; kh < g.kernel[1]; ++kh)
            for (int64_t kw = 0; kw < g.kernel[2]; ++kw, ++tap) {
              if (kd >= axes[0].first[a] && kd < axes[0].last[a] && kh >= axes[1].first[b] &&
                  kh < axes[1].last[b] && kw >= axes[2].first[c] && kw < axes[2].last[c])
                continue;
              const int32_t* sum = sums + (1 + tap) * columns;
              for (int64_t i = 0; i < columns; ++i) base[i] += outside * sum[i];
            }
      }
}

// A row per parameter, spread over columns where groups or a last panel leave gaps.
template <class T>
const T* over_columns(const Geometry& g, const T* rows, int64_t count, std::vector<T>* copy) {
  const int64_t columns = g.columns(), filters = g.group_filters();
  if (!rows || columns == g.out_channels) return rows;
  copy->assign(count * columns, 0);
  for (int64_t r = 0; r < count; ++r)
    for (int64_t group = 0; group < g.groups; ++group)
      std::memcpy(copy->data() + r * columns + group * g.panels() * kBlock,
                  rows + r * g.out_channels + group * filters, filters * sizeof(T));
  return copy->data();
}

// Pixels of a block: the strips of lines that it is made of, and where its results go.
struct Places {
  struct Strip {
    int64_t image, z, y, x;
    int count, to;
  };
  Strip strips[kBlock];
  int strip_count, pixel_count;
  uint16_t class_of[kBlock] = {};
  int64_t bits[kBlock];
  int64_t result, residual;  // of the first pixel

  void find(const Run& run, int64_t block) {
    const ConvTask& t = *run.t;
    const int64_t filters = t.g.out_channels, words = (filters + 63) / 64;
    const int64_t pixels = run.out_pixels, begin = block / run.blocks_per_run * run.pixels;
    const int64_t first = begin + block % run.blocks_per_run * run.block;
    const int64_t left = begin + run.pixels - first;
    pixel_count = static_cast<int>(left < run.block ? left : run.block);
    strip_count = 0;

    int64_t image = first / pixels, place = first % pixels;
    const int64_t last = first * filters, planes = image * pixels * filters + place;
    result = t.channels_last ? last : planes;
    residual = t.residual_channels_last ? last : planes;
    int64_t x = place % t.out[2], y = place / t.out[2] % t.out[1];
    int64_t z = place / (t.out[2] * t.out[1]);
    for (int to = 0; to < pixel_count;) {
      const int64_t line = run.images ? pixel_count : t.out[2] - x;
      const int n = static_cast<int>(line < pixel_count - to ? line : pixel_count - to);
      strips[strip_count++] = {image, z, y, x, n, to};
      if (t.bits) {
        const int64_t start = image * words * pixels + place, step = run.images ? words : 1;
        for (int j = 0; j < n; ++j) bits[to + j] = start + j * step;
      }
      if (run.classes > 1) {
        const Axis* axes = run.axes;
        const size_t of_line = (axes[0].class_of[z] * axes[1].first.size() + axes[1].class_of[y]) *
                               axes[2].first.size();
        for (int j = 0; j < n; ++j)
          class_of[to + j] =
              static_cast<uint16_t>(of_line + axes[2].class_of[run.images ? 0 : x + j]);
      }
      to += n;
      place += n;
      x = 0;
      if (++y == t.out[1]) y = 0, ++z;
      if (z == t.out[0]) z = 0, place = 0, ++image;
    }
  }
};

// Where each image gives one pixel: pixels are a whole image's words apart.
void gather_images(const Run& run, const Places& places, int64_t plane, int64_t group,
                   uint32_t* words) {
  const ConvTask& t = *run.t;
  const Geometry& g = t.g;
  const int64_t pixels = t.in[0] * t.in[1] * t.in[2], w64 = g.words();
  const int64_t image_words = g.planes_x * g.groups * w64 * pixels;
  const int w32 = static_cast<int>(g.words32()), count = places.pixel_count;
  const uint64_t* from =
      t.x + places.strips[0].image * image_words + (plane * g.groups + group) * w64 * pixels;
  for (int64_t d = 0; d < g.kernel[0]; ++d)
    for (int64_t h = 0; h < g.kernel[1]; ++h)
      for (int64_t w = 0; w < g.kernel[2]; ++w, words += w32 * kBlock) {
        const int64_t z = d * g.dilation[0] - g.before[0], y = h * g.dilation[1] - g.before[1];
        const int64_t x = w * g.dilation[2] - g.before[2];
        const bool inside =
            z >= 0 && z < t.in[0] && y >= 0 && y < t.in[1] && x >= 0 && x < t.in[2];
        if (!inside) {
          std::memset(words, 0, w32 * kBlock * sizeof(uint32_t));
          continue;
        }
        const uint64_t* at = from + (z * t.in[1] + y) * t.in[2] + x;
        for (int i = 0; i < w32; i += 2, at += pixels)
          run.core->unpack(at, image_words, count, words + i * kBlock,
                           i + 1 < w32 ? words + (i + 1) * kBlock : nullptr);
      }
}

// The words of some images as planes of 32 bits with their padding, so that what a tap reads for a
// line of output is one run of words. Columns are dealt by their remainder (phase) by the stride.
struct Planes {
  int64_t size[3];         // with padding; columns of one phase
  int64_t plane, image;    // words of a plane, of an image
  int64_t first = 0, end = 0;  // images held
  int64_t plane_x = -1, group = -1;
  uint32_t* words = nullptr;
  std::vector<int32_t> taps;

  explicit Planes(const ConvTask& t) {
    const Geometry& g = t.g;
    for (int i = 0; i < 3; ++i) size[i] = t.in[i] + g.before[i] + g.after[i];
    const int64_t phases = g.stride[2];
    size[2] = (size[2] + phases - 1) / phases;
    plane = phases * size[0] * size[1] * size[2];
    image = plane * g.words32();
    for (int64_t d = 0; d < g.kernel[0]; ++d)
      for (int64_t h = 0; h < g.kernel[1]; ++h)
        for (int64_t w = 0; w < g.kernel[2]; ++w) {
          const int64_t x = w * g.dilation[2];
          taps.push_back(static_cast<int32_t>(
              ((x % phases * size[0] + d * g.dilation[0]) * size[1] + h * g.dilation[1]) *
                  size[2] + x / phases));
        }
  }

  // Holds images first_ … last_ of a plane and group, and as many more as stay in a cache.
  void hold(const Core& core, const ConvTask& t, int64_t first_, int64_t last_, int64_t plane_, int64_t group_) {
    if (plane_ == plane_x && group_ == group && first_ >= first && last_ < end) return;
    const Geometry& g = t.g;
    plane_x = plane_;
    group = group_;
    first = first_;
    end = first + (int64_t(1) << 16) / image;
    if (end > t.n) end = t.n;
    if (end <= last_) end = last_ + 1;
    const size_t bytes = ((end - first) * image + 16) * sizeof(uint32_t);
    words = static_cast<uint32_t*>(scratch(4, bytes));
    std::memset(words, 0, bytes);
    const int64_t w64 = g.words(), pixels = t.in[0] * t.in[1] * t.in[2];
    const int64_t phases = g.stride[2], skip = size[0] * size[1] * size[2];
    for (int64_t n = first; n < end; ++n)
      for (int64_t w = 0; w < g.words32(); w += 2)
        for (int64_t z = 0; z < t.in[0]; ++z)
          for (int64_t y = 0; y < t.in[1]; ++y) {
            const uint64_t* from =
                t.x + (((n * g.planes_x + plane_x) * g.groups + group) * w64 + w / 2) * pixels +
                (z * t.in[1] + y) * t.in[2];
            uint32_t* to = words + (n - first) * image + w * plane +
                           ((z + g.before[0]) * size[1] + y + g.before[1]) * size[2];
            for (int64_t phase = 0; phase < phases; ++phase, to += skip) {
              // Input column x is column (x + before) / phases of phase (x + before) % phases.
              const int64_t x = phase >= g.before[2] % phases
                                    ? phase - g.before[2] % phases
                                    : phase - g.before[2] % phases + phases;
              if (x >= t.in[2]) continue;
              uint32_t* at = to + (x + g.before[2]) / phases;
              core.unpack(from + x, phases, (t.in[2] - x + phases - 1) / phases, at,
                          w + 1 < g.words32() ? at + plane : nullptr);
            }
          }
  }
};

// The coded pixels of a block, by way of `words`.
void gather(const Run& run, const Places& places, Planes* planes, int64_t plane, int64_t group,
            uint32_t* words, void* out) {
  const ConvTask& t = *run.t;
  const Geometry& g = t.g;
  const int kw = static_cast<int>(g.depth_words());
  if (run.images) {
    gather_images(run, places, plane, group, words);
    const int64_t used = g.taps() * g.words32();
    if (used != kw) std::memset(words + used * kBlock, 0, kBlock * sizeof(uint32_t));
    run.core->code_pixels(words, kw, places.pixel_count, out);
    return;
  }
  planes->hold(*run.core, t, places.strips[0].image, places.strips[places.strip_count - 1].image,
               plane, group);
  Gather to;
  to.planes = planes->words;
  to.word_stride = planes->plane;
  to.words32 = static_cast<int>(g.words32());
  to.taps = static_cast<int>(g.taps());
  to.strips = places.strip_count;
  to.kw = kw;
  to.pixel_count = places.pixel_count;
  to.tap = planes->taps.data();
  for (int i = 0; i < places.strip_count; ++i) {
    const Places::Strip& s = places.strips[i];
    to.from[i] = static_cast<int32_t>(
        (s.image - planes->first) * planes->image +
        (s.z * g.stride[0] * planes->size[1] + s.y * g.stride[1]) * planes->size[2] + s.x);
    to.to[i] = static_cast<int16_t>(s.to);
    to.count[i] = static_cast<int16_t>(s.count);
  }
  run.core->gather(to, words, out);
}

void run_blocks(int64_t begin, int64_t end, void* context) {
  const Run& run = *static_cast<Run*>(context);
  const ConvTask& t = *run.t;
  const Geometry& g = t.g;
  const Core& core = *run.core;
  const int kw = static_cast<int>(g.depth_words());
  const size_t plane_bytes = size_t(kw) * core.pixel_bytes;
  uint32_t* words =
      static_cast<uint32_t*>(scratch(0, (size_t(kw) * kBlock + 16) * sizeof(uint32_t)));
  uint8_t* coded = static_cast<uint8_t*>(scratch(1, plane_bytes * g.planes_x + 64));
  const bool in_place = core.pixel_bytes == 4 * kBlock;

  Places places;
  Planes planes(t);
  Block b = {};
  b.filter_plane = run.at.plane;
  b.pixel_plane = plane_bytes;
  b.planes_w = static_cast<int>(g.planes_w);
  b.planes_x = static_cast<int>(g.planes_x);
  for (int i = 0; i < kMaxPlanes; ++i) {
    b.shift_w[i] = static_cast<int8_t>(g.thermometer_w ? 0 : i);
    b.shift_x[i] = static_cast<int8_t>(g.thermometer_x ? 0 : i);
  }
  b.pixels = coded;
  b.kw = kw;
  b.base_stride = g.columns();
  b.class_of = places.class_of;
  b.out = t.mode;
  b.pixel_stride = t.channels_last || run.images ? g.out_channels : 1;
  b.filter_stride = t.channels_last ? 1 : run.out_pixels;
  for (int i = 0; i < t.step_count; ++i) b.steps[i] = t.steps[i];
  b.step_count = t.step_count;
  b.param_stride = g.columns();
  b.residual_pixel = t.residual_channels_last || run.images ? g.out_channels : 1;
  b.residual_filter = t.residual_channels_last ? 1 : run.out_pixels;
  b.bit_offset = places.bits;
  b.scratch = static_cast<int32_t*>(scratch(2, 2 * kBlock * kBlock * sizeof(int32_t)));

  const int64_t panels = g.panels(), all_panels = g.groups * panels;
  int64_t at_block = -1, at_group = -1;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t block = task / run.splits, split = task % run.splits;
    const int64_t first = all_panels * split / run.splits;
    const int64_t last = all_panels * (split + 1) / run.splits;
    for (int64_t panel = first; panel < last; ++panel) {
      const int64_t group = panel / panels;
      if (block != at_block) places.find(run, block);
      if (block != at_block || group != at_group) {
        at_block = block;
        at_group = group;
        for (int64_t plane = 0; plane < g.planes_x; ++plane) {
          uint8_t* to = coded + plane * plane_bytes;
          uint32_t* raw = in_place ? reinterpret_cast<uint32_t*>(to) : words;
          gather(run, places, &planes, plane, group, raw, to);
        }
        b.pixel_count = places.pixel_count;
      }
      const int64_t column = panel * kBlock, filter = panel % panels * kBlock;
      const int64_t left = g.group_filters() - filter;
      const int64_t out_filter = group * g.group_filters() + filter;
      b.filter_count = static_cast<int>(left < kBlock ? left : kBlock);
      b.filters = t.blob + run.at.panels + panel * run.at.panel;
      b.base = run.base + column;
      if (run.base_by_filter) b.base_by_filter = run.base_by_filter + 16 * column;
      if (run.params) b.params = run.params + column;
      if (t.mode == Out::kBoth)
        b.sign_below =
            t.has_sign_row ? run.params + (t.param_rows - 1) * g.columns() + column : kZeros;
      if (t.mode == Out::kBits) {
        b.threshold = run.thresholds + column;
        b.flip = run.flips[panel];
      }
      // int32 and float results have elements of the same size.
      if (t.result)
        b.result = static_cast<float*>(t.result) + places.result + out_filter * b.filter_stride;
      if (t.residual)
        b.residual = t.residual + places.residual + out_filter * b.residual_filter;
      if (t.bits) b.bits = t.bits + out_filter / kBlock * run.out_pixels;
      core.block(b);
    }
  }
}

int64_t divided(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

void convolve(const Core& core, const ConvTask& task, const Threads& threads) {
  const Geometry& g = task.g;
  Run run{&core, &task, Blob(core, g)};
  run.out_pixels = task.out[0] * task.out[1] * task.out[2];
  if (task.n == 0 || run.out_pixels == 0) return;

  const bool same = g.pad == g.reach_x() + g.offset;
  static thread_local Axis axes[3];
  for (int i = 0; i < 3; ++i) {
    axes[i].find(task.out[i], task.in[i], g.kernel[i], g.stride[i], g.before[i], g.dilation[i],
                 same || (g.before[i] == 0 && g.after[i] == 0));
    run.classes *= axes[i].first.size();
  }
  run.axes = axes;
  int32_t* base =
      static_cast<int32_t*>(scratch(3, run.classes * g.columns() * sizeof(int32_t)));
  make_base(task, run.at, axes, base);
  run.base = base;

  std::vector<float> params;
  std::vector<int32_t> thresholds;
  std::vector<uint64_t> flips;
  run.params = over_columns(g, task.params, task.param_rows, &params);
  if (task.mode == Out::kBits) {
    // The binding gives bits only to layers of one group or of whole words in each.
    run.thresholds = over_columns(g, task.thresholds, 2, &thresholds);
    flips.assign(g.columns() / kBlock, 0);
    for (int64_t i = 0; i < g.columns(); ++i)
      flips[i / kBlock] |= uint64_t(run.thresholds[g.columns() + i] != 0) << (i % kBlock);
    run.flips = flips.data();
  }

  run.images = run.out_pixels == 1;
  const bool by_planes = task.result && !task.channels_last && !run.images;
  const bool residual_by_planes = task.residual && !task.residual_channels_last && !run.images;
  const bool each_image = by_planes || residual_by_planes;
  run.pixels = each_image ? run.out_pixels : task.n * run.out_pixels;
  // Whole lines gather faster; lanes of pixels are better filled.
  run.block = kBlock;
  if (!by_planes && !run.images && task.out[2] <= kBlock)
    run.block = kBlock / task.out[2] * task.out[2];
  run.blocks_per_run = divided(run.pixels, run.block);
  run.blocks = run.blocks_per_run * (each_image ? task.n : 1);
  std::vector<int32_t> base_by_filter;
  if (by_planes && run.classes <= 16) {
    base_by_filter.resize(16 * g.columns());
    for (size_t c = 0; c < run.classes; ++c)
      for (int64_t i = 0; i < g.columns(); ++i)
        base_by_filter[16 * i + c] = base[c * g.columns() + i];
    run.base_by_filter = base_by_filter.data();
  }

  const int64_t all_panels = g.groups * g.panels();
  const double work = double(task.n) * double(run.out_pixels) * double(g.columns()) *
                      double(g.depth_words()) * double(g.planes_x * g.planes_w);
  // Below about 5 microseconds a second thread costs more than it saves.
  const bool parallel = threads.count > 1 && work > 3e5;
  if (parallel && run.blocks < 4 * threads.count) {
    run.splits = divided(4 * threads.count, run.blocks);
    if (run.splits > all_panels) run.splits = all_panels;
  }
  if (parallel)
    threads.run(run.blocks * run.splits, run_blocks, &run);
  else
    run_blocks(0, run.blocks * run.splits, &run);
}

}  // namespace lowbit
