"""Scale and zero point from a range of real numbers: one rule for all that needs them.

Observers, fake quantization and conversion call these two functions, so that a network is
trained on the very grid that it is converted to.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The smallest scale: a constant tensor of zeros has a grid, too.
EPS = torch.finfo(torch.float32).eps


def qparams(
    minimum: Tensor,
    maximum: Tensor,
    quant_min: int,
    quant_max: int,
    *,
    middle: int | None = None,
    eps: float | Tensor = EPS,
) -> tuple[Tensor, Tensor]:
    """The grid that lays [minimum, maximum] and 0 over the integers quant_min … quant_max.

    Affine (``middle`` is None)   scale = (max(maximum, 0) - min(minimum, 0)) / levels
                                  zero point = clamp(quant_min - round(min(minimum, 0) / scale))
    symmetric                     scale = max(|minimum|, |maximum|) / (levels / 2)
                                  zero point = ``middle``

    with levels = quant_max - quant_min; no scale is below ``eps``. ``minimum`` and ``maximum``
    are float32 of one shape, () or (channels,), which scale and zero point keep; rounding is
    half to even. Where nothing was seen (minimum > maximum, as inf > -inf) scale is 1 and zero
    point 0. NaN gives a scale of NaN.

    Source: Jacob et al. 2018, section 3; the observers of torch.ao.

    >>> qparams(torch.tensor(-1.0), torch.tensor(3.0), 0, 255)
    (tensor(0.0157), tensor(64, dtype=torch.int32))
    >>> qparams(torch.tensor(-1.0), torch.tensor(3.0), -128, 127, middle=0)
    (tensor(0.0235), tensor(0))
    """
    unseen = minimum > maximum
    low = minimum.clamp_max(0)
    high = maximum.clamp_min(0)
    levels = quant_max - quant_min
    eps = torch.as_tensor(eps, dtype=torch.float32, device=low.device).reshape(())
    if middle is not None:
        scale = torch.maximum(torch.maximum(-low, high) / (levels / 2), eps)
        return torch.where(unseen, 1.0, scale), torch.where(unseen, 0, middle)
    scale = torch.maximum((high - low) / float(levels), eps)
    # In double: int32 codes are more than float32 can count.
    zero_point = quant_min - torch.round(low / scale).double()
    # A NaN is put at the lowest code, since what int makes of it depends on the processor.
    zero_point = torch.where(zero_point > quant_min, zero_point, quant_min).clamp_max(quant_max)
    zero_point = torch.where(unseen, 0, zero_point)
    return torch.where(unseen, 1.0, scale), zero_point.to(torch.int32)


def float_qparams(
    minimum: Tensor,
    maximum: Tensor,
    quant_min: int,
    quant_max: int,
    *,
    eps: float | Tensor = EPS,
) -> tuple[Tensor, Tensor]:
    """The grid that lays exactly [minimum, maximum] over the integers: embeddings' rows.

    scale = (maximum - minimum) / (quant_max - quant_min), 1 where that is not above ``eps``
    zero point = -minimum / scale, not rounded: code = round(x / scale + zero point)

    0 need not be on the grid. Shapes as for ``qparams``; both results are float32, and where
    nothing was seen they are 1 and 0.

    >>> float_qparams(torch.tensor([1.0, 5.0]), torch.tensor([3.0, 5.0]), 0, 4)
    (tensor([0.5000, 1.0000]), tensor([-2., -5.]))
    """
    unseen = minimum > maximum
    scale = (maximum - minimum) / float(quant_max - quant_min)
    # Not where(scale > eps, …, 1): a NaN is to stay one.
    scale = torch.where((scale <= torch.as_tensor(eps, device=scale.device)) | unseen, 1.0, scale)
    return scale, torch.where(unseen, 0.0, -1 * minimum / scale)
