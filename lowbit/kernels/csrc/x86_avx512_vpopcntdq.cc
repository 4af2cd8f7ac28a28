// AVX-512 with VPOPCNTDQ: prefix-coded words, 16 lanes of 32 bits to a register.
//
// Pixels and filters are coded alike, so either may lie in the lanes: the filters where results
// are stored channels last, the pixels where they are stored by planes. So no layout needs a
// transposition. The common epilogues run on the registers; others through `finish`.
#include "avx512.h"
#include "epilogue.h"

namespace lowbit {
namespace {

template <int R, int V>
struct Shape {};

#include "x86_avx512_prefix_tiles.inc"

void code_prefix(const uint32_t* words, int kw, void* out) {
  __m512i run[4] = {};
  for (int k = 0; k < kw; ++k)
    for (int v = 0; v < 4; ++v) {
      run[v] = _mm512_xor_si512(run[v], _mm512_loadu_si512(words + k * kBlock + 16 * v));
      _mm512_store_si512(static_cast<uint32_t*>(out) + k * kBlock + 16 * v, run[v]);
    }
}

void code_pixels(uint32_t* words, int kw, int, void* out) { code_prefix(words, kw, out); }

void gather(const Gather& g, uint32_t* words, void* out) {
  if (g.strips > 1) {
    gather_lines(g, words);
    code_prefix(words, g.kw, out);
    return;
  }
  // One line: coded as it is read.
  __m512i run[4] = {};
  uint32_t* to = static_cast<uint32_t*>(out);
  const int vectors = (g.pixel_count + 15) / 16;
  int k = 0;
  for (int t = 0; t < g.taps; ++t) {
    const uint32_t* from = g.planes + g.tap[t] + g.from[0];
    for (int w = 0; w < g.words32; ++w, ++k, from += g.word_stride, to += kBlock)
      for (int v = 0; v < 4; ++v) {
        if (v < vectors) run[v] = _mm512_xor_si512(run[v], _mm512_loadu_si512(from + 16 * v));
        _mm512_store_si512(to + 16 * v, run[v]);
      }
  }
  for (; k < g.kw; ++k, to += kBlock)
    for (int v = 0; v < 4; ++v) _mm512_store_si512(to + 16 * v, run[v]);
}

// R rows by V vectors. A sink says what becomes of the distances: of(lane) gives what the rows
// share, at(row) what the vectors of a row share, put(both, first lane, distances) takes each.
// Sinks hold copies of what they need: fields of a Block would be read again after every store.
template <int R, int V, class Sink>
__attribute__((always_inline)) inline void tile(const uint8_t* lanes, const uint8_t* rows, int kw, int row, int lane,
                 const Sink& sink) {
  __m512i d[R * V];
  prefix_tile(lanes + 4 * lane, rows + 4 * row, kw, d, Shape<R, V>());
  decltype(sink.of(0)) of[V];
  for (int v = 0; v < V; ++v) of[v] = sink.of(lane + 16 * v);
  for (int r = 0; r < R; ++r) {
    const auto at = sink.at(row + r);
    for (int v = 0; v < V; ++v) sink.put(of[v], at, lane + 16 * v, d[r * V + v]);
  }
}

template <class Sink>
inline void product(const uint8_t* lanes, const uint8_t* rows, int kw, int lane_count,
                    int row_count, const Sink sink) {
  if (row_count == 1) {
    tile<1, 4>(lanes, rows, kw, 0, 0, sink);
    return;
  }
  // Fives, and as many fours as leave nothing, where there are so many rows.
  int fours = 4 * row_count % 5;
  if (4 * fours > row_count) fours = row_count % 5 / 4;
  const int fives = (row_count - 4 * fours) / 5;
  for (int lane = 0; lane < lane_count; lane += 32) {
    int row = 0;
    for (int i = 0; i < fives; ++i, row += 5) tile<5, 2>(lanes, rows, kw, row, lane, sink);
    for (int i = 0; i < fours; ++i, row += 4) tile<4, 2>(lanes, rows, kw, row, lane, sink);
    switch (row_count - row) {
      case 3:
        tile<3, 2>(lanes, rows, kw, row, lane, sink);
        break;
      case 2:
        tile<2, 2>(lanes, rows, kw, row, lane, sink);
        break;
      case 1:
        tile<1, 2>(lanes, rows, kw, row, lane, sink);
        break;
    }
  }
}

inline __m512i value(__m512i base, __m512i d) {
  return _mm512_sub_epi32(base, _mm512_add_epi32(d, d));
}

// The steps that run on registers: [relu] affine [residual].
struct Fused {
  bool relu, residual, found;
};

Fused fused_steps(const Block& b) {
  Fused f = {false, false, false};
  int i = 0;
  if (i < b.step_count && b.steps[i] == kRelu) f.relu = true, ++i;
  if (i >= b.step_count || b.steps[i] != kAffine) return f;
  ++i;
  if (i < b.step_count && b.steps[i] == kResidual) f.residual = true, ++i;
  f.found = i == b.step_count;
  return f;
}

// The first `count` of 64 lanes. Masked stores take longer, and most panels are full.
struct Masks {
  __mmask16 of[4];
  bool full;
  explicit Masks(int count) : full(count == kBlock) {
    for (int v = 0; v < 4; ++v) of[v] = first_16(count - 16 * v);
  }
  __m512 load(const float* from, int lane) const {
    return full ? _mm512_loadu_ps(from) : _mm512_maskz_loadu_ps(of[lane / 16], from);
  }
  void store(float* to, int lane, __m512 y) const {
    if (full)
      _mm512_storeu_ps(to, y);
    else
      _mm512_mask_storeu_ps(to, of[lane / 16], y);
  }
};

// Filters in lanes: sums of each pixel.
struct Sums {
  const int32_t* base;
  ptrdiff_t base_stride;
  const uint16_t* class_of;
  const int32_t* of(int p) const { return base + class_of[p] * base_stride; }
};

// Filters in lanes, floats channels last.
template <bool kReluFirst, bool kResidual, bool kSigns>
struct FloatsLast {
  Sums sums;
  float* out;
  ptrdiff_t out_pixel;
  const float *scale, *bias, *residual;
  ptrdiff_t residual_pixel;
  const int64_t* bit_offset;
  uint64_t* bits;
  const float* below;
  Masks masks;

