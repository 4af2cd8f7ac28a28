"""Exported int8 models give in onnxruntime what they give in lowbit, in integer kernels."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lowbit
from lowbit import export, models
from lowbit.nn import quantized as nnq
from lowbit.nn.quantized import functional as qF
from tests.nn.quantized._models import normal, weighted

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from tests.export import _runtime  # noqa: E402


class Between(nn.Module):
    """Quantize, a layer or function of QTensors, dequantize."""

    def __init__(self, layer, zero_point: int = 117, dtype: str = "uint8") -> None:
        super().__init__()
        self.quantize = nnq.Quantize(0.03, zero_point, dtype)
        self.layer = layer
        self.dequantize = nnq.DeQuantize()

    def forward(self, x):
        return self.dequantize(self.layer(self.quantize(x)))


def functional(operation: str) -> nnq.QFunctional:
    """With a scale such that one step of a convolution is one of the result at most."""
    module = nnq.QFunctional()
    module.scale, module.zero_point = (0.51 if operation == "mul" else 0.11), 100
    return module


class Add(nn.Module):
    """A convolution's output and its input, by one of the operations of QFunctional."""

    def __init__(self, operation: str) -> None:
        super().__init__()
        self.conv = weighted(nnq.Conv2d(8, 8, 3, padding=1))
        self.functional = functional(operation)
        self.operation = operation

    def forward(self, x):
        y, operation = self.conv(x), getattr(self.functional, self.operation)
        if self.operation == "cat":
            return operation([y, x, y], 1)
        return operation(y, x)


class ConvAdd(nn.Module):
    def __init__(self, kind) -> None:
        super().__init__()
        self.conv = weighted(kind(8, 8, 3, padding=1))

    def forward(self, x):
        return self.conv(x, x)


def calling(function, *args, **kwargs) -> nn.Module:
    class Call(nn.Module):
        def forward(self, x):
            return function(x, *args, **kwargs)

    return Call()


def limited(module: nn.Module, low: int, high: int) -> nn.Module:
    module.limits = (low, high)
    return module


def norm(name: str) -> nn.Module:
    w, b = 1 + 0.1 * normal(8, seed=8), normal(8, seed=9)
    if name == "LayerNorm":
        return nnq.LayerNorm(9, 1 + 0.1 * normal(9), normal(9, seed=2), 0.03, 120)
    if name == "GroupNorm":
        return nnq.GroupNorm(2, 8, w, b, 0.03, 120)
    return nnq.InstanceNorm2d(8, w, b, 0.03, 120)


def batch_norm() -> nn.Module:
    module = nnq.BatchNorm2d(8)
    module.running_mean.copy_(normal(8, seed=3))
    module.running_var.copy_(normal(8, seed=4).abs() + 0.5)
    module.scale, module.zero_point = 0.04, 101
    return module


def moved_about(q):
    return torch.flatten(q, 1).view(q.shape[0], 8, -1).permute(0, 2, 1)[:, 1:]


