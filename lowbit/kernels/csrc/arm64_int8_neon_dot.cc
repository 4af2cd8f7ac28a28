// NEON with the dot product: of signed bytes, so that x is flipped to x - 128, which the sums of w
// undo.
#include <arm_neon.h>
#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "int8_gates.h"
#include "int8_loops.h"
#include "int8_rows.h"

namespace lowbit {
namespace {

struct NeonDot {
  using X = int8x16_t;
  using W = int8x16_t;
  using I = int32x4_t;
  static constexpr int kBytes = 16, kRows = 4;
  static constexpr bool kFlipped = true;

  static X flip(uint8x16_t x) { return vreinterpretq_s8_u8(veorq_u8(x, vdupq_n_u8(128))); }
  static X load_x(const uint8_t* from) { return flip(vld1q_u8(from)); }
  static W load_w(const int8_t* from) { return vld1q_s8(from); }
  static X load_part(const uint8_t* from, int n) {
    uint8_t bytes[kBytes] = {};
    memcpy(bytes, from, static_cast<size_t>(n));
    return load_x(bytes);
  }
  static W load_part(const int8_t* from, int n) {
    int8_t bytes[kBytes] = {};
    memcpy(bytes, from, static_cast<size_t>(n));
    return load_w(bytes);
  }
  static X ones() { return vdupq_n_s8(1); }
  static I zero() { return vdupq_n_s32(0); }
  static I dot(I s, X x, W w) { return vdotq_s32(s, x, w); }
  static void reduce(const I (&s)[4], int32_t* to) {
    vst1q_s32(to, vpaddq_s32(vpaddq_s32(s[0], s[1]), vpaddq_s32(s[2], s[3])));
  }
};

bool supported() {
#if defined(__linux__)
  return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#elif defined(__APPLE__)
  return true;
#else
  return false;
#endif
}

}  // namespace

extern const Int8Core kInt8NeonDot;
const Int8Core kInt8NeonDot = {"neon_dot", "neon_dot",
                               supported,  no_packed_form,
                               no_pack,    Rows<NeonDot>::multiply, LOWBIT_INT8_LOOPS};

}  // namespace lowbit
