"""Record where numbers come from: the command, and the commits, machines and data of the runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from odenet_cli.report.runs import Run
from odenet_cli.rundir import without_places

MAX_LISTED = 4


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Hold the sources of a table or a figure.

    command  that made the report, and `trained`, those that made the runs; both without places on the machine
    """

    command: str
    trained: list[str]
    commits: list[str]
    machines: list[str]
    versions: list[str]
    data: list[str]

    @classmethod
    def of(cls, command: str, runs: Sequence[Run]) -> Provenance:
        return cls(
            command=without_places(command) or "",
            trained=distinct(without_places(run.record.get("command")) for run in runs),
            commits=distinct(run.record.get("git") or "unknown" for run in runs if run.record),
            machines=distinct(run.record.get("device") for run in runs),
            versions=distinct(_named_values(run.record.get("versions") or {}) for run in runs),
            data=distinct(data_of(run) for run in runs),
        )

    def lines(self) -> list[str]:
        """Return one `name: value` for each."""
        named = {"command": [self.command], "trained by": self.trained, "commit": self.commits}
        named |= {"machine": self.machines, "versions": self.versions, "data": self.data}
        return [f"{name}: {_shortened(values)}" for name, values in named.items()]

    def text(self) -> str:
        return "\n".join(self.lines())


def data_of(run: Run) -> str:
    """Return the data set a run used, and the SHA-256 of each of its files; what is drawn anew has none."""
    record = run.record.get("data") or {}
    digest = record.get("sha256")
    text = _named_values(digest) if isinstance(digest, dict) else digest
    return f"{record['used']} ({text})" if text and record.get("used") else record.get("used") or ""


def _named_values(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def distinct(values: Iterable[Any]) -> list[str]:
    """Return the values that are not empty as text, each once."""
    return list(dict.fromkeys(str(value) for value in values if value))


def _shortened(values: list[str]) -> str:
    more = f"; and {len(values) - MAX_LISTED} more, all in the JSON" if len(values) > MAX_LISTED else ""
    return "; ".join(values[:MAX_LISTED]) + more if values else "unknown"
