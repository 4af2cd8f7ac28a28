// The loops of Int8Core in plain C++, which each instruction set's file compiles for itself.
#pragma once
#include <string.h>

#include "int8_core.h"

namespace lowbit {
namespace {

inline float at_least(float v, float low) { return v > low ? v : low; }  // low for NaN
inline float at_most(float v, float high) { return v < high ? v : high; }

// Of |v| < 2^22, half to even: where the last bit of the sum is a whole number.
inline int32_t rounded(float v) {
  const float moved = v + 12582912.0f;
  int32_t bits;
  memcpy(&bits, &moved, 4);
  return bits - 0x4b400000;
}

template <class T>
inline T limited(float steps, const Rounding& r) {
  return static_cast<T>(rounded(at_most(at_least(steps, r.low), r.high)) + r.zero_point);
}

template <class T>
void quantize(const float* __restrict x, int64_t n, Rounding r, void* out) {
  T* __restrict y = static_cast<T*>(out);
  for (int64_t i = 0; i < n; ++i) y[i] = limited<T>(x[i] * r.inverse, r);
}

template <class T>
void requantize_row(const float* __restrict x, int n, Rounding r, void* out) {
  T* __restrict y = static_cast<T*>(out);
  const float zero_point = static_cast<float>(r.zero_point);
  for (int i = 0; i < n; ++i)
    y[i] = static_cast<T>(
        rounded(at_most(at_least(x[i] * r.inverse + zero_point, r.low), r.high)));
}

inline float real(int32_t code, const Affine& a) {
  return (static_cast<float>(code) - a.zero_point) * a.scale;
}

template <class T>
void dequantize(const void* codes, int64_t n, Affine a, float* __restrict out) {
  const T* __restrict x = static_cast<const T*>(codes);
  for (int64_t i = 0; i < n; ++i) out[i] = real(x[i], a);
}

template <class T>
void requantize(const void* codes, ptrdiff_t x_row, int64_t rows, int64_t n, Affine a, Rounding r,
                void* out, ptrdiff_t out_row) {
  for (int64_t row = 0; row < rows; ++row) {
    const T* __restrict x = static_cast<const T*>(codes) + row * x_row;
    T* __restrict y = static_cast<T*>(out) + row * out_row;
    for (int64_t i = 0; i < n; ++i) y[i] = limited<T>(real(x[i], a) * r.inverse, r);
  }
}

template <class T>
void add(const void* first, const void* second, int64_t n, Affine a, Affine b, Rounding r,
         void* out) {
  const T* __restrict x = static_cast<const T*>(first);
  const T* __restrict y = static_cast<const T*>(second);
  T* __restrict z = static_cast<T*>(out);
  for (int64_t i = 0; i < n; ++i)
    z[i] = limited<T>((real(x[i], a) + real(y[i], b)) * r.inverse, r);
}

template <class T>
void mul(const void* first, const void* second, int64_t n, Affine a, Affine b, Rounding r,
         void* out) {
  const T* __restrict x = static_cast<const T*>(first);
  const T* __restrict y = static_cast<const T*>(second);
  T* __restrict z = static_cast<T*>(out);
  const int32_t x_zero = static_cast<int32_t>(a.zero_point);
  const int32_t y_zero = static_cast<int32_t>(b.zero_point);
  for (int64_t i = 0; i < n; ++i)
    z[i] = limited<T>(static_cast<float>((x[i] - x_zero) * (y[i] - y_zero)) * r.inverse, r);
}

template <class T>
void most(const void* from, int64_t n, void* out) {
  const T* __restrict x = static_cast<const T*>(from);
  T* __restrict y = static_cast<T*>(out);
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] > y[i] ? x[i] : y[i];
}

template <class T>
void clamp(const void* from, int64_t n, int low, int high, void* out) {
  const T* __restrict x = static_cast<const T*>(from);
  T* __restrict y = static_cast<T*>(out);
  const T least = static_cast<T>(low), greatest = static_cast<T>(high);
  for (int64_t i = 0; i < n; ++i) {
    const T v = x[i] > least ? x[i] : least;
    y[i] = v < greatest ? v : greatest;
  }
}

template <class T>
void sum(const void* from, int64_t n, bool first, int32_t* __restrict out) {
  const T* __restrict x = static_cast<const T*>(from);
  if (first)
    for (int64_t i = 0; i < n; ++i) out[i] = x[i];
  else
    for (int64_t i = 0; i < n; ++i) out[i] += x[i];
}

template <class T>
void most_of(const void* from, ptrdiff_t step, int64_t count, int64_t n, void* out) {
  const T* __restrict x = static_cast<const T*>(from);
  T* __restrict y = static_cast<T*>(out);
  // As many as there are in a line of the cache, in a vector; vectors compare to -1 and 0.
  constexpr int kL = 64;
  typedef T Line __attribute__((vector_size(kL)));
  int64_t i = 0;
  for (; i + kL <= n; i += kL) {
    Line best;
    memcpy(&best, x + i, kL);
    for (int64_t k = 1; k < count; ++k) {
      Line next;
      memcpy(&next, x + k * step + i, kL);
      best = next > best ? next : best;
    }
    memcpy(y + i, &best, kL);
  }
  for (; i < n; ++i) {
    T best = x[i];
    for (int64_t k = 1; k < count; ++k) best = x[k * step + i] > best ? x[k * step + i] : best;
    y[i] = best;
  }
}

// Sums are below 2^24 and divisors at most 2^15 (int8.h): the quotient in float32 is a tie exactly
// where the true one is.
template <class T>
void mean_of(const int32_t* __restrict x, ptrdiff_t step, int64_t count, int64_t n, Mean m,
             void* out) {
  T* __restrict y = static_cast<T*>(out);
  const float by = static_cast<float>(m.divisor), inverse = 1.0f / by;
  const bool is_power = (m.divisor & (m.divisor - 1)) == 0;  // of two: the product is the quotient
  const float low = static_cast<float>((T(-1) < T(0) ? -128 : 0) - m.zero_point);
  const float high = static_cast<float>((T(-1) < T(0) ? 127 : 255) - m.zero_point);
  const auto finish = [&](float steps) {
    return static_cast<T>(rounded(at_most(at_least(steps, low), high)) + m.zero_point);
  };
  constexpr int kL = 64;
  int64_t i = 0;
  for (; i + kL <= n; i += kL) {
    int32_t total[kL];
    for (int j = 0; j < kL; ++j) total[j] = x[i + j] - m.shift;
    for (int64_t k = 1; k < count; ++k)
      for (int j = 0; j < kL; ++j) total[j] += x[k * step + i + j];
    if (is_power)
      for (int j = 0; j < kL; ++j) y[i + j] = finish(static_cast<float>(total[j]) * inverse);
    else
      for (int j = 0; j < kL; ++j) y[i + j] = finish(static_cast<float>(total[j]) / by);
  }
  for (; i < n; ++i) {
    int32_t total = x[i] - m.shift;
    for (int64_t k = 1; k < count; ++k) total += x[k * step + i];
    y[i] = finish(static_cast<float>(total) / by);
  }
}

void interleave(const uint8_t* __restrict x, ptrdiff_t plane, int64_t channels, int64_t n,
                uint8_t* __restrict out) {
  if (channels == 3) {
    const uint8_t *a = x, *b = x + plane, *c = x + 2 * plane;
    for (int64_t i = 0; i < n; ++i) {
      out[3 * i] = a[i];
      out[3 * i + 1] = b[i];
      out[3 * i + 2] = c[i];
    }
    return;
  }
  for (int64_t i = 0; i < n; ++i)
    for (int64_t c = 0; c < channels; ++c) out[i * channels + c] = x[c * plane + i];
}

bool range(const float* __restrict x, int64_t n, float* low, float* high) {
  constexpr int kL = 32;
  float least[kL], greatest[kL], odd[kL];
  for (int j = 0; j < kL; ++j) least[j] = *low, greatest[j] = *high, odd[j] = 0;
  int64_t i = 0;
  for (; i + kL <= n; i += kL)
    for (int j = 0; j < kL; ++j) {
      const float v = x[i + j];
      least[j] = v < least[j] ? v : least[j];
      greatest[j] = v > greatest[j] ? v : greatest[j];
      odd[j] += v * 0.0f;  // NaN of NaN and infinity
    }
  for (int j = 0; i < n; ++i, ++j) {
    const float v = x[i];
    least[j] = v < least[j] ? v : least[j];
    greatest[j] = v > greatest[j] ? v : greatest[j];
    odd[j] += v * 0.0f;
  }
  bool finite = true;
  for (int j = 0; j < kL; ++j) {
    *low = at_most(least[j], *low);
    *high = at_least(greatest[j], *high);
    finite = finite && odd[j] == 0;
  }
  return finite;
}

int32_t sum_of(const uint8_t* __restrict x, int64_t n) {
  uint32_t total = 0;
  for (int64_t i = 0; i < n; ++i) total += x[i];
  return static_cast<int32_t>(total);
}

void finish(const Finish& f, float* __restrict y) {
  if (f.real) {
    for (int j = 0; j < kTile; ++j) y[j] = f.real[j];
  } else {
    const int32_t* __restrict sums = f.sums;
    const int32_t* __restrict w_sums = f.w_sums;
    const uint32_t x_zero = static_cast<uint32_t>(f.x_zero);
    if (f.w_zeros) {
      const uint32_t rest =
          static_cast<uint32_t>(f.depth) * x_zero - static_cast<uint32_t>(f.x_sum);
      for (int j = 0; j < kTile; ++j)
        y[j] = static_cast<float>(static_cast<int32_t>(
            static_cast<uint32_t>(sums[j]) - x_zero * static_cast<uint32_t>(w_sums[j]) +
            static_cast<uint32_t>(f.w_zeros[j]) * rest));
    } else {
      for (int j = 0; j < kTile; ++j)
        y[j] = static_cast<float>(static_cast<int32_t>(
            static_cast<uint32_t>(sums[j]) - x_zero * static_cast<uint32_t>(w_sums[j])));
    }
  }
  const float* __restrict w_scales = f.w_scales;
  const float* __restrict bias = f.bias;
  for (int j = 0; j < kTile; ++j) y[j] = y[j] * f.x_scale * w_scales[j];
  if (bias)
    for (int j = 0; j < kTile; ++j) y[j] += bias[j];
  if (f.relu)
    for (int j = 0; j < kTile; ++j) y[j] = y[j] < 0 ? 0 : y[j];  // NaN stays
}

void add_real(float* __restrict y, const float* __restrict residual, int n, bool relu) {
  for (int j = 0; j < n; ++j) y[j] += residual[j];
  if (relu)
    for (int j = 0; j < n; ++j) y[j] = y[j] < 0 ? 0 : y[j];
}

// Products without an instruction for them.
inline int32_t dot(const uint8_t* __restrict x, const int8_t* __restrict w, int64_t depth) {
  int32_t total = 0;
  for (int64_t c = 0; c < depth; ++c) total += static_cast<int32_t>(x[c]) * w[c];
  return total;
}

inline int32_t row_sum(const int8_t* __restrict w, int64_t depth) {
  int32_t total = 0;
  for (int64_t c = 0; c < depth; ++c) total += w[c];
  return total;
}

inline size_t no_packed_form(int64_t) { return 0; }
inline void no_pack(const int8_t*, ptrdiff_t, int, int64_t, int8_t*) {}

}  // namespace
}  // namespace lowbit

// The loops in the order of Int8Core, from `finish` on.
#define LOWBIT_INT8_LOOPS                                                                  \
  finish, add_real, {requantize_row<uint8_t>, requantize_row<int8_t>},                     \
      {quantize<uint8_t>, quantize<int8_t>}, {dequantize<uint8_t>, dequantize<int8_t>},    \
      {requantize<uint8_t>, requantize<int8_t>}, {add<uint8_t>, add<int8_t>},              \
      {mul<uint8_t>, mul<int8_t>}, {most<uint8_t>, most<int8_t>},                          \
      {clamp<uint8_t>, clamp<int8_t>}, {most_of<uint8_t>, most_of<int8_t>},                \
      {sum<uint8_t>, sum<int8_t>}, {mean_of<uint8_t>, mean_of<int8_t>}, interleave, range,   \
      sum_of, lstm_gates, gru_gates, tanh_gate, relu_gate
