"""BinaryConnect: what is evaluated, what statistics go with it, and how it begins."""

import math
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from experiments import _build
from experiments._spread import spread_weights
from experiments.callbacks.recalibrate import Recalibrate
from experiments.recipes.binary_connect import BinaryConnect
from experiments.recipes.classify import Classify
from lowbit.nn import QLinear
from lowbit.optim import by_role


def network(weight="sign"):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(),
        QLinear(16, 8, bias=False, weight_quantization=weight),
        nn.BatchNorm1d(8),
        nn.Dropout(0.5),
        nn.Linear(8, 4),
    )


def test_real_weights_are_evaluated_and_binary_ones_trained():
    model = network()
    recipe = BinaryConnect(model, 4, lambda m: None, evaluate_with="real").eval()
    x = torch.randn(3, 16)
    with recipe.evaluating():
        torch.testing.assert_close(model[1](x), x @ model[1].weight.T)
    torch.testing.assert_close(model[1](x), x @ model[1].weight.sign().T)
    with pytest.raises(RuntimeError, match="stop"), recipe.evaluating():
        raise RuntimeError("stop")
    assert model[1].weight_quantization is not None
    binary = BinaryConnect(model, 4, lambda m: None)
    with binary.evaluating():
        torch.testing.assert_close(model[1](x), x @ model[1].weight.sign().T)


