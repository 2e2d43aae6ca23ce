"""Configurations as Hydra will make them, before Hydra starts."""

from __future__ import annotations

import argparse
import copy
import errno
import math
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.core_plugins import file_config_source as hydra_files
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import create_automatic_config_search_path
from hydra.core.config_search_path import SearchPathQuery
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
from odenet_cli.config.schema import PATHS, Config
from odenet_cli.errors import RequestError
from odenet_cli.registry import require
from odenet_cli.request.folders import folder_name
from odenet_cli.request.hydra_errors import known_keys
from odenet_cli.request.places import job_folder
from odenet_cli.request.points import MOST, count
from odenet_cli.request.trust import guard_file

MODULE = "odenet_cli.commands.train"
VERSION_BASE = "1.3"
CONFIG_NAME = "train"


def register() -> None:
    """Tell Hydra the schema, and OmegaConf how a sweep names its folders. Every process that runs a job needs it."""
    ConfigStore.instance().store(name="schema", node=Config, provider="odenet")
    SourcesRegistry.instance().types[FileConfigSource.scheme()] = FileConfigSource
    OmegaConf.register_new_resolver("odenet.folder", folder_name, replace=True)
    OmegaConf.register_new_resolver("odenet.job", job_folder, replace=True)


class FileConfigSource(hydra_files.FileConfigSource):
    """Hydra's reader of YAML files, which first looks through them. Of the same name, or Hydra would refuse it."""

    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(self.path) / self._normalize_file_name(config_path)
        foreign = not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(conf_dir()))
        if foreign and os.path.exists(path):
            check_yaml(path)
        loaded = super().load_config(config_path)
        if foreign:
            guard_file(path, loaded.config)
            content: Any = OmegaConf.to_container(loaded.config, resolve=False)
            if all(
                isinstance(content.get(name), dict) for name in SECTIONS
            ):  # a saved one, perhaps of an older version
                loaded.config = OmegaConf.create(add_new_options(content, path))
        return loaded


