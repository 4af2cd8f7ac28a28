// Floats to packed planes, by the thresholds of their codes.
#include <cstring>

#include "conv.h"

namespace lowbit {
namespace {

struct Job {
  const Core* core;
  const PackTask* t;
  int64_t chunks, chunk;  // of the pixels of an image; or of the images, where pixels == 1
};

// One threshold's bits for pixels of one group of channels.
void compare(const Core& core, const PackTask& t, const float* x, int64_t pixels, int64_t stride,
             int64_t channel_stride, int threshold, int64_t group, uint64_t* out,
             int64_t word_stride, int64_t pixel_out) {
  const int64_t channels = t.channels / t.groups;
  const float* row = nullptr;
  if (t.thresholds && t.per_channel) {
    row = t.thresholds + threshold * t.channels + group * channels;
  } else if (t.thresholds) {
    float* same = static_cast<float*>(scratch(4, channels * sizeof(float)));
    for (int64_t c = 0; c < channels; ++c) same[c] = t.thresholds[threshold];
    row = same;
  }
  core.pack(x + group * channels * channel_stride, stride, channel_stride, pixels,
            static_cast<int>(channels), row, out, word_stride, pixel_out);
}

void run(int64_t begin, int64_t end, void* context) {
  const Job& job = *static_cast<Job*>(context);
  const PackTask& t = *job.t;
  const int64_t words = (t.channels / t.groups + 63) / 64;
  const int64_t all_words = t.planes * t.groups * words;
  const bool rows = t.pixels == 1;  // each image is a row of a matrix
  const int64_t places = rows ? t.n : t.pixels;
  const int count = t.thermometer ? int(t.planes) : (1 << t.planes) - 1;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t image = task / job.chunks, first = task % job.chunks * job.chunk;
    const int64_t pixels = first + job.chunk < places ? job.chunk : places - first;
    const int64_t channel_stride = rows || t.channels_last ? 1 : t.pixels;
    const int64_t stride = channel_stride == 1 ? t.channels : 1;
    const float* x = t.x + image * t.channels * t.pixels + first * stride;
    uint64_t* out = t.out + (rows ? first * all_words : image * all_words * t.pixels + first);
    const int64_t word_stride = rows ? 1 : t.pixels, pixel_out = rows ? all_words : 1;
    for (int64_t g = 0; g < t.groups; ++g) {
      uint64_t* to = out + g * words * word_stride;
      const int64_t plane = t.groups * words * word_stride;
      if (t.thermometer || t.planes == 1) {
        for (int i = 0; i < count; ++i)
          compare(*job.core, t, x, pixels, stride, channel_stride, i, g, to + i * plane,
                  word_stride, pixel_out);
        continue;
      }
      // Digit j of r, the number of thresholds above x, is the parity of the number of multiples
      // of 2^j in 1 … r; and r >= i means that x is below the i-th threshold from the top.
      uint64_t* below = static_cast<uint64_t*>(scratch(5, pixels * words * sizeof(uint64_t)));
      for (int64_t j = 0; j < t.planes; ++j)
        for (int64_t w = 0; w < words; ++w)
          for (int64_t p = 0; p < pixels; ++p) to[j * plane + w * word_stride + p * pixel_out] = 0;
      for (int i = 1; i <= count; ++i) {
        compare(*job.core, t, x, pixels, stride, channel_stride, count - i, g, below, pixels, 1);
        for (int64_t j = 0; j < t.planes && i % (1 << j) == 0; ++j)
          for (int64_t w = 0; w < words; ++w)
            for (int64_t p = 0; p < pixels; ++p)
              to[j * plane + w * word_stride + p * pixel_out] ^= below[w * pixels + p];
      }
    }
  }
}

}  // namespace

void pack(const Core& core, const PackTask& task, const Threads& threads) {
  const bool rows = task.pixels == 1;
  const int64_t places = rows ? task.n : task.pixels, images = rows ? 1 : task.n;
  if (places == 0 || images == 0 || task.channels == 0) return;
  // About 128 KiB of input at a time: it stays in the second cache for further thresholds, and
  // below it a second thread costs more than it saves.
  const int64_t least = (int64_t(1) << 15) / task.channels;
  int64_t chunk = least < 64 ? 64 : least & ~int64_t(63);
  if (chunk > places) chunk = places;
  Job job{&core, &task, (places + chunk - 1) / chunk, chunk};
  const int64_t tasks = images * job.chunks;
  if (threads.count > 1 && tasks > 1 && task.n * task.channels * task.pixels > int64_t(1) << 16)
    threads.run(tasks, run, &job);
  else
    run(0, tasks, &job);
}

}  // namespace lowbit
