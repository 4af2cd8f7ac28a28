#include "conv.h"

namespace lowbit {
namespace {

void pool_planes(int64_t begin, int64_t end, void* context) {
  const PoolTask& t = *static_cast<PoolTask*>(context);
  const int64_t in = t.in[0] * t.in[1], out = t.out[0] * t.out[1];
  for (int64_t plane = begin; plane < end; ++plane) {
    const uint64_t* x = t.x + plane * in;
    uint64_t* to = t.result + plane * out;
    const uint64_t flip = t.flip ? t.flip[plane % t.words] : 0;
    for (int64_t oy = 0; oy < t.out[0]; ++oy) {
      for (int64_t ox = 0; ox < t.out[1]; ++ox) to[oy * t.out[1] + ox] = ~uint64_t(0);
      for (int64_t ky = 0; ky < t.kernel[0]; ++ky) {
        const int64_t iy = oy * t.stride[0] - t.padding[0] + ky * t.dilation[0];
        if (iy < 0 || iy >= t.in[0]) continue;
        for (int64_t kx = 0; kx < t.kernel[1]; ++kx) {
          for (int64_t ox = 0; ox < t.out[1]; ++ox) {
            const int64_t ix = ox * t.stride[1] - t.padding[1] + kx * t.dilation[1];
            if (ix >= 0 && ix < t.in[1]) to[oy * t.out[1] + ox] &= x[iy * t.in[1] + ix];
          }
        }
      }
      for (int64_t ox = 0; ox < t.out[1]; ++ox) to[oy * t.out[1] + ox] ^= flip;
    }
  }
}

}  // namespace

void max_pool(const PoolTask& task, const Threads& threads) {
  PoolTask copy = task;
  const int64_t planes = task.n * task.words;
  if (threads.count > 1 && planes > 1 && planes * task.in[0] * task.in[1] > int64_t(1) << 16)
    threads.run(planes, pool_planes, &copy);
  else
    pool_planes(0, planes, &copy);
}

}  // namespace lowbit
