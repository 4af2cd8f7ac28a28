"""From a float model to the one that is calibrated, or trained, for int8."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn

from lowbit import observers
from lowbit.convert._shapes import infer
from lowbit.convert._trace import NotTraceable, example_shapes, has_hooks, trace
from lowbit.convert.int8 import _normalise
from lowbit.convert.int8._islands import prepare_islands
from lowbit.convert.int8._kinds import Kind, is_sum, tensors_read
from lowbit.convert.int8._layers import EMBEDDINGS, WEIGHTED, weighted, why_not
from lowbit.convert.int8._lower import is_observed
from lowbit.convert.int8._plain import numbers_for_padding, to_plain
from lowbit.convert.int8._plan import Plan
from lowbit.convert.int8._qconfigs import QConfigs, is_static


def prepare(
    model: nn.Module,
    qconfig: Any = None,
    *,
    example: Tensor | tuple[Any, ...] | None = None,
) -> nn.Module:
    """A copy of the model, in eval mode, that finds its scales in the data shown to it.

    Where torch.fx can follow ``forward``, batch norms are folded into the layers before them and
    observers stand where integers will be: in front of convolutions and linear layers, after
    them, and after sums, products and concatenations, which need no edits. Elsewhere each layer
    observes its own input. Call it on some batches of training data, then
    ``lowbit.convert(prepared, to="int8")``.

    ``qconfig``   a ``lowbit.qconfig.QConfig``; "x86", "onednn", … for the defaults of an engine
                  of torch.ao; a mapping of names and classes of modules to QConfig or None, ""
                  for the rest; None: the attributes ``qconfig`` of the modules, or, without any,
                  uint8 activations by ``MinMaxObserver`` and int8 weights, one scale a channel
    ``example``   a tensor, or the arguments of one call: fixes the arguments that it leaves out
                  at their defaults, and shows the shapes between layers. Rarely needed

    Models with ``QuantStub`` and ``DeQuantStub`` are int8 between those alone. Quantized layers
    of lowbit stay as they are, for ``convert`` to pack. Raises TypeError for another qconfig,
    ValueError for names that no module has and where there is nothing to quantize.

    >>> import torch
    >>> from lowbit.convert import convert
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
    >>> prepared = prepare(model)
    >>> x = torch.randn(16, 3, 8, 8)
    >>> y = prepared(x)
    >>> int8, report = convert(prepared, to="int8")
    >>> bool((int8(x) - model(x)).abs().max() < 0.1)
    True
    """
    return _prepared(model, qconfig, example, training=False)


def prepare_qat(
    model: nn.Module,
    qconfig: Any = None,
    *,
    example: Tensor | tuple[Any, ...] | None = None,
) -> nn.Module:
    """A copy of the model, in training mode, whose int8 layers round in every forward.

    As ``prepare``, with the layers of ``lowbit.nn.qat`` and fake quantization in the place of
    observers: train it on, then ``lowbit.convert(trained, to="int8")``. Batch norms train beside
    the layer that they will be folded into; ``model.apply(lowbit.nn.qat.freeze_bn_stats)`` near
    the end keeps their statistics, ``model.apply(lowbit.observers.disable_observer)`` the scales.

    ``qconfig``: as for ``prepare``; names of quantizers serve as well:
    ``QConfig("lsq", {"name": "int_k", "bits": 4})``. None: 8 bits, moving averages of ranges.

    >>> import torch
    >>> model = prepare_qat(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    >>> model(torch.randn(2, 4)).sum().backward()
    """
    return _prepared(model, qconfig, example, training=True)


@torch.inference_mode(False)  # a tensor that is made in it serves in no other mode
def _prepared(model: nn.Module, given: Any, example: Any, *, training: bool) -> nn.Module:
    if is_prepared(model):
        raise ValueError("the model is prepared already; prepare the float model")
    result = copy.deepcopy(model).train(training)
    to_plain(result)
    numbers_for_padding(result)
    qconfigs = QConfigs(result, given, training=training)

    def static_of(name: str) -> Any:
        qconfig = qconfigs.of(name)
        return qconfig if is_static(qconfig) else None

    _embeddings(result, qconfigs, training)
    arguments = (example,) if isinstance(example, Tensor) else example
    if type(result) in WEIGHTED:  # a single layer is a model as well
        result = nn.Sequential(result)
        qconfigs = QConfigs(result, given, training=training)
    try:
        graph = trace(result, arguments, training=training)
    except NotTraceable as error:
        prepare_islands(result, static_of, training=training)
        result.__dict__["not_traced"] = str(error)  # for the report
    else:
        traced = fx.GraphModule(result, graph, type(model).__name__)
        _observe(traced, static_of, qconfigs.rest, arguments, training=training)
        result = traced.train(training)
    if not is_prepared(result) and not any(type(m) in EMBEDDINGS for m in result.modules()):
        reasons = {why_not(m) for m in result.modules() if weighted(m) is not None} - {""}
        raise ValueError(
            "nothing to quantize: no Linear or Conv has a qconfig with observers"
            + (", between QuantStub and DeQuantStub" if _has_stubs(result) else "")
            + "; give prepare a qconfig"
            + "".join(f"; {reason}" for reason in sorted(reasons))
        )
    return result


def _has_stubs(model: nn.Module) -> bool:
    return any(type(module).__name__ == "QuantStub" for module in model.modules())


def is_prepared(model: nn.Module) -> bool:
    """Whether the model, or one inside of it, has observers where integers will be."""
    return any(
        is_observed(module) or hasattr(module, "input_observer") for module in model.modules()
    )


def _embeddings(model: nn.Module, qconfigs: QConfigs, training: bool) -> None:
    """Embeddings with a qconfig of their own keep it; in training they round their weight."""
    for name, module in list(model.named_modules()):
        if type(module) in EMBEDDINGS and qconfigs.named(name, module):
            qconfig: Any = qconfigs.of(name)
            if qconfig is None:
                continue
            module.qconfig = qconfig
            if training:
                model.set_submodule(name, EMBEDDINGS[type(module)][1].from_float(module))


def _observe(
    model: fx.GraphModule,
    qconfig_of: Any,
    rest: Any,
    example: tuple[Any, ...] | None,
    *,
    training: bool,
) -> None:
    """Fold, decide what is to be in integers, and put observers there."""
    shapes = infer(model.graph, model.get_submodule)
    if example is not None:
        shapes |= example_shapes(model, model.graph, example)
    _normalise.functions_to_modules(model)
    if not training:
        _normalise.norms_before_pools(model)
    _normalise.fold_norms(model, shapes, qconfig_of, training=training)
    if training:
        _trained_layers(model, qconfig_of)
    plan = Plan(model, shapes, qconfig_of)
    for node in plan.nodes:
        if plan.kinds[node] is Kind.WEIGHTED and node in plan.able:
            layer: Any = model.get_submodule(str(node.target))
            layer.qconfig = qconfig_of(str(node.target))
        elif is_sum(node):
            for addend in plan.addend(node):  # for the conversion, which knows no shapes
                model.get_submodule(str(addend.target)).__dict__["adds_alike"] = True
    observed = plan.observed()
    for value, users in observed.items():
        observer = _observer(plan, value, users, qconfig_of, rest, training)
        name = _normalise.free_name(model, f"{_name_of(value)}_observer")
        model.add_submodule(name, observer)
        with model.graph.inserting_after(value):
            seen = model.graph.call_module(name, (value,))
        for user in users:
            user.replace_input_with(value, seen)
    model.graph.lint()
    model.delete_all_unused_submodules()
    model.recompile()


def _name_of(value: fx.Node) -> str:
    return str(value.target).replace(".", "_") if value.op == "call_module" else value.name


def _trained_layers(model: fx.GraphModule, qconfig_of: Any) -> None:
    """Layers without a batch norm, in the form that rounds its weight."""
    for node in model.graph.find_nodes(op="call_module"):
        name = str(node.target)
        layer: Any = model.get_submodule(name)
        entry = WEIGHTED.get(type(layer))
        if entry is None or entry.trained is None or has_hooks(layer) or why_not(layer):
            continue
        if qconfig_of(name) is not None:
            layer.qconfig = qconfig_of(name)
            model.set_submodule(name, entry.trained.from_float(layer))


def _observer(
    plan: Plan, value: fx.Node, users: list[fx.Node], qconfig_of: Any, rest: Any, training: bool
) -> nn.Module:
    """What finds the scale of a value: as its own layer's qconfig says, or that of a reader."""
    if plan.kinds[value] is Kind.FIXED:
        return _fixed(plan, value, training)
    near = [*_made_by(plan, value), *users]
    names = [str(node.target) for node in near if node.op == "call_module"]
    anywhere = [str(n.target) for n in plan.nodes if plan.kinds[n] is Kind.WEIGHTED]
    qconfigs = [*map(qconfig_of, names), rest, *map(qconfig_of, anywhere)]
    qconfig = next(qconfig for qconfig in qconfigs if is_static(qconfig))
    observer: nn.Module = qconfig.activation()
    return observer


def _made_by(plan: Plan, value: fx.Node) -> list[fx.Node]:
    """The value's operation, and those of the values inside the same kernel, the layer first."""
    made = [value]
    for node in made:
        read = tensors_read(node, plan.kinds[node])
        made += [source for source in read if source in plan.inner]
    return made[::-1]


def _fixed(plan: Plan, value: fx.Node, training: bool) -> nn.Module:
    """The observer of a sigmoid or a hyperbolic tangent."""
    name = str(getattr(value.target, "__name__", value.target))
    if value.op == "call_module":
        name = type(plan.model.get_submodule(str(value.target))).__name__
    symmetric = name.lower() == "tanh"
    if training:
        fake = observers.default_fixed_qparams_range_neg1to1_fake_quant
        return (fake if symmetric else observers.default_fixed_qparams_range_0to1_fake_quant)()
    seen = observers.default_fixed_qparams_range_neg1to1_observer
    return (seen if symmetric else observers.default_fixed_qparams_range_0to1_observer)()
