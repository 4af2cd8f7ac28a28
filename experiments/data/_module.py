"""What all data modules share: their options, their facts and their splits."""

from __future__ import annotations

from typing import Any, ClassVar

import pytorch_lightning as pl
import torch.distributed as dist
from torch import Tensor

from experiments._numbers import whole
from experiments.data._normalise import MODES, centre_and_spread
from experiments.data._shares import Shares
from experiments.data._split import carve


class DataModule(pl.LightningDataModule):
    """A data set with its official test set, and a validation set carved out of the training set.

    batch_size    images per step and process
    val_size      how many training images validate instead, stratified by class; 0: none, and
                  the run has no validation
    split_seed    which ones these are
    seed          of the order and the augmentation: epoch e has the same batches in every run
                  of this seed, resumed or not
    augment       whether training images are augmented as the class says, or one of its
                  ``augmentations`` by name
    normalise     ``standard`` (mean 0, variance 1 over the training set), ``signed`` (into
                  [-1, 1]) or ``unit`` (into [0, 1])
    limit         train on so many images only, a fair sample; None: on all
    drop_last     drop the images at the end of a training epoch that fill no batch

    Facts, known before the files are read: ``num_classes``, ``in_channels``, ``image_size``.
    """

    augmentations: ClassVar[tuple[str, ...]] = ()
    num_classes: int
    in_channels: int
    image_size: int
    mean: tuple[float, ...]  # of x / max_value over the official training set, per channel
    std: tuple[float, ...]
    train_indices: Tensor  # of the images that train, from setup("fit") on

    def __init__(
        self,
        *,
        batch_size: int = 128,
        val_size: int,
        split_seed: int = 0,
        seed: int = 0,
        augment: bool | str = True,
        normalise: str = "standard",
        limit: int | None = None,
        drop_last: bool = True,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        for option, value, least in (
            ("batch_size", batch_size, 1),
            ("val_size", val_size, 0),
            ("limit", limit, 1),
            ("seed", seed, 0),
            ("split_seed", split_seed, 0),
        ):
            if value is not None or option != "limit":
                whole(f"{option} of {name}", value, least)
        if not isinstance(drop_last, bool):
            raise ValueError(f"drop_last of {name} is true or false; got {drop_last!r}")
        if not isinstance(augment, bool) and augment not in self.augmentations:
            names = "".join(f" or {known}" for known in self.augmentations)
            raise ValueError(f"augment of {name} is true or false{names}; got {augment!r}")
        if normalise not in MODES:
            raise ValueError(
                f"normalise of {name} takes one of {', '.join(MODES)}; got {normalise!r}"
            )
        self.batch_size = batch_size
        self.val_size = val_size
        self.split_seed = split_seed
        self.seed = seed
        self.augment = augment
        self.normalise = normalise
        self.limit = limit
        self.drop_last = drop_last

    def check(self) -> None:
        """Raise ``DataNotFoundError`` unless the files are there; reads and downloads nothing."""

    def split(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of the images to train on and to validate on, among those with ``labels``."""
        train, val = carve(labels, self.val_size, self.split_seed)
        return train if self.limit is None else train[: self.limit], val

    def preprocessing(self) -> dict[str, Any]:
        """How a picture becomes what the network is given, in plain values.

        ``shape``        (channels, height, width)
        ``mean, std``    per channel: (pixel - mean) / std, of pixels in [0, 1]; None where that
                         does not say it, or data are no pictures
        ``resize``       pixels of the shorter side, before the middle of ``shape`` is cut out
        """
        mean, std = centre_and_spread(self.normalise, self.mean, self.std)
        return {
            "shape": [self.in_channels, self.image_size, self.image_size],
            "mean": list(mean),
            "std": list(std),
            "resize": self.image_size,
        }

    def calibration_dataloader(self, images: int) -> Any:
        """So many training images, a fair sample, as the test set's are made: not augmented."""
        raise NotImplementedError

    def shares(self, size: int, training: bool, batch_size: int | None = None) -> Shares:
        """The steps of this process over ``size`` images."""
        rank, world_size = 0, 1
        if self.trainer is not None:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
        elif dist.is_available() and dist.is_initialized():
            rank, world_size = dist.get_rank(), dist.get_world_size()
        batch_size = self.batch_size if batch_size is None else batch_size
        return Shares(size, batch_size, training, self.drop_last, rank, world_size)

    @property
    def shuffle(self) -> bool:
        """Whether training images are shuffled: not where Lightning overfits the same few."""
        return self.trainer is None or not self.trainer.overfit_batches
