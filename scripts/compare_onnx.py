"""A trained network in int8, here and in onnxruntime, over the whole test set.

    python scripts/compare_onnx.py runs/…/checkpoints/best.ckpt
    python scripts/compare_onnx.py some.ckpt --experiment lenet_mnist_float --output compared.json

The checkpoint's model is calibrated on training images and converted to int8, exported by
``lowbit.export.onnx``, and run in onnxruntime, which nobody here wrote. Printed and written: the
share of test images with the same answer (top-1), both accuracies and the float model's, and each
image whose answers differ with its margins, the distance of the two best scores.

Why they differ is shown by a third model, ``lowbit.export.integer_biases``: lowbit's own, with its
biases rounded to the step of the sums, as integer kernels add them. Where it differs still, a
number rounded the other way, being a tie or near to one. ``score_difference`` is the root of the
mean square of what lies between the scores of each and onnxruntime's.

onnxruntime computes in int8 as here where the processor has VNNI instructions; without them its
sums of uint8 times int8 may saturate, and the answers are its own.
"""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.errors import CompactHydraException
from omegaconf import DictConfig
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments import _build, _checkpoint
from experiments._int8 import converted
from experiments._packed import ready
from experiments.provenance import ROOT, device_name, source
from experiments.results import write_json
from lowbit import export

PACKAGES = ("torch", "onnx", "onnxruntime")


def configuration(options: argparse.Namespace) -> DictConfig:
    """That of the checkpoint's run, or of the experiment that is named."""
    if options.experiment is None:
        config = _checkpoint.config_of(options.checkpoint, options.config)
    else:
        with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
            config = compose("train", overrides=[f"experiment={options.experiment}"])
    int8 = {"int8": "static", "calibration": options.calibration, "qconfig": options.qconfig}
    config.merge_with({"threads": options.threads, "packed": False, **int8})
    return config


class Runtime:
    """onnxruntime on a model; ``kernels``: how often it has each operator in its own graph."""

    def __init__(self, proto: Any, threads: int) -> None:
        import onnx
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        with tempfile.TemporaryDirectory() as folder:
            optimized = Path(folder) / "optimized.onnx"
            options.optimized_model_filepath = str(optimized)
            self.session = onnxruntime.InferenceSession(
                proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            nodes = onnx.load(optimized).graph.node
        counted = collections.Counter(node.op_type for node in nodes)
        self.kernels = dict(counted.most_common())

    def __call__(self, x: Tensor) -> Tensor:
        (name,) = (value.name for value in self.session.get_inputs())
        return torch.from_numpy(self.session.run(None, {name: x.numpy()})[0])


def margin(scores: Tensor) -> float:
    """The distance of the two best."""
    best = scores.topk(2).values
    return float(best[0] - best[1])


def differing(first: int, labels: Tensor, scores: dict[str, Tensor]) -> Iterator[dict[str, Any]]:
    """What there is to say of each image whose two answers differ; ``first`` is its batch's."""
    ours, theirs = scores["int8"], scores["onnxruntime"]
    for row in (ours.argmax(1) != theirs.argmax(1)).nonzero().flatten().tolist():
        yield {
            "image": first + row,
            "label": int(labels[row]),
            **{name: int(each[row].argmax()) for name, each in scores.items()},
            "margin_int8": margin(ours[row]),
            "margin_onnxruntime": margin(theirs[row]),
            "largest_difference": float((ours[row] - theirs[row]).abs().max()),
        }


@torch.inference_mode()
def compare(models: dict[str, Any], loader: Any) -> dict[str, Any]:
    """Figures of ``models``: "float", "int8", "int8_integer_biases" and "onnxruntime"."""
    images = 0
    correct, same = dict.fromkeys(models, 0), dict.fromkeys(models, 0)
    squares = dict.fromkeys(models, 0.0)
    rows: list[dict[str, Any]] = []
    for batch in loader:
        x, labels = ready(models["float"], batch)
        scores = {name: model(x) for name, model in models.items()}
        theirs = scores["onnxruntime"]
        for name, each in scores.items():
            answers = each.argmax(1)
            correct[name] += int((answers == labels).sum())
            same[name] += int((answers == theirs.argmax(1)).sum())
            squares[name] += float((each.double() - theirs.double()).square().sum() / each.shape[1])
        rows += differing(images, labels, scores)
        images += len(labels)
    others = [name for name in models if name != "onnxruntime"]
    return {
        "images": images,
        "agreement": {name: same[name] / images for name in others},
        "accuracy": {name: count / images for name, count in correct.items()},
        "score_difference": {name: (squares[name] / images) ** 0.5 for name in others},
        "differing": rows,
    }


def record(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as it is written."""
    code = source()
    config = configuration(options)
    data, recipe = _build.prepare(config)
    _checkpoint.load_weights(recipe, options.checkpoint)
    trained = recipe.model.cpu().eval()
    data.setup("test")
    loader = data.test_dataloader()
    x, _ = ready(trained, next(iter(loader)))
    with torch.no_grad():
        model, _ = converted(trained, data, config)
        proto = export.onnx(model, x[:2], options.onnx, fused_adds=not options.integer_adds)
        runtime = Runtime(proto, options.threads)
        rounded = export.integer_biases(model, x[:2])
    models = {
        "float": trained,
        "int8": model,
        "int8_integer_biases": rounded,
        "onnxruntime": runtime,
    }
    arguments = [f"--experiment {options.experiment}"] if options.experiment else []
    return {
        "command": " ".join(["python scripts/compare_onnx.py CHECKPOINT", *arguments]),
        "experiment": options.experiment or config.get("experiment"),
        **code,
        "device": device_name(torch.device("cpu")),
        "versions": {name: version(name) for name in PACKAGES},
        "calibration": options.calibration,
        "qconfig": options.qconfig,
        **compare(models, loader),
        "kernels": runtime.kernels,
    }


def version(package: str) -> str:
    import importlib.metadata

    return importlib.metadata.version(package)


def show(found: dict[str, Any]) -> None:
    print(f"{found['images']} test images; accuracy, and the same answer as onnxruntime:")
    for name, accuracy in found["accuracy"].items():
        agreement = found["agreement"].get(name)
        print(f"  {name:20} {accuracy:.2%}" + ("" if agreement is None else f"  {agreement:.2%}"))
    for row in found["differing"]:
        print("  " + ", ".join(f"{key} {value:.4g}" for key, value in row.items()))
    print("onnxruntime's operators:", found["kernels"])


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="the trained weights")
    parser.add_argument("--experiment", help="the experiment that it was trained by; else:")
    parser.add_argument("--config", type=Path, help="its configuration; that of its run's folder")
    parser.add_argument("--calibration", type=int, default=1024, help="training images")
    parser.add_argument("--qconfig", help="x86, onednn, …; min-max ranges, all 8 bits")
    parser.add_argument("--integer-adds", action="store_true", help="export with fused_adds=False")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--onnx", type=Path, help="keep the exported model here")
    parser.add_argument("--output", type=Path, help="a JSON file of everything")
    options = parser.parse_args(arguments)
    try:
        found = record(options)
    except CompactHydraException as error:
        sys.exit(f"error: {error}")
    show(found)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.output, found)
    return found


if __name__ == "__main__":
    main()
