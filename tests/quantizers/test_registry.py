"""Quantizers by name: what a spec may be, how names are spelt, what errors say."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lowbit
from lowbit.functional import sign
from lowbit.quantizers import Quantizer, get, names, register
from lowbit.quantizers._registry import quantizers

EXPECTED = [
    "identity",
    "sign",
    "ste_sign",
    "approx_sign",
    "swish_sign",
    "ede",
    "reste",
    "rbnn_poly",
    "rbnn_rotate",
    "progressive_sign",
    "ste_heaviside",
    "stochastic_sign",
    "rsign",
    "elastic_sign",
    "xnor",
    "magnitude_aware_sign",
    "bireal_weight",
    "libra",
    "recu",
    "siman",
    "adabin_weight",
    "adabin_input",
    "bitnet_binary",
    "bitnet_ternary",
    "twn",
    "ttq",
    "ste_tern",
    "dorefa_weight",
    "dorefa_input",
    "dorefa_gradient",
    "tanh",
    "pact",
    "lsq",
    "lsq_plus",
    "apot",
    "hwgq",
    "lq",
    "int_k",
    "absmax_int8",
]


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that a test registers are gone after it."""
    monkeypatch.setattr(quantizers, "_classes", dict(quantizers._classes))
    monkeypatch.setattr(quantizers, "_aliases", dict(quantizers._aliases))


class Halves(Quantizer):
    """Sign times one half, straight through: what a user would write."""

    bits = 1
    levels = (-0.5, 0.5)

    def value(self, x: Tensor) -> Tensor:
        return sign(x) / 2

    def slope(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)


@pytest.mark.parametrize("name", EXPECTED)
def test_known_by_name(name: str) -> None:
    assert name in names()
    assert get(name).name == name


def test_names_are_sorted_and_without_aliases() -> None:
    assert list(names()) == sorted(set(names()))
    assert "ste" not in names()


@pytest.mark.parametrize(
    ("spelt", "name"),
    [
        ("ste", "ste_sign"),
        ("SteSign", "ste_sign"),
        ("STE_sign", "ste_sign"),
        ("approxsign", "approx_sign"),
        ("ApproxSign", "approx_sign"),
        ("approx-sign", "approx_sign"),
        ("swishsign", "swish_sign"),
        ("SwishSign", "swish_sign"),
        ("steheaviside", "ste_heaviside"),
        ("progressivesign", "progressive_sign"),
        ("MagnitudeAwareSign", "magnitude_aware_sign"),
        ("SteTern", "ste_tern"),
        ("weightdorefa", "dorefa_weight"),
        ("inputdorefa", "dorefa_input"),
        ("dorefa_quantizer", "dorefa_input"),  # larq's default mode is "activations"
        ("no_op", "identity"),
        ("NoOp", "identity"),
    ],
)
def test_other_spellings_and_other_frameworks_names(spelt: str, name: str) -> None:
    assert get(spelt).name == name


def test_none_is_full_precision() -> None:
    assert get(None) is None


def test_mapping_gives_arguments() -> None:
    assert get({"name": "ste_sign", "clip": 1.25}).clip == 1.25
    assert get({"name": "ste_sign", "clip": 0.0}).clip == 0.0


def test_a_mapping_is_left_as_it_was() -> None:
    spec = {"name": "ste_sign", "clip": 1.25}
    get(spec)
    assert spec == {"name": "ste_sign", "clip": 1.25}


def test_omegaconf_mapping() -> None:
    omegaconf = pytest.importorskip("omegaconf")
    config = omegaconf.OmegaConf.create({"weight": {"name": "lsq", "bits": "${bits}"}, "bits": 3})
    quantizer = get(config.weight)
    assert (quantizer.name, quantizer.bits) == ("lsq", 3)


def test_class_makes_an_instance() -> None:
    assert isinstance(get(type(get("sign"))), type(get("sign")))
    assert isinstance(get(Halves), Halves)  # without being registered


def test_every_call_makes_its_own() -> None:
    assert get("sign") is not get("sign")


