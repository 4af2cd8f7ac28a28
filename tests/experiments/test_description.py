"""A checkpoint says what its network is, in plain values, without the run's configuration."""

import json

import pytest

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
