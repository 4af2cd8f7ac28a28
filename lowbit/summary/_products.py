"""Products of functions: ``F.conv2d``, ``F.linear``, ``@`` and attention, seen as they run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# Operators that torch.utils.flop_counter has no formula for.
_MORE: dict[str, Callable[..., int]] = {
    "aten.mv": lambda args, out: args[0].numel(),
    "aten.addmv": lambda args, out: args[1].numel(),
    "aten.dot": lambda args, out: args[0].numel(),
    "aten._int_mm": lambda args, out: args[0].numel() * args[1].shape[1],
    "mkldnn._convolution_pointwise": lambda args, out: out.numel() * args[1][0].numel(),
}
# These take what they add to first.
_ADDING = ("aten.addmm", "aten.baddbmm", "aten.addmv")


class Product(NamedTuple):
    """One call: the operator's name, its multiply-adds, what it multiplies, and its output."""

    operator: str
    macs: int
    operands: list[Tensor]
    output: Tensor


class SeeProducts(TorchDispatchMode):
    """Tells ``seen`` of every operator that sums products."""

    def __init__(self, seen: Callable[[Product], None]) -> None:
        super().__init__()
        # Imported here, as it brings in many modules.
        from torch.utils.flop_counter import flop_registry

        self._formulas = flop_registry
        self._seen = seen

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = getattr(func, "_overloadpacket", func)
        name = str(packet)
        if name in _MORE:
            macs = _MORE[name](args, out)
        elif packet in self._formulas:
            macs = self._formulas[packet](*args, **kwargs, out_val=out) // 2
        else:
            return out
        multiplied = args[1:] if name in _ADDING else args
        self._seen(Product(name, macs, [a for a in multiplied if isinstance(a, Tensor)], out))
        return out
