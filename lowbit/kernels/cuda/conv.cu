// Packed convolutions, and linear layers as those of one pixel, on 1-bit matrix instructions.
//
// With bits a, b (1: negative), planes of weights u_i, w_j, U = sum u_i, W = sum w_j:
//
//   V = sum_ij u_i w_j (4 popc(a_i and b_j) - 2 popc(a_i))      inside the image
//     + (U + offset) sum_taps s[tap] + (pad - U - offset) sum_{taps outside} s[tap]
//
// with s[tap] = sum over channels of B, prepared with the weight. Bits outside the image are read
// as 0, which is the sign +1; where the padding is the sign -1 they are read as 1 and all is inside.
// popc(a_i) comes from the same instruction, against a column of ones.
//
// A block computes BM outputs (pixels of all images) by BN filters of one group. Words of 64 bits
// lie in the order (tap, word); a step of the matrix instruction takes four. Its warps divide the
// rows, the columns, and where there are few blocks the steps.
//
// Defined when compiled: WM (rows of a warp / 16), WARPS_M, WARPS_N, WARPS_K, STEPS (of a stage),
// STAGES, PAIRS (whether there are several planes), OUT (0 integers, 1 floats, 2 bits, 3 both),
// POINT (whether images are single pixels under a kernel of one, as in linear layers).

struct Conv {
  const u64* x;             // (n, planes, groups, words, pixels)
  const u64* panel;         // (planes, groups, tiles of 8 filters, steps, 32 lanes)
  const int* tap_sums;      // (taps, out_channels)
  const int* sums;          // (out_channels)
  const float* params;      // (rows, out_channels)
  const int* limits;        // (2, out_channels), of bits
  const float* residual;
  void* result;
  u64* bits;                // (n, words of out_channels, output pixels)
  long long rows;           // images times output pixels
  long long result_strides[3], residual_strides[3];  // of image, channel, output pixel
  int in[3], out[3], kernel[3], stride[3], before[3], dilation[3];
  int words, steps, taps;   // of one group and plane
  int filters, tiles;       // of one group
  int out_channels, groups;
  int planes_x, planes_w, thermometer_x, thermometer_w;
  int inside, outside;      // U + offset, pad - U - offset
  u64 padding;              // what is read outside the image: 0, or 1 for each channel
  u64 last_padding;         // of the last word
  int param_rows, sign_row, step_count;
  int after[16];            // steps after the convolution
};

constexpr int BM = 16 * WM * WARPS_M, BN = 64 * WARPS_N;
constexpr int THREADS = 32 * WARPS_M * WARPS_N * WARPS_K;
constexpr int LANES = THREADS / BM;       // threads that load one row
constexpr int PITCH = BM + 4;             // of a word's rows in shared memory: no bank conflicts
constexpr int POINT_PITCH = 4 * STEPS + 4;  // of a row's words, where rows are single pixels
constexpr int A_WORDS = POINT ? BM * POINT_PITCH : 4 * STEPS * PITCH, B_WORDS = 4 * STEPS * BN;
constexpr int STAGE_WORDS = A_WORDS + B_WORDS;
constexpr int TILE_PITCH = BN + 1;        // of a row of sums in shared memory
constexpr int SPAN = BN / LANES;          // columns that a thread of a row finishes
static_assert(SPAN % 8 == 0, "a thread makes whole bytes");
// Bytes of shared memory before what finishing needs: the stages, or the sums and their bits.
constexpr int RESULTS = 4 * BM * TILE_PITCH + BM * BN / 8;
constexpr int END = 8 * STAGES * STAGE_WORDS > RESULTS ? 8 * STAGES * STAGE_WORDS : RESULTS;
static_assert(END % 4 == 0, "integers follow");
static_assert(THREADS % BM == 0 && STEPS % WARPS_K == 0, "threads divide the work evenly");

