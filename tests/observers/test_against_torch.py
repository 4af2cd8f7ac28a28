"""Drawn inputs and settings: the same numbers as torch.ao's, while the installed torch has it."""

import random
import warnings

import pytest
import torch

from lowbit import observers as ours
from lowbit import qconfig

theirs = pytest.importorskip("torch.ao.quantization")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not hasattr(torch, "quint8"), reason="torch has no quantized dtypes"),
]


CHANNELS = ("PerChannelMinMax", "MovingAveragePerChannelMinMax")


def draw(seed):
    """A name, arguments, inputs."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    name = rng.choice([*("MinMax", "MovingAverageMinMax", "Histogram"), *CHANNELS])
    unit = "channel" if "Channel" in name else "tensor"
    signed = rng.random() < 0.5
    arguments = {
        "dtype": "qint8" if signed else "quint8",
        "qscheme": f"per_{unit}_{rng.choice(['affine', 'symmetric'])}",
        "eps": rng.choice([2**-12, torch.finfo(torch.float32).eps]),
    }
    if rng.random() < 0.3:
        bits = rng.randint(2, 8)
        low = -(2 ** (bits - 1)) if signed else 0
        arguments |= {"quant_min": low, "quant_max": low + 2**bits - 1}
    elif signed or "affine" in arguments["qscheme"]:
        arguments["reduce_range"] = rng.random() < 0.3
    if unit == "channel":
        arguments["ch_axis"] = rng.randrange(3)
        if not signed and rng.random() < 0.3:
            arguments["qscheme"] = "per_channel_affine_float_qparams"
    if "Moving" in name:
        arguments["averaging_constant"] = rng.choice([0.01, 0.3, 1])
    shape = [rng.randint(1, 9) for _ in range(3)]
    spread, shift = 10 ** rng.uniform(-4, 3), rng.uniform(-2, 2)
    shapes = [torch.randn, torch.rand, lambda s: torch.randn(s).relu(), torch.ones]
    xs = [spread * (rng.choice(shapes)(shape) + shift) for _ in range(rng.randint(1, 4))]
    return name + "Observer", arguments, xs


@pytest.mark.parametrize("seed", range(80))
def test_observers(seed):
    name, arguments, xs = draw(seed)
    mine = getattr(ours, name)(**arguments)
    legacy = {**arguments, "dtype": getattr(torch, arguments["dtype"])}
    legacy["qscheme"] = getattr(torch, arguments["qscheme"])
    other = getattr(theirs, name)(**legacy)
    for x in xs:
        mine(x)
        other(x)
    for key, value in other.state_dict().items():
        torch.testing.assert_close(mine.state_dict()[key], value, rtol=0, atol=0)
    for value, expected in zip(mine.calculate_qparams(), other.calculate_qparams(), strict=True):
        torch.testing.assert_close(value, expected, rtol=0, atol=0)
    again = getattr(ours, name)(**arguments)
    again.load_state_dict(other.state_dict())
    assert torch.equal(again.calculate_qparams()[0], other.calculate_qparams()[0])


@pytest.mark.parametrize("side", [1, -1])
def test_a_histogram_whose_cut_falls_between_two_bins(side):
    """1e-5 of 100000 elements is the outermost of them, and a bin of its own."""
    x = torch.randn(99_999).clamp(-4, 4)
    x = side * torch.cat([x, torch.tensor([9.0])])
    mine, other = ours.HistogramObserver(), theirs.HistogramObserver()
    mine(x)
    other(x)
    for value, expected in zip(mine.calculate_qparams(), other.calculate_qparams(), strict=True):
        assert torch.equal(value, expected)


def settings(made):
    """What an observer or fake quantizer is told, with names for torch's objects."""
    fake = hasattr(made, "activation_post_process")
    names = ("dtype", "quant_min", "quant_max", "qscheme", "ch_axis", "is_dynamic")
    found = {key: getattr(made, key, None) for key in names}
    observer = made.activation_post_process if fake else made
    more = ("averaging_constant", "reduce_range", "eps", "bins")
    found |= {f"observer.{key}": getattr(observer, key, None) for key in more}
    found |= {"class": type(made).__name__, "observer": type(observer).__name__}
    plain = {"quint8": "uint8", "qint8": "int8", "quint4x2": "uint8"}
    text = {key: str(value).removeprefix("torch.") for key, value in found.items()}
    return {key: plain.get(value, value) for key, value in text.items()}


