"""Points around a saved configuration: `key=v1,v2` in Hydra's grammar, and the configuration with keys set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from odenet_cli.config import Config
from odenet_cli.request.arguments import quoted
from odenet_cli.request.explain import explained


def values(word: str) -> tuple[str, list[Any]]:
    """The key and the values of an override."""
    with explained([word]):
        (override,) = OverridesParser.create().parse_overrides([quoted(word)])
        key = override.key_or_group
        return key, list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]


def altered(config: Config, changes: Mapping[str, Any]) -> Config:
    """`config` with these keys set, typed and checked again."""
    with explained([f"{key}={value}" for key, value in changes.items()]):
        content = OmegaConf.structured(config)
        for key, value in changes.items():
            OmegaConf.update(content, key, value)
        made = OmegaConf.to_object(content)
    assert isinstance(made, Config)
    return made
