"""Optimizers whose options differ by the part that parameters play."""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.optim import Optimizer

from lowbit.optim._fused import fuse, sparse_parameters
from lowbit.optim.case_optimizer import CaseOptimizer
from lowbit.optim.parameter_roles import ROLES, roles

Factory: TypeAlias = Callable[..., Optimizer]
Options: TypeAlias = Mapping[str, Any]
Named: TypeAlias = list[tuple[str, nn.Parameter]]

# What a claim says beside the options of its parameter groups.
_OWN = ("roles", "names", "optimizer", "glorot")

_NO_OPTIONS: Options = MappingProxyType({})


def by_role(
    model: nn.Module,
    optimizer: Factory,
    lr: float,
    weight_decay: float = 0.0,
    *,
    latent: Options | None = _NO_OPTIONS,
    quantizer: Options | None = _NO_OPTIONS,
    normalisation: Options | None = _NO_OPTIONS,
    rest: Options | None = _NO_OPTIONS,
) -> Optimizer:
    """One optimizer for a model, with options for each role that ``roles`` finds.

    A role's mapping holds its own ``lr``, ``weight_decay``, other options of the optimizer
    (``betas``, ``momentum``), ``optimizer`` and ``glorot``, as ``by_claim`` describes. ``None``
    claims nothing: the role must have no trainable parameter. In YAML:

        optimizer:
          _target_: lowbit.optim.by_role
          _partial_: true
          optimizer: {_target_: torch.optim.Adam, _partial_: true}
          lr: 1e-3
          latent:
            optimizer: {_target_: lowbit.optim.Bop, _partial_: true}
            lr: 1e-4
          rest: {weight_decay: 1e-4}

    >>> import torch
    >>> model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))
    >>> optimizer = by_role(model, torch.optim.Adam, lr=0.01, rest={"weight_decay": 1e-4})
    >>> [(g["name"], g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
    [('normalisation', 0.01, 0.0), ('rest', 0.01, 0.0001)]
    """
    given = {"latent": latent, "quantizer": quantizer, "normalisation": normalisation, "rest": rest}
    claims = []
    for role, options in given.items():
        if options is None:
            continue
        for key in ("roles", "names"):
            if key in options:
                raise ValueError(
                    f"{role} is claimed as a whole, so {key!r} has no place in {dict(options)!r}; "
                    "by_claim takes claims by name"
                )
        claims.append({"roles": [role], **options})
    return by_claim(model, optimizer, lr, weight_decay, claims=claims)


def by_claim(
    model: nn.Module,
    optimizer: Factory,
    lr: float,
    weight_decay: float = 0.0,
    *,
    claims: Sequence[Options],
) -> Optimizer:
    """One optimizer for a model, with options for each claim on its parameters.

    A claim says whose parameters it takes: ``roles`` (a list of names of roles), ``names`` (a
    list of patterns such as ``"*.bias"``, matched against the full names), or both, where both
    must hold. Its other entries are

    lr, weight_decay   in place of the common ones
    optimizer          a callable as the common one, in place of it
    glorot             True multiplies lr by 1 / H = sqrt((fan_in + fan_out) / 1.5) for each
                       weight, with the fans of a convolution counted over its k x k window:
                       Adam then moves a weight in [-1, 1] as one in [-H, H]. "squared"
                       multiplies by 1 / H^2, which SGD needs for that, where gradients
                       have a factor H as well
    any other          an option of the optimizer's parameter groups

    ``optimizer`` is called with groups and ``lr``, so ``torch.optim.Adam`` is one, and so is
    ``functools.partial(torch.optim.SGD, momentum=0.9)``. ``weight_decay`` reaches the
    optimizers that have such an option (Bop has none). Claims with optimizers of their own
    are joined in a ``CaseOptimizer``.

    Every trainable parameter must be claimed, and once: otherwise ``ValueError`` names it, as
    it names an unknown role, a pattern that matches nothing or an unknown option. Frozen
    parameters are left out. Each group has a ``name``.

    Glorot's factor is a ratio of learning rates: schedulers that multiply (step, exponential,
    cosine to 0, warm-up) keep it, those that set one absolute rate for all groups do not.
    Source: BinaryConnect, Courbariaux et al. 2015, and ``W_LR_scale`` of its code.
    """
    _check_factory(optimizer)
    claimed: list[tuple[Options, Named]] = []
    found = roles(model)
    for claim in claims:
        members = [(n, p) for n, p in _matches(found, claim) if p.requires_grad]
        claimed.append((claim, members))
    _check_cover(model, claimed)

    groups: dict[int, tuple[Factory, list[dict[str, Any]]]] = {}
    for claim, members in claimed:
        factory = claim.get("optimizer", optimizer)
        _check_factory(factory)
        own = {key: value for key, value in claim.items() if key not in _OWN}
        own["name"] = claim.get("name", _title(claim))
        own.setdefault("lr", lr)
        # By identity: two partials with equal arguments make two optimizers.
        _, made = groups.setdefault(id(factory), (factory, []))
        made.extend(_split(own, members, glorot=claim.get("glorot", False)))

    optimizers = [
        _make(factory, made, lr, weight_decay) for factory, made in groups.values() if made
    ]
    sparse = sparse_parameters(model)
    for each in optimizers:
        fuse(each, sparse)
    if not optimizers:
        raise ValueError(f"{type(model).__name__} has no trainable parameter to optimize")
    return optimizers[0] if len(optimizers) == 1 else CaseOptimizer(optimizers)