// Where the threads of one row are in the order (tap, word).
struct Cursor {
  int word, at[3];
  __device__ __forceinline__ void advance(const Conv& p, int by) {
    word += by;
    while (word >= p.words) {
      word -= p.words;
      if (++at[2] == p.kernel[2]) {
        at[2] = 0;
        if (++at[1] == p.kernel[1]) {
          at[1] = 0;
          ++at[0];
        }
      }
    }
  }
};

// The input's first place under the kernel of an output pixel.
__device__ __forceinline__ void origin(const Conv& p, int pixel, int (&start)[3]) {
  const int x = pixel % p.out[2], rest = pixel / p.out[2];
  const int place[3] = {rest / p.out[1], rest % p.out[1], x};
  for (int i = 0; i < 3; ++i) start[i] = place[i] * p.stride[i] - p.before[i];
}

// How many results a thread finishes at a time, so that their reads and sums overlap.
constexpr int BATCH = 8;

// What finishing needs of the block's channels, in shared memory.
struct Channels {
  const int* base;      // (BN): (U + offset) sums
  const int* limits;    // (2, BN), of bits
  const float* params;  // (rows, BN)
};

// The steps, of BATCH numbers of the channels c + i * STRIDE.
template <int STRIDE>
__device__ __forceinline__ void after_steps(const Conv& p, const Channels& channels, int c,
                                            const float (&residual)[BATCH], float (&y)[BATCH]) {
  const float* row = channels.params + c;
  for (int i = 0; i < p.step_count; ++i) {
    const int step = p.after[i];
    if (step == 1) {
#pragma unroll
      for (int j = 0; j < BATCH; ++j) y[j] = __fmaf_rn(y[j], row[j * STRIDE], row[BN + j * STRIDE]);
      row += 2 * BN;
    } else if (step == 2) {
#pragma unroll
      for (int j = 0; j < BATCH; ++j) y[j] = y[j] < 0.0f ? 0.0f : y[j];
    } else if (step == 3) {
#pragma unroll
      for (int j = 0; j < BATCH; ++j) y[j] = __fadd_rn(y[j], residual[j]);
    } else if (step == 4) {
#pragma unroll
      for (int j = 0; j < BATCH; ++j) y[j] = y[j] >= 0.0f ? y[j] : __fmul_rn(row[j * STRIDE], y[j]);
      row += BN;
    } else if (step == 5) {
#pragma unroll
      for (int j = 0; j < BATCH; ++j) y[j] = __fadd_rn(y[j], row[j * STRIDE]);
      row += BN;
    } else {
#pragma unroll
      for (int j = 0; j < BATCH; ++j) y[j] = y[j] < -1.0f ? -1.0f : y[j] > 1.0f ? 1.0f : y[j];
    }
  }
}

// An output pixel of an image, and where its kernel starts.
struct Place {
  long long n;
  int pixel, pixels, from[3];
  bool border = false;  // whether the kernel reaches to what counts otherwise than inside

  __device__ __forceinline__ Place(const Conv& p, long long row) {
    pixels = p.out[0] * p.out[1] * p.out[2];
    n = row / pixels;
    pixel = static_cast<int>(row % pixels);
    origin(p, pixel, from);
    for (int i = 0; i < 3; ++i)
      border |= from[i] < 0 || from[i] + (p.kernel[i] - 1) * p.dilation[i] >= p.in[i];
    border &= p.outside != 0;
  }

  // Adds what the taps outside the image count to the sums of the channels o + j, j < count.
  __device__ void add_outside(const Conv& p, int o, int count, int (&v)[BATCH]) const {
    const int* sum = p.tap_sums + o;
    for (int z = 0; z < p.kernel[0]; ++z)
      for (int y = 0; y < p.kernel[1]; ++y)
        for (int x = 0; x < p.kernel[2]; ++x, sum += p.out_channels)
          if (!inside(p, 0, z) || !inside(p, 1, y) || !inside(p, 2, x)) {
#pragma unroll
            for (int j = 0; j < BATCH; ++j)
              if (j < count) v[j] += p.outside * __ldg(sum + j);
          }
  }

