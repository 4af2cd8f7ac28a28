// The operators of int8 tensors: quantizing, arithmetic, pooling. Their formulas are those of
// lowbit.functional.int8.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "int8_tensors.h"

namespace lowbit::tensors {

const Int8Core& int8_core(const char* op) {
  const auto best = [](const Int8Core* const* core) -> const Int8Core& {
    while (!(*core)->supported()) ++core;  // the last one always is
    return **core;
  };
  static const Int8Core& usual = best(kInt8Cores);
  const char* wanted = std::getenv("LOWBIT_ISA");
  if (!wanted || !*wanted) return usual;
  std::string known;
  bool is_known = false;
  for (const Core* const* core = kCores; *core; ++core) {
    if (!(*core)->supported()) continue;
    is_known = is_known || std::strcmp((*core)->name, wanted) == 0;
    known += (known.empty() ? "" : ",") + std::string((*core)->name);
  }
  if (!is_known)
    fail(op, "no instruction set named '", wanted, "' on this processor; there are ", known);
  const Int8Core* const* core = kInt8Cores;
  while (core[1] && std::strcmp((*core)->isa, wanted) != 0) ++core;
  return best(core);
}

}  // namespace lowbit::tensors

namespace {

using namespace lowbit;
using namespace lowbit::tensors;

constexpr int kMaxAxes = 16;
constexpr int64_t kPiece = int64_t(1) << 15;  // elements, for a thread to be worth it
constexpr int64_t kAtOnce = 2048;             // elements gathered

// Elements of up to two inputs and an output, axis by axis: operand 0 is the output.
struct Lines {
  int count = 1, rank = 0;
  int64_t size[kMaxAxes + 1];
  int64_t stride[3][kMaxAxes + 1];
  char* data[3];
  int64_t width[3];

  Lines(const char* op, const Ints& sizes, const int64_t* strides, void* out, int64_t out_width) {
    if (sizes.size() > kMaxAxes) fail(op, "tensors of more than 16 axes");
    rank = static_cast<int>(sizes.size());
    for (int i = 0; i < rank; ++i) size[i] = sizes[i];
    for (int i = 0; i < rank; ++i) stride[0][i] = strides[i];
    data[0] = static_cast<char*>(out);
    width[0] = out_width;
  }

  // An input, which is broadcast to the output.
  void read(const View& t, int64_t element) {
    const int missing = rank - static_cast<int>(t.dim());
    for (int i = 0; i < rank; ++i) {
      const int axis = i - missing;
      stride[count][i] = axis < 0 || t.size(axis) == 1 ? 0 : t.stride(axis);
    }
    data[count] = const_cast<char*>(t.as<char>());
    width[count] = element;
    ++count;
  }

