"""Compose configurations as Hydra will, before Hydra starts."""

from __future__ import annotations

import argparse
import copy
import errno
import functools
import os
import re
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from hydra import version
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobRuntime, setup_globals
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from odenet_cli.config.check import check
from odenet_cli.config.presets import conf_dir, groups
from odenet_cli.config.saved import SECTIONS, add_new_options, check_interpolation, check_yaml
from odenet_cli.config.schema import PATHS, Config, key_of
from odenet_cli.errors import RequestError
from odenet_cli.registry import require
from odenet_cli.request import hydra_internals
from odenet_cli.request.folders import folder_name
from odenet_cli.request.hydra_errors import known_keys, translate_hydra_errors
from odenet_cli.request.overrides import check_points, count_values, parse
from odenet_cli.request.trust import check_file, check_names, check_words

MODULE = "odenet_cli.commands.train"
VERSION_BASE = "1.3"
CONFIG_NAME = "train"
_shipped: dict[tuple[str, ...], DictConfig] = {}
"""What presets of `conf/` compose to, for which Hydra takes a tenth of a second."""


@functools.cache
def register() -> None:
    """Tell Hydra the schema, and OmegaConf how a sweep names its folders. Every process that runs a job needs it."""
    ConfigStore.instance().store(name="schema", node=Config, provider="odenet")
    hydra_internals.register_source(FileConfigSource)
    OmegaConf.register_new_resolver("odenet.folder", folder_name, replace=True)


class FileConfigSource(hydra_internals.FileConfigSource):
    """Check YAML files from elsewhere before Hydra reads them. Of the same name, or Hydra would refuse it."""

    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(self.path) / self._normalize_file_name(config_path)
        foreign = not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(conf_dir()))
        if foreign and os.path.exists(path):
            check_yaml(path)
        loaded = super().load_config(config_path)
        if foreign:
            check_file(path, config_path.rpartition("/")[0], loaded.header["package"], loaded.config)
            content: Any = OmegaConf.to_container(loaded.config, resolve=False)
            if all(isinstance(content.get(name), dict) for name in SECTIONS):  # saved, perhaps by an older version
                loaded.config = OmegaConf.create(add_new_options(content, path))
        return loaded


