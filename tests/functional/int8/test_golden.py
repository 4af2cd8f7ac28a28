"""The specification gives the integers that PyTorch 2.15 gave."""

import pytest
import torch

from lowbit.functional import int8
from lowbit.functional.int8 import activations, arithmetic, embedding, norm, pool, resize
from lowbit.qtensor import QTensor
from tests.golden.cases import cases

# id -> how many elements differ at most, and why they may. Each by one, and none but these.
OFF_BY_ONE = {
    "F.interpolate.bil_size.nhwc": (1, "its vector code rounds the sum of four in another order"),
    "F.upsample.bilinear": (1, "its vector code rounds the sum of four in another order"),
    "ELU.u8.0.5": (3, "its vector code dequantizes by a fused multiply-add, near a tie"),
    "hardswish.u8.0.5": (1, "its vector code dequantizes by a fused multiply-add, near a tie"),
    "hardswish.s8.0.03": (7, "its vector code dequantizes by a fused multiply-add, near a tie"),
}
# (N, C, H, W) in this order: PyTorch rounds mean + zero point, while (N, H, W, C) and lowbit
# round the mean; an odd zero point moves the even integer at a tie.
ROUNDS_AFTER_THE_ZERO_POINT = {
    "F.avg_pool2d.k2.qint8.zp-7",
    "F.avg_pool2d.rect.qint8.zp-7",
    "F.avg_pool2d.ceilpad_nopadcount.qint8.zp-7",
    "F.adaptive_avg_pool2d.2.quint8",
    "F.adaptive_avg_pool2d.(4, 2).quint8",
    "F.adaptive_avg_pool2d.(4, 2).qint8",
}
# Not a number is the least integer, and large numbers saturate. PyTorch wraps them around int32,
# and has other integers for NaN.
WRAPS = {
    "quantize.edge.quint8.zp255",
    "quantize.edge.qint8.zp0",
    "quantize.edge.qint8.zp-3",
    "quantize.edge.qint8.zp127",
    "quantize.edge.qint8.zp-128",
}
# Its value is asked of the module, or its input is no quantized tensor.
ELSEWHERE = {"F.max_pool2d.float_input"}
WRONG_MODE = "EmbeddingBag of PyTorch sums, whatever its mode says"
NEEDLESS_REFUSAL = "float32 holds every float16"


def parts(q):
    return q.values, q.scale, q.zero_point


def pair(i):
    return *parts(i["x"]), *parts(i["y"]), i.get("scale", 1.0), i.get("zero_point", 0)


def rest(i, *without):
    return {key: value for key, value in i.items() if key not in ("input", *without)}


def image(function, **fixed):
    """A function of integers and zero point on the recorded input."""
    return lambda i: function(i["input"].values, i["input"].zero_point, **fixed, **rest(i))


def max_pool(i):
    return pool.max_pool(i["input"].values, 2, **rest(i))


def elu(i):
    # The module's arguments where the recording names none.
    own = {"scale": 0.1, "zero_point": 0, **rest(i)}
    return activations.elu(*parts(i["input"]), **own)


def cat(i):
    tensors, scales, zero_points = zip(*map(parts, i["x"]), strict=True)
    return arithmetic.cat(tensors, scales, zero_points, i["scale"], i["zero_point"], i["dim"])


def layer(function, *names):
    def run(i):
        own = [i[name] for name in names]
        affine = (i["weight"], i["bias"], i.get("eps", 1e-5), i["scale"], i["zero_point"])
        return function(*parts(i["input"]), *own, *affine)

    return run