class Composer:
    """What Hydra would compose for a command line."""

    def __init__(self, args: argparse.Namespace) -> None:
        register()
        version.setbase(VERSION_BASE)
        Plugins.instance()
        setup_globals()
        JobRuntime.instance().set("name", "train")
        self.config_name = args.config_name or CONFIG_NAME
        self.multirun = bool(args.multirun)
        self.overrides: list[str] = list(args.overrides)
        self.loader = ConfigLoaderImpl(config_search_path=_search_path(args))
        self.composed: dict[tuple[str, ...], DictConfig] = {}

    def compose(self, overrides: list[str], mode: RunMode = RunMode.RUN) -> DictConfig:
        """One configuration, Hydra's own part included; interpolations can be resolved."""
        sweep = mode == RunMode.MULTIRUN
        for word in overrides:
            if word.lstrip("+~").startswith("hydra.sweeper.params"):
                raise RequestError(f"{word}: only a file sweeps like this; here say the key itself: -m seed=0,1,2.")
        try:
            cfg = self.loader.load_configuration(self.config_name, overrides, mode, validate_sweep_overrides=not sweep)
        except KeyError as error:
            raise RequestError(f"hydra.job.env_copy asks for {error}, which is not allowed here.") from error
        except OSError as error:
            if isinstance(error, HydraException):  # a file that is not there
                raise
            path = Path(error.filename or self.config_name)
            if error.errno == errno.ENAMETOOLONG:
                raise RequestError(f"{path.parent.name}={path.stem} is not known; no name is so long.") from error
            raise RequestError(f"{path} cannot be read: {error.strerror}.") from error
        if sorted([*told(cfg, "hydra"), *told(cfg, "task")]) != sorted(overrides):
            raise RequestError("hydra.overrides stands in a file; it is for Hydra to fill in. Leave it out.")
        HydraConfig.instance().set_config(cfg)
        return cfg

    def point(self, overrides: list[str]) -> DictConfig:
        """`compose`, for one of many that choose the same presets: composed once, and the values set on a copy."""
        presets = [override for override in overrides if override.partition("=")[0] in groups()]
        key = tuple(presets)
        if key not in self.composed:
            self.composed[key] = self.compose(presets)
        cfg = copy.deepcopy(self.composed[key])
        values = OverridesParser.create().parse_overrides([one for one in overrides if one not in presets])
        ConfigLoaderImpl._apply_overrides_to_config(values, cfg)
        HydraConfig.instance().set_config(cfg)
        return cfg

    def keys(self) -> list[str]:
        """Every key that could have been meant, for the message about one that does not exist."""
        for overrides in ([o for o in self.overrides if o.partition("=")[0] in groups()], []):
            with suppress(HydraException, OmegaConfBaseException):
                return known_keys(self.compose(overrides, RunMode.MULTIRUN))
        return []

    def master(self) -> tuple[DictConfig, bool]:
        """The configuration of the whole request, and whether it is a sweep: -m says so, or `hydra.mode`."""
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
        """The overrides of every job of a sweep. Only Hydra's basic sweeper says beforehand what it will ask for."""
        task = told(master, "task")
        if not str(master.hydra.sweeper._target_).endswith(".BasicSweeper"):
            parser = OverridesParser.create(config_loader=self.loader)
            return [[line for line in task if not parser.parse_override(line).is_sweep_override()]]
        params = [f"{key}={value}" for key, value in (master.hydra.sweeper.params or {}).items()]
        for param in params:
            check_interpolation("hydra.sweeper.params", param)
        return self.split(params + task)

    def split(self, overrides: list[str]) -> list[list[str]]:
        """Every combination of the values in `overrides`, counted before it is made."""
        parsed = OverridesParser.create(config_loader=self.loader).parse_overrides(overrides)
        numbers = {override.get_key_element(): count(override) for override in parsed}
        if (total := math.prod(numbers.values())) > MOST:
            said = ", ".join(f"{key} {number:,}" for key, number in numbers.items() if number > 1)
            raise RequestError(f"{said}: together {total:,} points, more than the {MOST:,} of a sweep.")
        return [list(point) for point in BasicSweeper.split_arguments(parsed, None)[0]]

    def job(self, master: DictConfig, point: list[str], number: int) -> DictConfig:
        """The configuration of job `number` of a sweep."""
        cfg = self.compose(told(master, "hydra") + point)
        OmegaConf.copy_cache(from_config=master, to_config=cfg)
        with read_write(cfg.hydra), open_dict(cfg.hydra):
            cfg.hydra.job.num = number
            cfg.hydra.job.id = str(number)
        HydraConfig.instance().set_config(cfg)
        return cfg


def told(cfg: DictConfig, whom: str) -> list[str]:
    """The overrides that a configuration was composed with, as they were said: for `hydra`, or for the `task`."""
    words: Any = OmegaConf.to_container(cfg.hydra.overrides[whom], resolve=False)
    return list(words)


def typed(cfg: DictConfig) -> Config:
    """The task's part of a composed configuration, checked."""
    task = cfg.copy()
    with open_dict(task):
        task.pop("hydra", None)
    for key in PATHS:
        path = OmegaConf.select(task, key)
        if isinstance(path, str) and path.strip() and not re.search(r"\$\{|\0", path):
            OmegaConf.update(task, key, absolute(path))
    config = OmegaConf.to_object(task)
    if not isinstance(config, Config):
        raise RequestError(
            "this configuration does not begin with odenet's schema, so it cannot be checked.\n"
            "  A saved one is RUN/config.yaml (not RUN/.hydra); one of your own begins with `defaults: [schema, …]`."
        )
    config.reproduce = {}  # of an experiment as a whole
    return check(config)


def absolute(path: str) -> str:
    """Return a path that was typed, in the folder of the command: a job may be in another one."""
    return os.path.abspath(os.path.join(HydraConfig.get().runtime.cwd, os.path.expanduser(path)))


def _search_path(args: argparse.Namespace) -> ConfigSearchPathImpl:
    path = args.config_path or str(conf_dir())
    search_path = create_automatic_config_search_path(None, MODULE, path)
    if args.config_dir is not None:
        folder = Path(os.path.realpath(args.config_dir))
        if not os.path.isdir(folder):
            raise RequestError(f"--config-dir {args.config_dir}: there is no such folder.")
        search_path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    assert isinstance(search_path, ConfigSearchPathImpl)
    return search_path
