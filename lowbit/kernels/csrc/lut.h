// A panel times a block by look-up, for x86 without a popcount of vectors.
//
// Pixels go in pairs. Four bits of depth of both select one of 256 tables of 16 bytes, whose byte i
// holds how many bits of i differ from the first pixel's (low nibble) and from the second's (high
// nibble); one byte shuffle by the filters' four bits is then 8 bits of product for each filter.
// Three look-ups (at most 12) are added in nibbles before they are split into the two pixels.
//
// Pixel q is paired with pixel q + (count + 1) / 2. Filters are coded [kw][8][64] bytes of four
// bits, pixels [kw][4][32 pairs][2] offsets of tables in 16 bits; a word's nibbles stand in the
// order 0 4 1 5 2 6 3 7. Byte 4 m + j of a vector of W bytes of filters is filter W/4 j + m, so
// that sums widen to 32 bits in the filters' order.
#pragma once
#include "block.h"

namespace lowbit {
namespace {

struct LutTables {
  uint8_t row[256][16];
};

constexpr LutTables lut_tables() {
  LutTables t{};
  for (int pair = 0; pair < 256; ++pair)
    for (int i = 0; i < 16; ++i) {
      const int both = pair ^ (i | i << 4);
      int first = 0, second = 0;
      for (int bit = 0; bit < 4; ++bit) {
        first += both >> bit & 1;
        second += both >> (bit + 4) & 1;
      }
      t.row[pair][i] = static_cast<uint8_t>(first | second << 4);
    }
  return t;
}

alignas(64) constexpr LutTables kLut = lut_tables();

constexpr int kLutFilterBytes = 8 * kBlock, kLutPixelBytes = 8 * kBlock;
constexpr int kLutPairs = kBlock / 2;

// Where the table of a pair's look-up is said, from the first look-up of the first pair.
constexpr int lut_offset(int look_up, int pair) {
  return look_up / 2 * (4 * kLutPairs) + look_up % 2 * 2 + 4 * pair;
}

inline int pairs_of(int pixel_count) { return (pixel_count + 1) / 2; }

// V is a struct of the vectors of one instruction set: B holds kBytes bytes.
template <class V>
struct Lut {
  using B = typename V::B;
  // What a byte holds, of at most 4 each: a multiple of the 12 of the inner loop.
  static constexpr int kLookUps = 60;
  // What 16 bits hold: 32 * 2046 < 65536.
  static constexpr int kMaxWords = 2046;

  static void code_filters(const uint32_t* words, int kw, void* out) {
    uint8_t* to = static_cast<uint8_t*>(out);
    for (int k = 0; k < kw; ++k)
      for (int n = 0; n < 8; ++n)
        for (int byte = 0; byte < kBlock; ++byte) {
          const int first = byte / V::kBytes * V::kBytes, at = byte % V::kBytes;
          const int filter = first + V::kBytes / 4 * (at % 4) + at / 4;
          const int nibble = n / 2 + 4 * (n % 2);
          *to++ = words[k * kBlock + filter] >> (4 * nibble) & 15;
        }
  }

  // One word of all pixels. The first pixels' nibbles go to bits 4 to 7 of each half of a number,
  // the second's to bits 8 to 11.
  static void code_row(const uint32_t* __restrict row, int pairs, uint32_t* __restrict to) {
    constexpr uint32_t kFirst = 0x00f000f0, kSecond = 0x0f000f00;
    for (int q = 0; q < kLutPairs; ++q) {
      const uint32_t a = row[q], b = row[pairs + q];
      to[q] = (a << 4 & kFirst) | (b << 8 & kSecond);
      to[kLutPairs + q] = (a & kFirst) | (b << 4 & kSecond);
      to[2 * kLutPairs + q] = (a >> 4 & kFirst) | (b & kSecond);
      to[3 * kLutPairs + q] = (a >> 8 & kFirst) | (b >> 4 & kSecond);
    }
  }

  static void code_pixels(uint32_t* words, int kw, int pixel_count, void* out) {
    const int pairs = pairs_of(pixel_count);
    uint32_t* to = static_cast<uint32_t*>(out);
    // `out` may be `words`. Codes take twice the room, so from the last word on only the first
    // one's lie on their own words.
    for (int k = kw - 1; k > 0; --k)
      code_row(words + k * kBlock, pairs, to + k * (kLutPixelBytes / 4));
    uint32_t row[kBlock];
    __builtin_memcpy(row, words, sizeof(row));
    code_row(row, pairs, to);
  }

