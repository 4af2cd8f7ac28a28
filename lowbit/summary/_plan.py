"""What ``lowbit.convert`` makes of a model: the kernel and the bytes of each layer."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

from torch import nn

from lowbit import kernels
from lowbit.convert import Row, convert
from lowbit.convert.int8 import describe, is_prepared
from lowbit.nn import QuantizedLayer
from lowbit.nn.packed import PackedLayer, PackedMaxPool2d
from lowbit.nn.quantized._output import OutputScale
from lowbit.nn.quantized._weighted import WeightedModule
from lowbit.nn.quantized.dynamic._base import DynamicLayer
from lowbit.summary._layers import PACKED_TABLES

FLOAT = "float torch"


class Plan(NamedTuple):
    """The converted model, the report on its layers by name, and why there is neither, or ""."""

    model: nn.Module | None
    rows: dict[str, Row]
    why: str = ""

    def folded_into(self) -> dict[str, str]:
        """Paths of what runs inside a layer, and the layer."""
        return {name: row.name for row in self.rows.values() for name in row.folded}


def plan_of(model: nn.Module) -> Plan:
    """What ``convert`` would do; the model itself where there is nothing to convert."""
    quantized = (
        m.weight_quantization is not None or m.input_quantization is not None
        for m in model.modules()
        if isinstance(m, QuantizedLayer)
    )
    prepared = is_prepared(model)
    if not prepared and not any(quantized):
        return Plan(model, {})
    devices = {t.device.type for t in model.state_dict(keep_vars=True).values() if _is_tensor(t)}
    if "meta" in devices:
        return Plan(None, {}, "the weights are on the device 'meta', and have no values to pack")
    if devices - {"cpu"}:
        model = copy.deepcopy(model).cpu()
    try:
        converted, report = convert(model, to="int8" if prepared else "packed")
    except ValueError as error:
        return Plan(None, {}, str(error))
    return Plan(converted, {row.name: row for row in report})


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "element_size")


def planned_kernel(row: Row) -> str:
    """What a layer of the report runs on."""
    if row.packed:
        return _packed(row.bits, row.kernel) if row.bits else "packed table"
    return f"int8 {row.kernel}".strip() if row.int8 else FLOAT


def own_kernel(module: Any) -> str:
    """What a module runs on as it is."""
    if isinstance(module, PackedLayer):
        g = module.geometry
        return _packed(f"{g.planes_w}x{g.planes_x}", kernels.isa())
    if isinstance(module, PACKED_TABLES):
        return "packed table"
    if isinstance(module, WeightedModule):
        row = Row("", "", False, 0, 0)
        describe(row, module)
        return planned_kernel(row)
    if isinstance(module, DynamicLayer):
        return "int8 dynamic"
    if isinstance(module, PackedMaxPool2d):
        return "bits"
    return "int8" if isinstance(module, OutputScale) else FLOAT


def _packed(bits: str, isa: str) -> str:
    return f"xnor {isa}" if bits == "1x1" else f"planes {bits} {isa}"
