"""What torch.ao.nn.quantized refuses is refused here, and says what to do."""

import pytest
import torch
from torch import nn

from lowbit.nn import quantized as nnq
from lowbit.nn.quantized import functional as qF
from lowbit.qtensor import QTensor, quantize_per_channel, quantize_per_tensor
from tests.golden.cases import cases


def drawn(*shape: int, dtype: str = "uint8", zero_point: int = 10) -> QTensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    return quantize_per_tensor(x, 0.05, zero_point, dtype)


REFUSED = {
    "F.linear.x1d": (ValueError, "at least two axes"),
    "F.linear.s8_input": (TypeError, "input of uint8, not torch.int8"),
    "F.linear.u8_weight": (TypeError, "weight of quantized int8"),
    "F.linear.float_input": (TypeError, "takes a QTensor, not a torch.float32 tensor"),
    "F.conv2d.err.circular": (NotImplementedError, "'zeros' only, not 'circular'"),
    "F.conv2d.err.pad_same": (ValueError, "padding .* not 'same'"),
    "F.conv2d.err.groups3": (ValueError, "groups=3"),
    "F.conv2d.err.input_3d": (ValueError, r"\(n, c, h, w\)"),
    "F.conv2d.err.float_input": (TypeError, "takes a QTensor"),
    "F.max_pool2d.err.return_indices": (NotImplementedError, "gives no indices"),
    "F.avg_pool2d.err.float": (TypeError, "takes a QTensor"),
    "F.adaptive_avg_pool2d.err.float": (TypeError, "takes a QTensor"),
    "F.interpolate.err.bicubic": (NotImplementedError, "'bicubic'"),
    "F.interpolate.err.trilinear": (NotImplementedError, "'trilinear'"),
    "F.interpolate.err.float": (TypeError, "takes a QTensor"),
}
ERRORS = [case for case in cases("") if case.error is not None]


@pytest.mark.parametrize(
    "case", [c for c in ERRORS if c.api.startswith("F.")], ids=lambda case: case.id
)
def test_functions_refuse_what_torch_does(case):
    kind, message = REFUSED[case.id]
    inputs = dict(case.inputs)
    if case.api == "F.adaptive_avg_pool2d":
        inputs.setdefault("output_size", 1)
    with pytest.raises(kind, match=message):
        getattr(qF, case.api.removeprefix("F."))(**inputs)


@pytest.mark.parametrize(
    "case", [c for c in ERRORS if c.api == "Quantize"], ids=lambda case: case.id
)
def test_quantize_refuses_other_numbers_and_zero_points(case):
    x = case.inputs["x"]
    zero_point = 300 if x.dtype == torch.float32 else 0  # recorded without it
    kind, message = (ValueError, "300") if zero_point else (TypeError, str(x.dtype))
    with pytest.raises(kind, match=message):
        nnq.Quantize(0.1, zero_point, "quint8")(x)


OPERATIONS = [c for c in ERRORS if c.api.startswith("QFunctional.")]


@pytest.mark.parametrize("case", OPERATIONS, ids=lambda case: case.id)
def test_qfunctional_refuses_float_and_two_dtypes(case):
    operation = getattr(nnq.QFunctional(), case.api.removeprefix("QFunctional."))
    with pytest.raises(TypeError, match=r"takes a QTensor|must be of one dtype"):
        operation(**case.inputs)


@pytest.mark.parametrize("kind", [nnq.QFunctional, nnq.FloatFunctional, nnq.FXFloatFunctional])
def test_functionals_are_not_called(kind):
    with pytest.raises(RuntimeError, match="call one of its operations"):
        kind()(drawn(2, 3))


