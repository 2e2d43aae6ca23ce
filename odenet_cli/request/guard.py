"""A configuration is data: nothing in it may name code to run, apart from Hydra's own parts."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from odenet_cli.config import Config
from odenet_cli.errors import RequestError
from odenet_cli.ranges import leaves

TARGET = "model.target"
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")


def guard(cfg: DictConfig) -> None:
    """Refuse `_target_` and its kin; inside `hydra.*` class paths must begin with `hydra.` or `hydra_plugins.`."""
    for key, value in leaves(OmegaConf.to_container(cfg, resolve=False)):
        if not _allowed(key, value):
            raise RequestError(
                f"{key}={value} names code to run, which a configuration may not do here.\n"
                "  A class of your own comes in as model=custom model.target=package.module:Class."
            )


def guard_target(config: Config, overrides: list[str]) -> None:
    """Refuse a class of the user's own that only a file names: it must be said on the command line."""
    target = config.model.get("target")
    if target is not None and not any(word.lstrip("+").startswith(f"{TARGET}=") for word in overrides):
        raise RequestError(
            f"{TARGET}={target} stands in a file, and no file may name code to run.\n"
            f"  If it is yours, say it again on the command line: {TARGET}={target}"
        )


def _allowed(key: str, value: Any) -> bool:
    words, text = key.split("."), str(value)
    ours = text.startswith(("hydra.", "hydra_plugins."))
    logging = words[:1] == ["hydra"] and words[1:2] in (["job_logging"], ["hydra_logging"])
    if "_target_" in words:
        return words[0] == "hydra" and words[-1] == "_target_" and ours
    if "()" in words:
        return False
    if logging and words[-1] == "class":
        return ours or text.startswith("logging.")
    return text in STREAMS if text.startswith("ext://") else True
