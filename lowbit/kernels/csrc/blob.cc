// Prepared weights: header, int32 sums [1 + taps][columns] (all taps, then each), coded panels
// [planes_w][groups * panels].
#include <cstring>

#include "blob.h"

namespace lowbit {

std::string check(const Geometry& g) {
  std::string wrong;
  const auto within = [&](const char* what, int64_t value, int64_t low, int64_t high) {
    if (wrong.empty() && (value < low || value > high))
      wrong = std::string(what) + " is " + std::to_string(value) + "; it must be " +
              std::to_string(low) + " to " + std::to_string(high);
  };
  const int64_t many = int64_t(1) << 30;
  within("channels", g.channels, 1, many);
  within("out_channels", g.out_channels, 1, many);
  within("groups", g.groups, 1, many);
  for (int i = 0; i < 3; ++i) {
    within("kernel", g.kernel[i], 1, 1 << 15);
    within("stride", g.stride[i], 1, many);
    within("dilation", g.dilation[i], 1, 1 << 20);
    within("padding", g.before[i], 0, 1 << 20);
    within("padding", g.after[i], 0, 1 << 20);
  }
  within("planes_x", g.planes_x, 1, kMaxPlanes);
  within("planes_w", g.planes_w, 1, kMaxPlanes);
  within("thermometer_x", g.thermometer_x, 0, 1);
  within("thermometer_w", g.thermometer_w, 0, 1);
  // Every sum, and twice what stands in for it on the way, stays within int32.
  const int64_t largest = (int64_t(1) << 29) - 1;
  within("offset", g.offset, -largest, largest);
  within("pad", g.pad, -largest, largest);
  if (!wrong.empty()) return wrong;
  if (g.channels % g.groups || g.out_channels % g.groups)
    return "groups is " + std::to_string(g.groups) + "; it must divide channels and out_channels";
  within("the number of taps", g.taps(), 1, 1 << 24);
  const auto magnitude = [](int64_t v) { return v < 0 ? -v : v; };
  const bool padded = g.before[0] || g.before[1] || g.before[2] || g.after[0] || g.after[1] || g.after[2];
  int64_t reach = g.reach_x() + magnitude(g.offset);
  if (padded && magnitude(g.pad) > reach) reach = magnitude(g.pad);
  const double sum = double(g.taps()) * double(g.group_channels()) * double(reach) * double(g.reach_w());
  if (wrong.empty() && sum > double(largest))
    return "sums reach " + (sum < 9e18 ? std::to_string(int64_t(sum)) : "2^63") +
           "; they must be at most " + std::to_string(largest);
  return wrong;
}

namespace {

constexpr char kMagic[8] = {'l', 'o', 'w', 'b', 'i', 't', '0', '1'};

size_t rounded(size_t bytes) { return (bytes + 63) & ~size_t(63); }

// What of the geometry the bytes depend on.
void fill_key(const Geometry& g, int64_t* key) {
  const int64_t values[] = {g.channels, g.out_channels, g.groups,   g.kernel[0],
                            g.kernel[1], g.kernel[2],   g.planes_w, g.thermometer_w};
  std::memcpy(key, values, sizeof(values));
}

struct Header {
  char magic[8];
  char core[24];
  int64_t key[8];
};
static_assert(sizeof(Header) <= 128, "the header has 128 bytes");

}  // namespace

Blob::Blob(const Core& core, const Geometry& g) {
  sums = 128;
  panels = sums + rounded((1 + g.taps()) * g.columns() * sizeof(int32_t));
  panel = rounded(size_t(g.depth_words()) * core.filter_bytes);
  plane = panel * g.groups * g.panels();
  size = panels + plane * g.planes_w;
}

size_t blob_size(const Core& core, const Geometry& g) { return Blob(core, g).size; }

void prepare(const Core& core, const Geometry& g, const uint64_t* words, uint8_t* blob) {
  const Blob at(core, g);
  std::memset(blob, 0, at.size);
  Header header = {};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  std::strncpy(header.core, core.name, sizeof(header.core) - 1);
  fill_key(g, header.key);
  std::memcpy(blob, &header, sizeof(header));

  int32_t* sums = reinterpret_cast<int32_t*>(blob + at.sums);
  const int64_t taps = g.taps(), w64 = g.words(), w32 = g.words32(), kw = g.depth_words();
  const int64_t columns = g.columns(), filters = g.group_filters(), panels = g.panels();
  uint32_t* raw = static_cast<uint32_t*>(scratch(0, kw * kBlock * sizeof(uint32_t)));
  for (int64_t plane = 0; plane < g.planes_w; ++plane) {
    const int32_t weight = g.thermometer_w ? 1 : 1 << plane;
    for (int64_t panel = 0; panel < g.groups * panels; ++panel) {
      const int64_t group = panel / panels, first = panel % panels * kBlock;
      std::memset(raw, 0, kw * kBlock * sizeof(uint32_t));
      for (int64_t f = 0; f < kBlock && first + f < filters; ++f) {
        const int64_t filter = group * filters + first + f, column = panel * kBlock + f;
        const uint64_t* from = words + (plane * g.out_channels + filter) * taps * w64;
        for (int64_t t = 0; t < taps; ++t) {
          int64_t negative = 0;
          for (int64_t w = 0; w < w64; ++w) {
            uint64_t word = from[t * w64 + w];
            // Bits past the end must be 0: in the input they are, and equal bits do not differ.
            if (w == w64 - 1 && g.group_channels() % 64)
              word &= (uint64_t(1) << (g.group_channels() % 64)) - 1;
            negative += __builtin_popcountll(word);
            raw[(t * w32 + 2 * w) * kBlock + f] = static_cast<uint32_t>(word);
            if (2 * w + 1 < w32)
              raw[(t * w32 + 2 * w + 1) * kBlock + f] = static_cast<uint32_t>(word >> 32);
          }
          const int32_t sum = weight * static_cast<int32_t>(g.group_channels() - 2 * negative);
          sums[column] += sum;
          sums[(1 + t) * columns + column] += sum;
        }
      }
      core.code_filters(raw, static_cast<int>(kw),
                        blob + at.panels + plane * at.plane + panel * at.panel);
    }
  }
}

const Core* core_of(const uint8_t* blob, size_t bytes, const Geometry& g, std::string* why) {
  Header header;
  if (bytes < sizeof(header) || (std::memcpy(&header, blob, sizeof(header)),
                                 std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0)) {
    *why = "the weight is not what lowbit::prepare makes";
    return nullptr;
  }
  int64_t key[8];
  fill_key(g, key);
  if (std::memcmp(key, header.key, sizeof(key)) != 0) {
    *why = "the weight was prepared for another geometry";
    return nullptr;
  }
  header.core[sizeof(header.core) - 1] = 0;
  for (const char* c = header.core; *c; ++c)
    if (*c < '0' || *c > 'z') header.core[c - header.core] = '?';
  for (const Core* const* core = kCores; *core; ++core) {
    if (std::strcmp((*core)->name, header.core) != 0) continue;
    if (!(*core)->supported()) break;
    if (bytes != blob_size(**core, g)) {
      *why = "the weight has " + std::to_string(bytes) + " bytes instead of " +
             std::to_string(blob_size(**core, g));
      return nullptr;
    }
    return *core;
  }
  *why = "the weight was prepared for " + std::string(header.core) +
         ", which this processor or build does not have; prepare it again here";
  return nullptr;
}

}  // namespace lowbit
