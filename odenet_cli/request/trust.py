"""A configuration is data: nothing in it names code to run, sets the environment, or writes outside a run's folder.

Below `hydra` only what is listed here passes. What stands in no line of `RULES` is refused, whoever says it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from odenet_cli.config.check import leaves
from odenet_cli.config.schema import Config
from odenet_cli.errors import RequestError

TARGET = "model.target"
STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
HANDLERS = ("logging.StreamHandler", "logging.FileHandler")
PARTS = (
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
)
FORMATS = (
    "%(message)s",
    "%(levelname)s: %(message)s",
    "[%(asctime)s][HYDRA] %(message)s",
    "[%(asctime)s][%(name)s][%(levelname)s] - %(message)s",
)
LAUNCHER = ("${hydra.sweep.dir}/.submitit/%j", "${hydra.job.name}", "2*n_jobs", "auto", "processes", "threads", "r")


WANTED = {
    ".max_batch_size": "null, or 1 or more",
    ".job.name": "a plain name, without / in it",
    ".filename": "${hydra.runtime.output_dir}/NAME.log, a file of the run's own",
    ".mode": "a, which adds to a log",
    ".level": "DEBUG, INFO, WARNING, ERROR or CRITICAL",
}


def _any(values: tuple[str, ...]) -> str:
    return "|".join(map(re.escape, values))


# (key below `hydra`, what its text may be, may the command line say anything else?); the first line that fits counts.
LOG, NUMBER = r"(?:job|hydra)_logging\.", r"None|True|False|-?\d+(?:\.\d+)?"
RULES: tuple[tuple[str, str, bool], ...] = (
    (r"mode|verbose(\.\d+)?|(run|sweep)\.dir|sweep\.subdir|output_subdir|searchpath\.\d+", ".*", False),
    (r"runtime\.output_dir", r"\?\?\?", False),
    (r"(help|hydra_help|overrides|runtime)\..*", ".*", False),
    (r"job\.(chdir|id|num|config_name|override_dirname|config\..*)", ".*", False),
    (r"job\.name", r"[\w-][\w.-]*", False),
    (r"(launcher|sweeper)\._target_", _any(PARTS), False),
    (r"sweeper\.max_batch_size", r"None|[1-9]\d*", False),
    (r"sweeper\.params(\.(?!\W*hydra\b).*)?", ".*", False),
    (r"launcher\.(partition|qos|account|constraint|gres|mem_per_gpu|mem_per_cpu)", r"[\w.:,=-]+", True),
    (r"launcher\..*", f"{NUMBER}|{_any(LAUNCHER)}", True),
    (LOG + r"version|" + LOG + r"root", "1|None", False),
    (LOG + r"disable_existing_loggers|" + LOG + r"loggers\..+\.propagate", "True|False", False),
    (LOG + r"(root|loggers\..+|handlers\.\w+)\.level", r"NOTSET|DEBUG|INFO|WARNING|ERROR|CRITICAL|\d+", False),
    (LOG + r"((root|loggers\..+)\.handlers\.\d+|handlers\.\w+\.formatter)", r"\w+", False),
    (LOG + r"handlers\.\w+\.class", _any(HANDLERS), False),
    (LOG + r"handlers\.\w+\.stream", _any(STREAMS), False),
    (LOG + r"handlers\.\w+\.filename", r"\$\{hydra\.runtime\.output_dir\}/([\w-]+|\$\{hydra\.job\.name\})\.log", False),
    (LOG + r"handlers\.\w+\.(mode|encoding)", "a|utf-8", False),
    (LOG + r"formatters\.\w+\.(format|datefmt|style)", _any(FORMATS), True),
)


def guard(cfg: DictConfig) -> None:
    """Refuse `_target_` and its kin anywhere, and below `hydra` whatever is not known to be harmless."""
    said = _said(cfg)
    for words, value in _leaves(OmegaConf.to_container(cfg, resolve=False)):
        key, text = ".".join(words), str(value)
        if words[0] != "hydra":
            if "_target_" in words or "()" in words or text.startswith("ext://"):
                raise RequestError(_code(key, text))
            continue
        below = key.removeprefix("hydra.")
        rule = next((rule for rule in RULES if re.fullmatch(rule[0], below, re.DOTALL)), None)
        special = any(re.fullmatch(r"_\w+_", word) for word in words) and below[-9:] != "._target_"
        if rule is None or special:
            raise RequestError(_code(key, text) if _names_code(words, text) else _stranger(key, text))
        if re.fullmatch(rule[1], text, re.DOTALL) or (rule[2] and said.get(key) == text):
            continue
        if _names_code(words, text):
            raise RequestError(_code(key, text))
        if rule[2]:
            raise RequestError(
                f"{key}={text} stands in a file, which may not say this.\n"
                "  If it is yours, say it again on the command line."
            )
        raise RequestError(_stranger(key, text))


def guard_file(path: Path, content: Any) -> None:
    """Refuse a file that says where else to look for files: a package named there would be imported at once."""
    for words, _ in _leaves(OmegaConf.to_container(content, resolve=False)):
        if any(word.rpartition(".")[2] == "searchpath" for word in words):
            raise RequestError(
                f"{path}: {'.'.join(words)} is for the command line only: hydra.searchpath=[file://FOLDER]."
            )


def guard_target(config: Config, overrides: list[str]) -> None:
    """Refuse a class of the user's own that only a file names: it must be said on the command line."""
    target = config.model.get("target")
    if target is not None and not any(word.lstrip("+").startswith(f"{TARGET}=") for word in overrides):
        raise RequestError(
            f"{TARGET}={target} stands in a file, and no file may name code to run.\n"
            f"  If it is yours, say it again on the command line: {TARGET}={target}"
        )


