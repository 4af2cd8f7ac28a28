"""How a quantized weight becomes planes of bits: read off its values, whatever made them."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from lowbit.nn.packed._errors import ULP, CannotPack
from lowbit.quantizers import Quantizer

MOST_LEVELS = 256


class WeightCode(NamedTuple):
    """w = sum over j of factors[j] filters[j] + constant, by output channel.

    ``filters``: integers (o, c / groups, k ...) int64, coded by ``planes`` and ``thermometer``;
    ``factors`` (terms, o) and ``constant`` (o,) float64.
    """

    filters: list[Tensor]
    factors: Tensor
    constant: Tensor
    planes: int = 1
    thermometer: bool = False

    def decoded(self) -> Tensor:
        """w in float64."""
        shape = (-1, *[1] * (self.filters[0].ndim - 1))
        w = self.constant.view(shape).expand(self.filters[0].shape).clone()
        for factor, integers in zip(self.factors, self.filters, strict=True):
            w += factor.view(shape) * integers
        return w


def quantized(quantizer: Quantizer | None, weight: Tensor) -> Tensor:
    """The weight as evaluation uses it, in float32."""
    if quantizer is None:
        raise CannotPack("the weight is full precision: name a weight quantizer")
    quantizer = copy.deepcopy(quantizer).eval()
    with torch.no_grad():
        w = quantizer(weight.detach())
        if not torch.equal(w, quantizer(weight.detach())):
            raise CannotPack(f"{quantizer.name} of the weight is drawn at random, or gives NaN")
    if not bool(w.isfinite().all()):
        raise CannotPack(f"{quantizer.name} gives weights that are not finite")
    return w.float().contiguous()


def weight_code(w: Tensor) -> WeightCode:
    """The cheapest code of weights (o, c / groups, k ...) that is right to one ulp.

    In this order: signs, signs and zeros, odd multiples of a step, any uniform grid (with a
    constant part), three values. Raises ``CannotPack`` where there is none.
    """
    flat = w.flatten(1).double()
    ordered = flat.sort(1).values
    counts = (ordered[:, 1:] != ordered[:, :-1]).sum(1) + 1
    if int(counts.max()) > MOST_LEVELS:
        raise CannotPack(
            f"the weight has {int(counts.max())} values in a channel, more than {MOST_LEVELS}: "
            "it is full precision"
        )
    tolerance = ULP * flat.abs().amax(1)
    for method in (_signs, _ternary, _odd_multiples, _uniform, _three_values):
        code = method(flat)
        if code is None:
            continue
        code = code._replace(filters=[f.view(w.shape) for f in code.filters])
        off = (code.decoded().flatten(1) - flat).abs().amax(1)
        if bool((off <= tolerance).all()):
            return code
    raise CannotPack(
        f"the weight has up to {int(counts.max())} values in a channel, on no uniform grid"
    )


def _signs(w: Tensor) -> WeightCode | None:
    """-a and a."""
    a = w.abs().amax(1)
    if bool((w.abs() != a.unsqueeze(1)).any()):
        return None
    return WeightCode([_sign(w >= 0)], a.unsqueeze(0), torch.zeros_like(a))


def _ternary(w: Tensor) -> WeightCode | None:
    """-a, 0 and a: half of them times -2, 0 and 2."""
    a = w.abs().amax(1)
    if bool(((w.abs() != a.unsqueeze(1)) & (w != 0)).any()):
        return None
    codes = 2 * w.sign().long()
    return WeightCode([codes], a.unsqueeze(0) / 2, torch.zeros_like(a), 2, True)


def _odd_multiples(w: Tensor) -> WeightCode | None:
    """Odd multiples of a step, as far as eight planes reach."""
    largest = w.abs().amax(1)
    counts = torch.arange(1, MOST_LEVELS, 2, dtype=torch.float64)
    codes, steps = torch.ones_like(w), torch.zeros_like(largest)
    for o, top in enumerate(largest.tolist()):
        if top == 0:
            continue
        values, inverse = w[o].unique(return_inverse=True)
        ratio = values / top * counts.unsqueeze(1)
        odd = 2 * torch.round((ratio - 1) / 2) + 1
        fits = ((ratio - odd).abs() <= ULP * counts.unsqueeze(1)).all(1)
        if not bool(fits.any()):
            return None
        best = int(fits.nonzero()[0])
        codes[o], steps[o] = odd[best][inverse], top / counts[best]
    planes = int(codes.abs().max()).bit_length()
    return WeightCode([codes.long()], steps.unsqueeze(0), torch.zeros_like(steps), planes)


def _uniform(w: Tensor) -> WeightCode | None:
    """low + step j, j = 0 …: digits, and a constant part for what they are not centred on."""
    low, span = w.amin(1), w.amax(1) - w.amin(1)
    counts = torch.arange(1, MOST_LEVELS, dtype=torch.float64)
    codes, steps = torch.zeros_like(w), torch.zeros_like(low)
    for o, width in enumerate(span.tolist()):
        if width == 0:
            continue
        values, inverse = w[o].unique(return_inverse=True)
        ratio = (values - low[o]) / width * counts.unsqueeze(1)
        whole = torch.round(ratio)
        reach = ULP * float(w[o].abs().max()) / width * counts.unsqueeze(1)
        # A wide tolerance would take any values for multiples of a fine step.
        fits = ((ratio - whole).abs() <= reach.clamp_max(0.01)).all(1)
        if not bool(fits.any()):
            return None
        best = int(fits.nonzero()[0])
        codes[o], steps[o] = whole[best][inverse], width / counts[best]
    planes = max(int(codes.max()).bit_length(), 1)
    top = 2**planes - 1
    integers = 2 * codes.long() - top
    return WeightCode([integers], steps.unsqueeze(0) / 2, low + steps / 2 * top, planes)


def _three_values(w: Tensor) -> WeightCode | None:
    """Any three values: a sign for each of the two steps between them, and a constant part."""
    low, high = w.amin(1, keepdim=True), w.amax(1, keepdim=True)
    inner = (w != low) & (w != high)
    middle = torch.where(inner, w, -torch.inf).amax(1, keepdim=True)
    middle = torch.where(middle.isfinite(), middle, low)
    if bool((inner & (w != middle)).any()):
        return None
    factors = torch.cat([middle - low, high - middle], 1).T / 2
    filters = [_sign(w >= middle), _sign(w >= high)]
    return WeightCode(filters, factors, ((low + high) / 2).squeeze(1))


def _sign(positive: Tensor) -> Tensor:
    return 2 * positive.long() - 1
