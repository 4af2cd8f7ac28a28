// The plain core: any processor, and the reference for the others.
#include "block.h"

namespace lowbit {
namespace {

void copy_words(const uint32_t* words, int kw, void* out) {
  uint32_t* to = static_cast<uint32_t*>(out);
  for (int i = 0; i < kw * kBlock; ++i) to[i] = words[i];
}

void code_pixels(uint32_t* words, int kw, int, void* out) {
  if (out != words) copy_words(words, kw, out);
}

// The bits of each byte, in that byte.
inline uint32_t count_bytes(uint32_t x) {
  x -= (x >> 1) & 0x55555555u;
  x = (x & 0x33333333u) + ((x >> 2) & 0x33333333u);
  return (x + (x >> 4)) & 0x0f0f0f0fu;
}

// By shifts and adds, in loops that compilers vectorize: without an instruction for it, popcount
// is a call.
void distances(const uint8_t* filters, const uint8_t* pixels, int kw, int pixel_count, int,
               int shift, bool add, int32_t* tile) {
  const uint32_t* w = reinterpret_cast<const uint32_t*>(filters);
  const uint32_t* x = reinterpret_cast<const uint32_t*>(pixels);
  for (int p = 0; p < pixel_count; ++p) {
    uint32_t differ[kBlock] = {};
    for (int first = 0; first < kw; first += 31) {  // 31 * 8 bits fill a byte
      uint32_t bytes[kBlock] = {};
      for (int k = first; k < kw && k < first + 31; ++k) {
        const uint32_t a = x[k * kBlock + p];
        for (int f = 0; f < kBlock; ++f) bytes[f] += count_bytes(a ^ w[k * kBlock + f]);
      }
      for (int f = 0; f < kBlock; ++f) {
        const uint32_t pairs = (bytes[f] & 0x00ff00ffu) + ((bytes[f] >> 8) & 0x00ff00ffu);
        differ[f] += (pairs & 0xffffu) + (pairs >> 16);
      }
    }
    int32_t* to = tile + p * kBlock;
    for (int f = 0; f < kBlock; ++f)
      to[f] = (add ? to[f] : 0) + static_cast<int32_t>(differ[f] << shift);
  }
}

void block(const Block& b) {
  each_plane(b, distances);
  finish(b, b.scratch);
}

bool supported() { return true; }

void gather(const Gather& g, uint32_t* words, void* out) {
  gather_lines(g, words);
  code_pixels(words, g.kw, g.pixel_count, out);
}

}  // namespace

extern const Core kScalar;
const Core kScalar = {"scalar",   supported,    4 * kBlock, 4 * kBlock, copy_words,
                      code_pixels, block, pack_plain,
                      unpack_words, gather};

}  // namespace lowbit
