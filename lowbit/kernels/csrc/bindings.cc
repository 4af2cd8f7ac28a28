// The operators of packed layers: checks, memory, threads.
#include <torch/csrc/stable/library.h>

#include <cstdlib>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "conv.h"
#include "tensors.h"

namespace {

using lowbit::Core;
using lowbit::Geometry;
using lowbit::Out;
using namespace lowbit::tensors;

// A contiguous copy in this thread's memory.
const float* contiguous_copy(const View& t) {
  float* to = static_cast<float*>(lowbit::scratch(7, t.numel() * sizeof(float) + 1));
  const float* from = t.as<float>();
  Ints at(t.dim(), 0);
  for (int64_t i = 0; i < t.numel(); ++i) {
    int64_t place = 0;
    for (int64_t d = 0; d < t.dim(); ++d) place += at[d] * t.stride(d);
    to[i] = from[place];
    for (int64_t d = t.dim() - 1; d >= 0 && ++at[d] == t.size(d); --d) at[d] = 0;
  }
  return to;
}

std::string supported_names() {
  std::string names;
  for (const Core* const* core = lowbit::kCores; *core; ++core)
    if ((*core)->supported()) names += (names.empty() ? "" : ",") + std::string((*core)->name);
  return names;
}

const Core& core_named(const char* op, std::string name) {
  if (name.empty()) {
    const char* wanted = std::getenv("LOWBIT_ISA");
    if (wanted) name = wanted;
  }
  for (const Core* const* core = lowbit::kCores; *core; ++core)
    if ((name.empty() || name == (*core)->name) && (*core)->supported()) return **core;
  fail(op, "no instruction set named '", name, "' on this processor; there are ",
       supported_names());
}

Geometry geometry_of(const char* op, const Ints& numbers) {
  if (numbers.size() != Geometry::kCount)
    fail(op, "a geometry has ", int64_t(Geometry::kCount), " numbers; got ", numbers.size());
  Geometry g;
  const int64_t* next = numbers.data();
  g.channels = *next++;
  g.out_channels = *next++;
  g.groups = *next++;
  for (int64_t* axes : {g.kernel, g.stride, g.before, g.after, g.dilation})
    for (int i = 0; i < 3; ++i) axes[i] = *next++;
  g.pad = *next++;
  g.offset = *next++;
  g.planes_x = *next++;
  g.planes_w = *next++;
  g.thermometer_x = *next++;
  g.thermometer_w = *next++;
  const std::string wrong = lowbit::check(g);
  if (!wrong.empty()) fail(op, wrong);
  return g;
}

// What the operators are told of a layer in one string: a geometry, then steps.
struct Layer {
  Geometry geometry;
  std::vector<lowbit::Step> steps;
  int64_t rows = 0;  // of parameters, that the steps take
  bool adds = false;  // whether a step adds a residual
};

const Layer& layer_of(const char* op, const std::string& text) {
  // Calls of one layer mostly follow each other, or those of a few.
  static thread_local std::unordered_map<std::string, Layer> known;
  const auto found = known.find(text);
  if (found != known.end()) return found->second;
  Layer layer;
  Ints numbers;
  for (const char* at = text.c_str(); *at;) {
    char* end;
    numbers.push_back(std::strtoll(at, &end, 10));
    if (end == at) fail(op, "the layer '", text, "' is not a list of integers");
    at = end;
    while (*at == ' ') ++at;
  }
  const size_t count = Geometry::kCount;
  if (numbers.size() > count + lowbit::kMaxSteps) fail(op, "more than 16 steps");
  for (size_t i = count; i < numbers.size(); ++i) {
    const int64_t step = numbers[i];
    if (step < lowbit::kAffine || step > lowbit::kHardtanh)
      fail(op, "step ", step, " is none of 1 (affine) to 6 (hardtanh)");
    layer.steps.push_back(static_cast<lowbit::Step>(step));
    layer.rows += step == lowbit::kAffine ? 2 : step == lowbit::kPrelu || step == lowbit::kShift;
    layer.adds = layer.adds || step == lowbit::kResidual;
  }
  if (numbers.size() > count) numbers.resize(count);
  layer.geometry = geometry_of(op, numbers);
  if (known.size() > 4096) known.clear();
  return known.emplace(text, std::move(layer)).first->second;
}

Tensor prepare(const Tensor& words_, const Ints& geometry, const std::string& isa) {
  const View words(words_);
  const char* op = "prepare";
  const Geometry g = geometry_of(op, geometry);
  expect(op, "words", words, kInt64);
  if (words.dim() != 4 || words.size(0) != g.planes_w || words.size(1) != g.out_channels ||
      words.size(2) != g.taps() || words.size(3) != g.words())
    fail(op, "words must be (", g.planes_w, ", ", g.out_channels, ", ", g.taps(), ", ", g.words(),
         "), (planes, out_channels, taps, words); got ", sizes_of(words));
  const Core& core = core_named(op, isa);
  Tensor blob = empty({static_cast<int64_t>(lowbit::blob_size(core, g))}, kByte);
  lowbit::prepare(core, g, words.as<uint64_t>(),
                  static_cast<uint8_t*>(blob.mutable_data_ptr()));
  return blob;
}

// x (n, c, ...) float32 to planes; `out` null: to this thread's memory.
const uint64_t* packed(const char* op, const Core& core, const View& x,
                       const std::optional<Tensor>& thresholds, int64_t planes, bool thermometer,
                       int64_t groups, uint64_t* out) {
  expect(op, "x", x, kFloat32, true);
  lowbit::PackTask task = {};
  task.n = x.size(0);
  task.channels = x.size(1);
  task.pixels = 1;
  for (int64_t i = 2; i < x.dim(); ++i) task.pixels *= x.size(i);
  task.planes = planes;
  task.groups = groups;
  task.thermometer = thermometer;
  const int64_t count = thermometer ? planes : (int64_t(1) << planes) - 1;
  if (thresholds) {
    const View edges(*thresholds);
    expect(op, "thresholds", edges, kFloat32);
    const bool shared = edges.dim() == 1 && edges.size(0) == count;
    task.per_channel =
        edges.dim() == 2 && edges.size(0) == count && edges.size(1) == task.channels;
    if (!shared && !task.per_channel)
      fail(op, "thresholds must be (", count, ") or (", count, ", ", task.channels, "); got ",
           sizes_of(edges));
    task.thresholds = edges.as<float>();
  } else if (count != 1) {
    fail(op, planes, " planes need ", count, " thresholds");
  }
  if (has_layout(x, false)) {
    task.x = x.as<float>();
  } else if (has_layout(x, true)) {
    task.x = x.as<float>();
    task.channels_last = true;
  } else {
    task.x = contiguous_copy(x);
  }
  const int64_t words = planes * groups * ((task.channels / groups + 63) / 64);
  if (!out)
    out = static_cast<uint64_t*>(
        lowbit::scratch(6, task.n * words * task.pixels * sizeof(uint64_t) + 1));
  task.out = out;
  lowbit::pack(core, task, threads());
  return out;
}

Tensor pack(const Tensor& x_, const std::optional<Tensor>& thresholds, int64_t planes,
            bool thermometer, int64_t groups) {
  const View x(x_);
  const char* op = "pack";
  if (x.dim() < 2 || x.dim() > 5) fail(op, "x must be (n, c, ...) of rank 2 to 5; got ", sizes_of(x));
  if (planes < 1 || planes > lowbit::kMaxPlanes) fail(op, "planes is ", planes, "; 1 to 8 are possible");
  if (groups < 1 || x.size(1) % groups)
    fail(op, "groups is ", groups, "; it must divide the ", x.size(1), " channels");
  Ints sizes = {x.size(0), planes * groups * ((x.size(1) / groups + 63) / 64)};
  for (int64_t i = 2; i < x.dim(); ++i) sizes.push_back(x.size(i));
  Tensor out = empty(sizes, kInt64);
  packed(op, core_named(op, ""), x, thresholds, planes, thermometer, groups,
         static_cast<uint64_t*>(out.mutable_data_ptr()));
  return out;
}

std::tuple<Tensor, Tensor> convolve(const char* op, const Tensor& x_, const Tensor& weight_,
                                    const std::optional<Tensor>& params,
                                    const std::optional<Tensor>& thresholds,
                                    const std::optional<Tensor>& residual,
                                    const std::string& text, Out mode, bool channels_last) {
  lowbit::ConvTask task = {};
  const Layer& layer = layer_of(op, text);
  const Geometry& g = task.g = layer.geometry;
  const View x(x_), weight(weight_);
  const int64_t rank = x.dim() - 2;
  if (rank < 0 || rank > 3)
    fail(op, "x must be (n, channels, ...) with up to three spatial axes; got ", sizes_of(x));

  expect(op, "weight", weight, kByte);
  task.blob = weight.as<uint8_t>();
  std::string why;
  const Core* core = lowbit::core_of(task.blob, weight.numel(), g, &why);
  if (!core) fail(op, why);
  if (reinterpret_cast<uintptr_t>(task.blob) % 64) {
    // A slice of something: kernels want whole vectors at even addresses.
    uint8_t* copy = static_cast<uint8_t*>(lowbit::scratch(5, weight.numel()));
    std::memcpy(copy, task.blob, weight.numel());
    task.blob = copy;
  }

  task.n = x.size(0);
  Ints sizes = {task.n, g.out_channels};
  for (int i = 0; i < 3; ++i) {
    const int64_t axis = i + rank - 3;  // of the spatial axes; missing ones have one place
    task.in[i] = axis < 0 ? 1 : x.size(2 + axis);
    task.out[i] = g.out_size(i, task.in[i]);
    if (axis < 0) {
      if (task.out[i] != 1)
        fail(op, "x has ", rank, " spatial axes; this geometry's kernel needs more");
      continue;
    }
    if (task.out[i] < 1)
      fail(op, "an axis of ", task.in[i], " with ", g.before[i] + g.after[i],
           " of padding is smaller than the ", g.dilation[i] * (g.kernel[i] - 1) + 1,
           " that the kernel spans");
    sizes.push_back(task.out[i]);
  }

  const bool is_float = is_type(x, kFloat32);
  if (is_float) {
    if (x.size(1) != g.channels)
      fail(op, "x must have ", g.channels, " channels; got ", sizes_of(x));
  } else {
    if (!is_type(x, kInt64)) fail(op, "x must be float32, or int64 where it is packed; convert it");
    expect(op, "x", x, kInt64);
    if (thresholds) fail(op, "thresholds are for float inputs; x is packed");
    if (x.size(1) != g.planes_x * g.groups * g.words())
      fail(op, "packed x must have ", g.planes_x * g.groups * g.words(), " words for ",
           g.channels, " channels in ", g.groups, " groups and ", g.planes_x, " planes; got ",
           sizes_of(x));
  }

  const bool floats = mode == Out::kFloat || mode == Out::kBoth;
  if (!floats && !layer.steps.empty()) fail(op, "integers and packed signs take no steps");
  task.steps = layer.steps.data();
  task.step_count = static_cast<int>(layer.steps.size());
  const std::optional<View> given = params ? std::optional<View>(*params) : std::nullopt;
  int64_t rows = layer.rows;
  if (mode == Out::kBoth && given && given->dim() == 2 && given->size(0) == rows + 1) {
    ++rows;
    task.has_sign_row = true;
  }
  task.mode = mode;
  if (mode == Out::kBits) rows = 2;
  if (rows == 0 && given && given->numel() != 0) fail(op, "these steps take no params");
  if (rows > 0) {
    if (!given) fail(op, "params must have ", rows, " rows");
    expect(op, "params", *given, mode == Out::kBits ? kInt32 : kFloat32);
    if (given->dim() != 2 || given->size(0) != rows || given->size(1) != g.out_channels)
      fail(op, "params must be (", rows, ", ", g.out_channels, "); got ", sizes_of(*given));
    if (mode == Out::kBits)
      task.thresholds = given->as<int32_t>();
    else
      task.params = given->as<float>();
    task.param_rows = rows;
  }
  task.channels_last = channels_last || sizes.size() == 2;
  if (layer.adds != residual.has_value())
    fail(op, layer.adds ? "the steps add a residual; none was given" : "a residual, but no step adds it");
  if (layer.adds) {
    const View added(*residual);
    expect(op, "residual", added, kFloat32, true);
    bool same = added.dim() == static_cast<int64_t>(sizes.size());
    for (size_t i = 0; same && i < sizes.size(); ++i) same = added.size(i) == sizes[i];
    if (!same) fail(op, "the residual must have the result's shape; got ", sizes_of(added));
    const bool first = has_layout(added, task.channels_last);
    task.residual_channels_last = first ? task.channels_last : !task.channels_last;
    if (!first && !has_layout(added, task.residual_channels_last))
      fail(op, "the residual must be contiguous or channels last");
    task.residual = added.as<float>();
  }

  std::tuple<Tensor, Tensor> result;
  if (mode != Out::kBits) {
    std::get<0>(result) = empty(sizes, floats ? kFloat32 : kInt32, channels_last);
    task.result = std::get<0>(result).mutable_data_ptr();
  }
  if (mode == Out::kBits || mode == Out::kBoth) {
    if (g.groups > 1 && g.group_filters() % lowbit::kBlock)
      fail(op, "packed results need 64 filters, or a multiple, in each of several groups");
    Ints words = sizes;
    words[1] = (g.out_channels + 63) / 64;
    std::get<1>(result) = empty(words, kInt64);
    task.bits = static_cast<uint64_t*>(std::get<1>(result).mutable_data_ptr());
  }
  task.x = is_float ? packed(op, *core, x, thresholds, g.planes_x, g.thermometer_x, g.groups, nullptr)
                    : x.as<uint64_t>();
  lowbit::convolve(*core, task, threads());
  return result;
}

Tensor bconv(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& params,
             const std::optional<Tensor>& thresholds, const std::optional<Tensor>& residual,
             const std::string& layer, int64_t out, bool channels_last) {
  if (out < 0 || out > 2) fail("bconv", "out is ", out, "; 0: int32, 1: float32, 2: packed signs");
  auto result = convolve("bconv", x, weight, params, thresholds, residual, layer,
                         static_cast<Out>(out), channels_last);
  return out == 2 ? std::get<1>(result) : std::get<0>(result);
}

std::tuple<Tensor, Tensor> bconv_both(const Tensor& x, const Tensor& weight,
                                      const std::optional<Tensor>& params,
                                      const std::optional<Tensor>& thresholds,
                                      const std::optional<Tensor>& residual,
                                      const std::string& layer, bool channels_last) {
  return convolve("bconv_both", x, weight, params, thresholds, residual, layer, Out::kBoth,
                  channels_last);
}

Tensor max_pool_bits(const Tensor& x_, const Ints& kernel, const Ints& stride, const Ints& padding,
                     const Ints& dilation, bool ceil_mode, const std::optional<Tensor>& flip) {
  const char* op = "max_pool_bits";
  const View x(x_);
  expect(op, "x", x, kInt64);
  if (x.dim() != 4) fail(op, "x must be (n, words, h, w); got ", sizes_of(x));
  lowbit::PoolTask task = {};
  task.x = x.as<uint64_t>();
  task.n = x.size(0);
  task.words = x.size(1);
  for (const Ints* list : {&kernel, &stride, &padding, &dilation})
    if (list->size() != 2) fail(op, "kernel, stride, padding and dilation have two numbers each");
  for (int i = 0; i < 2; ++i) {
    const int64_t in = x.size(2 + i), k = kernel[i], s = stride[i], p = padding[i], d = dilation[i];
    const int64_t most = 1 << 15;
    if (k < 1 || s < 1 || d < 1 || k > most || s > most || d > most)
      fail(op, "kernel, stride and dilation are ", k, ", ", s, " and ", d, "; 1 to ", most,
           " are possible");
    if (p < 0 || p > k / 2) fail(op, "padding is ", p, "; it must be 0 to half the kernel, ", k / 2);
    const int64_t span = in + 2 * p - d * (k - 1) - 1;
    int64_t out = span < 0 ? 0 : (span + (ceil_mode ? s - 1 : 0)) / s + 1;
    // The last window must start inside the input or its padding before it.
    if (ceil_mode && (out - 1) * s >= in + p) --out;
    if (out < 1) fail(op, "an axis of ", in, " is smaller than the window");
    task.in[i] = in;
    task.out[i] = out;
    task.kernel[i] = k;
    task.stride[i] = s;
    task.padding[i] = p;
    task.dilation[i] = d;
  }
  if (flip) {
    const View bits(*flip);
    expect(op, "flip", bits, kInt64);
    if (bits.dim() != 1 || bits.size(0) != task.words)
      fail(op, "flip must be (", task.words, "); got ", sizes_of(bits));
    task.flip = bits.as<uint64_t>();
  }
  Tensor out = empty({task.n, task.words, task.out[0], task.out[1]}, kInt64);
  task.result = static_cast<uint64_t*>(out.mutable_data_ptr());
  lowbit::max_pool(task, threads());
  return out;
}

std::string isas() { return supported_names(); }

}  // namespace

