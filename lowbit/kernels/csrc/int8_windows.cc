#include <cstring>
#include <vector>

#include "int8.h"

namespace lowbit {
namespace {

constexpr int64_t kForThreads = int64_t(1) << 15;  // bytes read, for a thread to be worth it

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t greatest(int64_t a, int64_t b) { return a > b ? a : b; }

// What a window covers of an axis.
struct Range {
  int64_t begin, end;  // inside, `end` one past the last
  int64_t size;        // with the padding
};

Range range_of(const WindowTask& t, int axis, int64_t place) {
  const int64_t in = t.in[axis];
  if (t.adaptive) {
    const int64_t begin = place * in / t.out[axis];
    const int64_t end = ((place + 1) * in + t.out[axis] - 1) / t.out[axis];
    return {begin, end, end - begin};
  }
  const int64_t start = place * t.stride[axis] - t.padding[axis], step = t.dilation[axis];
  const int64_t size = least(start + t.kernel[axis], in + t.padding[axis]) - start;
  const int64_t first = start < 0 ? start + (-start + step - 1) / step * step : start;
  return {first, least(start + step * (t.kernel[axis] - 1) + 1, in), size};
}

int64_t count_of(const Range& r, int64_t step) {
  return r.end > r.begin ? (r.end - r.begin - 1) / step + 1 : 0;
}

// body(begin, end) over all lines of the output, on several threads.
template <class F>
void each_line(const WindowTask& t, const Threads& threads, const F& body) {
  const int64_t rows = t.adaptive ? t.in[0] / t.out[0] + 1 : t.kernel[0];
  const int64_t line = rows * t.in[1] * t.channels + 1;
  in_pieces(t.n * t.out[0], kForThreads / line + 1, threads, body);
}

}  // namespace

// First down, over whole lines, and then across.
void max_windows(const Int8Core& core, const WindowTask& t, const Threads& threads) {
  const uint8_t* x = static_cast<const uint8_t*>(t.x);
  uint8_t* y = static_cast<uint8_t*>(t.y);
  const int type = static_cast<int>(t.code);
  const int64_t c = t.channels, line = t.in[1] * c;
  each_line(t, threads, [&](int64_t begin, int64_t end) {
    std::vector<uint8_t> memory(static_cast<size_t>(line));
    for (int64_t i = begin; i < end; ++i) {
      const Range down = range_of(t, 0, i % t.out[0]);
      const int64_t rows = count_of(down, t.dilation[0]);
      if (rows > 0)
        core.most_of[type](x + (i / t.out[0] * t.in[0] + down.begin) * line, t.dilation[0] * line,
                           rows, line, memory.data());
      for (int64_t ox = 0; ox < t.out[1]; ++ox) {
        const Range across = range_of(t, 1, ox);
        const int64_t count = count_of(across, t.dilation[1]);
        uint8_t* to = y + (i * t.out[1] + ox) * c;
        if (rows > 0 && count > 0)
          core.most_of[type](memory.data() + across.begin * c, t.dilation[1] * c, count, c, to);
        else  // padding alone
          std::memset(to, t.code == Code::kInt8 ? 0x80 : 0, static_cast<size_t>(c));
      }
    }
  });
}

void mean_windows(const Int8Core& core, const WindowTask& t, const Threads& threads) {
  const uint8_t* x = static_cast<const uint8_t*>(t.x);
  uint8_t* y = static_cast<uint8_t*>(t.y);
  const int type = static_cast<int>(t.code);
  const int64_t c = t.channels, line = t.in[1] * c;
  each_line(t, threads, [&](int64_t begin, int64_t end) {
    std::vector<int32_t> memory(static_cast<size_t>(line));
    for (int64_t i = begin; i < end; ++i) {
      const Range down = range_of(t, 0, i % t.out[0]);
      for (int64_t iy = down.begin; iy < down.end; ++iy)
        core.sum[type](x + (i / t.out[0] * t.in[0] + iy) * line, line, iy == down.begin,
                       memory.data());
      for (int64_t ox = 0; ox < t.out[1]; ++ox) {
        const Range across = range_of(t, 1, ox);
        const int64_t columns = greatest(across.end - across.begin, 0);
        const int64_t count = greatest(down.end - down.begin, 0) * columns;
        const int64_t divisor = t.divisor             ? t.divisor
                                : t.count_include_pad ? down.size * across.size
                                                      : count;
        uint8_t* to = y + (i * t.out[1] + ox) * c;
        if (count == 0) {  // a real 0
          std::memset(to, t.zero_point & 0xff, static_cast<size_t>(c));
          continue;
        }
        const Mean m = {static_cast<int32_t>(count * t.zero_point), static_cast<int32_t>(divisor),
                        t.zero_point};
        core.mean_of[type](memory.data() + across.begin * c, c, columns, c, m, to);
      }
    }
  });
}

}  // namespace lowbit
