#include <cmath>
#include <cstring>
#include <vector>

#include "int8.h"

namespace lowbit {
namespace {

// Slots of `scratch`, beside those of convolutions.
enum { kSums = 8, kPacked = 9, kColumns = 10, kCodes = 11 };

constexpr int64_t kRowsAtOnce = 256;          // whose sums stay in the cache
constexpr int64_t kForThreads = int64_t(1) << 19;  // products, below which one thread is faster

// A tile's scales and so on, all of them kTile long.
struct Columns {
  alignas(64) float scales[kTile], bias[kTile];
  alignas(64) int32_t zeros[kTile];
};

// The sums of a depth that int32 does not hold: in pieces, added up in 64 bits.
void long_sums(const Int8Core& core, const LinearTask& t, int64_t first_row, int64_t rows,
               int64_t first, int columns, const int32_t* zeros, int8_t* scratch_bytes,
               float* real) {
  std::vector<int32_t> part(static_cast<size_t>(rows) * kTile), w_part(kTile);
  std::vector<int64_t> sums(static_cast<size_t>(rows) * kTile), w_sums(kTile), x_sums(rows);
  for (int64_t at = 0; at < t.depth; at += kMaxDepth) {
    Products p = {};
    p.x = t.x + first_row * t.x_stride + at;
    p.x_stride = t.x_stride;
    p.rows = rows;
    p.w = t.w + first * t.depth + at;
    p.w_stride = t.depth;
    p.columns = columns;
    p.depth = t.depth - at < kMaxDepth ? t.depth - at : kMaxDepth;
    p.scratch = scratch_bytes;
    p.sums = part.data();
    p.w_sums = w_part.data();
    core.multiply(p);
    for (int64_t i = 0; i < rows; ++i) {
      x_sums[i] += core.sum_of(p.x + i * t.x_stride, p.depth);
      for (int j = 0; j < columns; ++j) sums[i * kTile + j] += part[i * kTile + j];
    }
    for (int j = 0; j < columns; ++j) w_sums[j] += w_part[j];
  }
  for (int64_t i = 0; i < rows; ++i)
    for (int j = 0; j < columns; ++j)
      real[i * kTile + j] =
          static_cast<float>(sums[i * kTile + j] - t.x_zero * w_sums[j] -
                             (zeros ? zeros[j] * (x_sums[i] - t.depth * int64_t(t.x_zero)) : 0));
}

void store(const Int8Core& core, const LinearTask& t, const Rounding& out_rounding, int64_t row,
           int64_t first, int columns, float* y) {
  const int64_t at = row * t.columns + first;
  if (t.residual) {
    float buffer[kTile];
    const float* residual = static_cast<const float*>(t.residual) + at;
    if (t.residual_code != Code::kFloat) {
      const Affine a = {static_cast<float>(t.residual_zero), static_cast<float>(t.residual_scale)};
      core.dequantize[static_cast<int>(t.residual_code)](
          static_cast<const uint8_t*>(t.residual) + at, columns, a, buffer);
      residual = buffer;
    }
    core.add_real(y, residual, columns, t.relu);
  }
  if (t.out_code == Code::kFloat)
    std::memcpy(static_cast<float*>(t.out) + at, y, sizeof(float) * columns);
  else
    core.requantize_row[static_cast<int>(t.out_code)](y, columns, out_rounding,
                                                      static_cast<uint8_t*>(t.out) + at);
}

void tile(const Int8Core& core, const LinearTask& t, int64_t index, int64_t row_begin,
          int64_t row_end) {
  const int64_t first = index * kTile;
  const int columns = static_cast<int>(t.columns - first < kTile ? t.columns - first : kTile);
  const bool is_long = t.depth > kMaxDepth;
  const int64_t depth = is_long ? kMaxDepth : t.depth;
  const int64_t at_once = row_end - row_begin < kRowsAtOnce ? row_end - row_begin : kRowsAtOnce;
  const size_t width = sizeof(int32_t) * kTile;
  int32_t* sums = static_cast<int32_t*>(scratch(kSums, (at_once + 2) * width));
  Columns* c = static_cast<Columns*>(scratch(kColumns, sizeof(Columns)));
  const size_t bytes = core.packed_bytes(depth);
  int8_t* memory = t.packed ? nullptr : static_cast<int8_t*>(scratch(kPacked, bytes + 64));
  // Where they lie, or for a tile that is not full, as long as one.
  const float *scales = t.w_scales + first, *bias = t.bias ? t.bias + first : nullptr;
  const int32_t* zeros = t.w_zeros ? t.w_zeros + first : nullptr;
  if (columns < kTile || !t.per_column) {
    for (int j = 0; j < kTile; ++j)
      c->scales[j] = t.w_scales[t.per_column && j < columns ? first + j : 0];
    scales = c->scales;
  }
  if (columns < kTile) {
    for (int j = 0; j < kTile; ++j) {
      c->bias[j] = bias && j < columns ? bias[j] : 0;
      c->zeros[j] = zeros && j < columns ? zeros[j] : 0;
    }
    bias = bias ? c->bias : nullptr;
    zeros = zeros ? c->zeros : nullptr;
  }

  Products p = {};
  p.w = t.w + first * t.depth;
  p.w_stride = t.depth;
  p.columns = columns;
  p.depth = depth;
  p.x_stride = t.x_stride;
  p.scratch = memory;
  p.sums = sums + kTile;
  p.w_sums = sums;
  p.packed = t.packed ? t.packed + index * bytes : nullptr;
  if (!p.packed && bytes && !is_long && row_end - row_begin > kRowsAtOnce) {
    core.pack(p.w, p.w_stride, columns, depth, memory);
    p.packed = memory;
  }

  Finish f = {};
  f.w_sums = p.w_sums;
  f.w_zeros = zeros;
  f.x_zero = t.x_zero;
  f.depth = t.depth;
  f.x_scale = t.x_scale;
  f.w_scales = scales;
  f.bias = bias;
  f.relu = t.relu && !t.residual;

  Rounding out_rounding = {};
  if (t.out_code != Code::kFloat) {
    out_rounding = rounding_of(t.out_code, t.out_scale, t.out_zero);
    out_rounding.low += static_cast<float>(t.out_zero);
    out_rounding.high += static_cast<float>(t.out_zero);
  }
  alignas(64) float y[kTile];
  for (int64_t row = row_begin; row < row_end; row += kRowsAtOnce) {
    p.rows = row_end - row < kRowsAtOnce ? row_end - row : kRowsAtOnce;
    p.x = t.x + row * t.x_stride;
    if (is_long) {
      f.real = reinterpret_cast<float*>(p.sums);
      long_sums(core, t, row, p.rows, first, columns, zeros, memory,
                reinterpret_cast<float*>(p.sums));
    } else {
      core.multiply(p);
    }
    for (int64_t i = 0; i < p.rows; ++i) {
      f.sums = p.sums + i * kTile;
      if (f.w_zeros && !is_long) f.x_sum = core.sum_of(p.x + i * t.x_stride, t.depth);
      if (is_long) f.real = reinterpret_cast<float*>(p.sums) + i * kTile;
      core.finish(f, y);
      store(core, t, out_rounding, row + i, first, columns, y);
    }
  }
}

}  // namespace

Rounding rounding_of(Code code, double scale, int64_t zero_point, bool relu) {
  Rounding r;
  r.inverse = 1.0f / static_cast<float>(scale);
  r.zero_point = static_cast<int32_t>(zero_point);
  const int64_t low = relu ? zero_point : code == Code::kInt8 ? -128 : 0;
  r.low = static_cast<float>(low - zero_point);
  r.high = static_cast<float>((code == Code::kInt8 ? 127 : 255) - zero_point);
  return r;
}

Grid choose_grid(double low, double high, int levels) {
  // Constants and order of operations: lowbit/functional/int8/quantize.py.
  const double small_scale = 6.0999998822808266e-05, too_small = std::ldexp(1.0, -128);
  low = low < 0 ? low : 0;
  high = high > 0 ? high : 0;
  double scale = (high - low) / levels;
  if (scale <= too_small) scale = 0.1;
  if (scale < small_scale) {
    if (low == 0) {
      high = small_scale * levels;
    } else if (high == 0) {
      low = -small_scale * levels;
    } else {
      const double grown = small_scale / scale;
      low *= grown;
      high *= grown;
    }
    scale = small_scale;
  }
  const double from_low = 0 - low / scale, from_high = levels - high / scale;
  const bool low_is_better = 0 - low / scale < levels + high / scale;
  const double zero_point = std::nearbyint(low_is_better ? from_low : from_high);
  const double in_range = zero_point < 0 ? 0 : zero_point > levels ? levels : zero_point;
  return {scale, static_cast<int32_t>(in_range)};
}

void linear(const Int8Core& core, const LinearTask& task, const Threads& threads) {
  if (task.rows == 0 || task.columns == 0) return;
  const int64_t tiles = (task.columns + kTile - 1) / kTile;
  if (threads.count < 2 || task.rows * task.columns * task.depth < kForThreads) {
    for (int64_t i = 0; i < tiles; ++i) tile(core, task, i, 0, task.rows);
    return;
  }
  // Tiles, or where these are few, tiles of some of the rows.
  int64_t parts = tiles >= 2 * threads.count ? 1 : (2 * threads.count + tiles - 1) / tiles;
  const int64_t most = (task.rows + 31) / 32;
  if (parts > most) parts = most;
  const int64_t rows = (task.rows + parts - 1) / parts;
  const auto body = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % parts * rows, last = first + rows;
      if (first < task.rows)
        tile(core, task, i / parts, first, last < task.rows ? last : task.rows);
    }
  };
  in_pieces(tiles * parts, 1, threads, body);
}