IMAGE, LINE, VOLUME = (3, 8, 11, 9), (3, 8, 20), (3, 8, 5, 6, 7)
# A layer, the shape of its input, and an operator that onnxruntime runs it with.
LAYERS = {
    "conv": (lambda: weighted(nnq.Conv2d(8, 12, 3, padding=1)), IMAGE, "QLinearConv"),
    "conv_per_tensor": (lambda: weighted(nnq.Conv2d(8, 12, 3), None), IMAGE, "QLinearConv"),
    "conv_no_bias": (lambda: weighted(nnq.Conv2d(8, 12, 3, bias=False)), IMAGE, "QLinearConv"),
    "conv_relu": (lambda: weighted(nnq.ConvReLU2d(8, 12, 3, 2, 1)), IMAGE, "QLinearConv"),
    "depthwise": (lambda: weighted(nnq.Conv2d(8, 8, 3, groups=8)), IMAGE, "QLinearConv"),
    "groups": (lambda: weighted(nnq.Conv2d(8, 12, 3, groups=2, dilation=2)), IMAGE, "QLinearConv"),
    "reflect": (
        lambda: weighted(nnq.Conv2d(8, 6, 3, padding=(1, 2), padding_mode="reflect")),
        IMAGE,
        "QLinearConv",
    ),
    "conv1d": (lambda: weighted(nnq.ConvReLU1d(8, 12, 5, 2, 2)), LINE, "QLinearConv"),
    "conv3d": (lambda: weighted(nnq.Conv3d(8, 6, 3, padding=1)), VOLUME, "QLinearConv"),
    "conv_transpose": (lambda: weighted(nnq.ConvTranspose2d(8, 6, 3, 2, 1, 1), 1), IMAGE, None),
    "conv_add": (lambda: ConvAdd(nnq.ConvAdd2d), IMAGE, None),
    "conv_add_relu": (lambda: ConvAdd(nnq.ConvAddReLU2d), IMAGE, None),
    "add": (lambda: Add("add"), IMAGE, "QLinearAdd"),
    "add_relu": (lambda: Add("add_relu"), IMAGE, "QLinearAdd"),
    "mul": (lambda: Add("mul"), IMAGE, "QLinearMul"),
    "cat": (lambda: Add("cat"), IMAGE, "QLinearConcat"),
    "linear": (lambda: weighted(nnq.Linear(20, 13)), (5, 20), "QGemm"),
    "linear_relu": (lambda: weighted(nnq.LinearReLU(20, 13)), (5, 20), "QGemm"),
    "linear_rows": (lambda: weighted(nnq.Linear(20, 13, bias_=False)), LINE, "QGemm"),
    "max_pool": (lambda: nnq.MaxPool2d(3, 2, 1), IMAGE, "MaxPool"),
    "F.max_pool2d": (lambda: calling(F.max_pool2d, 2), IMAGE, "MaxPool"),
    "qF.max_pool1d": (lambda: calling(qF.max_pool1d, 3, 2), LINE, "MaxPool"),
    "avg_pool": (lambda: calling(qF.avg_pool2d, 3, 2, 1), IMAGE, "QLinearAveragePool"),
    "global_pool": (lambda: nn.AdaptiveAvgPool2d(1), IMAGE, "QLinearGlobalAveragePool"),
    "adaptive_pool": (
        lambda: calling(qF.adaptive_avg_pool2d, (None, 3)),
        IMAGE,
        "QLinearAveragePool",
    ),
    "relu": (lambda: nn.ReLU(), IMAGE, "Clip"),
    "relu6": (lambda: nnq.ReLU6(), IMAGE, "Clip"),
    "hardswish": (lambda: nnq.Hardswish(0.021, 30), IMAGE, None),
    "elu": (lambda: nnq.ELU(0.021, 60, 1.3), IMAGE, None),
    "leaky_relu": (lambda: nnq.LeakyReLU(0.021, 60, 0.2), IMAGE, "QLinearLeakyRelu"),
    "sigmoid": (lambda: nnq.Sigmoid(1 / 256, 0), IMAGE, "QLinearSigmoid"),
    "softmax": (lambda: nnq.Softmax(1, 1 / 256, 0), IMAGE, None),
    "prelu": (lambda: nnq.PReLU(0.05, 60, 8), IMAGE, None),
    "nearest": (lambda: calling(F.interpolate, scale_factor=2), IMAGE, "Resize"),
    "nearest_size": (lambda: calling(F.interpolate, (7, 13)), IMAGE, "Resize"),
    "bilinear_scale": (
        lambda: calling(F.interpolate, scale_factor=2, mode="bilinear"),
        IMAGE,
        None,
    ),
    "bilinear": (lambda: calling(qF.interpolate, (7, 13), None, "bilinear", True), IMAGE, None),
    "batch_norm": (batch_norm, IMAGE, None),
    "layer_norm": (lambda: norm("LayerNorm"), IMAGE, None),
    "group_norm": (lambda: norm("GroupNorm"), IMAGE, None),
    "instance_norm": (lambda: norm("InstanceNorm2d"), IMAGE, None),
    "shapes": (
        lambda: calling(
            lambda q: torch.flatten(q, 1).view(q.shape[0], 8, -1).permute(0, 2, 1)[:, 1:]
        ),
        IMAGE,
        "Transpose",
    ),
}


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_gives_the_same_integers_in_onnxruntime(name, dtype, tmp_path):
    make, shape, kernel = LAYERS[name]
    torch.manual_seed(0)
    model = Between(make(), 117 if dtype == "uint8" else -11, dtype).eval()
    if dtype == "int8":
        for module in model.modules():
            if hasattr(module, "out_dtype") or isinstance(module, nnq.QFunctional):
                module.out_dtype = torch.int8
                module.zero_point -= 128
            elif isinstance(module, nnq._output.OutputScale) and module is not model.quantize:
                module.zero_point -= 128
    proto = export.onnx(model, normal(*shape))
    domains = {node.domain for node in proto.graph.node}
    assert domains == {""}
    read = {name for node in proto.graph.node for name in node.input} | {"output"}
    assert all(name in read for node in proto.graph.node for name in node.output)
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 21)]
    # onnxruntime has no integer kernels for int8 activations with a Clip on x86.
    if kernel is not None and dtype == "uint8":
        found = _runtime.kernels(proto, tmp_path)
        assert kernel in found or f"Nhwc{kernel}" in found
    for rows in (1, 5):
        # Numbers of the input's grid: there are ties nearer to others, dividing by 0.03 or not.
        x = model.quantize(normal(rows, *shape[1:], seed=7)).dequantize()
        expected = model.layer(model.quantize(x))
        (y,) = _runtime.run(proto, x)
        steps = (y / expected.q_scale()).round() - (
            expected.values.long() - expected.q_zero_point()
        )
        assert y.shape == expected.shape
        # One where a number is a tie, or so near to one that sums of floats differ.
        assert steps.abs().max() <= 1
        assert (steps != 0).sum() <= 0.004 * steps.numel() + 1


