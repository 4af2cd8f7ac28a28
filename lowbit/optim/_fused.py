"""Steps of one kernel for all parameters of a group, where torch has one and it is right."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def fuse(optimizer: Optimizer, sparse: set[int]) -> None:
    """Have the optimizer's steps be fused, unless its options say otherwise.

    torch takes several kernels by default. On a GPU they last longer to launch than to run; on a
    processor Adam's read and write memory again and again (2.9 million parameters: 8.1 ms plain,
    2.0 fused), where SGD's are few. ``sparse`` are the ids of parameters whose gradients may be
    sparse, which fused kernels do not take.
    """
    _fuse_groups(optimizer, sparse)
    optimizer.register_step_pre_hook(_lay_out_alike)
    # A checkpoint has the options of the device that it was made on.
    optimizer.register_load_state_dict_post_hook(functools.partial(_fuse_groups, sparse=sparse))


def _fuse_groups(optimizer: Optimizer, sparse: set[int]) -> None:
    for group in optimizer.param_groups:
        weights = group["params"]
        if not all(p.is_floating_point() and id(p) not in sparse for p in weights):
            continue
        on_processor = "betas" in group and all(p.device.type == "cpu" for p in weights)
        if on_processor or all(p.is_cuda for p in weights):
            fuse_group(group)
        if group.get("fused"):
            for p in weights:  # fused kernels count steps where the parameter is
                step = optimizer.state.get(p, {}).get("step")
                if isinstance(step, Tensor) and step.device != p.device:
                    optimizer.state[p]["step"] = step.to(p.device, torch.float32)


def fuse_group(group: dict[str, Any]) -> None:
    """Fuse a group whose options leave it open."""
    undecided = group.get("fused", False) is None and group.get("foreach") is None
    if undecided and not group.get("differentiable", False):
        group["fused"] = True


def sparse_parameters(model: nn.Module) -> set[int]:
    """The ids of the weights of embeddings with sparse gradients."""
    return {id(m.weight) for m in model.modules() if getattr(m, "sparse", False) is True}


def _lay_out_alike(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Gradients and states in the memory layout of their parameter.

    Fused kernels go through memory, and would take a value of one place for that of another where
    a channels-last parameter has a state from a checkpoint of a contiguous one.
    """
    for group in optimizer.param_groups:
        if not group.get("fused"):
            continue
        for p in group["params"]:
            if p.ndim < 2 or p.grad is None:
                continue
            if p.grad.stride() != p.stride():
                p.grad = _like(p, p.grad)
            state: dict[str, Any] = optimizer.state.get(p, {})
            for key, value in state.items():
                moved = isinstance(value, Tensor) and value.shape == p.shape
                if moved and value.stride() != p.stride():
                    state[key] = _like(p, value)


def _like(p: Tensor, value: Tensor) -> Tensor:
    return torch.empty_like(p, dtype=value.dtype).copy_(value)