@pytest.mark.parametrize("mode", ["circular", "replicate"])
def test_convolutions_refuse_padding_modes(mode):
    for kind in (nnq.Conv1d, nnq.Conv2d, nnq.Conv3d):
        with pytest.raises(ValueError, match=f"'zeros' or 'reflect', not '{mode}'"):
            kind(4, 5, 3, padding=1, padding_mode=mode)
    with pytest.raises(ValueError, match="padding_mode 'zeros', not 'reflect'"):
        nnq.ConvTranspose2d(4, 5, 3, padding_mode="reflect")


def test_convolutions_refuse_layouts():
    with pytest.raises(ValueError, match="padding of Conv2d is a number or 2, not 'same'"):
        nnq.Conv2d(4, 5, 3, padding="same")
    with pytest.raises(ValueError, match="3 groups do not divide 4"):
        nnq.Conv2d(4, 6, 3, groups=3)
    with pytest.raises(ValueError, match="at least one"):
        nnq.Conv2d(4, 0, 3)
    with pytest.raises(ValueError, match="kernel_size"):
        nnq.Conv2d(4, 6, (3, 3, 3))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, "qint32"])
def test_linear_refuses_dtypes_of_its_weight(dtype):
    with pytest.raises(ValueError, match="weight of int8"):
        nnq.Linear(4, 3, dtype=dtype)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nnq.Linear(4, 3), (2, 4)),
        (nnq.Conv1d(4, 3, 1), (2, 4, 5)),
        (nnq.Conv2d(4, 3, 1), (2, 4, 5, 5)),
        (nnq.Conv3d(4, 3, 1), (2, 4, 5, 5, 5)),
        (nnq.ConvTranspose2d(4, 3, 1), (2, 4, 5, 5)),
        (nnq.ReLU6(), (3,)),
        (nnq.ELU(0.1, 0), (3,)),
        (nnq.Hardswish(0.1, 0), (3,)),
        (nnq.LeakyReLU(0.1, 0), (3,)),
        (nnq.Sigmoid(0.1, 0), (3,)),
        (nnq.Softmax(0, 0.1, 0), (3,)),
        (nnq.PReLU(0.1, 0), (3,)),
        (nnq.BatchNorm2d(4), (2, 4, 5, 5)),
        (nnq.LayerNorm(4, None, None, 0.1, 0), (2, 4)),
        (nnq.GroupNorm(2, 4, None, None, 0.1, 0), (2, 4)),
        (nnq.InstanceNorm1d(4, None, None, 0.1, 0), (2, 4, 5)),
        (nnq.DeQuantize(), (2, 4)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_modules_refuse_what_is_not_quantized(module, shape):
    with pytest.raises(TypeError, match=r"takes a QTensor, not a torch\.float32 tensor"):
        module(torch.randn(shape))
    module(drawn(*shape))


@pytest.mark.parametrize("name", ["Conv1d", "Conv2d", "Conv3d", "BatchNorm2d", "BatchNorm3d"])
def test_numbers_of_axes_are_checked(name):
    axes = int(name[-2])
    module = getattr(nnq, name)(*((4,) if "Norm" in name else (4, 3, 1)))
    with pytest.raises(ValueError, match=r"takes an input \(n, c,"):
        module(drawn(*[4] * (axes + 1)))


def test_a_linear_layer_refuses_int32_and_channels():
    with pytest.raises(TypeError, match="uint8 or int8, not int32"):
        nnq.Linear(4, 3)(drawn(2, 4, dtype="int32"))
    x = quantize_per_channel(torch.randn(2, 4), torch.ones(4), torch.zeros(4).long(), 1, "uint8")
    with pytest.raises(ValueError, match="one scale for the whole input"):
        nnq.Linear(4, 3)(x)


@pytest.mark.parametrize(
    ("w", "kind", "message"),
    [
        (torch.randn(3, 4), TypeError, "is a QTensor, not a torch.float32 tensor"),
        (drawn(3, 4), TypeError, "int8, not torch.uint8"),
        (drawn(4, 3, dtype="int8"), ValueError, r"shape \(3, 4\), not \(4, 3\)"),
        (
            QTensor(torch.zeros(3, 4).char(), torch.ones(4), torch.zeros(4).long(), 1),
            ValueError,
            "axis 0, its output channels, not along 1",
        ),
        (
            QTensor(torch.zeros(3, 4).char(), torch.ones(3), torch.zeros(3), 0),
            ValueError,
            "integer zero points",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(w, kind, message):
    with pytest.raises(kind, match=message):
        nnq.Linear(4, 3).set_weight_bias(w, None)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("make", [nnq.ELU, nnq.Hardswish, nnq.LeakyReLU, nnq.Sigmoid])
def test_scales_that_are_none_are_refused(make, scale):
    with pytest.raises(ValueError, match="scale must be positive and finite"):
        make(scale, 0)(drawn(3))


def test_zero_points_outside_the_dtype_are_refused():
    weight, bias = drawn(3, 4, dtype="int8"), torch.zeros(3)
    with pytest.raises(ValueError, match="300"):
        qF.linear(drawn(2, 4), weight, bias, 0.6, 300)
    module = nnq.Linear(4, 3)
    module.zero_point = 300
    with pytest.raises(ValueError, match="300"):
        module(drawn(2, 4))


def test_averages_refuse_a_divisor_of_0():
    with pytest.raises(ValueError, match="divisor_override"):
        qF.avg_pool2d(drawn(1, 2, 4, 4), 2, divisor_override=0)


def test_leaky_relu_in_place_keeps_its_scale():
    with pytest.raises(ValueError, match="in place"):
        qF.leaky_relu(drawn(3), inplace=True, scale=0.1, zero_point=0)


def test_threshold_needs_its_numbers():
    with pytest.raises(ValueError, match="takes a number as its value, not None"):
        qF.threshold(drawn(3), 0.0, None)


def test_running_statistics_are_refused_where_they_are_not_used():
    with pytest.raises(ValueError, match="track_running_stats must be False"):
        nnq.InstanceNorm2d(4, None, None, 0.1, 0, track_running_stats=True)
    with pytest.raises(ValueError, match="running statistics"):
        nnq.BatchNorm2d.from_reference(nn.BatchNorm2d(4, track_running_stats=False), 0.1, 0)


@pytest.mark.parametrize("case", [c for c in ERRORS if c.api == "Embedding"], ids=lambda c: c.id)
def test_indices_outside_the_table_are_refused(case):
    indices = case.inputs["indices"]
    with pytest.raises(IndexError, match="outside a table of 10 rows"):
        nnq.Embedding(10, 12)(indices)
    with pytest.raises(IndexError, match="outside a table of 10 rows"):
        nnq.EmbeddingBag(10, 12)(indices, torch.tensor([0]))


def test_embeddings_refuse_weights_modes_and_dtypes():
    with pytest.raises(ValueError, match="'sum', 'mean' or 'max', not 'min'"):
        nnq.EmbeddingBag(10, 12, mode="min")
    with pytest.raises(ValueError, match="no embedding of"):
        nnq.Embedding(10, 12, dtype=torch.int8)
    with pytest.raises(ValueError, match="multiple of 2, not 11"):
        nnq.Embedding(10, 11, dtype="quint4x2")
    with pytest.raises(ValueError, match="axis 0, not None"):
        nnq.Embedding(10, 12).set_weight(drawn(10, 12))
    with pytest.raises(TypeError, match="QTensor of uint8"):
        nnq.Embedding(10, 12).set_weight(drawn(10, 12, dtype="int8"))
    rows = QTensor(torch.full((10, 12), 16, dtype=torch.uint8), torch.ones(10), torch.zeros(10), 0)
    with pytest.raises(ValueError, match="at most 15"):
        nnq.Embedding(10, 12, dtype="quint4x2").set_weight(rows)
    with pytest.raises(NotImplementedError, match="pruned"):
        nnq.EmbeddingBag(4, 2)(torch.tensor([0]), torch.tensor([0]), None, torch.tensor([0]))
