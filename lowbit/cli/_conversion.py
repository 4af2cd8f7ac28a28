"""From a trained network to packed bits or int8, as ``convert`` and ``bench`` do it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

import lowbit
from lowbit.cli._errors import UserError, user_errors
from lowbit.cli._load import Loaded
from lowbit.convert import Report
from lowbit.convert.int8 import is_prepared
from lowbit.nn.quantized import dynamic

KINDS = ("packed", "int8", "dynamic")


class Conversion(NamedTuple):
    """A converted model; ``report`` is None of "dynamic", ``kind`` one of KINDS."""

    model: nn.Module
    report: Report | None
    kind: str

    @property
    def done(self) -> int:
        """How many layers run packed or in int8."""
        if self.report is None:
            return len(dynamic_layers(self.model))
        return sum(row.packed or row.int8 for row in self.report)


def converted(
    loaded: Loaded,
    kind: str | None,
    batches: Iterable[Tensor] = (),
    *,
    fast_floats: bool = False,
    keep_slower: bool = False,
) -> Conversion:
    """Convert a copy; ``kind`` None: int8 of a network that was trained for it, else packed.

    ``batches`` are pictures that int8 takes its ranges from, for a network that was not.
    """
    if loaded.kind == "packed":
        raise UserError("the network is converted already: give the checkpoint it was made from")
    model, trained_for_int8 = loaded.model, is_prepared(loaded.model)
    kind = kind or ("int8" if trained_for_int8 else "packed")
    if trained_for_int8 and kind != "int8":
        raise UserError(f"the network was trained for int8: --to int8, not {kind}")
    with user_errors(ValueError, TypeError):
        if kind == "dynamic":
            return Conversion(lowbit.quantize_dynamic(model), None, kind)
        if kind == "int8" and not trained_for_int8:
            model = _calibrated(model, batches)
        model, report = lowbit.convert(
            model, to=kind, fast_floats=fast_floats, keep_slower=keep_slower
        )
    return Conversion(model, report, kind)


def _calibrated(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    prepared, shown = lowbit.prepare(model), 0
    with torch.inference_mode():
        for batch in batches:
            prepared(batch)
            shown += len(batch)
    if not shown:
        raise UserError(
            "int8 takes the ranges of activations from training pictures: --calibrate FOLDER; "
            "--to dynamic needs none"
        )
    return prepared


def why_nothing(conversion: Conversion) -> str:
    """Why no layer was converted, and what else there is."""
    if conversion.kind == "dynamic":
        return "nothing to convert: the network has no float linear or recurrent layers"
    report = conversion.report
    if report is not None and len(report):
        return f"nothing converts of {report[0].name}: {report[0].why}"
    return (
        "nothing to pack: no layer has quantizers; --to dynamic takes float ones, and so does "
        "lowbit convert --to int8"
    )


def dynamic_layers(model: nn.Module) -> list[tuple[str, str]]:
    """Path and class of the layers with int8 weights."""
    return [
        (name, type(module).__name__)
        for name, module in model.named_modules()
        if type(module).__name__ in dynamic.__all__
        and type(module) is getattr(dynamic, type(module).__name__)
    ]
