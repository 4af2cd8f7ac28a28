"""Dynamic transposed convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lowbit.nn.quantized.dynamic._conv import DynamicConv, Size


class _ConvTranspose(DynamicConv):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        reduce_range: bool = True,
    ) -> None:
        if padding_mode != "zeros":
            raise ValueError(
                f"a transposed convolution has padding_mode='zeros' only, not {padding_mode!r}"
            )
        if isinstance(padding, str):
            raise ValueError(f"a transposed convolution takes numbers as padding, not {padding!r}")
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
            output_padding,
            device,
            reduce_range,
        )

    def forward(
        self,
        input: Tensor,
        reduce_range: bool | None = None,
        output_size: Sequence[int] | None = None,
    ) -> Tensor:
        self._check(input)
        return self._run(input, reduce_range, self._output_padding(input, output_size))

    def _output_padding(self, input: Tensor, output_size: Sequence[int] | None) -> tuple[int, ...]:
        if output_size is None:
            return self.output_padding
        assert not isinstance(self.padding, str)
        wanted = tuple(output_size)[-self.dims :]
        extra = []
        for size, want, k, s, p, d in zip(
            input.shape[2:],
            wanted,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            strict=True,
        ):
            least = (size - 1) * s - 2 * p + d * (k - 1) + 1
            if not least <= want < least + s:
                raise ValueError(
                    f"output_size {tuple(output_size)}: for an axis of {size} it must be from "
                    f"{least} to {least + s - 1}"
                )
            extra.append(want - least)
        return tuple(extra)


class ConvTranspose1d(_ConvTranspose):
    """Transposed convolution of x (n, c, l) with an int8 weight: float -> float.

    x is quantized with one scale and zero point for the whole of it in each call, the sums are
    exact, and the output is real: ``lowbit.functional.int8.dynamic.conv_transpose``. (torch.ao's
    layer rounds it once more, to the scale of the input, and warns of its accuracy.)

    Arguments: those of ``torch.nn.ConvTranspose1d``, ``dtype`` without effect, and
    ``reduce_range`` (7 bits of x, as torch.ao; False for 8), also of the call, which takes
    ``output_size`` as torch's. Weights start at random; scales for each channel lie along their
    second axis, and are shared by the groups.

    >>> import torch
    >>> m = ConvTranspose1d(16, 33, 3, stride=2)
    >>> m(torch.randn(20, 16, 24)).shape
    torch.Size([20, 33, 49])
    """

    dims = 1
    _float = nn.ConvTranspose1d


class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution of x (n, c, h, w) with an int8 weight; else as ``ConvTranspose1d``."""

    dims = 2
    _float = nn.ConvTranspose2d


class ConvTranspose3d(_ConvTranspose):
    """Transposed convolution of x (n, c, d, h, w) with an int8 weight; as ``ConvTranspose1d``."""

    dims = 3
    _float = nn.ConvTranspose3d
