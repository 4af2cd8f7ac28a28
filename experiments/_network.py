"""What kind of network a result is of: its data, and its multiply-adds by bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import CompactHydraException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from experiments import _build
from experiments._app import CONFIGS
from lowbit.summary import summary


def network(experiment: str, overrides: Sequence[str]) -> dict[str, Any] | None:
    """``data``, the name of the data set, and ``macs`` of one image: one_bit, k_bit, int8, float.

    Made anew from the experiment's configuration, without data or weights. None where there is no
    such experiment, where its overrides are none of it any more, and where what was trained is to
    become another network (int8).
    """
    if not (CONFIGS / "experiment" / f"{experiment}.yaml").is_file():
        return None
    words = [o for o in overrides if not o.startswith(("start=", "seed="))]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONFIGS)):
            cfg = compose("train", [f"experiment={experiment}", *words, f"name={experiment}"])
        if cfg.int8 is not None:
            return None
        if cfg.recipe.get("teacher") is not None:
            cfg = OmegaConf.merge(cfg, {"recipe": {"teacher": None}})  # type: ignore[assignment]
        data = instantiate(cfg.data)
        model = _build.make_recipe(cfg, data).model
    except CompactHydraException:
        return None
    assert isinstance(model, nn.Module)
    shape = (data.in_channels, data.image_size, data.image_size)
    return {
        "data": cfg.data._target_.split(".")[-2],
        "macs": asdict(summary(model, shape).macs),
    }