def test_weights_begin_uniform_in_units_of_their_range():
    model = nn.Sequential(QLinear(300, 200, weight_quantization="sign"), nn.Linear(300, 200))
    spread_weights(model, 2.0)
    for layer, bound in zip(model, (2.0, 2 * math.sqrt(1.5 / 500)), strict=True):
        assert bound * 0.99 < float(layer.weight.detach().abs().max()) <= bound
        assert float(layer.weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_a_training_begins_with_them_unless_it_starts_with_a_checkpoint(tiny_config, tmp_path):
    cfg = tiny_config("spread=0.5", "model.binary_ends=true")
    _, recipe = _build.prepare(cfg)
    weights = [layer.weight for layer in recipe.model.modules() if isinstance(layer, QLinear)]
    assert len(weights) == 3
    for weight in weights:
        assert 0.4 < float(weight.detach().abs().max()) <= 0.5
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, barebones=True, max_epochs=0)
    trainer.strategy.connect(recipe)
    trainer.save_checkpoint(tmp_path / "start.ckpt")
    cfg = tiny_config("spread=9", "model.binary_ends=true", f"start={tmp_path / 'start.ckpt'}")
    _, started = _build.prepare(cfg)
    for mine, theirs in zip(started.model.parameters(), recipe.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("experiment", ["bnn_mlp_mnist_2048", "bnn_binarynet_cifar10"])
def test_bnn_begins_as_its_code_does(experiment, config):
    cfg = config(f"experiment={experiment}")
    assert cfg.spread == 1.0  # binary_net.py: lasagne.init.Uniform((-H, H)), with H = 1


def test_sgd_with_the_squared_rate_moves_weights_as_if_they_were_of_size_h():
    """H sign(v) in a layer of rate r, and sign(v) with rate r / H^2, behind a normalisation."""
    x, h = torch.randn(32, 16), math.sqrt(1.5 / (16 + 8))
    start = torch.rand(8, 16) * 2 - 1
    target = torch.randn(32, 8)

    def loss(weight):
        y = x @ weight.T
        return ((y - y.mean(0)) / y.std(0) * target).sum()

    binary = (h * start.sign()).requires_grad_()
    loss(binary).backward()
    expected = (h * start - 0.01 * binary.grad) / h

    layer = QLinear(16, 8, bias=False, weight_quantization="sign")
    layer.weight.data = start.clone()
    optimizer = by_role(layer, torch.optim.SGD, lr=0.01, latent={"glorot": "squared"})
    loss(layer._quantized_weight()).backward()
    optimizer.step()
    torch.testing.assert_close(layer.weight.data, expected, rtol=1e-4, atol=1e-5)


def calibrated(recipe, images, size=64, trainer_fn="fit", batch=16):
    """Recalibrate on these images; the trainer is a stand-in."""
    data = SimpleNamespace(
        train_indices=torch.arange(size),
        calibration_dataloader=lambda n: [(b, None) for b in images[:n].split(batch)],
    )
    strategy = SimpleNamespace(
        batch_to_device=lambda batch: batch,
        reduce=lambda tensor, reduce_op: tensor,
        precision_plugin=SimpleNamespace(forward_context=torch.no_grad),
    )
    trainer = SimpleNamespace(
        datamodule=data, strategy=strategy, sanity_checking=False,
        state=SimpleNamespace(fn=trainer_fn),
    )  # fmt: skip
    Recalibrate().on_validation_start(trainer, recipe)


def test_statistics_are_those_of_the_training_images_under_the_weights_evaluated():
    images = torch.randn(64, 16) + 1
    for evaluate_with in ("binary", "real"):
        model = network()
        recipe = BinaryConnect(model, 4, lambda m: None, evaluate_with=evaluate_with)
        recipe.train()
        model[1].eval()
        calibrated(recipe, images)
        weight = model[1].weight if evaluate_with == "real" else model[1].weight.sign()
        y = images @ weight.T
        torch.testing.assert_close(model[2].running_mean, y.mean(0))
        variance = torch.stack([part.var(0) for part in y.split(16)]).mean(0)
        torch.testing.assert_close(model[2].running_var, variance)
        assert model[2].momentum == 0.1
        assert (recipe.training, model[1].training, model[3].training) == (True, False, True)


def test_a_finished_network_keeps_its_statistics():
    recipe = Classify(network(), 4, lambda m: None)
    before = recipe.model[2].running_mean.clone()
    calibrated(recipe, torch.randn(64, 16), trainer_fn="validate")
    assert torch.equal(recipe.model[2].running_mean, before)


@pytest.mark.parametrize("val_size", [32, 0])
def test_the_kept_weights_have_the_statistics_and_evaluation_gives_the_figure_again(
    val_size, tiny_config, tmp_path
):
    from experiments.train import train

    cfg = tiny_config(
        "recipe=binary_connect", "recipe.evaluate_with=real", "spread=2",
        "quantizer=weights_only", "quantizer.weight=stochastic_sign",
        "callbacks=[default,weight_clip,recalibrate]", "model.binary_ends=true",
        "optimizer=sgd", "optimizer.lr=0.01", "+optimizer.latent.glorot=squared",
        "data.signal=0.9", f"data.val_size={val_size}", "packed=false",
        "trainer.max_epochs=10", "model.hidden=[64,64]",
    )  # fmt: skip
    metrics = train(cfg)
    assert metrics["test/accuracy"] > 0.6
    run = _build.for_test(cfg)
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    saved = torch.load(path, weights_only=True)["state_dict"]
    run.recipe.load_state_dict(saved)
    # The statistics that were kept are those of the latent weights over all training images.
    data = run.data
    x = torch.cat([x for x, _ in data.calibration_dataloader(10**9)])
    first = next(name for name in saved if name.endswith("running_mean"))
    y = x.flatten(1) @ saved["model.layers.1.weight"].T
    torch.testing.assert_close(saved[first], y.mean(0), rtol=1e-3, atol=1e-3)
    assert saved["model.layers.1.weight"].abs().max() <= 1
    tested = run.trainer.test(run.recipe, data, verbose=False)[0]
    assert tested["test/accuracy"] == metrics["test/accuracy"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"evaluate_with": "both"}, "binary or real; got 'both'")],
)
def test_options_that_are_none_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        BinaryConnect(network(), 4, lambda m: None, **options)
    with pytest.raises(ValueError, match="at least 1, or null"):
        Recalibrate(0)
