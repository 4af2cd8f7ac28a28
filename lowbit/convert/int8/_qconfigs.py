"""Which qconfig each module has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from lowbit import observers
from lowbit.qconfig import QConfig, get_default_qat_qconfig, get_default_qconfig

# All 8 bits of activations: their sums are exact with oneDNN on VNNI, and in plain torch.
STATIC = QConfig(observers.MinMaxObserver, observers.default_per_channel_weight_observer)
TRAINING = get_default_qat_qconfig("onednn")


class QConfigs:
    """The qconfig of every module of a model, None where it stays float.

    In this order: the mapping's entry of the module's name, or of the nearest module around it
    that has one; its entry of the class; the attribute ``qconfig`` of the module or of the
    nearest around it; the rest's. With no argument at all and attributes somewhere, there is no
    rest: only what has one is quantized, as in torch.ao.

    given      a QConfig for all, the name of an engine ("x86", "onednn", …) for its defaults,
               a mapping of names and classes of modules to one of these or None, with "" for the
               rest, which else has the defaults; or None
    training   which defaults

    Raises TypeError for another ``given``, ValueError for a name that no module has, and for
    quantizers that learn their grid where nothing is trained.
    """

    def __init__(self, model: nn.Module, given: Any, *, training: bool) -> None:
        usual = TRAINING if training else STATIC
        self.training = training
        self.names: dict[str, Any] = {}
        self.kinds: dict[type, Any] = {}
        attributes = any(hasattr(module, "qconfig") for module in model.modules())
        if given is None:
            self.rest: Any = None if attributes else usual
        elif isinstance(given, Mapping):
            self.rest = usual
            self._take(model, given)
        else:
            self.rest = self._one(given)
        self._found = {
            name: self._of(model, name, module) for name, module in model.named_modules()
        }
        if not training:
            for qconfig in {id(q): q for q in (self.rest, *self._found.values())}.values():
                _refuse_learning(qconfig)

    def _one(self, given: Any) -> Any:
        """A QConfig that was given as itself or by the name of an engine."""
        if isinstance(given, str):
            by_engine: Callable[[str], QConfig] = (
                get_default_qat_qconfig if self.training else get_default_qconfig
            )
            return by_engine(given)
        if not _is_qconfig(given):
            raise TypeError(
                "qconfig is a lowbit.qconfig.QConfig, an engine's name, a mapping of names and "
                f"classes of modules to these, or None; got {given!r}"
            )
        return given

    def _take(self, model: nn.Module, given: Mapping[Any, Any]) -> None:
        known = {name for name, _ in model.named_modules()}
        for key, value in given.items():
            value = None if value is None else self._one(value)
            if key == "":
                self.rest = value
            elif isinstance(key, type):
                self.kinds[key] = value
            elif key in known:
                self.names[key] = value
            else:
                raise ValueError(
                    f"no module named {key!r}, which the mapping of qconfigs has; "
                    f"known: {', '.join(sorted(known - {''})[:8])}, …"
                )

    def _of(self, model: nn.Module, name: str, module: nn.Module) -> Any:
        parts = name.split(".")
        around = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
        for path in around:
            if path in self.names:
                return self.names[path]
        if type(module) in self.kinds:
            return self.kinds[type(module)]
        for path in [*around, ""]:
            holder = model.get_submodule(path)
            if hasattr(holder, "qconfig"):
                return holder.qconfig
        return self.rest

    def of(self, name: str) -> Any:
        """The qconfig of the module of this name."""
        return self._found.get(name, self.rest)

    def named(self, name: str, module: nn.Module) -> bool:
        """Whether the module's own name or class, or its own attribute, says how."""
        return name in self.names or type(module) in self.kinds or hasattr(module, "qconfig")


def is_static(qconfig: Any) -> bool:
    """Whether a qconfig quantizes activations with scales that calibration or training finds."""
    if qconfig is None or qconfig.activation is None or qconfig.weight is None:
        return False
    observer = qconfig.activation()
    if not hasattr(observer, "calculate_qparams") or getattr(observer, "is_dynamic", False):
        return False
    return not getattr(getattr(observer, "dtype", None), "is_floating_point", False)


def _refuse_learning(qconfig: Any) -> None:
    for part in ("activation", "weight"):
        make = getattr(qconfig, part, None)
        made = make() if callable(make) else None
        quantizer = getattr(made, "quantizer", None)
        if quantizer is not None and any(True for _ in quantizer.parameters()):
            raise ValueError(
                f"{quantizer!r} learns its grid in training, and prepare only looks at data: "
                "use lowbit.prepare_qat, or an observer"
            )


def _is_qconfig(value: Any) -> bool:
    # By its parts, not its class: those of torch.ao serve as well.
    return hasattr(value, "activation") and hasattr(value, "weight")
