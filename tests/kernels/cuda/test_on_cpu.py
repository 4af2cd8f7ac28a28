"""The emulator of CUDA: it computes what a GPU would, and what is wrong on a GPU shows in it."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.kernels.cuda.emulate import Emulated, Launch

FULL = "0xffffffffu"


class Arrays(ctypes.Structure):
    _fields_ = (("x", ctypes.c_void_p), ("y", ctypes.c_void_p), ("n", ctypes.c_int))


# The kernels of all tests: one source, for compiling takes longer than they do.
SNIPPETS: list[str] = []


def snippet(body: str, type: str = "int") -> str:
    """Names the kernel of these statements, where p.x and p.y are arrays of the type."""
    name = f"kernel_{len(SNIPPETS)}"
    SNIPPETS.append(
        f"struct Arrays_{name} {{ const {type}* x; {type}* y; int n; }};\n"
        f'extern "C" __global__ void __launch_bounds__(256) {name}(const Arrays_{name} p) {{\n'
        f"  const int thread = threadIdx.x; (void)thread, (void)p;\n{body}\n}}\n"
    )
    return name


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("cuda") / "snippets.cu"
    file.write_text("\n".join(SNIPPETS))
    return file


@pytest.fixture(scope="module")
def kernel(source: Path) -> Callable[[str], Launch]:
    emulated = Emulated()
    return lambda name: emulated.compile(source, name)


def run(launch: Launch, x: Tensor, like: Tensor, *, block=256, shared=0, grid=(1, 1, 1), seed=0):
    y = torch.zeros_like(like)
    arrays = Arrays(x.data_ptr(), y.data_ptr(), x.numel())
    launch(grid, block, shared, arrays, seed, arrays=[x, y])
    return y


def bits_of(words: Tensor) -> Tensor:
    """The bits of (rows, words) int32, the lowest first: (rows, 32 words)."""
    return (words[..., None] >> torch.arange(32) & 1).flatten(1)


PRODUCT = snippet("""
    const int g = thread / 4, t = thread % 4;
    const int* b_words = p.x + 16 * 8;
    unsigned a[4] = {(unsigned)p.x[8 * g + t], (unsigned)p.x[8 * (g + 8) + t],
                     (unsigned)p.x[8 * g + 4 + t], (unsigned)p.x[8 * (g + 8) + 4 + t]};
    unsigned b[2] = {(unsigned)b_words[8 * g + t], (unsigned)b_words[8 * g + 4 + t]};
    int c[4] = {1000, 1000, 1000, 1000};
    mma_and_popc(c, a, b);
    mma_and_popc(c, a, b);
    p.y[8 * g + 2 * t] = c[0];
    p.y[8 * g + 2 * t + 1] = c[1];
    p.y[8 * (g + 8) + 2 * t] = c[2];
    p.y[8 * (g + 8) + 2 * t + 1] = c[3];
""")


def test_the_matrix_product_counts_common_bits(kernel):
    words = torch.randint(-(2**31), 2**31, (24, 8)).int()  # 16 rows of a, 8 columns of b
    launch = kernel(PRODUCT)
    c = run(launch, words, torch.empty(16, 8, dtype=torch.int32), block=32)
    bits = bits_of(words).long()
    assert torch.equal(c.long(), 1000 + 2 * bits[:16] @ bits[16:].T)


SHUFFLES = f"""
    p.y[thread] = __shfl_xor_sync({FULL}, p.x[thread], 5);
    p.y[64 + thread] = __shfl_sync({FULL}, p.x[thread], thread * 7);
"""


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        (snippet(SHUFFLES, "int"), torch.int32),
        (snippet(SHUFFLES, "unsigned"), torch.int32),
        (snippet(SHUFFLES, "unsigned long long"), torch.int64),
        (snippet(SHUFFLES, "float"), torch.float32),
    ],
)
def test_shuffles_fetch_from_other_lanes(kernel, name, dtype):
    x = torch.randint(-1000, 1000, (64,)).to(dtype)
    y = run(kernel(name), x, torch.empty(128, dtype=dtype), block=64)
    lanes = torch.arange(64)
    assert torch.equal(y[:64], x[lanes ^ 5])
    assert torch.equal(y[64:], x[lanes // 32 * 32 + lanes * 7 % 32])


BALLOT = snippet(f"p.y[thread] = (int)__ballot_sync({FULL}, p.x[thread]);")


def test_a_ballot_has_a_bit_for_each_lane(kernel):
    x = torch.randint(0, 2, (64,)).int()
    y = run(kernel(BALLOT), x, x, block=64)
    assert torch.equal(bits_of(y[:, None]), x.view(2, 1, 32).expand(2, 32, 32).reshape(64, 32))


SUM = """
    SHARED_MEMORY(memory);
    int* const sums = reinterpret_cast<int*>(memory);
    const int at = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    sums[thread] = p.x[at * blockDim.x + thread];
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
      BARRIER
      if (thread < half) sums[thread] += sums[thread + half];
    }
    if (thread == 0) p.y[at] = sums[0];