  // Adds look-ups `at` to `end` (at most three) of R pairs and C vectors of filters to the sums:
  // `whole` modulo 256, `high` the second pixels (and, in even bytes, 16 times the next byte's
  // first pixel).
  template <int R, int C, int At, int End>
  static inline __attribute__((always_inline)) void add(const uint8_t* tables, const uint8_t* w,
                                                        const uint8_t* x, B (&whole)[R][C],
                                                        B (&high)[R][C]) {
    if constexpr (V::template kOwnGroup<R, C, End - At>) {
      V::template add_group<At>(tables, w, x, whole, high);
    } else {
      B sum[R][C];
#pragma GCC unroll 3
      for (int at = At; at < End; ++at) {
        B filters[C];
#pragma GCC unroll 2
        for (int c = 0; c < C; ++c) {
          filters[c] = V::load(w + at * kBlock + c * V::kBytes);
          V::hold(filters[c]);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          uint16_t offset;
          __builtin_memcpy(&offset, x + lut_offset(at, r), sizeof(offset));
          const B table = V::table(tables + offset);
#pragma GCC unroll 2
          for (int c = 0; c < C; ++c) {
            const B one = V::look_up(table, filters[c]);
            sum[r][c] = at == At ? one : V::add8(sum[r][c], one);
          }
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int c = 0; c < C; ++c) {
          whole[r][c] = V::add8(whole[r][c], sum[r][c]);
          high[r][c] = V::add8(high[r][c], V::template right16<4>(sum[r][c]));
          V::hold(whole[r][c]);
          V::hold(high[r][c]);
        }
    }
  }

  // Look-ups `at` to `end`, by threes.
  template <int R, int C, int At, int End>
  static inline __attribute__((always_inline)) void add_all(const uint8_t* tables,
                                                            const uint8_t* w, const uint8_t* x,
                                                            B (&whole)[R][C], B (&high)[R][C]) {
    add<R, C, At, (At + 3 < End ? At + 3 : End)>(tables, w, x, whole, high);
    if constexpr (At + 3 < End) add_all<R, C, At + 3, End>(tables, w, x, whole, high);
  }

  // R pairs of pixels from x on, C vectors of filters, into rows of the tile.
  template <int R, int C>
  static void tile(const uint8_t* w, const uint8_t* x, int kw, int shift, bool add_to,
                   int32_t* first, int32_t* second) {
    B wide[R][C][4];  // 16 bits: first pixel's even and odd bytes, second pixel's
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c)
        for (int i = 0; i < 4; ++i) wide[r][c][i] = V::zero();
    const B byte = V::all16(255);
    const uint8_t* tables = kLut.row[0];
    for (int left = 8 * kw; left > 0;) {
      B whole[R][C], high[R][C];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int c = 0; c < C; ++c) whole[r][c] = high[r][c] = V::zero();
      int now = left < kLookUps ? left : kLookUps;
      left -= now;
      for (; now >= 12; now -= 12, w += 12 * kBlock, x += lut_offset(12, 0))
        add_all<R, C, 0, 12>(tables, w, x, whole, high);
      // kw is even, so that 0, 4 or 8 are left over.
      if (now == 4) add_all<R, C, 0, 4>(tables, w, x, whole, high);
      if (now == 8) add_all<R, C, 0, 8>(tables, w, x, whole, high);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int c = 0; c < C; ++c) {
          const B s = whole[r][c], h = high[r][c];
          B* sum = wide[r][c];
          const B second_odd = V::template right16<8>(h);
          const B first_odd =
              V::template right16<8>(V::sub16(s, V::template left16<12>(second_odd)));
          const B second_even = V::both(V::sub16(h, V::template left16<4>(first_odd)), byte);
          const B first_even = V::both(V::sub16(s, V::template left16<4>(second_even)), byte);
          sum[0] = V::add16(sum[0], first_even);
          sum[1] = V::add16(sum[1], first_odd);
          sum[2] = V::add16(sum[2], second_even);
          sum[3] = V::add16(sum[3], second_odd);
        }
    }
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c)
        for (int of_pair = 0; of_pair < 2; ++of_pair) {
          const B even = wide[r][c][2 * of_pair], odd = wide[r][c][2 * of_pair + 1];
          int32_t* row = (of_pair ? second : first) + r * kBlock + c * V::kBytes;
          constexpr int kStep = V::kBytes / 4;
          V::put(row, V::low32(even), shift, add_to);
          V::put(row + kStep, V::low32(odd), shift, add_to);
          V::put(row + 2 * kStep, V::high32(even), shift, add_to);
          V::put(row + 3 * kStep, V::high32(odd), shift, add_to);
        }
  }

  template <int R, int C>
  static void tiles(const uint8_t* w, const uint8_t* x, int kw, int pairs, int shift, bool add_to,
                    int32_t* first, int32_t* second) {
    for (; pairs >= R; pairs -= R, x += 4 * R, first += R * kBlock, second += R * kBlock)
      tile<R, C>(w, x, kw, shift, add_to, first, second);
    if constexpr (R > 1) tiles<R / 2, C>(w, x, kw, pairs, shift, add_to, first, second);
  }

  static void distances(const uint8_t* filters, const uint8_t* pixels, int kw, int pixel_count,
                        int filter_count, int shift, bool add_to, int32_t* to) {
    constexpr int kVectors = kBlock / V::kBytes;
    const int pairs = pairs_of(pixel_count);
    int32_t* second = to + pairs * kBlock;
    for (int k = 0; k < kw; k += kMaxWords) {
      const uint8_t* w = filters + static_cast<ptrdiff_t>(k) * kLutFilterBytes;
      const uint8_t* x = pixels + static_cast<ptrdiff_t>(k) * kLutPixelBytes;
      const int words = kw - k < kMaxWords ? kw - k : kMaxWords;
      if (filter_count <= V::kBytes)
        tiles<V::kPairs, 1>(w, x, words, pairs, shift, add_to || k > 0, to, second);
      else
        tiles<V::kPairs, kVectors>(w, x, words, pairs, shift, add_to || k > 0, to, second);
    }
  }
};

}  // namespace
}  // namespace lowbit
