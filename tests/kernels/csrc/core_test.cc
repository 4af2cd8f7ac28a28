// Every core of kCores that this machine has, against loops written from core.h alone.
//
//   core_test [--quick] [name]   all cores, or one; --list names those compiled in
//
// Exits 0, 1 at the first difference (it says which case), 2 where the named core is not supported.
// What is read lies against pages that may not be touched, unaligned where core.h promises no
// alignment; what is written lies in a buffer that is compared as a whole.
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "core.h"

namespace {

using namespace lowbit;

char about[1024];  // the case that runs

void describe(const char* format, ...) {
  va_list list;
  va_start(list, format);
  vsnprintf(about, sizeof(about), format, list);
  va_end(list);
}

[[noreturn]] void fail(const char* format, ...) {
  va_list list;
  va_start(list, format);
  printf("FAILED %s\n  ", about);
  vprintf(format, list);
  printf("\n");
  va_end(list);
  exit(1);
}

void on_signal(int number) {
  const char* what =
      number == SIGILL ? "\n  illegal instruction\n" : "\n  touched what it may not\n";
  (void)!write(1, "FAILED ", 7);
  (void)!write(1, about, strlen(about));
  (void)!write(1, what, strlen(what));
  _exit(1);
}

// splitmix64: Steele, Lea and Flood 2014.
struct Random {
  uint64_t state;
  uint64_t next() {
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
  int from(int low, int high) {  // both included
    return low + static_cast<int>(next() % (static_cast<uint64_t>(high) - low + 1));
  }
  bool one_in(int n) { return from(1, n) == 1; }
  float real() { return static_cast<float>(from(-4096, 4096)) / 64; }
  float any_float() {
    const float inf = std::numeric_limits<float>::infinity();
    const float odd[] = {0.0f, -0.0f, inf, -inf, std::numeric_limits<float>::quiet_NaN(),
                         -std::numeric_limits<float>::quiet_NaN(), 1e-42f, -1e-42f, 1.0f, -1.0f};
    return one_in(4) ? odd[from(0, 9)] : real();
  }
  template <class T>
  void shuffle(std::vector<T>* v) {
    for (size_t i = v->size(); i > 1; --i) std::swap((*v)[i - 1], (*v)[next() % i]);
  }
};

// Memory between two pages that may not be touched.
class Fence {
 public:
  explicit Fence(size_t bytes) {
    page_ = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    size_ = (bytes + page_ - 1) / page_ * page_;
    void* all = mmap(nullptr, size_ + 2 * page_, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) abort();
    memory_ = static_cast<char*>(all) + page_;
    if (mprotect(all, page_, PROT_NONE) || mprotect(memory_ + size_, page_, PROT_NONE)) abort();
  }
  ~Fence() { munmap(memory_ - page_, size_ + 2 * page_); }
  Fence(const Fence&) = delete;

  // Room for n elements at the end, at the start, or a few elements before the end.
  template <class T>
  T* place(size_t n, Random* random, size_t align = sizeof(T)) {
    const size_t bytes = n * sizeof(T);
    if (bytes + 64 > size_) abort();
    const int where = random->from(0, 2);
    size_t at = where == 0 ? 0 : size_ - bytes;
    if (where == 2) at -= sizeof(T) * random->from(1, static_cast<int>(64 / sizeof(T)));
    return reinterpret_cast<T*>(memory_ + at / align * align);
  }
  template <class T>
  T* place(const std::vector<T>& v, Random* random) {
    T* at = place<T>(v.size(), random);
    if (!v.empty()) memcpy(at, v.data(), v.size() * sizeof(T));
    return at;
  }
  template <class T>
  T* beyond() {  // not readable
    return reinterpret_cast<T*>(memory_ + size_);
  }

