"""From a trained model to the one that runs packed."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from lowbit.convert._fold import Folded, Folding
from lowbit.convert._freeze import frozen_twin
from lowbit.convert._glue import speed_up_floats
from lowbit.convert._layout import last_weights
from lowbit.convert._norm import NORMS
from lowbit.convert._replace import packed_twin, put
from lowbit.convert._report import Report, Row, stored_bytes
from lowbit.convert._shapes import Shape, infer
from lowbit.convert._signs import quantize_themselves
from lowbit.convert._trace import NotTraceable, example_shapes, read_directly, trace
from lowbit.convert._worth import for_gpu, kernel
from lowbit.convert.int8 import NoInt8, describe, int8_twin, is_prepared, to_int8
from lowbit.nn import QuantizedLayer
from lowbit.nn.packed import CannotPack, PackedLayer


class Converted(NamedTuple):
    """The packed model, and what was done to each of its layers."""

    model: nn.Module
    report: Report


def convert(
    model: nn.Module,
    to: str = "packed",
    *,
    example: Tensor | tuple[Any, ...] | None = None,
    fold: bool = True,
    fast_floats: bool = False,
    keep_slower: bool = False,
) -> Converted:
    """A copy of the model, in eval mode, whose quantized layers run on packed bits or in int8.

    ``to="int8"`` takes a model of ``lowbit.prepare`` or ``prepare_qat``, whose float layers it
    brings to int8 with the scales that were found; its binary and other low-bit layers are
    packed in the same call, or go to int8 where packing would be slower and both their quantizers
    have at most 8 bits of equal steps. What follows is about packing.

    Layers that cannot be packed, or would be slower than in float, stay; the report says why.
    Their weights are quantized once and kept so ("frozen"): where torch.fx cannot follow a
    ``forward`` that reads ``layer.weight`` by itself, it reads that. The outputs are those of
    ``model.eval()``: sums of signs are the same integers, and floats are rounded as by one
    multiply-add where torch rounds a product and a sum.

    With ``fold``, where torch.fx can follow the model's ``forward``, what comes after a packed
    layer runs inside it: bias, scales, batch norm, activations, the addition of a residual; and
    where only packed layers read the result, it is handed on as bits. The result is then a
    ``torch.fx.GraphModule`` with the same names of parameters, and without the model's other
    methods and attributes. Elsewhere it is the model's own class with packed layers in it, and
    the report says why.

    ``to``           "packed", or "int8": that, and int8 for what was prepared
    ``example``      a tensor, or the arguments of one call: fixes the arguments that it leaves
                     out at their defaults, and shows the shapes between layers. Rarely needed.
    ``fast_floats``  let a folded model's float convolutions run where they are fastest, by other
                     calls and on other layouts than the trained model's. Their sums, and those
                     of means, are then rounded in another order, as torch's own are between
                     layouts and processors, and a number close to 0 may turn its sign
    ``keep_slower``  pack layers as well that would be slower than in float

    A model on an NVIDIA GPU is packed for it and stays there: layers are kept in float that would
    be slower on bits than in float16. Packed models move between processor and GPU with ``.to``.

    Raises ``TypeError`` for what is no module, ``ValueError`` for another ``to``, for an example
    that the model cannot be called with, for a model on several devices or one that packed
    layers do not run on, and, with "int8", for one that is not on the processor, not prepared, or
    whose observers were shown no data.

    >>> import torch
    >>> from lowbit.models import MLP
    >>> model = MLP(1, 10, 8, (128, 128), input_quantization="sign", weight_quantization="sign")
    >>> packed, report = convert(model)
    >>> report
    Report(1 of 1 quantized layers packed)
    >>> x = torch.randn(2, 1, 8, 8)
    >>> torch.allclose(packed(x), model.eval()(x), atol=1e-5)
    True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"convert takes a torch.nn.Module; got {model!r}")
    if to not in ("packed", "int8"):
        raise ValueError(f"no conversion to {to!r}; known: 'packed', 'int8'")
    if to == "packed" and is_prepared(model):
        raise ValueError("the model is prepared for int8: convert(model, to='int8')")
    device = _device_of(model)
    if device.type == "cuda" and to == "packed":
        with for_gpu(True):
            there = convert(
                copy.deepcopy(model).cpu(),
                fold=fold,
                example=_on_cpu(example),
                fast_floats=fast_floats,
                keep_slower=keep_slower,
            )
        return Converted(there.model.to(device), there.report)
    if device.type == "meta":
        raise ValueError(
            "the model is on meta, without values: model.to_empty(device='cpu'), then load weights"
        )
    if device.type != "cpu":
        raise ValueError(
            "packed layers run on the processor or an NVIDIA GPU, int8 ones on the processor, and "
            f"the model is on {device}: convert(model.cpu())"
        )
    arguments = (example,) if isinstance(example, Tensor) else example
    if arguments is not None and not isinstance(arguments, tuple):
        raise TypeError(f"example is a tensor, or a tuple of the arguments; got {example!r}")
    with torch.inference_mode(False):  # a tensor that is made in it serves in no other mode
        return _converted(model, to, arguments, fold, fast_floats, keep_slower)