class Composer:
    """Compose the configurations of a command line, as Hydra does."""

    def __init__(self, args: argparse.Namespace) -> None:
        register()
        version.setbase(VERSION_BASE)
        Plugins.instance()
        setup_globals()
        JobRuntime.instance().set("name", "train")
        self.config_name = args.config_name or CONFIG_NAME
        self.multirun = bool(args.multirun)
        self.overrides: list[str] = list(args.overrides)
        folder = None if args.config_dir is None else os.path.realpath(str(args.config_dir))
        if folder is not None and not os.path.isdir(folder):
            raise RequestError(f"--config-dir {args.config_dir}: this folder does not exist.")
        if folder is not None:
            check_names(Path(folder))
        self.loader = hydra_internals.make_loader(MODULE, str(conf_dir()), folder)
        self.composed: dict[tuple[str, ...], DictConfig] = {} if folder or args.config_name else _shipped

    def compose(self, overrides: list[str], mode: RunMode = RunMode.RUN) -> DictConfig:
        """Return one configuration, Hydra's own part included; its interpolations can be resolved."""
        sweep = mode == RunMode.MULTIRUN
        check_words(overrides)
        try:
            cfg = self.loader.load_configuration(self.config_name, overrides, mode, validate_sweep_overrides=not sweep)
        except KeyError as error:
            raise RequestError(f"hydra.job.env_copy asks for {error}, which is not allowed here.") from error
        except OSError as error:
            if isinstance(error, HydraException):  # a file that is not there
                raise
            path = Path(error.filename or self.config_name)
            if error.errno == errno.ENAMETOOLONG:
                raise RequestError(f"{path.parent.name}={path.stem} is not known; the name is too long.") from error
            raise RequestError(f"{path} cannot be read: {error.strerror}.") from error
        HydraConfig.instance().set_config(cfg)
        return cfg

    def point(self, overrides: list[str]) -> DictConfig:
        """Return `compose(overrides)`; points with the same presets share one composition, and set values on a copy."""
        check_words(overrides)
        presets = presets_among(overrides)
        key = tuple(presets)
        if key not in self.composed:
            self.composed[key] = self.compose(presets)
        cfg = copy.deepcopy(self.composed[key])
        with read_write(cfg.hydra):
            cfg.hydra.runtime.cwd = os.getcwd()
        values = [override for override in overrides if override not in presets]
        hydra_internals.apply_overrides(OverridesParser.create().parse_overrides(values), cfg)
        HydraConfig.instance().set_config(cfg)
        return cfg

    def translate_errors(self) -> AbstractContextManager[None]:
        """Turn Hydra's errors about this command line into a `RequestError`."""
        return translate_hydra_errors(self.overrides, self.keys)

    def keys(self, point: list[str] | None = None) -> list[str]:
        """Return every key that could have been meant, in a `point` of a sweep, for the message about one that does not
        exist."""
        for overrides in (presets_among(point or self.overrides), []):
            with suppress(HydraException, OmegaConfBaseException):
                return known_keys(self.compose(overrides, RunMode.MULTIRUN))
        return []

    def master(self) -> tuple[DictConfig, bool]:
        """Return the configuration of the whole request, and whether it is a sweep, by -m or `hydra.mode`."""
        parsed = OverridesParser.create(config_loader=self.loader).parse_overrides(self.overrides)
        self._check_presets(parsed)
        if not self.multirun and not any(override.is_sweep_override() for override in parsed):
            cfg = self.compose(self.overrides)
            if cfg.hydra.mode != RunMode.MULTIRUN:
                return cfg, False
        cfg = self.compose(self.overrides, RunMode.MULTIRUN)
        sweep = self.multirun or cfg.hydra.mode == RunMode.MULTIRUN
        mode = RunMode.MULTIRUN if sweep else RunMode.RUN
        self.loader.validate_sweep_overrides_legal(parsed, mode, from_shell=True)
        return cfg, sweep

    def _check_presets(self, parsed: list[Override]) -> None:
        """Refuse an unknown preset among several, for which Hydra would blame the first key that belongs to it."""
        for override in parsed:
            group = override.key_or_group
            if override.is_choice_sweep() and group in groups():
                known = self.loader.get_group_options(group)
                for value in override.sweep_string_iterator():
                    if value != "null" and "/" not in value:
                        require(group, value.strip("'\""), known)

    def points(self, master: DictConfig) -> list[list[str]]:
        """Return the overrides of every job of a sweep."""
        params = [f"{key}={value}" for key, value in (master.hydra.sweeper.params or {}).items()]
        for param in params:
            check_interpolation("hydra.sweeper.params", param)
        return self.split(params + overrides_of(master, "task"))

    def split(self, overrides: list[str]) -> list[list[str]]:
        """Return every combination of the values in `overrides`, counted before any is made."""
        parsed = OverridesParser.create(config_loader=self.loader).parse_overrides(overrides)
        check_points({override.get_key_element(): count_values(override) for override in parsed})
        return hydra_internals.combinations(parsed)

    def job(self, master: DictConfig, point: list[str], number: int) -> DictConfig:
        """Return the configuration of job `number` of a sweep."""
        cfg = self.compose(overrides_of(master, "hydra") + point)
        OmegaConf.copy_cache(from_config=master, to_config=cfg)
        with read_write(cfg.hydra), open_dict(cfg.hydra):
            cfg.hydra.job.num = number
            cfg.hydra.job.id = str(number)
        HydraConfig.instance().set_config(cfg)
        return cfg


def compose(overrides: list[str]) -> Config:
    """Return the checked config of `odenet train <overrides>`, before the data set's recipe is filled in."""
    args = parse(overrides)
    composer = Composer(args)
    with composer.translate_errors():
        if args.config_dir or args.config_name or any("hydra" in word.partition("=")[0] for word in composer.overrides):
            return to_config(composer.compose(composer.overrides))
        parsed = OverridesParser.create(config_loader=composer.loader).parse_overrides(composer.overrides)
        composer.loader.validate_sweep_overrides_legal(parsed, RunMode.RUN, from_shell=True)
        return to_config(composer.point(composer.overrides))


def presets_among(overrides: list[str]) -> list[str]:
    """Return those overrides that choose or remove a preset."""
    return [override for override in overrides if key_of(override) in groups()]


def overrides_of(cfg: DictConfig, part: str) -> list[str]:
    """Return the overrides that a configuration was composed with, as typed: those of `hydra`, or of the `task`."""
    words: Any = OmegaConf.to_container(cfg.hydra.overrides[part], resolve=False)
    return list(words)


def to_config(cfg: DictConfig) -> Config:
    """Return the task's part of a composed configuration, typed and checked."""
    task = cfg.copy()
    with open_dict(task):
        task.pop("hydra", None)
    cwd = HydraConfig.get().runtime.cwd  # of the command: a job may be in another folder
    for key in PATHS:
        path = OmegaConf.select(task, key)
        if isinstance(path, str) and path.strip() and not re.search(r"\$\{|\0", path):
            OmegaConf.update(task, key, os.path.abspath(os.path.join(cwd, os.path.expanduser(path))))
    config = OmegaConf.to_object(task)
    if not isinstance(config, Config):
        raise RequestError(
            "this configuration does not begin with odenet's schema, so it cannot be checked.\n"
            "  That of a run is RUN/config.yaml (not RUN/.hydra); your own must begin with `defaults: [schema, …]`."
        )
    config.reproduce = {}  # of an experiment as a whole
    return check(config)
