"""Models as ONNX files."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from lowbit._beside import beside
from lowbit._version import __version__
from lowbit.export import _binary, _floats, _integers
from lowbit.export._graph import Graph, Value, model_of, with_free_batch
from lowbit.export._package import onnx_package
from lowbit.export._recorder import Recorder, watching

HANDLERS = {**_floats.HANDLERS, **_integers.HANDLERS, **_binary.HANDLERS}
FUNCTIONS = {**_integers.FUNCTIONS, **_binary.FUNCTIONS}
BINARY = ("float", "int8")


def onnx(
    model: nn.Module,
    example: Any,
    path: str | Path | None = None,
    *,
    dynamic_batch: bool = True,
    fused_adds: bool = True,
    binary: str = "float",
) -> Any:
    """Write a model as ONNX, of operators of ONNX's own set 21 alone; its ``ModelProto``.

    model          trained, with layers of few values; of ``lowbit.convert``, packed or int8; of
                   modules of ``lowbit.nn.quantized``. Float layers between them stay float. A copy
                   in eval mode is what is exported
    example        an input, or a tuple of them, that the model runs on once
    path           the file, written beside and then renamed; None writes none
    dynamic_batch  the first length of inputs and outputs is free, "batch"; False: the example's
    fused_adds     of int8 layers. True: a convolution with a residual rounds once, after the
                   addition, as lowbit does. False: it rounds to uint8 before as well, without which
                   onnxruntime computes such a convolution in float; that moves its results by about
                   a step
    binary         of layers of few values. "float": float operators on whole numbers, the fastest
                   in onnxruntime. "int8": the same numbers with QuantizeLinear and
                   DequantizeLinear, which OpenVINO computes in integers, and onnxruntime those
                   layers that hand on signs alone. ``openvino`` writes OpenVINO's binary kernel

    Layers with few values, trained or packed, give their very integers: the input is compared with
    the layer's thresholds, padding is -1, 0 or +1 as in the layer, and sums are exact up to 2^24.
    Signs that such layers hand on are compared with integers, as batch norms were folded. Weights
    lie in the file in 1, 2, 4 or 8 bits and are unpacked when it is loaded. What follows is
    float, to its rounding; a NaN counts as +1 in packed layers. Trained layers are written as the
    packed ones that they become; ``convert`` them for fewer operators.

    int8 layers become QuantizeLinear and DequantizeLinear around the real operators. Weights are
    int8 and their scales as in the model. Biases become int32 with the scale of the sums, which an
    integer kernel adds them to: they move by half of that at most (``integer_biases`` is the model
    with such). Fewer bits than 8 are a Clip of the integers. The integers are those of the model
    but for ties of rounding, and what the biases moved over one.

    Raises OSError where the file cannot be; ModuleNotFoundError without the package onnx;
    NotImplementedError for what ONNX has no operator for, with the module that it is in; and
    ValueError where the model's arithmetic depends on the size of the batch.
    """
    if binary not in BINARY:
        raise ValueError(f"binary is one of {', '.join(BINARY)}; got {binary!r}")
    if path is not None:
        check_place(Path(path))
    made = proto_of(model, example, dynamic_batch, fused_adds, binary)
    if path is not None:
        with beside(Path(path)) as file:
            file.write_bytes(made.SerializeToString())
    return made


def proto_of(
    model: nn.Module, example: Any, dynamic_batch: bool, fused_adds: bool, binary: str
) -> Any:
    """The ``ModelProto``; ``binary`` as in ``Recorder``."""
    onnx_package()
    args = example if isinstance(example, tuple) else (example,)
    model = _plain(copy.deepcopy(model).eval())
    # Without oneDNN, converted models call torch's own convolutions, which can be written down.
    with torch.no_grad(), _without_one_dnn():
        graph = _recorded(model, args, fused_adds, binary)
        if dynamic_batch:
            graph = with_free_batch(graph, _recorded(model, _longer(args), fused_adds, binary))
    return model_of(graph, type(model).__name__, __version__)


@contextlib.contextmanager
def _named(model: nn.Module) -> Iterator[None]:
    """Let errors about what cannot be written down say in which module it is."""
    running: list[str] = []
    hooks = []
    for name, module in model.named_modules():
        where = f"{name} ({type(module).__name__})" if name else type(module).__name__
        enter = functools.partial(_append, running, where)
        leave = functools.partial(_pop, running)
        hooks.append(module.register_forward_pre_hook(enter, prepend=True))
        hooks.append(module.register_forward_hook(leave))
    try:
        yield
    except NotImplementedError as error:
        if not running:
            raise
        raise NotImplementedError(f"in {running[-1]}: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()


def _append(running: list[str], where: str, *call: Any) -> None:
    running.append(where)


def _pop(running: list[str], *call: Any) -> None:
    running.pop()


@contextlib.contextmanager
def _without_one_dnn() -> Iterator[None]:
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


def _plain(model: nn.Module) -> nn.Module:
    """The model, with torch's own max-pooling in place of lowbit's faster calls of the same."""
    for module in model.modules():
        if isinstance(module, nn.MaxPool2d) and type(module).__module__.startswith("lowbit."):
            module.forward = functools.partial(nn.MaxPool2d.forward, module)  # type: ignore[method-assign]
    return model


def _recorded(model: nn.Module, args: tuple[Any, ...], fused_adds: bool, binary: str) -> Graph:
    names = {id(value): name for name, value in (*model.named_parameters(), *model.named_buffers())}
    recorder = Recorder(HANDLERS, names, fused_adds=fused_adds, binary=binary)
    graph = recorder.graph
    # Copies, as a model may write over its input.
    args = _pytree.tree_map_only(Tensor, torch.clone, args)
    leaves = tensors_of(args)
    for wish, leaf in zip(_input_names(model, len(args), len(leaves)), leaves, strict=True):
        name = graph.free_name(wish)
        graph.inputs.append(Value(name, leaf.dtype, tuple(leaf.shape)))
        recorder.bind(leaf, name)
    with watching(recorder, FUNCTIONS), _named(model):
        result = model(*args)
    outputs = tensors_of(result)
    for number, leaf in enumerate(outputs):
        name = graph.free_name("output" if len(outputs) == 1 else f"output_{number}")
        graph.nodes.append(recorder.named_output(leaf, name))
        graph.outputs.append(Value(name, leaf.dtype, tuple(leaf.shape)))
    return graph


def tensors_of(tree: Any) -> list[Tensor]:
    """All tensors of nested tuples, lists and mappings."""
    return [leaf for leaf in _pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def _input_names(model: nn.Module, arguments: int, tensors: int) -> list[str]:
    """Names of the parameters of ``forward``, or numbers where they are not one tensor each."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    plain = [p.name for p in parameters if p.kind is not inspect.Parameter.VAR_POSITIONAL]
    if arguments != tensors or len(plain) < tensors:
        return [f"input_{number}" for number in range(tensors)] if tensors > 1 else ["input"]
    return plain[:tensors]


def _longer(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The example with its first row once more."""
    if any(leaf.ndim == 0 or leaf.shape[0] == 0 for leaf in tensors_of(args)):
        raise ValueError("an example with a batch has at least one row; or dynamic_batch=False")
    longer: tuple[Any, ...] = _pytree.tree_map_only(Tensor, lambda x: torch.cat([x, x[:1]]), args)
    return longer


def check_place(path: Path) -> None:
    """Before the work of an export: whether its file can be there. Raises OSError."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} for {path.name}: make it first")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file in it")
