"""Ensure that a configuration is only data: it names no code, sets no environment, and writes to its own folder.

A YAML file from elsewhere may set only keys of the schema and, for a sweep, `hydra.mode` and `hydra.sweeper.params`;
Hydra's other keys are for the command line. Classes are only those listed here, wherever they are named.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path, PurePath
from typing import Any

from omegaconf import DictConfig, OmegaConf

from odenet_cli.config.check import leaves
from odenet_cli.config.presets import conf_dir, groups, options
from odenet_cli.config.schema import Config, key_of
from odenet_cli.errors import RequestError
from odenet_cli.registry import nearest

CLASSES = (  # exact: `hydra.core.utils.os.system` begins with `hydra.` too
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    "logging.StreamHandler",
    "logging.FileHandler",
    "odenet_cli.streams.Wrapped",
    "odenet_cli.streams.WrappedWarning",
    "ext://sys.stdout",
    "ext://sys.stderr",
)
EMPTY = ("hydra.job.env_set", "hydra.job.env_copy", "hydra.callbacks")
DEFAULT = re.compile(r"((optional|override) +)*/?(?P<group>[\w/]+)(@_global_\.\w+)?")  # of a defaults list


def check_file(path: Path, group: str, package: str | None, content: Any) -> None:
    """Refuse a YAML file from elsewhere with keys beyond the schema, `hydra.mode` and `hydra.sweeper.params`.

    group    of the file: its folder below the one that is searched; empty for a whole configuration
    package  what the file's first line says of where its content goes
    """
    if group.split("/")[0] == "hydra" or package not in (None, "_group_", "_global_"):
        raise _for_the_command_line(f"{path}: {package or group}")
    if group and package != "_global_":
        return  # it goes below its group, where the schema and `check_composed` judge it
    values: Any = OmegaConf.to_container(content, resolve=False)
    for default in values.pop("defaults", None) or []:
        _check_default(path, default)
    known = [item.name for item in fields(Config)]
    for key, _ in leaves(values):
        section = key.partition(".")[0]
        if section == "hydra" and key != "hydra.mode":
            parameter = key.removeprefix("hydra.sweeper.params.")
            if parameter == key or re.match(r"\W*hydra\b", parameter) or "@" in parameter:
                raise _for_the_command_line(f"{path}: {key}")
        elif section not in (*known, "hydra"):
            raise RequestError(f"{path}: {section} is not a key of the configuration.{nearest(section, known)}")


def check_names(folder: Path) -> None:
    """Refuse a folder of presets in which one has the name of a shipped preset: Hydra would pass over it in silence."""
    if folder == Path(os.path.realpath(conf_dir())):
        return
    for group in groups():
        for path in sorted((folder / group).glob("*.yaml")):
            if path.stem in options(group):
                raise RequestError(
                    f"{path} has the name of a preset that comes with odenet, which would be used instead.\n"
                    f"  Rename it, and choose it by the new name: {group}=NAME."
                )


def _check_default(path: Path, default: Any) -> None:
    """Refuse an entry of a defaults list unless it is a preset of ours, in its place, or one of Hydra's launchers."""
    for entry in default if isinstance(default, dict) else [default]:
        match = DEFAULT.fullmatch(str(entry))
        known = ("schema", "_self_", "hydra/odenet", "hydra/launcher", *groups())
        if match is None or (match["group"] not in known and match["group"].split("/")[0] not in groups()):
            raise _for_the_command_line(f"{path}: the entry {entry!r} of its defaults")


def check_words(overrides: Iterable[str]) -> None:
    """Refuse overrides that only a file may set, or that move a preset to another key."""
    for word in overrides:
        key = key_of(word)
        if key.startswith("hydra.sweeper.params"):
            raise RequestError(
                f"{word}: this form of a sweep is only allowed in a file; on the command line use the key itself: -m "
                "seed=0,1,2."
            )
        if "@" in key or key.startswith("hydra.overrides"):
            raise RequestError(
                f"{word} is not allowed: presets cannot be moved to other keys, and hydra.overrides is reserved for "
                "Hydra."
            )


def check_composed(cfg: DictConfig) -> None:
    """Refuse a composed configuration that names code to run or sets the environment, wherever this is set."""
    for key, value in leaves(OmegaConf.to_container(cfg, resolve=False)):
        words, text = key.split("."), str(value)
        if key.startswith(EMPTY):
            if words[-1] == "_target_":
                raise _names_code(key, text)
            section = next(name for name in EMPTY if key.startswith(name))  # the value may be from the environment
            raise RequestError(
                f"{section} is not allowed: a configuration may not set environment variables or extend Hydra.\n"
                "  Leave it out; set environment variables in the shell."
            )
        special = any(re.fullmatch(r"_\w+_|\(\)", word) for word in words) or text.startswith("ext://")
        if words[0] == "hydra":
            special |= words[-1] == "class" and words[1].endswith("_logging")
            special &= words[-1] == "()" or text not in CLASSES
        if special:
            raise _names_code(key, text)
    size = cfg.hydra.sweeper.get("max_batch_size")
    if size is not None and size < 1:
        raise RequestError(f"hydra.sweeper.max_batch_size={size} is not allowed: it must be null, or 1 or more.")


def check_named_code(config: Config, overrides: list[str]) -> None:
    """Refuse a class of the user's own that only a file names: it must be said on the command line."""
    for key, target in config.named_code().items():
        if key not in map(key_of, overrides):
            raise RequestError(
                f"{key}={target} is set in a file, and no file may name code to run.\n"
                f"  If it is yours, give it on the command line: {key}={target}"
            )


def check_inside(cfg: DictConfig, *keys: str) -> None:
    """Refuse a folder within a run or a sweep that leads out of it."""
    for key in keys:
        inside = OmegaConf.select(cfg, key)
        path = PurePath(str(inside))
        if inside is not None and (path.is_absolute() or ".." in path.parts or re.search(r"[\x00-\x1f]", str(path))):
            raise RequestError(f"{key}={str(inside)!r} must be a folder inside that of the run or the sweep.")


def _for_the_command_line(what: str) -> RequestError:
    return RequestError(
        f"{what} is not allowed in a file, which may neither name code to run nor set any key of Hydra but "
        "hydra.sweeper.params.\n  If it is yours, give it on the command line."
    )


def _names_code(key: str, text: str) -> RequestError:
    return RequestError(
        f"{key}={text} names code to run, which a configuration may not do here.\n"
        "  Give a class of your own as model=custom model.target=package.module:Class, or as model.field=…."
    )