def _converted(
    model: nn.Module,
    to: str,
    arguments: tuple[Any, ...] | None,
    fold: bool,
    fast_floats: bool,
    keep_slower: bool,
) -> Converted:
    before = stored_bytes(model)
    result = copy.deepcopy(model).eval()
    int8_rows: list[Row] = []
    if to == "int8":
        int8_rows, not_traced = to_int8(result), result.__dict__.pop("not_traced", "")
        if not any(isinstance(module, QuantizedLayer) for module in result.modules()):
            return Converted(result, Report(int8_rows, before, stored_bytes(result), not_traced))
    graph, why = _structure(result, fold, arguments)
    shapes = {} if graph is None else infer(graph, result.get_submodule)
    if graph is not None and arguments is not None:
        shapes |= example_shapes(result, graph, arguments)
    led_past = graph is not None and quantize_themselves(graph, result, shapes)
    normed = set() if graph is None else _before_norms(graph, result, shapes)
    last = last_weights(result)
    kept = set() if graph is None else read_directly(graph, result)
    rows, result = _replaced(result, keep_slower, normed, kept, to == "int8")
    any_packed = any(row.packed for row in rows)
    if graph is not None and led_past and not any_packed:
        result = fx.GraphModule(result, graph, type(model).__name__)
    elif graph is not None and any_packed:
        traced = fx.GraphModule(result, graph, type(model).__name__)
        named = {node: shapes.get(node) for node in traced.graph.nodes}
        folding = Folding(traced, named, kept)
        done = folding.run()
        speed_up_floats(traced, folding.shapes, last, fast_floats)
        _describe(rows, traced, done)
        if led_past or any(f.names or f.output != "float" for f in done.values()):
            result = traced
    rows = _merged(model, int8_rows, rows)
    return Converted(result, Report(rows, before, stored_bytes(result), why))


def _device_of(model: nn.Module) -> torch.device:
    """Where the model lies; ``ValueError`` where it lies on several devices."""
    found: dict[torch.device, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor):
            found.setdefault(tensor.device, name)
    if len(found) > 1:
        places = ", ".join(f"{name} on {device}" for device, name in found.items())
        raise ValueError(f"the model lies on several devices: {places}; convert(model.cpu())")
    return next(iter(found), torch.device("cpu"))


def _on_cpu(example: Tensor | tuple[Any, ...] | None) -> Tensor | tuple[Any, ...] | None:
    if isinstance(example, tuple):
        return tuple(a.cpu() if isinstance(a, Tensor) else a for a in example)
    return None if example is None else example.cpu()


def _merged(model: nn.Module, int8_rows: list[Row], rows: list[Row]) -> list[Row]:
    """Both kinds of rows in the order of the model, each kind in its own order."""
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    merged = list(int8_rows)
    for row in reversed(rows):
        later = (i for i, o in enumerate(merged) if order.get(o.name, 0) > order.get(row.name, 0))
        merged.insert(next(later, len(merged)), row)
    return merged


def _structure(
    model: nn.Module, fold: bool, example: tuple[Any, ...] | None
) -> tuple[fx.Graph | None, str]:
    """The model's graph, or why there is none."""
    if not fold:
        return None, "fold=False"
    if isinstance(model, QuantizedLayer):
        return None, "the model is a single layer"
    wide = [n for n, t in model.named_parameters() if t.is_floating_point() and t.itemsize != 4]
    if wide:
        return (
            None,
            f"it is exact for float32 only, and {wide[0]} is {model.get_parameter(wide[0]).dtype}",
        )
    try:
        return trace(model, example), ""
    except NotTraceable as error:
        return None, str(error)


def _before_norms(
    graph: fx.Graph, model: nn.Module, shapes: dict[fx.Node, Shape]
) -> set[nn.Module]:
    """Layers of rows that a batch norm alone reads, and that are called once."""
    calls = graph.find_nodes(op="call_module")
    called = [model.get_submodule(str(node.target)) for node in calls]
    found = set()
    for node, layer in zip(calls, called, strict=True):
        users, shape = list(node.users), shapes.get(node)
        if len(users) != 1 or users[0].op != "call_module" or called.count(layer) != 1:
            continue
        norm = model.get_submodule(str(users[0].target))
        if type(norm) in NORMS and norm.track_running_stats and shape and len(shape) == 2:
            found.add(layer)
    return found


def _replaced(
    model: nn.Module, keep_slower: bool, normed: set[nn.Module], kept: set[nn.Module], int8: bool
) -> tuple[list[Row], nn.Module]:
    """Put packed layers into the model, which may be one itself, and freeze the rest.

    ``kept``: layers that stay as they are; ``int8``: what is not packed goes to int8
    where it can.
    """
    rows = []
    for name, layer in list(model.named_modules()):
        if not isinstance(layer, QuantizedLayer):
            continue
        if layer.weight_quantization is None and layer.input_quantization is None:
            continue
        size = stored_bytes(layer)
        row = Row(name, type(layer).__name__, False, size, size)
        rows.append(row)
        if layer in kept:
            row.why = "forward reads or calls its parts by itself"
            continue
        try:
            packed = packed_twin(layer, keep_slower, layer in normed)
        except CannotPack as error:
            row.why = str(error)
            if int8:
                try:
                    island = int8_twin(layer)
                except NoInt8 as no_int8:
                    row.why += f"; no int8: {no_int8}"
                else:
                    describe(row, island)
                    put(model, layer, island)
                    model = island if layer is model else model
                    continue
            frozen = frozen_twin(layer)
            if frozen is not None:
                row.frozen, row.bytes_after = True, stored_bytes(frozen)
                put(model, layer, frozen)
                model = frozen if layer is model else model
            continue
        row.packed, row.bytes_after = True, stored_bytes(packed)
        if isinstance(packed, PackedLayer):
            g = packed.geometry
            row.kernel, row.bits = kernel(), f"{g.planes_w}x{g.planes_x}"
        put(model, layer, packed)
        if layer is model:
            model = packed
    return rows, model


def _describe(rows: list[Row], model: nn.Module, done: dict[str, Folded]) -> None:
    for row in rows:
        if row.packed and row.name in done:
            folded = done[row.name]
            row.output, row.folded, row.why = folded.output, folded.names, folded.why
            layer = model.get_submodule(row.name)
            assert isinstance(layer, PackedLayer)
            row.bytes_after = stored_bytes(layer)
