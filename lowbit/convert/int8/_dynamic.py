"""int8 weights, and activations whose scales are chosen as the model runs."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from lowbit import qconfig as qconfigs
from lowbit.convert._replace import call_layers, put
from lowbit.convert._trace import has_hooks
from lowbit.convert.int8._plain import to_plain
from lowbit.nn import quantized as nnq
from lowbit.nn.quantized import dynamic

DYNAMIC: dict[type, type[Any]] = {
    nn.Linear: dynamic.Linear,
    nn.LSTM: dynamic.LSTM,
    nn.GRU: dynamic.GRU,
    nn.LSTMCell: dynamic.LSTMCell,
    nn.GRUCell: dynamic.GRUCell,
    nn.RNNCell: dynamic.RNNCell,
}
# Only where they are named: their inputs are large, and looked at once more.
ON_REQUEST: dict[type, type[Any]] = {
    nn.Conv1d: dynamic.Conv1d,
    nn.Conv2d: dynamic.Conv2d,
    nn.Conv3d: dynamic.Conv3d,
    nn.ConvTranspose1d: dynamic.ConvTranspose1d,
    nn.ConvTranspose2d: dynamic.ConvTranspose2d,
    nn.ConvTranspose3d: dynamic.ConvTranspose3d,
    nn.Embedding: nnq.Embedding,
    nn.EmbeddingBag: nnq.EmbeddingBag,
}
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


def quantize_dynamic(
    model: nn.Module,
    qconfig_spec: Any = None,
    dtype: torch.dtype | str = torch.int8,
    mapping: Mapping[type, type[Any]] | None = None,
    inplace: bool = False,
) -> nn.Module:
    """The model with int8 weights in its linear and recurrent layers, in eval mode.

    Inputs are quantized in each call with a scale of their own, so that no data is needed
    beforehand; outputs and everything else are float32. Arguments are those of torch.ao's
    function.

    ``qconfig_spec``   classes and names of modules, as a set, or as a mapping to QConfigs, None
                       for float and "" for the whole model; None:
                       ``Linear, LSTM, GRU, LSTMCell, GRUCell, RNNCell``. Convolutions and
                       embeddings on request
    ``dtype``          of the weights: int8 (``torch.qint8``) or float16; ``torch.quint8`` and
                       ``"quint4x2"`` for embeddings
    ``mapping``        classes of float modules -> of dynamic ones, in place of the usual
    ``inplace``        change the model itself; else a copy

    Layers with hooks or parametrizations stay, for they would be lost, and so do layers with
    what int8 has no form of (``proj_size``, no biases). Raises ValueError for another dtype, for
    names that no module has and for classes without a dynamic form.

    >>> model = nn.Sequential(nn.Linear(8, 4), nn.ReLU())
    >>> type(quantize_dynamic(model)[0]).__module__
    'lowbit.nn.quantized.dynamic.linear'
    """
    known = dict(mapping) if mapping is not None else {**DYNAMIC, **ON_REQUEST}
    usual = list(mapping) if mapping is not None else list(DYNAMIC)
    name = str(dtype).removeprefix("torch.")
    result = model if inplace else copy.deepcopy(model)
    result.eval()
    to_plain(result)
    kinds, names = _chosen(result, qconfig_spec, usual, known, name)
    for path, module in list(result.named_modules()):
        qconfig = names.get(path, kinds.get(type(module)))
        if qconfig is None or type(module) not in known or has_hooks(module):
            continue
        recurrent = isinstance(module, nn.RNNBase | nn.RNNCellBase)
        if recurrent and (not module.bias or getattr(module, "proj_size", False)):
            continue
        had = getattr(module, "qconfig", None)
        module.qconfig = qconfig
        made = known[type(module)].from_float(module)
        if had is None:
            del module.qconfig
        if module is result:
            return made.eval()
        put(result, module, made.eval())
    call_layers(result)
    return result


def _chosen(
    model: nn.Module, spec: Any, usual: list[type], known: Mapping[type, Any], dtype: str
) -> tuple[dict[type, Any], dict[str, Any]]:
    """qconfigs by class and by name."""
    usual_kinds = _EMBEDDINGS if dtype in ("quint8", "quint4x2", "uint8") else usual
    if spec is None:
        return {kind: _usual(kind, dtype) for kind in usual_kinds}, {}
    if not isinstance(spec, Iterable) or isinstance(spec, str):
        raise ValueError(
            "qconfig_spec is a set of classes and names of modules, or a mapping of them to "
            f"QConfigs; got {spec!r}"
        )
    paths = dict(model.named_modules())
    kinds: dict[type, Any] = {}
    names: dict[str, Any] = {}
    given: dict[Any, Any] = dict(spec) if isinstance(spec, Mapping) else dict.fromkeys(spec, _USUAL)
    for key, qconfig in sorted(given.items(), key=lambda entry: len(str(entry[0]))):
        if isinstance(key, str):
            if key not in paths:
                raise ValueError(f"no module named {key!r}, which qconfig_spec has")
            # The longer a name, the later it has its say.
            for path, module in _inside(paths, key).items():
                if type(module) in (known if path == key else usual_kinds):
                    names[path] = _qconfig(qconfig, type(module), dtype)
        elif key not in known:
            raise ValueError(
                f"{getattr(key, '__name__', key)} has no dynamic form; known: "
                + ", ".join(sorted(kind.__name__ for kind in known))
            )
        else:
            kinds[key] = _qconfig(qconfig, key, dtype)
    return kinds, names


_USUAL = object()  # a set says which modules, not how


def _qconfig(given: Any, kind: type, dtype: str) -> Any:
    return _usual(kind, dtype) if given is _USUAL else given


def _inside(paths: Mapping[str, nn.Module], name: str) -> dict[str, nn.Module]:
    """The module of this name, and those in it; "" is all of them."""
    inside = name + "." if name else ""
    return {path: m for path, m in paths.items() if path == name or path.startswith(inside)}


def _usual(kind: type, dtype: str) -> Any:
    if kind in _EMBEDDINGS:
        if dtype == "quint4x2":
            return qconfigs.float_qparams_weight_only_qconfig_4bit
        return qconfigs.float_qparams_weight_only_qconfig
    if dtype in ("int8", "qint8"):
        return qconfigs.default_dynamic_qconfig
    if dtype == "float16":
        return qconfigs.float16_dynamic_qconfig
    raise ValueError(
        f"no dynamic weights of {dtype}; known: int8 (qint8), float16, and quint8 and quint4x2 "
        "for embeddings"
    )