RUN = {
    "Quantize": lambda i: int8.quantize(
        i["x"], i.get("scale", 1.0), i.get("zero_point", 0), i.get("dtype", "quint8")
    ),
    "quantize_per_channel": lambda i: int8.quantize(
        i["x"], i["scales"], i["zero_points"], i["dtype"], i["axis"]
    ),
    "DeQuantize": lambda i: int8.dequantize(*parts(i["x"])),
    "F.max_pool2d": max_pool,
    "F.avg_pool2d": image(pool.avg_pool, axes=2),
    "F.adaptive_avg_pool2d": image(pool.adaptive_avg_pool, axes=2),
    "F.interpolate": image(resize.interpolate),
    "F.upsample": image(resize.interpolate),
    "F.upsample_nearest": image(resize.interpolate),
    "F.upsample_bilinear": image(resize.interpolate, mode="bilinear", align_corners=True),
    "F.relu": lambda i: activations.relu(i["input"].values, i["input"].zero_point),
    "ReLU6": lambda i: activations.relu6(*parts(i["input"])),
    "ELU": elu,
    "F.hardswish": lambda i: activations.hardswish(*parts(i["input"]), **rest(i)),
    "Hardswish": lambda i: activations.hardswish(*parts(i["input"]), **rest(i)),
    "QFunctional.add": lambda i: arithmetic.add(*pair(i)),
    "QFunctional.add_relu": lambda i: arithmetic.add_relu(*pair(i)),
    "QFunctional.mul": lambda i: arithmetic.mul(*pair(i)),
    "QFunctional.matmul": lambda i: arithmetic.matmul(*pair(i)),
    "QFunctional.cat": cat,
    "QFunctional.add_scalar": lambda i: arithmetic.add_scalar(*parts(i["x"]), i["y"]),
    "QFunctional.mul_scalar": lambda i: arithmetic.mul_scalar(*parts(i["x"]), i["y"]),
    "BatchNorm2d": layer(norm.batch_norm, "mean", "var"),
    "BatchNorm3d": layer(norm.batch_norm, "mean", "var"),
    "LayerNorm": layer(norm.layer_norm, "normalized_shape"),
    "GroupNorm": layer(norm.group_norm, "num_groups"),
    "InstanceNorm1d": layer(norm.instance_norm),
    "InstanceNorm2d": layer(norm.instance_norm),
    "InstanceNorm3d": layer(norm.instance_norm),
}
INTEGERS = [
    case
    for api in RUN
    for case in cases(api, exact=True)
    if case.error is None and case.id not in ELSEWHERE
]


def result(found, case):
    """The integers found and recorded; of functions that choose them, qparams must be equal."""
    if isinstance(found, tuple):
        assert found[1:] == (case.out.scale, case.out.zero_point)
        found = found[0]
    recorded = case.out.values if isinstance(case.out, QTensor) else case.out
    assert found.dtype == recorded.dtype
    assert found.shape == recorded.shape
    return found, recorded


@pytest.mark.parametrize("case", INTEGERS, ids=lambda case: case.id)
def test_integers_are_those_recorded(case):
    found, recorded = result(RUN[case.api](case.inputs), case)
    if case.id in WRAPS:
        ordinary = case.inputs["x"].abs() < 2**31  # and so is no NaN
        assert ordinary.any()
        found, recorded = found[ordinary], recorded[ordinary]
    if case.id in ROUNDS_AFTER_THE_ZERO_POINT:
        recorded = recorded + rounding_gap(case)
    if case.id in OFF_BY_ONE:
        apart = (found.long() - recorded.long()).abs()
        assert apart.max() <= 1
        assert apart.sum() <= OFF_BY_ONE[case.id][0]
    else:
        assert torch.equal(found, recorded)


def rounding_gap(case):
    """round(mean) + zero point - round(mean + zero point): not 0 at ties alone."""
    function = {"F.avg_pool2d": "avg_pool2d", "F.adaptive_avg_pool2d": "adaptive_avg_pool2d"}
    q = case.inputs["input"]
    mean = getattr(torch.nn.functional, function[case.api])(
        q.values.double() - q.zero_point, **rest(case.inputs)
    )
    gap = torch.round(mean) + q.zero_point - torch.round(mean + q.zero_point)
    assert gap.any()
    return gap.to(q.values.dtype)


@pytest.mark.parametrize("case", [c for c in INTEGERS if c.id in WRAPS], ids=lambda c: c.id)
def test_large_numbers_saturate_and_nan_is_the_least(case):
    found, x = RUN[case.api](case.inputs), case.inputs["x"]
    low, high = int8.limits(found.dtype)
    assert (found[x > 1e9] == high).all()
    assert (found[x < -1e9] == low).all()
    assert (found[x.isnan()] == low).all()
    assert not torch.equal(found, case.out.values), "PyTorch does the same: no exception is needed"


@pytest.mark.parametrize("case", cases("choose_qparams"), ids=lambda case: case.id)
def test_chosen_scale_and_zero_point_are_those_recorded(case):
    found = int8.dynamic_qparams(case.inputs["x"], case.inputs["reduce_range"])
    assert found == (case.out["scale"], case.out["zero_point"])


def bits_of(case):
    return {"quint8": 8, "quint4x2": 4}[case.inputs["dtype"]]


def table_of(case):
    rows = embedding.quantize_rows(case.inputs["weight"], bits_of(case))
    return embedding.pack_rows(*rows, bits_of(case))