  // In the order of the output in memory, with as few axes as can be.
  void simplify() {
    int order[kMaxAxes], kept = 0;
    for (int i = 0; i < rank; ++i)
      if (size[i] != 1) order[kept++] = i;
    std::sort(order, order + kept, [&](int a, int b) { return stride[0][a] > stride[0][b]; });
    const Lines from = *this;
    rank = 0;
    for (int k = 0; k < kept; ++k) {
      const int i = order[k];
      bool joins = rank > 0;
      for (int o = 0; joins && o < count; ++o)
        joins = stride[o][rank - 1] == from.stride[o][i] * from.size[i];
      if (!joins) ++rank;
      size[rank - 1] = (joins ? size[rank - 1] : 1) * from.size[i];
      for (int o = 0; o < count; ++o) stride[o][rank - 1] = from.stride[o][i];
    }
    // The last axis of the output is one of neighbours, if of one element.
    if (rank == 0 || stride[0][rank - 1] != 1) {
      size[rank] = 1;
      for (int o = 0; o < count; ++o) stride[o][rank] = 1;
      ++rank;
    }
  }
};

// n elements `step` apart, side by side.
const void* gathered(const char* from, int64_t step, int64_t width, int64_t n, char* to) {
  if (step == 1) return from;
  for (int64_t i = 0; i < n; ++i)
    std::memcpy(to + i * width, from + i * step * width, static_cast<size_t>(width));
  return to;
}

// body(first input, second input, n, output) over all elements, in runs.
template <class F>
void each_run(Lines l, const F& body) {
  l.simplify();
  const int inner = l.rank - 1;
  int64_t outer = 1;
  for (int i = 0; i < inner; ++i) outer *= l.size[i];
  const int64_t n = l.size[inner];
  if (outer * n == 0) return;
  const auto run = [&](char* const (&at)[3], int64_t begin, int64_t end) {
    alignas(64) char memory[2][kAtOnce * 4];
    bool direct = true;
    for (int o = 1; o < l.count; ++o) direct = direct && l.stride[o][inner] == 1;
    const int64_t step = direct ? end - begin : kAtOnce;
    for (int64_t i = begin; i < end; i += step) {
      const int64_t length = std::min(step, end - i);
      const void* in[2] = {};
      for (int o = 1; o < l.count; ++o)
        in[o - 1] = gathered(at[o] + i * l.stride[o][inner] * l.width[o], l.stride[o][inner],
                             l.width[o], length, memory[o - 1]);
      body(in[0], in[1], length, at[0] + i * l.width[0]);
    }
  };
  if (outer == 1) {
    in_pieces(n, kPiece, threads(), [&](int64_t begin, int64_t end) {
      run(l.data, begin, end);
    });
    return;
  }
  in_pieces(outer, kPiece / n + 1, threads(), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      char* at[3] = {l.data[0], l.data[1], l.data[2]};
      int64_t rest = row;
      for (int i = inner - 1; i >= 0; --i) {
        const int64_t index = rest % l.size[i];
        rest /= l.size[i];
        for (int o = 0; o < l.count; ++o) at[o] += index * l.stride[o][i] * l.width[o];
      }
      run(at, 0, n);
    }
  });
}

// Whether no two elements share memory and none lies between them.
bool is_dense(const View& t) {
  int order[kMaxAxes], kept = 0;
  if (t.dim() > kMaxAxes || t.numel() == 0) return false;
  for (int i = 0; i < t.dim(); ++i)
    if (t.size(i) != 1) order[kept++] = i;
  std::sort(order, order + kept, [&](int a, int b) { return t.stride(a) < t.stride(b); });
  int64_t step = 1;
  for (int k = 0; k < kept; ++k) {
    if (t.stride(order[k]) != step) return false;
    step *= t.size(order[k]);
  }
  return true;
}

// Memory for a result in the shape of x, laid out as torch.empty_like does.
Tensor like(const Tensor& x, const View& view, Type type) {
  if (is_dense(view)) return empty_strided(view.dim(), view.sizes, view.strides, type);
  const Tensor example = torch::stable::empty_like(x);
  const View laid(example);
  return empty_strided(laid.dim(), laid.sizes, laid.strides, type);
}

Ints sizes_list(const View& t) { return Ints(t.sizes, t.sizes + t.dim()); }

Tensor quantize(const Tensor& x_, double scale, int64_t zero_point, ScalarType dtype,
                bool channels_last) {
  const char* op = "int8_quantize";
  const View x(x_);
  expect(op, "x", x, kFloat32, true);
  if (dtype != ScalarType::Byte && dtype != ScalarType::Char) fail(op, "dtype is uint8 or int8");
  const Code code = dtype == ScalarType::Char ? Code::kInt8 : Code::kUint8;
  check_qparams(op, scale, zero_point, code);
  const Rounding r = rounding_of(code, scale, zero_point);
  const Int8Core& core = int8_core(op);
  const auto loop = core.quantize[static_cast<int>(code)];
  if (channels_last && x.dim() != 4) fail(op, "channels_last is for (n, c, h, w)");
  const bool turns = channels_last && !has_layout(x, true);
  Tensor out = channels_last ? empty(sizes_list(x), type_of(code), true)
                             : like(x_, x, type_of(code));
  const View to(out);
  if (turns && has_layout(x, false) && x.size(1) <= 64) {
    // Some pixels of each channel, and then side by side.
    const int64_t channels = x.size(1), pixels = x.size(2) * x.size(3);
    const int64_t step = kAtOnce / channels, steps = (pixels + step - 1) / step;
    const float* from = x.as<float>();
    uint8_t* y = const_cast<uint8_t*>(to.as<uint8_t>());
    const int64_t piece = kPiece / kAtOnce;
    in_pieces(x.size(0) * steps, piece, threads(), [&](int64_t begin, int64_t end) {
      alignas(64) uint8_t planes[kAtOnce];
      for (int64_t i = begin; i < end; ++i) {
        const int64_t image = i / steps, first = i % steps * step;
        const int64_t n = std::min(step, pixels - first);
        for (int64_t c = 0; c < channels; ++c)
          loop(from + (image * channels + c) * pixels + first, n, r, planes + c * step);
        core.interleave(planes, step, channels, n, y + (image * pixels + first) * channels);
      }
    });
    return out;
  }
  Lines lines(op, sizes_list(x), to.strides, const_cast<char*>(to.as<char>()), 1);
  lines.read(x, 4);
  each_run(lines, [&](const void* in, const void*, int64_t n, void* y) {
    loop(static_cast<const float*>(in), n, r, y);
  });
  return out;
}

