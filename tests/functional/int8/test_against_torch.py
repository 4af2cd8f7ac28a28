"""Drawn comparisons with PyTorch's own quantized operators, while it has them."""

import pytest
import torch
import torch.nn.functional as F

from lowbit.functional import int8
from lowbit.functional.int8 import activations, arithmetic, embedding, norm, pool, resize
from lowbit.qtensor import QTensor

pytestmark = [
    pytest.mark.skipif(
        not hasattr(torch, "_make_per_tensor_quantized_tensor")
        or not hasattr(torch.ops.quantized, "add"),
        reason="this torch has no quantized tensors",
    ),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

DTYPES = [torch.uint8, torch.int8]
SCALES = [(0.05, 1 / 3), (0.013, 0.07), (1.0, 0.25)]
Q = torch.ops.quantized if hasattr(torch.ops, "quantized") else None
# Near a tie, PyTorch's fused multiply-adds come out on the other side of it.
FUSED = 0.03


@pytest.fixture(params=[(d, s) for d in DTYPES for s in SCALES], ids=str)
def drawn(request):
    """Two QTensors of one shape and dtype, and a scale and zero point for a result."""
    dtype, (scale, other) = request.param
    low, high = int8.limits(dtype)
    points = torch.randint(low, high + 1, (3,)).tolist()
    a, b = (torch.randint(low, high + 1, (2, 6, 9, 11)).to(dtype) for _ in range(2))
    return QTensor(a, scale, points[0]), QTensor(b, other, points[1]), (other, points[2])


def parts(q):
    return q.values, q.scale, q.zero_point


def compare(found, theirs, fused=False):
    """Equal integers; where PyTorch fuses, a few that are off by one."""
    theirs = theirs.int_repr()
    assert found.shape == theirs.shape
    apart = (found.long() - theirs.long()).abs()
    if fused:
        assert apart.max() <= 1
        assert (apart > 0).double().mean() < FUSED
    else:
        assert torch.equal(found, theirs)


def test_quantize_and_dequantize(drawn):
    a, _, _ = drawn
    x = torch.randn(1000) * 50 * a.scale
    theirs = torch.quantize_per_tensor(x, a.scale, a.zero_point, a.to_torch_quantized().dtype)
    compare(int8.quantize(x, a.scale, a.zero_point, a.dtype), theirs)
    assert torch.equal(a.dequantize(), a.to_torch_quantized().dequantize())


def test_quantize_and_dequantize_channels(drawn):
    a, _, _ = drawn
    x, scales = torch.randn(4, 6, 5), torch.rand(6).double() / 10 + 0.01
    zero_points = torch.randint(0, 128, (6,))
    args = (scales, zero_points, 1)
    theirs = torch.quantize_per_channel(x, *args, a.to_torch_quantized().dtype)
    found = int8.quantize(x, scales, zero_points, a.dtype, 1)
    compare(found, theirs)
    assert torch.equal(int8.dequantize(found, *args), theirs.dequantize())


@pytest.mark.parametrize("reduce_range", [False, True])
@pytest.mark.parametrize("width", [0, 1e-6, 1e-5, 1.0, 100.0])
@pytest.mark.parametrize("shift", [0.0, 1.0, -1.0, 1e-5])
def test_chosen_scale_and_zero_point(width, shift, reduce_range):
    x = torch.randn(50) * width + shift
    theirs = torch._choose_qparams_per_tensor(x, reduce_range)
    assert int8.dynamic_qparams(x, reduce_range) == tuple(theirs)


@pytest.mark.parametrize("name", ["add", "add_relu", "mul", "mul_relu"])
def test_arithmetic(drawn, name):
    a, b, out = drawn
    theirs = getattr(Q, name)(a.to_torch_quantized(), b.to_torch_quantized(), *out)
    found = getattr(arithmetic, name)(*parts(a), *parts(b), *out)
    # Of products, older versions round the factor otherwise: ties alone move.
    recorded = torch.__version__ >= (2, 15)
    compare(found, theirs, fused=name.startswith("add") or not recorded)


def test_cat(drawn):
    a, b, out = drawn
    theirs = Q.cat([a.to_torch_quantized(), b.to_torch_quantized()], 1, *out)
    scales, zero_points = [a.scale, b.scale], [a.zero_point, b.zero_point]
    compare(arithmetic.cat([a.values, b.values], scales, zero_points, *out, 1), theirs)


def test_matmul(drawn):
    a, b, out = drawn
    b = b.transpose(-1, -2).contiguous()
    theirs = Q.matmul(a.to_torch_quantized(), b.to_torch_quantized(), *out)
    compare(arithmetic.matmul(*parts(a), *parts(b), *out), theirs, fused=True)


@pytest.mark.parametrize("name", ["add_scalar", "mul_scalar"])
@pytest.mark.parametrize("other", [1.0, -3.3, 0.01, 100.0, -100.0, 0.0])
def test_scalars(drawn, name, other):
    a, _, _ = drawn
    theirs = getattr(Q, name)(a.to_torch_quantized(), other)
    found, *qparams = getattr(arithmetic, name)(*parts(a), other)
    assert qparams == [theirs.q_scale(), theirs.q_zero_point()]
    compare(found, theirs, fused=name == "add_scalar")


def test_scalar_operations_stand_for_the_real_ones(drawn):
    a, _, _ = drawn
    for other in (2.0, -0.7):
        torch.testing.assert_close(
            int8.dequantize(*arithmetic.mul_scalar(*parts(a), other)), a.dequantize() * other
        )
        values, scale, zero_point = arithmetic.add_scalar(*parts(a), other)
        moved = int8.dequantize(values, scale, zero_point)
        assert (moved - (a.dequantize() + other)).abs().max() < scale * 1.01


@pytest.mark.parametrize(
    ("name", "ours", "args"),
    [
        ("hardswish", activations.hardswish, ()),
        ("elu", activations.elu, (1.3,)),
        ("celu", activations.celu, (1.3,)),
        ("sigmoid", activations.sigmoid, ()),
    ],
)
def test_activations(drawn, name, ours, args):
    a, _, out = drawn
    theirs = getattr(Q, name)(a.to_torch_quantized(), *out, *args)
    compare(ours(*parts(a), *out, *args), theirs, fused=True)


def test_leaky_relu_prelu_and_softmax(drawn):
    a, _, out = drawn
    q = a.to_torch_quantized()
    theirs = Q.leaky_relu(q, 0.1, False, *out)
    compare(activations.leaky_relu(*parts(a), *out, 0.1), theirs, fused=True)
    slope = torch.quantize_per_tensor(torch.rand(6), 0.01, 0, q.dtype)
    theirs = Q.prelu(q, slope, *out)
    compare(activations.prelu(*parts(a), slope.dequantize(), *out), theirs, fused=True)
    theirs = torch.quantize_per_tensor(a.dequantize().softmax(1), *out, q.dtype)
    compare(activations.softmax(*parts(a), *out, 1), theirs)


@pytest.mark.parametrize("name", ["sigmoid", "hardsigmoid", "tanh"])
def test_activations_with_a_scale_of_their_own(drawn, name):
    a, _, _ = drawn
    theirs = getattr(F, name)(a.to_torch_quantized())
    choose = activations.tanh_qparams if name == "tanh" else activations.sigmoid_qparams
    qparams = choose(a.dtype)
    assert qparams == (theirs.q_scale(), theirs.q_zero_point())
    compare(getattr(activations, name)(*parts(a), *qparams), theirs, fused=True)


def test_clamps(drawn):
    a, _, _ = drawn
    q = a.to_torch_quantized()
    compare(activations.relu(a.values, a.zero_point), torch.relu(q))
    compare(activations.relu6(*parts(a)), Q.relu6(q))
    compare(activations.clamp(*parts(a), -1.0, 2.0), torch.clamp(q, -1.0, 2.0))
    assert torch.equal(activations.clamp(*parts(a)), a.values)


def test_pooling_and_resizing(drawn):
    a, _, _ = drawn
    q = a.to_torch_quantized()
    nhwc = q.contiguous(memory_format=torch.channels_last)
    image = (a.values, a.zero_point)
    compare(pool.max_pool(a.values, 2, 3, 2, 1), F.max_pool2d(q, 3, 2, 1))
    compare(pool.avg_pool(*image, 2, 3, 2, 1), F.avg_pool2d(nhwc, 3, 2, 1))
    compare(pool.adaptive_avg_pool(*image, 2, (3, 4)), F.adaptive_avg_pool2d(nhwc, (3, 4)))
    for size in ((13, 5), (4, 30)):
        compare(resize.interpolate(*image, size), F.interpolate(q, size))
        for align in (False, True):
            theirs = F.interpolate(q, size, mode="bilinear", align_corners=align)
            ours = resize.interpolate(*image, size, None, "bilinear", align)
            compare(ours, theirs, fused=True)


def test_normalisation(drawn):
    a, _, out = drawn
    q, eps = a.to_torch_quantized(), 1e-5
    weight, bias, mean, var = (torch.randn(6), torch.randn(6), torch.randn(6), torch.rand(6) + 0.1)
    theirs = Q.batch_norm2d(q, weight, bias, mean, var, eps, *out)
    compare(norm.batch_norm(*parts(a), mean, var, weight, bias, eps, *out), theirs, fused=True)
    theirs = Q.group_norm(q, 3, weight, bias, eps, *out)
    compare(norm.group_norm(*parts(a), 3, weight, bias, eps, *out), theirs, fused=True)
    theirs = Q.instance_norm(q, weight, bias, eps, *out)
    compare(norm.instance_norm(*parts(a), weight, bias, eps, *out), theirs, fused=True)
    affine = {"weight": torch.randn(9, 11), "bias": torch.randn(9, 11), "eps": eps}
    theirs = Q.layer_norm(q, [9, 11], **affine, output_scale=out[0], output_zero_point=out[1])
    compare(norm.layer_norm(*parts(a), [9, 11], *affine.values(), *out), theirs, fused=True)


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("spread", [1.0, 1e-5, 1e-12, 0.0])
def test_prepacked_embeddings(bits, spread):
    weight = torch.randn(30, 16) * spread + 0.3
    name = {8: "byte", 4: "4bit", 2: "2bit"}[bits]
    assert torch.equal(
        embedding.prepack(weight, bits), getattr(Q, f"embedding_bag_{name}_prepack")(weight)
    )
    table = embedding.prepack(weight, bits)
    indices, offsets = torch.randint(30, (12,)), torch.tensor([0, 5, 5, 9])
    theirs = getattr(Q, f"embedding_bag_{name}_rowwise_offsets")(table, indices, offsets)
    found = embedding.embedding_bag(table, indices, offsets, bits)
    torch.testing.assert_close(found, theirs, rtol=1e-5, atol=1e-5)
