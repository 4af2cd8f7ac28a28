"""The documents of torch.nn.quantized, .dynamic and .qat hold here, with the import changed alone.

Each example runs, and returns what torch returns while torch has it; each name takes the arguments
of the documents, in their order and with their defaults; what torch refuses is refused.
"""

import ast
import importlib
import inspect
import textwrap
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import lowbit
from lowbit import observers, qconfig
from lowbit.nn import qat
from lowbit.nn import quantized as nnq
from lowbit.nn.quantized import dynamic
from lowbit.qtensor import QTensor, from_torch_quantized, plain_dtype
from tests.nn.quantized import _documents as documents

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not hasattr(torch, "quint8"), reason="the examples name torch.quint8"),
]


def run(example: str, names: dict) -> dict:
    """The variables of an example, with the value of a last expression as ``_``.

    Lines of output are left out: print() is for the eye, and torch's differs from a QTensor's.
    """
    lines, inside = [], False
    for line in textwrap.dedent(example).splitlines():
        if line.startswith(">>>"):
            lines.append(line[4:])
            inside = line.rstrip().endswith((":", ","))
        elif line.startswith("    ") and inside:
            lines.append(line[4:])
    tree = ast.parse("\n".join(lines))
    if isinstance(tree.body[-1], ast.Expr):
        last = tree.body[-1]
        tree.body[-1] = ast.copy_location(
            ast.Assign([ast.Name("_", ast.Store())], last.value), last
        )
    torch.manual_seed(0)
    exec(compile(ast.fix_missing_locations(tree), "example", "exec"), names)
    return names


def here(example: str, **names) -> dict:
    """An example with lowbit imported in torch's place."""
    changed = example.replace("torch.nn.quantized", "lowbit.nn.quantized")
    changed = changed.replace("torch.quantize_per_tensor", "lowbit.quantize_per_tensor")
    return run(changed, {"torch": torch, "lowbit": lowbit, "nn": lowbit.nn, **names})


def there(example: str, **names) -> dict:
    """The example as it is printed."""
    package = pytest.importorskip("torch.ao.nn.quantized")
    importlib.import_module("torch.nn.quantized.dynamic")
    own = {name: getattr(package, name) for name in package.__all__}
    return run(example, {"torch": torch, "nn": torch.nn, **own, **names})


RESULTS = ("_", "output", "qt", "dequantized", "hn", "cn")


def results(variables: dict) -> dict:
    found = {
        name: variables[name]
        for name in RESULTS
        if name in variables and variables[name] is not None
    }
    assert found
    return found


# Their weights are drawn at random, or left as memory had them, so that only shapes are the same.
DRAWN = {"Embedding", "EmbeddingBag", "Conv1d", "Conv2d", "Conv3d", "Linear"}


@pytest.mark.parametrize("name", documents.STATIC_EXAMPLES)
def test_an_example_of_the_static_document_runs(name):
    example = documents.STATIC_EXAMPLES[name]
    ours = {key: getattr(nnq, key) for key in nnq.__all__}
    found, expected = results(here(example, **ours)), results(there(example))
    assert found.keys() == expected.keys()
    for key, value in found.items():
        other = expected[key]
        assert value.shape == other.shape
        if name in DRAWN:
            continue
        if isinstance(value, Tensor):
            assert torch.equal(value, other)
        else:
            assert value.equal(from_torch_quantized(other))


@pytest.mark.parametrize("name", documents.DYNAMIC_EXAMPLES)
def test_an_example_of_the_dynamic_document_runs(name):
    example = documents.DYNAMIC_EXAMPLES[name]
    if name != "Linear":  # in the document "nn" is any package of such cells
        found = here(example, nn=dynamic)
        expected = there(example, nn=importlib.import_module("torch.ao.nn.quantized.dynamic"))
    else:
        found, expected = here(example), there(example)
    for key, value in results(found).items():
        other = expected[key]
        shapes = [x.shape for x in (value if isinstance(value, list) else [value])]
        assert shapes == [x.shape for x in (other if isinstance(other, list) else [other])]


