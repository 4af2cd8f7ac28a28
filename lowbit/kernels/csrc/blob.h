// Where things lie in prepared weights.
#pragma once
#include "conv.h"

namespace lowbit {

struct Blob {
  size_t sums, panels, panel, plane, size;  // offsets of the parts; bytes of a panel, of a plane
  Blob(const Core& core, const Geometry& g);
};

}  // namespace lowbit
