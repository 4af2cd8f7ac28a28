"""The losses, schedules and logs of a training."""

import csv
import math

import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from experiments import _build, schedules
from experiments.recipes._losses import LOSSES, smooth
from experiments.recipes.classify import Classify
from lowbit.nn import QuantizedLayer


def rates(schedule, steps, **options):
    """The rate that each of the first steps is taken with, from a base of 2."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = schedule(optimizer, steps_per_epoch=2, **options)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_a_loss_that_is_not_finite_is_told_once(tiny):
    with pytest.warns(UserWarning, match="the training loss of epoch") as warned:
        tiny("optimizer.lr=1e30", "optimizer=sgd", "trainer.max_epochs=3", "packed=false")
    assert sum("the training loss of epoch" in str(w.message) for w in warned) == 1


def test_the_cosine_falls_from_the_rate_to_its_final_share():
    seen = rates(schedules.cosine, 9, epochs=4, final=0.1)
    assert seen == pytest.approx(
        [0.2 + 1.8 * (1 + math.cos(math.pi * i / 8)) / 2 for i in range(9)]
    )


def test_the_line_ends_at_its_final_share():
    assert rates(schedules.linear, 5, epochs=2) == pytest.approx([2, 1.5, 1, 0.5, 0])


def test_steps_multiply_at_whole_epochs():
    assert rates(schedules.step, 6, every=1, gamma=0.5) == pytest.approx([2, 2, 1, 1, 0.5, 0.5])
    seen = rates(schedules.multistep, 6, milestones=[1, 2], gamma=0.1)
    assert seen == pytest.approx([2, 2, 0.2, 0.2, 0.02, 0.02])


def test_each_milestone_may_have_a_gamma_of_its_own():
    seen = rates(schedules.multistep, 8, milestones=[1, 2, 3], gamma=[0.1, 0.5, 0.2])
    assert seen == pytest.approx([2, 2, 0.2, 0.2, 0.1, 0.1, 0.02, 0.02])
    with pytest.raises(ValueError, match="one for each of the 2 milestones; got 3"):
        rates(schedules.multistep, 1, milestones=[1, 2], gamma=[0.1, 0.5, 0.2])


def test_the_exponential_multiplies_by_the_same_factor_down_to_its_final_share():
    seen = rates(schedules.exponential, 6, epochs=2, final=0.0625)
    assert seen == pytest.approx([2, 1, 0.5, 0.25, 0.125, 0.125])


def test_the_inverse_falls_by_the_number_of_steps():
    assert rates(schedules.inverse, 4, decay=0.5) == pytest.approx([2, 2 / 1.5, 1, 2 / 2.5])


def test_a_schedule_of_some_groups_leaves_the_others():
    groups = [
        {"params": [nn.Parameter(torch.zeros(1))], "name": name}
        for name in ("latent, fans 8", "latent, fans 9", "rest")
    ]
    optimizer = torch.optim.SGD(groups, lr=2.0)
    scheduler = schedules.step(optimizer, steps_per_epoch=1, every=1, only=["latent"])
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.2, 0.2, 2.0])
    with pytest.raises(ValueError, match="names 'late'; the parameter groups are latent, fans 8"):
        schedules.step(optimizer, steps_per_epoch=1, every=1, only=["late"])
    with pytest.raises(ValueError, match="is a list"):
        schedules.step(optimizer, steps_per_epoch=1, every=1, only="latent")


def test_rates_that_change_by_the_epoch_are_those_of_whole_epochs(tiny, tmp_path):
    tiny("scheduler=linear", "scheduler.interval=epoch", "trainer.max_epochs=4", "optimizer.lr=0.4")
    with (tmp_path / "run" / "metrics.csv").open() as file:
        seen = [float(row["lr/rest"]) for row in csv.DictReader(file)]
    # Written after each epoch: the rate of the next one.
    assert seen == pytest.approx([0.3, 0.2, 0.1, 0.0])


def test_warm_up_rises_over_its_epochs():
    seen = rates(schedules.step, 6, every=100, warmup=2)
    assert seen == pytest.approx([0.5, 1, 1.5, 2, 2, 2])


def test_smoothed_cross_entropy_is_torchs():
    scores, labels = torch.randn(5, 7), torch.arange(5)
    target = smooth(F.one_hot(labels, 7).float(), 0.1)
    ours = LOSSES["cross_entropy"](scores, target)
    torch.testing.assert_close(ours, F.cross_entropy(scores, labels, label_smoothing=0.1))


def test_the_squared_hinge_is_of_signed_targets():
    scores, target = torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]])
    # (1 - 0.5)^2 for the true class, (1 + 0.5)^2 for the other
    assert LOSSES["squared_hinge_sum"](scores, target) == pytest.approx(2.5)
    assert LOSSES["squared_hinge_mean"](scores, target) == pytest.approx(1.25)


def test_mixup_mixes_images_and_targets_alike():
    class Spy(nn.Module):
        def forward(self, x):
            self.seen = x
            return x

    torch.manual_seed(0)
    recipe = Classify(Spy(), 4, optimizer=lambda m: None, mixup=1.0)
    targets = []
    recipe.loss = lambda scores, target: targets.append(target) or scores.sum()
    recipe.log = lambda *a, **k: None
    labels = torch.arange(4)
    recipe.training_step((F.one_hot(labels, 4).float(), labels), 0)
    torch.testing.assert_close(recipe.model.seen, targets[0])  # images are their own targets
    assert not torch.equal(targets[0], F.one_hot(labels, 4).float())


def test_many_classes_have_a_top5():
    assert "accuracy_top5" in Classify(nn.Identity(), 100, lambda m: None).metrics["val_metrics"]
    assert list(Classify(nn.Identity(), 10, lambda m: None).metrics["val_metrics"]) == [
        "loss",
        "accuracy",
    ]


@pytest.mark.parametrize(
    "override",
    [
        "trainer.accumulate_grad_batches=2",
        "trainer.precision=bf16-mixed",
        "recipe.loss=squared_hinge_sum",
        "quantizer.gradient={name:dorefa_gradient,bits:8}",
        "data.val_size=0",
        "callbacks=[default,flip_ratio,cancelled_gradients,weight_clip,normalisation_floor]",
        "logger=default",
        "~logger",
        "~scheduler",
        "callbacks=[]",
    ],
)
def test_options_train(override, tiny, tmp_path):
    metrics = tiny(override, "trainer.max_epochs=2")
    assert math.isfinite(metrics["test/loss"])
    if override == "logger=default":
        (events,) = (tmp_path / "run" / "tensorboard").glob("events*")
        curves = EventAccumulator(str(events)).Reload()
        # One point an epoch: the test after training adds none.
        assert [point.step for point in curves.Scalars("val/accuracy")] == [3, 7]
    if "flip_ratio" in override:
        header = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
        assert "flips/all" in header
        assert "cancelled/layers" in header


def test_a_binary_network_learns(tiny):
    metrics = tiny("trainer.max_epochs=15", "data.signal=0.9", "optimizer.lr=0.01")
    assert metrics["test/accuracy"] > 0.8


def test_gradients_are_quantized_in_every_layer_where_asked(tiny_config):
    cfg = tiny_config("quantizer.gradient={name:dorefa_gradient,bits:4}", "quantizer=dorefa")
    _, recipe = _build.prepare(cfg)
    layers = [m for m in recipe.model.modules() if isinstance(m, QuantizedLayer)]
    assert [layer.gradient_quantization.bits for layer in layers] == [4] * len(layers)
    assert layers
    _, plain = _build.prepare(tiny_config("quantizer=dorefa"))
    assert list(plain.state_dict()) == list(recipe.state_dict())
    del cfg.quantizer.gradient  # as in checkpoints from before there was one
    assert _build.prepare(cfg)


def test_bop_flips_binary_weights_and_its_rate_alone_falls(tiny, tmp_path):
    metrics = tiny(
        "optimizer=bop", "scheduler=step", "scheduler.factory.every=2",
        "scheduler.factory.only=[latent]", "optimizer.latent.lr=0.1", "trainer.max_epochs=4",
        "trainer.gradient_clip_algorithm=value", "trainer.gradient_clip_val=1.0",
        "callbacks=[default,flip_ratio]",
    )  # fmt: skip
    assert math.isfinite(metrics["test/loss"])
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    weight = saved["state_dict"]["model.layers.4.weight"]
    assert weight.abs().eq(1).all()
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    gammas = [float(row["lr/latent"]) for row in rows]
    assert gammas == pytest.approx([0.1, 0.01, 0.01, 0.001])  # those of the next steps
    assert [float(row["lr/rest"]) for row in rows] == pytest.approx([0.01] * 4)
    assert 0 < float(rows[1]["flips/all"]) < 1