  struct At {
    const int32_t* base;
    float* out;
    const float* residual;
    uint16_t* bits;
  };
  At at(int p) const {
    return {sums.of(p), out + p * out_pixel, kResidual ? residual + p * residual_pixel : nullptr,
            kSigns ? reinterpret_cast<uint16_t*>(bits + bit_offset[p]) : nullptr};
  }
  struct Of {
    __m512 scale, bias, below;
  };
  Of of(int f) const {
    return {_mm512_loadu_ps(scale + f), _mm512_loadu_ps(bias + f),
            kSigns ? _mm512_loadu_ps(below + f) : _mm512_setzero_ps()};
  }
  void put(const Of& o, const At& a, int f, __m512i d) const {
    __m512 y = _mm512_cvtepi32_ps(value(_mm512_loadu_si512(a.base + f), d));
    if (kReluFirst) y = _mm512_max_ps(_mm512_setzero_ps(), y);
    y = _mm512_fmadd_ps(y, o.scale, o.bias);
    if (kResidual) y = _mm512_add_ps(y, masks.load(a.residual + f, f));
    masks.store(a.out + f, f, y);
    if (kSigns)
      a.bits[f / 16] = _mm512_mask_cmp_ps_mask(masks.of[f / 16], y, o.below, _CMP_LT_OQ);
  }
};

template <bool kReluFirst, bool kResidual, bool kSigns>
void block_last(const Block& b) {
  if (kSigns && b.filter_count <= 32)
    for (int p = 0; p < b.pixel_count; ++p) b.bits[b.bit_offset[p]] = 0;
  const FloatsLast<kReluFirst, kResidual, kSigns> sink = {
      {b.base, b.base_stride, b.class_of}, static_cast<float*>(b.result), b.pixel_stride,
      b.params, b.params + b.param_stride, b.residual, b.residual_pixel,
      b.bit_offset, b.bits, b.sign_below, Masks(b.filter_count)};
  product(b.filters, b.pixels, b.kw, b.filter_count, b.pixel_count, sink);
}

// Filters in lanes, packed signs of V.
struct BitsOfSums {
  Sums sums;
  const int64_t* bit_offset;
  uint64_t* bits;
  const int32_t* threshold;
  uint64_t flip;
  Masks masks;