Tensor dequantize(const Tensor& x_, double scale, int64_t zero_point) {
  const char* op = "int8_dequantize";
  const View x(x_);
  const Code code = code_of(op, x);
  const Affine a = {static_cast<float>(zero_point), static_cast<float>(scale)};
  const auto loop = int8_core(op).dequantize[static_cast<int>(code)];
  Tensor out = like(x_, x, kFloat32);
  const View to(out);
  Lines lines(op, sizes_list(x), to.strides, const_cast<char*>(to.as<char>()), 4);
  lines.read(x, 1);
  each_run(lines, [&](const void* in, const void*, int64_t n, void* y) {
    loop(in, n, a, static_cast<float*>(y));
  });
  return out;
}

Affine affine(double scale, int64_t zero_point) {
  return {static_cast<float>(zero_point), static_cast<float>(scale)};
}

Tensor requantize(const Tensor& x_, double x_scale, int64_t x_zero_point, double scale,
                  int64_t zero_point) {
  const char* op = "int8_requantize";
  const View x(x_);
  const Code code = code_of(op, x);
  check_qparams(op, scale, zero_point, code);
  const Rounding r = rounding_of(code, scale, zero_point);
  const Affine a = affine(x_scale, x_zero_point);
  const auto loop = int8_core(op).requantize[static_cast<int>(code)];
  Tensor out = like(x_, x, type_of(code));
  const View to(out);
  Lines lines(op, sizes_list(x), to.strides, const_cast<char*>(to.as<char>()), 1);
  lines.read(x, 1);
  each_run(lines, [&](const void* in, const void*, int64_t n, void* y) {
    loop(in, n, 1, n, a, r, y, n);
  });
  return out;
}

Tensor clamp(const Tensor& x_, int64_t low, int64_t high) {
  const char* op = "int8_clamp";
  const View x(x_);
  const Code code = code_of(op, x);
  const int64_t least = code == Code::kInt8 ? -128 : 0;
  low = std::max(low, least);
  high = std::min(high, least + 255);
  if (low > high || low > least + 255) fail(op, "nothing is in [", low, ", ", high, "]");
  const auto loop = int8_core(op).clamp[static_cast<int>(code)];
  Tensor out = like(x_, x, type_of(code));
  const View to(out);
  Lines lines(op, sizes_list(x), to.strides, const_cast<char*>(to.as<char>()), 1);
  lines.read(x, 1);
  each_run(lines, [&](const void* in, const void*, int64_t n, void* y) {
    loop(in, n, static_cast<int>(low), static_cast<int>(high), y);
  });
  return out;
}

Ints broadcast(const char* op, const View& a, const View& b) {
  const int64_t rank = std::max(a.dim(), b.dim());
  Ints sizes(rank);
  for (int64_t i = 0; i < rank; ++i) {
    const int64_t at_a = i - rank + a.dim(), at_b = i - rank + b.dim();
    const int64_t first = at_a < 0 ? 1 : a.size(at_a), second = at_b < 0 ? 1 : b.size(at_b);
    if (first != second && first != 1 && second != 1)
      fail(op, "shapes ", sizes_of(a), " and ", sizes_of(b), " do not broadcast");
    sizes[i] = first == 1 ? second : first;
  }
  return sizes;
}