def test_few_bits_are_a_clip(tmp_path):
    """Quantize to 4 bits: PyTorch's own exporter drops the limits, and 9.0 comes out for 1.5."""
    model = nn.Sequential(nnq.Quantize(0.1, 0, "uint8"), nnq.DeQuantize())
    limited(model[0], 0, 15)
    proto = export.onnx(model, torch.zeros(1, 1))
    (y,) = _runtime.run(proto, torch.tensor([[9.0], [0.72], [-3.0]]))
    assert torch.equal(y, torch.tensor([[1.5], [0.7], [0.0]]))
    layer = limited(weighted(nnq.ConvReLU2d(8, 12, 3)), 100, 115)
    model = Between(layer)
    limited(model.quantize, 110, 125)
    proto = export.onnx(model, normal(*IMAGE))
    assert "QLinearConv" in _runtime.kernels(proto, tmp_path)
    (y,) = _runtime.run(proto, model.dequantize(model.quantize(normal(*IMAGE))))
    integers = (y / layer.scale).round() + layer.zero_point
    assert integers.unique().tolist() == list(range(100, 116))


def test_a_residual_may_round_before_the_addition_as_well(tmp_path):
    """Without, onnxruntime's convolution is one of floats."""
    model, x = Between(ConvAdd(nnq.ConvAddReLU2d)), normal(*IMAGE)
    once = export.onnx(model, x)
    twice = export.onnx(model, x, fused_adds=False)
    assert "QLinearConv" not in _runtime.kernels(once, tmp_path)
    found = _runtime.kernels(twice, tmp_path)
    assert {"QLinearConv", "QLinearAdd"} <= set(found)
    steps = (_runtime.run(twice, x)[0] - model(x)) / model.layer.conv.scale
    assert 0 < steps.abs().max() < 2.01


