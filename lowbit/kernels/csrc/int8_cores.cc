#include "int8_core.h"

namespace lowbit {

#define CORE(name) extern const Int8Core name;
#include "int8_cores.inc"
#undef CORE

const Int8Core* const kInt8Cores[] = {
#define CORE(name) &name,
#include "int8_cores.inc"
#undef CORE
    nullptr,
};

}  // namespace lowbit
