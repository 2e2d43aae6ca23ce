"""Read the YAML presets of `conf/`: their folder, the names in a group, and their contents."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from odenet_cli.config.schema import Config
from odenet_cli.registry import offer, require

PACKAGE = Path(__file__).resolve().parents[1]


def conf_dir() -> Path:
    """Return the packaged copy of `conf/` (a wheel), else the sibling of the package (a checkout)."""
    packaged = PACKAGE / "conf"
    return packaged if packaged.is_dir() else PACKAGE.parent / "conf"


def options(group: str) -> list[str]:
    """Return the presets of a group: its file names, sorted."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def groups() -> list[str]:
    """Return the groups a request may choose from; Hydra's own settings are left out."""
    return sorted(path.name for path in conf_dir().iterdir() if path.is_dir() and path.name != "hydra")


def offer_choices(name: str) -> str:
    """Return ' Did you mean `group=name`?' with each group that has a preset of this name; else an empty string."""
    return offer([f"{group}={name}" for group in groups() if name in options(group)])


def texts(group: str, name: str) -> list[str]:
    """Return the YAML of a preset, then that of the preset it is based on: `defaults: [NAME, _self_]`."""
    own = (conf_dir() / group / f"{name}.yaml").read_text(encoding="utf-8")
    base = re.search(r"^defaults: \[(\w+), _self_\]$", own, re.MULTILINE)
    return [own, *(texts(group, base[1]) if base else ())]


def headline(group: str, name: str) -> str:
    """Return the first comment of a preset, its description in one line."""
    for line in texts(group, name)[0].splitlines():
        if line.startswith("#") and not line.startswith("# @package"):
            return line.lstrip("# ").strip()
    return ""


@lru_cache(maxsize=256)
def _load(group: str, name: str, data: str | None) -> dict[str, Any]:
    from omegaconf import OmegaConf

    def read(group: str, name: str) -> Any:
        return OmegaConf.merge(*map(OmegaConf.create, reversed(texts(group, name))))

    loaded = read(group, name)
    around = {"data": read("data", data)} if data is not None else {}
    values = OmegaConf.to_container(OmegaConf.merge(around, loaded), resolve=True)
    assert isinstance(values, dict)
    return {str(key): values[key] for key in loaded if key != "defaults"}


def preset(group: str, name: str, key: str | None = None, data: str | None = None) -> dict[str, Any]:
    """Return the content of `conf/<group>/<name>.yaml`; raise RequestError on `key`, listing the presets, without it.

    data  the data set whose recipe the preset refers to; without one there is no recipe
    """
    require(key or group, name, options(group))
    if data is not None:
        require("data", data, options("data"))
    return dict(_load(group, name, data))


def written(group: str, name: str) -> dict[str, Any]:
    """Return the keys `<group>.*` as the preset of that name has them; none if there is no such preset."""
    content = preset(group, name) if name in options(group) else {}
    section = content.get(group)
    return section if isinstance(section, dict) else content


def model_words(config: Config) -> str:
    """Return `model=NAME` as a run was asked for: `rknet` is the network `odenet`, and the run's name has it."""
    network, asked = str(config.model["name"]), config.name.partition("-")[0]
    return f"model={asked if written('model', asked).get('name') == network else network}"


def adaptive(method: str, key: str = "solver.method") -> bool:
    """Return whether a method chooses its own steps: its preset has `rtol`, that of a fixed one `steps`."""
    return "rtol" in preset("solver", method, key)
