"""What stays in float around packed layers, made fast: convolutions, norms, pools, layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import torch.nn.functional as F
from torch import fx, nn

from lowbit.convert._float import (
    ONE_DNN,
    ChannelsLast,
    FloatConv2d,
    FloatConvolution,
    LaidOutLike,
    OverlappingMaxPool2d,
)
from lowbit.convert._layout import lay_out_runs
from lowbit.convert._norm import FrozenNorm
from lowbit.convert._replace import added, put
from lowbit.convert._shapes import RELUS, Shape
from lowbit.convert._trace import has_hooks
from lowbit.nn.packed import PackedConv2d

# Whose modules and functions take tensors of any strides.
OURS = ("torch", "math", "lowbit.nn.", "lowbit.convert.", "lowbit.quantizers.")
OF_STRIDES = (
    *("view", "view_as", "as_strided", "stride", "is_contiguous", "unfold"),
    *("data_ptr", "storage", "untyped_storage", "storage_offset", "numpy"),
)
# Float layers that are faster on channels last; without one, a copy of the images would cost more
# than packed layers gain.
IMAGE_LAYERS = (nn.Conv2d, FloatConvolution, FrozenNorm, nn.MaxPool2d, nn.AvgPool2d)


def speed_up_floats(
    model: fx.GraphModule, shapes: dict[fx.Node, Shape], last: Collection[str], fast_floats: bool
) -> None:
    """Replace float layers by faster ones, and lay out images where that is faster.

    Values are the same; with ``fast_floats``, but for the order in which float convolutions and
    means sum. ``last``: what ``last_weights`` found in the trained model.
    """
    for module in list(model.modules()):
        made: nn.Module | None = None
        if fast_floats and type(module) is nn.Conv2d and not has_hooks(module):
            made = FloatConv2d.from_trained(module)
        elif type(module) is nn.MaxPool2d and not has_hooks(module):
            made = OverlappingMaxPool2d.from_trained(module)
        if made is not None:
            put(model, module, made)
    _join_relus(model)
    if fast_floats:
        for node in model.graph.find_nodes(op="call_function", target=F.conv2d):
            _call_by_module(node, model)
        _lay_out(model, shapes)
    else:
        lay_out_runs(model, shapes, last)
    model.graph.eliminate_dead_code()
    model.graph.lint()
    model.delete_all_unused_submodules()
    model.recompile()


def _call_by_module(node: fx.Node, model: fx.GraphModule) -> None:
    """Let a module call F.conv2d(x, weight, ...) of an attribute, if all sizes are fixed."""
    x, weight, bias, *sizes = (*node.args, None)[: max(len(node.args), 3)]
    options = dict(zip(("stride", "padding", "dilation", "groups"), sizes, strict=False))
    options |= node.kwargs
    fixed = isinstance(weight, fx.Node) and weight.op == "get_attr" and bias is None
    numbers = all(isinstance(size, int | tuple) for size in options.values())
    if ONE_DNN is None or not fixed or not numbers or not isinstance(x, fx.Node):
        return
    name = added(model, node.name, FloatConvolution(**options))  # type: ignore[arg-type]
    with model.graph.inserting_before(node):
        call = model.graph.call_module(name, (x, weight))
    node.replace_all_uses_with(call)
    model.graph.erase_node(node)


def _join_relus(model: fx.GraphModule) -> None:
    """Let a frozen norm do the ReLU that alone reads it, in place."""
    calls = model.graph.find_nodes(op="call_module")
    counts = Counter(id(model.get_submodule(str(node.target))) for node in calls)
    for node in calls:
        norm = model.get_submodule(str(node.target))
        if not isinstance(norm, FrozenNorm) or counts[id(norm)] > 1 or len(node.users) != 1:
            continue
        user = next(iter(node.users))
        if _is_relu(user, model):
            norm.relu = True
            user.replace_all_uses_with(node)
            model.graph.erase_node(user)


def _is_relu(node: fx.Node, model: fx.GraphModule) -> bool:
    if node.op == "call_module":
        module = model.get_submodule(str(node.target))
        return type(module) is nn.ReLU and not has_hooks(module)
    calls = node.op in ("call_function", "call_method")
    return calls and node.target in RELUS and len(node.all_input_nodes) == 1


def _lay_out(model: fx.GraphModule, shapes: dict[fx.Node, Shape]) -> None:
    """Images go channels last where they come in, and as they came where that can be seen."""
    graph = model.graph
    inputs, (end,) = graph.find_nodes(op="placeholder"), graph.find_nodes(op="output")
    images = [node for node in inputs if len(shapes.get(node) or ()) == 4]
    modules = list(model.modules())
    fast = any(isinstance(module, FloatConv2d | FloatConvolution) for module in modules)
    if not inputs or not (fast or (images and any(isinstance(m, IMAGE_LAYERS) for m in modules))):
        return
    for module in modules:
        if isinstance(module, PackedConv2d) and module.packed_input:
            module.channels_last = True
    like = ""
    for node in list(graph.nodes):
        if node is not end and not _depends_on_layout(node, model):
            continue
        for value in node.all_input_nodes:
            if value.op in ("placeholder", "get_attr") or len(shapes.get(value) or (0,) * 4) == 2:
                continue
            like = like or added(model, "laid_out_like", LaidOutLike())
            with graph.inserting_before(node):
                restored = graph.call_module(like, (value, (images or inputs)[0]))
            node.replace_input_with(value, restored)
    for image in images:
        readers = [
            user
            for user in image.users
            if user.target != like and user is not end and not _depends_on_layout(user, model)
        ]
        # Fast convolutions read both layouts, and give channels last.
        if all(_is_fast_conv(user, model) for user in readers):
            continue
        name = added(model, "channels_last", ChannelsLast())
        with graph.inserting_after(image):
            last = graph.call_module(name, (image,))
        for user in readers:
            user.replace_input_with(image, last)


def _depends_on_layout(node: fx.Node, model: fx.GraphModule) -> bool:
    """Whether a call may fail, or tell, where a tensor's strides are others."""
    if node.op == "call_module":
        home = type(model.get_submodule(str(node.target))).__module__
        return not home.startswith(OURS)
    if node.op == "call_method":
        return node.target in OF_STRIDES
    if node.op != "call_function":
        return False
    name, home = getattr(node.target, "__name__", ""), getattr(node.target, "__module__", "")
    return name in OF_STRIDES or not (home or "torch").startswith((*OURS, "_operator", "builtins"))


def _is_fast_conv(node: fx.Node, model: fx.GraphModule) -> bool:
    return node.op == "call_module" and isinstance(
        model.get_submodule(str(node.target)), FloatConv2d
    )
