"""From a prepared model to the one that runs in int8."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from lowbit.convert._replace import call_layers, put
from lowbit.convert._report import Row, stored_bytes
from lowbit.convert.int8._islands import Island
from lowbit.convert.int8._layers import EMBEDDINGS, WEIGHTED, weighted, why_not
from lowbit.convert.int8._lower import Lowering, is_observed, quantize
from lowbit.convert.int8._made import Made, int8_layer, waits_for_data
from lowbit.convert.int8._prepare import is_prepared
from lowbit.kernels import int8 as kernels
from lowbit.nn import QuantizedLayer


def to_int8(model: nn.Module) -> list[Row]:
    """Turn what was prepared into int8 layers, in place; returns a row for each layer.

    Raises ValueError for a model that is not prepared and has no layers with quantizers, which
    need no observers, and for observers that saw no data.
    """
    ready = any(_is_observed_embedding(m) or _has_quantizers(m) for m in model.modules())
    prepared = is_prepared(model)
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    norms = {
        name: module.__dict__.get("folded_norms", []) for name, module in model.named_modules()
    }
    if not prepared and not ready:
        raise ValueError(
            "the model has no observers, and so no scales: prepared = lowbit.prepare(model), call "
            "it on batches of training data, then lowbit.convert(prepared, to='int8'); or "
            "lowbit.quantize_dynamic(model), which needs no data"
        )
    before = {name: (type(m).__name__, stored_bytes(m)) for name, m in model.named_modules()}
    made: dict[str, Made] = {}
    for name, module in list(model.named_modules()):
        if is_observed(module):
            assert isinstance(module, fx.GraphModule)
            prefix = f"{name}." if name else ""
            for key, one in Lowering(module).run().items():
                source = prefix + one.source
                folded = [*norms.get(source, []), *one.folded]
                made[prefix + key] = one._replace(source=source, folded=folded)
    made |= _islands(model) | _embeddings(model)
    rows = [_row(name, one, before.get(one.source)) for name, one in made.items()]
    left = [(name, module) for name, module in model.named_modules() if _stays(module)]
    rows += [_left(name, module, prepared) for name, module in left]
    # A layer that is called several times becomes one for each call, at its own place.
    places = {name: order.get(one.source, len(order)) for name, one in made.items()}
    return sorted(rows, key=lambda row: places.get(row.name, order.get(row.name, len(order))))


def _islands(model: nn.Module) -> dict[str, Made]:
    """Layers that see their own input; those that no data reached stay, unless it is all."""
    made = {}
    observed: list[tuple[str, Any]] = [
        (name, module)
        for name, module in model.named_modules()
        if hasattr(module, "input_observer")
    ]
    waiting = [name for name, layer in observed if waits_for_data(layer.input_observer)]
    for name, layer in observed:
        observer = layer.input_observer
        if name in waiting and len(waiting) < len(observed):
            layer._forward_pre_hooks.clear()  # the observer's: layers with others have none
            del layer.input_observer
            continue
        island = Island(
            quantize(observer, f"{name}.input_observer"), int8_layer(layer, None, False, False, "")
        )
        put(model, layer, island)
        made[name] = Made(name, island, "float", [])
    call_layers(model)
    return made


def _is_observed_embedding(module: nn.Module) -> bool:
    own = hasattr(module, "qconfig") or hasattr(module, "weight_fake_quant")
    return type(module) in EMBEDDINGS and own


def _has_quantizers(module: nn.Module) -> bool:
    return isinstance(module, QuantizedLayer) and module.weight_quantization is not None


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
    row = Row(name, kind, False, size, size, output=one.output, folded=one.folded)
    describe(row, one.module)
    return row


def describe(row: Row, made: nn.Module) -> None:
    """Say in a row that its layer became ``made``."""
    module: Any = made.layer if isinstance(made, Island) else made
    row.int8, row.bytes_after = True, stored_bytes(made)
    if hasattr(module, "_weight"):
        row.kernel = "oneDNN" if kernels.available() else "reference"
        row.bits = "8x8"


def _stays(module: nn.Module) -> bool:
    """Whether a module keeps weights in float that products are taken with."""
    if isinstance(module, QuantizedLayer):
        return False  # packing tells of these
    return weighted(module) is not None or isinstance(module, nn.RNNBase | nn.RNNCellBase)


def _left(name: str, module: nn.Module, prepared: bool) -> Row:
    size = stored_bytes(module)
    row = Row(name, type(module).__name__, False, size, size)
    if type(module) not in WEIGHTED and weighted(module) is None:
        row.why = "int8 only with scales chosen as it runs: lowbit.quantize_dynamic"
    elif not prepared:
        row.why = "its input has no scale: lowbit.prepare the model, and show it data"
    else:
        row.why = why_not(module) or (
            "no qconfig that quantizes activations, a float input, no call in calibration, or hooks"
        )
    return row
