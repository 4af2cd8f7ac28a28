"""What torch.ao's packed objects hold: they have no tensors to ask for, but a state."""

from __future__ import annotations

from typing import Any

from torch import Tensor

# The matrices of a recurrent layer in one object: that of the input, that of the state.
INPUT, STATE = 0, 1


def is_object(x: Any) -> bool:
    """Whether an entry of a state dict is such an object, or stands for one."""
    return (
        not isinstance(x, Tensor)
        and hasattr(x, "__getstate__")
        and callable(getattr(x, "__setstate__", None))
    )


def held(packed: Any, part: int | None = None) -> tuple[Tensor, Tensor | None]:
    """(weight, bias) of a packed object; of one of the two that a recurrent layer's has.

    weight   a quantized tensor of torch, or one of float32 or float16 for layers of float16
    """
    state = packed.__getstate__()[0]
    if part is not None:
        # ("quantized_dynamic", biases, …, packed) or ("quantized_fp16", …, packed)
        state = state[-1][part].__getstate__()[0]
    return state[0], state[1]
