"""Dynamic LSTM and GRU."""

from __future__ import annotations

import numbers
import warnings
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from lowbit.kernels import int8_dynamic
from lowbit.nn.quantized.dynamic._base import DynamicLayer
from lowbit.nn.quantized.dynamic._observe import (
    observed_dtype,
    observed_weight,
    weight_observer,
)
from lowbit.nn.quantized.dynamic._params import QuantizedParams

_CHUNKS = {"LSTM": 4, "GRU": 3}


class RNNBase(DynamicLayer):
    """Layers of int8 matrices: ``ih_l0`` and ``hh_l0`` of the first, ``ih_l0_reverse``, and so on.

    Arguments: those of ``torch.nn.LSTM`` up to ``bidirectional``, ``dtype`` of the weights (int8
    or float16), and ``reduce_range`` (7 bits of inputs and states, as torch.ao; False for 8).
    ``dropout`` acts between layers after ``train()``. Weights start at random.

    Raises ValueError for ``bias=False``, as torch.ao does, and a dropout outside [0, 1].
    """

    _float: type[nn.RNNBase]
    _reduces_from = 2

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: torch.dtype | str = torch.int8,
        *,
        reduce_range: bool = True,
    ) -> None:
        super().__init__(reduce_range)
        if mode not in _CHUNKS:
            raise ValueError(f"no recurrent layer {mode!r}; known: {', '.join(_CHUNKS)}")
        number = isinstance(dropout, numbers.Real) and not isinstance(dropout, bool)
        if not number or not 0 <= dropout <= 1:
            raise ValueError(f"dropout must be a probability from 0 to 1, not {dropout!r}")
        if dropout > 0 and num_layers == 1:
            warnings.warn(f"dropout={dropout} acts between layers, and this has one", stacklevel=3)
        _check_bias(type(self).__name__, bias)
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        rows, directions = _CHUNKS[mode] * hidden_size, 1 + bidirectional
        for layer in range(num_layers):
            columns = hidden_size * directions if layer else input_size
            for suffix in self._suffixes(layer):
                for side, width in (("ih", columns), ("hh", hidden_size)):
                    name = f"{side}_{suffix}"
                    params = QuantizedParams((rows, width), rows, dtype, suffix=f"_{name}")
                    self.add_module(name, params)

    def _suffixes(self, layer: int) -> list[str]:
        return [f"l{layer}", f"l{layer}_reverse"][: 1 + self.bidirectional]

    def _names(self) -> list[str]:
        """``ih_l0``, ``hh_l0``, ``ih_l0_reverse``, …"""
        every = [suffix for layer in range(self.num_layers) for suffix in self._suffixes(layer)]
        return [f"{side}_{suffix}" for suffix in every for side in ("ih", "hh")]

    def _params(self, name: str) -> QuantizedParams:
        params = self._modules[name]
        assert isinstance(params, QuantizedParams)
        return params

    @property
    def dtype(self) -> torch.dtype:
        """``torch.int8`` or ``torch.float16``, of the weights."""
        return self._params("ih_l0").dtype

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        if self.num_layers != 1:
            parts.append(f"num_layers={self.num_layers}")
        for name in ("batch_first", "dropout", "bidirectional"):
            if getattr(self, name):
                parts.append(f"{name}={getattr(self, name)}")
        return ", ".join(parts)

    def get_weight(self) -> dict[str, Any]:
        """``weight_ih_l0``, ``weight_hh_l0``, …: QTensors."""
        return {f"weight_{name}": self._params(name).get() for name in self._names()}

    def get_bias(self) -> dict[str, Tensor | None]:
        """``bias_ih_l0``, ``bias_hh_l0``, …"""
        return {f"bias_{name}": self._params(name).bias for name in self._names()}

    def _weight_bias(self) -> dict[str, dict[str, Any]]:
        return {"weight": self.get_weight(), "bias": self.get_bias()}

    def set_weight_bias(self, weight_bias_dict: dict[str, Any]) -> None:
        """Take copies of all the entries of ``get_weight()`` and ``get_bias()`` in one dict."""
        for name in self._names():
            self._params(name).set(
                weight_bias_dict[f"weight_{name}"], weight_bias_dict[f"bias_{name}"]
            )

    def _legacy_keys(self) -> dict[str, str]:
        return {
            name: f"_all_weight_values.{i // 2}.param#{i % 2}"
            for i, name in enumerate(self._names())
        }

    def _run(
        self, input: Tensor | PackedSequence, states: tuple[Tensor, ...] | None, count: int
    ) -> tuple[Any, tuple[Tensor, ...]]:
        """(output, the ``count`` states) of a sequence from ``states``, or from zeros."""
        packed = isinstance(input, PackedSequence)
        x = input.data if isinstance(input, PackedSequence) else input
        dtype = x.dtype
        if not packed and x.ndim == 2:  # one sequence without a batch
            states = None if states is None else tuple(state.unsqueeze(1) for state in states)
            y, states = self._run(x.unsqueeze(0 if self.batch_first else 1), states, count)
            y = y.squeeze(0 if self.batch_first else 1)
            return y, tuple(state.squeeze(1) for state in states)
        if x.ndim != (2 if packed else 3) or x.shape[-1] != self.input_size:
            order = "batch, steps" if self.batch_first else "steps, batch"
            raise ValueError(
                f"an input of shape {tuple(x.shape)}; it must be ({order}, "
                f"input_size={self.input_size}), or without batch, or a PackedSequence of those"
            )
        sizes = input.batch_sizes if isinstance(input, PackedSequence) else None
        if not packed and self.batch_first:
            x = x.transpose(0, 1)
        if x.shape[0] == 0:
            raise ValueError("a sequence of no steps: there must be one at least")
        batch = int(sizes[0]) if sizes is not None else x.shape[1]
        shape = (self.num_layers * (1 + self.bidirectional), batch, self.hidden_size)
        if states is None:
            states = (x.new_zeros(shape),) * count
        for state in states:
            if tuple(state.shape) != shape:
                raise ValueError(
                    f"a state of shape {tuple(state.shape)}; for this input it must be {shape}"
                )
        if isinstance(input, PackedSequence) and input.sorted_indices is not None:
            order_ = input.sorted_indices
            states = tuple(state.index_select(1, order_) for state in states)
        y, states = self._layers(x.float(), sizes, tuple(state.float() for state in states))
        y, states = y.to(dtype), tuple(state.to(dtype) for state in states)
        if isinstance(input, PackedSequence):
            if input.unsorted_indices is not None:
                order_ = input.unsorted_indices
                states = tuple(state.index_select(1, order_) for state in states)
            return PackedSequence(y, sizes, input.sorted_indices, input.unsorted_indices), states
        return y.transpose(0, 1) if self.batch_first else y, states

    def _layers(
        self, x: Tensor, sizes: Tensor | None, states: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        ends: list[tuple[Tensor, ...]] = []
        for layer in range(self.num_layers):
            outputs = []
            for suffix in self._suffixes(layer):
                y, *end = int8_dynamic.layer(
                    self.mode.lower(),
                    x,
                    sizes,
                    tuple(state[len(ends)] for state in states),
                    self._params(f"ih_{suffix}").matrix(),
                    self._params(f"hh_{suffix}").matrix(),
                    suffix.endswith("_reverse"),
                    self.reduce_range,
                )
                outputs.append(y)
                ends.append(tuple(end))
            x = torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0]
            if self.dropout and self.training and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout)
        return x, tuple(torch.stack(parts) for parts in zip(*ends, strict=True))

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Self:
        """The dynamic layer of torch's with a ``qconfig``; None there takes 8 bits, one scale.

        TypeError for other modules, ValueError without a qconfig, without biases, with a
        projection, and for weights of other dtypes than int8 and float16.
        """
        observer = weight_observer(cls.__name__, mod, (cls._float,))
        assert isinstance(mod, nn.RNNBase)
        _check_bias(cls.__name__, mod.bias)
        if mod.proj_size:
            raise ValueError(
                f"{cls.__name__} has no projection of the state: proj_size={mod.proj_size}"
            )
        made = cls._like(mod, observed_dtype(observer))
        for name in made._names():
            weight = observed_weight(getattr(mod, f"weight_{name}"), observer)
            made._params(name).set(weight, getattr(mod, f"bias_{name}"))
        return made

    @classmethod
    def from_reference(cls, ref_mod: Any) -> Self:
        """The dynamic layer of a reference one: its ``get_quantized_weight_bias_dict()``."""
        made = cls._like(ref_mod, ref_mod.weight_ih_l0_dtype)
        made.set_weight_bias(ref_mod.get_quantized_weight_bias_dict())
        return made

    @classmethod
    def _like(cls, mod: Any, dtype: torch.dtype) -> Self:
        names = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout")
        make: Any = cls
        return make(*(getattr(mod, name) for name in names), mod.bidirectional, dtype)


