"""Runs as their folders tell them: found by `run.json`, read from that, `config.yaml` and `metrics.jsonl`."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from odenet_cli.config.saved import read_saved
from odenet_cli.errors import RequestError
from odenet_cli.rundir import check_types, parse_record, read_metrics

# What must be there, and of which kind.
CONFIG: dict[str, Any] = {"seed": int | None}
RUN = {"run.json", "metrics.jsonl"}  # what only the folder of a run holds


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run folder.

    config   full key -> value, as saved; empty where it cannot be read
    record   what `run.json` says
    metrics  what `metrics.jsonl` says, one record per (step, split)
    """

    folder: Path
    status: str
    reason: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.status == "done"

    @property
    def seed(self) -> int:
        return int(self.config.get("seed") or 0)

    @property
    def model(self) -> tuple[Any, Any]:
        """The network, as far as its name tells."""
        return self.config.get("model.name"), self.config.get("model.target")

    @property
    def digest(self) -> str:
        """The SHA-256 of its data; of data in several files, one over theirs."""
        found = (self.record.get("data") or {}).get("sha256")
        if isinstance(found, dict):
            return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
        return str(found or "")

    @cached_property
    def solves(self) -> bool | None:
        """Does its network hold a solver? None where no record tells."""
        counts = [number(record.get("nfe_forward")) for record in self.metrics]
        return any(counts) if counts else None

    @cached_property
    def per_epoch(self) -> int | None:
        """Optimiser steps of an epoch, as the end of the first one tells."""
        return next((int(record["step"]) for record in self.of("valid") if record["epoch"] == 1), None)

    def of(self, split: str) -> list[dict[str, Any]]:
        """The records of one split."""
        return [record for record in self.metrics if record.get("split") == split]

    def value(self, name: str) -> float | None:
        """One number of the run: `parameters`, `epoch_s`, or a name in its final metrics."""
        if name == "parameters":
            return number(self.record.get("parameters"))
        return self.epoch_s if name == "epoch_s" else number((self.record.get("final") or {}).get(name))

    @cached_property
    def step_ms(self) -> float | None:
        """Median time of a step of training over its records; the first, which pays for warming up, is left out."""
        return statistics.median(times) if (times := [record["step_ms"] for record in self.of("train")[1:]]) else None

    @cached_property
    def epoch_s(self) -> float | None:
        """Median time of an epoch of training; an epoch in which the run was stopped and went on is left out."""
        stops = [point.get("step", 0) for point in self.record.get("resumed") or []]
        times, before = [], {"step": 0, "epoch": 0}
        for record in self.of("valid"):
            whole = not any(before["step"] < stop < record["step"] for stop in stops)
            if record["epoch"] > before["epoch"] and whole and number(record.get("epoch_s")) is not None:
                times.append(float(record["epoch_s"]))
            before = record
        if times:
            return statistics.median(times)
        final = self.record.get("final") or {}
        total, epochs = number(final.get("time_s")), number(final.get("epoch"))
        return total / epochs if total is not None and epochs else None


def number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return value


def find(paths: Sequence[Path]) -> list[Path]:
    """The run folders at or below `paths`, each once; a path without any is refused."""
    found: dict[Path, Path] = {}
    for path in paths:
        if not os.path.isdir(path):  # a Path would raise where a name is too long
            raise RequestError(f"{path} is not a folder." if os.path.exists(path) else f"There is no folder {path}.")
        here = sorted(_below(path), key=_natural)
        if not here:
            raise RequestError(
                f"{path} holds no run: there is no run.json in it or below it.\n"
                "  Give the folder of a run, of a sweep, or one above them, such as runs or sweeps."
            )
        for folder in here:
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def _below(path: Path) -> Iterator[Path]:
    """The run folders, and what may hide one: a folder that may not be entered, a run without its record."""
    closed: list[Path] = []
    seen: set[Path] = set()
    for where, folders, files in os.walk(
        path, onerror=lambda error: closed.append(Path(error.filename)), followlinks=True
    ):
        here = Path(where)
        run = bool(RUN & set(files))
        looped = here.resolve() in seen
        seen.add(here.resolve())
        folders[:] = [] if run or looped else [name for name in folders if not name.startswith(".")]
        if run and not looped:
            yield here
    yield from closed


def _natural(path: Path) -> list[tuple[int, str]]:
    """Job 10 comes after job 2."""
    parts = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def read(folder: Path) -> Run:
    """The run in `folder`; files that cannot be read, or say what no run would, make it `unreadable`."""
    try:
        record = parse_record(folder)
        metrics = read_metrics(folder)
        config = dict(flat(read_saved(folder)))
        check_types(config, CONFIG, "config.yaml")
        status = record["status"]
    except Exception as error:  # whatever a damaged file makes a parser raise
        reason = first_line(unreadable(error))
        return Run(folder=folder, status="unreadable", reason=reason)
    reason = first_line(record.get("reason") or "")
    if status == "running":
        last = f"the last record is of step {metrics[-1]['step']}" if metrics else "no record yet"
        reason = f"still running, or killed without a word; {last}"
    return Run(folder=folder, status=status, reason=reason, config=config, record=record, metrics=metrics)


def unreadable(error: Exception) -> str:
    """Why a file of a run cannot be read."""
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return str(error) if isinstance(error, (RequestError, ValueError)) else f"{type(error).__name__}: {error}"


def first_line(text: object) -> str:
    return str(text).partition("\n")[0]


def flat(section: Mapping[str, Any], key: str = "") -> Iterator[tuple[str, Any]]:
    """(full key, value) of all that is below `section`; lists are values, as tuples."""
    for name, value in section.items():
        full = f"{key}.{name}" if key else str(name)
        if isinstance(value, dict):
            yield from flat(value, full)
        else:
            yield full, _frozen(value)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value
