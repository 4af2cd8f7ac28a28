"""Quantized modules with drawn weights, and inputs for them."""

import torch
from torch import nn

from lowbit.nn import quantized as nnq
from lowbit.qtensor import QTensor, quantize_per_channel, quantize_per_tensor


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def activation(*shape: int, dtype: str = "uint8", seed: int = 0) -> QTensor:
    return quantize_per_tensor(
        normal(*shape, seed=seed), 0.03, 117 if dtype == "uint8" else -11, dtype
    )


def weighted(module: nn.Module, axis: int | None = 0, seed: int = 1) -> nn.Module:
    """A layer with a drawn weight, bias and output scale; per tensor where axis is None."""
    shape = module.weight().shape
    real = normal(*shape, seed=seed)
    if axis is None:
        weight = quantize_per_tensor(real, 0.02, 0, "int8")
    else:
        scales = 0.01 + 0.001 * torch.arange(shape[axis])
        weight = quantize_per_channel(real, scales, torch.zeros(shape[axis]).long(), axis, "int8")
    bias = None if module.bias() is None else normal(len(module.bias()), seed=seed + 1)
    module.set_weight_bias(weight, bias)
    module.scale, module.zero_point = 0.1, 100
    return module


def residual_net() -> nn.Module:
    """Real numbers in and out, and between them most of the modules."""
    return Residual().eval()


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quantize = nnq.Quantize(0.03, 117, "quint8")
        self.stem = weighted(nnq.ConvReLU2d(3, 16, 3, padding=1))
        self.pool = nnq.MaxPool2d(2)
        self.conv = weighted(nnq.Conv2d(16, 16, 3, padding=1, groups=2, bias=False))
        self.norm = nnq.BatchNorm2d(16)
        self.norm.scale, self.norm.zero_point = 0.05, 120
        self.add = nnq.QFunctional()
        self.add.scale, self.add.zero_point = 0.1, 90
        self.swish = nnq.Hardswish(0.08, 5)
        self.fc = weighted(nnq.Linear(16, 10), None)
        self.dequantize = nnq.DeQuantize()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.pool(self.stem(self.quantize(x)))
        y = self.swish(self.add.add_relu(self.norm(self.conv(y)), y))
        y = nnq.functional.adaptive_avg_pool2d(y, 1).flatten(1)
        return self.dequantize(self.fc(y))
