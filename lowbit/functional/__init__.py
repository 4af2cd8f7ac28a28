"""Plain torch: the specification of every operation. Fast paths are tested against it."""

from lowbit.functional.affine import fake_quantize, round_ste
from lowbit.functional.sign import heaviside, sign
from lowbit.functional.stats import over_channel

__all__ = ["fake_quantize", "heaviside", "over_channel", "round_ste", "sign"]
