"""Convolutions with quantizers."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lowbit.nn import _int8
from lowbit.nn._fused import Gradients
from lowbit.nn._layer import QuantizedLayer
from lowbit.quantizers import Spec

PAD_VALUES = (-1.0, 0.0, 1.0)
CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class _QConv(QuantizedLayer, _ConvNd):
    """The common part of QConv1d, QConv2d and QConv3d: signature, padding, fused op."""

    pad_value: float

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        input_quantization: Spec = None,
        weight_quantization: Spec = None,
        gradient_cancellation_threshold: float | None = None,
        gradient_quantization: Spec = None,
        pad_value: float | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,  # type: ignore[arg-type]  # nn.Conv2d's signature, not _ConvNd's
            bias,  # type: ignore[arg-type]
            padding_mode,  # type: ignore[arg-type]
            device,
            dtype,
        )
        self._set_quantization(
            input_quantization,
            weight_quantization,
            gradient_cancellation_threshold,
            gradient_quantization,
            input_layout=(in_channels, -len(self.kernel_size) - 1),
            weight_layout=(out_channels, 0),
            output_layout=(out_channels, -len(self.kernel_size) - 1),
        )
        self.pad_value = self._checked_pad_value(pad_value)

    def _checked_pad_value(self, pad_value: float | None) -> float:
        if pad_value is None:
            return 0.0 if self.input_quantization is None else self.input_quantization.pad_value
        if pad_value not in PAD_VALUES:
            raise ValueError(
                f"pad_value is -1, 0 or 1 (None: -1 after a quantizer to -1 and +1, else 0); "
                f"got {pad_value!r}"
            )
        if self.padding_mode != "zeros":
            raise ValueError(
                f"pad_value={pad_value!r} has no use with padding_mode={self.padding_mode!r}, "
                "which pads with the input's own values; leave one of them out"
            )
        return float(pad_value)

    def _op(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.pad_value == 0 or self.padding_mode != "zeros":
            # Conv2d's own forward on given tensors: every padding mode, 'same' and 'valid'.
            return self._conv_forward(x, weight, bias)
        x = F.pad(x, self._reversed_padding_repeated_twice, value=self.pad_value)
        return self._convolve(x, weight, bias, (0,) * len(self.kernel_size))

    def _convolve(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, ...]
    ) -> Tensor:
        convolve = CONVOLUTIONS[len(self.kernel_size)]
        return convolve(x, weight, bias, self.stride, padding, self.dilation, self.groups)

    def _input_magnitude(self, x: Tensor) -> Tensor:
        # A = the mean of |x| over the channels, then its mean over each window, zeros around it.
        magnitude = x.abs().mean(-len(self.kernel_size) - 1, keepdim=True)
        window = x.new_full((1, 1, *self.kernel_size), 1 / math.prod(self.kernel_size))
        magnitude = F.pad(magnitude, self._reversed_padding_repeated_twice)
        convolve = CONVOLUTIONS[len(self.kernel_size)]
        return convolve(magnitude, window, None, self.stride, 0, self.dilation)

    def _over_places(self, values: Tensor) -> Tensor:
        """A value for each output channel, as it broadcasts against the output."""
        return values.view(-1, *(1,) * len(self.kernel_size))

    def _plus_bias(self, y: Tensor) -> Tensor:
        return y if self.bias is None else y + self._over_places(self.bias)

    def _symmetric_padding(self) -> tuple[int, ...] | None:
        """Padding per spatial axis, or None where the two ends differ ('same', even kernels)."""
        ends = self._reversed_padding_repeated_twice
        if ends[0::2] != ends[1::2]:
            return None
        return tuple(reversed(ends[0::2]))

    def _fusible(self, x: Tensor) -> bool:
        return (
            x.ndim == len(self.kernel_size) + 2
            and self.padding_mode == "zeros"
            and self._symmetric_padding() is not None
        )

    def _sign_op(
        self, x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None
    ) -> Tensor | None:
        padding = self._symmetric_padding()
        assert padding is not None  # _fusible
        out = [
            (size + 2 * pad - gap * (taps - 1) - 1) // step + 1
            for size, pad, gap, taps, step in zip(
                x.shape[2:], padding, self.dilation, self.kernel_size, self.stride, strict=True
            )
        ]
        if weight.dtype != torch.float32 or not _int8.worthwhile(x, weight, self.groups, out):
            return None
        pad_value = self.pad_value if any(padding) else 0.0
        layout = (self.stride, padding, self.dilation)
        y = _int8.sign_convolution(x, weight, scale, *layout, pad_value)
        return y if bias is None else y.add_(self._over_places(bias))

    def _fused_shift(self, dtype: torch.dtype) -> float:
        # A convolution that pads q with p is one that pads q - p with 0, plus p times the sum
        # of each filter. In half precision the shifted sums would lose bits, and so would
        # values near 0: there the padded copy is made.
        quantizer = self.input_quantization
        if quantizer is None or quantizer.levels is None:
            return 0.0
        if dtype in (torch.float32, torch.float64) and any(self._symmetric_padding() or ()):
            return self.pad_value
        return 0.0

    def _fused_op(self, x: Tensor, weight: Tensor, bias: Tensor | None, shift: float) -> Tensor:
        if shift == 0:
            return self._op(x, weight, bias)
        padding = self._symmetric_padding()
        assert padding is not None  # _fusible
        sums = weight.sum(tuple(range(1, weight.ndim))).mul_(shift)
        y = self._convolve(x, weight, sums, padding)
        # Added to the sums, the bias would lose bits that it keeps when added to the result.
        return y if bias is None else y.add_(self._over_places(bias))

    def _fused_op_backward(
        self,
        gradient: Tensor,
        x: Tensor,
        weight: Tensor,
        needed: tuple[bool, bool, bool],
        factor: float,
        shift: float,
    ) -> Gradients:
        padding = self._symmetric_padding()
        assert padding is not None  # _fusible
        padded = shift == 0 and self.pad_value != 0 and any(padding)
        if padded:
            x = F.pad(x, self._reversed_padding_repeated_twice, value=self.pad_value)
        zeros = (0,) * len(padding)
        dx, dw, db = torch.ops.aten.convolution_backward(
            gradient,
            x,
            weight,
            [self.out_channels] if needed[2] else None,
            self.stride,
            zeros if padded else padding,
            self.dilation,
            False,
            zeros,
            self.groups,
            needed,
        )
        if shift != 0 and needed[1]:
            sums = db if needed[2] else gradient.sum((0, *range(2, gradient.ndim)))
            sums = sums.mul(shift).view(-1, *(1,) * (weight.ndim - 1))
            torch.add(sums, dw, alpha=factor, out=dw)
        if padded and dx is not None:
            inner = [slice(None), slice(None)]
            inner += [slice(p, size - p) for p, size in zip(padding, dx.shape[2:], strict=True)]
            dx = dx[tuple(inner)].contiguous()
        # Some backends return the weight's gradient with the bias's, asked for or not.
        return dx if needed[0] else None, dw if needed[1] else None, db

    def _sign_padding(self) -> tuple[tuple[int, int], float]:
        ends = self._symmetric_padding()
        if self.pad_value == 0 or ends is None or len(ends) > 2:
            return (0, 0), 0.0
        return (0 if len(ends) == 1 else ends[0], ends[-1]), self.pad_value

    def _padded_op(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not any(self._sign_padding()[0]):
            return self._op(x, weight, bias)
        return self._convolve(x, weight, bias, (0,) * len(self.kernel_size))

    def _padded_op_backward(
        self,
        gradient: Tensor,
        signs: Tensor,
        x: Tensor,
        weight: Tensor,
        needed: tuple[bool, bool, bool],
    ) -> Gradients:
        if not any(self._sign_padding()[0]):
            return super()._padded_op_backward(gradient, signs, x, weight, needed)
        # Of the gradient to the padded signs only the middle is wanted, which is that of a
        # convolution that pads by itself; it depends on the shape of its input alone.
        padding, zeros = self._symmetric_padding(), (0,) * len(self.kernel_size)
        dx = dw = db = None
        if needed[0]:
            shape = torch.empty_like(x, dtype=weight.dtype)
            ends = (self.stride, padding, self.dilation, False, zeros, self.groups)
            dx, _, _ = torch.ops.aten.convolution_backward(
                gradient, shape, weight, None, *ends, (True, False, False)
            )
        if needed[1] or needed[2]:
            sizes = [self.out_channels] if needed[2] else None
            ends = (self.stride, zeros, self.dilation, False, zeros, self.groups)
            _, dw, db = torch.ops.aten.convolution_backward(
                gradient, signs, weight, sizes, *ends, (False, needed[1], needed[2])
            )
        return dx, dw if needed[1] else None, db

    def extra_repr(self) -> str:
        if not any(self._reversed_padding_repeated_twice):
            return super().extra_repr()
        return f"{super().extra_repr()}, pad_value={self.pad_value:g}"


class QConv1d(_QConv, nn.Conv1d):
    """``torch.nn.Conv1d`` on quantized input and weight: x (N, C, L) or (C, L).

    Arguments as ``QConv2d``.
    """


class QConv2d(_QConv, nn.Conv2d):
    """``torch.nn.Conv2d`` on quantized input and weight: x (N, C, H, W) or (C, H, W).

    y = conv(pad(q_in(x)), q_w(weight)) + bias.

    Padding happens after quantization, with ``pad_value``: -1, 0 or +1. ``None`` takes what
    adds no new value: -1 where the input quantizer gives exactly -1 and +1, else 0. The
    quantizers and the gradient's arguments are as in ``QLinear``; all other
    arguments are those of ``torch.nn.Conv2d``. With both quantizers ``None`` it is that layer.

    >>> layer = QConv2d(3, 8, 3, padding=1, input_quantization="sign", weight_quantization="sign")
    >>> layer(torch.randn(2, 3, 5, 5)).shape, layer.pad_value
    (torch.Size([2, 8, 5, 5]), -1.0)
    """


class QConv3d(_QConv, nn.Conv3d):
    """``torch.nn.Conv3d`` on quantized input and weight: x (N, C, D, H, W) or (C, D, H, W).

    Arguments as ``QConv2d``.
    """
