"""QuickNet, the binary network that was designed for speed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowbit import quantizers
from lowbit.nn import QConv2d
from lowbit.quantizers import Spec


class ResidualBlock(nn.Module):
    """y = x + BN(relu(conv(x))), with a quantized 3 x 3 convolution; the shape stays."""

    def __init__(self, channels: int, quantization: dict[str, Any]) -> None:
        super().__init__()
        self.conv = QConv2d(channels, channels, 3, padding=1, bias=False, **quantization)
        self.relu = nn.ReLU()
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn(self.relu(self.conv(x)))


class Blur(nn.Module):
    """Every second value of x * k k', with k = (1, 2, 1) / 4 and zeros around x.

    (n, c, h, w) -> (n, c, h / 2, w / 2), rounded up. A buffer, no parameter: it is not trained.

    Source: Zhang 2019, "Making convolutional networks shift-invariant again".
    """

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        k = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", torch.outer(k, k).expand(channels, 1, 3, 3).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, stride=2, padding=1, groups=self.kernel.shape[0])


def _transition(before: int, after: int) -> nn.Sequential:
    """To half the size and other channels: an anti-aliased max-pool, then a float 1 x 1."""
    return nn.Sequential(
        nn.ReLU(),
        nn.MaxPool2d(2, stride=1),
        Blur(before),
        nn.Conv2d(before, after, 1, bias=False),
        nn.BatchNorm2d(after),
    )


def _stem(before: int, after: int) -> nn.Sequential:
    """A quarter of the size, by float convolutions."""
    inner = after // 4
    # Keras' defaults for momentum (the complement of torch's) and eps, here alone.
    norm = {"momentum": 0.01, "eps": 1e-3}
    return nn.Sequential(
        nn.Conv2d(before, inner, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(inner, **norm),  # type: ignore[arg-type]
        nn.ReLU(),
        nn.Conv2d(inner, inner, 3, stride=2, padding=1, groups=inner, bias=False),
        nn.BatchNorm2d(inner, affine=False, **norm),  # type: ignore[arg-type]
        nn.Conv2d(inner, after, 1, bias=False),
        nn.BatchNorm2d(after, **norm),  # type: ignore[arg-type]
    )


class QuickNet(nn.Module):
    """Residual blocks of one quantized 3 x 3 convolution; stem, transitions and end are float.

        stem - 4 blocks of 64 channels - transition - 4 of 128 - transition - 4 of 256
             - transition - 4 of 512 - ReLU - mean - Linear

        stem         3 x 3 of stride 2 - BN - ReLU - depthwise 3 x 3 of stride 2 - BN - 1 x 1 - BN
        block        x + BN(relu(conv(x)))
        transition   ReLU - 2 x 2 max-pool of stride 1 - blur of stride 2 - 1 x 1 - BN

    x (n, in_channels, h, w), h and w at least 32, -> (n, num_classes).

    ``channels``    of each stage, the first a multiple of 4
    ``blocks``      of each stage
    ``pad_value``   around quantized inputs; ``None``: +1 after a quantizer to -1 and +1, else 0

    With 1000 classes it has the published 13,234,088 numbers, of which a batch norm counts as
    two a channel and the blurs' kernels count too; for an image of 224 x 224, 1849.7 million 1-bit
    and 29.7 million float multiply-adds. QuickNetSmall has channels (32, 64, 256, 512), and
    QuickNetLarge has blocks (6, 8, 12, 6). The paddings of the stem are symmetric, where
    TensorFlow's fill the end first. Weights and inputs were trained with
    ``{name: ste_sign, clip: 1.25}``, and weights clipped at 1.25.

    Source: Larq Compute Engine, Bannink et al. 2021; ``larq_zoo.sota.QuickNet``.

    >>> model = QuickNet(channels=(8, 16), blocks=(1, 1), input_quantization="sign")
    >>> model(torch.randn(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        *,
        channels: Sequence[int] = (64, 128, 256, 512),
        blocks: Sequence[int] = (4, 4, 4, 4),
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
        pad_value: float | None = None,
    ) -> None:
        super().__init__()
        if len(channels) != len(blocks) or not channels:
            raise ValueError(
                f"every stage has its channels and its number of blocks; got channels="
                f"{tuple(channels)} and blocks={tuple(blocks)}"
            )
        if channels[0] < 4 or channels[0] % 4 != 0:
            raise ValueError(
                f"the stem works on a quarter of the first stage's channels, so channels[0] must "
                f"be a multiple of 4; got {channels[0]}"
            )
        reads = quantizers.get(input_quantization)
        if pad_value is None and reads is not None and reads.pad_value == -1:
            pad_value = 1.0
        quantization = {
            "input_quantization": input_quantization,
            "weight_quantization": weight_quantization,
            "gradient_cancellation_threshold": gradient_cancellation_threshold,
            "pad_value": pad_value,
        }
        self.stem = _stem(in_channels, channels[0])
        stages: list[nn.Module] = []
        before = channels[0]
        for index, (after, count) in enumerate(zip(channels, blocks, strict=True)):
            stage = [ResidualBlock(after, quantization) for _ in range(count)]
            change = [] if index == 0 else [_transition(before, after)]
            stages.append(nn.Sequential(*change, *stage))
            before = after
        self.stages = nn.Sequential(*stages)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(before, num_classes)
        self._initialise()

    def _initialise(self) -> None:
        """He's normal weights in the stem, Glorot's elsewhere."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_normal_(module.weight)
        for module in self.stem.modules():
            if isinstance(module, nn.Conv2d) and module.groups == 1:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stages(self.stem(x)))
        return self.fc(x.mean((2, 3)))
