// NEON as every 64-bit ARM has it: bits of bytes are counted, and added in bytes.
#include "neon.h"

namespace lowbit {
namespace {

struct CountBytes {
  using S = uint8x16_t;
  static constexpr int kWords = 31;  // of at most 8 in a byte: 248

  static S zero() { return vdupq_n_u8(0); }
  static S add(S sum, uint8x16_t counts) { return vaddq_u8(sum, counts); }
  static uint32x4_t widen(uint32x4_t total, S sum) {
    return vpadalq_u16(total, vpaddlq_u8(sum));
  }
};

bool supported() { return true; }

void gather(const Gather& g, uint32_t* words, void* out) {
  gather_lines(g, words);
  code_pixels(words, g.kw, g.pixel_count, out);
}

}  // namespace

extern const Core kNeon;
const Core kNeon = {"neon",
                    supported,
                    4 * kBlock,
                    4 * kBlock,
                    copy_words,
                    code_pixels,
                    neon_block<CountBytes>,
                    pack_neon,
                    unpack_words,
                    gather};

}  // namespace lowbit
