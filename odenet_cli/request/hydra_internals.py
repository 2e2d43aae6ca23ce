"""Wrap private modules of Hydra 1.3; no other file imports them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import create_automatic_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import configure_log, run_job
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

__all__ = ["FileConfigSource", "apply_overrides", "combinations", "get_args_parser"]


def make_loader(module: str, conf: str, folder: str | None) -> ConfigLoaderImpl:
    """Return Hydra's loader of configurations, which searches `folder` before `conf`."""
    search_path = create_automatic_config_search_path(None, module, conf)
    assert isinstance(search_path, ConfigSearchPathImpl)
    if folder is not None:
        search_path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    return ConfigLoaderImpl(config_search_path=search_path)


def sources(loader: ConfigLoaderImpl, config_name: str, overrides: list[str]) -> Iterator[tuple[str, DictConfig]]:
    """Yield the name (`solver/dopri5`) and the content of each file that is composed; a later one wins."""
    _, repository = loader._parse_overrides_and_create_caching_repo(config_name, overrides)
    for default in loader.compute_defaults_list(config_name, overrides, RunMode.RUN).defaults:
        loaded = loader._load_single_config(default, repository).config
        assert isinstance(loaded, DictConfig)
        yield str(default.config_path), loaded


def register_source(source: type[FileConfigSource]) -> None:
    SourcesRegistry.instance().types[source.scheme()] = source


def apply_overrides(values: list[Override], cfg: DictConfig) -> None:
    ConfigLoaderImpl._apply_overrides_to_config(values, cfg)


def combinations(parsed: list[Override]) -> list[list[str]]:
    """Return the overrides of every job of a sweep, as Hydra's basic sweeper makes them."""
    return [list(point) for point in BasicSweeper.split_arguments(parsed, None)[0]]


def make_launcher(loader: ConfigLoaderImpl, task: Callable[[DictConfig], Any], cfg: DictConfig) -> Launcher:
    """Return the launcher that `cfg.hydra.launcher` chooses, to run `task`."""
    context = HydraContext(config_loader=loader, callbacks=Callbacks())
    return Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=cfg)


def run(loader: ConfigLoaderImpl, cfg: DictConfig, task: Callable[[DictConfig], Any]) -> None:
    """Run `task` on a composed configuration, as Hydra's own `run` does."""
    configure_log(cfg.hydra.hydra_logging, cfg.hydra.verbose)
    context = HydraContext(config_loader=loader, callbacks=Callbacks())
    returned = run_job(
        task_function=task, config=cfg, job_dir_key="hydra.run.dir", job_subdir_key=None, hydra_context=context
    )
    _ = returned.return_value  # raises what the task raised


def sweep(
    loader: ConfigLoaderImpl, cfg: DictConfig, points: list[list[str]], task: Callable[[DictConfig], Any]
) -> None:
    """Run `task` on the jobs of a sweep by the launcher that `cfg` chooses, as Hydra's basic sweeper does."""
    configure_log(cfg.hydra.hydra_logging, cfg.hydra.verbose)
    OmegaConf.save(cfg, Path(cfg.hydra.sweep.dir) / "multirun.yaml")
    launcher, size = make_launcher(loader, task, cfg), cfg.hydra.sweeper.get("max_batch_size") or len(points)
    for first in range(0, len(points), size):
        for returned in launcher.launch(points[first : first + size], initial_job_idx=first):
            _ = returned.return_value
