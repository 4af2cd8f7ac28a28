"""Dynamic recurrent cells: one step of a recurrent layer."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from lowbit.kernels import int8_dynamic
from lowbit.nn.quantized.dynamic._base import DynamicLayer
from lowbit.nn.quantized.dynamic._observe import (
    observed_dtype,
    observed_weight,
    weight_observer,
)
from lowbit.nn.quantized.dynamic._params import QuantizedParams


class RNNCellBase(DynamicLayer):
    """Two int8 matrices, of the input (``ih``) and of the state (``hh``), and their biases.

    Arguments: those of torch.ao's cells, and ``reduce_range`` (7 bits of inputs and states, as
    there; False for 8).
    """

    ih: QuantizedParams
    hh: QuantizedParams
    _float: type[nn.RNNCellBase]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        num_chunks: int = 4,
        dtype: torch.dtype | str = torch.int8,
        *,
        reduce_range: bool = True,
    ) -> None:
        super().__init__(reduce_range)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        rows = num_chunks * hidden_size
        self.ih = QuantizedParams((rows, input_size), rows if bias else None, dtype, suffix="_ih")
        self.hh = QuantizedParams((rows, hidden_size), rows if bias else None, dtype, suffix="_hh")

    @property
    def weight_dtype(self) -> torch.dtype:
        """``torch.int8`` or ``torch.float16``."""
        return self.ih.dtype

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")

    def get_weight(self) -> dict[str, Any]:
        """``weight_ih`` and ``weight_hh``, QTensors."""
        return {"weight_ih": self.ih.get(), "weight_hh": self.hh.get()}

    def get_bias(self) -> dict[str, Tensor | None]:
        """``bias_ih`` and ``bias_hh``."""
        return {"bias_ih": self.ih.bias, "bias_hh": self.hh.bias}

    def _weight_bias(self) -> dict[str, dict[str, Any]]:
        return {"weight": self.get_weight(), "bias": self.get_bias()}

    def set_weight_bias(self, weight_bias_dict: dict[str, dict[str, Any]]) -> None:
        """Take copies: {"weight": {"weight_ih", "weight_hh"}, "bias": {"bias_ih", "bias_hh"}}."""
        weight, bias = weight_bias_dict["weight"], weight_bias_dict["bias"]
        self.ih.set(weight["weight_ih"], bias["bias_ih"])
        self.hh.set(weight["weight_hh"], bias["bias_hh"])

    def _legacy_keys(self) -> dict[str, str]:
        return {"ih": "_packed_weight_ih", "hh": "_packed_weight_hh"}

    def _check(self, x: Tensor, states: tuple[Tensor, ...]) -> None:
        if x.ndim != 2 or x.shape[1] != self.input_size:
            raise ValueError(
                f"an input of shape {tuple(x.shape)}; it must be (batch, "
                f"input_size={self.input_size})"
            )
        for state in states:
            if state.shape != (x.shape[0], self.hidden_size):
                raise ValueError(
                    f"a state of shape {tuple(state.shape)}; for this input it must be "
                    f"({x.shape[0]}, hidden_size={self.hidden_size})"
                )

    def _step(self, gates: str, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self._check(x, states)
        real = tuple(state.float() for state in states)
        matrices = (self.ih.matrix(), self.hh.matrix())
        # A layer of one step.
        after = int8_dynamic.layer(
            gates, x.float().unsqueeze(0), None, real, *matrices, reduce_range=self.reduce_range
        )[1:]
        return tuple(state.to(x.dtype) for state in after)

    def _first(self, x: Tensor, hx: Tensor | None) -> tuple[Tensor]:
        return (x.new_zeros((x.shape[0], self.hidden_size)) if hx is None else hx,)

    @classmethod
    def _like(cls, mod: Any, dtype: torch.dtype) -> Self:
        return cls(mod.input_size, mod.hidden_size, mod.bias, dtype=dtype)

    @classmethod
    def from_float(cls, mod: nn.Module, use_precomputed_fake_quant: bool = False) -> Self:
        """The dynamic cell of torch's cell with a ``qconfig``; None there takes 8 bits, one scale.

        TypeError for other modules, ValueError without a qconfig, without biases, and for
        weights of other dtypes than int8 and float16.
        """
        observer = weight_observer(cls.__name__, mod, (cls._float,))
        assert isinstance(mod, nn.RNNCellBase)
        if not mod.bias:
            raise ValueError(f"{cls.__name__}.from_float takes cells with bias=True")
        made = cls._like(mod, observed_dtype(observer))
        made.ih.set(observed_weight(mod.weight_ih, observer), mod.bias_ih)
        made.hh.set(observed_weight(mod.weight_hh, observer), mod.bias_hh)
        return made

    @classmethod
    def from_reference(cls, ref_mod: Any) -> Self:
        """The dynamic cell of a reference cell: its ``get_quantized_weight_ih()``, ``_hh()``."""
        made = cls._like(ref_mod, ref_mod.weight_ih_dtype)
        made.ih.set(ref_mod.get_quantized_weight_ih(), ref_mod.bias_ih)
        made.hh.set(ref_mod.get_quantized_weight_hh(), ref_mod.bias_hh)
        return made


class RNNCell(RNNCellBase):
    """An Elman cell: h' = tanh or relu of (W_ih x + b_ih + W_hh h + b_hh), weights in int8.

    x (batch, input_size), the input, and h (batch, hidden_size), 0 where it is None, are quantized
    in each call, each with its own scale.

    >>> rnn = RNNCell(10, 20)
    >>> rnn(torch.randn(3, 10), torch.randn(3, 20)).shape
    torch.Size([3, 20])
    """

    _float = nn.RNNCell

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        dtype: torch.dtype | str = torch.int8,
        *,
        reduce_range: bool = True,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 1, dtype, reduce_range=reduce_range)
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"no nonlinearity {nonlinearity!r}; known: tanh, relu")
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._step(self.nonlinearity, input, self._first(input, hx))[0]

    def extra_repr(self) -> str:
        relu = "" if self.nonlinearity == "tanh" else ", nonlinearity=relu"
        return super().extra_repr() + relu

    @classmethod
    def _like(cls, mod: Any, dtype: torch.dtype) -> Self:
        return cls(mod.input_size, mod.hidden_size, mod.bias, mod.nonlinearity, dtype)


class LSTMCell(RNNCellBase):
    """A cell of long short-term memory, weights in int8; gates and c in float32.

    Input x (batch, input_size), (h, c) each (batch, hidden_size), 0 where they are None ->
    (h', c') as ``lowbit.functional.int8.recurrent.lstm_gates`` says. x and h are quantized in each
    call.

    >>> rnn = LSTMCell(10, 20)
    >>> h, c = rnn(torch.randn(3, 10), (torch.randn(3, 20), torch.randn(3, 20)))
    """

    _float = nn.LSTMCell

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        dtype: torch.dtype | str = torch.int8,
        *,
        reduce_range: bool = True,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, dtype, reduce_range=reduce_range)

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        states = (*self._first(input, None), *self._first(input, None)) if hx is None else hx
        h, c = self._step("lstm", input, tuple(states))
        return h, c


class GRUCell(RNNCellBase):
    """A gated recurrent cell, weights in int8; gates in float32.

    Input x (batch, input_size), h (batch, hidden_size), 0 where it is None -> h' as
    ``lowbit.functional.int8.recurrent.gru_gates`` says. x and h are quantized in each call.

    >>> rnn = GRUCell(10, 20)
    >>> rnn(torch.randn(3, 10)).shape
    torch.Size([3, 20])
    """

    _float = nn.GRUCell

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        dtype: torch.dtype | str = torch.int8,
        *,
        reduce_range: bool = True,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, dtype, reduce_range=reduce_range)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._step("gru", input, self._first(input, hx))[0]