"""
RIGHT_SUM = snippet(SUM.replace("BARRIER", "__syncthreads();"))
RACING_SUM = snippet(SUM.replace("BARRIER", ""))


@pytest.mark.parametrize("seed", range(3))
def test_blocks_sum_with_barriers(kernel, seed):
    x = torch.randint(-1000, 1000, (24, 256)).int()
    y = run(kernel(RIGHT_SUM), x, x[:, 0].clone(), shared=1024, grid=(4, 3, 2), seed=seed)
    assert torch.equal(y.long(), x.sum(1))


def test_fibers_of_the_system_sum_as_well(source):
    emulated = Emulated(options=["-DLOWBIT_UCONTEXT"])
    x = torch.randint(-1000, 1000, (2, 256)).int()
    y = run(emulated.compile(source, RIGHT_SUM), x, x[:, 0].clone(), shared=1024, grid=(2, 1, 1))
    assert torch.equal(y.long(), x.sum(1))


@pytest.mark.parametrize("seed", range(3))
def test_a_missing_barrier_is_an_error(kernel, seed):
    x = torch.randint(-1000, 1000, (1, 256)).int()
    with pytest.raises(RuntimeError, match=r"race at .*, and no barrier lies"):
        run(kernel(RACING_SUM), x, x[:, 0].clone(), shared=1024, seed=seed)


# All warps read what the first wrote; then it writes again, while some may still read.
REUSE = """
    SHARED_MEMORY(memory);
    int* const value = reinterpret_cast<int*>(memory);
    for (int i = 0; i < 4; ++i) {
      if (thread == 0) *value = i;
      __syncthreads();
      p.y[i * 256 + thread] = *value;
      BARRIER
    }
"""
RIGHT_REUSE = snippet(REUSE.replace("BARRIER", "__syncthreads();"))
RACING_REUSE = snippet(REUSE.replace("BARRIER", ""))


@pytest.mark.parametrize("seed", range(3))
def test_a_missing_barrier_before_shared_memory_is_reused_is_an_error(kernel, seed):
    x, right = torch.zeros(1).int(), torch.arange(4).int().repeat_interleave(256)
    assert torch.equal(run(kernel(RIGHT_REUSE), x, right, shared=4, seed=seed), right)
    with pytest.raises(RuntimeError, match="race at byte 0 of shared memory"):
        run(kernel(RACING_REUSE), x, right, shared=4, seed=seed)


REVERSE = """
    SHARED_MEMORY(memory);
    int* const values = reinterpret_cast<int*>(memory);
    values[thread] = p.x[thread];
    BARRIER
    p.y[thread] = values[31 - thread];
"""
RIGHT_REVERSE = snippet(REVERSE.replace("BARRIER", "__syncwarp();"))
RACING_REVERSE = snippet(REVERSE.replace("BARRIER", ""))


def test_a_missing_syncwarp_is_an_error(kernel):
    x = torch.arange(32).int()
    assert torch.equal(run(kernel(RIGHT_REVERSE), x, x, block=32, shared=128), x.flip(0))
    with pytest.raises(RuntimeError, match="race at byte"):
        run(kernel(RACING_REVERSE), x, x, block=32, shared=128)


COPIES = """
    SHARED_MEMORY(memory);
    const unsigned long long* x = reinterpret_cast<const unsigned long long*>(p.x);
    unsigned long long* y = reinterpret_cast<unsigned long long*>(p.y);
    unsigned long long* words = reinterpret_cast<unsigned long long*>(memory);
    copy_async_16(words + 2 * thread, x + 2 * thread);
    copy_commit();
    const bool valid = thread % 3;
    copy_async_8(words + 64 + thread, valid ? x + thread : nullptr, valid);
    copy_commit();
    WAIT
    y[2 * thread] = words[2 * thread];
    y[2 * thread + 1] = words[2 * thread + 1];
    y[64 + thread] = words[64 + thread];
"""
WAIT_FOR_ALL, WAIT_FOR_THE_FIRST, NO_WAIT = (
    snippet(COPIES.replace("WAIT", wait)) for wait in ("copy_wait<0>();", "copy_wait<1>();", "")
)


def test_copies_land_at_their_wait_and_not_before(kernel):
    x = torch.randint(-(2**62), 2**62, (64,))
    small = torch.where(torch.arange(32) % 3 != 0, x[:32], 0)

    def copied(name: str) -> tuple[Tensor, Tensor]:
        y = run(kernel(name), x, torch.empty(96).long(), block=32, shared=768)
        return y[:64], y[64:]

    first, second = copied(WAIT_FOR_ALL)
    assert torch.equal(first, x)
    assert torch.equal(second, small)
    first, second = copied(WAIT_FOR_THE_FIRST)
    assert torch.equal(first, x)
    assert (second != small).all()
    first, second = copied(NO_WAIT)
    assert (first != x).all()
    assert (second != small).all()


COPY_TOO_EARLY = snippet("""
    SHARED_MEMORY(memory);
    int* const values = reinterpret_cast<int*>(memory);
    values[thread] = p.x[thread];
    __syncwarp();
    if (thread < 16) copy_async_8(values + 2 * thread, p.x + 2 * thread, true);
    copy_commit();
    p.y[thread] = values[31 - thread];
    copy_wait<0>();
