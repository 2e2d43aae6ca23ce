"""Points around a saved configuration: `key=v1,v2` in Hydra's grammar, and the configuration with keys set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep, ValueType
from omegaconf import OmegaConf

from odenet_cli.config.check import check
from odenet_cli.config.schema import Config
from odenet_cli.errors import RequestError
from odenet_cli.request.hydra_errors import explained
from odenet_cli.request.overrides import formed, meant, quoted

MOST = 10_000


def values(word: str) -> tuple[str, list[Any]]:
    """The key and the values of an override."""
    meant(formed(word))
    with explained([word]):
        (override,) = OverridesParser.create().parse_overrides([quoted(word)])
        count(override)
        key = override.key_or_group
        return key, list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]


def differing(points: Iterable[list[str]]) -> list[str]:
    """Return the keys that do not have the same value in all `points`, each a list of overrides; one that some leave
    out differs too. How a job goes on is no part of it."""
    said = [dict(override.partition("=")[::2] for override in point) for point in points]
    keys = list(dict.fromkeys(key for point in said for key in point if key != "resume"))
    return [key for key in keys if len({point.get(key) for point in said}) > 1]


def count(override: Override) -> int:
    """How many values an override has, none of them made; refused are none at all, and more than `MOST`."""
    if not override.is_sweep_override():
        return 1
    value, word = override.value(), override.input_line
    if isinstance(value, RangeSweep):
        ends = (value.start or 0, value.stop or 0, value.step)
        if not all(math.isfinite(end) for end in ends) or value.step == 0:
            raise RequestError(f"{word}: a range goes from a finite number to a finite number, in steps other than 0.")
        start, stop, step = map(Decimal, ends)
        number = max(0, math.ceil((stop - start) / step))
    elif override.value_type == ValueType.GLOB_CHOICE_SWEEP and override.config_loader is None:
        raise RequestError(f"{word}: a glob goes through presets; here say the values themselves.")
    elif override.is_discrete_sweep():
        number = sum(1 for _ in override.sweep_iterator())
    else:
        raise RequestError(f"{word}: an interval has no values to go through; say a range, or some of its values.")
    if not 0 < number <= MOST:
        many = f"{number:,} values, more than the {MOST:,} of a sweep" if number else "no value at all"
        raise RequestError(f"{word} has {many}.")
    return number


def altered(config: Config, changes: Mapping[str, Any]) -> Config:
    """`config` with these keys set, typed and checked again."""
    with explained([f"{key}={value}" for key, value in changes.items()]):
        content = OmegaConf.structured(config)
        for key, value in changes.items():
            OmegaConf.update(content, key, value)
        made = OmegaConf.to_object(content)
    assert isinstance(made, Config)
    return check(made)
