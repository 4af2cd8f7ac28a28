// Gates of recurrent layers, in loops that compilers vectorize: no branches, no calls.
//
// exp by a polynomial of degree 6 on [-ln 2 / 2, ln 2 / 2] and a power of two. Against the true
// values: sigmoid within 2.5 and tanh within 3 units in the last place (tests/kernels/csrc).
#pragma once
#include <string.h>

#include "int8_loops.h"

namespace lowbit {
namespace {

// e^x for x in [-87, 88].
inline float exp_of(float x) {
  const float shifted = x * 1.44269504f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  uint32_t bits;
  memcpy(&bits, &shifted, 4);
  // ln 2 in two parts, the first with so few bits that n times it is exact.
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const uint32_t power = (bits - 0x4b400000u + 127u) << 23;
  float scale;
  memcpy(&scale, &power, 4);
  return p * scale;
}

// Values past the ends are where float32 has the limit already; NaN stays.
inline float limit(float x, float low, float high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

inline float sigmoid(float x) { return 1.0f / (1.0f + exp_of(-limit(x, -87.0f, 87.0f))); }

inline float tanh_of(float x) {
  // Near 0 a polynomial in x^2: 1 - 2 / (e^2x + 1) loses its bits there.
  const float s = x * x;
  float p = -5.70498872745e-3f;
  p = p * s + 2.06390887954e-2f;
  p = p * s + -5.37397155531e-2f;
  p = p * s + 1.33314422036e-1f;
  p = p * s + -3.33332819422e-1f;
  const float near = p * s * x + x;
  const float a = x < 0 ? -x : x;
  const float far = 1.0f - 2.0f / (exp_of(2.0f * limit(a, 0.0f, 20.0f)) + 1.0f);
  const float signed_far = x < 0 ? -far : far;
  return a < 0.625f ? near : signed_far;
}

void lstm_gates(const float* __restrict x, const float* __restrict h, int64_t n,
                float* __restrict c, float* __restrict out) {
  for (int64_t j = 0; j < n; ++j) {
    const float i = sigmoid(x[j] + h[j]);
    const float f = sigmoid(x[n + j] + h[n + j]);
    const float g = tanh_of(x[2 * n + j] + h[2 * n + j]);
    const float o = sigmoid(x[3 * n + j] + h[3 * n + j]);
    const float kept = f * c[j] + i * g;
    c[j] = kept;
    out[j] = o * tanh_of(kept);
  }
}

void gru_gates(const float* __restrict x, const float* __restrict h, int64_t n,
               const float* __restrict before, float* __restrict out) {
  for (int64_t j = 0; j < n; ++j) {
    const float r = sigmoid(x[j] + h[j]);
    const float z = sigmoid(x[n + j] + h[n + j]);
    const float m = tanh_of(x[2 * n + j] + r * h[2 * n + j]);
    out[j] = (before[j] - m) * z + m;
  }
}

void tanh_gate(const float* __restrict x, const float* __restrict h, int64_t n,
               float* __restrict out) {
  for (int64_t j = 0; j < n; ++j) out[j] = tanh_of(x[j] + h[j]);
}

void relu_gate(const float* __restrict x, const float* __restrict h, int64_t n,
               float* __restrict out) {
  for (int64_t j = 0; j < n; ++j) {
    const float v = x[j] + h[j];
    out[j] = v < 0 ? 0 : v;
  }
}

}  // namespace
}  // namespace lowbit
