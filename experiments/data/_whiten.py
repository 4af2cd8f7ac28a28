"""Global contrast normalisation and ZCA whitening, as pylearn2 prepares CIFAR-10."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import torch
from torch import Tensor

from lowbit._beside import beside

# The norm of an image, near the root of the 3,072 values of one of CIFAR-10; and what is added to
# every variance, so that directions without any are not blown up.
NORM = 55.0
RIDGE = 0.1
CHUNK = 5000  # images whose pixels are taken to double precision at once


def contrast(images: Tensor) -> Tensor:
    """NORM (x - mean(x)) / |x - mean(x)| of each image: (n, …) -> (n, pixels) float32.

    An image of one colour becomes 0.
    """
    x = images.to(torch.float32).flatten(1)
    x = x - x.mean(1, keepdim=True)
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return NORM * x / torch.where(length > 0, length, 1)


class Whiten:
    """uint8 pixels (b, channels, height, width) -> float32, of equal contrast, whitened.

    x = (contrast(image) - m) P, with m the mean and P = (C + 0.1 I)^(-1/2) of the covariance C
    (divided by n) of the contrast-normalised training images, all pixels of all channels.

    Source: ``make_cifar10_gcn_whitened.py`` of pylearn2 (GCN to a norm of 55, ``ZCA`` with its
    filter_bias of 0.1), which fits on all 50,000 training images, also those that validate.
    """

    def __init__(self, mean: Tensor, matrix: Tensor) -> None:
        self.mean = mean  # (pixels,) float32
        self.matrix = matrix  # (pixels, pixels) float32, symmetric

    @classmethod
    def fit(cls, images: Tensor) -> Whiten:
        """From training images (n, channels, height, width)."""
        parts = images.split(CHUNK)
        mean = sum(contrast(part).double().sum(0) for part in parts) / len(images)
        assert isinstance(mean, Tensor)
        covariance = mean.new_zeros(len(mean), len(mean))
        for part in parts:
            centred = contrast(part).double() - mean
            covariance.addmm_(centred.T, centred, alpha=1 / len(images))
        variances, axes = torch.linalg.eigh(covariance)
        matrix = (axes * (variances.clamp_min(0) + RIDGE).rsqrt()) @ axes.T
        return cls(mean.float(), matrix.float())

    @classmethod
    def fit_once(cls, images: Tensor, indices: Tensor, folder: Path | None) -> Whiten:
        """``fit(images[indices])``, kept in ``folder`` (if any) for the next run."""
        if folder is None:
            return cls.fit(images[indices])
        key = hashlib.sha256(indices.cpu().numpy().tobytes()).hexdigest()[:16]
        path = folder / f"zca-{key}.pt"
        if path.is_file():
            return cls(**torch.load(path, weights_only=True))
        made = cls.fit(images[indices])
        try:
            # torch.save to a name would raise RuntimeError where there is no place.
            with beside(path) as other, other.open("wb") as file:
                torch.save({"mean": made.mean, "matrix": made.matrix}, file)
        except OSError as error:
            warnings.warn(f"the whitening is not kept for the next run: {error}", stacklevel=2)
        return made

    def to(self, device: torch.device) -> Whiten:
        self.mean, self.matrix = self.mean.to(device), self.matrix.to(device)
        return self

    def __call__(self, images: Tensor) -> Tensor:
        return ((contrast(images) - self.mean) @ self.matrix).view(images.shape)