NAMES = [
    name
    for module in (ours, qconfig)
    for name in module.__all__
    if name.startswith(("default_", "float16", "float_q", "per_channel", "weight_o", "fused"))
    and not name.endswith("_2bit")  # ours alone
]


@pytest.mark.parametrize("name", NAMES)
def test_the_usual_settings(name):
    mine = getattr(ours, name, None) or getattr(qconfig, name)
    other = getattr(theirs.observer, name, None) or getattr(theirs.fake_quantize, name, None)
    other = other or getattr(theirs.qconfig, name)
    pairs = [(mine, other)] if name not in qconfig.__all__ else zip(mine, other, strict=True)
    for made, expected in pairs:
        assert settings(made()) == settings(expected())


@pytest.mark.parametrize("backend", ["x86", "fbgemm", "onednn", "qnnpack"])
@pytest.mark.parametrize("kind", ["qconfig", "qat_qconfig"])
def test_the_backends_settings(backend, kind):
    for version in (0, 1) if "qat" in kind else (0,):
        mine = getattr(qconfig, f"get_default_{kind}")(backend, version)
        other = getattr(theirs, f"get_default_{kind}")(backend, version)
        for made, expected in zip(mine, other, strict=True):
            assert settings(made()) == settings(expected())


@pytest.mark.parametrize("seed", range(12))
def test_fake_quantizers_and_their_states(seed):
    """Version 0 of torch.ao, whose scale in training is that of conversion."""
    torch.manual_seed(seed)
    backend = ("x86", "qnnpack")[seed % 2]
    mine, other = (
        library.get_default_qat_qconfig(backend, 0)[seed % 3 == 0] for library in (qconfig, theirs)
    )
    mine, other = mine(), other()
    for step in range(4):
        x = torch.randn(6, 10) * (1 + step)
        gradient = torch.randn(6, 10)
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        y, z = mine(a), other(b)
        y.backward(gradient)
        z.backward(gradient)
        assert torch.equal(y, z)
        assert torch.equal(a.grad, b.grad)
    assert mine.state_dict().keys() == other.state_dict().keys()
    loaded = type(mine)(observer=type(mine.activation_post_process), **shared(mine))
    loaded.load_state_dict(other.state_dict())
    loaded.disable_observer()
    assert torch.equal(loaded(x), y)


def shared(fake):
    return {key: getattr(fake, key) for key in ("quant_min", "quant_max", "dtype", "qscheme")}


@pytest.mark.parametrize("channels", [-1, 6])
@pytest.mark.parametrize("scaled", [False, True])
def test_learned_grids(channels, scaled):
    from torch.ao.quantization._learnable_fake_quantize import _LearnableFakeQuantize

    name = "MovingAverage" + ("PerChannel" if channels > 0 else "") + "MinMaxObserver"
    unit = "channel" if channels > 0 else "tensor"
    common = {"quant_min": 0, "quant_max": 15, "channel_len": channels, "use_grad_scaling": scaled}
    mine = ours.LearnableFakeQuantize(
        getattr(ours, name), **common, qscheme=f"per_{unit}_affine", dtype="quint8"
    )
    other = _LearnableFakeQuantize(
        getattr(theirs, name), **common, qscheme=getattr(torch, f"per_{unit}_affine")
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for fake in (mine, other):
            fake(torch.linspace(-1, 1.5, 60).reshape(6, 10))
            fake.enable_param_learning()
    x, gradient = 2 * torch.randn(6, 10), torch.randn(6, 10)
    for fake in (mine, other):
        fake(x).backward(gradient)
    assert torch.equal(mine(x), other(x))
    torch.testing.assert_close(mine.scale.grad, other.scale.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mine.zero_point.grad, other.zero_point.grad)
    assert mine.state_dict().keys() == other.state_dict().keys()
    mine.load_state_dict(other.state_dict())
