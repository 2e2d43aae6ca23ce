"""Where numbers come from: the command, and the commits, machines and data of the runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from odenet_cli.report.runs import Run
from odenet_cli.rundir import without_places

SHOWN = 4


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a table or a figure is made from. `command` made it, `trained` made the runs; both without places."""

    command: str
    trained: list[str]
    commits: list[str]
    machines: list[str]
    versions: list[str]
    data: list[str]

    def lines(self) -> list[str]:
        """One `name: value` for each."""
        named = {"command": [self.command], "trained by": self.trained, "commit": self.commits}
        named |= {"machine": self.machines, "versions": self.versions, "data": self.data}
        return [f"{name}: {_listed(values)}" for name, values in named.items()]

    def text(self) -> str:
        """For the metadata of a figure."""
        return "\n".join(self.lines())


def source(command: str, runs: Sequence[Run]) -> Source:
    """The source of a report on `runs`."""
    return Source(
        command=without_places(command) or "",
        trained=distinct(without_places(run.record.get("command")) for run in runs),
        commits=distinct(run.record.get("git") or "unknown" for run in runs if run.record),
        machines=distinct(run.record.get("device") for run in runs),
        versions=distinct(_versions(run.record.get("versions")) for run in runs),
        data=distinct(data(run) for run in runs),
    )


def data(run: Run) -> str:
    """The data set a run used, and the SHA-256 of each of its files."""
    record = run.record.get("data") or {}
    digest = record.get("sha256")
    told = ", ".join(f"{name} {value}" for name, value in digest.items()) if isinstance(digest, dict) else digest
    return f"{record['used']} ({told})" if record.get("used") else ""


def _versions(record: dict[str, str] | None) -> str:
    return ", ".join(f"{name} {version}" for name, version in (record or {}).items())


def distinct(values: Iterable[Any]) -> list[str]:
    """What there is among the values, each once."""
    return list(dict.fromkeys(str(value) for value in values if value))


def _listed(values: list[str]) -> str:
    more = f"; and {len(values) - SHOWN} more, all in the JSON" if len(values) > SHOWN else ""
    return "; ".join(values[:SHOWN]) + more if values else "unknown"
