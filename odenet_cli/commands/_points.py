"""The words behind a RUN: `key=value`, at some keys `key=v1,v2`, and every combination of them."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from odenet_cli.config.saved import load
from odenet_cli.config.schema import DATA_PLACES, STEP_CONTROL, Config, SolverConfig
from odenet_cli.errors import RequestError
from odenet_cli.registry import nearest, require

Said = dict[str, list[Any]]


def open_run(argv: Sequence[str]) -> tuple[Path, Config]:
    """Return the folder of the RUN that a command line begins with, and its config, the data where they are now."""
    folder = Path(os.path.expanduser(argv[0]))
    run = load(folder)
    if not any(word.partition("=")[0] in DATA_PLACES for word in argv[1:]):
        from odenet_cli.training.moved import moved

        places = {key.partition(".")[2]: place for key, place in moved(folder, run).items()}
        run = replace(run, data={**run.data, **places}) if places else run
    return folder, run


def read(words: Iterable[str], known: Sequence[str], several: Sequence[str]) -> Said:
    """The values said of each key; only keys that match one of the patterns `several` take more than one."""
    from odenet_cli.request.points import values

    said: Said = {}
    for word in words:
        key, found = values(word)
        if key not in known:
            raise RequestError(f"{key} is not a key here.{nearest(key, known)}\n  There are: {', '.join(known)}.")
        if key in said:
            raise RequestError(f"{key} is said more than once; several values go {key}=a,b.")
        if len(found) > 1 and not any(fnmatch(key, pattern) for pattern in several):
            take = "takes" if len(several) == 1 else "take"
            raise RequestError(f"{word}: only {' and '.join(several)} {take} several values.")
        said[key] = found
    return said


def files(words: Iterable[str], keys: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """Return what is said of these keys, whatever the characters in the names of the files; and the other words."""
    found: dict[str, Path] = {}
    others = []
    for word in words:
        key, _, value = word.partition("=")
        if key not in keys:
            others.append(word)
        elif not value or key in found:
            raise RequestError(f"{word}: say {key}=FILE, once.")
        else:
            found[key] = Path(os.path.expanduser(value))
    return found, others


def product(said: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """Every combination of the values, counted before it is made."""
    from odenet_cli.request.points import MOST

    if (total := math.prod(map(len, said.values()))) > MOST:
        many = ", ".join(f"{key} {len(values):,}" for key, values in said.items() if len(values) > 1)
        raise RequestError(f"{many}: together {total:,} combinations, more than {MOST:,}. Say fewer values.")
    return [dict(zip(said, point)) for point in itertools.product(*said.values())]


def choice(said: Said, key: str, choices: Sequence[str]) -> str:
    """What was said of `key`, which leaves `said`; the first of `choices` where nothing was."""
    value = said.pop(key, list(choices))[0]
    return require(key, str(value).lower() if isinstance(value, bool) else str(value), choices)


def number(said: Said, key: str, default: float, whole: bool = False) -> Any:
    """The positive number said of `key`, which leaves `said`."""
    return numbers(said, key, [default], whole)[0]


def numbers(said: Said, key: str, default: Sequence[float], whole: bool = False, most: float = math.inf) -> list[Any]:
    """The positive numbers said of `key`, which leaves `said`; none is above `most`."""
    found = said.pop(key, list(default))
    for value in found:
        fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0
        if not fits or (whole and not isinstance(value, int)):
            raise RequestError(f"{key}={value} must be a {'whole ' if whole else ''}number above 0.")
        if value > most:
            raise RequestError(f"{key}={value} is out of range: it must be {most:,} or less.")
    return found


def counted(name: str, text: str, most: int) -> int:
    """The whole number from 1 to `most` that is said after `name`."""
    number = int(text) if text.isdecimal() and len(text) < 20 else 0
    if not 1 <= number <= most:
        raise RequestError(f"{name}{text[:40]}{'…' * (len(text) > 40)} must be a whole number from 1 to {most:,}.")
    return number


def own_class(run: Config, said: Said) -> None:
    """Refuse a run with a class of the user's own unless `model.target` says it again."""
    if run.model["name"] == "custom" and "model.target" not in said:
        raise RequestError(
            "this run has a class of your own, and no file may name code to run.\n"
            f"  Say it again: model.target={run.model.get('target')}"
        )


def spelled(solver: SolverConfig) -> str:
    """A solver in a table: `dopri5 0.001`, `euler 1 step`."""
    if solver.rtol is None:
        return f"{solver.method} {solver.steps} step{'s' * (solver.steps != 1)}"
    apart = "" if solver.atol == solver.rtol else f"/{solver.atol:g}"
    control = [f", {name} {getattr(solver, name)}" for name in STEP_CONTROL if getattr(solver, name) is not None]
    return f"{solver.method} {solver.rtol:g}{apart}{''.join(control)}"
