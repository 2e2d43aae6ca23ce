"""Where the runs of a request go: folders are named after what runs will do, the data set's recipe included, and a job
that a sweep's folder holds already keeps its own."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from odenet_cli.config.saved import load
from odenet_cli.config.schema import Config
from odenet_cli.errors import RequestError
from odenet_cli.rundir import runs_below
from odenet_cli.training.identity import settings

FILLED = re.compile(r"\$\{.*\b(data|optim|trainer|eval|gradient)\.", re.DOTALL)
PIN = "hydra.sweep.subdir='${odenet.job:${hydra.job.num}}'"


def refers(cfg: DictConfig, *keys: str) -> bool:
    """Return whether the text at one of `keys`, or the run's name, looks at a section that a recipe fills in."""
    sections = [OmegaConf.to_container(cfg, resolve=False)]
    for key in ("name", *keys):
        value: Any = sections[0]
        for word in key.split("."):
            value = value.get(word) if isinstance(value, dict) else None
        if isinstance(value, str) and FILLED.search(value):
            return True
    return False


def filled(cfg: DictConfig, config: Config, whole: Config) -> DictConfig:
    """Return a copy of `cfg`, of which `config` was made, with what `whole` has beyond that: names can refer to it."""
    made, before = copy.deepcopy(cfg), dict(settings(asdict(config), ()))
    with open_dict(made):
        for key, value in settings(asdict(whole), ()):
            if before.get(key) != value:
                OmegaConf.update(made, key, value)
    return made


def job_folder(number: int) -> str:
    """Return the folder of a sweep's job, below the sweep's, as the request has it."""
    return str(json.loads(os.environ["ODENET_REQUEST"])["folders"][int(number)])


def runs_in(folder: Path) -> dict[Path, Config]:
    """Return the runs below `folder`, each with its config; left out is one that failed before it had any, and one
    whose config is damaged: nothing is a repetition of that."""
    found = {}
    for place in runs_below(folder):
        with contextlib.suppress(RequestError):
            found[place] = load(place)
    return found
