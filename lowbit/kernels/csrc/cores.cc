#include "core.h"

namespace lowbit {

#define CORE(name) extern const Core name;
#include "cores.inc"
#undef CORE

const Core* const kCores[] = {
#define CORE(name) &name,
#include "cores.inc"
#undef CORE
    nullptr,
};

}  // namespace lowbit
