"""What a model does with its inputs, written down as ONNX operators while it does it.

The model runs on an example. Every function of torch that touches a number that came from the
inputs passes by here (``torch.overrides.TorchFunctionMode``), as do lowbit's operators, and the
functions of ``lowbit.functional.int8`` that are more than one operator of torch.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

from lowbit.export._graph import Graph, Node
from lowbit.qtensor import QTensor

# A handler writes the nodes of one call: (recorder, result, arguments of the call) -> the names
# of its results, or None where the result tells nothing about the numbers.
Handler = Callable[..., Any]
# A function that is recorded as one call: the module or class that has it, and its name there.
Target = tuple[Any, str]


def registering(
    handlers: dict[str, Handler], functions: dict[str, Target]
) -> Callable[..., Callable[[Handler], Handler]]:
    """A decorator: let a handler write down operators of lowbit, by name, or functions."""

    def handles(*targets: str | Target) -> Callable[[Handler], Handler]:
        def registered(handler: Handler) -> Handler:
            for target in targets:
                name = target if isinstance(target, str) else f"{target[0].__name__}.{target[1]}"
                handlers[name] = handler
                if not isinstance(target, str):
                    functions[name] = target
            return handler

        return registered

    return handles


class Signs(NamedTuple):
    """Signs of so many ``channels``: those of ``of`` minus ``threshold``, some turned round."""

    channels: int
    of: str
    threshold: Tensor  # one, or one for each channel
    flip: Tensor  # bool, likewise


class Recorder(TorchFunctionMode):
    """Fills ``graph``; ``names`` are those of parameters and buffers, by their identity.

    ``fused_adds`` and ``binary`` are what the handlers of int8 and of binary layers go by.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        names: Mapping[int, str],
        *,
        fused_adds: bool,
        binary: str,
    ) -> None:
        super().__init__()
        self.graph = Graph()
        self.fused_adds = fused_adds
        self.binary = binary
        # What packed signs, by their name, are made of.
        self.signs: dict[str, Signs] = {}
        self._handlers = handlers
        self._names = names
        # Of tensors that came from the inputs; kept, so that no other gets their identity.
        self._known: dict[int, tuple[Tensor, str]] = {}
        self._constants: dict[Any, tuple[Any, str]] = {}
        self._inside = False
        self._function: Callable[..., Any] = torch.clone

    # What handlers use.

    def node(self, op: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        """The name of a new node's output, or a list of several.

        Inputs are names, tensors (a constant, if it did not come from the inputs), or None.
        """
        names = ["" if x is None else x if isinstance(x, str) else self.name(x) for x in inputs]
        while names and not names[-1]:
            names.pop()
        made = self.graph.node(op, names, outputs, attributes)
        return made[0] if outputs == 1 else made

    def name(self, x: Tensor) -> str:
        """The name of a tensor in the graph."""
        known = self._known.get(id(x))
        if known is not None:
            return known[1]
        found = self._constants.get(id(x))
        if found is None:
            name = self.graph.constant(x, self._names.get(id(x), "constant"))
            found = self._constants[id(x)] = (x, name)
        return found[1]

    def constant_of(self, value: Tensor, name: str) -> str:
        """The name of a new constant."""
        return self.graph.constant(value, name)

    def number(self, value: float | int, dtype: torch.dtype = torch.float32) -> str:
        """The name of a constant without axes, one for all its uses."""
        return self.shared((value, dtype), lambda: torch.tensor(value, dtype=dtype), "number")

    def shared(self, key: Any, make: Callable[[], Tensor], wish: str) -> str:
        """The name of a constant that is made once for all its uses, which have its key."""
        if key not in self._constants:
            self._constants[key] = (None, self.graph.constant(make(), wish))
        return self._constants[key][1]

    def reshaped(self, x: Any, lengths: Any) -> Any:
        """x in another shape; a length may depend on the size of the batch."""
        return self.node("Reshape", x, self.graph.shape(lengths))

    def operand(self, x: Any, dtype: torch.dtype) -> Any:
        """A tensor or number as an input of an operator whose operands all have ``dtype``."""
        if not isinstance(x, Tensor):
            return self.number(x, dtype)
        return x if x.dtype == dtype else self.node("Cast", x, to=dtype)

    def inside(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function and write down what it does, in place of the call that it explains.

        For handlers of functions that ``watching`` replaced, which run with the recorder off.
        """
        with torch._C._EnableTorchFunction():
            return function(*args, **kwargs)

    def again(self, *args: Any, **kwargs: Any) -> Any:
        """The function that is being written down, with other arguments."""
        return self._function(*args, **kwargs)

    def named_output(self, x: Tensor, name: str) -> Node:
        """The node that gives an output of the graph its name."""
        return Node("Identity", (self.name(x),), (name,), ())

    # How calls come here.

    def bind(self, x: Tensor, name: str) -> None:
        """Let a tensor be known by a name."""
        self._known[id(x)] = (x, name)

    def bind_constant(self, x: Tensor, name: str) -> None:
        """Let a tensor that does not come from the inputs be known by a name."""
        self._constants[id(x)] = (x, name)

    def comes_from_inputs(self, arguments: Any) -> bool:
        """Whether any tensor among the arguments does, of a call that is not part of another."""
        return not self._inside and any(
            id(leaf) in self._known for leaf in _pytree.tree_leaves(arguments)
        )

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not self.comes_from_inputs((args, kwargs)):
            return func(*args, **kwargs)
        if any(isinstance(x, QTensor) for x in _quantities((args, kwargs))):
            with self:  # it is defined by functions of its integers
                return QTensor.__torch_function__(func, types, args, kwargs)
        return self.record(name_of(func), func, args, kwargs)

    def record(self, name: str, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call ``func``, and have the handler of this name write it down."""
        handler = self._handlers.get(name)
        if handler is None:
            return self._unknown(name, func, args, kwargs)
        before = {id(x) for x in _pytree.tree_leaves((args, kwargs))}
        result = self._call(func, args, kwargs)
        self._function = func
        names = handler(self, result, *args, **kwargs)
        if names is None:
            return result
        tensors = [x for x in _pytree.tree_leaves(result) if isinstance(x, Tensor)]
        if isinstance(names, str):
            names = [names]
        elif isinstance(names, Tensor):
            names = [self.name(names)]
        for tensor, output in zip(tensors, names, strict=True):
            known = self._known.get(id(tensor))
            if id(tensor) in before and known is not None and known[1] != output:
                self._check_alone(tensor, name)
            self.bind(tensor, output)
        return result

    def _call(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """``func`` with nothing inside it written down."""
        was, self._inside = self._inside, True
        try:
            return func(*args, **kwargs)
        finally:
            self._inside = was

    def _check_alone(self, x: Tensor, name: str) -> None:
        """NotImplementedError where writing over x changes another tensor of the graph."""
        storage = x.untyped_storage().data_ptr()
        for other, output in self._known.values():
            same = other.untyped_storage().data_ptr() == storage
            if same and other is not x and output != self._known[id(x)][1]:
                raise NotImplementedError(
                    f"{name} writes over a tensor that others are views of, which no ONNX "
                    "operator does: use the form that returns a new tensor"
                )

    def _unknown(self, name: str, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        result = self._call(func, args, kwargs)
        leaves = _pytree.tree_leaves(result)
        if any(isinstance(x, Tensor) for x in leaves):
            raise NotImplementedError(
                f"lowbit.export.onnx has no operator for {name}: leave it out of the exported "
                "model, or use functions that it knows: "
                + ", ".join(sorted(known for known in self._handlers if known.isidentifier()))
            )
        if name in _FACTS or all(isinstance(x, (torch.dtype, torch.device)) for x in leaves):
            return result
        raise NotImplementedError(
            f"{name} of a tensor that comes from the inputs gives a number to Python, which a "
            "graph does not have"
        )


# What may be asked of a tensor: facts that its numbers do not change.
_FACTS = {
    "__get__",
    "__len__",
    "dim",
    "element_size",
    "get_device",
    "is_complex",
    "is_contiguous",
    "is_floating_point",
    "is_inference",
    "ndimension",
    "nelement",
    "numel",
    "size",
    "stride",
    "storage_offset",
}


def _quantities(arguments: Any) -> list[Any]:
    """Leaves, where a QTensor is one."""
    return _pytree.tree_leaves(arguments, is_leaf=lambda x: isinstance(x, QTensor))


def name_of(func: Any) -> str:
    """One name for the forms of a function: ``add`` for torch.add, x.add_, x + y, x += y, ….

    lowbit's own operators have theirs in full, as ``lowbit::qconv``.
    """
    if isinstance(func, torch._ops.OpOverload):
        return func._schema.name
    if isinstance(func, torch._ops.OpOverloadPacket):
        return func._qualified_op_name
    name = getattr(func, "__name__", str(func))
    if name == "__get__":
        attribute = getattr(func.__self__, "__name__", "")
        return attribute if attribute in ("T", "mT", "data") else name
    if name.startswith("__") and name.endswith("__"):
        inner = name[2:-2]
        if name in _FACTS:
            return name
        if inner[0] in "ri" and inner[1:] in ("add", "mul", "sub", "truediv", "matmul"):
            return inner[1:] if inner[0] == "i" or inner[1:] in ("add", "mul") else inner
        return inner
    return name.rstrip("_")


@contextlib.contextmanager
def watching(recorder: Recorder, functions: Mapping[str, Target]) -> Iterator[Recorder]:
    """Record what runs inside, with ``functions`` (handler -> home, name) as one call each.

    These functions are replaced in their modules and classes until the end.
    """
    originals = {name: getattr(home, attribute) for name, (home, attribute) in functions.items()}

    def watched(name: str) -> Callable[..., Any]:
        original = originals[name]

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not recorder.comes_from_inputs((args, kwargs)):
                return original(*args, **kwargs)
            with torch._C.DisableTorchFunction():
                return recorder.record(name, original, args, kwargs)

        return call

    for name, (home, attribute) in functions.items():
        setattr(home, attribute, watched(name))
    try:
        with recorder:
            yield recorder
    finally:
        for name, (home, attribute) in functions.items():
            setattr(home, attribute, originals[name])
