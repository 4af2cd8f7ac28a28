// Packing, preparing, convolving and pooling of drawn layers on every core that runs here, against
// loops over real numbers. Buffers have just the size that they need, so that sanitizers see every
// word read or written past an end. Arguments: as core_test's.
#include "conv.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace lowbit;

struct Random {
  uint64_t state;
  uint64_t next() {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
  }
  int64_t from(int64_t low, int64_t high) { return low + int64_t(next() % (high - low + 1)); }
  bool one_in(int n) { return next() % n == 0; }
  float real() { return float(from(-64, 64)) / 16; }
};

// A buffer of just so many elements.
template <class T>
struct Exact {
  std::unique_ptr<T[]> memory;
  size_t count;
  explicit Exact(size_t n) : memory(new T[n]()), count(n) {}
  T* data() { return memory.get(); }
  T& operator[](size_t i) { return memory[i]; }
};

void in_two_threads(int64_t count, Body body, void* context) {
  const int64_t half = count / 2;
  std::thread other([&] { body(0, half, context); });
  body(half, count, context);
  other.join();
}

Geometry draw(Random* r) {
  Geometry g = {};
  g.groups = r->one_in(4) ? r->from(2, 3) : 1;
  static const int64_t usual[] = {1, 3, 31, 32, 33, 63, 64, 65, 100, 128, 200};
  g.channels = g.groups * usual[r->from(0, r->one_in(3) ? 10 : 7)];
  g.out_channels = g.groups * r->from(1, r->one_in(3) ? 150 : 20);
  for (int i = 0; i < 3; ++i) {
    const bool flat = i == 0 && !r->one_in(4);
    g.kernel[i] = flat ? 1 : r->from(1, 3);
    g.stride[i] = r->one_in(3) ? r->from(1, 4) : 1;
    g.dilation[i] = r->one_in(4) ? r->from(1, 3) : 1;
    g.before[i] = flat ? 0 : r->from(0, 2);
    g.after[i] = r->one_in(4) && !flat ? r->from(0, 3) : g.before[i];
  }
  g.pad = r->from(-1, 1);
  g.planes_x = r->one_in(4) ? r->from(1, 3) : 1;
  g.planes_w = r->one_in(4) ? r->from(1, 2) : 1;
  g.thermometer_x = r->one_in(3);
  g.thermometer_w = r->one_in(3);
  g.offset = r->one_in(4) ? r->from(-3, 3) : 0;
  return g;
}

int plane_weight(int64_t thermometer, int64_t plane) { return thermometer ? 1 : 1 << plane; }

[[noreturn]] void fail(const char* core, uint64_t seed, const char* what) {
  std::printf("%s: seed %llu: %s\n", core, static_cast<unsigned long long>(seed), what);
  std::exit(1);
}