def guard_inside(cfg: DictConfig, *keys: str) -> None:
    """Refuse a folder within a run or a sweep that leads out of it."""
    for key in keys:
        inside = OmegaConf.select(cfg, key)
        path = PurePath(str(inside))
        if inside is not None and (path.is_absolute() or ".." in path.parts or re.search(r"[\x00-\x1f]", str(path))):
            raise RequestError(f"{key}={str(inside)!r} must be a folder inside the run's or the sweep's own.")


def _code(key: str, text: str) -> str:
    return (
        f"{key}={text} names code to run, which a configuration may not do here.\n"
        "  A class of your own comes in as model=custom model.target=package.module:Class."
    )


def _stranger(key: str, text: str) -> str:
    if ".env_set." in key:
        key, text = key.rpartition(".")[0], "…"  # it may have been copied from the environment
    for end, wanted in WANTED.items():
        if key.endswith(end):
            return f"{key}={text} is not allowed: it must be {wanted}."
    return (
        f"{key}={text} is not allowed: a configuration sets no environment, adds no parts to Hydra, and logs only "
        "into the run's own folder.\n  Leave it out; variables of the environment are set in the shell."
    )


def _names_code(words: tuple[str, ...], text: str) -> bool:
    return bool({"_target_", "()", "class"} & set(words)) or text.startswith("ext://")


def _said(cfg: DictConfig) -> dict[str, str]:
    """What the command line says of Hydra's keys, as text. `Composer.compose` sees that no file speaks for it."""
    words: Any = OmegaConf.to_container(cfg.hydra.overrides.hydra, resolve=False)
    parsed = OverridesParser.create().parse_overrides(words)
    plain = [one for one in parsed if not one.is_sweep_override()]
    return {key: str(value) for one in plain for key, value in leaves(one.value(), one.key_or_group)}


def _leaves(value: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(the words of its key, value) of everything below `value`."""
    if not isinstance(value, (dict, list)):
        yield words, value
        return
    for name, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _leaves(item, (*words, str(name)))
