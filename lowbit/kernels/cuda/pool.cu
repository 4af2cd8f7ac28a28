// Max-pooling of packed signs: a maximum is -1 where all signs are, so AND of the bits.

struct Pool {
  const u64* x;      // (n, words, in)
  const u64* flip;   // (words), or null
  u64* out;          // (n, words, out)
  long long count;   // of words that come out
  int words, in[2], size[2], kernel[2], stride[2], padding[2], dilation[2];
};

extern "C" __global__ void lowbit_pool(const Pool p) {
  const long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= p.count) return;
  const int ox = static_cast<int>(i % p.size[1]), oy = static_cast<int>(i / p.size[1] % p.size[0]);
  const long long plane = i / p.size[1] / p.size[0];
  const u64* const from = p.x + plane * p.in[0] * p.in[1];
  u64 bits = ~0ull;
  for (int ky = 0; ky < p.kernel[0]; ++ky)
    for (int kx = 0; kx < p.kernel[1]; ++kx) {
      const int y = oy * p.stride[0] - p.padding[0] + ky * p.dilation[0];
      const int x = ox * p.stride[1] - p.padding[1] + kx * p.dilation[1];
      if (static_cast<unsigned>(y) < static_cast<unsigned>(p.in[0]) &&
          static_cast<unsigned>(x) < static_cast<unsigned>(p.in[1]))
        bits &= from[static_cast<long long>(y) * p.in[1] + x];
    }
  if (p.flip) bits ^= p.flip[plane % p.words];
  p.out[i] = bits;
}
