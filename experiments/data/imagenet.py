"""ImageNet (ILSVRC 2012): 1,281,167 + 50,000 colour photographs, in 1,000 classes.

Source: Russakovsky et al. 2015. The official validation set, whose labels are public, serves as
the test set, as in the papers; validation images come out of the training set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from experiments.data._epochs import Batch, Epochs
from experiments.data._errors import DataError, DataNotFoundError
from experiments.data._module import DataModule
from experiments.data._normalise import Normalise
from experiments.data._seeds import mixed_seed
from experiments.data._shares import Shares

# Principal components of the colours of ImageNet's pixels, in fractions of full brightness:
# standard deviations, and directions as columns (those of fb.resnet.torch).
DEVIATIONS = torch.tensor([0.2175, 0.0188, 0.0045])
DIRECTIONS = torch.tensor(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)


class Lighting:
    """Adds one colour to all pixels (3, h, w) of 0 to 255, drawn along the principal components.

    The draw along each is normal, of ``deviation`` times its standard deviation.

    Source: Krizhevsky et al. 2012, section 4.1; ``Lighting`` of Bi-Real Net's and ReActNet's code.
    """

    def __init__(self, deviation: float) -> None:
        self.deviation = deviation

    def __call__(self, pixels: Tensor) -> Tensor:
        draw = self.deviation * torch.randn(3) * DEVIATIONS
        return pixels + 255 * (DIRECTIONS @ draw)[:, None, None]


class Seeded(Dataset[tuple[Tensor, int]]):
    """Images of a folder by (epoch, index), transformed with random numbers of their own.

    So an image is augmented alike whichever worker, process or resumed run reads it.
    """

    def __init__(
        self, folder: ImageFolder, transform: transforms.Compose, normalise: Normalise, seed: int
    ) -> None:
        self.folder = folder
        self.transform = transform
        self.normalise = normalise
        self.seed = seed

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, index = key
        image, label = self.folder[index]
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(mixed_seed(self.seed, epoch, index))
            pixels = self.transform(image)
        return self.normalise(pixels[None])[0], label


class Steps:
    """The keys of each batch, for the batch sampler of a ``DataLoader``; set for each epoch."""

    def __init__(self) -> None:
        self.keys: list[list[tuple[int, int]]] = []

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


class FolderBatches(Epochs):
    """Batches of an image folder's images at ``indices``, read by ``num_workers`` processes.

    It holds a ``DataLoader`` and is none: Lightning puts its own sampler into a DataLoader of a
    distributed run, and the shares are made here already.
    """

    def __init__(
        self,
        dataset: Seeded,
        indices: Tensor,
        shares: Shares,
        num_workers: int,
        seed: int = 0,
        shuffle: bool = False,
    ) -> None:
        super().__init__(shares, seed, shuffle)
        self.indices = indices
        self._steps = Steps()
        self._loader = DataLoader(
            dataset,
            batch_sampler=self._steps,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            # Its own, or each epoch would take a number from the global one.
            generator=torch.Generator(),
        )

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        order, _ = self.order(epoch)
        chosen = self.indices[order]
        self._steps.keys = [
            [(epoch, index) for index in chosen[self.shares.part(step)].tolist()]
            for step in range(start, len(self))
        ]
        yield from self._loader


class ImageNet(DataModule):
    """ImageNet as folders of classes, ``root/imagenet/{train,val}/<class>/*.JPEG``.

    Training: a random crop of 8 to 100 % of the area at ``image_size``, mirrored half of the
    time; without ``augment``, and in evaluation: the shorter side at ``image_size`` / 0.875
    (256 for 224), the centre cut out. The other options are ``DataModule``'s.

    root          the folder that holds ``imagenet``
    lighting      of training with ``augment``: deviation of the colour added to an image
                  (``Lighting``); 0.1 as published, 0: none
    num_workers   processes that read and decode images, for each loader; 0: none
    num_classes   how many class folders there are; a smaller number for a subset of ImageNet
    """

    in_channels = 3
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(
        self,
        *,
        root: str | os.PathLike[str] = "data",
        batch_size: int = 256,
        val_size: int = 10000,
        image_size: int = 224,
        num_classes: int = 1000,
        num_workers: int = 8,
        lighting: float = 0.0,
        **options: Any,
    ) -> None:
        self.image_size = image_size
        self.num_classes = num_classes
        super().__init__(batch_size=batch_size, val_size=val_size, **options)
        self.root = Path(root).expanduser()
        self.num_workers = num_workers
        if not lighting >= 0:
            raise DataError(f"data.lighting is at least 0, 0 for none; got {lighting}")
        self.lighting = lighting
        self._train: ImageFolder | None = None
        self._test: ImageFolder | None = None

    @property
    def path(self) -> Path:
        return self.root / "imagenet"

    def check(self) -> None:
        absent = [split for split in ("train", "val") if not self._has_classes(split)]
        if absent:
            raise DataNotFoundError(
                "ImageNet",
                self.path,
                (
                    f"{split}/<class>/*.JPEG{' (missing)' if split in absent else ''}"
                    for split in ("train", "val")
                ),
                "ImageNet is not for automatic download: get ILSVRC2012_img_train.tar and "
                "ILSVRC2012_img_val.tar from image-net.org, unpack them into one folder per class "
                "(torchvision.datasets.ImageNet does that), and put the result or a link to it "
                "there, or name the folder that holds imagenet by data.root=... or the environment "
                "variable LOWBIT_DATA.",
            )

    def preprocessing(self) -> dict[str, Any]:
        return {**super().preprocessing(), "resize": self._resize}

    def prepare_data(self) -> None:
        self.check()

    def setup(self, stage: str | None = None) -> None:
        if stage in (None, "fit", "validate") and self._train is None:
            self._train = self._open("train")
            self.train_indices, self.val_indices = self.split(torch.tensor(self._train.targets))
        if stage in (None, "test") and self._test is None:
            self._test = self._open("val")

    def train_dataloader(self) -> FolderBatches:
        size = self.image_size
        crop = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()]
        colour = [Lighting(self.lighting)] if self.lighting > 0 else []
        return self._batches(
            self._train,
            self.train_indices,
            transforms.Compose([*crop, transforms.PILToTensor(), *colour])
            if self.augment
            else self._centre(),
            training=True,
        )

    def val_dataloader(self) -> FolderBatches | list[FolderBatches]:
        if self.val_size == 0:
            return []  # how Lightning is told that there is none
        return self._batches(self._train, self.val_indices, self._centre(), training=False)

    def calibration_dataloader(self, images: int) -> FolderBatches:
        indices = self.train_indices[:images]
        return self._batches(self._train, indices, self._centre(), training=False)

    def test_dataloader(self) -> FolderBatches:
        indices = torch.arange(0 if self._test is None else len(self._test))
        return self._batches(self._test, indices, self._centre(), training=False)

    def _has_classes(self, split: str) -> bool:
        folder = self.path / split
        return folder.is_dir() and any(entry.is_dir() for entry in folder.iterdir())

    def _open(self, split: str) -> ImageFolder:
        folder = ImageFolder(str(self.path / split))
        if len(folder.classes) != self.num_classes:
            raise DataError(
                f"{(self.path / split).absolute()} has {len(folder.classes)} class folders, but "
                f"num_classes is {self.num_classes}; complete the folder, or set data.num_classes "
                "for a subset of ImageNet"
            )
        return folder

    @property
    def _resize(self) -> int:
        return round(self.image_size / 0.875)

    def _centre(self) -> transforms.Compose:
        size = self.image_size
        return transforms.Compose(
            [
                transforms.Resize(self._resize),
                transforms.CenterCrop(size),
                transforms.PILToTensor(),
            ]
        )

    def _batches(
        self,
        folder: ImageFolder | None,
        indices: Tensor,
        transform: transforms.Compose,
        training: bool,
    ) -> FolderBatches:
        if folder is None:
            raise RuntimeError("call setup() of ImageNet before its loaders")
        return FolderBatches(
            Seeded(folder, transform, Normalise(self.normalise, self.mean, self.std), self.seed),
            indices,
            self.shares(len(indices), training),
            self.num_workers,
            seed=self.seed,
            shuffle=training and self.shuffle,
        )