def _check_factory(optimizer: Any) -> None:
    if not callable(optimizer):
        raise ValueError(
            "an optimizer is given as a callable, such as torch.optim.Adam or a functools.partial "
            f"of it (in YAML, with _partial_: true); got {type(optimizer).__name__}: {optimizer!r}"
        )
    bound = optimizer.keywords if isinstance(optimizer, functools.partial) else {}
    for key in ("lr", "weight_decay"):
        if key in bound:
            raise ValueError(
                f"{key}={bound[key]!r} is given inside the optimizer, where roles cannot override "
                f"it; write {key} beside the optimizer"
            )


def _title(claim: Options) -> str:
    """A claim's name for its groups: "latent", "latent: *.conv1.*"."""
    parts = ["+".join(claim[key]) for key in ("roles", "names") if key in claim]
    return ": ".join(parts)


def _matches(found: Mapping[str, Named], claim: Options) -> Named:
    """The parameters that a claim names, in the model's order within each role."""
    if "roles" not in claim and "names" not in claim:
        raise ValueError(f"a claim needs 'roles' or 'names' (lists); got {dict(claim)!r}")
    for key in ("roles", "names"):
        if isinstance(claim.get(key), str):
            raise ValueError(f"{key!r} is a list, as in [{claim[key]!r}]; got {claim[key]!r}")
    for role in claim.get("roles", ()):
        if role not in ROLES:
            raise ValueError(f"no role named {role!r}; the roles: {', '.join(ROLES)}")
    members = [pair for role in claim.get("roles", ROLES) for pair in found[role]]
    if "names" not in claim:
        return members
    for pattern in claim["names"]:
        if not any(fnmatchcase(name, pattern) for name, _ in members):
            near = difflib.get_close_matches(pattern, [name for name, _ in members], n=3, cutoff=0)
            raise ValueError(
                f"no parameter is named {pattern!r}; near it: {', '.join(near) or 'none at all'}"
            )
    return [pair for pair in members if any(fnmatchcase(pair[0], p) for p in claim["names"])]


def _check_cover(model: nn.Module, claimed: Sequence[tuple[Options, Named]]) -> None:
    """Raise unless every trainable parameter is in exactly one claim."""
    owner: dict[int, str] = {}
    for claim, members in claimed:
        for name, parameter in members:
            if id(parameter) in owner:
                raise ValueError(
                    f"parameter {name!r} is claimed twice: by {owner[id(parameter)]!r} and by "
                    f"{_title(claim)!r}; let one of them name less"
                )
            owner[id(parameter)] = _title(claim)
    missing = [
        f"{name} ({role})"
        for role, members in roles(model).items()
        for name, parameter in members
        if parameter.requires_grad and id(parameter) not in owner
    ]
    if missing:
        more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
        raise ValueError(
            f"no claim on trainable parameters: {', '.join(missing[:8])}{more}; claim them, or "
            "freeze them with requires_grad_(False)"
        )


def _split(own: dict[str, Any], members: Named, glorot: Any) -> list[dict[str, Any]]:
    """A claim's parameter groups: one, or with ``glorot`` one for each sum of fans."""
    if glorot not in (True, False, None, "squared"):
        raise ValueError(f"glorot is true, false or 'squared'; got {glorot!r}")
    if not members:
        return []
    if not glorot:
        return [{**own, "params": [parameter for _, parameter in members]}]
    by_fans: dict[int, list[nn.Parameter]] = {}
    for name, parameter in members:
        if parameter.ndim < 2:
            raise ValueError(
                f"glorot needs weights with fan-in and fan-out; {name!r} has shape "
                f"{tuple(parameter.shape)}. Claim it apart"
            )
        by_fans.setdefault(_fans(parameter), []).append(parameter)
    return [
        {
            **own,
            "name": f"{own['name']}, fans {fans}",
            "lr": own["lr"] * (fans / 1.5) ** (1.0 if glorot == "squared" else 0.5),
            "params": parameters,
        }
        for fans, parameters in by_fans.items()
    ]


def _fans(weight: nn.Parameter) -> int:
    """fan_in + fan_out of a weight (out, in / groups, k, ...)."""
    return (weight.shape[0] + weight.shape[1]) * math.prod(weight.shape[2:])


def _make(factory: Factory, made: list[dict[str, Any]], lr: float, decay: float) -> Optimizer:
    """The optimizer of these groups; every option in them must be one it has."""
    own = [set(group) for group in made]
    for group in made:
        for key, value in (("lr", group["lr"]), ("weight_decay", group.get("weight_decay", decay))):
            _check_size(key, value, group["name"])
    optimizer = factory(made, lr=lr)
    for group, given in zip(optimizer.param_groups, own, strict=True):
        unknown = given - set(optimizer.defaults) - {"params", "name"}
        if unknown:
            raise ValueError(
                f"{type(optimizer).__name__} has no option {', '.join(sorted(map(repr, unknown)))} "
                f"(of {group['name']!r}); it has: {', '.join(optimizer.defaults)}"
            )
        if "weight_decay" in optimizer.defaults and "weight_decay" not in given:
            group["weight_decay"] = decay
    return optimizer


def _check_size(key: str, value: Any, name: str) -> None:
    number = isinstance(value, (int, float, Tensor)) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and value >= 0):
        raise ValueError(f"{key} is a number of at least 0; got {value!r} for {name!r}")
