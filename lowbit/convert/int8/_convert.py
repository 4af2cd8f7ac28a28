"""From a prepared model to the one that runs in int8."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from lowbit.convert._replace import put
from lowbit.convert._report import Row, stored_bytes
from lowbit.convert.int8._islands import Island
from lowbit.convert.int8._layers import EMBEDDINGS, WEIGHTED, weighted, why_not
from lowbit.convert.int8._lower import Lowering, quantize
from lowbit.convert.int8._made import Made, int8_layer
from lowbit.convert.int8._prepare import is_prepared
from lowbit.kernels import int8 as kernels


def to_int8(model: nn.Module) -> list[Row]:
    """Turn a prepared model into int8 layers, in place; returns a row for each layer.

    Raises ValueError for a model that is not prepared, and for observers that saw no data.
    """
    has_embeddings = any(_is_observed_embedding(module) for module in model.modules())
    if not is_prepared(model) and not has_embeddings:
        raise ValueError(
            "the model has no observers, and so no scales: prepared = lowbit.prepare(model), call "
            "it on batches of training data, then lowbit.convert(prepared, to='int8'); or "
            "lowbit.quantize_dynamic(model), which needs no data"
        )
    before = {name: (type(m).__name__, stored_bytes(m)) for name, m in model.named_modules()}
    made: dict[str, Made] = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, fx.GraphModule) and module.meta.get("lowbit_observed"):
            done, folded = Lowering(module).run(), module.meta.pop("lowbit_folded", {})
            for key, one in done.items():
                path = f"{name}.{key}" if name else key
                made[path] = one._replace(folded=[*folded.get(one.source, []), *one.folded])
    made |= _islands(model) | _embeddings(model)
    rows = [_row(name, one, before.get(one.source)) for name, one in made.items()]
    return rows + [_left(name, module) for name, module in model.named_modules() if _stays(module)]


def _islands(model: nn.Module) -> dict[str, Made]:
    made = {}
    for name, layer in list(model.named_modules()):
        observer: Any = getattr(layer, "input_observer", None)
        if observer is None:
            continue
        island = Island(
            quantize(observer, f"{name}.input_observer"), int8_layer(layer, None, False, False, "")
        )
        put(model, layer, island)
        made[name] = Made(name, island, "float", [])
    return made


def _is_observed_embedding(module: nn.Module) -> bool:
    own = hasattr(module, "qconfig") or hasattr(module, "weight_fake_quant")
    return type(module) in EMBEDDINGS and own


def _embeddings(model: nn.Module) -> dict[str, Made]:
    made = {}
    for name, table in list(model.named_modules()):
        if _is_observed_embedding(table):
            int8 = EMBEDDINGS[type(table)][0].from_float(table)
            put(model, table, int8)
            made[name] = Made(name, int8, "float", [])
    return made


def _row(name: str, one: Made, before: tuple[str, int] | None) -> Row:
    kind, size = before or ("", 0)
    layer = one.module.layer if isinstance(one.module, Island) else one.module
    module: Any = layer
    weighted_layer = hasattr(module, "_weight")
    kernel = ("oneDNN" if kernels.available() else "reference") if weighted_layer else ""
    after = stored_bytes(one.module)
    bits = "8x8" if weighted_layer else ""
    row = Row(name, kind, False, size, after, kernel, bits, one.output, one.folded)
    row.int8 = True
    return row


def _stays(module: nn.Module) -> bool:
    """Whether a module keeps weights in float that products are taken with."""
    return weighted(module) is not None or isinstance(module, nn.RNNBase | nn.RNNCellBase)


def _left(name: str, module: nn.Module) -> Row:
    size = stored_bytes(module)
    row = Row(name, type(module).__name__, False, size, size)
    if type(module) not in WEIGHTED and weighted(module) is None:
        row.why = "int8 only with scales chosen as it runs: lowbit.quantize_dynamic"
    else:
        row.why = why_not(module) or "no qconfig that quantizes activations, or a float input"
    return row
