"""What the layers of quantization-aware training share."""

from __future__ import annotations

from typing import Any, Self

from torch import Tensor, nn
from torch.nn.utils.parametrize import (
    is_parametrized,
    transfer_parametrizations_and_params,
    type_before_parametrizations,
)


class QatLayer(nn.Module):
    """Mixin of layers whose weight is rounded in every forward, by ``weight_fake_quant``.

    ``qconfig.weight()`` makes the fake quantizer. The weight itself stays in full precision, and
    its gradient is that of the rounded one where the code was in range.
    """

    weight: Tensor
    bias: Any
    qconfig: Any
    weight_fake_quant: nn.Module

    def _set_qconfig(self, qconfig: Any) -> None:
        """Make the fake quantizer, on the weight's device; ValueError without a qconfig."""
        if qconfig is None:
            raise ValueError(
                f"{type(self).__name__} needs a qconfig, which makes the fake quantizer of its "
                "weight, such as lowbit.qconfig.get_default_qat_qconfig()"
            )
        self.qconfig = qconfig
        self.weight_fake_quant = qconfig.weight()
        # Fake quantizers with a scale for each channel are told how many there are.
        bind = getattr(self.weight_fake_quant, "bind", None)
        if bind is not None:
            bind(self.weight.shape[0], 0)
        self.weight_fake_quant.to(self.weight.device)

    def _take_parameters(self, mod: nn.Module) -> Self:
        """Weight and bias of a float layer: the same Parameters, with their parametrizations."""
        for name in ("weight", "bias"):
            if is_parametrized(mod, name):
                transfer_parametrizations_and_params(mod, self, name)
            else:
                setattr(self, name, getattr(mod, name))
        self.train(mod.training)
        return self


def layers_of(cls: type, mod: nn.Module, types: tuple[type[nn.Module], ...]) -> list[Any]:
    """The float layers that ``cls.from_float(mod)`` is made of, in order, ``mod`` or its children.

    ``types`` are their classes. One is ``mod`` itself; several are a sequence of just these, as
    ``nn.Sequential(nn.Conv2d(…), nn.BatchNorm2d(…))``. Raises TypeError for others, ValueError
    without a qconfig, which ``mod`` or its first layer has as an attribute.
    """
    found = list(mod) if isinstance(mod, nn.Sequential) and len(types) > 1 else [mod]
    if tuple(type_before_parametrizations(layer) for layer in found) != types:
        wanted = ", ".join(kind.__name__ for kind in types)
        wanted = wanted if len(types) == 1 else f"a sequence of {wanted}"
        given = ", ".join(type_before_parametrizations(layer).__name__ for layer in found)
        raise TypeError(f"qat.{cls.__name__}.from_float takes {wanted}; got {given}")
    if qconfig_of(mod, found[0]) is None:
        raise ValueError(
            f"qat.{cls.__name__}.from_float: the {type(mod).__name__} has no qconfig, which makes "
            "the fake quantizer of its weight; set mod.qconfig, such as "
            "lowbit.qconfig.get_default_qat_qconfig()"
        )
    return found


def qconfig_of(*modules: nn.Module) -> Any:
    """The first qconfig among the modules', or None."""
    qconfigs = (getattr(module, "qconfig", None) for module in modules)
    return next((qconfig for qconfig in qconfigs if qconfig is not None), None)


def detached(new: Any, old: Any) -> Any:
    """The float layer ``new`` with copies of the weight and bias that ``old`` has by now."""
    new.weight = nn.Parameter(old.weight.detach().clone())
    if old.bias is not None:
        new.bias = nn.Parameter(old.bias.detach().clone())
    return new.train(old.training)
