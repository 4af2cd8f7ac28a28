"""Dynamic convolutions."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lowbit.nn.quantized.dynamic._conv import DynamicConv, Size


class _Conv(DynamicConv):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        reduce_range: bool = True,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            None,
            device,
            reduce_range,
        )

    def forward(self, input: Tensor, reduce_range: bool | None = None) -> Tensor:
        return self._run(input, reduce_range, None)


class Conv1d(_Conv):
    """Convolution of x (n, c, l) with an int8 weight: float -> float.

    x is quantized with one scale and zero point for the whole of it in each call, the sums are
    exact, and the output is real: ``lowbit.functional.int8.dynamic.conv``. (torch.ao's layer
    rounds it once more, to the scale of the input, and warns of its accuracy.)

    Arguments: those of ``torch.nn.Conv1d``, ``dtype`` without effect, and ``reduce_range``
    (7 bits of x, as torch.ao; False for 8), also of the call. Weights start at random.

    >>> import torch
    >>> m = Conv1d(16, 33, 3, stride=2)
    >>> m(torch.randn(20, 16, 50)).shape
    torch.Size([20, 33, 24])
    """

    dims = 1
    _float = nn.Conv1d


class Conv2d(_Conv):
    """Convolution of x (n, c, h, w) with an int8 weight; all else as ``Conv1d``.

    >>> import torch
    >>> m = Conv2d(16, 33, (3, 5), stride=(2, 1), padding=(4, 2), dilation=(3, 1))
    >>> m(torch.randn(2, 16, 50, 20)).shape
    torch.Size([2, 33, 26, 20])
    """

    dims = 2
    _float = nn.Conv2d


class Conv3d(_Conv):
    """Convolution of x (n, c, d, h, w) with an int8 weight; all else as ``Conv1d``."""

    dims = 3
    _float = nn.Conv3d
