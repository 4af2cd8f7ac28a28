"""Plain torch: the specification of every operation. Fast paths are tested against it."""

from lowbit.functional.affine import fake_quantize, round_ste
from lowbit.functional.clip import cancel_gradient, clip_gradient
from lowbit.functional.sign import heaviside, sign
from lowbit.functional.stats import over_channel

__all__ = [
    "cancel_gradient",
    "clip_gradient",
    "fake_quantize",
    "heaviside",
    "over_channel",
    "round_ste",
    "sign",
]