class Mixed(nn.Module):
    """Float layers around integer ones, and shapes from the size of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding="same"), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        )
        self.middle = Between(weighted(nnq.Conv2d(8, 8, 3, padding=1)))
        self.gate = nn.Linear(8, 8)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(8 * 16, 10), nn.LogSoftmax(1))

    def forward(self, x):
        y = self.stem(x)
        y = 0.5 * y + self.middle(y) - 1.0
        weights = torch.sigmoid(self.gate(y.mean([2, 3])))
        y = y * weights[:, :, None, None]
        a, b = torch.chunk(F.gelu(F.avg_pool2d(y, 2)), 2, dim=1)
        y = torch.cat([a, F.silu(b)], 1).transpose(2, 3)
        return self.head(y.reshape(y.size(0), -1)), y.amax((2, 3)).unsqueeze(1)


def test_float_layers_stay_float_and_any_batch_runs():
    torch.manual_seed(0)
    model = Mixed()  # in training mode: a copy in eval mode is exported
    proto = export.onnx(model, normal(2, 3, 8, 8))
    assert model.training
    model.eval()
    assert [v.type.tensor_type.shape.dim[0].dim_param for v in proto.graph.output] == ["batch"] * 2
    for rows in (1, 3):
        x = normal(rows, 3, 8, 8, seed=5)
        for y, expected in zip(_runtime.run(proto, x), model(x), strict=True):
            assert y.shape == expected.shape
            # Of a step of 0.1 of the middle, here and there.
            torch.testing.assert_close(y, expected, rtol=0, atol=0.03)


def test_one_size_alone_where_the_arithmetic_depends_on_it():
    model = calling(lambda x: x * x.size(0))
    with pytest.raises(ValueError, match="dynamic_batch=False"):
        export.onnx(model, normal(2, 3))
    proto = export.onnx(model, normal(2, 3), dynamic_batch=False)
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2
    x = normal(2, 3)
    assert torch.equal(_runtime.run(proto, x)[0], 2 * x)


def test_biases_that_int32_does_not_hold():
    """Channels without weights get a greater scale; others add a float after the convolution."""
    layer = nnq.Conv2d(8, 4, 1)
    weight = weighted(nnq.Conv2d(8, 4, 1)).weight()
    weight.values[2], weight.scale[2] = 0, 1e-12
    layer.set_weight_bias(weight, torch.tensor([1.0, 0.5, 3.0, -2.0]))
    layer.scale, layer.zero_point = 0.1, 100
    check_against_onnxruntime(layer, normal(*IMAGE))
    used = nnq.Conv2d(32, 4, 1)
    weight = weighted(nnq.Conv2d(32, 4, 1)).weight()
    weight.values[1], weight.scale[1] = 127, 1.8e-7
    used.set_weight_bias(weight, torch.tensor([1.0, 12.0, 3.0, -2.0]))
    used.scale, used.zero_point = 0.1, 100
    check_against_onnxruntime(used, torch.full((1, 32, 3, 3), 4.0))


def check_against_onnxruntime(layer: nn.Module, x: torch.Tensor) -> None:
    """The same integers, but one in a hundred by one."""
    model = Between(layer)
    (y,) = _runtime.run(export.onnx(model, x), x)
    off = ((y - model(x)) / layer.scale).round().abs()
    assert off.max() <= 1
    assert off.mean() < 0.01


def test_what_has_no_operator_is_named():
    with pytest.raises(NotImplementedError, match="no operator for cumsum"):
        export.onnx(calling(torch.cumsum, 1), normal(2, 3))
    with pytest.raises(NotImplementedError, match="gives a number to Python"):
        export.onnx(calling(lambda x: x if x.sum().item() > 0 else -x), normal(2, 3))
    with pytest.raises(NotImplementedError, match="no operator for __get__"):
        export.onnx(calling(lambda x: x.real), normal(2, 3))
    with pytest.raises(NotImplementedError, match="views of"):
        export.onnx(calling(lambda x: (x.view(3, -1).relu_(), x * 2)[1]), normal(2, 3))
    with pytest.raises(NotImplementedError, match="windows of several sizes"):
        export.onnx(Between(calling(qF.adaptive_avg_pool2d, 2)), normal(*IMAGE))


def test_nothing_stays_replaced():
    from lowbit.functional.int8 import pool

    before = pool.max_pool
    with pytest.raises(NotImplementedError):
        export.onnx(Between(calling(qF.avg_pool2d, 2, divisor_override=3)), normal(*IMAGE))
    assert pool.max_pool is before


def test_embeddings_are_gathered():
    layer = nnq.Embedding(11, 6, dtype="quint4x2")
    layer.set_weight(nnq.Embedding.from_float(with_qconfig(nn.Embedding(11, 6))).weight())
    indices = torch.tensor([[1, 10, 3], [0, 0, 7]])
    (y,) = _runtime.run(export.onnx(layer, indices), indices[:1])
    assert torch.equal(y, layer(indices[:1]))
    bag = nnq.EmbeddingBag(11, 6, mode="mean")
    bag.set_weight(nnq.Embedding.from_float(with_qconfig(nn.Embedding(11, 6), None)).weight())
    (y,) = _runtime.run(export.onnx(bag, indices), indices)
    torch.testing.assert_close(y, bag(indices))


def with_qconfig(module, bits=4):
    from lowbit import qconfig

    float4 = qconfig.float_qparams_weight_only_qconfig_4bit
    module.qconfig = float4 if bits else None
    return module


def test_the_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    model, x = Between(nnq.MaxPool2d(2)), normal(*IMAGE)
    proto = export.onnx(model, x, path)
    assert onnx.load(path) == proto
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", lambda *args: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            export.onnx(model, x, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "lowbit\[onnx\]"'):
        export.onnx(nn.ReLU(), normal(2, 3))


def statistics(model: nn.Module) -> nn.Module:
    """Batch norms that change what they see."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


