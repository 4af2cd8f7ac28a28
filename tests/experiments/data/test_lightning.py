"""The loaders under Lightning's Trainer: epochs told, runs resumed, evaluation complete."""

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from experiments.data.synthetic import Synthetic

SMALL = {"train_size": 60, "test_size": 30, "val_size": 20, "batch_size": 8, "image_size": 8}


class Recorder(pl.LightningModule):
    """Remembers the labels of every batch, by epoch; its state is a count of steps."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3 * 8 * 8, 10)
        self.seen = []
        self.evaluated = []

    def training_step(self, batch, index):
        self.seen.append((self.current_epoch, index, batch[1].tolist()))
        return nn.functional.cross_entropy(self.net(batch[0].flatten(1)), batch[1])

    def validation_step(self, batch, index):
        self.evaluated += batch[1].tolist()

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(tmp_path, **options):
    return pl.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"enable_checkpointing": False, **options},
    )


def fit(tmp_path, resume=None, data=None, **options):
    recorder = Recorder()
    run = trainer(tmp_path, **{"max_epochs": 3, **options})
    run.fit(recorder, data or Synthetic(**SMALL), ckpt_path=resume, weights_only=True)
    return recorder


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("run"))


def test_each_epoch_has_the_loader_s_order_of_that_epoch(uninterrupted):
    data = Synthetic(**SMALL)
    data.setup("fit")
    loader = data.train_dataloader()
    expected = []
    for epoch in range(3):
        loader.set_epoch(epoch)
        expected += [(epoch, k, labels.tolist()) for k, (_, labels) in enumerate(loader)]
    assert uninterrupted.seen == expected


@pytest.mark.parametrize("step", [1, 3, 5, 7, 10])
def test_a_run_resumed_after_any_step_sees_the_batches_it_would_have_seen(
    step, tmp_path, uninterrupted
):
    keep = pl.callbacks.ModelCheckpoint(
        tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1
    )
    fit(tmp_path, max_steps=step, callbacks=[keep], enable_checkpointing=True)
    resumed = fit(tmp_path, resume=tmp_path / f"step={step}.ckpt")
    assert resumed.seen == uninterrupted.seen[step:]


@pytest.mark.parametrize("on_train_epoch_end", [True, False])
def test_a_run_resumed_after_an_epoch_begins_the_next(on_train_epoch_end, tmp_path, uninterrupted):
    keep = pl.callbacks.ModelCheckpoint(
        tmp_path, save_last=True, save_on_train_epoch_end=on_train_epoch_end
    )
    fit(tmp_path, max_epochs=1, callbacks=[keep], enable_checkpointing=True)
    resumed = fit(tmp_path, resume=tmp_path / "last.ckpt")
    assert resumed.seen == uninterrupted.seen[5:]


def test_every_validation_sees_all_images_also_after_the_sanity_check(uninterrupted):
    # The sanity check sees 2 batches of 8, then there are three validations of 20.
    assert len(uninterrupted.evaluated) == 16 + 3 * 20


def test_test_sees_every_image_once(tmp_path):
    data, recorder = Synthetic(**SMALL), Recorder()
    trainer(tmp_path).test(recorder, data, verbose=False)
    assert recorder.evaluated == data._test[1].tolist()


def test_fitting_without_validation_images(tmp_path):
    recorder = fit(tmp_path, data=Synthetic(**{**SMALL, "val_size": 0}), max_epochs=1)
    assert len(recorder.seen) == 7
    assert recorder.evaluated == []


def test_overfitting_repeats_the_same_batches(tmp_path):
    seen = fit(tmp_path, overfit_batches=2).seen
    assert len(seen) == 6
    assert seen[0][2] == seen[2][2] == seen[4][2]
