"""A checkpoint says what its network is, in plain values, without the run's configuration."""

import json

import pytest
import torch

from experiments._checkpoint import read


def described(tiny, tmp_path, *overrides):
    tiny("trainer.max_epochs=1", "packed=false", *overrides, folder=tmp_path)
    description = read(tmp_path / "checkpoints" / "best.ckpt")["lowbit"]
    assert json.loads(json.dumps(description)) == description
    return description


def test_the_model_with_what_data_and_quantizer_added(tiny, tmp_path):
    description = described(
        tiny, tmp_path, "quantizer.weight={name: lsq, bits: 2}", "data.normalise=signed"
    )
    assert description["model"]["target"] == "lowbit.models.MLP"
    arguments = description["model"]["arguments"]
    assert arguments["hidden"] == [16, 16]
    assert (arguments["in_channels"], arguments["num_classes"]) == (1, 10)
    assert arguments["weight_quantization"] == {"name": "lsq", "bits": 2}
    assert description["input"] == {
        "shape": [1, 8, 8],
        "mean": [0.5],
        "std": [0.5],
        "resize": 8,
    }
    assert description["prepare_qat"] == {}
    assert description["weights"] == "quantized"


def test_a_recipe_that_puts_the_quantizers_in_itself(tiny, tmp_path):
    description = described(
        tiny,
        tmp_path,
        "recipe=quantization_aware",
        "quantizer=int8",
        "quantizer.weight={name: int_k, bits: 4}",
    )
    assert "weight_quantization" not in description["model"]["arguments"]
    assert description["prepare_qat"][""][1] == {"name": "int_k", "bits": 4}
    assert len(description["prepare_qat"]) == 3  # first and last layer have their own


def test_latent_weights_that_are_evaluated_themselves(tiny, tmp_path):
    description = described(
        tiny, tmp_path, "recipe=binary_connect", "recipe.evaluate_with=real", "quantizer.input=null"
    )
    assert description["weights"] == "real"


@pytest.mark.parametrize("center", ["train", "per_split"])
def test_a_mean_picture_is_not_a_mean_per_channel(tiny, tmp_path, center):
    description = described(tiny, tmp_path, f"data.center={center}")
    assert description["input"]["mean"] is None


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("recipe=quantization_aware", "quantizer=int8"),
        ("recipe=binary_connect", "recipe.evaluate_with=real", "quantizer.input=null"),
    ],
    ids=["classify", "quantization_aware", "binary_connect"],
)
def test_python_m_lowbit_makes_the_network_that_was_evaluated(
    tiny_config, tmp_path, overrides, monkeypatch
):
    from experiments import _build
    from experiments.train import train
    from lowbit.cli._load import load

    runs, build = [], _build.build
    monkeypatch.setattr(_build, "build", lambda *given: runs.append(build(*given)) or runs[0])
    train(tiny_config("trainer.max_epochs=1", "packed=false", *overrides, folder=tmp_path))
    recipe = runs[0].recipe.eval()
    loaded = load(str(tmp_path / "checkpoints" / "best.ckpt"))
    x = torch.randn(4, *loaded.shape)
    with torch.no_grad(), recipe.evaluating():
        assert torch.equal(loaded.model(x), recipe.model(x))
