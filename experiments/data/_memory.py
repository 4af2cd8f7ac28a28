"""The base of data modules whose images fit in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from experiments._numbers import whole
from experiments.data._augment import AUGMENTATIONS, CropFlip
from experiments.data._batches import Batches
from experiments.data._module import DataModule
from experiments.data._normalise import Normalise
from experiments.data._whiten import Whiten

# Images of a batch that is evaluated on a GPU, which a smaller one leaves idle.
EVALUATED_ON_GPU = 1000


class InMemory(DataModule):
    """Images as uint8 tensors; see ``DataModule`` for the options.

    A subclass writes ``load``. Its ``crop_padding`` and ``flip`` say what ``augment`` does, and
    its ``max_value`` is the pixel value of full brightness. ``augment`` may also be a name of
    ``AUGMENTATIONS``: ``airbench`` shifts by up to 2 pixels, borders mirrored, and mirrors half of
    the images in the first epoch and all of them anew in each further one.

    center        None; ``train``: the mean image of the training images is subtracted, pixel by
                  pixel; ``per_split``: that of each split's own images, the test set's too, as
                  pylearn2's MNIST(center=True) does
    whiten        None; ``zca``: global contrast normalisation and ZCA whitening by the training
                  images, in place of ``normalise``; see ``Whiten``
    eval_batch_size   images per step and process of validation and test; None: ``batch_size``, on a
                  GPU 1000 at least
    on_device     whether the images lie on the device that trains, where batches are then made;
                  False keeps them in the host's memory
    """

    augmentations: ClassVar[tuple[str, ...]] = tuple(AUGMENTATIONS)
    crop_padding: ClassVar[int] = 0
    flip: ClassVar[bool] = False
    max_value: ClassVar[int] = 255

    def __init__(
        self,
        *,
        center: str | None = None,
        whiten: str | None = None,
        on_device: bool = True,
        eval_batch_size: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if eval_batch_size is not None:
            whole(f"eval_batch_size of {type(self).__name__}", eval_batch_size, 1)
        self.eval_batch_size = eval_batch_size
        if center not in (None, "train", "per_split"):
            raise ValueError(
                f"center of {type(self).__name__} is train, per_split or null; got {center!r}"
            )
        if whiten not in (None, "zca"):
            raise ValueError(f"whiten of {type(self).__name__} is zca or null; got {whiten!r}")
        if whiten is not None and center is not None:
            raise ValueError(
                f"whiten of {type(self).__name__} subtracts the mean image by itself: center is "
                f"null with it; got center={center!r}"
            )
        self.center = center
        self.whiten = whiten
        self._whitening: Whiten | None = None
        self.on_device = on_device
        self._train: tuple[Tensor, Tensor] | None = None
        self._test: tuple[Tensor, Tensor] | None = None

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        """The official training or test set: (n, channels, h, w) uint8 and (n,) int64."""
        raise NotImplementedError

    @property
    def cache(self) -> Path | None:
        """The folder that keeps what takes long to compute; None: nothing is kept."""
        return None

    def preprocessing(self) -> dict[str, Any]:
        facts = super().preprocessing()
        plain = self.center is None and self.whiten is None
        return facts if plain else {**facts, "mean": None, "std": None}

    def setup(self, stage: str | None = None) -> None:
        statistics = self.center == "train" or self.whiten is not None
        train = statistics or stage in (None, "fit", "validate")
        if train and self._train is None:
            self._train = self.load(train=True)
            self.train_indices, self.val_indices = self.split(self._train[1])
            if self.whiten is not None:
                self._whitening = Whiten.fit_once(self._train[0], self.train_indices, self.cache)
        if stage in (None, "test") and self._test is None:
            self._test = self.load(train=False)

    def train_dataloader(self) -> Batches:
        self._train = self._placed(self._train)
        return Batches(
            *self._train,
            indices=self.train_indices,
            shares=self.shares(len(self.train_indices), training=True),
            normalise=self._normalise(self._train, self.train_indices),
            augment=self._augmentation(),
            seed=self.seed,
            shuffle=self.shuffle,
        )

    def _augmentation(self) -> CropFlip | None:
        if isinstance(self.augment, str):
            named = AUGMENTATIONS[self.augment]
            if named.border == "reflect" and self.image_size <= named.padding:
                raise ValueError(
                    f"augment={self.augment} mirrors {named.padding} pixels at each border; images "
                    f"of {self.image_size} pixels have too few: augment is true or false there"
                )
            return named
        return CropFlip(self.crop_padding, self.flip) if self.augment else None

    def val_dataloader(self) -> Batches | list[Batches]:
        if self.val_size == 0:
            return []  # how Lightning is told that there is none
        self._train = self._placed(self._train)
        return self._evaluation(self._train, self.val_indices)

    def calibration_dataloader(self, images: int) -> Batches:
        self._train = self._placed(self._train)
        return self._evaluation(self._train, self.train_indices[:images], self.batch_size)

    def test_dataloader(self) -> Batches:
        self._test = self._placed(self._test)
        return self._evaluation(self._test, torch.arange(len(self._test[1])))

    def _evaluation(
        self, data: tuple[Tensor, Tensor], indices: Tensor, batch_size: int | None = None
    ) -> Batches:
        batch_size = batch_size or self.eval_batch_size
        if batch_size is None and data[0].is_cuda:
            batch_size = max(self.batch_size, EVALUATED_ON_GPU)
        return Batches(
            *data,
            indices=indices,
            shares=self.shares(len(indices), training=False, batch_size=batch_size),
            normalise=self._normalise(data, indices),
        )

    def _normalise(self, data: tuple[Tensor, Tensor], indices: Tensor) -> Normalise | Whiten:
        """The normalisation of the images of ``data`` at ``indices``."""
        if self._whitening is not None:
            return self._whitening
        made = Normalise(self.normalise, self.mean, self.std, self.max_value)
        if self.center == "train":
            self._train = self._placed(self._train)
            data, indices = self._train, self.train_indices
        if self.center is not None:
            made.center(data[0][indices.to(data[0].device)])
        return made

    def _placed(self, data: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        if data is None:
            raise RuntimeError(f"call setup() of {type(self).__name__} before its loaders")
        if self.trainer is None or not self.on_device:
            return data
        device = self.trainer.strategy.root_device
        return data[0].to(device), data[1].to(device)