  __device__ __forceinline__ bool inside(const Conv& p, int axis, int tap) const {
    return static_cast<unsigned>(from[axis] + tap * p.dilation[axis]) <
           static_cast<unsigned>(p.in[axis]);
  }
};

extern "C" __global__ void __launch_bounds__(THREADS, 2) lowbit_conv(const Conv p) {
  SHARED_MEMORY(shared_memory);
  u64* const shared = reinterpret_cast<u64*>(shared_memory);
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  const int quad = lane % 4, octet = lane / 4;
  const int warp_k = warp % WARPS_K, warp_n = warp / WARPS_K % WARPS_N;
  const int warp_m = warp / (WARPS_K * WARPS_N);
  const int group = blockIdx.z;
  const long long first_row = static_cast<long long>(blockIdx.x) * BM;
  const int first_tile = blockIdx.y * (BN / 8);
  const int pixels_in = p.in[0] * p.in[1] * p.in[2], pixels_out = p.out[0] * p.out[1] * p.out[2];

  // The row that this thread loads, or finishes.
  const int load_row = thread % BM, load_lane = thread / BM;
  const long long row = first_row + load_row;
  const long long image_words = static_cast<long long>(p.planes_x) * p.groups * p.words;
  int start[3];
  const u64* image = p.x;
  if (!POINT) {
    origin(p, static_cast<int>(row % pixels_out), start);
    image += row / pixels_out * image_words * pixels_in;
  }
  const int step_words = p.taps * p.words;

  const int pair_stages = (p.steps + STEPS - 1) / STEPS;
  const int pairs = PAIRS ? p.planes_x * p.planes_w : 1;
  const int stages = pair_stages * pairs;

  // Of single pixels a thread loads one word of several rows instead.
  constexpr int POINT_ROWS = THREADS / (4 * STEPS);
  const int point_word = thread % (4 * STEPS), point_row = thread / (4 * STEPS);

  Cursor cursor;
  int next_word = 0, next_step = 0, plane_x = 0, plane_w = 0;  // of the stage that is loaded next
  auto rewind = [&]() {
    if (!POINT) {
      cursor.word = 0;
      cursor.at[0] = cursor.at[1] = cursor.at[2] = 0;
      cursor.advance(p, load_lane);
    }
    next_word = POINT ? point_word : load_lane;
    next_step = 0;
  };
  rewind();

  auto load = [&](int slot) {
    u64* const a = shared + slot * STAGE_WORDS;
    u64* const b = a + A_WORDS;
    const u64* const plane =
        image + (static_cast<long long>(plane_x) * p.groups + group) * p.words * pixels_in;
    if (POINT) {
#pragma unroll
      for (int i = 0; i < BM / POINT_ROWS; ++i) {
        const int r = point_row + i * POINT_ROWS;
        const bool valid = first_row + r < p.rows && next_word < p.words;
        const u64* const from = valid ? plane + (first_row + r) * image_words + next_word : p.x;
        copy_async_8(a + r * POINT_PITCH + point_word, from, valid);
      }
      next_word += 4 * STEPS;
    } else {
#pragma unroll
      for (int i = 0; i < 4 * STEPS / LANES; ++i) {
        const int z = start[0] + cursor.at[0] * p.dilation[0];
        const int y = start[1] + cursor.at[1] * p.dilation[1];
        const int x = start[2] + cursor.at[2] * p.dilation[2];
        const bool real = row < p.rows && next_word < step_words;
        const bool valid = real && static_cast<unsigned>(z) < static_cast<unsigned>(p.in[0]) &&
                           static_cast<unsigned>(y) < static_cast<unsigned>(p.in[1]) &&
                           static_cast<unsigned>(x) < static_cast<unsigned>(p.in[2]);
        const long long at = static_cast<long long>(cursor.word) * pixels_in +
                             (static_cast<long long>(z) * p.in[1] + y) * p.in[2] + x;
        u64* const to = a + (load_lane + i * LANES) * PITCH + load_row;
        if (real && !valid && p.padding)
          *to = cursor.word == p.words - 1 ? p.last_padding : p.padding;
        else
          copy_async_8(to, valid ? plane + at : p.x, valid);
        next_word += LANES;
        cursor.advance(p, LANES);
      }
    }
    // A tile's steps follow each other, both in memory and here.
    const u64* const panel =
        p.panel + ((static_cast<long long>(plane_w) * p.groups + group) * p.tiles) * p.steps * 32;
    for (int i = thread; i < BN / 8 * STEPS * 16; i += THREADS) {
      const int tile = first_tile + i / (STEPS * 16), part = i % (STEPS * 16);
      if (tile < p.tiles && next_step + part / 16 < p.steps)
        copy_async_16(b + 2 * i,
                      panel + (static_cast<long long>(tile) * p.steps + next_step) * 32 + 2 * part);
    }
    next_step += STEPS;
    if (PAIRS && next_step >= p.steps) {
      if (++plane_w == p.planes_w) {
        plane_w = 0;
        ++plane_x;
      }
      rewind();
    }
  };

  int sum[WM][8][4] = {}, own[WM][4] = {};       // popc(a and b), popc(a)
  int total[PAIRS ? WM : 1][8][4] = {};          // of the pairs of planes before
  const unsigned ones[2] = {0xffffffffu, 0xffffffffu};

#pragma unroll
  for (int i = 0; i < STAGES - 1; ++i) {
    if (i < stages) load(i);
    copy_commit();
  }
  int first_step = 0, now_x = 0, now_w = 0;
  for (int stage = 0; stage < stages; ++stage) {
    copy_wait<STAGES - 2>();
    __syncthreads();
    if (stage + STAGES - 1 < stages) load((stage + STAGES - 1) % STAGES);
    copy_commit();
    const u64* const a = shared + stage % STAGES * STAGE_WORDS +
                         (warp_m * 16 * WM + octet) * (POINT ? POINT_PITCH : 1);
    const u64* const b = shared + stage % STAGES * STAGE_WORDS + A_WORDS;
#pragma unroll
    for (int step = 0; step < STEPS; step += WARPS_K) {
      const int k = step + warp_k;
      if (first_step + k >= p.steps) break;
      unsigned rows[WM][4];
#pragma unroll
      for (int m = 0; m < WM; ++m) {
        const int word = 4 * k + quad;
        const u64 low = a[POINT ? 16 * m * POINT_PITCH + word : word * PITCH + 16 * m];
        const u64 high = a[POINT ? (16 * m + 8) * POINT_PITCH + word : word * PITCH + 16 * m + 8];
        rows[m][0] = static_cast<unsigned>(low);
        rows[m][1] = static_cast<unsigned>(high);
        rows[m][2] = static_cast<unsigned>(low >> 32);
        rows[m][3] = static_cast<unsigned>(high >> 32);
        mma_and_popc(own[m], rows[m], ones);
      }
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const u64 both = b[((warp_n * 8 + n) * STEPS + k) * 32 + lane];
        const unsigned columns[2] = {static_cast<unsigned>(both),
                                     static_cast<unsigned>(both >> 32)};
#pragma unroll
        for (int m = 0; m < WM; ++m) mma_and_popc(sum[m][n], rows[m], columns);
      }
    }
    first_step += STEPS;
    if (PAIRS && first_step >= p.steps) {
      const int u = p.thermometer_x ? 1 : 1 << now_x, w = p.thermometer_w ? 1 : 1 << now_w;
#pragma unroll
      for (int m = 0; m < WM; ++m) {
#pragma unroll
        for (int n = 0; n < 8; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            total[PAIRS ? m : 0][n][i] += u * w * (4 * sum[m][n][i] - 2 * own[m][i & 2]);
            sum[m][n][i] = 0;
          }
#pragma unroll
        for (int i = 0; i < 4; ++i) own[m][i] = 0;
      }
      first_step = 0;
      if (++now_w == p.planes_w) {
        now_w = 0;
        ++now_x;
      }
    }
  }
  // Meanwhile: what finishing needs of the channels, behind all else in shared memory.
  const int filters = min(BN, p.filters - first_tile * 8);
  const int first_channel = group * p.filters + first_tile * 8;
  int* const base = reinterpret_cast<int*>(shared_memory + END);
  int* const limits = base + BN;
  float* const params = reinterpret_cast<float*>(limits + (OUT == 2 ? 2 * BN : 0));
  for (int c = thread; c < filters; c += THREADS) {
    base[c] = p.inside * p.sums[first_channel + c];
    if (OUT == 2)
      for (int i = 0; i < 2; ++i) limits[i * BN + c] = p.limits[i * p.out_channels + first_channel + c];
    for (int i = 0; i < p.param_rows; ++i)
      params[i * BN + c] = p.params[i * p.out_channels + first_channel + c];
  }
  const Channels channels = {base, limits, params};
  const float* const signs = OUT == 3 && p.sign_row >= 0 ? params + p.sign_row * BN : nullptr;

  // From registers to shared memory, where warps that divide the steps add what they have.
  copy_wait<0>();
  int* const tile = reinterpret_cast<int*>(shared);
  for (int turn = 0; turn < WARPS_K; ++turn) {
    __syncthreads();
    if (warp_k != turn) continue;
#pragma unroll
    for (int m = 0; m < WM; ++m)
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int v = PAIRS ? total[PAIRS ? m : 0][n][i] : 4 * sum[m][n][i] - 2 * own[m][i & 2];
          int* const to = tile + ((warp_m * WM + m) * 16 + 8 * (i / 2) + octet) * TILE_PITCH +
                          warp_n * 64 + 8 * n + 2 * quad + i % 2;
          *to = turn == 0 ? v : *to + v;
        }
  }
  __syncthreads();

  const long long words_out = (p.out_channels + 63) / 64;
  if (OUT != 2 && p.result_strides[1] == 1) {
    // Channels lie beside each other: a warp writes those of some rows.
    constexpr int WARPS = THREADS / 32;
    for (int r = warp * BATCH; r < BM && first_row + r < p.rows; r += WARPS * BATCH) {
      const int rows = static_cast<int>(min(static_cast<long long>(BATCH), p.rows - first_row - r));
      unsigned low[BATCH];
      for (int first = 0; first < filters; first += 32) {
        const int c = first + lane;
        int v[BATCH];
        float y[BATCH], residual[BATCH];
        unsigned bits = 0;
        if (c < filters) {
          long long at[BATCH];
#pragma unroll
          for (int j = 0; j < BATCH; ++j) {
            v[j] = tile[(r + j) * TILE_PITCH + c] + base[c];
            const long long place = first_row + min(r + j, r + rows - 1);
            const long long n = POINT ? place : place / pixels_out;
            const int pixel = POINT ? 0 : static_cast<int>(place - n * pixels_out);
            at[j] = n * p.result_strides[0] + first_channel + c + pixel * p.result_strides[2];
            residual[j] = 0.0f;
            if (OUT != 0 && p.residual)
              residual[j] = p.residual[n * p.residual_strides[0] +
                                       (first_channel + c) * p.residual_strides[1] +
                                       pixel * p.residual_strides[2]];
          }
          if (!POINT && p.outside != 0)
            for (int j = 0; j < rows; ++j) {
              const Place place(p, first_row + r + j);
              int one[BATCH] = {};
              if (place.border) place.add_outside(p, first_channel + c, 1, one);
#pragma unroll
              for (int i = 0; i < BATCH; ++i) v[i] += i == j ? one[0] : 0;
            }
#pragma unroll
          for (int j = 0; j < BATCH; ++j) y[j] = __int2float_rn(v[j]);
          if (OUT != 0) after_steps<0>(p, channels, c, residual, y);
#pragma unroll
          for (int j = 0; j < BATCH; ++j)
            if (j < rows) {
              if (OUT == 0)
                static_cast<int*>(p.result)[at[j]] = v[j];
              else
                static_cast<float*>(p.result)[at[j]] = y[j];
            }
          if (OUT == 3) {
            const float threshold = signs ? signs[c] : 0.0f;
#pragma unroll
            for (int j = 0; j < BATCH; ++j) bits |= static_cast<unsigned>(y[j] < threshold) << j;
          }
        }
        if (OUT == 3) {
          const bool ends = first + 32 >= filters, second = first % 64 != 0;
#pragma unroll
          for (int j = 0; j < BATCH; ++j) {
            const unsigned half = __ballot_sync(0xffffffffu, bits >> j & 1);
            if (lane == 0 && j < rows && (ends || second)) {
              const long long place = first_row + r + j, n = place / pixels_out;
              p.bits[(n * words_out + (first_channel + first) / 64) * pixels_out +
                     place % pixels_out] = second ? static_cast<u64>(half) << 32 | low[j] : half;
            }
            low[j] = half;
          }
        }
      }
    }
    return;
  }
  // Pixels lie beside each other: a thread finishes some channels of its row.
  unsigned char* const bytes = shared_memory + 4 * BM * TILE_PITCH;
  const Place place(p, row < p.rows ? row : 0);
  if (row < p.rows) {
    const int end = min(filters, (load_lane + 1) * SPAN);
    const long long at =
        place.n * p.result_strides[0] + place.pixel * p.result_strides[2];
    const long long from =
        place.n * p.residual_strides[0] + place.pixel * p.residual_strides[2];
    for (int c = load_lane * SPAN; c < end; c += BATCH) {
      const int count = min(BATCH, end - c), o = first_channel + c;
      int v[BATCH];
      float y[BATCH], residual[BATCH];
      unsigned bits = 0;
#pragma unroll
      for (int j = 0; j < BATCH; ++j) {
        v[j] = tile[load_row * TILE_PITCH + c + j] + base[c + j];
        residual[j] = 0.0f;
        if ((OUT == 1 || OUT == 3) && p.residual && j < count)
          residual[j] = p.residual[from + (o + j) * p.residual_strides[1]];
      }
      if (place.border) place.add_outside(p, o, count, v);
      if (OUT == 2) {
#pragma unroll
        for (int j = 0; j < BATCH; ++j)
          bits |= static_cast<unsigned>((v[j] < limits[c + j]) != (limits[BN + c + j] != 0)) << j;
      } else {
#pragma unroll
        for (int j = 0; j < BATCH; ++j) y[j] = __int2float_rn(v[j]);
        if (OUT != 0) after_steps<1>(p, channels, c, residual, y);
#pragma unroll
        for (int j = 0; j < BATCH; ++j) {
          if (j < count) {
            if (OUT == 0)
              static_cast<int*>(p.result)[at + (o + j) * p.result_strides[1]] = v[j];
            else
              static_cast<float*>(p.result)[at + (o + j) * p.result_strides[1]] = y[j];
          }
          if (OUT == 3) bits |= static_cast<unsigned>(y[j] < (signs ? signs[c + j] : 0.0f)) << j;
        }
      }
      if (OUT >= 2)
        bytes[load_row * (BN / 8) + c / 8] = static_cast<unsigned char>(bits & ((1u << count) - 1));
    }
  }
  if (OUT < 2) return;
  __syncthreads();
  if (row >= p.rows) return;
  for (int w = load_lane; 64 * w < filters; w += LANES) {
    u64 word = 0;
    const int count = min(8, (filters - 64 * w + 7) / 8);
    for (int i = 0; i < count; ++i)
      word |= static_cast<u64>(bytes[load_row * (BN / 8) + 8 * w + i]) << (8 * i);
    p.bits[(place.n * words_out + first_channel / 64 + w) * pixels_out + place.pixel] = word;
  }
}
