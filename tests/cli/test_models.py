"""``lowbit models``, and what a model is given on the command line."""

import json

import pytest
import torch

from lowbit import models
from lowbit.cli import _zoo
from lowbit.cli._errors import UserError


def test_the_list_has_every_network_with_its_parameters(run):
    ended = run("models")
    assert ended.code == 0
    rows = {row["name"]: row for row in json.loads(run("models", "--json").out)}
    assert set(rows) == set(models.__all__)
    assert all(f"\n{name} " in ended.out for name in models.__all__)
    model = models.LeNet()
    assert rows["LeNet"]["parameters"] == sum(p.numel() for p in model.parameters())
    assert rows["LeNet"]["input"] == [1, 28, 28]


@pytest.mark.parametrize("name", models.__all__)
def test_a_network_takes_inputs_of_its_default_shape(name):
    cls = getattr(models, name)
    with torch.device("meta"):
        model = cls().eval()
        scores = model(torch.zeros(2, *_zoo.default_shape(cls, {})))
    assert scores.shape == (2, 10)


def test_the_default_shape_follows_the_arguments():
    assert _zoo.default_shape(models.ResNet18, {"stem": "imagenet"}) == (3, 224, 224)
    assert _zoo.default_shape(models.MLP, {"image_size": 8, "in_channels": 3}) == (3, 8, 8)


def test_one_shows_its_arguments(run):
    ended = run("models", "resnet-18")
    assert ended.code == 0
    assert ended.out.startswith("ResNet18\n")
    assert "\n  shortcut = 'conv'\n" in ended.out
    assert ">>>" not in ended.out


def test_an_unknown_one_is_refused(refused):
    assert "did you mean LeNet?" in refused("models", "lent")
    assert "known: " in refused("models", "zzzzzz")


def test_words_become_values():
    words = ["a=1", "b=0.5", "c=sign", "d=null", "e=None", "f=[8, 16]", "g=", "h=True", "i=true"]
    assert _zoo.settings(words) == {
        "a": 1, "b": 0.5, "c": "sign", "d": None, "e": None, "f": [8, 16], "g": "", "h": True,
        "i": True,
    }  # fmt: skip
    assert _zoo.settings(['q={"name": "lsq", "bits": 2}']) == {"q": {"name": "lsq", "bits": 2}}
    for word in ("a", "=1", "a-b=1", "a={name: lsq}"):
        with pytest.raises(UserError):
            _zoo.settings([word])