CONVERTED = {
    "LeNet": (lambda: models.LeNet(), (1, 28, 28)),
    "VGGSmall": (lambda: models.VGGSmall(width=8, order="bn_pool"), (3, 32, 32)),
    "ResNet18": (lambda: models.ResNet18(width=8), (3, 32, 32)),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_a_converted_model_gives_the_same_answers_by_integer_kernels(name, tmp_path):
    torch.manual_seed(0)
    make, shape = CONVERTED[name]
    prepared = lowbit.prepare(statistics(make()), example=normal(2, *shape))
    for seed in range(3):
        prepared(normal(8, *shape, seed=seed))
    model, _ = lowbit.convert(prepared, to="int8")
    x = normal(32, *shape, seed=9)
    with torch.no_grad():
        expected = model(x)
    for fused_adds in (True, False):
        proto = export.onnx(model, x[:2], fused_adds=fused_adds)
        (y,) = _runtime.run(proto, x)
        assert (y.argmax(1) == expected.argmax(1)).float().mean() >= 31 / 32
        error = (y - expected).square().mean().sqrt() / expected.std()
        assert error < (0.02 if fused_adds else 0.1)
    found = _runtime.kernels(proto, tmp_path)
    # All but a convolution whose output stays in float.
    rounded = {n.input[0] for n in proto.graph.node if n.op_type == "QuantizeLinear"}
    convolutions = [n for n in proto.graph.node if n.op_type == "Conv"]
    integer = [n for n in convolutions if n.output[0] in rounded]
    assert found.count("QLinearConv") == len(integer) > 1
    assert len(convolutions) - len(integer) <= (name == "ResNet18")


def test_with_integer_biases_the_file_gives_lowbits_own_integers():
    model, x = Between(weighted(nnq.Conv2d(8, 12, 3))), normal(50, 8, 11, 9)
    x = model.quantize(x).dequantize()
    rounded = export.integer_biases(model, x[:1])
    (y,) = _runtime.run(export.onnx(model, x[:2]), x)
    steps = ((y - model(x)) / model.layer.scale).round().abs()
    assert 20 < steps.sum() < 200
    steps = ((y - rounded(x)) / model.layer.scale).round().abs()
    assert steps.sum() <= 8  # of 37800: ties, and sums of floats beside them
    # A copy: half a step of the sums, where the weights' scales differ by channel.
    step = model.layer.weight().scale * model.quantize.scale
    moved = (rounded.layer.bias() - model.layer.bias()).abs()
    assert (moved > 0).all()
    assert (moved <= 0.5001 * step).all()


def test_a_layer_of_two_scales_has_no_integer_bias():
    class Twice(Between):
        def forward(self, x):
            return self.dequantize(self.layer(self.layer(self.quantize(x))))

    with pytest.raises(ValueError, match=r"inputs of the scales 0\.0\d+ and 0\.1"):
        export.integer_biases(Twice(weighted(nnq.Linear(8, 8))), normal(2, 8))


def test_where_no_file_can_be_it_says_so_before_the_work(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*absent for model\.onnx"):
        export.onnx(nn.ReLU(), torch.zeros(1, 3), tmp_path / "absent" / "model.onnx")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        export.onnx(nn.ReLU(), torch.zeros(1, 3), tmp_path)
