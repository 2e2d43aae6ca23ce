"""Write and read `metrics.jsonl` of a run. Without torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from odenet_cli.errors import RequestError, name_file
from odenet_cli.files import to_json
from odenet_cli.rundir import check_types, read_text

METRICS: dict[str, Any] = {"step": int, "epoch": int | float, "split": str}  # what a line must have
NFE = ("nfe_forward", "nfe_backward")  # of a training step


class MetricsFile:
    """Hold `metrics.jsonl` open for writing, one record a line, cut back to its first `size` bytes."""

    def __init__(self, folder: Path, size: int = 0) -> None:
        self.folder, self.path = folder, folder / "metrics.jsonl"
        self._file = open(self.path, "ab")  # noqa: SIM115 - open as long as the run
        self._file.truncate(min(size, os.path.getsize(self.path)))

    @property
    def size(self) -> int:
        """Bytes written so far, all of them handed to the system."""
        self._file.flush()
        return os.path.getsize(self.path)

    def write(self, record: dict[str, Any]) -> None:
        with name_file(self.path):
            self._file.write((to_json(record) + "\n").encode())
            self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the records of `metrics.jsonl`, one per (step, split); raise `ValueError` naming a line that is none.

    What stands after the last line break is still being written.
    """
    path = folder / "metrics.jsonl"
    text = read_text(path) if path.exists() else ""
    return _parse_metrics(text[: text.rfind("\n") + 1])


def latest_metrics(folder: Path) -> dict[str, Any] | None:
    """Return the last whole record of `metrics.jsonl`; None before the first."""
    try:
        return dict(json.loads((folder / "metrics.jsonl").read_bytes().split(b"\n")[-2]))
    except (OSError, ValueError, IndexError):
        return None


def steps_of(train: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return how many optimiser steps each record of training holds the means of: those since the one before it."""
    steps = [record["step"] for record in train]
    return [now - before for before, now in zip([0, *steps], steps)]


def mean_nfe(train: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the function evaluations of a training step, forward and backward, as means over the last epoch.

    A record holds the mean over 50 steps or over one, by `trainer.log_every`. Of an epoch that was cut short, as far as
    it came.
    """
    before = [0, *(record["epoch"] for record in train)][: len(train)]  # epochs finished when each record began
    last = [(count, record) for count, record, epoch in zip(steps_of(train), train, before) if epoch == before[-1]]
    steps = sum(count for count, _ in last)
    means = {name: sum(count * record[name] for count, record in last) / steps for name in NFE}
    return {name: int(mean) if mean.is_integer() else mean for name, mean in means.items()}


def check_metrics(folder: Path, size: int) -> None:
    """Raise `RequestError` if the first `size` bytes of the log, those a checkpoint knew, are not whole records."""
    path = folder / "metrics.jsonl"
    try:
        with open(path, "rb") as file:
            text = file.read(size)
        if len(text) < size or text[-1:] not in (b"", b"\n"):
            raise ValueError
        _parse_metrics(text.decode())
        return
    except OSError as error:
        reason = str(error.strerror)
    except ValueError:
        reason = f"its first {size:,} bytes are not the records that preceded the checkpoint"
    raise RequestError(f"{path} is damaged: {reason}.\n  Restore it, or start a new run in another folder.")


def _parse_metrics(text: str) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(text.split("\n")[:-1], 1):
        where = f"line {number} of metrics.jsonl"
        try:
            records.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: {getattr(error, 'msg', error)}: {line[:40]!r}") from error
        check_types(records[-1], METRICS, where)
    return records
