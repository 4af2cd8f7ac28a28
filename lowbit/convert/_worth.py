"""Which layers are worth packing: where popcount would be slower than float, a layer stays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from lowbit import kernels
from lowbit.functional.packed_geometry import Geometry, threshold_count

PACK_ALL_THE_SAME = "(keep_slower=True packs it)"


class Least(NamedTuple):
    """What a layer must have to be faster packed than in torch's float.

    channels        input channels of a group: below, words are mostly padding
    conv_depth      products for each output of a convolution: channels of a group times taps
    linear_depth    the same of a linear layer
    conv_products   of all outputs of one place: depth times output channels
    linear_products of one row: depth times outputs. A call costs 4.5 us where F.linear costs
                    3.5, so a small layer loses, unless a batch norm (5 us and more) joins it
    norm_pays       whether it does
    linear_outputs  outputs of a linear layer
    planes          at most: binary products for one product, of less than DEEP for an output
    thresholds      at most: of the inputs, likewise
    """

    channels: int = 16
    conv_depth: int = 64
    linear_depth: int = 64
    conv_products: int = 0
    linear_products: int = 0
    norm_pays: bool = True
    linear_outputs: int = 0
    planes: int = 8
    thresholds: int = 255


DEEP = 1024  # products for an output, from which 8 planes pay everywhere
MOST_PLANES = 8
# Each input is compared with every threshold, which its products must outweigh.
PRODUCTS_A_THRESHOLD = 9


# Measured on a Zen 5 core (torch 2.15, one thread, minima of interleaved calls, float in and out,
# channels last) over convolutions of 8-256 channels to 10-256, 1 x 1 and 3 x 3, of 1-28 pixels a
# side, and linear layers of 32-2048 features to 1-1024, batches of 1-64. Within these bounds
# no layer was slower than nn.Conv2d or nn.Linear; the nearest outside them were: linear 256 to
# 64 1.1 times float's time at batch 1, 512 to 32 1.1 to 1.2; convolutions of 16 channels to 16,
# 3 x 3, 1.04 without VPOPCNTDQ. NEON was not measured.
# Several planes, over convolutions of 16-256 channels: 2 x 2 up to 0.6 (avx2: 0.8) times float's
# time, 2 x 3 0.84 (1.17), 2 x 4 1.26 (1.67), 1 x 4 with 15 thresholds 0.84 (1.09), and 1.14
# (1.36) for 1 x 1; 256 channels by 3 x 3 at most 0.31.
VECTOR = Least(conv_products=4096, linear_products=2**16, planes=4, thresholds=3)
POPCOUNT = VECTOR._replace(conv_products=0, planes=6, thresholds=15)
# One word at a time beside float in 16 or 8 lanes: 3 x 3 of 128 channels 1.25 times float's
# time, of 256 to 256 0.97; 1 x 1 of 64 to 64 2.3; linear 256 to 256 0.94, 2048 to 32 1.3.
SCALAR = Least(
    conv_depth=2304,
    linear_depth=256,
    conv_products=2304 * 256,
    linear_products=2**16,
    norm_pays=False,
    linear_outputs=64,
    planes=1,
    thresholds=1,
)
# On a GPU a layer must not be slower than in float16. Measured on an NVIDIA H200 by
# scripts/bench_packed_gpu.py with packed inputs, batches of 1 to 8192 rows and 1 to 128 images, in
# the fastest tile: linear 2048 to 2048 takes 0.72 to 0.75 of float16's time, 1024 to 1024 0.51 to
# 1.01; 3 x 3 convolutions of 256 channels 0.70 to 0.91, of 128 0.93 to 1.16, of 64 0.95 to 1.67.
GPU = Least(
    channels=64, conv_depth=2304, linear_depth=2048, norm_pays=False, planes=1, thresholds=1
)
# Without vectors for float either; and without a compiled library, where the warning says it.
UNMEASURED = Least()


_gpu: ContextVar[bool] = ContextVar("_gpu", default=False)


@contextmanager
def for_gpu(gpu: bool) -> Iterator[None]:
    """Whether what is converted meanwhile will run on a GPU."""
    token = _gpu.set(gpu)
    try:
        yield
    finally:
        _gpu.reset(token)


def kernel() -> str:
    """What the converted layers will run on: the instruction set in use, or "cuda"."""
    return "cuda" if _gpu.get() else kernels.isa()


def least() -> tuple[Least, str]:
    """The bounds of what the layers will run on, and its name."""
    isa = kernel()
    if isa == "cuda":
        return GPU, isa
    if isa == "reference":
        return UNMEASURED, isa
    if isa == "scalar":
        vectors = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
        return (SCALAR if vectors else UNMEASURED), isa
    return (POPCOUNT if isa == "avx512_vpopcntdq" else VECTOR), isa


def slower_than_float(
    layer: nn.Module, coded: Geometry | None = None, norm_follows: bool = False
) -> str:
    """Why packing the layer would not pay, or "".

    ``coded`` has the planes of the packed layer (None: one of inputs and one of weights);
    ``norm_follows`` says that it takes a batch norm in.
    """
    if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        return f"float is faster: packed rows are unpacked when looked up {PACK_ALL_THE_SAME}"
    bounds, isa = least()
    if isinstance(layer, _ConvNd):
        channels, taps = layer.in_channels // layer.groups, math.prod(layer.kernel_size)
        products = channels * taps * layer.out_channels // layer.groups
        depth_bound, products_bound, of = bounds.conv_depth, bounds.conv_products, "a place"
        outputs, outputs_bound = layer.out_channels, 0
    elif isinstance(layer, nn.Linear):
        channels, taps = layer.in_features, 1
        products = channels * layer.out_features
        depth_bound, products_bound, of = bounds.linear_depth, bounds.linear_products, "a row"
        outputs, outputs_bound = layer.out_features, bounds.linear_outputs
        if norm_follows and bounds.norm_pays:
            products_bound = 0
    else:
        return ""
    for has, what, bound in (
        (channels, "input channels a group", bounds.channels),
        (channels * taps, "products an output", depth_bound),
        (products, f"products {of}", products_bound),
        (outputs, "outputs", outputs_bound),
    ):
        if has < bound:
            return f"float is faster: {has} {what}, fewer than {bound} on {isa} {PACK_ALL_THE_SAME}"
    if coded is None or bounds is UNMEASURED:
        return ""
    deep = channels * taps >= DEEP and bounds.planes > 1
    thresholds = threshold_count(coded.planes_x, bool(coded.thermometer_x))
    most = (products // channels) // PRODUCTS_A_THRESHOLD if thresholds > 1 else 1
    for has, what, bound in (
        (
            coded.planes_x * coded.planes_w,
            "binary products for one",
            MOST_PLANES if deep else bounds.planes,
        ),
        (thresholds, "thresholds of an input", most if deep else min(most, bounds.thresholds)),
    ):
        if has > bound:
            return f"float is faster: {has} {what}, more than {bound} on {isa} {PACK_ALL_THE_SAME}"
    return ""
