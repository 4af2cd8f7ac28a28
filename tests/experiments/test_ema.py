"""The average of the weights is what is evaluated and kept; training goes on without it."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from experiments.callbacks.ema import EMA
from experiments.callbacks.progress import Progress
from lowbit.nn import QLinear

FIT = SimpleNamespace(fn="fit")


def module():
    model = nn.Sequential(
        QLinear(4, 3, input_quantization="ede", weight_quantization="sign"), nn.BatchNorm1d(3)
    )
    return SimpleNamespace(model=model)


def averaged(callback, steps):
    """The callback after so many steps in which every weight is the number of the step."""
    pl_module = module()
    trainer = SimpleNamespace(global_step=0, state=FIT)
    callback.on_fit_start(trainer, pl_module)
    for step in range(1, steps + 1):
        for tensor in (*pl_module.model.parameters(), *pl_module.model.buffers()):
            tensor.data.fill_(step)
        trainer.global_step = step
        callback.on_train_batch_end(trainer, pl_module)
    return pl_module, trainer


def test_the_average_is_exponential_and_begins_with_the_first_weights():
    callback = EMA(decay=0.5, warmup=False)
    averaged(callback, 3)
    # 1; (1 + 2) / 2; (1.5 + 3) / 2
    assert callback.average.module[0].weight.eq(2.25).all()
    assert callback.average.module[1].running_var.eq(2.25).all()
    assert int(callback.average.module[1].num_batches_tracked) == 3
    assert float(callback.average.module[0].input_quantization.t) == 3


def test_the_warm_up_forgets_the_first_weights():
    callback = EMA(decay=0.999)
    averaged(callback, 2)
    share = 2 / 11  # (1 + n) / (10 + n) after one update
    expected = share * 1 + (1 - share) * 2
    assert float(callback.average.module[0].weight[0, 0]) == pytest.approx(expected)


def test_accumulated_gradients_count_once():
    callback = EMA(decay=0.5, warmup=False)
    pl_module, trainer = averaged(callback, 2)
    callback.on_train_batch_end(trainer, pl_module)
    assert int(callback.average.n_averaged) == 2


def test_validation_sees_the_average_and_training_its_own_weights():
    callback = EMA(decay=0.5, warmup=False)
    pl_module, trainer = averaged(callback, 2)
    callback.on_validation_start(trainer, pl_module)
    assert pl_module.model[0].weight.eq(1.5).all()
    pl_module.model[1].running_mean.fill_(7.0)  # recalibrated
    callback.on_validation_end(trainer, pl_module)
    assert pl_module.model[0].weight.eq(2).all()
    assert pl_module.model[1].running_mean.eq(2).all()
    assert callback.average.module[1].running_mean.eq(7).all()


def test_a_decay_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"in \[0, 1\); got 1.0"):
        EMA(1.0)


OPTIONS = ("quantizer=ede", "trainer.max_epochs=4", "callbacks=[default,weight_clip,ema]")


def saved(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def test_a_decay_of_zero_is_the_training_without_it(tiny, tmp_path):
    plain = tiny(*OPTIONS, "~callbacks.ema", folder=tmp_path / "plain")
    with_it = tiny(*OPTIONS, "callbacks.ema.decay=0", folder=tmp_path / "ema")
    assert with_it == pytest.approx(plain)


def test_kept_weights_are_the_average_of_those_of_training(tiny, tmp_path):
    metrics = tiny(*OPTIONS, "callbacks.ema.decay=0.9", folder=tmp_path / "ema")
    plain = tiny(*OPTIONS, "~callbacks.ema", folder=tmp_path / "plain")
    kept, other = saved(tmp_path / "ema"), saved(tmp_path / "plain")
    assert kept["ema"]["updates"] == 16
    name = "layers.1.weight"
    # Averaging does not change the training.
    assert torch.equal(kept["ema"]["weights"][name], other["state_dict"][f"model.{name}"])
    assert not torch.equal(kept["state_dict"][f"model.{name}"], kept["ema"]["weights"][name])
    assert metrics["val/loss_last"] != plain["val/loss_last"]


def test_a_resumed_training_is_the_uninterrupted_one(tiny, tmp_path, monkeypatch):
    whole, first, second = tmp_path / "whole", tmp_path / "first", tmp_path / "second"
    expected = tiny(*OPTIONS, folder=whole)

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 2:
            raise RuntimeError("stopped by the test")

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "on_train_epoch_start", on_train_epoch_start)
        with pytest.raises(RuntimeError, match="stopped by the test"):
            tiny(*OPTIONS, folder=first)
    assert tiny(*OPTIONS, f"resume={first}/checkpoints/last.ckpt", folder=second) == expected
    a, b = saved(whole), saved(second)
    for key, value in a["state_dict"].items():
        assert torch.equal(value, b["state_dict"][key]), key
    for key, value in a["ema"]["weights"].items():
        assert torch.equal(value, b["ema"]["weights"][key]), key


def test_it_goes_with_recalibration(tiny):
    metrics = tiny("callbacks=[default,ema,recalibrate]", "trainer.max_epochs=2")
    assert 0 <= metrics["test/accuracy"] <= 1
