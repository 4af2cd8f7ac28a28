"""Statistics that several weight quantizers scale by."""

from torch import Tensor

from lowbit.functional.stats import other_axes


def mean_magnitude(x: Tensor, axis: int | None) -> Tensor:
    """The mean of |x| over each channel along ``axis`` (broadcastable), or over all of x."""
    if axis is None:
        return x.abs().mean()
    return x.abs().mean(other_axes(x, axis), keepdim=True)
