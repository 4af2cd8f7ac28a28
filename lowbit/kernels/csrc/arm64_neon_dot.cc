// NEON with dot products: the four counts of a word are added to its 32-bit lane at once.
#include "neon.h"

#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace lowbit {
namespace {

struct CountWords {
  using S = uint32x4_t;
  static constexpr int kWords = 1 << 24;  // of at most 32 in 32 bits

  static S zero() { return vdupq_n_u32(0); }
  static S add(S sum, uint8x16_t counts) { return vdotq_u32(sum, counts, vdupq_n_u8(1)); }
  static uint32x4_t widen(uint32x4_t total, S sum) { return vaddq_u32(total, sum); }
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

void gather(const Gather& g, uint32_t* words, void* out) {
  gather_lines(g, words);
  code_pixels(words, g.kw, g.pixel_count, out);
}

}  // namespace

extern const Core kNeonDot;
const Core kNeonDot = {"neon_dot",
                       supported,
                       4 * kBlock,
                       4 * kBlock,
                       copy_words,
                       code_pixels,
                       neon_block<CountWords>,
                       pack_neon,
                       unpack_words,
                       gather};

}  // namespace lowbit
