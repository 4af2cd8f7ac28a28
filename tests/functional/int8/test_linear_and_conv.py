"""Linear layers and convolutions: recorded cases, the formula by hand, and PyTorch's own."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F

from lowbit.functional.int8.conv import conv, conv_transpose
from lowbit.functional.int8.linear import linear
from lowbit.kernels import int8
from lowbit.qtensor import QTensor
from tests.golden.cases import Case, cases

# Each function by its specification and by its kernel.
WAYS = {"specification": (linear, conv), "kernel": (int8.linear, int8.conv)}
APIS = ("F.linear", "F.conv1d", "F.conv2d", "F.conv3d")
# Refused there, computed here: one-dimensional inputs and int8 activations lose nothing.
NEEDLESS_REFUSALS = {"F.linear.x1d", "F.linear.s8_input"}
# Computed there with a zero point that uint8 does not hold, 300; refused here.
OUT_OF_RANGE = {"F.linear.ozp_out_of_range"}
# Of an argument of lowbit.nn.quantized.functional alone, and tested there.
ELSEWHERE = {"F.conv2d.err.circular"}


def call(case: Case, way: str) -> torch.Tensor:
    i = dict(case.inputs)
    x, weight = i.pop("input"), i.pop("weight")
    if not isinstance(x, QTensor):
        x = _Real(x)
    is_linear = case.api == "F.linear"
    scale = i.pop("scale", x.scale if is_linear else 1.0)
    zero_point = i.pop("zero_point", x.zero_point if is_linear else 0)
    if case.id in OUT_OF_RANGE:
        zero_point = 300
    return WAYS[way][0 if is_linear else 1](
        *(x.values, x.scale, x.zero_point, weight.values, weight.scale, weight.zero_point),
        **i,
        out_scale=scale,
        out_zero_point=zero_point,
    )


class _Real:
    """A real tensor where a quantized one belongs."""

    def __init__(self, values: torch.Tensor) -> None:
        self.values, self.scale, self.zero_point = values, 1.0, 0


@pytest.mark.filterwarnings("ignore:int8 layers run in plain torch")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "case",
    [c for api in APIS for c in cases(api) if c.id not in ELSEWHERE],
    ids=lambda case: case.id,
)
def test_recorded(case, way):
    if case.id in NEEDLESS_REFUSALS:
        assert call(case, way).dtype == torch.uint8
    elif case.error or case.id in OUT_OF_RANGE:
        with pytest.raises((TypeError, ValueError)):
            call(case, way)
    else:
        apart = (call(case, way).long() - case.out.values.long()).abs()
        assert apart.shape == case.out.values.shape
        # Off by one, in as many elements as PyTorch's engines are.
        assert set(apart.flatten().tolist()) <= {0, 1}
        assert apart.sum() <= case.spread()


def integers(shape, dtype=torch.uint8):
    low, high = (0, 255) if dtype == torch.uint8 else (-128, 127)
    return torch.randint(low, high + 1, shape).to(dtype)


def by_hand(sum_: int, bias: float, relu: bool, out_dtype: torch.dtype) -> int:
    """One output of scales that are powers of two, so that float32 rounds nothing but the end."""
    y = Fraction(sum_) / 8 / 16 + Fraction(bias)
    if relu:
        y = max(y, Fraction(0))
    low, high = (0, 255) if out_dtype == torch.uint8 else (-128, 127)
    return min(max(round(y / 4 + 5), low), high)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("out_dtype", [torch.uint8, torch.int8])
@pytest.mark.parametrize("x_dtype", [torch.uint8, torch.int8])
def test_linear_by_hand(x_dtype, out_dtype, relu):
    x, weight = integers((5, 7), x_dtype), integers((6, 7), torch.int8)
    bias, zero_points = torch.arange(6) / 2 - 1, torch.arange(6) - 3
    ends = {"out_scale": 4.0, "out_zero_point": 5, "out_dtype": out_dtype, "relu": relu}
    zero = 3 if x_dtype == torch.uint8 else -3
    y = linear(x, 1 / 8, zero, weight, 1 / 16, zero_points, bias, **ends)
    for row, o in itertools.product(range(5), range(6)):
        terms = zip(x[row].tolist(), weight[o].tolist(), strict=True)
        total = sum((a - zero) * (b - (o - 3)) for a, b in terms)
        assert y[row, o].item() == by_hand(total, bias[o].item(), relu, out_dtype)


def test_the_zero_point_is_added_before_rounding_to_even():
    x, weight = torch.tensor([[1], [3], [5]], dtype=torch.uint8), torch.ones(1, 1).char()
    ties = {"w_scales": 0.5, "out_scale": 1.0}  # 0.5, 1.5, 2.5
    assert linear(x, 1.0, 0, weight, **ties, out_zero_point=0).flatten().tolist() == [0, 2, 2]
    assert linear(x, 1.0, 0, weight, **ties, out_zero_point=9).flatten().tolist() == [10, 10, 12]


def test_conv_by_hand_pads_with_real_zeros():
    x, weight = integers((1, 4, 5, 6)), integers((6, 2, 3, 2), torch.int8)
    windows = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}
    ends = {"out_scale": 4.0, "out_zero_point": 5}
    y = conv(x, 1 / 8, 100, weight, 1 / 16, torch.arange(6), torch.arange(6) / 2, **windows, **ends)
    assert y.shape == (1, 6, 3, 8)
    for o, i, j in itertools.product(range(6), range(3), range(8)):
        total = 0
        for c, a, b in itertools.product(range(2), range(3), range(2)):
            row, column = 2 * i + a - 1, j + 2 * b - 2
            if 0 <= row < 5 and 0 <= column < 6:
                value = x[0, 2 * (o // 3) + c, row, column].item() - 100
                total += value * (weight[o, c, a, b].item() - o)
        assert y[0, o, i, j].item() == by_hand(total, o / 2, False, torch.uint8)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_transposed_convolution_is_the_gradient_of_a_convolution(dims):
    windows = {"stride": 3, "padding": 1, "dilation": 2, "groups": 2}
    x, weight = integers((2, 4, *[3] * dims)), integers((4, 3, *[2] * dims), torch.int8)
    scales = torch.tensor([0.5, 0.25, 2.0])
    y = conv_transpose(
        *(x, 0.5, 9, weight, scales), **windows, output_padding=1, out_dtype=torch.float32
    )
    image = torch.zeros(y.shape, dtype=torch.float64, requires_grad=True)
    full = scales.double().view(1, 3, *[1] * dims) * weight.double()
    operator = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
    out = operator(image, full, **windows)
    assert out.shape == x.shape
    (expected,) = torch.autograd.grad(out, image, (x.double() - 9) * 0.5)
    assert torch.equal(y.double(), expected)


def test_a_residual_is_added_before_relu_and_rounding():
    x, weight = torch.tensor([[2], [0]], dtype=torch.uint8), torch.ones(1, 1).char()
    residual = torch.tensor([[3], [11]], dtype=torch.uint8)  # -7, 1 at a zero point of 10
    added = {"residual": residual, "residual_scale": 1.0, "residual_zero_point": 10}
    both = linear(x, 1.0, 0, weight, 1.0, out_dtype=torch.float32, **added)
    assert both.flatten().tolist() == [-5.0, 1.0]
    kept = linear(x, 1.0, 0, weight, 1.0, out_zero_point=20, relu=True, **added)
    assert kept.flatten().tolist() == [20, 21]
    real = linear(x, 1.0, 0, weight, 1.0, out_zero_point=20, residual=torch.full((2, 1), 0.6))
    assert real.flatten().tolist() == [23, 21]


def test_sums_are_exact_where_float32_is_not():
    x = torch.full((1, 4097), 255, dtype=torch.uint8)
    weight = torch.full((1, 4097), 127, dtype=torch.int8)
    weight[0, 0] = 126
    total = 255 * (127 * 4096 + 126)
    assert total > 2**24
    found = linear(x, 1.0, 0, weight, 1.0, out_scale=float(total) / 200, out_zero_point=0)
    assert found.item() == 200
    y = linear(x, 1.0, 0, weight, 1.0, out_dtype=torch.float32)
    assert y.item() == torch.tensor(total).float().item()


# PyTorch's own operators, while it has them.


has_quantized = pytest.mark.skipif(
    not hasattr(torch, "_make_per_tensor_quantized_tensor"),
    reason="this torch has no quantized tensors",
)


@has_quantized
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("api", ["linear", "conv1d", "conv2d", "conv3d"])
def test_against_torch(api, seed):
    from torch.ao.nn.quantized import functional as theirs

    generator = torch.Generator().manual_seed(seed)

    def draw(low, high, *shape):
        return torch.randint(low, high + 1, shape, generator=generator)

    if "x86" not in torch.backends.quantized.supported_engines:
        pytest.skip("its x86 engine is what was recorded")
    zero_point, out_zero_point = draw(0, 255, 2).tolist()
    dims = 0 if api == "linear" else int(api[4])
    groups, channels = (1, 24) if seed % 3 or not dims else (2, 12)
    x = draw(0, 255, 2, channels * groups, *[6] * dims).to(torch.uint8)
    weight = draw(-128, 127, 10, channels, *[3] * dims).to(torch.int8)
    scales = torch.rand(10, generator=generator, dtype=torch.float64) * 0.01 + 1e-3
    zeros = draw(-5, 5, 10) if seed % 4 == 3 else torch.zeros(10, dtype=torch.int64)
    bias = torch.randn(10, generator=generator)
    windows = {} if not dims else {"stride": 2, "padding": 1, "groups": groups}
    ends = (math.sqrt(channels) * 0.5, out_zero_point)
    ours = (linear if not dims else conv)(
        *(x, 0.04, zero_point, weight, scales, zeros, bias),
        **windows,
        out_scale=ends[0],
        out_zero_point=ends[1],
    )
    q_x = torch._make_per_tensor_quantized_tensor(x, 0.04, zero_point)
    q_w = torch._make_per_channel_quantized_tensor(weight, scales, zeros, 0)
    y = getattr(theirs, api)(q_x, q_w, bias, **windows, scale=ends[0], zero_point=ends[1])
    assert torch.equal(ours, y.int_repr())
