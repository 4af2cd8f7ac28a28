"""What a binary network costs in training, beside its float twin.

Forward, backward and optimizer step of ResNet-18 for 32x32 images, batch 32, with sign weights
and activations, and of its twin: the same modules with torch's convolutions in place of the
quantized ones. The two take turns in one process, step by step, so that a busy machine slows
both; medians and the median of the ratios are printed. Memory is what autograd keeps for
backward (each storage once, parameters left out).

    python scripts/bench_training.py
    python scripts/bench_training.py --threads 1 2 --steps 21 --output training.json
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lowbit
from experiments.provenance import device_name, source
from experiments.results import write_json
from lowbit.models import ResNet18
from lowbit.nn import QuantizedLayer, _int8

BINARY = {
    "input_quantization": "sign",
    "weight_quantization": "sign",
    "gradient_cancellation_threshold": 1.0,
}


def float_twin(model: nn.Module) -> nn.Module:
    """The same network with torch's layer in place of every quantized one, weights shared out."""
    for name, child in model.named_children():
        if isinstance(child, nn.Conv2d) and isinstance(child, QuantizedLayer):
            twin = nn.Conv2d(
                child.in_channels,
                child.out_channels,
                child.kernel_size,
                child.stride,
                child.padding,
                child.dilation,
                child.groups,
                child.bias is not None,
            )
            twin.load_state_dict(child.state_dict())
            setattr(model, name, twin)
        else:
            float_twin(child)
    return model


def kept_for_backward(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Bytes that autograd keeps between forward and backward, each storage once."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    own |= {b.untyped_storage().data_ptr() for b in model.buffers()}
    alive: list[Tensor] = []
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            alive.append(tensor)  # so that no address is used twice
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        F.cross_entropy(model(images), labels)
    return sum(kept.values())


def trainer(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], float]:
    """One training step at a call, which returns the loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def step() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def timed(step: Callable[[], float]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def check(binary: nn.Module, images: Tensor) -> None:
    """The fast path trains what the specification says: same logits, same gradients."""
    outputs = []
    for fused in (True, False):
        for module in binary.modules():
            if isinstance(module, QuantizedLayer):
                module.fused = fused
        binary.zero_grad()
        logits = binary(images)
        logits.square().sum().backward()
        gradient = next(p.grad for n, p in binary.named_parameters() if n.endswith("conv2.weight"))
        outputs.append((logits.detach(), gradient.clone()))
    for module in binary.modules():
        if isinstance(module, QuantizedLayer):
            module.fused = True
    (fast, fast_gradient), (slow, slow_gradient) = outputs
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fast_gradient, slow_gradient, rtol=1e-3, atol=1e-3)
    binary.zero_grad()


def progress(text: str) -> None:
    """One line that is written over, where a person is looking."""
    if sys.stderr.isatty():
        print(f"\r{text:<60}\r" if not text else f"\r{text}", end="", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="thread counts")
    parser.add_argument("--steps", type=int, default=15, help="timed steps of each network")
    parser.add_argument("--batch", type=int, default=32, help="images a step")
    parser.add_argument(
        "--without-int8",
        action="store_true",
        help="convolve signs in float, as on a processor without fast int8 instructions",
    )
    parser.add_argument("--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    if arguments.without_int8:
        _int8.available = lambda: False

    code, processor = source(), device_name(torch.device("cpu"))
    torch.manual_seed(0)
    images, labels = torch.randn(arguments.batch, 3, 32, 32), torch.randint(10, (arguments.batch,))
    binary = ResNet18(in_channels=3, num_classes=10, **BINARY)
    torch.manual_seed(0)
    twin = float_twin(ResNet18(in_channels=3, num_classes=10, **BINARY))
    check(binary, images)

    memory = {
        "binary": kept_for_backward(binary, images, labels),
        "float": kept_for_backward(twin, images, labels),
    }
    rows = []
    steps = {"binary": trainer(binary, images, labels), "float": trainer(twin, images, labels)}
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        seconds: dict[str, list[float]] = {"binary": [], "float": []}
        for count in range(arguments.steps + 2):
            for name, step in steps.items():
                elapsed = timed(step)
                if count >= 2:  # the first two warm up
                    seconds[name].append(elapsed)
            progress(f"{threads} thread(s): step {count + 1} of {arguments.steps + 2}")
        progress("")
        ratios = [b / f for b, f in zip(seconds["binary"], seconds["float"], strict=True)]
        rows.append(
            {
                "threads": threads,
                "steps": arguments.steps,
                "float_ms": round(1000 * statistics.median(seconds["float"]), 1),
                "binary_ms": round(1000 * statistics.median(seconds["binary"]), 1),
                "ratio": round(statistics.median(ratios), 3),
                "ratio_min": round(min(ratios), 3),
                "ratio_max": round(max(ratios), 3),
            }
        )

    int8 = "int8" if _int8.available() else "float"
    print(f"ResNet-18, 32x32, batch {arguments.batch}, {processor}, torch {torch.__version__}")
    print(f"forward convolutions of signs run in {int8} here")
    print(f"{'threads':>7} {'float ms':>9} {'binary ms':>10} {'ratio':>6}   (min … max)")
    for row in rows:
        print(
            f"{row['threads']:>7} {row['float_ms']:>9} {row['binary_ms']:>10} "
            f"{row['ratio']:>6.3f}   ({row['ratio_min']:.3f} … {row['ratio_max']:.3f})"
        )
    ratio = memory["binary"] / memory["float"]
    mib = {name: size / 2**20 for name, size in memory.items()}
    print(
        f"kept for backward: float {mib['float']:.1f} MiB, binary {mib['binary']:.1f} MiB, "
        f"ratio {ratio:.3f}"
    )
    if arguments.output is not None:
        result = {
            "command": "python scripts/bench_training.py " + " ".join(sys.argv[1:]),
            **code,
            "lowbit": lowbit.__version__,
            "torch": torch.__version__,
            "processor": processor,
            "cores": os.cpu_count(),
            "network": "ResNet-18, 32x32",
            "batch": arguments.batch,
            "sign_convolutions": int8,
            "time": rows,
            "memory": {**memory, "ratio": round(ratio, 4)},
        }
        write_json(arguments.output, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