size_t packed_tiles_bytes(const Int8Core& core, int64_t columns, int64_t depth) {
  if (depth > kMaxDepth) return 0;
  return static_cast<size_t>((columns + kTile - 1) / kTile) * core.packed_bytes(depth);
}

void pack_tiles(const Int8Core& core, const int8_t* w, int64_t columns, int64_t depth,
                int8_t* packed) {
  const size_t bytes = core.packed_bytes(depth);
  for (int64_t first = 0; first < columns; first += kTile, packed += bytes) {
    const int64_t rest = columns - first;
    core.pack(w + first * depth, depth, static_cast<int>(rest < kTile ? rest : kTile), depth,
              packed);
  }
}

// Rows start on other lines of the cache than the rows of a matrix of 2^n bytes do.
ptrdiff_t code_stride(int64_t depth) { return (depth + 63) / 64 * 64 + 64; }

bool quantize_rows(const Int8Core& core, const float* x, int64_t rows, int64_t depth, int levels,
                   uint8_t* codes, Grid* grid, const Threads& threads) {
  const int64_t count = rows * depth;
  if (count == 0) {
    *grid = choose_grid(0, 0, levels);
    return true;
  }
  const int64_t piece = int64_t(1) << 16, pieces = (count + piece - 1) / piece;
  std::vector<float> lows(pieces, INFINITY), highs(pieces, -INFINITY);
  std::vector<char> finite(pieces, 1);
  in_pieces(pieces, 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t rest = count - i * piece;
      finite[i] = core.range(x + i * piece, rest < piece ? rest : piece, &lows[i], &highs[i]);
    }
  });
  float low = lows[0], high = highs[0];
  for (int64_t i = 0; i < pieces; ++i) {
    if (!finite[i]) return false;
    low = lows[i] < low ? lows[i] : low;
    high = highs[i] > high ? highs[i] : high;
  }
  *grid = choose_grid(low, high, levels);
  const Rounding r = rounding_of(Code::kUint8, grid->scale, grid->zero_point);
  const ptrdiff_t stride = code_stride(depth);
  const int64_t at_once = depth > piece ? 1 : piece / depth;
  in_pieces(rows, at_once, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      core.quantize[0](x + i * depth, depth, r, codes + i * stride);
      std::memset(codes + i * stride + depth, 0, static_cast<size_t>(stride - depth));
    }
  });
  return true;
}

void linear_dynamic(const Int8Core& core, LinearTask task, const float* x, int levels,
                    const Threads& threads) {
  const ptrdiff_t stride = code_stride(task.depth);
  uint8_t* codes = static_cast<uint8_t*>(scratch(kCodes, task.rows * stride + 64));
  Grid grid;
  float* y = static_cast<float*>(task.out);
  if (!quantize_rows(core, x, task.rows, task.depth, levels, codes, &grid, threads)) {
    for (int64_t i = 0; i < task.rows * task.columns; ++i) y[i] = NAN;
    return;
  }
  task.x = codes;
  task.x_stride = stride;
  task.x_scale = static_cast<float>(grid.scale);
  task.x_zero = grid.zero_point;
  task.out_code = Code::kFloat;
  linear(core, task, threads);
}

}  // namespace lowbit