""")


def test_a_copy_over_what_is_still_read_is_an_error(kernel):
    x = torch.arange(32).int()
    with pytest.raises(RuntimeError, match="race at byte"):
        run(kernel(COPY_TOO_EARLY), x, x, block=32, shared=128)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            snippet("if (thread < 100) __syncthreads();"),
            "deadlock: 100 of 256 threads wait at __syncthreads, 156 have returned",
        ),
        (
            snippet("if (thread % 32 < 8) __syncwarp(); else __syncthreads();"),
            "deadlock: 8 lanes of warp . wait at __syncwarp, 24 at __syncthreads, 0 have returned",
        ),
        (
            snippet(f"if (thread % 2) __syncwarp(); else __ballot_sync({FULL}, 1);"),
            "deadlock: lanes of warp . wait at different calls",
        ),
        (snippet("__ballot_sync(0xffff, 1);"), "__ballot_sync of mask 0x0000ffff; only full warps"),
        (
            snippet("SHARED_MEMORY(m); m[4 * thread + 1] = 0;"),
            "it writes 1 bytes at byte .* of 512 bytes of shared memory",
        ),
        (
            snippet("SHARED_MEMORY(m); copy_async_8(m + 4, p.x, true);"),
            "an asynchronous copy of 8 bytes .* to byte 4; both must be aligned",
        ),
        (
            snippet("SHARED_MEMORY(m); copy_async_16(m + 512, p.x);"),
            "an asynchronous copy to byte 512 of 512 bytes of shared memory",
        ),
        (
            snippet("SHARED_MEMORY(m); p.y[0] = m[p.n - 5];"),
            "it reads 1 bytes at byte -1 of 512 bytes of shared memory",
        ),
        (
            snippet("p.y[0] = reinterpret_cast<const uint4*>(p.x + p.n - 3)->y;"),
            "snippets.cu:[0-9]+: a null or misaligned address",
        ),
        (snippet("p.y[0] = p.x[p.n];"), "it reads 4 bytes outside of the arrays, at byte 16 of"),
        (snippet("p.y[-p.n] = 0;"), "it writes 4 bytes outside of the arrays"),
        (snippet("copy_commit();\np.y[0] = 1 << (8 * p.n);"), "a shift by as many bits"),
        (snippet("int a[4] = {};\np.y[0] = a[p.n + thread];"), "an index outside of its array"),
        (snippet("p.y[0] = 1 / (p.n - 4);"), "a division by zero"),
        (snippet("p.y[0] = 0x7fffffff - 3 + p.n;"), "an int overflows"),
    ],
)
def test_a_broken_rule_is_an_error(kernel, name, message):
    with pytest.raises(RuntimeError, match=message):
        run(kernel(name), torch.zeros(4).int(), torch.zeros(4).int(), shared=512)


NOTHING = snippet("")


@pytest.mark.parametrize(
    ("block", "shared", "grid", "message"),
    [
        (48, 0, (1, 1, 1), "a block of 48 threads"),
        (32, 300_000, (1, 1, 1), "300000 bytes of shared memory"),
        (32, 0, (1, 65536, 1), r"a grid of \(1, 65536, 1\)"),
    ],
)
def test_a_launch_that_a_gpu_refuses_is_an_error(kernel, block, shared, grid, message):
    with pytest.raises(RuntimeError, match=message):
        run(
            kernel(NOTHING),
            torch.zeros(1),
            torch.zeros(1),
            block=block,
            shared=shared,
            grid=grid,
        )


FEW_WAIT = snippet("if (thread < p.n) { __syncthreads(); }\np.y[thread] = thread;")


def test_a_launch_works_after_one_that_failed(kernel):
    launch = kernel(FEW_WAIT)
    with pytest.raises(RuntimeError, match="deadlock"):
        run(launch, torch.zeros(3).int(), torch.zeros(256).int())
    y = run(launch, torch.zeros(256).int(), torch.zeros(256).int())
    assert torch.equal(y, torch.arange(256).int())


def test_a_structure_of_another_size_is_an_error(kernel):
    with pytest.raises(ValueError, match="takes a structure of 24 bytes, and c_int has 4"):
        kernel(NOTHING)((1, 1, 1), 32, 0, ctypes.c_int(0))


def test_a_kernel_that_is_not_there_is_an_error(source):
    with pytest.raises(ValueError, match=r"snippets.cu has no kernel 'two'"):
        Emulated().compile(source, "two")


def test_a_kernel_with_no_arrays_may_touch_none(kernel):
    x = torch.zeros(4).int()
    with pytest.raises(RuntimeError, match="it reads 4 bytes of memory, and is given no array"):
        kernel(BALLOT)((1, 1, 1), 32, 0, Arrays(x.data_ptr(), x.data_ptr(), 4), arrays=[])