STABLE_TORCH_LIBRARY(lowbit, m) {
  m.def("isas() -> str");
  m.def("prepare(Tensor words, int[] geometry, str isa) -> Tensor");
  m.def("pack(Tensor x, Tensor? thresholds, int planes, bool thermometer, int groups) -> Tensor");
  m.def(
      "bconv(Tensor x, Tensor weight, Tensor? params, Tensor? thresholds, Tensor? residual, "
      "str layer, int out, bool channels_last) -> Tensor");
  m.def(
      "bconv_both(Tensor x, Tensor weight, Tensor? params, Tensor? thresholds, Tensor? residual, "
      "str layer, bool channels_last) -> (Tensor, Tensor)");
  m.def(
      "max_pool_bits(Tensor x, int[] kernel, int[] stride, int[] padding, int[] dilation, "
      "bool ceil_mode, Tensor? flip) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lowbit, CompositeExplicitAutograd, m) {
  m.impl("isas", TORCH_BOX(&isas));
}

STABLE_TORCH_LIBRARY_IMPL(lowbit, CPU, m) {
  m.impl("prepare", TORCH_BOX(&prepare));
  m.impl("pack", TORCH_BOX(&pack));
  m.impl("bconv", TORCH_BOX(&bconv));
  m.impl("bconv_both", TORCH_BOX(&bconv_both));
  m.impl("max_pool_bits", TORCH_BOX(&max_pool_bits));
}
