#include <cstring>
#include <vector>

#include "int8.h"

namespace lowbit {
namespace {

constexpr int64_t kForThreads = int64_t(1) << 15;  // bytes read, for a thread to be worth it

// body(image, oy, ox, place of the result) over all places, on several threads.
template <class F>
void each_place(const WindowTask& t, const Threads& threads, const F& body) {
  const int64_t window = t.adaptive ? t.in[0] * t.in[1] / (t.out[0] * t.out[1]) + 1
                                    : t.kernel[0] * t.kernel[1];
  const int64_t line = t.out[1] * window * t.channels + 1;
  in_pieces(t.n * t.out[0], kForThreads / line + 1, threads, [&](int64_t begin, int64_t end) {
    std::vector<int32_t> sums(static_cast<size_t>(t.channels));
    for (int64_t i = begin; i < end; ++i)
      for (int64_t ox = 0; ox < t.out[1]; ++ox)
        body(i / t.out[0], i % t.out[0], ox, i * t.out[1] + ox, sums.data());
  });
}

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t greatest(int64_t a, int64_t b) { return a > b ? a : b; }

}  // namespace

void max_windows(const Int8Core& core, const WindowTask& t, const Threads& threads) {
  const uint8_t* x = static_cast<const uint8_t*>(t.x);
  uint8_t* y = static_cast<uint8_t*>(t.y);
  const int type = static_cast<int>(t.code);
  const int64_t c = t.channels;
  each_place(t, threads, [&](int64_t image, int64_t oy, int64_t ox, int64_t place, int32_t*) {
    uint8_t* to = y + place * c;
    bool first = true;
    for (int64_t ky = 0; ky < t.kernel[0]; ++ky) {
      const int64_t iy = oy * t.stride[0] - t.padding[0] + ky * t.dilation[0];
      if (iy < 0 || iy >= t.in[0]) continue;
      for (int64_t kx = 0; kx < t.kernel[1]; ++kx) {
        const int64_t ix = ox * t.stride[1] - t.padding[1] + kx * t.dilation[1];
        if (ix < 0 || ix >= t.in[1]) continue;
        const uint8_t* from = x + ((image * t.in[0] + iy) * t.in[1] + ix) * c;
        if (first)
          std::memcpy(to, from, static_cast<size_t>(c));
        else
          core.most[type](from, c, to);
        first = false;
      }
    }
    if (first) std::memset(to, t.code == Code::kInt8 ? 0x80 : 0, static_cast<size_t>(c));
  });
}

void mean_windows(const Int8Core& core, const WindowTask& t, const Threads& threads) {
  const uint8_t* x = static_cast<const uint8_t*>(t.x);
  uint8_t* y = static_cast<uint8_t*>(t.y);
  const int type = static_cast<int>(t.code);
  const int64_t c = t.channels;
  each_place(t, threads, [&](int64_t image, int64_t oy, int64_t ox, int64_t place, int32_t* sums) {
    const int64_t at[2] = {oy, ox};
    int64_t begin[2], end[2], size[2];  // size: with padding
    for (int i = 0; i < 2; ++i) {
      if (t.adaptive) {
        begin[i] = at[i] * t.in[i] / t.out[i];
        end[i] = ((at[i] + 1) * t.in[i] + t.out[i] - 1) / t.out[i];
        size[i] = end[i] - begin[i];
        continue;
      }
      const int64_t start = at[i] * t.stride[i] - t.padding[i];
      size[i] = least(start + t.kernel[i], t.in[i] + t.padding[i]) - start;
      begin[i] = greatest(start, 0);
      end[i] = least(start + size[i], t.in[i]);
    }
    const int64_t count = greatest(end[0] - begin[0], 0) * greatest(end[1] - begin[1], 0);
    const int64_t divisor = t.divisor             ? t.divisor
                            : t.count_include_pad ? size[0] * size[1]
                                                  : count;
    std::memset(sums, 0, sizeof(int32_t) * static_cast<size_t>(c));
    for (int64_t iy = begin[0]; iy < end[0]; ++iy)
      for (int64_t ix = begin[1]; ix < end[1]; ++ix)
        core.sum[type](x + ((image * t.in[0] + iy) * t.in[1] + ix) * c, c, sums);
    core.mean[type](sums, c, static_cast<int32_t>(count), static_cast<int32_t>(divisor),
                    t.zero_point, y + place * c);
  });
}

}  // namespace lowbit
