"""What dynamic convolutions and transposed convolutions of one to three dimensions share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowbit.functional.int8.conv import ConvLayout
from lowbit.kernels import int8_dynamic
from lowbit.nn.quantized.dynamic._base import OneMatrix
from lowbit.nn.quantized.dynamic._observe import observed_weight, weight_observer
from lowbit.nn.quantized.dynamic._params import QuantizedParams
from lowbit.qtensor import QTensor

Size = int | Sequence[int]

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class DynamicConv(OneMatrix):
    """A convolution whose input is quantized with one scale and zero point in each call."""

    dims: int
    _float: type[nn.Module]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size,
        padding: Size | str,
        dilation: Size,
        groups: int,
        bias: bool,
        padding_mode: str,
        output_padding: Size | None,
        device: Any,
        reduce_range: bool,
    ) -> None:
        super().__init__(reduce_range)
        if in_channels < 1 or out_channels < 1 or groups < 1:
            raise ValueError(
                f"in_channels={in_channels}, out_channels={out_channels}, groups={groups}: each "
                "must be 1 at least"
            )
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"in_channels={in_channels} and out_channels={out_channels} must be multiples of "
                f"groups={groups}"
            )
        if padding_mode not in PADDING_MODES:
            raise ValueError(f"no padding_mode {padding_mode!r}; known: {', '.join(PADDING_MODES)}")
        transposed = output_padding is not None
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = self._each("kernel_size", kernel_size)
        self.stride = self._each("stride", stride)
        self.padding = padding if isinstance(padding, str) else self._each("padding", padding)
        self.dilation = self._each("dilation", dilation)
        self.transposed = transposed
        self.output_padding = self._each("output_padding", output_padding or 0)
        self.groups = groups
        self.padding_mode = padding_mode
        self._sides = self._padded_sides()
        first, second = in_channels, out_channels // groups
        if not transposed:
            first, second = out_channels, in_channels // groups
        self.params = QuantizedParams(
            (first, second, *self.kernel_size),
            out_channels if bias else None,
            torch.int8,
            axis=1 if transposed else 0,
            device=device,
        )

    def _each(self, name: str, value: Size) -> tuple[int, ...]:
        values = (value,) * self.dims if isinstance(value, int) else tuple(value)
        values = values * self.dims if len(values) == 1 else values
        if len(values) != self.dims:
            raise ValueError(f"{name}={value} must be one number or {self.dims}")
        return values

    def _padded_sides(self) -> list[int] | None:
        """What ``F.pad`` puts around the input, last axis first; None: the kernel pads."""
        if isinstance(self.padding, str):
            if self.padding not in ("same", "valid"):
                raise ValueError(f"padding={self.padding!r}: a number, 'same' or 'valid'")
            if self.padding == "valid":
                return [0] * 2 * self.dims
            if any(s != 1 for s in self.stride):
                raise ValueError(f"padding='same' needs a stride of 1, not {self.stride}")
            spans = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            return [side for span in reversed(spans) for side in (span // 2, span - span // 2)]
        if self.padding_mode == "zeros":
            return None
        return [side for p in reversed(self.padding) for side in (p, p)]

    def extra_repr(self) -> str:
        parts = [
            f"{self.in_channels}, {self.out_channels}",
            f"kernel_size={self.kernel_size}",
            f"stride={self.stride}",
        ]
        for name, usual in (
            ("padding", (0,) * self.dims),
            ("dilation", (1,) * self.dims),
            ("output_padding", (0,) * self.dims),
            ("groups", 1),
            ("padding_mode", "zeros"),
        ):
            if getattr(self, name) != usual:
                parts.append(f"{name}={getattr(self, name)!r}")
        return ", ".join(parts) + ("" if self.bias() is not None else ", bias=False")

    def _check(self, input: Tensor) -> None:
        if input.ndim != self.dims + 2 or input.shape[1] != self.in_channels:
            axes = ("l", "h, w", "d, h, w")[self.dims - 1]
            raise ValueError(
                f"an input of shape {tuple(input.shape)}; it must be (n, "
                f"in_channels={self.in_channels}, {axes})"
            )

    def _run(
        self, input: Tensor, reduce_range: bool | None, output_padding: tuple[int, ...] | None
    ) -> Tensor:
        self._check(input)
        padding = self.padding
        if self._sides is not None:
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            input, padding = F.pad(input, self._sides, mode=mode), (0,) * self.dims
        assert not isinstance(padding, str)
        layout = ConvLayout(self.stride, padding, self.dilation, self.groups, output_padding)
        reduce_range = self.reduce_range if reduce_range is None else reduce_range
        return int8_dynamic.conv(input, self.params.matrix(), layout, reduce_range)

    def _legacy_keys(self) -> dict[str, str]:
        return {"params": "weight"}

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Self:
        """The dynamic layer of torch's with a ``qconfig``, or of one of ``lowbit.nn.qat``.

        A qconfig of None takes 8 bits and one scale. TypeError for other modules, ValueError
        without a qconfig, and for weights that its observer does not quantize to int8.
        """
        observer = weight_observer(cls.__name__, mod, (cls._float,))
        layer: Any = mod
        weight = observed_weight(layer.weight, observer)
        if not isinstance(weight, QTensor):
            raise ValueError(f"{cls.__name__} has int8 weights; its qconfig asks for float16")
        return cls._with(layer, weight)

    @classmethod
    def from_reference(cls, ref_qconv: Any) -> Self:
        """The dynamic layer of a reference module: its ``get_quantized_weight()`` and ``bias``."""
        return cls._with(ref_qconv, ref_qconv.get_quantized_weight())

    @classmethod
    def _with(cls, mod: Any, weight: Any) -> Self:
        names = ["in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation"]
        names += ["groups", "padding_mode"] + (["output_padding"] if mod.transposed else [])
        make: Any = cls
        made = make(bias=mod.bias is not None, **{name: getattr(mod, name) for name in names})
        made.set_weight_bias(weight, mod.bias)
        return made
