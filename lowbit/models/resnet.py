"""Residual networks in the variants of the papers on binary and low-bit networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lowbit.models._blocks import INITIALISATIONS, chosen, initialise
from lowbit.models._blocks import activation as make_activation
from lowbit.models._residual import DOWNSAMPLES, BasicBlock, PreActivationBlock
from lowbit.quantizers import Spec

# depth -> blocks of each stage
STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def _stages(depth: int) -> tuple[int, ...]:
    if depth in STAGES:
        return STAGES[depth]
    if depth >= 8 and depth % 6 == 2:
        return ((depth - 2) // 6,) * 3
    raise ValueError(
        f"depth is 18 or 34 (four stages), or 6 n + 2 (three stages of n blocks: 20, 32, 44, 56, "
        f"110); got {depth}"
    )


class ResNet(nn.Module):
    """Residual network of quantized 3 x 3 convolutions; first convolution and last layer float.

        stem - stages of blocks of two convolutions - mean - Linear

    Depths 18 and 34 have four stages, 6 n + 2 (20, 32, 44, 56, 110) three of n blocks each; every
    stage after the first has half the size and twice the channels.
    x (n, in_channels, h, w) -> (n, num_classes).

    ``stem``        ``cifar``: 3 x 3 convolution - BN - activation;
                    ``imagenet``: 7 x 7 of stride 2 - BN - activation - 3 x 3 max-pool of stride 2;
                    ``imagenet_bn``: that, and a BN behind the pooling (ResNetE)
    ``order``       ``conv_bn``: convolution - BN - addition - activation;
                    ``conv_act_bn``: convolution - activation - BN - addition (ReSTE), and
                    convolution - activation - BN in the stem;
                    ``bn_act``: BN - activation - convolution - addition (pre-activation), with
                    BN - activation behind the last block
    ``stem_norm``   BN - activation in the stem, and none in front of the first convolution of
                    ``bn_act`` (TTQ, LQ-Nets); False: the stem is the convolution alone, and its
                    pooling (Distiller; ResNetE for CIFAR)
    ``block_norm``  of ``bn_act``: a BN behind the second convolution of a block, before the
                    addition (LQ-Nets, HWGQ)
    ``shortcut``    ``conv``: around every convolution (Bi-Real Net, IR-Net); ``block``: around two
    ``downsample``  of shortcuts that change shape: ``float`` 1 x 1 convolution of stride 2 - BN;
                    ``pool_float``: 2 x 2 mean, float 1 x 1 convolution - BN (Bi-Real Net);
                    ``quantized``: as ``float``, with the quantizers of the other layers;
                    ``pad``: every second value, zero channels (option A of He et al.);
                    ``pool_pad``: 2 x 2 mean, zero channels
    ``activation``  a name of ``ACTIVATIONS``; ``None``: nothing where the input quantizer has
                    one or two bits, else ReLU
    ``stem_activation``  of the stem alone; ``None``: as ``activation``
    ``head``        before the last layer: ``plain``; ``relu``: a ReLU before the mean (ResNetE);
                    ``bn``: a BN behind the mean (IR-Net); ``bn_relu``: that, and a ReLU
    ``width``       channels of the first stage; ``None``: 64, with three stages 16
    ``weight_init`` of convolutions: ``kaiming``: normal of variance 2 / fan_out; ``bireal``:
                    uniform in (0, 0.001) in layers with weight quantizer, as in the code of
                    Bi-Real Net and ReActNet; ``glorot``: normal, as in larq; ``torch``: its own;
                    ``kaiming_in``: normal of variance 2 / fan_in; ``kaiming_in_fc``: that, the
                    last layer's weights too
    ``real_input``  the first quantized convolution reads real numbers (Distiller's recipes)
    ``norm_eps``, ``norm_momentum``  of the batch norms: torch's; Keras' are 1e-3 and 0.01
    ``norm_weight`` that the batch norms of images start from: 1, or near 0 as in ReCU's code, so
                    that at first the shortcuts alone speak
    ``pad_value``   around quantized inputs; ``None``: -1 where they are -1 and +1, so that no
                    third value comes in; the papers below have 0

    What the papers have, beside their quantizers and pad_value 0:

        ResNet-20 of IR-Net          depth 20, downsample pad, activation hardtanh, head bn,
                                     weight_init kaiming_in_fc
        ResNet-20 of TTQ             depth 20, order bn_act, shortcut block, downsample pool_pad
        ResNet-20 of Distiller       that with stem_norm False, real_input True
        ResNet-18 of LQ-Nets         stem imagenet, order bn_act, block_norm True, shortcut block,
                                     downsample quantized, activation relu
        ResNet-18/34 of Bi-Real Net  stem imagenet, downsample pool_float, weight_init bireal
        ResNetE-18/34                stem imagenet_bn, downsample pool_float, stem_activation
                                     relu, head relu; for CIFAR stem cifar, stem_norm False
        ResNet-18 of ReActNet        stem imagenet, downsample pool_float, activation rprelu,
                                     stem_activation identity, weight_init bireal; the input
                                     quantizer is rsign
        ResNet-18/34 of IR-Net       stem imagenet, activation hardtanh, head bn
          its weights alone, 20      depth 20, downsample pad, shortcut block, activation relu,
                                     stem_activation identity, head bn_relu
          its weights alone, 18/34   stem imagenet, shortcut block, activation relu, head bn
        ResNet-20 of ReSTE           depth 20, order conv_act_bn, shortcut block, downsample pad,
                                     activation relu, head bn

    Parameters: depth 20 0.27 million; 18 and 34 with 1000 classes 11.69 and 21.80 million.

    Source: He et al. 2016 (two papers); Bi-Real Net, Liu et al. 2018; Back to Simplicity,
    Bethge et al. 2019; IR-Net, Qin et al. 2020; ReActNet, Liu et al. 2020.

    >>> import torch
    >>> model = ResNet(depth=20, input_quantization="sign", weight_quantization="sign")
    >>> model(torch.randn(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        *,
        depth: int = 18,
        stem: str = "cifar",
        order: str = "conv_bn",
        stem_norm: bool = True,
        shortcut: str = "conv",
        downsample: str = "float",
        activation: str | None = None,
        stem_activation: str | None = None,
        head: str = "plain",
        width: int | None = None,
        weight_init: str = "kaiming",
        block_norm: bool = False,
        real_input: bool = False,
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
        norm_weight: float = 1.0,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
        pad_value: float | None = None,
    ) -> None:
        super().__init__()
        chosen("stem", stem, ("cifar", "imagenet", "imagenet_bn"))
        chosen("order", order, ("conv_bn", "conv_act_bn", "bn_act"))
        chosen("shortcut", shortcut, ("conv", "block"))
        chosen("downsample", downsample, DOWNSAMPLES)
        chosen("head", head, ("plain", "relu", "bn", "bn_relu"))
        chosen("weight_init", weight_init, INITIALISATIONS)
        if block_norm and order != "bn_act":
            raise ValueError(
                f"block_norm is of order='bn_act', whose blocks end in a convolution; got "
                f"order={order!r}, where a batch norm stands behind every one"
            )
        counts = _stages(depth)
        if width is None:
            width = 64 if len(counts) == 4 else 16
        options: dict[str, Any] = {
            "shortcut": shortcut,
            "downsample": downsample,
            "activation": activation,
            "quantization": {
                "input_quantization": input_quantization,
                "weight_quantization": weight_quantization,
                "gradient_cancellation_threshold": gradient_cancellation_threshold,
                "pad_value": pad_value,
            },
        }
        pre = order == "bn_act"
        self.act_first = order == "conv_act_bn"
        if self.act_first:
            options["act_first"] = True
        if block_norm:
            options["block_norm"] = True
        make: Callable[..., nn.Module] = PreActivationBlock if pre else BasicBlock

        if stem == "cifar":
            self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        bare = not stem_norm
        self.bn1: nn.Module = nn.Identity() if bare else nn.BatchNorm2d(width)
        own = activation if stem_activation is None else stem_activation
        self.act1 = make_activation("identity" if bare else own, width, input_quantization)
        self.pool: nn.Module = nn.Identity()
        if stem != "cifar":
            self.pool = nn.MaxPool2d(3, 2, 1)
        if stem == "imagenet_bn":
            self.pool = nn.Sequential(self.pool, nn.BatchNorm2d(width))

        before = width
        self.names = [f"layer{index + 1}" for index in range(len(counts))]
        for index, (name, count) in enumerate(zip(self.names, counts, strict=True)):
            after, stride = width * 2**index, 1 if index == 0 else 2
            stands_behind = {"pre_norm": False} if pre and stem_norm and index == 0 else {}
            reads = {"real_input": True} if real_input and index == 0 else {}
            first = make(before, after, stride, **options, **stands_behind, **reads)
            rest = [make(after, after, 1, **options) for _ in range(count - 1)]
            setattr(self, name, nn.Sequential(first, *rest))
            before = after
        self.end: nn.Module = nn.ReLU() if head == "relu" else nn.Identity()
        if pre:
            last = make_activation("relu" if head == "relu" else activation, before, None)
            self.end = nn.Sequential(nn.BatchNorm2d(before), last)
        self.norm: nn.Module = nn.Identity()
        if head.startswith("bn"):
            self.norm = nn.BatchNorm1d(before)
        self.act_end = nn.ReLU() if head == "bn_relu" else nn.Identity()
        self.fc = nn.Linear(before, num_classes)

        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                initialise(module, weight_init)
            elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.eps, module.momentum = norm_eps, norm_momentum
            if isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.weight, norm_weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = self.bn1(self.act1(x)) if self.act_first else self.act1(self.bn1(x))
        x = self.pool(x)
        for name in self.names:
            x = getattr(self, name)(x)
        return self.fc(self.act_end(self.norm(self.end(x).mean((2, 3)))))