template <class F>
Tensor binary(const char* op, const Tensor& a_, const Tensor& b_, const F& body) {
  const View a(a_), b(b_);
  const Code code = code_of(op, a);
  if (code_of(op, b) != code) fail(op, "both must be of one dtype");
  const Ints sizes = broadcast(op, a, b);
  const auto whole = [&](const View& t) {
    return t.dim() == static_cast<int64_t>(sizes.size()) &&
           std::equal(sizes.begin(), sizes.end(), t.sizes);
  };
  Tensor out = whole(a)   ? like(a_, a, type_of(code))
               : whole(b) ? like(b_, b, type_of(code))
                          : empty(sizes, type_of(code));
  const View to(out);
  Lines lines(op, sizes, to.strides, const_cast<char*>(to.as<char>()), 1);
  lines.read(a, 1);
  lines.read(b, 1);
  each_run(lines, [&](const void* x, const void* y, int64_t n, void* z) {
    body(static_cast<int>(code), x, y, n, z);
  });
  return out;
}

Tensor add(const Tensor& a, double a_scale, int64_t a_zero, const Tensor& b, double b_scale,
           int64_t b_zero, double scale, int64_t zero_point, bool relu) {
  const char* op = "int8_add";
  const Int8Core& core = int8_core(op);
  const Code code = code_of(op, View(a));
  check_qparams(op, scale, zero_point, code);
  const Rounding r = rounding_of(code, scale, zero_point, relu);
  return binary(op, a, b, [&](int type, const void* x, const void* y, int64_t n, void* z) {
    core.add[type](x, y, n, affine(a_scale, a_zero), affine(b_scale, b_zero), r, z);
  });
}

Tensor mul(const Tensor& a, double a_scale, int64_t a_zero, const Tensor& b, double b_scale,
           int64_t b_zero, double scale, int64_t zero_point, bool relu) {
  const char* op = "int8_mul";
  const Int8Core& core = int8_core(op);
  const Code code = code_of(op, View(a));
  check_qparams(op, scale, zero_point, code);
  Rounding r = rounding_of(code, scale, zero_point, relu);
  r.inverse = static_cast<float>(a_scale) * static_cast<float>(b_scale) * r.inverse;
  return binary(op, a, b, [&](int type, const void* x, const void* y, int64_t n, void* z) {
    core.mul[type](x, y, n, affine(1, a_zero), affine(1, b_zero), r, z);
  });
}

Tensor cat(const std::vector<Tensor>& tensors, const std::vector<double>& scales,
           const Ints& zero_points, double scale, int64_t zero_point, int64_t dim) {
  const char* op = "int8_cat";
  if (tensors.empty()) fail(op, "of no tensors: at least one is needed");
  if (scales.size() != tensors.size() || zero_points.size() != tensors.size())
    fail(op, "a scale and a zero point for each tensor are needed");
  std::vector<View> views;
  for (const Tensor& tensor : tensors) views.emplace_back(tensor);
  const View& first = views[0];
  const Code code = code_of(op, first);
  check_qparams(op, scale, zero_point, code);
  const int64_t rank = first.dim();
  if (dim < -rank || dim >= rank) fail(op, "dim ", dim, " of tensors with ", rank, " axes");
  if (dim < 0) dim += rank;
  Ints sizes = sizes_list(first);
  for (size_t i = 1; i < views.size(); ++i) {
    const View& t = views[i];
    if (code_of(op, t) != code) fail(op, "all must be of one dtype");
    bool fits = t.dim() == rank;
    for (int64_t k = 0; fits && k < rank; ++k) fits = k == dim || t.size(k) == sizes[k];
    if (!fits) fail(op, "shapes ", sizes_of(first), " and ", sizes_of(t), " differ beside dim");
    sizes[dim] += t.size(dim);
  }
  const bool last = (rank == 4 || rank == 5) && !is_contiguous(first) && has_layout(first, true);
  Tensor out = empty(sizes, type_of(code), last);
  const View to(out);
  const Rounding r = rounding_of(code, scale, zero_point);
  const auto loop = int8_core(op).requantize[static_cast<int>(code)];
  char* at = const_cast<char*>(to.as<char>());
  for (size_t i = 0; i < views.size(); ++i) {
    Lines lines(op, sizes_list(views[i]), to.strides, at, 1);
    lines.read(views[i], 1);
    const bool same = scales[i] == scale && zero_points[i] == zero_point;
    const Affine a = affine(scales[i], zero_points[i]);
    lines.simplify();
    if (!same && lines.rank == 2 && lines.stride[1][1] == 1) {
      in_pieces(lines.size[0], kPiece / (lines.size[1] + 1) + 1, threads(),
                [&](int64_t begin, int64_t end) {
                  const int64_t from = lines.stride[1][0], onto = lines.stride[0][0];
                  loop(lines.data[1] + begin * from, from, end - begin, lines.size[1], a, r,
                       lines.data[0] + begin * onto, onto);
                });
    } else {
      each_run(lines, [&](const void* x, const void*, int64_t n, void* y) {
        if (same)
          std::memcpy(y, x, static_cast<size_t>(n));
        else
          loop(x, n, 1, n, a, r, y, n);
      });
    }
    at += views[i].size(dim) * to.stride(dim);
  }
  return out;
}

