// Products of rows as they lie in memory, for an instruction set V that multiplies bytes.
//
//   V::kBytes     bytes of a row to a step, kRows rows of x to a block
//   V::X, V::W    what load_x and load_w make of them, load_part of the first n < kBytes
//   V::I          sums in 32 bits; dot(s, x, w) adds the products
//   V::kFlipped   whether load_x takes x - 128, as signed bytes
//   V::reduce     the totals of four I, to four integers
#pragma once
#include "int8_core.h"

namespace lowbit {
namespace {

template <class V>
struct Rows {
  // R rows of x against four of w; with S the sums of w as well, which are asked for first.
  template <int R, bool S>
  static inline void block(const uint8_t* x, ptrdiff_t x_stride, const int8_t* const* w,
                           int64_t depth, int32_t* sums, int32_t* w_sums) {
    typename V::I s[R][4], own[4];
#pragma GCC unroll 4
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) s[i][j] = V::zero();
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) own[j] = V::zero();
    const typename V::X one = V::ones();
    int64_t c = 0;
    for (; c + V::kBytes <= depth; c += V::kBytes) {
      typename V::X a[R];
#pragma GCC unroll 4
      for (int i = 0; i < R; ++i) a[i] = V::load_x(x + i * x_stride + c);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const typename V::W b = V::load_w(w[j] + c);
#pragma GCC unroll 4
        for (int i = 0; i < R; ++i) s[i][j] = V::dot(s[i][j], a[i], b);
        if (S) own[j] = V::dot(own[j], one, b);
      }
    }
    if (c < depth) {
      const int rest = static_cast<int>(depth - c);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const typename V::W b = V::load_part(w[j] + c, rest);
#pragma GCC unroll 4
        for (int i = 0; i < R; ++i)
          s[i][j] = V::dot(s[i][j], V::load_part(x + i * x_stride + c, rest), b);
        if (S) own[j] = V::dot(own[j], one, b);
      }
    }
    if (S) V::reduce(own, w_sums);
#pragma GCC unroll 4
    for (int i = 0; i < R; ++i) {
      V::reduce(s[i], sums + i * kTile);
      if (V::kFlipped)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) sums[i * kTile + j] += 128 * w_sums[j];
    }
  }

  static void multiply(const Products& p) {
    for (int j = 0; j < p.columns; j += 4) {
      // Of a last group that is not full, the last column stands in for the others.
      const int8_t* w[4];
      for (int k = 0; k < 4; ++k)
        w[k] = p.w + (j + k < p.columns ? j + k : p.columns - 1) * p.w_stride;
      const auto at = [&](int64_t row) { return p.x + row * p.x_stride; };
      int32_t *sums = p.sums + j, *w_sums = p.w_sums + j;
      int64_t i = 0;
      if (p.rows >= V::kRows) {
        block<V::kRows, true>(at(0), p.x_stride, w, p.depth, sums, w_sums);
        for (i = V::kRows; i + V::kRows <= p.rows; i += V::kRows)
          block<V::kRows, false>(at(i), p.x_stride, w, p.depth, sums + i * kTile, w_sums);
      } else {
        block<1, true>(at(0), p.x_stride, w, p.depth, sums, w_sums);
        i = 1;
      }
      for (; i < p.rows; ++i)
        block<1, false>(at(i), p.x_stride, w, p.depth, sums + i * kTile, w_sums);
    }
  }
};

}  // namespace
}  // namespace lowbit