EMBEDDING = [case for case in cases("Embedding") if case.error is None and "dtype" in case.inputs]


@pytest.mark.parametrize(
    "case", [c for c in EMBEDDING if isinstance(c.out, dict)], ids=lambda case: case.id
)
def test_rows_of_embeddings_are_those_recorded(case):
    codes, scales, zero_points = embedding.quantize_rows(case.inputs["weight"], bits_of(case))
    assert torch.equal(codes, case.out["weight"].values)
    assert torch.equal(scales, case.out["weight"].scale)
    assert torch.equal(zero_points, case.out["weight"].zero_point)


@pytest.mark.parametrize("case", EMBEDDING, ids=lambda case: case.id)
def test_embeddings_are_those_recorded(case):
    i, bits = case.inputs, bits_of(case)
    recorded = case.out["out"] if isinstance(case.out, dict) else case.out
    if case.api.startswith("EmbeddingBag"):
        # Every mode is recorded as a sum: see WRONG_MODE.
        found = embedding.embedding_bag(
            table_of(case),
            i["indices"],
            i["offsets"],
            bits,
            per_sample_weights=i.get("per_sample_weights"),
            include_last_offset=i.get("include_last_offset", False),
        )
    else:
        found = embedding.embedding(table_of(case), i["indices"], bits)
    if case.api == "Embedding.from_float" and bits == 4:
        # PyTorch reads 4-bit rows as 8-bit ones there, of another width.
        assert found.shape != recorded.shape
        codes, scales, zero_points = embedding.quantize_rows(i["weight"], 4)
        real = (codes - zero_points[:, None]) * scales[:, None]
        torch.testing.assert_close(found, real[i["indices"]], rtol=1e-2, atol=2e-3)
    else:
        torch.testing.assert_close(found, recorded, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["mean", "max"])
def test_bags_have_their_mode(mode):
    for case in (c for c in EMBEDDING if c.inputs.get("mode") == mode):
        i, bits = case.inputs, bits_of(case)
        found = embedding.embedding_bag(table_of(case), i["indices"], i["offsets"], bits, mode)
        rows = embedding.embedding(table_of(case), i["indices"], bits)
        bags = torch.tensor_split(rows, i["offsets"][1:])
        expected = torch.stack([{"mean": torch.mean, "max": torch.amax}[mode](b, 0) for b in bags])
        torch.testing.assert_close(found, expected)
        assert not torch.allclose(found, case.out), WRONG_MODE


@pytest.mark.parametrize("case", cases("embedding_bag_byte_prepack"), ids=lambda case: case.id)
def test_prepacked_bytes_are_those_recorded(case):
    assert torch.equal(embedding.prepack(case.inputs["weight"], 8), case.out)


REFUSED = {
    "quantize.err.bf16": (TypeError, "float64"),  # a float64, for all its name
    "quantize.err.zp_range": (ValueError, "zero point 300"),
    "F.interpolate.err.bicubic": (NotImplementedError, "bicubic"),
    "F.interpolate.err.trilinear": (NotImplementedError, "trilinear"),
    "QFunctional.add_relu.err.mixed_dtype": (TypeError, r"uint8 and torch\.int8"),
}


@pytest.mark.parametrize("case", [c for c in cases() if c.id in REFUSED], ids=lambda case: case.id)
def test_refused_calls_are_refused(case):
    error, message = REFUSED[case.id]
    inputs = dict(case.inputs)
    if case.id == "quantize.err.zp_range":
        inputs["zero_point"] = 300  # of the module, which the recording leaves out
    with pytest.raises(error, match=message):
        RUN[case.api](inputs)


def test_float16_is_taken_where_pytorch_refuses_it():
    case = next(c for c in cases("Quantize") if c.id == "quantize.err.half")
    x = case.inputs["x"]
    assert torch.equal(RUN["Quantize"]({"x": x}), RUN["Quantize"]({"x": x.float()})), (
        NEEDLESS_REFUSAL
    )


def test_indices_outside_the_table_are_refused():
    case = next(c for c in cases("Embedding") if c.id == "Embedding.err.oob")
    table = embedding.prepack(case.inputs["weight"])
    with pytest.raises(IndexError, match="index 10 is outside a table of 10 rows"):
        embedding.embedding(table, case.inputs["indices"])


def test_an_odd_number_of_4_bit_columns_is_refused():
    (case,) = cases("embedding_bag_4bit_prepack")
    with pytest.raises(ValueError, match="multiple of 2, not 11"):
        embedding.prepack(case.inputs["weight"], 4)
