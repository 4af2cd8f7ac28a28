"""The rows of a summary, of what was seen in a call and what conversion makes of the layers."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

from lowbit.summary._call import Seen, Watch
from lowbit.summary._layers import (
    WHOLE,
    bits_of,
    float_bits,
    kept_numbers,
    layers_of,
    norm_numbers,
    weights_of,
)
from lowbit.summary._plan import FLOAT, Plan, own_kernel, planned_kernel
from lowbit.summary._result import LayerRow, Macs


def rows_of(model: nn.Module, watch: Watch, plan: Plan) -> list[LayerRow]:
    """A row for each layer that has tensors or products, and for what conversion adds."""
    rows: dict[str, LayerRow] = {}
    for name, module in layers_of(model):
        rows[name] = _of_module(name, module, watch.modules.get(name, Seen()), plan)
        for (caller, read, _), seen in watch.functions.items():
            if caller == name:
                rows[_free(read, rows, model)] = _of_function(read, seen)
    whole = isinstance(model, WHOLE)
    _add_parameters(rows, model, whole)
    for key, size in _bytes_of(model, rows, whole).items():
        rows[key].bytes = size
    if plan.model is not None:
        _add_packed_bytes(rows, plan.model, whole)
    return [r for r in rows.values() if r.numbers or r.bytes or r.packed_bytes or r.macs.total]


def _of_module(name: str, module: nn.Module, seen: Seen, plan: Plan) -> LayerRow:
    reads, weight_bits = bits_of(module, seen.reads)
    if seen.reads_bits is not None and reads is not None:
        reads = min(reads, seen.reads_bits)
    row = LayerRow(name, type(module).__name__, reads, weight_bits, seen.output, seen.calls)
    planned = plan.rows.get(name)
    if planned is not None and planned.int8:
        row.input_bits, row.weight_bits = 8, 8
    elif planned is not None and planned.packed and row.input_bits and row.input_bits > 8:
        # It reads what a quantizer right in front of it gives.
        row.input_bits = int(planned.bits.rpartition("x")[2])
    weights = weights_of(module)
    row.weights = 0 if weights is None else weights.total
    row.macs = Macs.of(seen.macs, row.input_bits, row.weight_bits)
    row.parameters = kept_numbers(module)
    row.numbers = row.parameters + norm_numbers(module) + sum(seen.constants.values())
    if planned is not None:
        row.kernel = planned_kernel(planned)
        row.why = "" if planned.packed or planned.int8 else planned.why
    elif plan.model is not None:
        layer = plan.folded_into().get(name)
        row.kernel = own_kernel(module) if layer is None else f"in {layer}"
    return row


def _of_function(read: str, seen: Seen) -> LayerRow:
    bits = float_bits(seen.reads)
    numbers = sum(seen.constants.values())
    macs = Macs.of(seen.macs, bits)
    return LayerRow(
        read, seen.kind, bits, bits, seen.output, seen.calls, 0, numbers, macs=macs, kernel=FLOAT
    )


def _free(read: str, rows: Collection[str], model: nn.Module) -> str:
    """The key of a function's row: the tensor that it reads is its own, unless it is a layer's."""
    holder = dict(model.named_modules()).get(read.rpartition(".")[0])
    if holder is not model and isinstance(holder, WHOLE):
        read += "'"
    while read in rows:
        read += "'"
    return read


def _owner(key: str, rows: Collection[str], whole: bool) -> str | None:
    """The longest key of a row that an entry of a ``state_dict`` lies under; None without one.

    ``whole``: whether all that has no other row is the model's own, not its direct tensors alone.
    """
    path = key
    while path:
        if path in rows:
            return path
        path = path.rpartition(".")[0]
    return "" if "" in rows and (whole or "." not in key) else None


def _add_parameters(rows: dict[str, LayerRow], model: nn.Module, whole: bool) -> None:
    """Parameters and their bytes by the bits of weights, each where it comes first."""
    matrices = dict.fromkeys(rows, 0)
    for key, parameter in model.named_parameters():
        name = _owner(key, rows, whole)
        assert name is not None  # modules with tensors of their own have rows
        rows[name].parameters += parameter.numel()
        rows[name].numbers += parameter.numel()
        matrices[name] += parameter.numel() if parameter.ndim > 1 else 0
    size = next((p.element_size() for p in model.parameters() if p.is_floating_point()), 4)
    modules = dict(model.named_modules())
    for name, row in rows.items():
        if row.weights and not kept_numbers(modules[name]):
            row.weights = min(row.weights, matrices[name])  # 0 of a weight that came before
        row.nominal_bytes = row.weights * (row.weight_bits or 0) / 8
        row.nominal_bytes += (row.numbers - row.weights) * size


def _bytes_of(model: nn.Module, rows: Collection[str], whole: bool) -> dict[str, int]:
    """Bytes of the tensors of ``state_dict``, each once, by the key of the row that has them.

    Tensors of no row are found under the path of their module.
    """
    seen: set[int] = set()
    found: dict[str, int] = {}
    # Some modules make tensors anew for each state_dict, so that no two are the same.
    once = {path for path, _ in model.named_modules()}
    again = {path for path, _ in model.named_modules(remove_duplicate=False)} - once
    for key, tensor in model.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor) or id(tensor) in seen or _is_inside(key, again):
            continue
        seen.add(id(tensor))
        name = _owner(key, rows, whole)
        name = key.rpartition(".")[0] if name is None else name
        found[name] = found.get(name, 0) + tensor.numel() * tensor.element_size()
    return found


def _is_inside(key: str, paths: Collection[str]) -> bool:
    """Whether a tensor is of one of these modules."""
    parts = key.split(".")
    return any(".".join(parts[:i]) in paths for i in range(1, len(parts)))


def _add_packed_bytes(rows: dict[str, LayerRow], converted: nn.Module, whole: bool) -> None:
    found = _bytes_of(converted, rows, whole)
    for key, row in rows.items():
        row.packed_bytes = found.pop(key, 0)
        if row.bytes and not row.packed_bytes and row.kernel == FLOAT:
            row.kernel = ""  # an observer, whose work is done
    for path, size in found.items():
        module = converted.get_submodule(path)
        kernel = own_kernel(module)
        rows[path] = LayerRow(path, type(module).__name__, packed_bytes=size, kernel=kernel)