 private:
  size_t page_, size_;
  char* memory_;
};

// What is written: compared as a whole with what should be there.
template <class T>
struct Written {
  static constexpr int kMargin = 128;
  std::vector<T> is, should;
  explicit Written(size_t n) : is(n + 2 * kMargin), should() {
    memset(static_cast<void*>(is.data()), 0xa7, is.size() * sizeof(T));
    should = is;
  }
  T* data() { return is.data() + kMargin; }
  T& expect(ptrdiff_t i) { return should[kMargin + i]; }
  void check(const char* what) const {
    for (size_t i = 0; i < is.size(); ++i)
      if (memcmp(&is[i], &should[i], sizeof(T)) != 0 && !both_nan(is[i], should[i]))
        fail("%s[%td] is %.9g (%016llx), not %.9g (%016llx)", what, ptrdiff_t(i) - kMargin,
             double(is[i]), bits(is[i]), double(should[i]), bits(should[i]));
  }
  static bool both_nan(float a, float b) { return a != a && b != b; }
  static bool both_nan(uint64_t, uint64_t) { return false; }
  static bool both_nan(uint32_t, uint32_t) { return false; }
  static bool both_nan(int32_t, int32_t) { return false; }
  static unsigned long long bits(T v) {
    unsigned long long b = 0;
    memcpy(&b, &v, sizeof(T));
    return b;
  }
};

struct Fences {
  Fence words{5 << 20}, filters{40 << 20}, pixels{40 << 20}, base{1 << 16}, classes{4096},
      params{1 << 16}, residual{1 << 20}, taps{4096},
      bit_offsets{4096}, thresholds{4096}, below{4096}, by_filter{1 << 16},
      scratch{3 * kBlock * kBlock * 4}, x{1 << 20};
};

struct BlockCase {
  int kw, bits, pixels, filters, planes_x, planes_w;
  Out out;
  bool filters_last;  // filter_stride 1
  enum Fill { kRandom, kEqual, kDifferent, kSparse } fill;
  int steps;  // -1: drawn
};

// Words [kw][64] of `columns` columns of `bits` bits.
std::vector<uint32_t> draw_words(const BlockCase& c, int columns, Random* random, bool negative) {
  std::vector<uint32_t> words(size_t(c.kw) * kBlock);
  for (int k = 0; k < c.kw; ++k)
    for (int i = 0; i < columns; ++i) {
      const int left = c.bits - 32 * k;
      const uint32_t mask = left >= 32 ? ~0u : left <= 0 ? 0 : (1u << left) - 1;
      uint32_t word = static_cast<uint32_t>(random->next());
      if (c.fill == BlockCase::kEqual) word = 0x5a5a1234u * (k + 1);
      if (c.fill == BlockCase::kDifferent) word = negative ? ~0u : 0;
      if (c.fill == BlockCase::kSparse) word = random->one_in(8) ? 1u << random->from(0, 31) : 0;
      words[size_t(k) * kBlock + i] = word & mask;
    }
  return words;
}

int count_ones(uint32_t v) {
  int n = 0;
  for (; v; v &= v - 1) ++n;
  return n;
}

float naive_step(Step step, float y, const float* row, ptrdiff_t stride, float residual) {
  switch (step) {
    case kAffine: return std::fma(y, row[0], row[stride]);
    case kRelu: return y < 0 ? 0 : y;
    case kResidual: return y + residual;
    case kPrelu: return y >= 0 ? y : row[0] * y;
    case kShift: return y + row[0];
    case kHardtanh: return y < -1 ? -1 : y > 1 ? 1 : y;
  }
  abort();
}

int rows_of(Step step) {
  return step == kAffine ? 2 : step == kPrelu || step == kShift ? 1 : 0;
}

// Elements (p, f) of a result or a residual: at before + p * pixel + f * filter.
struct Layout {
  ptrdiff_t before, pixel, filter;
  size_t size;
  size_t at(int p, int f) const { return before + p * pixel + f * filter; }
};

Layout draw_layout(int pixels, int filters, bool filters_last, Random* random) {
  Layout l;
  l.before = random->from(0, 5);
  l.pixel = filters_last ? filters + random->from(0, 3) : 1;
  l.filter = filters_last ? 1 : pixels + 1 + random->from(0, 9);
  l.size = l.at(pixels - 1, filters - 1) + 1;
  return l;
}

void test_block(const Core& core, const BlockCase& c, uint64_t seed, Fences* fences) {
  Random random{seed};
  describe("%s block seed %llu: kw %d bits %d pixels %d filters %d planes %dx%d out %d %s fill %d",
           core.name, static_cast<unsigned long long>(seed), c.kw, c.bits, c.pixels, c.filters,
           c.planes_x, c.planes_w, int(c.out), c.filters_last ? "filters last" : "by planes",
           int(c.fill));
  Block b;
  memset(static_cast<void*>(&b), 0, sizeof(b));
  b.kw = c.kw;
  b.pixel_count = c.pixels;
  b.filter_count = c.filters;
  b.planes_x = c.planes_x;
  b.planes_w = c.planes_w;
  b.out = c.out;

  // Codes, and the distances that they stand for.
  const size_t filter_bytes = size_t(core.filter_bytes) * c.kw;
  const size_t pixel_bytes = size_t(core.pixel_bytes) * c.kw;
  b.filter_plane = (filter_bytes + 63) / 64 * 64 + 64 * random.from(0, 2);
  b.pixel_plane = (pixel_bytes + 63) / 64 * 64 + 64 * random.from(0, 2);
  uint8_t* filters = fences->filters.place<uint8_t>(
      b.filter_plane * (c.planes_w - 1) + filter_bytes, &random, 64);
  uint8_t* pixels = fences->pixels.place<uint8_t>(
      b.pixel_plane * (c.planes_x - 1) + pixel_bytes, &random, 64);
  std::vector<std::vector<uint32_t>> w(c.planes_w), x(c.planes_x);
  for (int i = 0; i < c.planes_w; ++i) {
    w[i] = draw_words(c, c.filters, &random, false);
    core.code_filters(fences->words.place(w[i], &random), c.kw, filters + i * b.filter_plane);
    b.shift_w[i] = static_cast<int8_t>(random.one_in(2) ? i : 0);
  }
  for (int j = 0; j < c.planes_x; ++j) {
    x[j] = draw_words(c, c.pixels, &random, true);
    uint8_t* to = pixels + j * b.pixel_plane;
    uint32_t* from = fences->words.place(x[j], &random);
    if (random.one_in(2)) {  // in place
      from = reinterpret_cast<uint32_t*>(to);
      memcpy(to, x[j].data(), x[j].size() * sizeof(uint32_t));
    }
    core.code_pixels(from, c.kw, c.pixels, to);
    b.shift_x[j] = static_cast<int8_t>(random.one_in(2) ? j : 0);
  }
  b.filters = filters;
  b.pixels = pixels;
  std::vector<int32_t> v(size_t(c.pixels) * c.filters);
  for (int p = 0; p < c.pixels; ++p)
    for (int f = 0; f < c.filters; ++f) {
      int32_t d = 0;
      for (int i = 0; i < c.planes_w; ++i)
        for (int j = 0; j < c.planes_x; ++j) {
          int32_t differ = 0;
          for (int k = 0; k < c.kw; ++k)
            differ += count_ones(x[j][size_t(k) * kBlock + p] ^ w[i][size_t(k) * kBlock + f]);
          d += differ << (b.shift_w[i] + b.shift_x[j]);
        }
      v[p * c.filters + f] = -2 * d;
    }

  // Bases by class.
  const int classes = random.one_in(2) ? 1 : random.from(2, 16);
  b.base_stride = kBlock + random.from(0, 5);
  std::vector<int32_t> base(size_t(classes - 1) * b.base_stride + kBlock);
  for (int32_t& value : base) value = random.from(-5000, 5000) + 16 * c.kw;
  std::vector<uint16_t> class_of(c.pixels);
  for (uint16_t& of : class_of) of = static_cast<uint16_t>(random.from(0, classes - 1));
  b.base = fences->base.place(base, &random);
  b.class_of = fences->classes.place(class_of, &random);
  if (!c.filters_last && random.one_in(2)) {
    std::vector<int32_t> by_filter(16 * kBlock, 1 << 20);
    for (int f = 0; f < kBlock; ++f)
      for (int i = 0; i < classes; ++i) by_filter[16 * f + i] = base[i * b.base_stride + f];
    b.base_by_filter = fences->by_filter.place(by_filter, &random);
  }
  for (int p = 0; p < c.pixels; ++p)
    for (int f = 0; f < c.filters; ++f)
      v[p * c.filters + f] += base[class_of[p] * b.base_stride + f];

  // Where results go.
  const Layout to = draw_layout(c.pixels, c.filters, c.filters_last, &random);
  b.pixel_stride = to.pixel;
  b.filter_stride = to.filter;
  Written<int32_t> ints(c.out == Out::kInt ? to.size : 0);
  const bool floats = c.out == Out::kFloat || c.out == Out::kBoth;
  Written<float> reals(floats ? to.size : 0);
  const bool packed = c.out == Out::kBits || c.out == Out::kBoth;
  Written<uint64_t> signs(packed ? 3 * c.pixels : 0);
  std::vector<int64_t> bit_offset;
  for (int p = 0; p < c.pixels; ++p) bit_offset.push_back(3 * p);
  if (random.one_in(2)) random.shuffle(&bit_offset);
  if (packed) {
    b.bits = signs.data();
    b.bit_offset = fences->bit_offsets.place(bit_offset, &random);
    for (int p = 0; p < c.pixels; ++p) signs.expect(bit_offset[p]) = 0;
  }

  if (c.out == Out::kInt) {
    b.result = ints.data() + to.before;
    for (int p = 0; p < c.pixels; ++p)
      for (int f = 0; f < c.filters; ++f)
        ints.expect(to.at(p, f)) = v[p * c.filters + f];
  }
  if (c.out == Out::kBits) {
    std::vector<int32_t> threshold(kBlock);
    for (int f = 0; f < kBlock; ++f)
      threshold[f] = v[random.from(0, c.pixels - 1) * c.filters + f % c.filters] +
                     random.from(-1, 1);
    b.threshold = fences->thresholds.place(threshold, &random);
    b.flip = random.next();
    for (int p = 0; p < c.pixels; ++p)
      for (int f = 0; f < c.filters; ++f)
        if ((v[p * c.filters + f] < threshold[f]) != (b.flip >> f & 1))
          signs.expect(bit_offset[p]) |= uint64_t(1) << f;
  }
  if (floats) {
    b.result = reals.data() + to.before;
    const Step usual[][3] = {{kAffine}, {kRelu, kAffine}, {kAffine, kResidual},
                             {kRelu, kAffine, kResidual}};
    b.step_count = c.steps >= 0 ? c.steps : random.from(0, 6);
    bool with_residual = false;
    const int pick = random.from(0, 7);
    if (c.steps < 0 && pick < 4) {
      b.step_count = pick == 0 ? 1 : pick == 3 ? 3 : 2;
      for (int i = 0; i < b.step_count; ++i) b.steps[i] = usual[pick][i];
    } else {
      for (int i = 0; i < b.step_count; ++i) b.steps[i] = static_cast<Step>(random.from(1, 6));
    }
    int rows = 0;
    for (int i = 0; i < b.step_count; ++i) {
      rows += rows_of(b.steps[i]);
      with_residual |= b.steps[i] == kResidual;
    }
    b.param_stride = kBlock + random.from(0, 3);
    std::vector<float> params(rows ? (rows - 1) * b.param_stride + kBlock : 0);
    const bool zeros = random.one_in(8);  // of either sign, to be told apart by every step
    for (float& value : params) {
      value = random.one_in(16) ? random.any_float() : random.real();
      if (zeros && random.one_in(2)) value = random.one_in(2) ? 0.0f : -0.0f;
    }
    if (rows) b.params = fences->params.place(params, &random);
    Layout from = {};
    std::vector<float> residual;
    if (with_residual) {
      from = draw_layout(c.pixels, c.filters, random.one_in(3) ? !c.filters_last : c.filters_last,
                         &random);
      if (!c.filters_last && from.filter != 1 && random.one_in(2)) from = to;
      residual.resize(from.size);
      for (float& value : residual) value = random.any_float();
      b.residual = fences->residual.place(residual, &random) + from.before;
      b.residual_pixel = from.pixel;
      b.residual_filter = from.filter;
    }
    std::vector<float> y(v.size());
    for (int p = 0; p < c.pixels; ++p)
      for (int f = 0; f < c.filters; ++f) {
        float value = static_cast<float>(v[p * c.filters + f]);
        const float* row = params.data() + (rows ? f : 0);
        for (int i = 0; i < b.step_count; ++i) {
          const float add = with_residual ? residual[from.at(p, f)] : 0;
          value = naive_step(b.steps[i], value, row, b.param_stride, add);
          if (rows_of(b.steps[i])) row += rows_of(b.steps[i]) * b.param_stride;
        }
        y[p * c.filters + f] = value;
        reals.expect(to.at(p, f)) = value;
      }
    if (c.out == Out::kBoth) {
      std::vector<float> below(kBlock);
      for (int f = 0; f < kBlock; ++f)
        below[f] = random.one_in(2)
                       ? y[random.from(0, c.pixels - 1) * c.filters + f % c.filters]
                       : random.any_float();
      b.sign_below = fences->below.place(below, &random);
      for (int p = 0; p < c.pixels; ++p)
        for (int f = 0; f < c.filters; ++f)
          if (y[p * c.filters + f] < below[f])
            signs.expect(bit_offset[p]) |= uint64_t(1) << f;
    }
  }
  b.scratch = fences->scratch.place<int32_t>(2 * kBlock * kBlock, &random, 64);
  memset(b.scratch, 0x7b, 2 * kBlock * kBlock * sizeof(int32_t));

  core.block(b);
  ints.check("result");
  reals.check("result");
  signs.check("bits");
}

void test_unpack(const Core& core, uint64_t seed, Fences* fences) {
  Random random{seed};
  const int64_t count = random.from(0, 100);
  const ptrdiff_t step = random.from(1, 4);
  const bool both = random.one_in(2);
  describe("%s unpack seed %llu: count %d step %d %s", core.name,
           static_cast<unsigned long long>(seed), int(count), int(step), both ? "both" : "low");
  std::vector<uint64_t> words(count ? (count - 1) * step + 1 : 0);
  for (uint64_t& word : words) word = random.next();
  Written<uint32_t> low(count), high(both ? count : 0);
  for (int64_t i = 0; i < count; ++i) {
    low.expect(i) = static_cast<uint32_t>(words[i * step]);
    if (both) high.expect(i) = static_cast<uint32_t>(words[i * step] >> 32);
  }
  core.unpack(fences->x.place(words, &random), step, count, low.data(),
              both ? high.data() : nullptr);
  low.check("low");
  high.check("high");
}

void test_gather(const Core& core, uint64_t seed, Fences* fences) {
  Random random{seed};
  Gather g;
  memset(static_cast<void*>(&g), 0, sizeof(g));
  g.words32 = random.from(1, 6);
  g.taps = random.from(1, 9);
  int total = 0;
  while (total < kBlock && (g.strips == 0 || !random.one_in(6))) {
    const int i = g.strips++, count = random.from(1, random.one_in(2) ? 8 : kBlock);
    g.to[i] = static_cast<int16_t>(total);
    g.count[i] = static_cast<int16_t>(count < kBlock - total ? count : kBlock - total);
    g.from[i] = random.from(0, 300);
    total += g.count[i];
  }
  describe("%s gather seed %llu: words32 %d taps %d strips %d pixels %d", core.name,
           static_cast<unsigned long long>(seed), g.words32, g.taps, g.strips, total);
  std::vector<int32_t> tap(g.taps);
  int32_t furthest = 0, last = 0;
  for (int32_t& t : tap) {
    t = random.from(0, 50);
    if (t > furthest) furthest = t;
  }
  for (int i = 0; i < g.strips; ++i)
    if (g.from[i] + g.count[i] > last) last = g.from[i] + g.count[i];
  g.word_stride = furthest + last + random.from(0, 5);
  std::vector<uint32_t> planes(g.word_stride * (g.words32 - 1) + furthest + last + 16);
  for (uint32_t& word : planes) word = static_cast<uint32_t>(random.next());
  g.planes = fences->x.place(planes, &random);
  g.tap = fences->taps.place(tap, &random);
  const int rows = g.taps * g.words32;
  g.kw = (rows + 1) & ~1;
  g.pixel_count = total;
  // Words that no pixel has are 0 here and anything there: what matters is what a block gives.
  std::vector<uint32_t> plain((size_t(g.kw) + 1) * kBlock);
  for (int t = 0; t < g.taps; ++t)
    for (int w = 0; w < g.words32; ++w)
      for (int i = 0; i < g.strips; ++i)
        for (int j = 0; j < g.count[i]; ++j)
          plain[(t * g.words32 + w) * kBlock + g.to[i] + j] =
              planes[w * g.word_stride + tap[t] + g.from[i] + j];
  std::vector<uint32_t> filters(size_t(g.kw) * kBlock);
  for (uint32_t& word : filters) word = static_cast<uint32_t>(random.next());
  const auto aligned = [](size_t bytes) {
    return static_cast<uint8_t*>(aligned_alloc(64, (bytes + 63) & ~size_t(63)));
  };
  const size_t pixel_bytes = size_t(g.kw) * core.pixel_bytes + 64;
  uint8_t* panel = aligned(size_t(g.kw) * core.filter_bytes);
  uint8_t* wanted = aligned(pixel_bytes);
  uint8_t* found = aligned(pixel_bytes);
  uint8_t* words = aligned((size_t(g.kw) * kBlock + 16) * 4);
  const bool in_place = core.pixel_bytes == 4 * kBlock;
  core.code_filters(filters.data(), g.kw, panel);
  core.code_pixels(plain.data(), g.kw, total, wanted);
  core.gather(g, reinterpret_cast<uint32_t*>(in_place ? found : words), found);

  std::vector<int32_t> base(kBlock), sums[2];
  std::vector<uint16_t> class_of(kBlock);
  std::vector<int32_t> scratch(2 * kBlock * kBlock + 16);
  for (int which = 0; which < 2; ++which) {
    sums[which].resize(size_t(total) * kBlock);
    Block b = {};
    b.filters = panel;
    b.pixels = which ? found : wanted;
    b.planes_w = b.planes_x = 1;
    b.kw = g.kw;
    b.filter_count = kBlock;
    b.pixel_count = total;
    b.base = base.data();
    b.class_of = class_of.data();
    b.out = Out::kInt;
    b.result = sums[which].data();
    b.pixel_stride = kBlock;
    b.filter_stride = 1;
    b.scratch = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64) % 64 / 4;
    core.block(b);
  }
  if (sums[0] != sums[1]) fail("sums of gathered words");
  for (uint8_t* memory : {panel, wanted, found, words}) free(memory);
}

void test_pack(const Core& core, uint64_t seed, Fences* fences) {
  Random random{seed};
  const bool single = random.one_in(8);
  const int pixels = single && random.one_in(2) ? 1 : random.from(1, 150);
  const int channels = single && pixels > 1 ? 1 : random.from(1, 200);
  const bool channels_last = random.one_in(2);
  ptrdiff_t pixel_stride = channels_last ? channels + random.from(0, 5) : 1;
  ptrdiff_t channel_stride = channels_last ? 1 : pixels + random.from(0, 5);
  if (pixels == 1) channel_stride = random.from(1, 9), pixel_stride = random.from(0, 99);
  if (channels == 1) pixel_stride = random.from(1, 9), channel_stride = random.from(0, 99);
  const int words = (channels + 63) / 64;
  const bool bits_last = random.one_in(2);
  const ptrdiff_t word_stride = bits_last ? 1 : pixels + random.from(0, 3);
  const ptrdiff_t pixel_out = bits_last ? words + random.from(0, 3) : 1;
  const bool plain = random.one_in(3);
  describe("%s pack seed %llu: pixels %d channels %d strides %d %d out %d %d %s", core.name,
           static_cast<unsigned long long>(seed), pixels, channels, int(pixel_stride),
           int(channel_stride), int(pixel_out), int(word_stride), plain ? "at 0" : "at t");
  std::vector<float> t(channels);
  for (float& value : t) value = random.any_float();
  std::vector<float> x((pixels - 1) * pixel_stride + (channels - 1) * channel_stride + 1);
  for (float& value : x)
    value = random.one_in(4) ? t[random.from(0, channels - 1)] : random.any_float();
  Written<uint64_t> out((words - 1) * word_stride + (pixels - 1) * pixel_out + 1);
  for (int w = 0; w < words; ++w)
    for (int p = 0; p < pixels; ++p) out.expect(w * word_stride + p * pixel_out) = 0;
  for (int p = 0; p < pixels; ++p)
    for (int c = 0; c < channels; ++c)
      if (x[p * pixel_stride + c * channel_stride] < (plain ? 0 : t[c]))
        out.expect(c / 64 * word_stride + p * pixel_out) |= uint64_t(1) << (c % 64);
  core.pack(fences->x.place(x, &random), pixel_stride, channel_stride, pixels, channels,
            plain ? nullptr : fences->params.place(t, &random), out.data(), word_stride,
            pixel_out);
  out.check("out");
}

int test_blocks(const Core& core, bool quick, Fences* fences) {
  int cases = 0;
  const auto run = [&](BlockCase c) {
    test_block(core, c, 1000 + cases, fences);
    ++cases;
  };
  const Out outs[] = {Out::kInt, Out::kFloat, Out::kBits, Out::kBoth};
  Random random{7};
  // Every even depth in words, and odd depths in bits.
  for (int kw = 2; kw <= 288; kw += quick ? 26 : 2)
    run({kw, 32 * kw - random.from(0, 63), random.from(1, quick ? 9 : 64),
         random.from(1, quick ? 20 : 64), 1, 1, outs[kw / 2 % 4], random.one_in(2),
         BlockCase::kRandom, -1});
  for (int bits : {1, 31, 63, 64, 65, 255, 256, 257, 319, 511, 512, 513, 4608})
    for (bool last : {false, true})
      run({(bits + 63) / 64 * 2, bits, quick ? 5 : 33, quick ? 6 : 40, 1, 1, Out::kInt, last,
           BlockCase::kRandom, 0});
  // Deep enough for more than 16 bits of distance.
  for (int fill : {BlockCase::kDifferent, BlockCase::kEqual, BlockCase::kRandom})
    for (int filters : quick ? std::vector<int>{3} : std::vector<int>{3, 64})
      run({2188, 70000, quick ? 3 : 23, filters, 1, 1, Out::kInt, filters == 64,
           static_cast<BlockCase::Fill>(fill), 0});
  for (int fill : {BlockCase::kDifferent, BlockCase::kEqual, BlockCase::kSparse})
    for (int kw : {6, 12, 62, 64, 72})
      run({kw, 32 * kw, 7, 35, 1, 1, Out::kInt, true, static_cast<BlockCase::Fill>(fill), 0});
  // Every number of pixels and of filters, every kind of result, both layouts.
  for (int n = 1; n <= 64; ++n)
    for (Out out : outs)
      for (bool last : {false, true}) {
        if (quick && n % 3 && n > 9) continue;
        run({4, 100, n, random.from(1, 64), 1, 1, out, last, BlockCase::kRandom, -1});
        run({2, 64, random.from(1, 64), n, 1, 1, out, last, BlockCase::kRandom, -1});
      }
  for (int x = 1; x <= 4; ++x)
    for (int w = 1; w <= 4; ++w)
      for (Out out : outs)
        run({2 * random.from(1, 5), 70, random.from(1, 64), random.from(1, 64), x, w, out,
             random.one_in(2), BlockCase::kRandom, -1});
  for (int i = 0; i < (quick ? 100 : 1500); ++i) {
    const int kw = 2 * random.from(1, random.one_in(8) ? 40 : 6);
    run({kw, random.from(1, 32 * kw), random.from(1, 64), random.from(1, 64),
         random.one_in(6) ? random.from(1, 4) : 1, random.one_in(6) ? random.from(1, 4) : 1,
         outs[random.from(0, 3)], random.one_in(2),
         static_cast<BlockCase::Fill>(random.from(0, 3)), -1});
  }
  return cases;
}

void test_core(const Core& core, bool quick, Fences* fences) {
  const int blocks = test_blocks(core, quick, fences), others = quick ? 500 : 3000;
  for (int i = 0; i < others; ++i) test_unpack(core, 400000 + i, fences);
  for (int i = 0; i < others; ++i) test_gather(core, 200000 + i, fences);
  for (int i = 0; i < others; ++i) test_pack(core, 300000 + i, fences);
  printf("%s: %d blocks, %d each of unpack, gather and pack\n", core.name, blocks, others);
  fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  bool quick = false;
  const char* name = nullptr;
  for (int i = 1; i < argc; ++i) {
    if (!strcmp(argv[i], "--list")) {
      for (const Core* const* core = kCores; *core; ++core)
        printf("%s%s\n", (*core)->name, (*core)->supported() ? "" : " (not supported here)");
      return 0;
    }
    if (!strcmp(argv[i], "--quick"))
      quick = true;
    else
      name = argv[i];
  }
  signal(SIGSEGV, on_signal);
  signal(SIGBUS, on_signal);
  signal(SIGILL, on_signal);
  Fences fences;
  int tested = 0;
  for (const Core* const* core = kCores; *core; ++core) {
    if ((name && strcmp(name, (*core)->name)) || !(*core)->supported()) continue;
    test_core(**core, quick, &fences);
    ++tested;
  }
  if (name && !tested) {
    printf("%s: not compiled in, or not supported by this processor\n", name);
    return 2;
  }
  return 0;
}
