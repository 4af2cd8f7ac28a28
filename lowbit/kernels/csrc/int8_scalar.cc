// int8 in plain C++: any processor.
#include "int8_gates.h"
#include "int8_loops.h"

namespace lowbit {
namespace {

bool supported() { return true; }

void multiply(const Products& p) {
  for (int j = 0; j < p.columns; ++j) {
    const int8_t* w = p.w + j * p.w_stride;
    p.w_sums[j] = row_sum(w, p.depth);
    for (int64_t i = 0; i < p.rows; ++i)
      p.sums[i * kTile + j] = dot(p.x + i * p.x_stride, w, p.depth);
  }
}

}  // namespace

extern const Int8Core kInt8Scalar;
const Int8Core kInt8Scalar = {"scalar", "scalar", supported, no_packed_form,
                              no_pack,  multiply, LOWBIT_INT8_LOOPS};

}  // namespace lowbit
