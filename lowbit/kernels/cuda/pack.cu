// Coding of floats: planes of bits, 64 channels of one pixel to a word.
//
// Defined when compiled: PLANES, THERMOMETER, ALONG_CHANNELS: a warp makes WORDS words of a pixel,
// two channels a lane for each, where channels lie beside each other; else a block makes a word of
// 32 pixels, 8 channels a warp and one pixel a lane.

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

__device__ __forceinline__ const float* pixel_of(const Pack& p, long long n, long long pixel) {
  const int x = static_cast<int>(pixel % p.size[2]);
  const int y = static_cast<int>(pixel / p.size[2] % p.size[1]);
  const int z = static_cast<int>(pixel / p.size[2] / p.size[1]);
  return p.x + n * p.strides[0] + z * p.strides[2] + y * p.strides[3] + x * p.strides[4];
}

__device__ __forceinline__ void write(const Pack& p, long long n, int plane, int group, int word,
                                      long long pixel, long long pixels, u64 bits) {
  p.out[(((n * PLANES + plane) * p.groups + group) * p.words + word) * pixels + pixel] = bits;
}

extern "C" __global__ void lowbit_pack(const Pack p) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, own = p.channels / p.groups;
  const long long pixels = static_cast<long long>(p.size[0]) * p.size[1] * p.size[2];
  if (ALONG_CHANNELS) {
    // Pixels outermost, so that the words of a pixel are read one after the other.
    const long long unit = static_cast<long long>(blockIdx.x) * (blockDim.x / 32) + warp;
    const int chunks = (p.words + WORDS - 1) / WORDS;
    if (unit >= p.images * p.groups * chunks * pixels) return;
    const int word = static_cast<int>(unit % chunks) * WORDS;
    const int group = static_cast<int>(unit / chunks % p.groups);
    const long long pixel = unit / chunks / p.groups % pixels, n = unit / chunks / p.groups / pixels;
    const float* const from = pixel_of(p, n, pixel);
    float values[2 * WORDS];
#pragma unroll
    for (int i = 0; i < 2 * WORDS; ++i) {
      const int c = word * 64 + i * 32 + lane;
      values[i] = c < own ? from[(group * own + c) * p.strides[1]] : 0.0f;
    }
    u64 bits[PLANES] = {};
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
    if (lane >= WORDS || word + lane >= p.words) return;
#pragma unroll
    for (int j = 0; j < PLANES; ++j) write(p, n, j, group, word + lane, pixel, pixels, bits[j]);
    return;
  }
  SHARED_MEMORY(bytes);  // (planes, 32 pixels, 8)
  const long long unit = blockIdx.x, chunks = (pixels + 31) / 32;
  const long long pixel = unit % chunks * 32 + lane;
  const int word = static_cast<int>(unit / chunks % p.words);
  const int group = static_cast<int>(unit / chunks / p.words % p.groups);
  const long long n = unit / chunks / p.words / p.groups;
  const float* const from = pixel_of(p, n, pixel < pixels ? pixel : 0);
  float values[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int c = word * 64 + warp * 8 + i;
    values[i] = pixel < pixels && c < own ? from[(group * own + c) * p.strides[1]] : 0.0f;
  }
  unsigned eight[PLANES] = {};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int c = word * 64 + warp * 8 + i;
    const int r = c < own ? below(p, values[i], group * own + c) : 0;
#pragma unroll
    for (int j = 0; j < PLANES; ++j) eight[j] |= static_cast<unsigned>(c < own && bit_of(r, j)) << i;
  }
#pragma unroll
  for (int j = 0; j < PLANES; ++j)
    bytes[(j * 32 + lane) * 8 + warp] = static_cast<unsigned char>(eight[j]);
  __syncthreads();
  if (pixel >= pixels) return;
  for (int j = warp; j < PLANES; j += 8)
    write(p, n, j, group, word, pixel, pixels, reinterpret_cast<const u64*>(bytes)[j * 32 + lane]);
}
