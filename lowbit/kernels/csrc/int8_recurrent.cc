#include <cstring>

#include "int8.h"

namespace lowbit {
namespace {

// Slots of `scratch`: the products of all inputs, those of a state, and packed weights.
enum { kInputs = 12, kStates = 13, kWeights = 14 };

// From so many rows a step on, packed weights are faster (x86_int8_avx512_vnni.cc); packing once
// pays for itself after some steps.
constexpr int64_t kRowsForPacking = 3, kStepsForPacking = 4;

}  // namespace

void recurrent(const Int8Core& core, const RecurrentTask& t, const Threads& threads) {
  int64_t rows = t.steps * t.batch;
  if (t.batch_sizes) {
    rows = 0;
    for (int64_t i = 0; i < t.steps; ++i) rows += t.batch_sizes[i];
  }
  const int64_t gates = t.gates == Gates::kLstm ? 4 : t.gates == Gates::kGru ? 3 : 1;
  const int64_t width = gates * t.hidden;
  float* inputs = static_cast<float*>(scratch(kInputs, (rows * width + 1) * sizeof(float)));
  float* states = static_cast<float*>(scratch(kStates, (t.batch * width + 1) * sizeof(float)));

  LinearTask ih = t.ih, hh = t.hh;
  ih.rows = rows;
  ih.out = inputs;
  linear_dynamic(core, ih, t.x, t.levels, threads);

  hh.out = states;
  const size_t bytes = packed_tiles_bytes(core, width, t.hidden);
  if (bytes && !hh.packed && t.batch >= kRowsForPacking && t.steps >= kStepsForPacking) {
    int8_t* packed = static_cast<int8_t*>(scratch(kWeights, bytes));
    pack_tiles(core, hh.w, width, t.hidden, packed);
    hh.packed = packed;
  }
  int64_t row = t.reverse ? rows : 0;
  for (int64_t step = 0; step < t.steps; ++step) {
    const int64_t at = t.reverse ? t.steps - 1 - step : step;
    const int64_t n = t.batch_sizes ? t.batch_sizes[at] : t.batch;
    if (t.reverse) row -= n;
    hh.rows = n;
    linear_dynamic(core, hh, t.h, t.levels, threads);
    for (int64_t i = 0; i < n; ++i) {
      const float *x = inputs + (row + i) * width, *product = states + i * width;
      float *h = t.h + i * t.hidden, *y = t.y + (row + i) * t.hidden;
      if (t.gates == Gates::kLstm) core.lstm(x, product, t.hidden, t.c + i * t.hidden, y);
      if (t.gates == Gates::kGru) core.gru(x, product, t.hidden, h, y);
      if (t.gates == Gates::kTanh) core.tanh(x, product, t.hidden, y);
      if (t.gates == Gates::kRelu) core.relu(x, product, t.hidden, y);
      std::memcpy(h, y, sizeof(float) * t.hidden);
    }
    if (!t.reverse) row += n;
  }
}

}  // namespace lowbit
