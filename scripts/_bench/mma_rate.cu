// How fast the matrix units multiply: independent products, one after the other, from registers.
// KIND: 1 bits with AND, 2 bits with XOR, 8 int8, 16 float16 into float32.

struct Rate {
  int* out;
  int turns;
};

__device__ __forceinline__ void product(int (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if KIND == 1
  mma_and_popc(c, a, b);
#else
#if KIND == 2
#define PRODUCT "m16n8k256.row.col.s32.b1.b1.s32.xor.popc"
#define SUM "+r"
#elif KIND == 8
#define PRODUCT "m16n8k32.row.col.s32.s8.s8.s32"
#define SUM "+r"
#else
#define PRODUCT "m16n8k16.row.col.f32.f16.f16.f32"
#define SUM "+f"
#endif
#if KIND == 16
  float f[4] = {__int_as_float(c[0]), __int_as_float(c[1]), __int_as_float(c[2]),
                __int_as_float(c[3])};
#else
  int (&f)[4] = c;
#endif
  asm volatile("mma.sync.aligned." PRODUCT " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : SUM(f[0]), SUM(f[1]), SUM(f[2]), SUM(f[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#if KIND == 16
  for (int i = 0; i < 4; ++i) c[i] = __float_as_int(f[i]);
#endif
#endif
}

extern "C" __global__ void lowbit_rate(const Rate p) {
  unsigned a[4], b[2];
  for (int i = 0; i < 4; ++i) a[i] = threadIdx.x * 2654435761u + i * 40503u;
  for (int i = 0; i < 2; ++i) b[i] = threadIdx.x * 2246822519u + i;
#if KIND == 16
  for (int i = 0; i < 4; ++i) a[i] &= 0x3bff3bffu;
  for (int i = 0; i < 2; ++i) b[i] &= 0x3bff3bffu;
#endif
  int c[8][4] = {};
  for (int turn = 0; turn < p.turns; ++turn)
#pragma unroll
    for (int i = 0; i < 8; ++i) product(c[i], a, b);
  int sum = 0;
  for (int i = 0; i < 8; ++i) sum += c[i][0] ^ c[i][1] ^ c[i][2] ^ c[i][3];
  p.out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}
