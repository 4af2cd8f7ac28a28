// Coding of floats: planes of bits, 64 channels of one pixel to a word.
//
// Defined when compiled: PLANES, THERMOMETER, ALONG_CHANNELS: a warp makes WORDS words of a pixel,
// two channels a lane for each, where channels lie beside each other; else a thread makes a word.

struct Pack {
  const float* x;
  const float* thresholds;          // (count) or (count, channels); null: 0
  u64* out;                         // (n, planes, groups, words, pixels)
  long long images;
  long long strides[5];             // of x: image, channel, three spatial axes
  int size[3];
  int channels, groups, words;      // words of one group
  int per_channel;
};

constexpr int WORDS = 4;
constexpr int COUNT = THERMOMETER ? PLANES : (1 << PLANES) - 1;

// How many thresholds x is below. A NaN is below none.
__device__ __forceinline__ int below(const Pack& p, float x, int channel) {
  if (!p.thresholds) return x < 0.0f;
  int r = 0;
  for (int i = 0; i < COUNT; ++i)
    r += x < (p.per_channel ? p.thresholds[static_cast<long long>(i) * p.channels + channel]
                            : p.thresholds[i]);
  return r;
}

__device__ __forceinline__ bool bit_of(int r, int plane) {
  return THERMOMETER ? plane >= PLANES - r : (r >> plane & 1) != 0;
}

extern "C" __global__ void lowbit_pack(const Pack p) {
  const long long thread = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int lane = threadIdx.x % 32, own = p.channels / p.groups;
  const long long pixels = static_cast<long long>(p.size[0]) * p.size[1] * p.size[2];
  // Units in the order of the output where a thread makes a word; else pixels outermost, so that
  // the words of a pixel are read one after the other.
  const long long unit = ALONG_CHANNELS ? thread / 32 : thread;
  const int chunks = ALONG_CHANNELS ? (p.words + WORDS - 1) / WORDS : p.words;
  if (unit >= p.images * p.groups * chunks * pixels) return;
  long long n, pixel;
  int word, group;
  if (ALONG_CHANNELS) {
    word = static_cast<int>(unit % chunks) * WORDS;
    group = static_cast<int>(unit / chunks % p.groups);
    pixel = unit / chunks / p.groups % pixels;
    n = unit / chunks / p.groups / pixels;
  } else {
    pixel = unit % pixels;
    word = static_cast<int>(unit / pixels % p.words);
    group = static_cast<int>(unit / pixels / p.words % p.groups);
    n = unit / pixels / p.words / p.groups;
  }
  const int x = static_cast<int>(pixel % p.size[2]);
  const int y = static_cast<int>(pixel / p.size[2] % p.size[1]);
  const int z = static_cast<int>(pixel / p.size[2] / p.size[1]);
  const float* const from = p.x + n * p.strides[0] + z * p.strides[2] + y * p.strides[3] +
                            x * p.strides[4];
  u64 bits[PLANES] = {};
  if (ALONG_CHANNELS) {
    float values[2 * WORDS];
#pragma unroll
    for (int i = 0; i < 2 * WORDS; ++i) {
      const int c = word * 64 + i * 32 + lane;
      values[i] = c < own ? from[(group * own + c) * p.strides[1]] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < 2 * WORDS; ++i) {
      const int c = word * 64 + i * 32 + lane;
      const int r = c < own ? below(p, values[i], group * own + c) : 0;
#pragma unroll
      for (int j = 0; j < PLANES; ++j) {
        const u64 half = __ballot_sync(0xffffffffu, c < own && bit_of(r, j));
        if (lane == i / 2) bits[j] |= half << (32 * (i % 2));
      }
    }
    word += lane;
    if (lane >= WORDS || word >= p.words) return;
  } else {
    const int end = min(64, own - word * 64);
#pragma unroll 8
    for (int c = 0; c < end; ++c) {
      const int channel = group * own + word * 64 + c;
      const int r = below(p, from[channel * p.strides[1]], channel);
#pragma unroll
      for (int j = 0; j < PLANES; ++j) bits[j] |= static_cast<u64>(bit_of(r, j)) << c;
    }
  }
#pragma unroll
  for (int j = 0; j < PLANES; ++j)
    p.out[(((n * PLANES + j) * p.groups + group) * p.words + word) * pixels + pixel] = bits[j];
}