  struct At {
    const int32_t* base;
    uint16_t* bits;
  };
  At at(int p) const {
    return {sums.of(p), reinterpret_cast<uint16_t*>(bits + bit_offset[p])};
  }
  __m512i of(int f) const { return _mm512_loadu_si512(threshold + f); }
  void put(__m512i edge, const At& a, int f, __m512i d) const {
    const __mmask16 mask = masks.of[f / 16];
    const __mmask16 below =
        _mm512_mask_cmplt_epi32_mask(mask, value(_mm512_loadu_si512(a.base + f), d), edge);
    a.bits[f / 16] = static_cast<uint16_t>(below ^ (static_cast<uint16_t>(flip >> f) & mask));
  }
};

void block_bits(const Block& b) {
  if (b.filter_count <= 32)
    for (int p = 0; p < b.pixel_count; ++p) b.bits[b.bit_offset[p]] = 0;
  const BitsOfSums sink = {{b.base, b.base_stride, b.class_of}, b.bit_offset, b.bits, b.threshold,
                           b.flip, Masks(b.filter_count)};
  product(b.filters, b.pixels, b.kw, b.filter_count, b.pixel_count, sink);
}

// Filters in lanes, V channels last.
struct IntsLast {
  Sums sums;
  int32_t* out;
  ptrdiff_t out_pixel;
  Masks masks;

  struct At {
    const int32_t* base;
    int32_t* out;
  };
  At at(int p) const { return {sums.of(p), out + p * out_pixel}; }
  int of(int) const { return 0; }  // nothing
  void put(int, const At& a, int f, __m512i d) const {
    _mm512_mask_storeu_epi32(a.out + f, masks.of[f / 16],
                             value(_mm512_loadu_si512(a.base + f), d));
  }
};

void block_int(const Block& b) {
  const IntsLast sink = {{b.base, b.base_stride, b.class_of}, static_cast<int32_t*>(b.result),
                         b.pixel_stride, Masks(b.filter_count)};
  product(b.filters, b.pixels, b.kw, b.filter_count, b.pixel_count, sink);
}

// Pixels in lanes, floats by planes.
template <bool kReluFirst, bool kResidual>
struct FloatsPlanes {
  const int32_t* classes;  // [64 filters][16]
  __m512i class_of[4];
  float* out;
  ptrdiff_t stride;
  const float *scale, *bias, *residual;
  Masks masks;