def test_an_instance_is_copied_with_parameters_of_its_own() -> None:
    given = get("lsq")
    given(torch.randn(4, 5, generator=torch.Generator().manual_seed(0)))
    taken = get(given)
    assert taken is not given
    for mine, theirs in zip(given.parameters(), taken.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        with torch.no_grad():
            theirs.add_(1)
        assert not torch.equal(mine, theirs)


def test_unknown_name_says_the_nearest_and_the_known() -> None:
    with pytest.raises(ValueError, match="no quantizer named 'aprox_sign'") as error:
        get("aprox_sign")
    assert "did you mean 'approx_sign'?" in str(error.value)
    assert "dorefa_input" in str(error.value)


def test_name_like_nothing_says_the_known() -> None:
    with pytest.raises(ValueError, match=r"known: .*approx_sign") as error:
        get("zzzzzzzz")
    assert "did you mean" not in str(error.value)


def test_wrong_argument_says_which_there_are() -> None:
    with pytest.raises(ValueError, match="clipp") as error:
        get({"name": "ste_sign", "clipp": 1.25})
    assert "clip: float" in str(error.value)


WITH_BITS = [
    n for n in EXPECTED if n in names() and "bits" in inspect.signature(type(get(n))).parameters
]


@pytest.mark.parametrize("bits", [0, -1, 9, 2.5])
@pytest.mark.parametrize("name", WITH_BITS)
def test_bits_out_of_range_are_refused_with_value_and_rule(name: str, bits: float) -> None:
    with pytest.raises(ValueError, match=f"(?s)bits.*{bits}"):
        get({"name": name, "bits": bits})


WITH_CLIP = [
    n for n in EXPECTED if n in names() and "clip" in inspect.signature(type(get(n))).parameters
]


@pytest.mark.parametrize("clip", [-1.0, float("nan"), "1", True])
@pytest.mark.parametrize("name", WITH_CLIP)
def test_a_wrong_clip_is_refused_with_value_and_rule(name: str, clip: object) -> None:
    with pytest.raises(ValueError, match=f"{name} needs clip >= 0; got clip={clip!r}"):
        get({"name": name, "clip": clip})


@pytest.mark.parametrize(
    ("spec", "rule"),
    [
        ({"name": "xnor", "grad": "papers"}, "exact"),
        ({"name": "dorefa_weight", "grad": "none"}, "stopmax"),
        ({"name": "adabin_input", "form": "cod"}, "paper"),
        ({"name": "twn", "granularity": "row"}, "channel"),
        ({"name": "int_k", "range": "minmaxx"}, "moving_average"),
    ],
    ids=str,
)
def test_a_wrong_word_is_refused_with_the_words_there_are(spec: dict[str, str], rule: str) -> None:
    with pytest.raises(ValueError, match=rule) as error:
        get(spec)
    assert repr(list(spec.values())[1]) in str(error.value)


@pytest.mark.parametrize("spec", [{"clip": 1.0}, {"name": 3}, {}], ids=str)
def test_mapping_without_a_name(spec: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="needs a name"):
        get(spec)


@pytest.mark.parametrize("spec", [3, ["sign"], nn.Linear(1, 1), nn.Linear], ids=repr)
def test_anything_else_is_refused(spec: object) -> None:
    with pytest.raises(ValueError, match="a string, a mapping"):
        get(spec)


@pytest.mark.usefixtures("scratch")
@pytest.mark.parametrize("taken", ["sign", "ste", "Approx-Sign"])
def test_a_taken_name_is_refused(taken: str) -> None:
    with pytest.raises(ValueError, match=f"'{taken}' is taken by lowbit.quantizers"):
        register(taken)(Halves)
    with pytest.raises(ValueError, match="is taken by"):
        register("halves", taken)(Halves)
    assert "halves" not in names()


@pytest.mark.usefixtures("scratch")
def test_the_same_class_may_be_registered_again() -> None:
    register("halves", "half")(Halves)
    again = type("Halves", (Halves,), {"__module__": Halves.__module__})
    register("halves", "half")(again)
    assert type(get("half")) is again


@pytest.mark.usefixtures("scratch")
def test_a_new_quantizer_trains() -> None:
    from lowbit.nn import QLinear

    register("halves")(Halves)
    torch.manual_seed(0)
    x = sign(torch.randn(128, 16))
    label = (x[:, :5].sum(1) > 0).long()
    model = nn.Sequential(
        QLinear(16, 32, input_quantization="halves", weight_quantization="halves"),
        nn.BatchNorm1d(32),
        nn.Linear(32, 2),
    )
    latent = model[0].weight.detach().clone()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(x), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert (sign(model[0].weight) != sign(latent)).any()


DROPPED = """
from torch import Tensor

from lowbit.functional import sign
from lowbit.quantizers._base import Quantizer
from lowbit.quantizers._registry import register


@register("dropped_in", "di")
class DroppedIn(Quantizer):
    bits = 1

    def value(self, x: Tensor) -> Tensor:
        return sign(x) * 3

    def slope(self, x: Tensor) -> Tensor:
        return x.new_ones(x.shape)
"""


def test_a_file_dropped_into_the_folder_is_found(tmp_path: Path) -> None:
    package = tmp_path / "lowbit"
    source = Path(lowbit.__file__).parent
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__", "csrc"))
    (package / "quantizers" / "dropped_in.py").write_text(DROPPED)
    code = (
        # An editable install's finder would give the clone's own package.
        "import sys\n"
        "sys.meta_path = [f for f in sys.meta_path if 'Redirecting' not in type(f).__name__]\n"
        "import torch, lowbit.quantizers as q\n"
        "assert 'dropped_in' in q.names()\n"
        "print(q.__file__, q.get('di')(torch.tensor([-1.0, 2.0])).tolist())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(str(package)), "the copy was to be imported"
    assert "[-3.0, 3.0]" in run.stdout
