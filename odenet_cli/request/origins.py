"""Find where each value of a run comes from: command line, preset, recipe of the data, another key, or the default."""

from __future__ import annotations

import re
from typing import Any

from omegaconf import DictConfig, OmegaConf

from odenet_cli.config.check import leaves
from odenet_cli.config.presets import written
from odenet_cli.config.resolve import eval_solver, gradient_solver
from odenet_cli.config.schema import Config, key_of
from odenet_cli.request import hydra_internals
from odenet_cli.request.compose import Composer, to_config

TYPED, DEFAULT = "command line", "default"


def values_and_origins(
    composer: Composer, overrides: list[str], cfg: DictConfig, completed: Config
) -> dict[str, tuple[Any, str]]:
    """Return key -> (value in effect, origin) for all keys of a run.

    overrides  of the run, which `cfg` is composed of
    completed  its config with what the data set's recipe says
    """
    origins = _of_files(composer, overrides, cfg)
    typed = set(map(key_of, overrides))
    composed, result = dict(leaves(to_config(cfg), lists=False)), {}
    data, recipe = f"data={completed.data['name']}", f"recipe of data={completed.data['name']}"
    for key, value in leaves(completed, lists=False):
        origin = TYPED if key in typed else origins.get(key, data if key.startswith("data.") else DEFAULT)
        if key not in typed and composed.get(key) != value and not key.startswith("data."):
            origin = recipe if composed.get(key) is None else "optim.schedule"  # which leaves no milestones
        result[key] = value, origin
    for section, solver in (("eval.solver", eval_solver(completed)), ("gradient.solver", gradient_solver(completed))):
        method, follows_rtol = result[f"{section}.method"][0], result[f"{section}.rtol"][0] is not None
        own = written("solver", method) if method not in (None, completed.solver.method) else {}
        for name, value in vars(solver).items():
            if f"{section}.{name}" in result and result[f"{section}.{name}"][0] is None and value is not None:
                origin = f"solver={method}" if name in own else f"solver.{name}"
                result[f"{section}.{name}"] = value, f"{section}.rtol" if name == "atol" and follows_rtol else origin
    return result


def _of_files(composer: Composer, overrides: list[str], cfg: DictConfig) -> dict[str, str]:
    """Return key -> the last file of a composed configuration that sets it, or the key it refers to."""
    origins = {}
    for path, content in hydra_internals.sources(composer.loader, composer.config_name, overrides):
        group, _, name = path.rpartition("/")
        origin = DEFAULT if path == "schema" else f"{group}={name}" if group else f"{path}.yaml"
        section: Any = OmegaConf.to_container(content, resolve=False)
        for key, value in leaves(section, lists=False):
            beside = re.fullmatch(r"\$\{\.(\w+)\}", str(value))
            in_recipe = re.search(r"\bdata\.recipe\.\w+", str(value))
            if beside:
                origins[key] = f"{key.rpartition('.')[0]}.{beside[1]}"
            elif in_recipe and OmegaConf.select(cfg, in_recipe[0]) is not None:
                origins[key] = f"recipe of data={cfg.data.name}"
            else:
                origins[key] = origin
    return origins