def test_the_quantize_examples_give_the_numbers_of_the_document():
    names = {key: getattr(nnq, key) for key in nnq.__all__}
    qt = here(documents.STATIC_EXAMPLES["Quantize"], **names)["qt"]
    assert torch.equal(qt.dequantize(), torch.tensor([[1.0, -1.0], [1.0, -1.0]]))
    assert (qt.dtype, qt.q_scale(), qt.q_zero_point()) == (torch.int8, 1.0, 2)


def signature(line: str) -> tuple[str, dict]:
    """The name in a signature of the documents, and its arguments with their defaults."""
    call = ast.parse(line, mode="eval").body
    arguments: dict = {arg.id: inspect.Parameter.empty for arg in call.args}
    for keyword in call.keywords:
        source = ast.unparse(keyword.value)
        dtype = source.removeprefix("torch.")
        arguments[keyword.arg] = dtype if dtype in ("quint8", "qint8") else ast.literal_eval(source)
    return ast.unparse(call.func), arguments


@pytest.mark.parametrize("line", documents.SIGNATURES, ids=lambda line: line.partition("(")[0])
def test_a_name_of_the_documents_takes_their_arguments(line):
    name, documented = signature(line)
    path = name.replace("torch.nn", "lowbit.nn").split(".")
    module = "lowbit.nn.qat" if ".qat." in name else "lowbit.nn.quantized"
    found = importlib.import_module(module)
    for part in path[len(module.split(".")) :]:
        found = getattr(found, part)
    own = inspect.signature(found).parameters
    own = {key: value for key, value in own.items() if key != "self"}
    assert list(own)[: len(documented)] == list(documented)
    for key, default in documented.items():
        ours = own[key].default
        if default in ("quint8", "qint8"):
            assert plain_dtype(ours) == plain_dtype(default)
        else:
            assert ours == default
    for parameter in list(own.values())[len(documented) :]:  # none more is needed
        needed = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        assert not needed or parameter.default is not inspect.Parameter.empty


@pytest.mark.parametrize("kind", ["FloatFunctional", "QFunctional"])
def test_the_operations_of_the_functionals_are_there(kind):
    for operation in documents.FLOAT_OPERATIONS:
        assert callable(getattr(getattr(nnq, kind)(), operation))


def test_lstm_and_cells_take_the_arguments_of_torchs():
    for name in ("LSTM", "LSTMCell"):
        float_kind = getattr(nn, name)
        options = {"num_layers": 2, "batch_first": True} if name == "LSTM" else {}
        ours = getattr(dynamic, name)(10, 20, **options)
        x = torch.randn(3, 5, 10) if name == "LSTM" else torch.randn(3, 10)
        expected = float_kind(10, 20, **options)(x)
        for a, b in zip(_flat(ours(x)), _flat(expected), strict=True):
            assert a.shape == b.shape


def _flat(out) -> list[Tensor]:
    return [out] if isinstance(out, Tensor) else [x for part in out for x in _flat(part)]


def test_the_attributes_of_the_documents_are_there():
    """weight and bias are methods; scale and zero_point of outputs are numbers."""
    for module in (nnq.Linear(4, 3), nnq.Conv1d(4, 3, 2), nnq.Conv2d(4, 3, 2), nnq.Conv3d(4, 3, 2)):
        assert isinstance(module.weight(), QTensor)
        assert torch.equal(module.bias(), torch.zeros(3))
        assert (module.scale, module.zero_point) == (1.0, 0)
    for module in (nnq.Embedding(4, 6), nnq.EmbeddingBag(4, 6)):
        assert module.weight().shape == (4, 6)
    module = nnq.Quantize(0.5, 3, "quint8")
    assert (module.scale, module.zero_point, module.dtype) == (0.5, 3, torch.uint8)
    module = dynamic.Linear(4, 3)
    assert (module.weight().shape, module.bias().shape) == ((3, 4), (3,))