// x (n, c, h, w), channels last: as it is, or copied to `copy`.
WindowTask windows_of(const char* op, const View& x, Tensor* copy) {
  WindowTask t = {};
  t.code = code_of(op, x);
  if (x.dim() != 4) fail(op, "x must be (n, c, h, w); got ", sizes_of(x));
  t.n = x.size(0);
  t.channels = x.size(1);
  t.in[0] = x.size(2);
  t.in[1] = x.size(3);
  t.x = x.data;
  if (!has_layout(x, true)) {
    *copy = empty(sizes_list(x), type_of(t.code), true);
    const View to(*copy);
    Lines lines(op, sizes_list(x), to.strides, const_cast<char*>(to.as<char>()), 1);
    lines.read(x, 1);
    each_run(lines, [](const void* from, const void*, int64_t n, void* y) {
      std::memcpy(y, from, static_cast<size_t>(n));
    });
    t.x = to.data;
  }
  return t;
}

void set_windows(const char* op, WindowTask* t, const Ints& kernel, const Ints& stride,
                 const Ints& padding, const Ints& dilation, bool ceil_mode) {
  for (const Ints* list : {&kernel, &stride, &padding, &dilation})
    if (list->size() != 2) fail(op, "kernel, stride, padding and dilation have two numbers each");
  for (int i = 0; i < 2; ++i) {
    const int64_t in = t->in[i], k = kernel[i], s = stride[i], p = padding[i], d = dilation[i];
    if (k < 1 || s < 1 || d < 1 || p < 0)
      fail(op, "kernel ", k, ", stride ", s, " and dilation ", d, " must be at least 1, and padding ",
           p, " at least 0");
    if (2 * p > k) fail(op, "padding ", p, " is more than half of the kernel, ", k);
    const int64_t room = in + 2 * p - d * (k - 1) - 1;
    const int64_t more = room + (ceil_mode ? s - 1 : 0);
    int64_t out = (more < 0 ? (more - s + 1) / s : more / s) + 1;
    if (ceil_mode && (out - 1) * s >= in + p) --out;
    if (out < 1)
      fail(op, "a window of ", d * (k - 1) + 1, " does not fit ", in, " with padding ", p);
    t->kernel[i] = k;
    t->stride[i] = s;
    t->padding[i] = p;
    t->dilation[i] = d;
    t->out[i] = out;
  }
}

Tensor max_pool2d(const Tensor& x_, const Ints& kernel, const Ints& stride, const Ints& padding,
                  const Ints& dilation, bool ceil_mode) {
  const char* op = "int8_max_pool2d";
  const View x(x_);
  Tensor copy;
  WindowTask t = windows_of(op, x, &copy);
  set_windows(op, &t, kernel, stride, padding, dilation, ceil_mode);
  Tensor out = empty({t.n, t.channels, t.out[0], t.out[1]}, type_of(t.code), true);
  t.y = out.mutable_data_ptr();
  if (t.n * t.channels > 0) max_windows(int8_core(op), t, threads());
  return out;
}

