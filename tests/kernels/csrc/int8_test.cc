// Every core of int8 that this machine has, against plain loops: numbers, products, layers, pooling,
// recurrent layers. Buffers have just the size that they need, so that sanitizers see every byte
// read or written past an end. Arguments: as core_test's.
#include "int8.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace lowbit;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// splitmix64: Steele, Lea and Flood 2014.
struct Random {
  uint64_t state;
  uint64_t next() {
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
  int64_t from(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(next() % static_cast<uint64_t>(high - low + 1));
  }
  bool one_in(int n) { return from(1, n) == 1; }
  float real() { return static_cast<float>(from(-4096, 4096)) / 1024; }
  // Most at the ends, where sums in 16 bits overflow.
  int byte(int low) { return one_in(2) ? (one_in(2) ? low : low + 255) : int(from(low, low + 255)); }
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

struct Case {
  const Int8Core* core;
  uint64_t seed;
  [[noreturn]] void fail(const char* what, int64_t at = -1) const {
    std::printf("%s: seed %llu: %s, element %lld\n", core->name,
                static_cast<unsigned long long>(seed), what, static_cast<long long>(at));
    std::exit(1);
  }
  template <class T>
  void same(const char* what, const T* found, const T* expected, int64_t n) const {
    for (int64_t i = 0; i < n; ++i)
      if (std::memcmp(found + i, expected + i, sizeof(T)) != 0 &&
          !(found[i] != found[i] && expected[i] != expected[i]) && found[i] != expected[i])
        fail(what, i);
  }
};

void in_two_threads(int64_t count, Body body, void* context) {
  const int64_t half = count / 2;
  std::thread other([&] { body(0, half, context); });
  body(half, count, context);
  other.join();
}

Threads threads_of(Random* r) {
  return r->one_in(2) ? Threads{2, in_two_threads} : Threads{1, nullptr};
}

int code_at(const uint8_t* x, int type, int64_t i) {
  return type ? static_cast<int8_t>(x[i]) : x[i];
}

// clamp(round(steps) + zero_point) with the half to even that the processor has.
uint8_t code_of(float steps, double zero_point, int low) {
  if (steps != steps) return static_cast<uint8_t>(low);
  double v = std::nearbyint(static_cast<double>(steps)) + zero_point;
  v = v < low ? low : v > low + 255 ? low + 255 : v;
  return static_cast<uint8_t>(static_cast<int>(v));
}

void test_numbers(const Case& k) {
  Random r{k.seed};
  const Int8Core& core = *k.core;
  const int type = r.one_in(2), low = type ? -128 : 0;
  const Code code = type ? Code::kInt8 : Code::kUint8;
  const int64_t n = r.one_in(4) ? r.from(1, 300) : r.from(1, 70);
  const double scale = r.one_in(2) ? 0.5 : std::ldexp(1.0 + 0.1 * r.real(), int(r.from(-6, 4)));
  const int zero_point = r.byte(low), x_zero = r.byte(low), y_zero = r.byte(low);
  const float inverse = 1.0f / static_cast<float>(scale);
  const Rounding rounding = rounding_of(code, scale, zero_point);
  Exact<float> reals(n), real_out(n), real_expected(n);
  Exact<uint8_t> x(n), y(n), out(n), expected(n);
  const float odd[] = {kInf, -kInf, kNan, 3e38f, -3e38f, -0.0f, 1e-42f};
  for (int64_t i = 0; i < n; ++i) {
    reals[i] = r.one_in(5) ? odd[r.from(0, 6)] : 0.25f * static_cast<float>(r.from(-600, 600));
    x[i] = static_cast<uint8_t>(r.byte(low));
    y[i] = static_cast<uint8_t>(r.byte(low));
  }
  core.quantize[type](reals.data(), n, rounding, out.data());
  for (int64_t i = 0; i < n; ++i) expected[i] = code_of(reals[i] * inverse, zero_point, low);
  k.same("quantize", out.data(), expected.data(), n);

  Rounding before = rounding;
  before.low += static_cast<float>(zero_point);
  before.high += static_cast<float>(zero_point);
  core.requantize_row[type](reals.data(), static_cast<int>(n), before, out.data());
  for (int64_t i = 0; i < n; ++i) {
    const float moved = reals[i] * inverse + static_cast<float>(zero_point);
    expected[i] = code_of(moved, 0, low);
  }
  k.same("requantize_row", out.data(), expected.data(), n);

  const Affine a = {static_cast<float>(x_zero), 0.03f}, b = {static_cast<float>(y_zero), 0.3f};
  const auto real_x = [&](int64_t i) {
    return (static_cast<float>(code_at(x.data(), type, i)) - a.zero_point) * a.scale;
  };
  const auto real_y = [&](int64_t i) {
    return (static_cast<float>(code_at(y.data(), type, i)) - b.zero_point) * b.scale;
  };
  core.dequantize[type](x.data(), n, a, real_out.data());
  for (int64_t i = 0; i < n; ++i) real_expected[i] = real_x(i);
  k.same("dequantize", real_out.data(), real_expected.data(), n);

  core.requantize[type](x.data(), n, 1, n, a, rounding, out.data(), n);
  for (int64_t i = 0; i < n; ++i) expected[i] = code_of(real_x(i) * inverse, zero_point, low);
  k.same("requantize", out.data(), expected.data(), n);

  core.add[type](x.data(), y.data(), n, a, b, rounding, out.data());
  for (int64_t i = 0; i < n; ++i)
    expected[i] = code_of((real_x(i) + real_y(i)) * inverse, zero_point, low);
  k.same("add", out.data(), expected.data(), n);

  core.add[type](x.data(), y.data(), n, a, b, rounding_of(code, scale, zero_point, true),
                 out.data());
  for (int64_t i = 0; i < n; ++i)
    if (code_at(expected.data(), type, i) < zero_point)
      expected[i] = static_cast<uint8_t>(zero_point);
  k.same("add and relu", out.data(), expected.data(), n);

  core.mul[type](x.data(), y.data(), n, a, b, rounding, out.data());
  for (int64_t i = 0; i < n; ++i) {
    const int product =
        (code_at(x.data(), type, i) - x_zero) * (code_at(y.data(), type, i) - y_zero);
    expected[i] = code_of(static_cast<float>(product) * inverse, zero_point, low);
  }
  k.same("mul", out.data(), expected.data(), n);

  const int least = static_cast<int>(r.from(low, low + 255));
  const int greatest = static_cast<int>(r.from(least, low + 255));
  core.clamp[type](x.data(), n, least, greatest, out.data());
  for (int64_t i = 0; i < n; ++i) {
    const int v = code_at(x.data(), type, i);
    expected[i] = static_cast<uint8_t>(v < least ? least : v > greatest ? greatest : v);
  }
  k.same("clamp", out.data(), expected.data(), n);

  float lowest = kInf, highest = -kInf, low_expected = kInf, high_expected = -kInf;
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) finite = finite && std::isfinite(reals[i]);
  if (core.range(reals.data(), n, &lowest, &highest) != finite) k.fail("range: finite");
  if (finite) {
    for (int64_t i = 0; i < n; ++i) {
      low_expected = std::fmin(low_expected, reals[i]);
      high_expected = std::fmax(high_expected, reals[i]);
    }
    if (lowest != low_expected || highest != high_expected) k.fail("range");
  }

  const int64_t channels = r.from(1, 6), pixels = r.from(1, 70);
  Exact<uint8_t> planes(channels * pixels), side(channels * pixels), side_expected(side.count);
  for (size_t i = 0; i < planes.count; ++i) planes[i] = static_cast<uint8_t>(r.next());
  core.interleave(planes.data(), pixels, channels, pixels, side.data());
  for (int64_t i = 0; i < pixels; ++i)
    for (int64_t c = 0; c < channels; ++c)
      side_expected[i * channels + c] = planes[c * pixels + i];
  k.same("interleave", side.data(), side_expected.data(), channels * pixels);
}

// A layer, its sums in 64 bits, packed weights and plain ones, in one thread and in two.
void test_linear(const Case& k) {
  Random r{k.seed * 3 + 1};
  const Int8Core& core = *k.core;
  LinearTask t = {};
  t.rows = r.one_in(3) ? r.from(1, 40) : r.one_in(20) ? r.from(250, 270) : r.from(1, 9);
  t.columns = r.one_in(4) ? r.from(49, 150) : r.from(1, 60);
  t.depth = 4 * (r.one_in(3) ? r.from(1, 80) : r.from(0, 20));
  const bool is_long = r.one_in(60);
  if (is_long) t.depth = kMaxDepth + 4 * r.from(1, 30), t.rows = r.from(1, 3), t.columns = 5;
  t.x_stride = t.depth + 4 * r.from(0, 2);
  Exact<uint8_t> x(t.rows ? (t.rows - 1) * t.x_stride + t.depth : 0);
  Exact<int8_t> w(t.columns * t.depth);
  for (size_t i = 0; i < x.count; ++i) x[i] = static_cast<uint8_t>(r.byte(0));
  for (size_t i = 0; i < w.count; ++i) w[i] = static_cast<int8_t>(r.byte(-128));
  t.per_column = r.one_in(2);
  Exact<float> scales(t.per_column ? t.columns : 1), bias(t.columns);
  Exact<int32_t> zeros(t.columns);
  for (size_t i = 0; i < scales.count; ++i) scales[i] = 0.001f * static_cast<float>(r.from(1, 99));
  for (int64_t i = 0; i < t.columns; ++i) bias[i] = r.real() * 100;
  for (int64_t i = 0; i < t.columns; ++i) zeros[i] = static_cast<int32_t>(r.from(-128, 127));
  t.x = x.data();
  t.w = w.data();
  t.x_scale = 0.02f;
  t.x_zero = r.byte(0);
  t.w_scales = scales.data();
  if (r.one_in(2)) t.bias = bias.data();
  if (r.one_in(3)) t.w_zeros = zeros.data();
  t.relu = r.one_in(2);
  t.out_code = static_cast<Code>(r.from(0, 2));
  t.out_scale = 0.5 + std::sqrt(static_cast<double>(t.depth));
  t.out_zero = r.byte(t.out_code == Code::kInt8 ? -128 : 0);
  const int64_t n = t.rows * t.columns;
  Exact<uint8_t> residual(n);
  Exact<float> real_residual(n);
  for (int64_t i = 0; i < n; ++i) residual[i] = static_cast<uint8_t>(r.next());
  for (int64_t i = 0; i < n; ++i) real_residual[i] = r.real() * 10;
  if (r.one_in(2)) {
    t.residual_code = static_cast<Code>(r.from(0, 2));
    t.residual = t.residual_code == Code::kFloat ? static_cast<void*>(real_residual.data())
                                                 : residual.data();
    t.residual_scale = 0.7;
    t.residual_zero = r.byte(t.residual_code == Code::kInt8 ? -128 : 0);
  }
  Exact<float> real_out(n), real_expected(n);
  Exact<uint8_t> out(n), expected(n);
  for (int64_t i = 0; i < t.rows; ++i)
    for (int64_t j = 0; j < t.columns; ++j) {
      int64_t sum = 0;
      for (int64_t c = 0; c < t.depth; ++c)
        sum += int64_t(x[i * t.x_stride + c] - t.x_zero) *
               (w[j * t.depth + c] - (t.w_zeros ? zeros[j] : 0));
      float v = static_cast<float>(sum) * t.x_scale;
      v = v * scales[t.per_column ? j : 0];
      if (t.bias) v = v + bias[j];
      const int64_t at = i * t.columns + j;
      if (t.residual && t.residual_code == Code::kFloat) v = v + real_residual[at];
      if (t.residual && t.residual_code != Code::kFloat) {
        const int code = code_at(residual.data(), t.residual_code == Code::kInt8, at);
        const float centred = static_cast<float>(code) - static_cast<float>(t.residual_zero);
        const float real = centred * static_cast<float>(t.residual_scale);
        v = v + real;
      }
      if (t.relu && v < 0) v = 0;
      real_expected[at] = v;
      const float scaled = v * (1.0f / static_cast<float>(t.out_scale));
      const float moved = scaled + static_cast<float>(t.out_zero);
      expected[at] = code_of(moved, 0, t.out_code == Code::kInt8 ? -128 : 0);
    }
  t.out = t.out_code == Code::kFloat ? static_cast<void*>(real_out.data()) : out.data();
  const size_t bytes = packed_tiles_bytes(core, t.columns, t.depth);
  int8_t* packed = static_cast<int8_t*>(std::aligned_alloc(64, bytes + 64));
  if (bytes) pack_tiles(core, t.w, t.columns, t.depth, packed);
  for (const bool uses_packed : {false, true}) {
    t.packed = uses_packed && bytes ? packed : nullptr;
    std::memset(out.data(), 77, out.count);
    linear(core, t, threads_of(&r));
    if (t.out_code == Code::kFloat)
      k.same("linear to float32", real_out.data(), real_expected.data(), n);
    else
      k.same("linear", out.data(), expected.data(), n);
  }
  std::free(packed);
}

void test_windows(const Case& k) {
  Random r{k.seed * 5 + 2};
  WindowTask t = {};
  const int type = r.one_in(2), low = type ? -128 : 0;
  t.code = type ? Code::kInt8 : Code::kUint8;
  t.n = r.from(1, 3);
  t.channels = r.one_in(3) ? r.from(60, 200) : r.from(1, 20);
  t.adaptive = r.one_in(3);
  for (int i = 0; i < 2; ++i) {
    t.kernel[i] = r.from(1, 4);
    t.stride[i] = r.from(1, 3);
    t.padding[i] = r.from(0, t.kernel[i] / 2);
    t.dilation[i] = t.adaptive ? 1 : r.from(1, 2);
    const int64_t reach = t.dilation[i] * (t.kernel[i] - 1);
    t.in[i] = reach + r.from(1, 8);
    t.out[i] = (t.in[i] + 2 * t.padding[i] - reach - 1) / t.stride[i] + 1;
    if (t.adaptive) t.out[i] = r.from(1, t.in[i] + 2);
  }
  t.zero_point = r.byte(low);
  t.count_include_pad = r.one_in(2);
  t.divisor = r.one_in(3) ? r.from(1, 9) : 0;
  if (t.adaptive) t.divisor = 0, t.count_include_pad = true;
  Exact<uint8_t> x(t.n * t.in[0] * t.in[1] * t.channels);
  Exact<uint8_t> y(t.n * t.out[0] * t.out[1] * t.channels), expected(y.count);
  for (size_t i = 0; i < x.count; ++i) x[i] = static_cast<uint8_t>(r.byte(low));
  t.x = x.data();
  t.y = y.data();
  for (const bool is_mean : {false, true}) {
    if (t.adaptive && !is_mean) continue;
    if (is_mean && !t.adaptive) {
      for (int i = 0; i < 2; ++i) {
        t.dilation[i] = 1;
        t.out[i] = (t.in[i] + 2 * t.padding[i] - t.kernel[i]) / t.stride[i] + 1;
      }
      y = Exact<uint8_t>(t.n * t.out[0] * t.out[1] * t.channels);
      expected = Exact<uint8_t>(y.count);
      t.y = y.data();
    }
    size_t at = 0;
    for (int64_t image = 0; image < t.n; ++image)
      for (int64_t oy = 0; oy < t.out[0]; ++oy)
        for (int64_t ox = 0; ox < t.out[1]; ++ox)
          for (int64_t c = 0; c < t.channels; ++c) {
            int64_t start[2], end[2];
            const int64_t place[2] = {oy, ox};
            for (int i = 0; i < 2; ++i) {
              start[i] = place[i] * t.stride[i] - t.padding[i];
              end[i] = start[i] + t.dilation[i] * (t.kernel[i] - 1) + 1;
              if (t.adaptive) {
                start[i] = place[i] * t.in[i] / t.out[i];
                end[i] = -(-(place[i] + 1) * t.in[i] / t.out[i]);
                if ((place[i] + 1) * t.in[i] % t.out[i]) ++end[i];
              }
            }
            int64_t best = low, sum = 0, count = 0, with_padding = 0;
            for (int64_t iy = start[0]; iy < end[0]; iy += t.dilation[0])
              for (int64_t ix = start[1]; ix < end[1]; ix += t.dilation[1]) {
                if (iy < t.in[0] + t.padding[0] && ix < t.in[1] + t.padding[1]) ++with_padding;
                if (iy < 0 || ix < 0 || iy >= t.in[0] || ix >= t.in[1]) continue;
                const int64_t v = code_at(
                    x.data(), type, ((image * t.in[0] + iy) * t.in[1] + ix) * t.channels + c);
                best = v > best ? v : best;
                sum += v - t.zero_point;
                ++count;
              }
            const int64_t by = t.divisor ? t.divisor : t.count_include_pad ? with_padding : count;
            const double mean = static_cast<double>(sum) / static_cast<double>(by);
            double code = std::nearbyint(mean) + t.zero_point;
            code = code < low ? low : code > low + 255 ? low + 255 : code;
            expected[at++] = static_cast<uint8_t>(is_mean ? static_cast<int64_t>(code) : best);
          }
    if (is_mean)
      mean_windows(*k.core, t, threads_of(&r));
    else
      max_windows(*k.core, t, threads_of(&r));
    k.same(is_mean ? "mean_windows" : "max_windows", y.data(), expected.data(),
           static_cast<int64_t>(y.count));
  }
}

double units_off(float found, double expected) {
  const double unit = std::ldexp(1.0, std::ilogb(std::fabs(expected) + 1e-38) - 23);
  return std::fabs(found - expected) / unit;
}

// The gates alone, in units of the last place of the true values.
void test_gates(const Case& k) {
  Random r{k.seed * 7 + 3};
  const int64_t n = r.from(1, 70);
  Exact<float> x(n), h(n), out(n), zeros(4 * n), c(n), gates(4 * n);
  for (int64_t i = 0; i < n; ++i) {
    x[i] = r.one_in(10) ? 30 * r.real() : r.real();
    h[i] = r.one_in(3) ? 0 : r.real();
  }
  k.core->tanh(x.data(), h.data(), n, out.data());
  for (int64_t i = 0; i < n; ++i)
    if (units_off(out[i], std::tanh(static_cast<double>(x[i] + h[i]))) > 3) k.fail("tanh", i);
  // With c = 1 and the other gates closed or 0, c' is the sigmoid of the second.
  for (int64_t i = 0; i < n; ++i) {
    c[i] = 1;
    gates[n + i] = x[i] + h[i];
  }
  k.core->lstm(gates.data(), zeros.data(), n, c.data(), out.data());
  for (int64_t i = 0; i < n; ++i) {
    const double expected = 1 / (1 + std::exp(-static_cast<double>(gates[n + i])));
    if (std::fabs(gates[n + i]) < 80 && units_off(c[i], expected) > 3) k.fail("sigmoid", i);
  }
  const float odd[] = {kNan, kInf, -kInf, 100, -100};
  const double tanhs[] = {kNan, 1, -1, 1, -1};
  Exact<float> ends(5), none(5), found(5);
  std::memcpy(ends.data(), odd, sizeof(odd));
  k.core->tanh(ends.data(), none.data(), 5, found.data());
  for (int i = 0; i < 5; ++i)
    if (i == 0 ? found[i] == found[i] : found[i] != static_cast<float>(tanhs[i]))
      k.fail("tanh of the ends", i);
}

// A layer over steps is its steps one by one, packed or not, from either end.
void test_recurrent(const Case& k) {
  Random r{k.seed * 11 + 4};
  RecurrentTask t = {};
  t.gates = static_cast<Gates>(r.from(0, 3));
  const int64_t gates = t.gates == Gates::kLstm ? 4 : t.gates == Gates::kGru ? 3 : 1;
  t.steps = r.from(1, 6);
  t.batch = r.from(1, 7);
  t.features = r.from(1, 40);
  t.hidden = r.from(1, 40);
  t.levels = r.one_in(2) ? 127 : 255;
  t.reverse = r.one_in(2);
  std::vector<int64_t> sizes(static_cast<size_t>(t.steps), t.batch);
  if (r.one_in(2)) {
    for (int64_t i = 1; i < t.steps; ++i) sizes[i] = r.from(1, sizes[i - 1]);
    t.batch_sizes = sizes.data();
  }
  int64_t rows = 0;
  for (const int64_t size : sizes) rows += size;
  const int64_t width = gates * t.hidden, state = t.batch * t.hidden;
  Exact<float> x(rows * t.features), h(state), c(state), y(rows * t.hidden), scale(1), bias(width);
  Exact<int8_t> ih(width * t.features), hh(width * t.hidden);
  for (size_t i = 0; i < x.count; ++i) x[i] = r.real();
  for (int64_t i = 0; i < state; ++i) h[i] = r.real() / 4;
  for (int64_t i = 0; i < state; ++i) c[i] = r.real() / 4;
  for (int64_t i = 0; i < width; ++i) bias[i] = r.real() / 4;
  for (size_t i = 0; i < ih.count; ++i) ih[i] = static_cast<int8_t>(r.byte(-128));
  for (size_t i = 0; i < hh.count; ++i) hh[i] = static_cast<int8_t>(r.byte(-128));
  scale[0] = 0.003f;
  const auto weight = [&](Exact<int8_t>* w, int64_t depth) {
    LinearTask task = {};
    task.w = w->data();
    task.columns = width;
    task.depth = depth;
    task.w_scales = scale.data();
    task.bias = bias.data();
    return task;
  };
  t.ih = weight(&ih, t.features);
  t.hh = weight(&hh, t.hidden);
  t.x = x.data();
  t.y = y.data();

  Exact<float> inputs(rows * width), products(t.batch * width), h1(state), c1(state), y1(y.count);
  std::memcpy(h1.data(), h.data(), sizeof(float) * state);
  std::memcpy(c1.data(), c.data(), sizeof(float) * state);
  const Threads one = {1, nullptr};
  LinearTask task = t.ih;
  task.rows = rows;
  task.out = inputs.data();
  linear_dynamic(*k.core, task, x.data(), t.levels, one);
  for (int64_t step = 0; step < t.steps; ++step) {
    const int64_t at = t.reverse ? t.steps - 1 - step : step;
    int64_t row = 0;
    for (int64_t i = 0; i < at; ++i) row += sizes[i];
    task = t.hh;
    task.rows = sizes[at];
    task.out = products.data();
    linear_dynamic(*k.core, task, h1.data(), t.levels, one);
    for (int64_t i = 0; i < sizes[at]; ++i) {
      const float *from = inputs.data() + (row + i) * width, *product = products.data() + i * width;
      float *before = h1.data() + i * t.hidden, *after = y1.data() + (row + i) * t.hidden;
      if (t.gates == Gates::kLstm)
        k.core->lstm(from, product, t.hidden, c1.data() + i * t.hidden, after);
      if (t.gates == Gates::kGru) k.core->gru(from, product, t.hidden, before, after);
      if (t.gates == Gates::kTanh) k.core->tanh(from, product, t.hidden, after);
      if (t.gates == Gates::kRelu) k.core->relu(from, product, t.hidden, after);
      std::memcpy(before, after, sizeof(float) * t.hidden);
    }
  }
  t.h = h.data();
  t.c = t.gates == Gates::kLstm ? c.data() : nullptr;
  recurrent(*k.core, t, threads_of(&r));
  k.same("recurrent: y", y.data(), y1.data(), static_cast<int64_t>(y.count));
  k.same("recurrent: h", h.data(), h1.data(), state);
  if (t.c) k.same("recurrent: c", c.data(), c1.data(), state);
}

// Constants from lowbit.functional.int8.choose_qparams, as Python computes them.
void test_grids() {
  const Grid a = choose_grid(-1, 3, 255), b = choose_grid(0, 0, 255), c = choose_grid(2, 5, 127);
  const Grid d = choose_grid(-1e-9, 1e-9, 255);
  if (a.scale != 0.01568627450980392 || a.zero_point != 64 || b.scale != 0.1 ||
      b.zero_point != 0 || c.scale != 5.0 / 127 || c.zero_point != 0 ||
      d.scale != 6.0999998822808266e-05 || d.zero_point != 127) {
    std::printf("choose_grid\n");
    std::exit(1);
  }
}

}  // namespace

int main(int argc, char** argv) {
  bool quick = false;
  const char* wanted = nullptr;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--quick") == 0)
      quick = true;
    else
      wanted = argv[i];
  }
  test_grids();
  int ran = 0;
  for (const Int8Core* const* core = kInt8Cores; *core; ++core) {
    if (wanted && std::strcmp(wanted, (*core)->name) != 0) continue;
    if (!(*core)->supported()) continue;
    const uint64_t seeds = quick ? 150 : 600;
    for (uint64_t seed = 1; seed <= seeds; ++seed) {
      const Case k = {*core, seed};
      test_numbers(k);
      test_linear(k);
      test_windows(k);
      test_gates(k);
      test_recurrent(k);
    }
    std::printf("int8 %s: %llu cases\n", (*core)->name, static_cast<unsigned long long>(seeds));
    ++ran;
  }
  return ran ? 0 : 2;
}
