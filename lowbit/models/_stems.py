"""First layers that several networks share."""

from __future__ import annotations

from torch import nn

STEMS = ("cifar", "imagenet", "grouped")


def dense_stem(kind: str, before: int, after: int) -> nn.Sequential:
    """The float layers in front of a network whose blocks begin with a batch norm.

    ``cifar``     3 x 3 convolution
    ``imagenet``  7 x 7 of stride 2 - BN - ReLU - 3 x 3 max-pool of stride 2
    ``grouped``   3 x 3 of stride 2 to half the channels - BN - ReLU - 3 x 3 in 4 groups - BN -
                  ReLU - 3 x 3 in 8 groups to all channels - BN - ReLU - 3 x 3 max-pool of stride 2

    The last two make a quarter of the size.

    Source: Back to Simplicity, Bethge et al. 2019; ``grouped``: MeliusNet, Bethge et al. 2020.
    """
    if kind == "cifar":
        return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False))
    pool = nn.MaxPool2d(3, 2, 1)
    if kind == "imagenet":
        conv = nn.Conv2d(before, after, 7, stride=2, padding=3, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU(), pool)
    if after % 16 != 0:
        raise ValueError(
            f"the grouped stem has half the channels in 8 groups, so that they must be a multiple "
            f"of 16; got {after}"
        )
    half = after // 2
    return nn.Sequential(
        nn.Conv2d(before, half, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(half),
        nn.ReLU(),
        nn.Conv2d(half, half, 3, padding=1, groups=4, bias=False),
        nn.BatchNorm2d(half),
        nn.ReLU(),
        nn.Conv2d(half, after, 3, padding=1, groups=8, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
        pool,
    )