  struct At {
    __m512i base;
    float* out;
    const float* residual;
    __m512 scale, bias;
  };
  At at(int f) const {
    return {_mm512_loadu_si512(classes + 16 * f), out + f * stride,
            kResidual ? residual + f * stride : nullptr, _mm512_set1_ps(scale[f]),
            _mm512_set1_ps(bias[f])};
  }
  __m512i of(int p) const { return class_of[p / 16]; }
  void put(__m512i classes_of, const At& a, int p, __m512i d) const {
    const __m512i base = _mm512_permutexvar_epi32(classes_of, a.base);
    __m512 y = _mm512_cvtepi32_ps(value(base, d));
    if (kReluFirst) y = _mm512_max_ps(_mm512_setzero_ps(), y);
    y = _mm512_fmadd_ps(y, a.scale, a.bias);
    if (kResidual) y = _mm512_add_ps(y, masks.load(a.residual + p, p));
    masks.store(a.out + p, p, y);
  }
};

template <bool kReluFirst, bool kResidual>
void block_planes(const Block& b) {
  FloatsPlanes<kReluFirst, kResidual> sink = {
      b.base_by_filter, {}, static_cast<float*>(b.result), b.filter_stride,
      b.params, b.params + b.param_stride,
      b.residual, Masks(b.pixel_count)};
  for (int v = 0; v < 4; ++v)
    sink.class_of[v] = _mm512_cvtepu16_epi32(
        _mm256_maskz_loadu_epi16(sink.masks.of[v], b.class_of + 16 * v));
  product(b.pixels, b.filters, b.kw, b.pixel_count, b.filter_count, sink);
}

struct Tile {
  int32_t* to;
  __m128i shift;
  bool add;
  int32_t* at(int p) const { return to + p * kBlock; }
  int of(int) const { return 0; }  // nothing
  void put(int, int32_t* row, int f, __m512i d) const {
    d = _mm512_sll_epi32(d, shift);
    if (add) d = _mm512_add_epi32(d, _mm512_loadu_si512(row + f));
    _mm512_storeu_si512(row + f, d);
  }
};

void distances(const uint8_t* filters, const uint8_t* pixels, int kw, int pixel_count,
               int filter_count, int shift, bool add, int32_t* to) {
  product(filters, pixels, kw, filter_count, pixel_count,
          Tile{to, _mm_cvtsi32_si128(shift), add});
}

using BlockFunction = void (*)(const Block&);

void block(const Block& b) {
  const bool single = b.planes_w * b.planes_x == 1, last = b.filter_stride == 1;
  if (single && b.out == Out::kBits) return block_bits(b);
  if (single && b.out == Out::kInt && last) return block_int(b);
  if (single && (b.out == Out::kFloat || b.out == Out::kBoth)) {
    const Fused f = fused_steps(b);
    const bool signs = b.out == Out::kBoth;
    if (f.found && last && (!f.residual || b.residual_filter == 1)) {
      static const BlockFunction table[2][2][2] = {
          {{block_last<false, false, false>, block_last<false, false, true>},
           {block_last<false, true, false>, block_last<false, true, true>}},
          {{block_last<true, false, false>, block_last<true, false, true>},
           {block_last<true, true, false>, block_last<true, true, true>}}};
      return table[f.relu][f.residual][signs](b);
    }
    // Pixels fill lanes 32 at a time; where many stay empty, a transposition costs less.
    const bool fills = 32 * 85 * ((b.pixel_count + 31) / 32) <= 100 * b.pixel_count;
    if (f.found && !last && !signs && b.base_by_filter && fills &&
        (!f.residual || b.residual_filter == b.filter_stride)) {
      static const BlockFunction table[2][2] = {
          {block_planes<false, false>, block_planes<false, true>},
          {block_planes<true, false>, block_planes<true, true>}};
      return table[f.relu][f.residual](b);
    }
  }
  each_plane(b, distances);
  Epilogue<Avx512>::finish(b, b.scratch);
}

uint64_t below64(const float* x, const float* t, int count) {
  uint64_t word = 0;
  for (int v = 0; 16 * v < count; ++v) {
    const __mmask16 mask = first_16(count - 16 * v);
    const __m512 edge = t ? _mm512_maskz_loadu_ps(mask, t + 16 * v) : _mm512_setzero_ps();
    const __m512 y = _mm512_maskz_loadu_ps(mask, x + 16 * v);
    word |= uint64_t(_mm512_mask_cmp_ps_mask(mask, y, edge, _CMP_LT_OQ)) << (16 * v);
  }
  return word;
}

void pack_last(const float* x, ptrdiff_t pixel_stride, int64_t pixels, int channels,
               const float* t, uint64_t* out, ptrdiff_t word_stride, ptrdiff_t pixel_out) {
  for (int64_t p = 0; p < pixels; ++p, x += pixel_stride, out += pixel_out) {
    uint64_t* to = out;
    int c = 0;
    for (; c + 64 <= channels; c += 64, to += word_stride) {
      // Two kilobytes ahead: a tenth faster from the third cache, no slower elsewhere.
      for (int v = 0; v < 64; v += 16) __builtin_prefetch(x + c + v + 512);
      *to = below64(x + c, t ? t + c : t, 64);
    }
    if (c < channels) *to = below64(x + c, t ? t + c : t, channels - c);
  }
}

// Up to 16 * V pixels of up to 64 channels: words by lanes, a bit for each channel.
template <int V>
void pack_planes64(const float* x, ptrdiff_t channel_stride, int n, int channels, const float* t,
                   uint64_t* out, ptrdiff_t pixel_out) {
  __m512i bits[2][V] = {};
  for (int half = 0; 32 * half < channels; ++half) {
    __m512i sum[V] = {}, place = _mm512_set1_epi32(1);
    const int end = channels - 32 * half < 32 ? channels - 32 * half : 32;
    for (int c = 32 * half; c < 32 * half + end; ++c) {
      const float* from = x + c * channel_stride;
      const __m512 edge = _mm512_set1_ps(t ? t[c] : 0.0f);
      for (int v = 0; v < V; ++v) {
        const __mmask16 mask = first_16(n - 16 * v);
        const __m512 y = n == 16 * V ? _mm512_loadu_ps(from + 16 * v)
                                     : _mm512_maskz_loadu_ps(mask, from + 16 * v);
        const __mmask16 below = _mm512_mask_cmp_ps_mask(mask, y, edge, _CMP_LT_OQ);
        sum[v] = _mm512_mask_or_epi32(sum[v], below, sum[v], place);
      }
      place = _mm512_add_epi32(place, place);
    }
    for (int v = 0; v < V; ++v) bits[half][v] = sum[v];
  }
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
  for (int v = 0; v < V && 16 * v < n; ++v) {
    alignas(64) uint64_t words[16];
    _mm512_store_si512(words, _mm512_permutex2var_epi32(bits[0][v], low, bits[1][v]));
    _mm512_store_si512(words + 8, _mm512_permutex2var_epi32(bits[0][v], high, bits[1][v]));
    const int count = n - 16 * v < 16 ? n - 16 * v : 16;
    for (int j = 0; j < count; ++j) out[(16 * v + j) * pixel_out] = words[j];
  }
}

void pack_planes(const float* x, ptrdiff_t channel_stride, int64_t pixels, int channels,
                 const float* t, uint64_t* out, ptrdiff_t word_stride, ptrdiff_t pixel_out) {
  for (int c = 0; c < channels; c += 64, out += word_stride) {
    const int count = channels - c < 64 ? channels - c : 64;
    const float *from = x + c * channel_stride, *edges = t ? t + c : t;
    int64_t p = 0;
    // A kilobyte of each channel at a time, where there is so much: prefetchers follow that.
    for (; p + 256 <= pixels; p += 256)
      pack_planes64<16>(from + p, channel_stride, 256, count, edges, out + p * pixel_out, pixel_out);
    for (; p < pixels; p += 64)
      pack_planes64<4>(from + p, channel_stride, pixels - p < 64 ? static_cast<int>(pixels - p) : 64,
                       count, edges, out + p * pixel_out, pixel_out);
  }
}

void pack(const float* x, ptrdiff_t pixel_stride, ptrdiff_t channel_stride, int64_t pixels,
          int channels, const float* t, uint64_t* out, ptrdiff_t word_stride,
          ptrdiff_t pixel_out) {
  if (channel_stride == 1)
    pack_last(x, pixel_stride, pixels, channels, t, out, word_stride, pixel_out);
  else if (pixel_stride == 1)
    pack_planes(x, channel_stride, pixels, channels, t, out, word_stride, pixel_out);
  else
    pack_plain(x, pixel_stride, channel_stride, pixels, channels, t, out, word_stride, pixel_out);
}

bool supported() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx2") &&
         __builtin_cpu_supports("fma");
}

}  // namespace

extern const Core kAvx512Vpopcntdq;
const Core kAvx512Vpopcntdq = {
    "avx512_vpopcntdq", supported, 4 * kBlock, 4 * kBlock, code_prefix, code_pixels,
    block,              pack,      unpack_words, gather};

}  // namespace lowbit