def test_qat_linear_does_what_its_source_says():
    linear = nn.Linear(4, 3)
    with pytest.raises(ValueError, match="qconfig"):
        qat.Linear(4, 3)
    linear.qconfig = qconfig.get_default_qat_qconfig("x86")
    module = qat.Linear.from_float(linear)
    assert module.weight is linear.weight
    assert module.bias is linear.bias
    x = torch.randn(5, 4)
    rounded = module.weight_fake_quant(module.weight)
    assert torch.equal(module(x), nn.functional.linear(x, rounded, module.bias))
    back = module.to_float()
    assert type(back) is nn.Linear
    assert torch.equal(back.weight, linear.weight)
    assert back.weight is not linear.weight


def test_qat_linear_carries_parametrizations_over():
    class Doubled(nn.Module):
        def forward(self, weight):
            return 2 * weight

    linear = nn.Linear(4, 3)
    before = linear.weight.detach().clone()
    nn.utils.parametrize.register_parametrization(linear, "weight", Doubled())
    linear.qconfig = qconfig.get_default_qat_qconfig("x86")
    module = qat.Linear.from_float(linear)
    assert nn.utils.parametrize.is_parametrized(module, "weight")
    assert torch.equal(module.weight, 2 * before)


# What torch refuses: a call for both packages.


def legacy() -> SimpleNamespace:
    ao = pytest.importorskip("torch.ao.quantization")
    return SimpleNamespace(
        q=importlib.import_module("torch.ao.nn.quantized"),
        F=importlib.import_module("torch.ao.nn.quantized.functional"),
        d=importlib.import_module("torch.ao.nn.quantized.dynamic"),
        qat=importlib.import_module("torch.ao.nn.qat"),
        qconfig=ao,
        observer=ao,
        per_tensor=torch.quantize_per_tensor,
    )


OURS = SimpleNamespace(
    q=nnq,
    F=nnq.functional,
    d=dynamic,
    qat=qat,
    qconfig=qconfig,
    observer=observers,
    per_tensor=lowbit.quantize_per_tensor,
)


def u8(at, *shape):
    return at.per_tensor(torch.zeros(*shape), 0.1, 0, torch.quint8)


def s8(at, *shape):
    return at.per_tensor(torch.zeros(*shape), 0.1, 0, torch.qint8)


def with_qconfig(module: nn.Module, qconfig) -> nn.Module:
    module.qconfig = qconfig
    return module


def of_uint8(at):
    return at.qconfig.QConfig(
        activation=at.observer.MinMaxObserver,
        weight=at.observer.MinMaxObserver.with_args(dtype=torch.quint8),
    )