def _check_bias(name: str, bias: bool) -> None:
    if not bias:
        raise ValueError(f"{name} needs bias=True, as torch.ao's does; a bias may be zeros")


class LSTM(RNNBase):
    """Long short-term memory over a sequence, weights in int8; gates and c in float32.

    Each layer quantizes its whole input once, and its state h at every step:
    ``lowbit.functional.int8.recurrent`` with ``lstm_gates``. Input, (h, c) and output as
    ``torch.nn.LSTM``, PackedSequence included.

    >>> rnn = LSTM(10, 20, 2)
    >>> output, (hn, cn) = rnn(torch.randn(5, 3, 10), (torch.zeros(2, 3, 20),) * 2)
    >>> output.shape, hn.shape
    (torch.Size([5, 3, 20]), torch.Size([2, 3, 20]))
    """

    _float = nn.LSTM

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)

    def forward(
        self, input: Tensor | PackedSequence, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Any, tuple[Tensor, Tensor]]:
        output, (h, c) = self._run(input, None if hx is None else tuple(hx), 2)
        return output, (h, c)


class GRU(RNNBase):
    """Gated recurrent units over a sequence, weights in int8; gates in float32.

    Each layer quantizes its whole input once, and its state h at every step:
    ``lowbit.functional.int8.recurrent`` with ``gru_gates``. Input, h and output as
    ``torch.nn.GRU``, PackedSequence included.

    >>> rnn = GRU(10, 20, bidirectional=True)
    >>> output, hn = rnn(torch.randn(5, 3, 10))
    >>> output.shape, hn.shape
    (torch.Size([5, 3, 40]), torch.Size([2, 3, 20]))
    """

    _float = nn.GRU

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("GRU", *args, **kwargs)

    def forward(
        self, input: Tensor | PackedSequence, hx: Tensor | None = None
    ) -> tuple[Any, Tensor]:
        output, (h,) = self._run(input, None if hx is None else (hx,), 1)
        return output, h
