// Tensors of torch, by its stable ABI: what the files of operators share. These files alone know
// torch.
#pragma once
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/c/shim.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "conv.h"
#include "pool_memory.h"

namespace lowbit::tensors {

using torch::stable::Tensor;
using Ints = std::vector<int64_t>;

template <class... Parts>
[[noreturn]] void fail(const char* op, const Parts&... parts) {
  const auto text = [](const auto& part) {
    if constexpr (std::is_arithmetic_v<std::decay_t<decltype(part)>>)
      return std::to_string(part);
    else
      return std::string(part);
  };
  throw std::runtime_error(std::string("lowbit::") + op + ": " + (text(parts) + ...));
}

// What is read of a tensor, by one call for each: asked for axis by axis, the calls into torch
// take longer than a small layer.
struct View {
  const void* data;
  int64_t rank, count = 1;
  const int64_t *sizes, *strides;
  int32_t dtype, device;

  explicit View(const Tensor& t) {
    void* memory;
    int64_t* list;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(t.get(), &device));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(t.get(), &dtype));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_dim(t.get(), &rank));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(t.get(), &list));
    sizes = list;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(t.get(), &list));
    strides = list;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(t.get(), &memory));
    data = memory;
    for (int64_t i = 0; i < rank; ++i) count *= sizes[i];
  }
  int64_t dim() const { return rank; }
  int64_t numel() const { return count; }
  int64_t size(int64_t i) const { return sizes[i]; }
  int64_t stride(int64_t i) const { return strides[i]; }
  template <class T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
};

inline std::string sizes_of(const View& t) {
  std::string text = "(";
  for (int64_t i = 0; i < t.dim(); ++i) text += (i ? ", " : "") + std::to_string(t.size(i));
  return text + ")";
}

enum Type { kFloat32, kInt64, kInt32, kByte, kInt8, kFloat64 };

inline int32_t dtype_of(Type type) {
  static const int32_t dtypes[] = {aoti_torch_dtype_float32(), aoti_torch_dtype_int64(),
                                   aoti_torch_dtype_int32(), aoti_torch_dtype_uint8(),
                                   aoti_torch_dtype_int8(),    aoti_torch_dtype_float64()};
  return dtypes[type];
}

inline bool is_type(const View& t, Type type) { return t.dtype == dtype_of(type); }

inline bool is_contiguous(const View& t) {
  int64_t step = 1;
  for (int64_t i = t.dim() - 1; i >= 0; --i) {
    if (t.size(i) != 1 && t.stride(i) != step) return t.numel() == 0;
    step *= t.size(i);
  }
  return true;
}

// On the processor and of the dtype; contiguous too unless `strided`.
inline void expect(const char* op, const char* name, const View& t, Type type, bool strided = false) {
  static const char* const names[] = {"float32", "int64", "int32", "uint8", "int8", "float64"};
  if (t.device != aoti_torch_device_type_cpu()) fail(op, name, " must be on the CPU");
  if (!is_type(t, type)) fail(op, name, " must be ", names[type], "; convert it first");
  if (!strided && !is_contiguous(t)) fail(op, name, " must be contiguous; call .contiguous()");
}

// Dense, in the order of `strides`.
inline Tensor empty_strided(int64_t n, const int64_t* sizes, const int64_t* strides, Type type) {
  int64_t step = 1;
  for (int64_t i = 0; i < n; ++i) step *= sizes[i] > 0 ? sizes[i] : 1;
  AtenTensorHandle handle;
  const int32_t cpu = aoti_torch_device_type_cpu();
  static const size_t widths[] = {4, 8, 4, 1, 1, 8};
  const size_t bytes = static_cast<size_t>(step) * widths[type];
  if (lowbit::is_pooled(bytes)) {
    const auto give_back = [](void* memory, void* size) {
      lowbit::give_back(memory, reinterpret_cast<size_t>(size));
    };
    void* memory = lowbit::take(bytes);
    TORCH_ERROR_CODE_CHECK(torch_from_blob(memory, n, sizes, strides, 0,
                                           dtype_of(type), cpu, -1, &handle,
                                           aoti_torch_layout_strided(), nullptr, 0, give_back,
                                           reinterpret_cast<void*>(bytes)));
  } else {
    TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(n, sizes, strides,
                                                    dtype_of(type), cpu, 0, &handle));
  }
  return Tensor(handle);
}

inline Tensor empty(const Ints& sizes, Type type, bool channels_last = false) {
  const int64_t n = static_cast<int64_t>(sizes.size());
  Ints strides(n);
  int64_t step = 1;
  const auto give = [&](int64_t i) {
    strides[i] = step;
    step *= sizes[i] > 0 ? sizes[i] : 1;
  };
  if (channels_last && n > 2) {
    give(1);
    for (int64_t i = n - 1; i > 1; --i) give(i);
    give(0);
  } else {
    for (int64_t i = n - 1; i >= 0; --i) give(i);
  }
  return empty_strided(n, sizes.data(), strides.data(), type);
}

// Whether t lies in memory as (n, c, ...) or, with `last`, as (n, ..., c).
inline bool has_layout(const View& t, bool last) {
  int64_t step = 1;
  const int64_t n = t.dim();
  const auto fits = [&](int64_t i) {
    const bool good = t.size(i) == 1 || t.stride(i) == step;
    step *= t.size(i);
    return good;
  };
  if (t.numel() == 0) return true;
  if (last && !fits(1)) return false;
  for (int64_t i = n - 1; i > 1; --i)
    if (!fits(i)) return false;
  if (!last && !fits(1)) return false;
  return fits(0);
}

inline void run_parallel(int64_t count, lowbit::Body body, void* context) {
  TORCH_ERROR_CODE_CHECK(torch_parallel_for(0, count, 1, body, context));
}

inline lowbit::Threads threads() {
  uint32_t count = 1;
  TORCH_ERROR_CODE_CHECK(torch_get_num_threads(&count));
  return {static_cast<int>(count), run_parallel};
}

}  // namespace lowbit::tensors
