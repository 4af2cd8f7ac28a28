"""The int8 part of RESULTS.md, from the records that ``experiments.eval int8=… output=…`` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TITLES = {
    "static": (
        "Static int8 after training",
        "Ranges of activations from training images. Accuracy: trained / int8.",
    ),
    "qat": (
        "int8 by quantization-aware training",
        "Trained on from the float checkpoint with weights and activations of so many bits, the "
        "ends of the network with those of `recipe.ends` (8), then converted; all are stored as "
        "int8. Accuracy: float checkpoint / fake-quantized / int8; differing predictions and "
        "scores are those of fake-quantized and int8.",
    ),
    "dynamic": (
        "Dynamic int8",
        "Weights quantized beforehand, activations as the network runs. Accuracy: trained / int8.",
    ),
}
SPEED = "Images per second: {}float in channels-last / int8."


def tables(folder: Path) -> list[str]:
    """Lines for the records in ``folder``, one table for each mode; none without records."""
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    lines = []
    for mode, (title, text) in TITLES.items():
        chosen = [record for record in records if record["int8"]["mode"] == mode]
        if not chosen:
            continue
        if mode == "qat":
            chosen.sort(key=lambda record: -record["bits"]["weight"])
        floats = {record["checkpoint"]: _accuracy(record, "correct") for record in records}
        rows = [_row(record, floats) for record in chosen]
        speed = SPEED.format("" if mode == "qat" else "trained / ")
        lines += [
            "",
            f"## {title}",
            "",
            f"{text} {speed}",
            "",
            *("| " + " | ".join(cells) + " |" for cells in (rows[0], ["---"] * len(rows[0]))),
            *("| " + " | ".join(row.values()) + " |" for row in rows),
            "",
            *(f"- `{record['command']}`" for record in chosen),
        ]
    return lines


def _short(spec: str | dict[str, Any]) -> str:
    """A quantizer on one line: its name, and what it was given."""
    if isinstance(spec, str):
        return f"`{spec}`"
    return f"`{' '.join(str(v) if k == 'name' else f'{k}={v}' for k, v in spec.items())}`"


def _accuracy(record: dict[str, Any], which: str) -> float:
    return record["int8"][which] / record["int8"]["images"]


def _row(record: dict[str, Any], floats: dict[str, float]) -> dict[str, str]:
    """The cells of a record, by the head of their column."""
    int8, trained = record["int8"], record["trained"]
    qat = int8["mode"] == "qat"
    accuracies: list[float | None] = [
        _accuracy(record, "correct"),
        _accuracy(record, "correct_int8"),
    ]
    if qat:
        accuracies.insert(0, floats.get(record["start"]))
    shown = ["–" if value is None else f"{100 * value:.2f}" for value in accuracies]
    of = "a checkpoint" if trained is None else f"{record['experiment']}, seed {trained['seed']}"
    row = {"checkpoint of": of}
    if qat:
        row["weights, activations"] = "{weight}, {input} bits".format(**record["bits"])
        row["quantizers"] = ", ".join(
            _short(record["quantizer"][role]) for role in ("weight", "input")
        )
        row["epochs"] = "–" if trained is None else str(trained["epochs"])
    row |= {
        "accuracy": " / ".join(shown),
        "predictions that differ": f"{int8['differing']:,} of {int8['images']:,}",
        "largest difference of a score": f"{int8['largest_difference']:.2g}",
        "size": f"{int8['bytes'] / 1000:,.1f} / {int8['bytes_int8'] / 1000:,.1f} kB",
    }
    for speed, head in zip(int8["speed"], ("images per second", "the same"), strict=True):
        names = ("float", "int8") if qat else ("trained", "float", "int8")
        rates = " / ".join(f"{speed['images_per_second'][name]:,.0f}" for name in names)
        row[head] = f"{rates} (batch {speed['batch']})"
    row["device"] = f"{record['device']}, {int8['kernel']}, {int8['threads']} thread(s)"
    row["commit"] = str(record["commit"])[:9] + ("" if record["dirty"] is False else " (dirty)")
    return row
