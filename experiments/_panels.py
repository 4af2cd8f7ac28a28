"""Pictures of a network's weights, and of rates that are logged layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor, nn

from experiments import _draw
from lowbit.nn import QuantizedLayer

MOST_FILTERS = 64
MOST_LAYERS = 12
# What a sign map shows of a weight: output channels x inputs.
SIGN_MAP = (64, 128)
SIGNS = {-1: ("negative", "#D55E00"), 0: ("0", "#F2F2F2"), 1: ("positive", "#0072B2")}
NEAR_ZERO = 0.1


def first_weight(model: nn.Module, image: tuple[int, int, int]) -> tuple[str, Tensor] | None:
    """Name and filters (out, channels, height, width) of the first layer; None where it has none.

    A linear layer has them if its inputs are all values of an image of shape ``image``
    (channels, height, width). Those of a 1-d convolution are (out, 1, channels, length).
    """
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            weight = module.weight.detach().float().cpu()
            if isinstance(module, nn.Conv1d):
                return name, weight.unsqueeze(1)
            if isinstance(module, nn.Conv2d):
                return name, weight
            if module.in_features == math.prod(image):
                return name, weight.reshape(-1, *image)
            return None
    return None


def filters(name: str, weight: Tensor) -> Figure:
    """Images of filters (out, channels, height, width).

    Three channels are red, green and blue, 0 at half brightness, each filter by its largest
    magnitude. Of other numbers the first channel is shown, on one scale for all.
    """
    shown = weight[:MOST_FILTERS]
    coloured = weight.shape[1] == 3
    what = "red, green and blue" if coloured else f"channel 1 of {weight.shape[1]}"
    size = " x ".join(map(str, weight.shape[2:]))
    figure, panels = _draw.grid(
        len(shown), 8 if len(shown) <= 32 else 16, 0.62, 0.62,
        f"{name}: latent weights of {len(shown)} of {len(weight)} filters, {size}, {what}",
    )  # fmt: skip
    figure.set_figwidth(max(figure.get_figwidth(), 5.5))
    limit = float(shown[:, 0].abs().max()) or 1.0
    for axes, one in zip(panels, shown, strict=True):
        axes.set_axis_off()
        if coloured:
            brightness = one / (2 * one.abs().max().clamp_min(1e-12)) + 0.5
            axes.imshow(brightness.permute(1, 2, 0).numpy())
        else:
            image = axes.imshow(one[0].numpy(), cmap="RdBu", vmin=-limit, vmax=limit)
    if not coloured:
        bar = figure.colorbar(image, ax=panels, shrink=0.8, aspect=30)
        bar.set_label("latent weight", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    return figure


def sign_maps(layers: Sequence[tuple[str, QuantizedLayer]]) -> Figure:
    """The signs of quantized weights: output channels down, inputs and kernel positions across."""
    chosen = dict(layers)
    names = _draw.spread_out(list(chosen), MOST_LAYERS)
    figure, panels = _draw.grid(
        len(names), 3, 3.4, 2.3, f"signs of quantized weights, {len(names)} of {len(chosen)} layers"
    )
    colours = ListedColormap([colour for _, colour in SIGNS.values()])
    for axes, name in zip(panels, names, strict=True):
        signs = _quantized(chosen[name]).sign().flatten(1)
        rows, columns = (min(m, n) for m, n in zip(SIGN_MAP, signs.shape, strict=True))
        axes.imshow(
            signs[:rows, :columns].numpy(), cmap=colours, vmin=-1.5, vmax=1.5, aspect="auto",
            interpolation="nearest",
        )  # fmt: skip
        positive = float((signs > 0).float().mean())
        part = "" if signs.numel() == rows * columns else f"{rows} x {columns} of "
        size = f"{part}{signs.shape[0]} x {signs.shape[1]}"
        _draw.plain(axes, "input and position", "output channel",
                    f"{name}\n{size}, {100 * positive:.1f} % positive")  # fmt: skip
        axes.grid(False)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    present = {int(s) for layer in chosen.values() for s in _quantized(layer).sign().unique()}
    handles = [
        Patch(facecolor=colour, edgecolor="0.7", label=label)
        for sign, (label, colour) in SIGNS.items()
        if sign in present
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _quantized(layer: QuantizedLayer) -> Tensor:
    """The quantized weight, output channels first."""
    quantizer = layer.weight_quantization
    assert quantizer is not None
    with torch.no_grad():
        values = quantizer.value(layer.weight.detach())
    return values.movedim(quantizer.axis, 0).float().cpu()


def share_near_zero(weight: Tensor) -> float:
    """The share of weights whose magnitude is below ``NEAR_ZERO`` root mean squares."""
    return float((weight.abs() < NEAR_ZERO * weight.square().mean().sqrt()).float().mean())


def latent_histograms(layers: Sequence[tuple[str, QuantizedLayer]]) -> Figure:
    """How latent weights are spread, layer by layer, and the share near 0."""
    chosen = dict(layers)
    names = _draw.spread_out(list(chosen), MOST_LAYERS)
    figure, panels = _draw.grid(
        len(names), 3, 3.2, 2.3,
        f"latent weights, {len(names)} of {len(chosen)} layers; near 0: below {NEAR_ZERO} of the "
        "root mean square",
    )  # fmt: skip
    for axes, name in zip(panels, names, strict=True):
        weight = chosen[name].weight.detach().float().cpu().flatten()
        near = NEAR_ZERO * float(weight.square().mean().sqrt())
        axes.axvspan(-near, near, color=_draw.COLOURS[4], alpha=0.35, linewidth=0, label="near 0")
        shares = torch.full_like(weight, 100 / len(weight)).numpy()
        axes.hist(
            weight.numpy(), bins=81, weights=shares, color=_draw.COLOURS[0], label="latent weights"
        )
        _draw.plain(axes, "latent weight", "share of weights [%]",
                    f"{name}: {100 * share_near_zero(weight):.1f} % near 0")  # fmt: skip
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def by_layer(rows: Sequence[Mapping[str, float]], prefix: str, title: str) -> Figure | None:
    """A rate per layer and epoch, ``prefix/<layer>`` in ``rows``; None where there is none."""
    names = list(dict.fromkeys(n for row in rows for n in row if n.startswith(f"{prefix}/")))
    if not names:
        return None
    columns = -(-len(names) // 16)
    figure, (axes,) = _draw.grid(1, 1, 4.8 + 1.2 * columns, 3.6, title)
    # The layers have the colours, in their order; their sum is no layer.
    layers = [name for name in names if name != f"{prefix}/all"]
    colours = dict(zip(layers, _draw.colours(len(layers)), strict=True))
    # On a scale of many colours neighbours are alike.
    dashes = ("-", "-.") if len(layers) > len(_draw.COLOURS) else ("-",)
    styles = {name: dashes[i % len(dashes)] for i, name in enumerate(layers)}
    for name in names:
        epochs = [int(row["epoch"]) + 1 for row in rows if name in row]
        rates = [row[name] for row in rows if name in row]
        axes.plot(
            epochs, rates, linewidth=1.2, marker="o" if len(rates) == 1 else None,
            color=colours.get(name, _draw.GREY), linestyle=styles.get(name, "--"),
            label=name.removeprefix(f"{prefix}/") if name in colours else "all layers",
        )  # fmt: skip
    _draw.plain(axes, "epoch", "share [%]")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5),
                ncols=columns)  # fmt: skip
    return figure
