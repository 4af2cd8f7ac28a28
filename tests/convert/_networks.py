"""Networks whose parameters are as odd as training might leave them."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lowbit.nn import DPReLU, LearnedScale, Maxout, QConv2d, RPReLU

SIGN = {"input_quantization": "sign", "weight_quantization": "sign"}


def shaken(model: nn.Module, seed: int = 0, shape: tuple[int, ...] | None = None) -> nn.Module:
    """The model with drawn parameters and statistics; some gammas negative, zero and tiny.

    With ``shape``, one batch is run in training mode first, from which quantizers start.
    """
    generator = torch.Generator().manual_seed(seed)
    if shape is not None:
        model.train()(torch.randn(shape, generator=generator))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                count = module.num_features
                module.running_mean.normal_(0, 3, generator=generator)
                module.running_var.uniform_(1, 100, generator=generator)
                if module.affine:
                    module.weight.normal_(1, 1, generator=generator)
                    module.bias.normal_(0, 1, generator=generator)
                    module.weight[: count // 8] = 0.0
                    module.weight[count // 8 : count // 4] *= 1e-6
            elif isinstance(module, RPReLU | DPReLU | Maxout | LearnedScale | nn.PReLU):
                for parameter in module.parameters():
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter.add_(noise, alpha=0.2)
    return model.eval()


class Plain(nn.Module):
    """conv - [between] - conv - norm, every layer quantized, with batch norms of one's choice."""

    def __init__(self, between: list[nn.Module], channels: int = 32, **quantization) -> None:
        super().__init__()
        options = {**SIGN, **quantization}
        self.first = QConv2d(32, channels, 3, padding=1, bias=False, **options)
        self.between = nn.Sequential(*between)
        self.second = QConv2d(channels, 32, 3, padding=1, bias=False, **options)
        self.norm = nn.BatchNorm2d(32)

    def forward(self, x):
        return self.norm(self.second(self.between(self.first(x))))


class Residual(nn.Module):
    """Two convolutions, a shortcut around each, and the activation behind the addition."""

    def __init__(self, activation=None, channels: int = 32, **quantization) -> None:
        super().__init__()
        options = {**SIGN, **quantization}
        self.conv1 = QConv2d(channels, channels, 3, padding=1, bias=False, **options)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = activation or nn.Identity()
        self.conv2 = QConv2d(channels, channels, 3, padding=1, bias=False, **options)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        y = self.act1(self.bn1(self.conv1(x)) + x)
        return self.bn2(self.conv2(y)) + y


def integers(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Numbers with zeros of both signs among them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    x.view(-1)[::7] = 0.0
    x.view(-1)[::11] = -0.0
    return x
