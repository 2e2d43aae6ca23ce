"""Check what needs torch or the disk: whether the model can be built, and which data are there.

The process of the command does this once. The jobs, in whatever process they run, read the result from the variable
ODENET_REQUEST, which `request/job.py` and `reproduce/plan.py` set: JSON with the result of `resolve_runs`, and the
`command`.
"""

from __future__ import annotations

import copy
import json
import os
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from odenet_cli.config.check import leaves
from odenet_cli.config.resolve import complete
from odenet_cli.config.saved import read_saved
from odenet_cli.config.schema import Config
from odenet_cli.errors import RequestError
from odenet_cli.request.compose import to_config
from odenet_cli.rundir import holds_run, read_record
from odenet_cli.training.identity import check_same_data, check_same_run

RECIPE_SECTIONS = re.compile(r"\$\{.*\b(data|optim|trainer|eval|gradient)\.", re.DOTALL)


def resolve_runs(configs: dict[Path, Config]) -> dict[str, Any]:
    """Check the model and device of the run in each folder, then choose and verify the data, once for all.

    Return `auto`, the data set chosen for `data=auto`, and `data`, the record of each data set by its options.
    """
    from odenet_cli import data as sets
    from odenet_cli.training.check import check
    from odenet_cli.training.resume import starting_weights

    for config in configs.values():
        likely = complete(config, on_gpu(config), data="mnist")
        needed = {
            "trainer.steps": likely.trainer.steps or likely.trainer.epochs,
            "trainer.batch_size": likely.trainer.batch_size,
            "optim.lr": likely.optim.lr,
        }
        for key in (key for key, value in needed.items() if value is None):
            raise RequestError(
                f"{key} is null, and the recipe of data={likely.data['name']} has no value for it. Set {key}=…."
            )
        check(likely)

    auto = _resolve_auto(configs)
    # A job of a sweep whose files are damaged is refused when its turn comes; the others go on.
    damaged = {folder for folder in configs if len(configs) > 1 and not _is_readable(folder)}
    completed = {
        folder: complete(config, on_gpu(config), data=auto) if folder in damaged else complete_for(config, folder, auto)
        for folder, config in configs.items()
    }
    resumed = [folder for folder, config in completed.items() if config.resume == "auto" and folder not in damaged]
    for folder in resumed:
        check_same_run(folder, completed[folder])

    records: dict[str, dict[str, Any]] = {}
    for folder, config in completed.items():
        (name, arguments), key = config.source(), data_key(config.data)
        if key not in records:
            records[key] = sets.prepare(name, arguments)
        if folder in resumed:
            check_same_data(read_record(folder).get("data") or {}, records[key], folder)
        if config.trainer.batch_size is not None:
            sets.check_batch(config.trainer.batch_size, name, records[key])
        if config.checkpoint is not None and not continues(folder, config):
            starting_weights(config, Path(config.checkpoint))
    return {"auto": auto, "data": records}


def look_up_runs(configs: dict[Path, Config]) -> dict[str, Any]:
    """Return `resolve_runs` without downloading; `missing` is the message about data that are not on disk."""
    from odenet_cli.data import Unavailable

    offline = {
        folder: replace(config, data={**config.data, "download": False}) if "download" in config.data else config
        for folder, config in configs.items()
    }
    try:
        return {**resolve_runs(offline), "missing": None}
    except Unavailable as error:
        return {"auto": _resolve_auto(offline), "data": {}, "missing": str(error).splitlines()[0]}


def _resolve_auto(configs: dict[Path, Config]) -> str | None:
    """Return the data set for `data=auto`: that of the run that is continued, else the one found."""
    asking = {folder: config for folder, config in configs.items() if config.data["name"] == "auto"}
    for folder, config in asking.items():
        if config.resume == "auto" and holds_run(folder) and _is_readable(folder) and (known := read_saved(folder)):
            return str(known["data"]["name"])
    return find_auto(next(iter(asking.values()))) if asking else None


def find_auto(config: Config) -> str | None:
    """Return the data set for `data=auto`, searched and announced once; None if the data set is named."""
    return _find_auto(data_key(config.data)) if config.data["name"] == "auto" else None


@cache
def _find_auto(options: str) -> str:
    from odenet_cli import data as sets

    return sets.resolve_auto({key: value for key, value in json.loads(options).items() if key != "name"})


def _is_readable(folder: Path) -> bool:
    """Return whether the record and the config in `folder` can be read."""
    try:
        read_record(folder), read_saved(folder)
    except RequestError:
        return False
    return True


def continues(folder: Path, config: Config) -> bool:
    """Return whether the run in `folder` continues from its own checkpoint, not from initial weights."""
    return config.resume == "auto" and any((folder / "checkpoints").glob("*last.pt"))


def finished(folder: Path, config: Config, data_record: dict[str, Any] | None) -> bool:
    """Return whether the run in `folder` is this one and is done; raise RequestError if it is another run."""
    record = read_record(folder)
    if record.get("status") != "done" or check_same_run(folder, config):
        return False
    if data_record is not None:
        check_same_data(record.get("data") or {}, data_record, folder)
    return True


def complete_for(config: Config, folder: Path, auto: str | None) -> Config:
    """Return the complete config of the run in `folder`.

    A continued run keeps the recipe of the kind of device on which it began, even if it has moved.
    """
    device = read_record(folder).get("device") if config.resume == "auto" else None
    return complete(config, on_gpu(config) if device is None else not device.startswith("cpu"), data=auto)


def resolve_job(cfg: DictConfig, folder: Path) -> tuple[Config, dict[str, Any] | None, str]:
    """Return the complete config of a job, the record of its data, and the command line."""
    config, request = to_config(cfg), json.loads(os.environ.get("ODENET_REQUEST", "{}"))
    completed = complete_for(config, folder, request.get("auto"))
    if names_recipe(cfg):
        completed = replace(completed, name=str(with_recipe(cfg, config, completed).name))
    record = request.get("data", {}).get(data_key(completed.data))
    if record is not None:
        record = {**record, "requested": config.data["name"]}
    return completed, record, request.get("command", "")


def names_recipe(cfg: DictConfig, *keys: str) -> bool:
    """Return whether the text at one of `keys`, or the run's name, refers to a section that a recipe fills in."""
    texts = dict(leaves(OmegaConf.to_container(cfg, resolve=False)))
    return any(RECIPE_SECTIONS.search(str(texts.get(key))) for key in ("name", *keys))


def with_recipe(cfg: DictConfig, config: Config, completed: Config) -> DictConfig:
    """Return a copy of `cfg`, composed for `config`, with the values that `completed` adds, for use in names."""
    result, before = copy.deepcopy(cfg), dict(leaves(config, lists=False))
    with open_dict(result):
        for key, value in leaves(completed, lists=False):
            if before.get(key) != value:
                OmegaConf.update(result, key, value)
    return result


def data_key(data: dict[str, Any]) -> str:
    return json.dumps(data, sort_keys=True, default=str)


def on_gpu(config: Config) -> bool:
    """Return whether this run will compute on a GPU."""
    if config.device != "auto":
        return config.device.startswith("cuda")
    import torch

    return bool(torch.cuda.is_available())
