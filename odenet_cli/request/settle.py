"""What only torch and the disk can tell: whether the model can be built, which data there is.

The dispatcher settles it once; the jobs, in whatever process they run, read it from the environment.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from odenet_cli.config import Config, complete, saved
from odenet_cli.errors import RequestError


def settle(configs: dict[Path, Config]) -> dict[str, Any]:
    """Check every run's model and device, then choose and verify the data, once for all.

    `auto` is what `data=auto` became; `data` has the record of each data set, by its options.
    """
    from odenet_cli import data as sets
    from odenet_cli.training import optim
    from odenet_cli.training.run import check

    for config in configs.values():
        likely = complete(config, on_gpu(config), data="mnist")
        _check_closed(likely)
        sets.check(likely.data["name"], arguments(likely.data))
        optim.check(likely.optim)
        check(likely)

    auto = None
    for folder, config in configs.items():
        if config.data["name"] == "auto" and auto is None:
            before = saved(folder).get("data") if config.resume == "auto" else None
            auto = before.get("name") if isinstance(before, dict) else None
            auto = auto or sets.resolve_auto(arguments(config.data))

    records: dict[str, dict[str, Any]] = {}
    for config in configs.values():
        whole = complete(config, on_gpu(config), data=auto)
        data = whole.data
        if key_of(data) not in records:
            records[key_of(data)] = sets.prepare(data["name"], arguments(data))
        if whole.trainer.batch_size is not None:
            sets.check_batch(whole.trainer.batch_size, data["name"], records[key_of(data)])
        if config.checkpoint is not None:
            from odenet_cli.training.state import weights_of

            weights_of(whole, Path(config.checkpoint))
    return {"auto": auto, "data": records}


def settled(config: Config) -> tuple[Config, dict[str, Any] | None, str]:
    """What a job does: its complete config, the record of its data, the command that asked for it."""
    request = json.loads(os.environ.get("ODENET_REQUEST", "{}"))
    whole = complete(config, on_gpu(config), data=request.get("auto"))
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
