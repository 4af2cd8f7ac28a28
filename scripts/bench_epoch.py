"""Seconds of an epoch that an experiment trains on a GPU, launched in several ways.

The experiment as ``experiments.train`` builds it, callbacks, validation and checkpoints too, on
45,000 synthetic images of CIFAR's size, augmented as those are, and 5,000 that validate. An epoch
is from its first step to the first of the next; the first epochs, which compile and capture, are
left out.

    eager              kernels launched one by one
    compile            compile=true
    cuda_graph         cuda_graph=true
    compile+graph      both
    reduce-overhead    compile=reduce-overhead

    python scripts/bench_epoch.py --output epoch_gpu.json
    python scripts/bench_epoch.py --modes eager --epochs 3 --images 2000 -- trainer=cpu
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import pytorch_lightning as pl  # noqa: E402
import torch  # noqa: E402
from hydra import compose, initialize_config_dir  # noqa: E402

import lowbit  # noqa: E402
from experiments import _build  # noqa: E402
from experiments._app import CONFIGS  # noqa: E402
from experiments.provenance import device_name, source  # noqa: E402
from experiments.results import write_json  # noqa: E402

MODES = {
    "eager": [],
    "compile": ["compile=true"],
    "cuda_graph": ["cuda_graph=true"],
    "compile+graph": ["compile=true", "cuda_graph=true"],
    "reduce-overhead": ["compile=reduce-overhead"],
}
LEFT_OUT = 2


class Clock(pl.Callback):
    """When each epoch begins, and when the last ends; and the seconds of its training alone."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.training: list[float] = []

    def on_train_epoch_start(self, *args: Any) -> None:
        self._now(self.starts)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx + 1 == trainer.num_training_batches:
            self._now(self.training)
            self.training[-1] -= self.starts[-1]

    def on_train_end(self, *args: Any) -> None:
        self._now(self.starts)

    def _now(self, times: list[float]) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter())


def measure(overrides: list[str], images: int, epochs: int) -> tuple[dict[str, float], str]:
    """Median seconds of an epoch, and of its training steps; the loss at the end; the device."""
    validating = images // 10
    with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
        cfg = compose(
            "train",
            overrides=[
                "data=synthetic",
                "data.augment=true",
                f"data.train_size={images}",
                f"data.val_size={validating}",
                "logger=none",
                "name=bench_epoch",
                *overrides,
                f"trainer.max_epochs={epochs + LEFT_OUT}",
            ],
        )
    with tempfile.TemporaryDirectory() as folder:
        cfg.folder = folder
        begin = time.perf_counter()
        run = _build.build(cfg, Path(folder))
        clock = Clock()
        run.trainer.callbacks.insert(0, clock)
        with contextlib.redirect_stderr(io.StringIO()):
            run.trainer.fit(run.recipe, run.data)
    whole = [b - a for a, b in zip(clock.starts, clock.starts[1:], strict=False)][LEFT_OUT:]
    found = {
        "epoch_s": round(statistics.median(whole), 4),
        "training_s": round(statistics.median(clock.training[LEFT_OUT:]), 4),
        "first_epochs_s": round(clock.starts[LEFT_OUT] - begin, 1),
        "train_loss": float(run.trainer.callback_metrics["train/loss"]),
    }
    return found, device_name(run.trainer.strategy.root_device)


def command(words: list[str]) -> str:
    """That of this benchmark, without where the file goes."""
    kept = [
        word
        for i, word in enumerate(words)
        if "--output" not in (word, *words[i - 1 : i]) and not word.startswith("--output=")
    ]
    return " ".join(["python scripts/bench_epoch.py", *kept])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--experiment", default="irnet_resnet20_cifar10")
    parser.add_argument("--modes", default=",".join(MODES), help="which, with commas between")
    parser.add_argument("--epochs", type=int, default=5, help="so many are measured")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--output", type=Path, help="a JSON file to write")
    parser.add_argument("overrides", nargs="*", help="others, after --")
    arguments = parser.parse_args()
    modes = arguments.modes.split(",")
    if wrong := set(modes) - set(MODES):
        parser.error(f"no mode {', '.join(sorted(wrong))}; there are {', '.join(MODES)}")
    chosen = any(word.startswith("trainer=") for word in arguments.overrides)
    if not (chosen or torch.cuda.is_available()):
        parser.error("torch finds no GPU here; -- trainer=cpu measures on the processor")
    code = source()
    cells: dict[str, Any] = {}
    device = None
    print(f"{arguments.experiment}, torch {torch.__version__}")
    print(f"{'':<18} {'epoch s':>9} {'steps s':>9} {'loss':>8}")
    for mode in modes:
        common = [
            f"experiment={arguments.experiment}",
            f"data.batch_size={arguments.batch}",
            "trainer=gpu",
        ]
        try:
            cell, device = measure(
                [*common, *MODES[mode], *arguments.overrides], arguments.images, arguments.epochs
            )
        except Exception as error:  # a mode that fails is told, and the others are measured
            cells[mode] = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
            print(f"{mode:<18} {cells[mode]['error']}")
        else:
            cells[mode] = cell
            print(
                f"{mode:<18} {cell['epoch_s']:>9} {cell['training_s']:>9} "
                f"{cell['train_loss']:>8.4f}",
                flush=True,
            )
        torch._dynamo.reset()
    print(f"on {device or 'nothing'}")
    if arguments.output is not None:
        result = {
            "command": command(sys.argv[1:]),
            **code,
            "lowbit": lowbit.__version__,
            "torch": torch.__version__,
            "device": device,
            "experiment": arguments.experiment,
            "images": arguments.images - arguments.images // 10,
            "batch": arguments.batch,
            "overrides": arguments.overrides,
            "modes": cells,
        }
        write_json(arguments.output, result)
    return int(any("error" in cell for cell in cells.values()))


if __name__ == "__main__":
    raise SystemExit(main())
