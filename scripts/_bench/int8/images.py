"""Images to calibrate and to compare with, where there is no data set."""

from __future__ import annotations

import torch
from torch import Tensor


def images(count: int, size: int, seed: int) -> Tensor:
    """(count, 3, size, size), channels last, with the spectrum of natural images.

    Amplitudes fall as 1/f; colours share two thirds of their variance; each image has mean 0,
    variance 1 and then a contrast of its own, from 1/2 to 3/2.

    Source of the spectrum: Field 1987, "Relations between the statistics of natural images and
    the response properties of cortical cells".
    """
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(count, 1, size, size, generator=generator)
    noise = 2**0.5 * shared + torch.randn(count, 3, size, size, generator=generator)
    across, down = torch.fft.rfftfreq(size), torch.fft.fftfreq(size)
    radius = (across.square() + down.square()[:, None]).sqrt().clamp_min(1 / size)
    smooth = torch.fft.irfft2(torch.fft.rfft2(noise) / radius, s=(size, size))
    mean = smooth.mean((1, 2, 3), keepdim=True)
    spread = smooth.std((1, 2, 3), keepdim=True)
    contrast = 0.5 + torch.rand(count, 1, 1, 1, generator=generator)
    return (contrast * (smooth - mean) / spread).contiguous(memory_format=torch.channels_last)
