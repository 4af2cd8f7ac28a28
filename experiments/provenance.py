"""Where a figure comes from: the code that ran, and the device that it ran on."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import torch

from lowbit.cli._machine import processor_name

ROOT = Path(__file__).resolve().parent.parent


def _git(*arguments: str) -> str | None:
    """What git says about this repository; None outside one, or without git."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def source() -> dict[str, Any]:
    """Which code runs: the commit, and whether files that train differ from it or are new."""
    changes = _git(
        "status", "--porcelain", "--", "lowbit", "experiments", "configs", ":!experiments/results"
    )
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": None if changes is None else changes != "",
    }


def device_name(device: torch.device) -> str:
    """The model name of the GPU or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor_name()
