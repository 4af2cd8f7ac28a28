// The operators of int8 layers: linear, with integers or reals for an input, and recurrent.
#include <torch/csrc/stable/library.h>

#include <cstring>
#include <tuple>

#include "int8_tensors.h"

namespace {

using namespace lowbit;
using namespace lowbit::tensors;

// A weight as LinearTask has it, with memory for what has another dtype there.
// All tiles of a weight as a core packs them, behind what they were made by and of.
struct Header {
  char core[32];
  int64_t columns, depth;
  int64_t unused[2];
};
static_assert(sizeof(Header) == 64, "tiles behind a header are aligned as it is");

Tensor pack_weight(const Tensor& weight_) {
  const char* op = "int8_pack";
  const View weight(weight_);
  expect(op, "weight", weight, kInt8);
  if (weight.dim() != 2) fail(op, "weight must be (o, k); got ", sizes_of(weight));
  const Int8Core& core = int8_core(op);
  Header header = {};
  std::strncpy(header.core, core.name, sizeof(header.core) - 1);
  header.columns = weight.size(0);
  header.depth = weight.size(1);
  const size_t bytes = packed_tiles_bytes(core, header.columns, header.depth);
  if (bytes == 0) return empty({0}, kByte);
  Tensor out = empty({static_cast<int64_t>(sizeof(Header) + bytes)}, kByte);
  int8_t* to = static_cast<int8_t*>(out.mutable_data_ptr());
  std::memset(to, 0, sizeof(Header) + bytes);  // a last tile need not fill its own
  std::memcpy(to, &header, sizeof(Header));
  pack_tiles(core, weight.as<int8_t>(), header.columns, header.depth, to + sizeof(Header));
  return out;
}

// The tiles in `packed`, or null where there are none, or those of another core.
const int8_t* tiles_of(const char* op, const Int8Core& core, const LinearTask& t,
                       const std::optional<Tensor>& packed_) {
  if (!packed_) return nullptr;
  const View packed(*packed_);
  expect(op, "packed", packed, kByte);
  if (packed.numel() < static_cast<int64_t>(sizeof(Header))) return nullptr;
  const Header& header = *packed.as<Header>();
  if (std::strncmp(header.core, core.name, sizeof(header.core)) != 0) return nullptr;
  const int64_t bytes = sizeof(Header) + packed_tiles_bytes(core, t.columns, t.depth);
  if (header.columns != t.columns || header.depth != t.depth || packed.numel() != bytes)
    fail(op, "packed is of another weight");
  if (reinterpret_cast<uintptr_t>(packed.data) % 64) return nullptr;
  return packed.as<int8_t>() + sizeof(Header);
}

struct Weight {
  LinearTask task = {};
  std::vector<float> scales, bias;
  std::vector<int32_t> zeros;
};

// A vector in float32: where it lies, or converted to `memory`.
const float* reals(const char* op, const char* name, const View& t, std::vector<float>* memory) {
  if (t.device != aoti_torch_device_type_cpu()) fail(op, name, " must be on the CPU");
  if (!is_contiguous(t)) fail(op, name, " must be contiguous; call .contiguous()");
  if (is_type(t, kFloat32)) return t.as<float>();
  if (!is_type(t, kFloat64)) fail(op, name, " must be float32 or float64; convert it first");
  memory->resize(static_cast<size_t>(t.numel()) + 1);
  for (int64_t i = 0; i < t.numel(); ++i) (*memory)[i] = static_cast<float>(t.as<double>()[i]);
  return memory->data();
}

void set_weight(const char* op, const Tensor& weight_, const std::optional<Tensor>& scale,
                const std::optional<Tensor>& zero_point, const std::optional<Tensor>& bias,
                Weight* w) {
  const View weight(weight_);
  expect(op, "weight", weight, kInt8);
  if (weight.dim() != 2) fail(op, "weight must be (o, k); got ", sizes_of(weight));
  LinearTask& t = w->task;
  t.w = weight.as<int8_t>();
  t.columns = weight.size(0);
  t.depth = weight.size(1);
  if (!scale) fail(op, "a weight of int8 has a scale");
  const View scales(*scale);
  t.w_scales = reals(op, "scales", scales, &w->scales);
  if (scales.numel() != 1 && scales.numel() != t.columns)
    fail(op, scales.numel(), " scales for a weight of ", t.columns, " output channels");
  t.per_column = scales.numel() != 1;
  if (zero_point) {
    const View zeros(*zero_point);
    const bool is_long = is_type(zeros, kInt64);
    expect(op, "zero points", zeros, is_long ? kInt64 : kInt32);
    if (zeros.numel() != 1 && zeros.numel() != t.columns)
      fail(op, zeros.numel(), " zero points for a weight of ", t.columns, " output channels");
    const auto at = [&](int64_t i) {
      return is_long ? zeros.as<int64_t>()[i] : int64_t(zeros.as<int32_t>()[i]);
    };
    for (int64_t i = 0; t.w_zeros == nullptr && i < zeros.numel(); ++i) {
      if (at(i) == 0) continue;
      w->zeros.resize(static_cast<size_t>(t.columns) + 1);
      for (int64_t j = 0; j < t.columns; ++j)
        w->zeros[j] = static_cast<int32_t>(at(zeros.numel() == 1 ? 0 : j));
      t.w_zeros = w->zeros.data();
    }
  }
  if (bias) {
    const View b(*bias);
    if (b.dim() != 1 || b.size(0) != t.columns)
      fail(op, "bias of shape ", sizes_of(b), " for ", t.columns, " output channels");
    t.bias = reals(op, "bias", b, &w->bias);
  }
}

// (..., k) -> (..., o), and the rows that there are.
Ints result_sizes(const char* op, const View& x, const LinearTask& t, int64_t* rows) {
  if (x.dim() < 1 || x.size(x.dim() - 1) != t.depth)
    fail(op, "x must be (..., ", t.depth, "); got ", sizes_of(x));
  Ints sizes(x.sizes, x.sizes + x.dim());
  sizes.back() = t.columns;
  *rows = 1;
  for (int64_t i = 0; i + 1 < x.dim(); ++i) *rows *= x.size(i);
  return sizes;
}

Tensor qlinear(const Tensor& x_, double x_scale, int64_t x_zero, const Tensor& weight,
               const Tensor& w_scales, const std::optional<Tensor>& w_zeros,
               const std::optional<Tensor>& bias, double out_scale, int64_t out_zero,
               ScalarType out_dtype, bool relu, const std::optional<Tensor>& residual_,
               double residual_scale, int64_t residual_zero,
               const std::optional<Tensor>& packed) {
  const char* op = "qlinear";
  const Int8Core& core = int8_core(op);
  Tensor x_whole = x_;
  View x(x_);
  const Code code = code_of(op, x);
  check_qparams(op, x_scale, x_zero, code);
  Weight w;
  set_weight(op, weight, w_scales, w_zeros, bias, &w);
  LinearTask& t = w.task;
  const Ints sizes = result_sizes(op, x, t, &t.rows);
  if (!is_contiguous(x)) {
    x_whole = torch::stable::contiguous(x_);
    x = View(x_whole);
  }
  t.x_scale = static_cast<float>(x_scale);
  t.x_zero = static_cast<int32_t>(x_zero);
  t.x = x.as<uint8_t>();
  t.x_stride = t.depth;
  if (code == Code::kInt8 || t.depth % 4) {
    // As uint8, with room behind each row.
    const uint8_t flip = code == Code::kInt8 ? 128 : 0;
    t.x_zero += flip;
    t.x_stride = code_stride(t.depth);
    uint8_t* copy = static_cast<uint8_t*>(scratch(11, t.rows * t.x_stride + 64));
    for (int64_t i = 0; i < t.rows; ++i) {
      const uint8_t* from = t.x + i * t.depth;
      uint8_t* to = copy + i * t.x_stride;
      for (int64_t c = 0; c < t.depth; ++c) to[c] = from[c] ^ flip;
      std::memset(to + t.depth, 0, 4);
    }
    t.x = copy;
  }
  if (out_dtype == ScalarType::Byte)
    t.out_code = Code::kUint8;
  else if (out_dtype == ScalarType::Char)
    t.out_code = Code::kInt8;
  else if (out_dtype == ScalarType::Float)
    t.out_code = Code::kFloat;
  else
    fail(op, "the output is uint8, int8 or float32");
  if (t.out_code != Code::kFloat) check_qparams(op, out_scale, out_zero, t.out_code);
  t.out_scale = out_scale;
  t.out_zero = out_zero;
  t.relu = relu;
  Tensor residual_whole;
  if (residual_) {
    View residual(*residual_);
    bool same = residual.dim() == static_cast<int64_t>(sizes.size());
    for (size_t i = 0; same && i < sizes.size(); ++i) same = residual.size(i) == sizes[i];
    if (!same) fail(op, "residual of shape ", sizes_of(residual), " is not the output's");
    residual_whole = is_contiguous(residual) ? *residual_ : torch::stable::contiguous(*residual_);
    residual = View(residual_whole);
    t.residual_code = is_type(residual, kFloat32) ? Code::kFloat : code_of(op, residual);
    if (t.residual_code != Code::kFloat)
      check_qparams(op, residual_scale, residual_zero, t.residual_code);
    t.residual = residual.data;
    t.residual_scale = residual_scale;
    t.residual_zero = residual_zero;
  }
  Tensor out = empty(sizes, type_of(t.out_code));
  t.out = out.mutable_data_ptr();
  t.packed = tiles_of(op, core, t, packed);
  linear(core, t, threads());
  return out;
}

Tensor qlinear_dynamic(const Tensor& x_, const Tensor& weight, const std::optional<Tensor>& scale,
                       const std::optional<Tensor>& zero_point, const std::optional<Tensor>& bias,
                       bool reduce_range, bool relu, const std::optional<Tensor>& packed) {
  const char* op = "qlinear_dynamic";
  const Int8Core& core = int8_core(op);
  Tensor whole = x_;
  View x(x_);
  expect(op, "x", x, kFloat32, true);
  Weight w;
  set_weight(op, weight, scale, zero_point, bias, &w);
  LinearTask& t = w.task;
  const Ints sizes = result_sizes(op, x, t, &t.rows);
  if (!is_contiguous(x)) {
    whole = torch::stable::contiguous(x_);
    x = View(whole);
  }
  t.relu = relu;
  Tensor out = empty(sizes, kFloat32);
  t.out = out.mutable_data_ptr();
  t.packed = tiles_of(op, core, t, packed);
  linear_dynamic(core, t, x.as<float>(), reduce_range ? 127 : 255, threads());
  return out;
}

std::vector<Tensor> qrecurrent_dynamic(
    const Tensor& x_, const std::optional<Tensor>& batch_sizes_, const std::vector<Tensor>& state,
    const Tensor& ih, const std::optional<Tensor>& ih_scale,
    const std::optional<Tensor>& ih_zero_point, const std::optional<Tensor>& ih_bias,
    const Tensor& hh, const std::optional<Tensor>& hh_scale,
    const std::optional<Tensor>& hh_zero_point, const std::optional<Tensor>& hh_bias,
    const std::string& gates, bool reverse, bool reduce_range,
    const std::optional<Tensor>& ih_packed, const std::optional<Tensor>& hh_packed) {
  const char* op = "qrecurrent_dynamic";
  const Int8Core& core = int8_core(op);
  RecurrentTask t = {};
  int64_t count;
  if (gates == "lstm")
    t.gates = Gates::kLstm, count = 4;
  else if (gates == "gru")
    t.gates = Gates::kGru, count = 3;
  else if (gates == "tanh")
    t.gates = Gates::kTanh, count = 1;
  else if (gates == "relu")
    t.gates = Gates::kRelu, count = 1;
  else
    fail(op, "no gates '", gates, "'; known: lstm, gru, tanh, relu");
  const size_t states = t.gates == Gates::kLstm ? 2 : 1;
  if (state.size() != states) fail(op, gates, " has ", states, " states; got ", state.size());

  Tensor whole = x_;
  View x(x_);
  expect(op, "x", x, kFloat32, true);
  if (!is_contiguous(x)) {
    whole = torch::stable::contiguous(x_);
    x = View(whole);
  }
  const View h(state[0]);
  if (h.dim() != 2) fail(op, "states must be (batch, hidden); got ", sizes_of(h));
  t.batch = h.size(0);
  t.hidden = h.size(1);
  Weight first, second;
  set_weight(op, ih, ih_scale, ih_zero_point, ih_bias, &first);
  set_weight(op, hh, hh_scale, hh_zero_point, hh_bias, &second);
  t.ih = first.task;
  t.hh = second.task;
  t.features = t.ih.depth;
  if (t.ih.columns != count * t.hidden || t.hh.columns != count * t.hidden ||
      t.hh.depth != t.hidden)
    fail(op, "weights must be (", count * t.hidden, ", features) and (", count * t.hidden, ", ",
         t.hidden, ")");
  int64_t rows = 0;
  if (batch_sizes_) {
    const View sizes(*batch_sizes_);
    expect(op, "batch_sizes", sizes, kInt64);
    t.batch_sizes = sizes.as<int64_t>();
    t.steps = sizes.numel();
    int64_t before = t.batch;
    for (int64_t i = 0; i < t.steps; ++i) {
      if (t.batch_sizes[i] < 0 || t.batch_sizes[i] > before)
        fail(op, "batch_sizes must not grow, from at most ", t.batch);
      rows += before = t.batch_sizes[i];
    }
  }
  const bool fits = batch_sizes_ ? x.dim() == 2 && x.size(0) == rows
                                 : x.dim() == 3 && x.size(1) == t.batch;
  if (!fits || x.size(x.dim() - 1) != t.features)
    fail(op, "x of shape ", sizes_of(x), " does not fit states ", sizes_of(h), " and ", t.features,
         " features");
  if (!batch_sizes_) t.steps = x.size(0);

  std::vector<Tensor> out;
  Ints sizes(x.sizes, x.sizes + x.dim());
  sizes.back() = t.hidden;
  out.push_back(empty(sizes, kFloat32));
  t.y = static_cast<float*>(out[0].mutable_data_ptr());
  for (size_t i = 0; i < states; ++i) {
    View from(state[i]);
    expect(op, "states", from, kFloat32, true);
    if (from.dim() != 2 || from.size(0) != t.batch || from.size(1) != t.hidden)
      fail(op, "states must have one shape");
    Tensor kept = is_contiguous(from) ? state[i] : torch::stable::contiguous(state[i]);
    from = View(kept);
    out.push_back(empty({t.batch, t.hidden}, kFloat32));
    float* to = static_cast<float*>(out.back().mutable_data_ptr());
    std::memcpy(to, from.data, sizeof(float) * static_cast<size_t>(t.batch * t.hidden));
    (i ? t.c : t.h) = to;
  }
  t.x = x.as<float>();
  t.reverse = reverse;
  t.levels = reduce_range ? 127 : 255;
  t.ih.packed = tiles_of(op, core, t.ih, ih_packed);
  t.hh.packed = tiles_of(op, core, t.hh, hh_packed);
  recurrent(core, t, threads());
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(lowbit, m) {
  m.def(
      "qlinear(Tensor x, float x_scale, int x_zero_point, Tensor weight, Tensor w_scales, Tensor? "
      "w_zero_points, Tensor? bias, float out_scale, int out_zero_point, ScalarType out_dtype, "
      "bool relu, Tensor? residual, float residual_scale, int residual_zero_point, Tensor? "
      "packed=None) -> Tensor");
  m.def(
      "qlinear_dynamic(Tensor x, Tensor weight, Tensor? weight_scale, Tensor? weight_zero_point, "
      "Tensor? weight_bias, bool reduce_range, bool relu, Tensor? packed=None) -> Tensor");
  m.def(
      "qrecurrent_dynamic(Tensor x, Tensor? batch_sizes, Tensor[] state, Tensor ih, Tensor? "
      "ih_scale, Tensor? ih_zero_point, Tensor? ih_bias, Tensor hh, Tensor? hh_scale, Tensor? "
      "hh_zero_point, Tensor? hh_bias, str gates, bool reverse, bool reduce_range, Tensor? "
      "ih_packed=None, Tensor? hh_packed=None) -> Tensor[]");
  m.def("int8_pack(Tensor weight) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lowbit, CPU, m) {
  m.impl("int8_pack", TORCH_BOX(&pack_weight));
  m.impl("qlinear", TORCH_BOX(&qlinear));
  m.impl("qlinear_dynamic", TORCH_BOX(&qlinear_dynamic));
  m.impl("qrecurrent_dynamic", TORCH_BOX(&qrecurrent_dynamic));
}
