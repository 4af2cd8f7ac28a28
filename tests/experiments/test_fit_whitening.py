"""The first convolution of Airbench is computed before training, and stays."""

import pytest
import torch

from experiments import _build
from experiments._app import Problem
from experiments.callbacks.fit_whitening import FitWhitening
from lowbit.models import Airbench

WORDS = (
    "model=airbench",
    "model.channels=[24,24]",
    "data.image_size=9",
    "data.in_channels=3",
    "callbacks=[default,fit_whitening]",
    "callbacks.fit_whitening.images=40",
    "callbacks.fit_whitening.bias_epochs=1",
    "trainer.max_epochs=2",
)


@pytest.fixture
def words(config):
    """As the tiny network's, with another network."""
    from tests.experiments.conftest import TINY

    tiny = [word for word in TINY if not word.startswith(("model.", "callbacks", "data.image"))]
    tiny = [word for word in tiny if not word.startswith("data.in_channels")]
    return [*tiny, *WORDS]


def weights(folder, name):
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state[f"model.whiten.{name}"]


def test_its_weights_are_those_of_the_first_training_images(config, words, tmp_path):
    from experiments.train import train

    cfg = config(*words, "++callbacks.curves=null")
    data = _build.make_data(cfg)
    images = torch.cat([x for x, _ in data.calibration_dataloader(40)])
    assert len(images) == 40
    expected = Airbench(channels=(24, 24))
    expected.fit_whitening(images)
    train(cfg)
    torch.testing.assert_close(weights(tmp_path / "run", "weight"), expected.whiten.weight.detach())


def test_the_bias_learns_for_the_first_epochs_alone(config, words, tmp_path):
    from experiments.train import train

    found = []
    for epochs in (1, 2):
        folder = tmp_path / str(epochs)
        more = [f"trainer.max_epochs={epochs}", "++callbacks.curves=null", "scheduler=none"]
        train(config(*words, *more, folder=folder))
        found.append((weights(folder, "bias"), weights(folder, "weight")))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][0].abs().max() > 0


def test_a_resumed_run_has_the_weights_of_its_checkpoint(config, words, tmp_path):
    from experiments.train import train

    first = tmp_path / "first"
    train(config(*words, "trainer.max_epochs=1", "++callbacks.curves=null", folder=first))
    checkpoint = first / "checkpoints" / "last.ckpt"
    state = torch.load(checkpoint, weights_only=True)
    state["state_dict"]["model.whiten.weight"].fill_(0.25)
    torch.save(state, checkpoint)
    second = tmp_path / "second"
    more = ["++callbacks.curves=null", f"resume={checkpoint}"]
    train(config(*words, *more, folder=second))
    assert weights(second, "weight").eq(0.25).all()


def test_a_network_without_whitening_is_refused(tiny):
    with pytest.raises(Problem, match="MLP has no fit_whitening"):
        tiny("callbacks=[default,fit_whitening]", "++callbacks.curves=null")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": 0}, "images of FitWhitening is a whole number from 1 on; got 0"),
        ({"images": 2.5}, "images of FitWhitening is a whole number from 1 on; got 2.5"),
        ({"bias_epochs": -1}, "bias_epochs of FitWhitening is a whole number from 0 on.*got -1"),
    ],
)
def test_wrong_numbers_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FitWhitening(**options)
