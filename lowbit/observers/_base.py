"""What an observer is, and what those with a uniform grid share."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from lowbit.functional.int8.qparams import EPS, float_qparams, qparams
from lowbit.observers._factory import WithArgs
from lowbit.observers._kinds import any_dtype, bare, chosen_range, scheme


class ObserverBase(WithArgs, nn.Module):
    """A module that returns its input as it is, and remembers what it needs of it.

    ``calculate_qparams()`` then returns scale and zero point, of shape (1,) or (channels,).
    ``dtype`` is the plain dtype of the integers aimed at; ``is_dynamic`` says that the scale is
    to be chosen anew for each input when the network runs.
    """

    def __init__(self, dtype: torch.dtype | str, is_dynamic: bool = False) -> None:
        super().__init__()
        self.dtype = any_dtype(dtype)
        self.is_dynamic = is_dynamic

    def forward(self, x: Tensor) -> Tensor:
        return x

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        raise NotImplementedError(
            f"{type(self).__name__} has no scale and zero point: it hands on what it was told. "
            "Where they are needed, use MinMaxObserver or another that looks at its input"
        )


class UniformQuantizationObserverBase(ObserverBase):
    """Base of the observers that keep a smallest and a largest number, and make a grid of them.

    Arguments: ``dtype``: quint8 (default), qint8, qint32, their plain counterparts, quint4x2;
    ``qscheme``: affine, symmetric (zero point 0; 128 or the middle of a given range where the
    dtype is unsigned), per tensor or per channel; ``quant_min`` and ``quant_max``: the integers
    to use, if not all that the dtype holds; ``reduce_range``: half of them (for processors
    without VNNI, where sums of products of full 8 bits overflow); ``eps``: the smallest scale;
    ``is_dynamic``; ``factory_kwargs``: device of the buffers, which are float32.

    ``min_val`` and ``max_val`` are inf and -inf, or empty, until something was seen.
    """

    eps: Tensor
    min_val: Tensor
    max_val: Tensor

    # The schemes that a class has.
    schemes: tuple[str, ...]

    # Version 3 of torch.ao, whose state dicts these are.
    _version = 3

    def __init__(
        self,
        dtype: torch.dtype | str = torch.uint8,
        qscheme: Any = "per_tensor_affine",
        reduce_range: bool = False,
        quant_min: int | None = None,
        quant_max: int | None = None,
        factory_kwargs: dict[str, Any] | None = None,
        eps: float = EPS,
        is_dynamic: bool = False,
    ) -> None:
        super().__init__(dtype, is_dynamic)
        self.qscheme = scheme(qscheme, self.schemes, type(self).__name__)
        self.reduce_range = reduce_range
        self.dtype, self.quant_min, self.quant_max = chosen_range(
            dtype, quant_min, quant_max, reduce_range
        )
        self.has_customized_qrange = quant_min is not None
        name = bare(qscheme)
        self._is_float = name.endswith("float_qparams")
        self._middle: int | None = None
        if name.endswith("symmetric"):
            self._middle = 0
            if self.dtype == torch.uint8:
                middle = (self.quant_min + self.quant_max) // 2
                self._middle = middle if self.has_customized_qrange else 128
        device = (factory_kwargs or {}).get("device")
        self.register_buffer("eps", torch.tensor([eps], dtype=torch.float32, device=device))

    def _refuse_reduced_symmetric(self) -> None:
        """ValueError where the zero point of unsigned symmetric codes would be outside of them."""
        if self.reduce_range and self._middle is not None and self.dtype == torch.uint8:
            raise ValueError(
                "reduce_range with a symmetric scheme needs a signed dtype: the zero point "
                f"{self._middle} would be at or above the greatest code {self.quant_max}; "
                "use dtype=qint8, or an affine scheme"
            )

    @property
    def bits(self) -> int:
        """How many bits the integers in use take: 8, or 7 with a reduced range, or fewer."""
        return (self.quant_max - self.quant_min).bit_length()

    def grid(self, minimum: Tensor, maximum: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point for a range, of shape (1,) or (channels,)."""
        if self._is_float:
            scale, zero_point = float_qparams(
                minimum, maximum, self.quant_min, self.quant_max, eps=self.eps
            )
        else:
            scale, zero_point = qparams(
                minimum,
                maximum,
                self.quant_min,
                self.quant_max,
                middle=self._middle,
                eps=self.eps,
            )
        return torch.atleast_1d(scale), torch.atleast_1d(zero_point)

    def current(self) -> tuple[Tensor, Tensor]:
        """``calculate_qparams`` without a look at whether anything was seen."""
        return self.grid(self.min_val, self.max_val)

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Scale (float32) and zero point (integers), of shape (1,) or (channels,).

        Before anything was seen they are 1 and 0, with a warning.
        """
        if self.min_val.numel() == 0 or bool((self.min_val > self.max_val).any()):
            warnings.warn(
                f"{type(self).__name__} has seen nothing yet, so scale is 1 and zero point 0: "
                "run the model on data first",
                stacklevel=2,
            )
            device = self.min_val.device
            return torch.ones(1, device=device), torch.zeros(1, dtype=torch.int64, device=device)
        return self.current()

    def take(self, minimum: Tensor, maximum: Tensor) -> None:
        """Take in the extremes of one more input."""
        self.min_val.copy_(torch.minimum(self.min_val, minimum))
        self.max_val.copy_(torch.maximum(self.max_val, maximum))

    def reset_min_max_vals(self) -> None:
        """Forget everything seen."""
        self.min_val.fill_(torch.inf)
        self.max_val.fill_(-torch.inf)

    def extra_repr(self) -> str:
        return (
            f"min_val={self.min_val}, max_val={self.max_val}, dtype={bare(self.dtype)}, "
            f"qscheme={bare(self.qscheme)}, quant_min={self.quant_min}, quant_max={self.quant_max}"
        )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: dict[str, Any], *rest: Any
    ) -> None:
        """Take over what a training run saved, also one of torch.ao's, in any of its versions."""
        version = metadata.get("version") or 1
        if version < 2:
            state_dict.setdefault(prefix + "eps", self.eps.new_tensor([EPS]))
        for name, unseen in (("min_val", torch.inf), ("max_val", -torch.inf)):
            if version < 3 and prefix + name + "s" in state_dict:
                state_dict[prefix + name] = state_dict.pop(prefix + name + "s")
            saved = state_dict.get(prefix + name)
            if saved is None:
                continue
            own: Tensor = getattr(self, name)
            if own.ndim == 0 and saved.numel() == 0:
                state_dict[prefix + name] = torch.full((), unseen)
            elif own.shape != saved.shape:
                own.resize_(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, metadata, *rest)
