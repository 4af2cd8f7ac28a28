// What the operators of int8 share.
#pragma once
#include <torch/csrc/stable/ops.h>

#include <cfloat>
#include <cstdlib>
#include <optional>

#include "int8.h"
#include "tensors.h"

namespace lowbit::tensors {

using torch::headeronly::ScalarType;

// The best core of this processor, or the best of those that LOWBIT_ISA allows.
const Int8Core& int8_core(const char* op);

inline Code code_of(const char* op, const View& t) {
  if (t.device != aoti_torch_device_type_cpu()) fail(op, "tensors must be on the CPU");
  if (is_type(t, kByte)) return Code::kUint8;
  if (is_type(t, kInt8)) return Code::kInt8;
  fail(op, "integers must be uint8 or int8");
}

inline Type type_of(Code code) {
  return code == Code::kUint8 ? kByte : code == Code::kInt8 ? kInt8 : kFloat32;
}

inline void check_scale(const char* op, double scale) {
  if (!(scale > 0x1p-128 && scale <= FLT_MAX))
    fail(op, "a scale must be positive and finite, as its reciprocal in float32, not ", scale);
}

inline void check_qparams(const char* op, double scale, int64_t zero_point, Code code) {
  check_scale(op, scale);
  const int64_t low = code == Code::kInt8 ? -128 : 0;
  if (zero_point < low || zero_point > low + 255)
    fail(op, "zero point ", zero_point, " is outside [", low, ", ", low + 255, "]");
}

}  // namespace lowbit::tensors
