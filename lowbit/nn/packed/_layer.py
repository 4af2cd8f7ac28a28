"""What packed layers share: words in place of weights, one operator call in place of arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowbit import kernels
from lowbit.functional.packed_conv import AFFINE, apply_steps, rows_of, weight_integers
from lowbit.functional.packed_geometry import Geometry
from lowbit.functional.packing import WORD

BOTH = -1
OUTPUTS = {"int": kernels.INT, "float": kernels.FLOAT, "bits": kernels.BITS, "both": BOTH}
BCONV, BCONV_BOTH = torch.ops.lowbit.bconv.default, torch.ops.lowbit.bconv_both.default


class PackedLayer(nn.Module):
    """Base of the packed layers: y = steps(conv(code(x), weight)), computed on bits.

    ``geometry`` and ``steps`` are those of ``lowbit.functional.packed_conv``. ``out``: "float";
    "int", the accumulators; "bits", their packed signs; "both", the float and its packed signs.
    ``packed_input``: x comes as packed planes (int64) instead of numbers. ``thresholds`` is the
    shape of the thresholds that code the input, None where it is coded by its sign.

    The rest describes what one convolution does not give, and is computed in torch around it:
    ``terms``, how many filters, each with a factor, make one output channel (0: one, whose
    factor is in the first AFFINE step); ``ones``: a filter of ones was added to each group, for
    the constant part of a weight; ``border``: the constant part of the input inside the image,
    and what lies around it; ``act_scale``: the output is multiplied by the mean magnitude of
    the real inputs before the bias is added.

    Numbers are computed in float32, whatever floating dtype comes in (integers raise TypeError),
    and go out in that dtype; channels last in memory, they go out so. Packed planes do not say
    it: of these, images go out channels last where ``channels_last`` is set or the residual is
    so. ``.half()`` and the like leave the buffers alone. A NaN in the input counts as the largest
    value (the sign +1), where a trained layer returns NaN.

    Buffers: ``weight`` int64 (planes_w, out, taps, words); ``params`` float32 (rows, out), or
    int32 (2, out) for bits; ``thresholds`` float32; and what the rest needs. ``panel``, the
    weight as the kernel in use wants it, is made from ``weight`` and not saved. Loading a state,
    copies, pickles and moves make it anew. What changes ``weight`` otherwise must call
    ``refresh()`` then: calls do not look, which takes small layers a noticeable time, and compute
    with the panel that there is, in ``torch.func.functional_call`` too.
    """

    weight: Tensor
    params: Tensor | None
    thresholds: Tensor | None
    mix: Tensor | None
    tap_sums: Tensor | None
    late_bias: Tensor | None
    panel: Tensor | None

    def __init__(
        self,
        geometry: Geometry,
        *,
        steps: Sequence[int] = (AFFINE,),
        out: str = "float",
        packed_input: bool = False,
        channels_last: bool = False,
        thresholds: tuple[int, ...] | None = None,
        terms: int = 0,
        ones: bool = False,
        border: tuple[float, float] | None = None,
        act_scale: bool = False,
    ) -> None:
        super().__init__()
        geometry.check()
        self.geometry = geometry
        self.terms = terms
        self.ones = ones
        self.border = border
        self.act_scale = act_scale
        self.packed_input = packed_input
        self.channels_last = channels_last
        self.dtype = torch.float32  # of what comes out where packed planes come in
        shape = (geometry.planes_w, geometry.out_channels, geometry.taps, geometry.words)
        self.register_buffer("weight", torch.zeros(shape, dtype=torch.int64))
        channels = self.out_channels
        filters = max(terms, 1) + int(ones)
        real = partial(torch.zeros, dtype=torch.float32)  # whatever the default is
        mixed = torch.zeros(filters, channels, dtype=torch.float64) if terms else None
        sums = torch.zeros(channels, geometry.taps, dtype=torch.float64) if border else None
        self._hold("thresholds", None if thresholds is None else real(thresholds))
        self._hold("mix", mixed)
        self._hold("tap_sums", sums)
        self._hold("late_bias", real(channels) if act_scale else None)
        self._hold("panel", None)
        self.set_output(out, steps)

    def _hold(self, name: str, value: Tensor | None) -> None:
        """Set a buffer, or None in its place.

        None is no buffer here: torch.export, up to 2.15 at least, miscounts buffers after one.
        """
        self._buffers.pop(name, None)
        self.__dict__.pop(name, None)
        if value is None:
            self.__dict__[name] = None
        else:
            self.register_buffer(name, value, persistent=name != "panel")

    @property
    def out_channels(self) -> int:
        """Channels of the output; the convolution has more where several filters make one."""
        filters = self.geometry.out_channels
        if self.ones:
            filters -= self.geometry.groups
        return filters // max(self.terms, 1)

    @property
    def plain(self) -> bool:
        """Whether the operator computes all of it, so that it may also return integers or bits."""
        g = self.geometry
        # Kernels write whole words of bits, so a word must not span two groups.
        whole = g.groups == 1 or g.out_channels // g.groups % WORD == 0
        return self.terms == 0 and not self.act_scale and whole

    @property
    def scale(self) -> Tensor:
        """The first row of the first AFFINE step, of scale V + shift; no attribute without one."""
        return self._affine()[0]

    @property
    def shift(self) -> Tensor:
        """The second row of the first AFFINE step; no attribute without one."""
        return self._affine()[1]

    def _affine(self) -> Tensor:
        if not self.steps or self.steps[0] != AFFINE or self.params is None:
            # Such a layer has no such attribute; torch.jit.trace asks each one by hasattr. The
            # words are those of torch.nn.Module, which is asked next.
            raise AttributeError
        return self.params

    def set_output(self, out: str, steps: Sequence[int], params: Tensor | None = None) -> None:
        """What comes out, after which steps, with which parameters (zeros where None).

        ``params``: the rows that the steps consume; for "both" one more, the threshold, where it
        is not 0; int32 thresholds and flips for "bits"; none for "int".
        """
        if out not in OUTPUTS:
            raise ValueError(f"out is one of {', '.join(OUTPUTS)}; got {out!r}")
        if out != "float" and not self.plain:
            raise ValueError(
                "a layer of several terms, scaled by its inputs, or of groups without whole words "
                f"of {WORD} channels gives floats only; got out={out!r}"
            )
        if self.act_scale and tuple(steps) != (AFFINE,):
            raise ValueError(
                f"nothing follows an output scaled by its inputs: steps are ({AFFINE},); "
                f"got {tuple(steps)}"
            )
        rows = {"int": 0, "bits": 2}.get(out, rows_of(steps))
        if out == "both" and params is not None and len(params) == rows + 1:
            if bool(params[-1].any()):
                rows += 1
            else:
                params = params[:-1].clone()
        if out in ("int", "bits") and steps:
            raise ValueError(f"out={out!r} takes no steps; got {tuple(steps)}")
        shape, dtype = (rows, self.out_channels), torch.int32 if out == "bits" else torch.float32
        if params is None:
            params = torch.zeros(shape, dtype=dtype, device=self.weight.device)
        if params.shape != shape or params.dtype != dtype:
            raise ValueError(
                f"out={out!r} with steps {tuple(steps)} takes params {shape} of {dtype}; got "
                f"{tuple(params.shape)} of {params.dtype}"
            )
        self.out, self._out = out, OUTPUTS[out]
        self.steps = tuple(steps)
        # As the operator takes them: making it anew costs as much as a small layer.
        self._spec, self._sums_spec = self.geometry.layer(steps), self.geometry.layer()
        self._hold("params", params.contiguous() if rows else None)

    def set_packed_input(self) -> None:
        """Take packed planes from now on, which the layer before gives."""
        if self.act_scale:
            raise ValueError("the mean magnitude of the inputs needs the inputs themselves")
        self.packed_input = True
        self._hold("thresholds", None)

    def refresh(self) -> Tensor | None:
        """Prepare the weight for where it lies: the instruction set in use, or a GPU.

        To be called where ``weight`` was written to. None without memory behind it.
        """
        panel = None
        if not self.weight.is_meta:
            isa = kernels.isa() if self.weight.device.type == "cpu" else ""
            panel = kernels.prepare(self.weight, self.geometry, isa)
        self._hold("panel", panel)
        return panel

    def weight_integers(self) -> Tensor:
        """The filters as integers: (filters, c / groups, d, h, w) float64."""
        return weight_integers(self.weight, self.geometry)

    # What the subclasses say of their layout.

    @classmethod
    def from_trained(cls, layer: Any) -> Self:
        """The packed layer that returns what ``layer`` does in evaluation.

        Raises ``CannotPack`` with the reason where there is none.
        """
        raise NotImplementedError(f"{cls.__name__} needs from_trained(layer)")

    def _magnitude(self, x: Tensor) -> Tensor:
        """The mean magnitude of the inputs of each output, as trained layers scale by it."""
        raise NotImplementedError

    def _reals(self, x: Tensor) -> Tensor:
        """x in float32. Integers are refused: the trained layers take none either."""
        if not x.is_floating_point():
            raise TypeError(
                f"{type(self).__name__} takes numbers of a floating dtype, as the trained layer "
                f"does; got {x.dtype}: convert them with .float()"
            )
        return x.float()

    def _run(self, x: Tensor, residual: Tensor | None, channels_last: bool) -> Any:
        """The output for x (n, c, ...), float32 or packed."""
        # Straight to the buffers: attributes of modules are slow, and small layers are quick.
        buffers = self._buffers
        panel = buffers.get("panel")
        if panel is None:
            panel = self.refresh()
            assert panel is not None, "the weight is on the device 'meta': load it first"
        thresholds = buffers.get("thresholds")
        if self.terms:
            layer, integers = self._sums_spec, kernels.INT
            v = BCONV(x, panel, None, thresholds, None, layer, integers, channels_last)
            return self._mixed(v, x.shape[2:], residual)
        params, layer, out = buffers.get("params"), self._spec, self._out
        if out == BOTH:
            return BCONV_BOTH(x, panel, params, thresholds, residual, layer, channels_last)
        return BCONV(x, panel, params, thresholds, residual, layer, out, channels_last)

    def _mixed(self, v: Tensor, spatial: Sequence[int], residual: Tensor | None) -> Tensor:
        """Outputs made of several filters and constants, in float64; then the steps."""
        assert self.mix is not None
        groups, spread = self.geometry.groups, [1] * (v.ndim - 2)
        own = self.out_channels // groups
        grouped = v.double().reshape(v.shape[0], groups, v.shape[1] // groups, *v.shape[2:])
        factors = self.mix.view(-1, groups, own, *spread)
        y = grouped[:, :, :own] * factors[0]
        for j in range(1, self.terms):
            y = y + grouped[:, :, j * own : (j + 1) * own] * factors[j]
        if self.ones:
            y = y + grouped[:, :, -1:] * factors[-1]
        y = y.reshape(v.shape[0], self.out_channels, *v.shape[2:])
        if self.border is not None:
            y = y + self._constants(spatial)
        steps, params = list(self.steps), self.params
        if steps and steps[0] == AFFINE:
            assert params is not None
            y = params[0].double().view(-1, *spread) * y + params[1].double().view(-1, *spread)
            steps, params = steps[1:], params[2:]
        return apply_steps(y.float(), params, residual, steps)

    def _constants(self, spatial: Sequence[int]) -> Tensor:
        """What the constant part of the input and its surroundings add to an image's outputs."""
        assert self.tap_sums is not None
        assert self.border is not None
        g, (inside, around) = self.geometry, self.border
        image = self.tap_sums.new_full((1, 1, *[1] * (3 - len(spatial)), *spatial), inside)
        ends = [e for pair in zip(g.before[::-1], g.after[::-1], strict=True) for e in pair]
        kernel = self.tap_sums.view(-1, 1, *g.kernel)
        out = F.conv3d(F.pad(image, ends, value=around), kernel, None, g.stride, 0, g.dilation)
        return out.reshape(1, self.out_channels, *out.shape[5 - len(spatial) :])

    def _scaled(self, y: Tensor, x: Tensor) -> Tensor:
        """y times the mean magnitude of its inputs, and the bias."""
        assert self.late_bias is not None
        return y * self._magnitude(x) + self.late_bias.view(-1, *[1] * (y.ndim - 2))

    # Modules are copied, pickled, moved and loaded; the panel is made again where it was made.

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state["_buffers"] = {k: v for k, v in self._buffers.items() if k != "panel"}
        state["panel"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.refresh()

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self.refresh()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def moved(t: Tensor) -> Tensor:
            result = fn(t)
            return result if result.dtype == t.dtype else t.to(result.device)

        device = self.weight.device
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=device)).dtype
        super()._apply(moved, recurse)
        if self.weight.device != device:
            self.refresh()
        return self

    def _in_dtype(self, y: Any, dtype: torch.dtype) -> Any:
        """An output with its numbers in ``dtype``."""
        if dtype == torch.float32 or self.out in ("int", "bits"):
            return y
        return (y[0].to(dtype), y[1]) if self.out == "both" else y.to(dtype)

    def extra_repr(self) -> str:
        g = self.geometry
        parts = [f"{g.channels}, {self.out_channels}"]
        for name in ("kernel", "stride", "before", "after", "dilation"):
            values, neutral = getattr(g, name), 0 if name in ("before", "after") else 1
            if any(v != neutral for v in values):
                parts.append(f"{name}={values}")
        defaults = Geometry(1, 1)._asdict()
        for name in ("groups", *Geometry._fields[18:]):
            if getattr(g, name) != defaults[name]:
                parts.append(f"{name}={getattr(g, name)}")
        parts.append(f"steps={self.steps}")
        if self.thresholds is not None:
            parts.append(f"thresholds={tuple(self.thresholds.shape)}")
        for name, usual in _USUAL.items():
            if getattr(self, name) != usual:
                parts.append(f"{name}={getattr(self, name)!r}")
        return ", ".join(parts)


_USUAL: dict[str, Any] = {
    "out": "float",
    "packed_input": False,
    "channels_last": False,
    "terms": 0,
    "ones": False,
    "border": None,
    "act_scale": False,
}
