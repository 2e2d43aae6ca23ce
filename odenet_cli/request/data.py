"""What only torch and the disk can tell: whether the model can be built, which data there is.

The dispatcher settles it once; the jobs, in whatever process they run, read it from the environment.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from odenet_cli.config.resolve import complete
from odenet_cli.config.saved import read_saved
from odenet_cli.config.schema import Config
from odenet_cli.errors import RequestError
from odenet_cli.request.compose import typed
from odenet_cli.request.places import filled, refers
from odenet_cli.rundir import holds_run, read_record
from odenet_cli.training.identity import check_same_data, check_same_run


def settle(configs: dict[Path, Config]) -> dict[str, Any]:
    """Check every run's model and device, then choose and verify the data, once for all.

    `auto` is what `data=auto` became; `data` has the record of each data set, by its options.
    """
    from odenet_cli import data as sets
    from odenet_cli.training import optim
    from odenet_cli.training.check import check
    from odenet_cli.training.resume import starting_weights

    for config in configs.values():
        likely = complete(config, on_gpu(config), data="mnist")
        _check_closed(likely)
        sets.check(likely.data["name"], arguments(likely.data))
        optim.check(likely.optim)
        check(likely)

    auto = _auto(configs)
    # A job of a sweep whose files are damaged is refused when it comes; the others go on.
    damaged = {folder for folder in configs if len(configs) > 1 and not readable(folder)}
    whole = {
        folder: complete(config, on_gpu(config), data=auto) if folder in damaged else whole_of(config, folder, auto)
        for folder, config in configs.items()
    }
    going_on = [folder for folder, config in whole.items() if config.resume == "auto" and folder not in damaged]
    for folder in going_on:
        check_same_run(folder, whole[folder])

    records: dict[str, dict[str, Any]] = {}
    for folder, config in whole.items():
        data, key = config.data, key_of(config.data)
        if key not in records:
            records[key] = sets.prepare(data["name"], arguments(data))
        if folder in going_on:
            check_same_data(read_record(folder).get("data") or {}, records[key], folder)
        if config.trainer.batch_size is not None:
            sets.check_batch(config.trainer.batch_size, data["name"], records[key])
        if config.checkpoint is not None and not goes_on(folder, config):
            starting_weights(config, Path(config.checkpoint))
    return {"auto": auto, "data": records}


def _auto(configs: dict[Path, Config]) -> str | None:
    """Return what `data=auto` stands for: what it did in a run that goes on, else what is found here."""
    asking = {folder: config for folder, config in configs.items() if config.data["name"] == "auto"}
    for folder, config in asking.items():
        if config.resume == "auto" and holds_run(folder) and readable(folder) and (known := read_saved(folder)):
            return str(known["data"]["name"])
    return auto_of(next(iter(asking.values()))) if asking else None


def auto_of(config: Config) -> str | None:
    """Return what `data=auto` finds here, looked for and announced once; None where the data have a name."""
    return _found(key_of(config.data)) if config.data["name"] == "auto" else None


@cache
def _found(options: str) -> str:
    from odenet_cli import data as sets

    return sets.resolve_auto(arguments(json.loads(options)))


def readable(folder: Path) -> bool:
    """Return whether what is in `folder` of a run can be read: its record and its config."""
    try:
        read_record(folder), read_saved(folder)
    except RequestError:
        return False
    return True


def goes_on(folder: Path, config: Config) -> bool:
    """Return whether the run in `folder` goes on from a checkpoint of its own, not from the first weights."""
    return config.resume == "auto" and any((folder / "checkpoints").glob("*last.pt"))


def finished(folder: Path, config: Config, data_record: dict[str, Any] | None) -> bool:
    """Return whether the run in `folder` is done and is this one; refuse another run that is there."""
    record = read_record(folder)
    if record.get("status") != "done" or check_same_run(folder, config):
        return False
    if data_record is not None:
        check_same_data(record.get("data") or {}, data_record, folder)
    return True


def whole_of(config: Config, folder: Path, auto: str | None) -> Config:
    """Return the complete config of the run in `folder`. One that goes on keeps what the recipe said where it began,
    for a GPU or for a CPU: it may have moved between two machines."""
    began = read_record(folder).get("device") if config.resume == "auto" else None
    return complete(config, on_gpu(config) if began is None else not began.startswith("cpu"), data=auto)


def settled(cfg: DictConfig, folder: Path) -> tuple[Config, dict[str, Any] | None, str]:
    """What a job does: its complete config, the record of its data, the command that asked for it."""
    config, request = typed(cfg), json.loads(os.environ.get("ODENET_REQUEST", "{}"))
    whole = whole_of(config, folder, request.get("auto"))
    if refers(cfg):
        whole = replace(whole, name=str(filled(cfg, config, whole).name))
    record = request.get("data", {}).get(key_of(whole.data))
    if record is not None:
        record = {**record, "requested": config.data["name"]}
    return whole, record, request.get("command", "")


def _check_closed(config: Config) -> None:
    """Refuse what neither the request nor the data set's recipe says."""
    trainer = config.trainer
    found = {"trainer.steps": trainer.steps or trainer.epochs, "trainer.batch_size": trainer.batch_size}
    for key, value in {**found, "optim.lr": config.optim.lr}.items():
        if value is None:
            raise RequestError(f"{key} is null, and data={config.data['name']} has none in its recipe. Add {key}=….")


def arguments(data: dict[str, Any]) -> dict[str, Any]:
    """The options of a data set without its name."""
    return {key: value for key, value in data.items() if key != "name"}


def key_of(data: dict[str, Any]) -> str:
    """A data set's options as a key."""
    return json.dumps(data, sort_keys=True, default=str)


def on_gpu(config: Config) -> bool:
    """Will this run compute on a GPU?"""
    if config.device != "auto":
        return config.device.startswith("cuda")
    import torch

    return bool(torch.cuda.is_available())
