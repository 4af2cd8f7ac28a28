"""Keys and options that there are none of: which were meant.

Hydra refuses ``lr=0.1`` and takes ``+lr=0.1``, which nothing reads. Here both are refused, with the
nearest key that there is.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

# What code reads of the group ``quantizer``. Other groups are checked by the classes they are of.
QUANTIZER = ("input", "weight", "gradient", "gradient_cancellation_threshold")


def known_keys(configs: Path, name: str) -> list[str]:
    """The keys that code reads of ``NAME.yaml``, with the groups in it."""
    file = OmegaConf.load(configs / f"{name}.yaml")
    groups = [str(key) for entry in file.defaults if isinstance(entry, DictConfig) for key in entry]
    return [*groups, *map(str, file), *(f"quantizer.{key}" for key in QUANTIZER)]


def unread(cfg: DictConfig, known: Collection[str]) -> str | None:
    """A key of the whole or of ``quantizer`` that is not ``known``, and that no ``${…}`` reads."""
    written = OmegaConf.to_yaml(cfg, resolve=False)
    for key in (*map(str, cfg), *(f"quantizer.{key}" for key in cfg.get("quantizer") or ())):
        if key not in known and not re.search(rf"\${{\.*{re.escape(key)}\b", written):
            return key
    return None


def no_such_key(key: str, known: Iterable[str]) -> str:
    """That a configuration has no such key, and which it has: the nearest, else the outermost.

    ``known`` are paths with dots. The nearest have the same last word (``lr``: ``optimizer.lr``),
    or are spelled alike.
    """
    paths = [path for path in dict.fromkeys(known) if not path.startswith("stages.")]
    lasts = {path.rpartition(".")[2]: path for path in reversed(paths)}
    last = re.split(r"[./]", key)[-1]
    near = [path for path in paths if path.rpartition(".")[2] == last][:3]
    near = near or difflib.get_close_matches(key, paths, 1)
    near = near or [lasts[word] for word in difflib.get_close_matches(last, lasts, 1)]
    if near:
        return f"a configuration has no {key!r}; did you mean {' or '.join(map(repr, near))}?"
    return f"a configuration has no {key!r}; it has {', '.join(p for p in paths if '.' not in p)}"


def paths_of(cfg: DictConfig) -> list[str]:
    """All keys of a configuration, those inside others with dots; the outer ones first."""

    def inside(node: object, above: str) -> list[str]:
        if not isinstance(node, dict):
            return []
        here = [f"{above}{key}" for key in node]
        return here + [p for key in node for p in inside(node[key], f"{above}{key}.")]

    return sorted(inside(OmegaConf.to_container(cfg), ""), key=lambda path: path.count("."))


def explained(
    error: HydraException, arguments: Sequence[str], configs: Path, config_name: str
) -> str:
    """An error of composing, in words: with the keys or options that there are."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        options = sorted(path.stem for path in (configs / group).glob("*.yaml"))
        if group and options:
            near = difflib.get_close_matches(name, options, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ";"
            return f"no {group} named {name!r}{hint} known: {', '.join(options)}"
    key = re.match(r"Could not override '([^'@]+)'", str(error))
    if key is not None and not key[1].startswith("hydra."):
        return no_such_key(key[1], paths_of(_without_values(arguments, configs, config_name)))
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else None
    words = re.sub(r"\nTo append to your config use .*", "", str(error))
    return words if cause is None else f"{words}\n{cause}"


def _without_values(arguments: Sequence[str], configs: Path, config_name: str) -> DictConfig:
    """The configuration of the groups that were chosen, and of no other override."""
    words = [
        override.input_line
        for override in _overrides(arguments)
        if (configs / override.key_or_group).is_dir()
    ]
    return composed(words, configs, config_name)


def composed(arguments: Sequence[str], configs: Path, config_name: str) -> DictConfig:
    """The configuration of a command line, or raises as Hydra does; what is swept over is left out.

    Within a sweep, that of ``configs`` is there already.
    """
    words = [override.input_line for override in _overrides(arguments)]
    if GlobalHydra.instance().is_initialized():
        return hydra.compose(config_name, overrides=words)
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(configs)):
        return hydra.compose(config_name, overrides=words)


def _overrides(arguments: Sequence[str]) -> list[Override]:
    """The overrides of a command line without its options and what is swept over."""
    words = [word for word in arguments if not word.startswith("-")]
    found = OverridesParser.create().parse_overrides(words)
    return [override for override in found if not override.is_sweep_override()]