CONVS = {1: (2, 3, 9), 2: (2, 3, 9, 9), 3: (2, 3, 5, 5, 5)}
REFUSED = {
    **{
        f"F.conv{n}d.{why}": call
        for n, shape in CONVS.items()
        for why, call in {
            "padding_mode": lambda at, n=n, shape=shape: getattr(at.F, f"conv{n}d")(
                u8(at, *shape), s8(at, 4, 3, *[2] * n), None, padding_mode="reflect"
            ),
            "input_dtype": lambda at, n=n, shape=shape: getattr(at.F, f"conv{n}d")(
                s8(at, *shape), s8(at, 4, 3, *[2] * n), None
            ),
            "weight_dtype": lambda at, n=n, shape=shape: getattr(at.F, f"conv{n}d")(
                u8(at, *shape), u8(at, 4, 3, *[2] * n), None
            ),
            "axes": lambda at, n=n: getattr(at.F, f"conv{n}d")(
                u8(at, 2, 3), s8(at, 4, 3, *[2] * n), None
            ),
        }.items()
    },
    **{
        f"F.{name}.not_quantized": lambda at, name=name, rest=rest: getattr(at.F, name)(
            torch.zeros(1, 2, 4, 4), *rest
        )
        for name, rest in {
            "avg_pool2d": (2,),
            "adaptive_avg_pool2d": (1,),
            "interpolate": (8,),
            "celu": (0.1, 0),
            "elu": (0.1, 0),
            "hardswish": (0.1, 0),
            "hardsigmoid": (),
            "hardtanh": (),
            "clamp": (0.0, 1.0),
            "threshold": (0.0, 1.0),
        }.items()
    },
    "F.avg_pool3d.not_quantized": lambda at: at.F.avg_pool3d(torch.zeros(1, 2, 4, 4, 4), 2),
    "F.adaptive_avg_pool3d.not_quantized": lambda at: at.F.adaptive_avg_pool3d(
        torch.zeros(1, 2, 4, 4, 4), 1
    ),
    "F.max_pool1d.indices": lambda at: at.F.max_pool1d(u8(at, 1, 2, 4), 2, return_indices=True),
    "F.max_pool2d.indices": lambda at: at.F.max_pool2d(u8(at, 1, 2, 4, 4), 2, return_indices=True),
    "F.threshold.no_threshold": lambda at: at.F.threshold(u8(at, 3), None, 1.0),
    "F.threshold.no_value": lambda at: at.F.threshold(u8(at, 3), 1.0, None),
    "F.leaky_relu.in_place": lambda at: at.F.leaky_relu(u8(at, 3), 0.1, True, 0.2, 3),
    "F.linear.vector": lambda at: at.F.linear(u8(at, 4), s8(at, 3, 4)),
    "F.linear.weight_dtype": lambda at: at.F.linear(u8(at, 2, 4), u8(at, 3, 4)),
    "F.linear.not_quantized": lambda at: at.F.linear(torch.zeros(2, 4), s8(at, 3, 4)),
    "F.interpolate.mode": lambda at: at.F.interpolate(u8(at, 1, 2, 4, 4), 8, mode="bicubic"),
    **{
        f"Conv{n}d.{why}": call
        for n, shape in CONVS.items()
        for why, call in {
            "no_channels": lambda at, n=n: getattr(at.q, f"Conv{n}d")(0, 4, 3),
            "no_output": lambda at, n=n: getattr(at.q, f"Conv{n}d")(4, 0, 3),
            "groups": lambda at, n=n: getattr(at.q, f"Conv{n}d")(4, 4, 3, groups=3),
            "padding_mode": lambda at, n=n: getattr(at.q, f"Conv{n}d")(
                4, 4, 3, padding_mode="circular"
            ),
            "axes": lambda at, n=n: getattr(at.q, f"Conv{n}d")(3, 4, 2)(u8(at, 2, 3)),
            "not_quantized": lambda at, n=n, shape=shape: getattr(at.q, f"Conv{n}d")(3, 4, 2)(
                torch.zeros(shape)
            ),
            "other_module": lambda at, n=n: getattr(at.q, f"Conv{n}d").from_float(nn.Linear(3, 4)),
            "no_qconfig": lambda at, n=n: getattr(at.q, f"Conv{n}d").from_float(
                getattr(nn, f"Conv{n}d")(3, 4, 2)
            ),
            "weight_observer": lambda at, n=n: getattr(at.q, f"Conv{n}d").from_float(
                with_qconfig(getattr(nn, f"Conv{n}d")(3, 4, 2), of_uint8(at))
            ),
            "transposed_mode": lambda at, n=n: getattr(at.q, f"ConvTranspose{n}d")(
                4, 4, 3, padding_mode="reflect"
            ),
            "transposed_axes": lambda at, n=n: getattr(at.q, f"ConvTranspose{n}d")(3, 4, 2)(
                u8(at, 2, 3)
            ),
            "dynamic_axes": lambda at, n=n: getattr(at.d, f"Conv{n}d")(3, 4, 2)(torch.zeros(2, 3)),
        }.items()
    },
    "Linear.dtype": lambda at: at.q.Linear(3, 4, dtype=torch.quint8),
    "Linear.not_quantized": lambda at: at.q.Linear(3, 4)(torch.zeros(2, 3)),
    "Linear.other_module": lambda at: at.q.Linear.from_float(nn.Conv2d(3, 4, 2)),
    "Linear.no_qconfig": lambda at: at.q.Linear.from_float(nn.Linear(3, 4)),
    "dynamic.Linear.dtype": lambda at: at.d.Linear(3, 4, dtype=torch.quint8),
    "dynamic.Linear.other_module": lambda at: at.d.Linear.from_float(nn.Conv2d(3, 4, 2)),
    "dynamic.Linear.no_qconfig": lambda at: at.d.Linear.from_float(nn.Linear(3, 4)),
    "dynamic.Linear.weight_observer": lambda at: at.d.Linear.from_float(
        with_qconfig(nn.Linear(3, 4), of_uint8(at))
    ),
    "dynamic.LSTM.no_bias": lambda at: at.d.LSTM.from_float(
        with_qconfig(nn.LSTM(3, 4, bias=False), None)
    ),
    "dynamic.LSTM.dropout": lambda at: at.d.LSTM(3, 4, dropout=1.5),
    "dynamic.LSTM.other_module": lambda at: at.d.LSTM.from_float(nn.Linear(3, 4)),
    "dynamic.LSTM.no_qconfig": lambda at: at.d.LSTM.from_float(nn.LSTM(3, 4)),
    "dynamic.LSTM.shape": lambda at: at.d.LSTM(3, 4)(torch.zeros(5, 2, 7)),
    "dynamic.LSTM.state": lambda at: at.d.LSTM(3, 4)(
        torch.zeros(5, 2, 3), (torch.zeros(1, 2, 5), torch.zeros(1, 2, 5))
    ),
    "dynamic.GRU.shape": lambda at: at.d.GRU(3, 4)(torch.zeros(5, 2, 7)),
    "dynamic.LSTMCell.shape": lambda at: at.d.LSTMCell(3, 4)(torch.zeros(2, 7)),
    "dynamic.LSTMCell.no_qconfig": lambda at: at.d.LSTMCell.from_float(nn.LSTMCell(3, 4)),
    "dynamic.RNNCell.nonlinearity": lambda at: at.d.RNNCell(3, 4, nonlinearity="gelu")(
        torch.zeros(2, 3)
    ),
    "BatchNorm2d.axes": lambda at: at.q.BatchNorm2d(3)(u8(at, 2, 3, 4)),
    "BatchNorm3d.axes": lambda at: at.q.BatchNorm3d(3)(u8(at, 2, 3, 4, 4)),
    "Embedding.dtype": lambda at: at.q.Embedding(4, 6, dtype=torch.qint8),
    "Embedding.weight_shape": lambda at: at.q.Embedding(4, 6, _weight=u8(at, 3, 6)),
    "Embedding.other_module": lambda at: at.q.Embedding.from_float(nn.Linear(3, 4)),
    "Embedding.no_qconfig": lambda at: at.q.Embedding.from_float(nn.Embedding(4, 6)),
    "Embedding.observer": lambda at: at.q.Embedding.from_float(
        with_qconfig(nn.Embedding(4, 6), at.qconfig.default_qconfig)
    ),
    "EmbeddingBag.other_module": lambda at: at.q.EmbeddingBag.from_float(nn.Embedding(4, 6)),
    "EmbeddingBag.no_qconfig": lambda at: at.q.EmbeddingBag.from_float(nn.EmbeddingBag(4, 6)),
    "FloatFunctional.called": lambda at: at.q.FloatFunctional()(torch.zeros(2)),
    "FXFloatFunctional.called": lambda at: at.q.FXFloatFunctional()(torch.zeros(2)),
    "QFunctional.called": lambda at: at.q.QFunctional()(u8(at, 2)),
    "QFunctional.other_module": lambda at: at.q.QFunctional.from_float(nn.Linear(3, 4)),
    "QFunctional.two_dtypes": lambda at: at.q.QFunctional().add(u8(at, 2), s8(at, 2)),
    "QFunctional.not_quantized": lambda at: at.q.QFunctional().add(torch.zeros(2), torch.zeros(2)),
    "Quantize.half": lambda at: at.q.Quantize(0.1, 0, torch.quint8)(torch.zeros(2).half()),
    "Quantize.zero_point": lambda at: at.q.Quantize(0.1, 300, torch.quint8)(torch.zeros(2)),
    "quantize_per_tensor.zero_point": lambda at: at.per_tensor(
        torch.zeros(2), 0.1, 300, torch.quint8
    ),
    "qat.Linear.no_qconfig": lambda at: at.qat.Linear(3, 4),
    "qat.Linear.other_module": lambda at: at.qat.Linear.from_float(nn.Conv2d(3, 4, 2)),
    "qat.Linear.from_float.no_qconfig": lambda at: at.qat.Linear.from_float(nn.Linear(3, 4)),
    "qat.Linear.from_float.none": lambda at: at.qat.Linear.from_float(
        with_qconfig(nn.Linear(3, 4), None)
    ),
    "qat.Conv2d.no_qconfig": lambda at: at.qat.Conv2d(3, 4, 2),
    "qat.Conv2d.other_module": lambda at: at.qat.Conv2d.from_float(nn.Linear(3, 4)),
    "qat.Embedding.no_qconfig": lambda at: at.qat.Embedding(4, 6),
    "qat.Embedding.other_module": lambda at: at.qat.Embedding.from_float(nn.Linear(3, 4)),
    "observer.symmetric_reduced": lambda at: at.observer.MinMaxObserver(
        dtype=torch.quint8, qscheme=torch.per_tensor_symmetric, reduce_range=True
    ),
    "observer.empty_range": lambda at: at.observer.MinMaxObserver(
        dtype=torch.quint8, quant_min=10, quant_max=5
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_torch_refuses_is_refused_with_a_reason(name):
    call = REFUSED[name]
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        call(legacy())
    assert theirs.type is not AttributeError, "the test asks for what torch has not"
    with pytest.raises((TypeError, ValueError, NotImplementedError, RuntimeError)) as ours:
        call(OURS)
    assert type(ours.value) in (TypeError, ValueError, NotImplementedError, RuntimeError)
    assert len(str(ours.value).split()) >= 5
    assert "/lowbit/" in str(ours.traceback[-1].path), "not a message of ours"


@pytest.mark.parametrize("kind", ["Conv1d", "Conv2d", "Conv3d"])
def test_padding_by_reflection_is_there_for_volumes_as_well(kind):
    """The documents have zeros alone, torch's code reflection too, but for three axes."""
    dims = int(kind[4])
    module = getattr(nnq, kind)(2, 3, 3, padding=1, padding_mode="reflect")
    weight = lowbit.quantize_per_tensor(torch.randn(3, 2, *[3] * dims), 0.02, 0, "int8")
    module.set_weight_bias(weight, None)
    module.scale, module.zero_point = 0.1, 100
    x = lowbit.quantize_per_tensor(torch.randn(2, 2, *[5] * dims), 0.03, 90, "uint8")
    padded = nn.functional.pad(x.dequantize(), [1] * 2 * dims, mode="reflect")
    function = getattr(nn.functional, kind.lower())
    exact = function(padded, weight.dequantize()).clamp(-10, 15.5)
    assert (module(x).dequantize() - exact).abs().max() < 0.0501
