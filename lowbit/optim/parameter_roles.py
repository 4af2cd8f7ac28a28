"""What part each parameter of a binary network plays."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from lowbit.nn import latent_layers
from lowbit.quantizers import Quantizer

ROLES = ("latent", "quantizer", "normalisation", "rest")

# _NormBase is the common base of all batch and instance normalisations.
NORMALISATIONS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def roles(model: nn.Module) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """The parameters of a model by the part they play: role -> [(name, parameter), ...].

    latent          weights of layers that have a weight quantizer
    quantizer       parameters of quantizers: step sizes, clips, shifts, scales
    normalisation   parameters of batch, layer, group, instance and RMS normalisations
    rest            all others: full-precision weights, biases, activations

    All roles are there, in this order, and every parameter is once in one of them, also where
    modules share it: its role is then the first of the list, its name the first the model has.

    >>> from lowbit.nn import QLinear
    >>> model = nn.Sequential(nn.BatchNorm1d(4), QLinear(4, 2, weight_quantization="sign"))
    >>> {role: [name for name, _ in members] for role, members in roles(model).items()}
    {'latent': ['1.weight'], 'quantizer': [], 'normalisation': ['0.weight', '0.bias'],
     'rest': ['1.bias']}
    """
    modules = list(model.modules())
    claims = {
        "latent": {id(layer.weight) for _, layer in latent_layers(model)},
        "quantizer": _parameters_of([m for m in modules if isinstance(m, Quantizer)]),
        "normalisation": _parameters_of([m for m in modules if isinstance(m, NORMALISATIONS)]),
    }
    found: dict[str, list[tuple[str, nn.Parameter]]] = {role: [] for role in ROLES}
    for name, parameter in model.named_parameters():
        role = next((r for r, members in claims.items() if id(parameter) in members), "rest")
        found[role].append((name, parameter))
    return found


def _parameters_of(modules: list[nn.Module]) -> set[int]:
    return {id(parameter) for module in modules for parameter in module.parameters()}
