"""Training steps of one network on one batch: eager, compiled, and replayed from a CUDA graph."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Step = Callable[[], Tensor]

WARM_UP = 5
ROUNDS = 9
BLOCK_S = 0.05  # of steps between two readings of the clock


def training_step(
    model: nn.Module, images: Tensor, labels: Tensor, half: bool, run: Callable[..., Tensor]
) -> Step:
    """Forward, cross-entropy, backward and SGD step at a call; the loss.

    ``run`` computes the scores: the model, or what it was compiled to. ``half``: under autocast
    to bfloat16.
    """
    device = images.device.type
    optimizer = torch.optim.SGD(
        model.parameters(), lr=1e-2, momentum=0.9, fused=True if device == "cuda" else None
    )

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=half):
            loss = F.cross_entropy(run(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def captured(step: Step) -> Step:
    """The whole step as a CUDA graph, replayed at each call.

    It is captured on the current stream, which must not be the default one: autograd remembers
    the stream on which a parameter was first used, and waits for it.
    """
    for _ in range(WARM_UP):
        step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        loss = step()

    def replay() -> Tensor:
        graph.replay()
        return loss

    return replay


def block(step: Step, count: int, cuda: bool) -> float:
    """Seconds of one of ``count`` steps in a row."""
    if not cuda:
        start = time.perf_counter()
        for _ in range(count):
            step()
        return (time.perf_counter() - start) / count
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    for _ in range(count):
        step()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000 / count


def take_turns(steps: Mapping[str, Step], cuda: bool, rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of a step of each name, and ``ratio``: the median over the rounds of how
    many times as long a step of the last takes as one of the first."""
    counts = {}
    for name, step in steps.items():
        block(step, WARM_UP, cuda)
        counts[name] = max(1, round(BLOCK_S / max(block(step, 2, cuda), 1e-6)))
    done = [
        {name: block(step, counts[name], cuda) for name, step in steps.items()}
        for _ in range(rounds)
    ]
    first, *_, last = steps
    return {
        **{name: statistics.median(times[name] for times in done) for name in steps},
        "ratio": statistics.median(times[last] / times[first] for times in done),
    }


def memory_of(step: Step) -> int:
    """Bytes that a step takes on the GPU at its peak, above what is there before it."""
    step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
