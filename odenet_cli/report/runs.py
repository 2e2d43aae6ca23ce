"""Find run folders by `run.json`, and read them from that, `config.yaml` and `metrics.jsonl`."""

from __future__ import annotations

import hashlib
import json
import math
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from odenet_cli.config.check import leaves
from odenet_cli.config.saved import read_saved
from odenet_cli.errors import RequestError, first_line
from odenet_cli.metrics import NFE, mean_nfe, read_metrics
from odenet_cli.rundir import as_it_is, check_types, parse_record, runs_below

CONFIG_TYPES: dict[str, Any] = {"seed": int | None}  # required keys of `config.yaml`


@dataclass(frozen=True, kw_only=True)
class Run:
    """Hold the contents of one run folder.

    config   full key -> value, as saved; empty where it cannot be read
    record   content of `run.json`
    metrics  content of `metrics.jsonl`, one record per (step, split)
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
    def final(self) -> dict[str, Any]:
        return self.record.get("final") or {}

    @property
    def network(self) -> tuple[Any, Any]:
        return self.config.get("model.name"), self.config.get("model.target") or self.config.get("model.field")

    @property
    def data_digest(self) -> str:
        """Return the SHA-256 of its data; of data in several files, one over theirs."""
        digest = (self.record.get("data") or {}).get("sha256")
        if isinstance(digest, dict):
            return hashlib.sha256(json.dumps(digest, sort_keys=True).encode()).hexdigest()
        return str(digest or "")

    @property
    def origin(self) -> str:
        """Return the beginning of the SHA-256 of the weights that it began from; of an older run their path."""
        return str(self.record.get("origin") or "")[:12] or str(self.config.get("checkpoint") or "")

    @property
    def lengthened(self) -> str:
        """Return how its length was changed after it had begun, `trainer.epochs 2 → 4`: it is not the run that has been
        so long from the start. The end by trainer.max_steps is no length of the schedule."""
        changes = [stop.get("changed") or {} for stop in self.record.get("resumed") or []]
        return ", ".join(f"{key} {x}" for each in changes for key, x in each.items() if key != "trainer.max_steps")

    @cached_property
    def has_solver(self) -> bool | None:
        """Tell by its function evaluations whether the network holds a solver; None without a record of them."""
        counts = [finite(record.get("nfe_forward")) for record in self.metrics]
        return any(counts) if counts else None

    @cached_property
    def steps_per_epoch(self) -> int | None:
        return next((int(record["step"]) for record in self.records("valid") if record["epoch"] == 1), None)

    def records(self, split: str) -> list[dict[str, Any]]:
        return [record for record in self.metrics if record.get("split") == split]

    def value(self, name: str) -> float | None:
        """Return one number of the run: `parameters`, `epoch_s`, `step_ms`, or a name in its final metrics.

        Of the evaluations of a training step older runs keep the mean over the last record there, so the log is asked.
        """
        if name in ("epoch_s", "step_ms"):
            number: float | None = getattr(self, name)
            return number
        if name in NFE and "nfe_total" not in self.final and (train := self.records("train")):
            return mean_nfe(train)[name]
        return finite(self.record.get(name) if name == "parameters" else self.final.get(name))

    @cached_property
    def step_ms(self) -> float | None:
        """Return the median time of a training step over the records, without the first, which pays for warm-up."""
        times = [record["step_ms"] for record in self.records("train")[1:]]
        return statistics.median(times) if times else None

    @cached_property
    def epoch_s(self) -> float | None:
        """Return the median time of a training epoch, without epochs in which the run was stopped and resumed."""
        stops = [point.get("step", 0) for point in self.record.get("resumed") or []]
        times, before = [], {"step": 0, "epoch": 0}
        for record in self.records("valid"):
            whole = not any(before["step"] < stop < record["step"] for stop in stops)
            if record["epoch"] > before["epoch"] and whole and finite(record.get("epoch_s")) is not None:
                times.append(float(record["epoch_s"]))
            before = record
        if times:
            return statistics.median(times)
        total, epochs = finite(self.final.get("time_s")), finite(self.final.get("epoch"))
        return total / epochs if total is not None and epochs else None


def finite(value: Any) -> float | None:
    """Return `value` if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return value


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """Return the run folders at or below `paths`, each once; raise RequestError for a path without any."""
    folders: dict[Path, Path] = {}
    for path in paths:
        if not os.path.isdir(path):  # Path.is_dir would raise where a name is too long
            raise RequestError(f"{path} is not a folder." if os.path.exists(path) else f"There is no folder {path}.")
        below = runs_below(path)
        if not below:
            raise RequestError(
                f"{path} holds no run: there is no run.json in it or below it.\n"
                "  Give the folder of a run, of a sweep, or one above them, such as runs or sweeps."
            )
        for folder in below:
            folders.setdefault(folder.resolve(), folder)
    return list(folders.values())


def read_run(folder: Path) -> Run:
    """Read the run in `folder`; its status is `unreadable` if a file is damaged or has invalid contents."""
    try:
        record = as_it_is(folder, parse_record(folder))
        metrics = read_metrics(folder)
        config = dict(flatten(read_saved(folder)))
        check_types(config, CONFIG_TYPES, "config.yaml")
        status = record["status"]
        if status == "done" and not config:  # of one that failed it may never have been written
            raise ValueError("there is no config.yaml")
    except Exception as error:  # a damaged file makes its parser raise almost anything
        return Run(folder=folder, status="unreadable", reason=first_line(_why_unreadable(error)))
    reason = first_line(record.get("reason") or "")
    if status == "running":
        reason = f"the last record is of step {metrics[-1]['step']}" if metrics else "no record yet"
    return Run(folder=folder, status=status, reason=reason, config=config, record=record, metrics=metrics)


def _why_unreadable(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return str(error) if isinstance(error, (RequestError, ValueError)) else f"{type(error).__name__}: {error}"


def flatten(section: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Return (full key, value) of all that is below `section`; lists are values, as tuples."""
    return ((key, _as_tuple(value)) for key, value in leaves(section, lists=False))


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, (list, tuple)) else value
