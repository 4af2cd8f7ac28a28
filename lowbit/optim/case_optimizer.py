"""Several optimizers that look like one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class _JointState(MutableMapping[Tensor, Any]):
    """The states of several optimizers as one mapping; writing reaches the owner's."""

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers = optimizers

    def _of(self, key: Tensor) -> MutableMapping[Tensor, Any]:
        for optimizer in self.optimizers:
            if key in optimizer.state:
                return optimizer.state
        for optimizer in self.optimizers:
            if any(key is p for group in optimizer.param_groups for p in group["params"]):
                return optimizer.state
        raise KeyError(key)

    def __getitem__(self, key: Tensor) -> Any:
        return self._of(key)[key]

    def __setitem__(self, key: Tensor, value: Any) -> None:
        self._of(key)[key] = value

    def __delitem__(self, key: Tensor) -> None:
        del self._of(key)[key]

    def __iter__(self) -> Iterator[Tensor]:
        for optimizer in self.optimizers:
            yield from optimizer.state

    def __len__(self) -> int:
        return sum(len(optimizer.state) for optimizer in self.optimizers)


class CaseOptimizer(Optimizer):
    """Optimizers of disjoint parameters, as one: one step, one list of groups, one state dict.

    ``param_groups`` holds the very groups of the optimizers, in their order, so that a
    scheduler that sets a group's ``lr`` reaches the optimizer that reads it. The state dict
    has torch's own format. ``step(closure)`` computes the loss once, before all of them step;
    an optimizer that calls its closure more than once (LBFGS) has to work alone.

    Raises ``ValueError`` where two of the optimizers hold the same parameter, or on a group
    added later, which would belong to none of them.

    Source: ``CaseOptimizer`` of larq has the name and the purpose.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers: list[Optimizer] = []
        super().__init__([group for o in optimizers for group in o.param_groups], {})
        self.optimizers = list(optimizers)
        self._join()

    def _join(self) -> None:
        self.param_groups = [group for o in self.optimizers for group in o.param_groups]
        self.state = _JointState(self.optimizers)  # type: ignore[assignment]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every optimizer; returns what ``closure`` returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if self.optimizers:
            raise ValueError(
                "a CaseOptimizer takes no further group: it could not say whose it is; make the "
                "optimizer again, with all parameters"
            )
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        groups = state_dict["param_groups"]
        if len(groups) != len(self.param_groups):
            raise ValueError(
                f"the state dict has {len(groups)} parameter groups, this optimizer "
                f"{len(self.param_groups)}; make it with the roles it was saved with"
            )
        start = 0
        for optimizer in self.optimizers:
            own = groups[start : start + len(optimizer.param_groups)]
            start += len(own)
            keys = [key for group in own for key in group["params"]]
            state = {key: state_dict["state"][key] for key in keys if key in state_dict["state"]}
            optimizer.load_state_dict({"state": state, "param_groups": own})
        self._join()

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "optimizers": self.optimizers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._join()