void test_layer(const Core& core, uint64_t seed) {
  Random r{seed * 0x9e3779b97f4a7c15u + 1};
  for (int i = 0; i < 8; ++i) r.next();
  const Geometry g = draw(&r);
  if (!check(g).empty()) fail(core.name, seed, check(g).c_str());
  const int64_t n = r.from(1, 3), c = g.channels, o = g.out_channels, w64 = g.words();
  ConvTask t = {};
  t.g = g;
  t.n = n;
  for (int i = 0; i < 3; ++i) {
    const int64_t reach = g.dilation[i] * (g.kernel[i] - 1) + 1;
    const int64_t least = std::max<int64_t>(1, reach - g.before[i] - g.after[i]);
    t.in[i] = i == 0 && g.kernel[0] == 1 ? 1 : least + r.from(0, r.one_in(4) ? 70 / (3 - i) : 6);
    t.out[i] = g.out_size(i, t.in[i]);
  }
  const int64_t pixels = t.in[0] * t.in[1] * t.in[2], places = t.out[0] * t.out[1] * t.out[2];

  // Inputs, coded by thresholds of each channel or of all.
  const int64_t count = g.thresholds();
  const bool per_channel = r.one_in(2), channels_last = r.one_in(2);
  Exact<float> x(n * c * pixels), edges(per_channel ? count * c : count);
  for (size_t i = 0; i < x.count; ++i) x[i] = r.one_in(50) ? NAN : r.real();
  for (size_t i = 0; i < edges.count; ++i)
    edges[i] = float(i / (per_channel ? c : 1)) - 0.5f * float(count);
  const auto coded = [&](int64_t image, int64_t channel, int64_t pixel) {
    const float v = x[channels_last ? (image * pixels + pixel) * c + channel
                                    : (image * c + channel) * pixels + pixel];
    int64_t below = 0;
    for (int64_t e = 0; e < count; ++e) below += v < edges[per_channel ? e * c + channel : e];
    return g.reach_x() - 2 * below;
  };
  const int64_t words = g.planes_x * g.groups * w64;
  Exact<uint64_t> packed(n * words * pixels);
  PackTask p = {};
  p.x = x.data();
  p.n = n;
  p.channels = c;
  p.pixels = pixels;
  p.channels_last = channels_last;
  p.thresholds = edges.data();
  p.per_channel = per_channel;
  p.planes = g.planes_x;
  p.groups = g.groups;
  p.thermometer = g.thermometer_x;
  p.out = packed.data();
  const Threads threads = {r.one_in(3) ? 2 : 1, in_two_threads};
  pack(core, p, threads);

  // Filters.
  const int64_t taps = g.taps(), cg = g.group_channels(), og = g.group_filters();
  Exact<uint64_t> filters(g.planes_w * o * taps * w64);
  for (size_t i = 0; i < filters.count; ++i) {
    filters[i] = r.next();
    const int64_t left = cg - int64_t(i % w64) * 64;
    if (left < 64) filters[i] &= (uint64_t(1) << left) - 1;
  }
  const auto weight = [&](int64_t filter, int64_t tap, int64_t channel) {
    int64_t sum = 0;
    for (int64_t plane = 0; plane < g.planes_w; ++plane) {
      const uint64_t word = filters[((plane * o + filter) * taps + tap) * w64 + channel / 64];
      sum += plane_weight(g.thermometer_w, plane) * (word >> (channel % 64) & 1 ? -1 : 1);
    }
    return sum;
  };
  void* blob = std::aligned_alloc(64, blob_size(core, g));
  prepare(core, g, filters.data(), static_cast<uint8_t*>(blob));
  std::string why;
  if (core_of(static_cast<uint8_t*>(blob), blob_size(core, g), g, &why) != &core)
    fail(core.name, seed, why.c_str());

  // The sums, by loops.
  std::vector<int32_t> sums(n * o * places);
  for (int64_t i = 0; i < n * o * places; ++i) {
    const int64_t image = i / (o * places), filter = i / places % o, at = i % places;
    const int64_t z = at / (t.out[1] * t.out[2]), y = at / t.out[2] % t.out[1], xx = at % t.out[2];
    int64_t sum = 0;
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int64_t iz = z * g.stride[0] - g.before[0] +
                         tap / (g.kernel[1] * g.kernel[2]) * g.dilation[0];
      const int64_t iy =
          y * g.stride[1] - g.before[1] + tap / g.kernel[2] % g.kernel[1] * g.dilation[1];
      const int64_t ix = xx * g.stride[2] - g.before[2] + tap % g.kernel[2] * g.dilation[2];
      const bool inside = iz >= 0 && iz < t.in[0] && iy >= 0 && iy < t.in[1] && ix >= 0 && ix < t.in[2];
      const int64_t pixel = (iz * t.in[1] + iy) * t.in[2] + ix;
      for (int64_t k = 0; k < cg; ++k) {
        const int64_t a = inside ? coded(image, filter / og * cg + k, pixel) + g.offset : g.pad;
        sum += a * weight(filter, tap, k);
      }
    }
    sums[i] = static_cast<int32_t>(sum);
  }

  t.blob = static_cast<uint8_t*>(blob);
  t.x = packed.data();
  t.channels_last = r.one_in(2);
  const auto place_of = [&](bool last, int64_t i) {
    const int64_t image = i / (o * places), filter = i / places % o, at = i % places;
    return last ? (image * places + at) * o + filter : i;
  };

  Exact<int32_t> ints(sums.size());
  t.mode = Out::kInt;
  t.result = ints.data();
  convolve(core, t, threads);
  for (size_t i = 0; i < sums.size(); ++i)
    if (ints[place_of(t.channels_last, i)] != sums[i]) fail(core.name, seed, "integers differ");

  // Floats with a residual, and their signs.
  static const Step steps[] = {kAffine, kResidual};
  Exact<float> params(3 * o), residual(sums.size()), reals(sums.size());
  for (size_t i = 0; i < params.count; ++i) params[i] = r.real();
  for (size_t i = 0; i < residual.count; ++i) residual[i] = r.real();
  const bool whole = g.groups == 1 || og % 64 == 0;
  const int64_t out_words = (o + 63) / 64;
  Exact<uint64_t> bits(n * out_words * places);
  t.mode = whole ? Out::kBoth : Out::kFloat;
  t.result = reals.data();
  t.bits = whole ? bits.data() : nullptr;
  t.steps = steps;
  t.step_count = 2;
  t.params = params.data();
  t.param_rows = whole ? 3 : 2;
  t.has_sign_row = whole;
  t.residual = residual.data();
  t.residual_channels_last = r.one_in(2);
  convolve(core, t, threads);
  for (size_t i = 0; i < sums.size(); ++i) {
    const int64_t image = i / (o * places), filter = i / places % o, at = i % places;
    const float y = std::fmaf(float(sums[i]), params[filter], params[o + filter]) +
                    residual[place_of(t.residual_channels_last, i)];
    if (reals[place_of(t.channels_last, i)] != y) fail(core.name, seed, "floats differ");
    const uint64_t word = bits[(image * out_words + filter / 64) * places + at];
    if (whole && (word >> (filter % 64) & 1) != (y < params[2 * o + filter]))
      fail(core.name, seed, "signs of floats differ");
  }

  if (whole) {
    Exact<int32_t> edge(2 * o);
    for (int64_t i = 0; i < o; ++i) edge[i] = r.from(-9, 9), edge[o + i] = r.one_in(2);
    Exact<uint64_t> signs(bits.count);
    t.mode = Out::kBits;
    t.step_count = 0;
    t.params = nullptr;
    t.residual = nullptr;
    t.result = nullptr;
    t.bits = signs.data();
    t.thresholds = edge.data();
    convolve(core, t, threads);
    std::vector<uint64_t> expected(bits.count);
    for (size_t i = 0; i < sums.size(); ++i) {
      const int64_t image = i / (o * places), filter = i / places % o, at = i % places;
      const bool below = (sums[i] < edge[filter]) != (edge[o + filter] != 0);
      expected[(image * out_words + filter / 64) * places + at] |= uint64_t(below) << (filter % 64);
    }
    if (std::memcmp(expected.data(), signs.data(), signs.count * 8) != 0)
      fail(core.name, seed, "packed signs differ");
  }
  std::free(blob);
}

}  // namespace

int main(int argc, char** argv) {
  bool quick = false;
  std::string only;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--quick") == 0)
      quick = true;
    else if (std::strcmp(argv[i], "--list") == 0) {
      for (const Core* const* core = kCores; *core; ++core)
        if ((*core)->supported()) std::printf("%s\n", (*core)->name);
      return 0;
    } else {
      only = argv[i];
    }
  }
  bool ran = false;
  for (const Core* const* core = kCores; *core; ++core) {
    if (!(*core)->supported() || (!only.empty() && only != (*core)->name)) continue;
    ran = true;
    const int layers = quick ? 50 : 200;
    for (int i = 0; i < layers; ++i) test_layer(**core, i);
    std::printf("%s: %d layers\n", (*core)->name, layers);
  }
  return ran ? 0 : 2;
}