Tensor avg_pool2d(const Tensor& x_, int64_t zero_point, const Ints& kernel, const Ints& stride,
                  const Ints& padding, bool ceil_mode, bool count_include_pad,
                  std::optional<int64_t> divisor) {
  const char* op = "int8_avg_pool2d";
  const View x(x_);
  Tensor copy;
  WindowTask t = windows_of(op, x, &copy);
  set_windows(op, &t, kernel, stride, padding, {1, 1}, ceil_mode);
  if (kernel[0] * kernel[1] > 32768) fail(op, "windows of more than 32768 elements");
  if (divisor && (*divisor < 1 || *divisor > 32768))
    fail(op, "divisor_override is ", *divisor, "; 1 to 32768 are possible");
  t.zero_point = static_cast<int32_t>(zero_point);
  t.count_include_pad = count_include_pad;
  t.divisor = divisor.value_or(0);
  Tensor out = empty({t.n, t.channels, t.out[0], t.out[1]}, type_of(t.code), true);
  t.y = out.mutable_data_ptr();
  if (t.n * t.channels > 0) mean_windows(int8_core(op), t, threads());
  return out;
}

Tensor adaptive_avg_pool2d(const Tensor& x_, int64_t zero_point, const Ints& size) {
  const char* op = "int8_adaptive_avg_pool2d";
  const View x(x_);
  Tensor copy;
  WindowTask t = windows_of(op, x, &copy);
  if (size.size() != 2 || size[0] < 0 || size[1] < 0) fail(op, "the output has two sizes");
  if (t.in[0] == 0 || t.in[1] == 0) fail(op, "x has no elements to average: ", sizes_of(x));
  t.adaptive = true;
  t.count_include_pad = true;
  t.zero_point = static_cast<int32_t>(zero_point);
  for (int i = 0; i < 2; ++i) t.out[i] = size[i];
  Tensor out = empty({t.n, t.channels, t.out[0], t.out[1]}, type_of(t.code), true);
  if (t.n * t.channels * t.out[0] * t.out[1] == 0) return out;
  if ((t.in[0] / t.out[0] + 2) * (t.in[1] / t.out[1] + 2) > 32768)
    fail(op, "windows of more than 32768 elements");
  t.y = out.mutable_data_ptr();
  mean_windows(int8_core(op), t, threads());
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(lowbit, m) {
  m.def(
      "int8_quantize(Tensor x, float scale, int zero_point, ScalarType dtype, bool channels_last) "
      "-> Tensor");
  m.def("int8_dequantize(Tensor x, float scale, int zero_point) -> Tensor");
  m.def(
      "int8_requantize(Tensor x, float x_scale, int x_zero_point, float scale, int zero_point) -> "
      "Tensor");
  m.def(
      "int8_add(Tensor a, float a_scale, int a_zero_point, Tensor b, float b_scale, int "
      "b_zero_point, float scale, int zero_point, bool relu) -> Tensor");
  m.def(
      "int8_mul(Tensor a, float a_scale, int a_zero_point, Tensor b, float b_scale, int "
      "b_zero_point, float scale, int zero_point, bool relu) -> Tensor");
  m.def(
      "int8_cat(Tensor[] tensors, float[] scales, int[] zero_points, float scale, int zero_point, "
      "int dim) -> Tensor");
  m.def(
      "int8_max_pool2d(Tensor x, int[] kernel, int[] stride, int[] padding, int[] dilation, bool "
      "ceil_mode) -> Tensor");
  m.def(
      "int8_avg_pool2d(Tensor x, int zero_point, int[] kernel, int[] stride, int[] padding, bool "
      "ceil_mode, bool count_include_pad, int? divisor) -> Tensor");
  m.def("int8_clamp(Tensor x, int low, int high) -> Tensor");
  m.def("int8_adaptive_avg_pool2d(Tensor x, int zero_point, int[] size) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lowbit, CPU, m) {
  m.impl("int8_quantize", TORCH_BOX(&quantize));
  m.impl("int8_dequantize", TORCH_BOX(&dequantize));
  m.impl("int8_requantize", TORCH_BOX(&requantize));
  m.impl("int8_add", TORCH_BOX(&add));
  m.impl("int8_mul", TORCH_BOX(&mul));
  m.impl("int8_clamp", TORCH_BOX(&clamp));
  m.impl("int8_cat", TORCH_BOX(&cat));
  m.impl("int8_max_pool2d", TORCH_BOX(&max_pool2d));
  m.impl("int8_avg_pool2d", TORCH_BOX(&avg_pool2d));
  m.impl("int8_adaptive_avg_pool2d", TORCH_BOX(&adaptive_avg_pool2d));
}
