"""Tables and figures of any runs: odenet report PATH ... [--out FOLDER] [by=key,key] [x=key]"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from odenet_cli.errors import RequestError
from odenet_cli.registry import nearest

HELP = """usage: odenet report PATH ... [--out FOLDER] [by=key,key] [x=key]

Compares runs: one row for each setting of the keys in which they differ, mean ± standard deviation over seeds.
A PATH is the folder of a run, of a sweep, or any folder above them.

  odenet report sweeps/2026-11-23/171403-482113
  odenet report runs --out results/mine          also table.md, table.csv, table.json, and figures as SVG and PNG
  odenet report runs by=model.name,solver.rtol   the keys that make a row; left out: those that differ

  --out FOLDER   write there too
  by=key,key     group by these keys, and take means over the others
  x=key          the key that figures have as their axis; left out: every number that differs

Runs that are not done are listed, and enter no mean."""
OPTIONS = ("--out", "by", "x")


@dataclass
class Request:
    """Hold what the command line asks for."""

    paths: list[Path] = field(default_factory=list)
    out: Path | None = None
    by: list[str] | None = None
    x: str | None = None


def main(argv: list[str]) -> int:
    """Print the table; write the files."""
    if not argv or any(word in ("-h", "--help") for word in argv):
        print(HELP)
        return 0 if argv else 2
    request = parse(argv)

    from odenet_cli.report import export
    from odenet_cli.report.compare import compare
    from odenet_cli.report.provenance import Provenance
    from odenet_cli.report.runs import find_runs, read_run
    from odenet_cli.report.table import comparison_text

    runs = [read_run(folder) for folder in find_runs(request.paths)]
    comparison = compare(runs, request.by)
    provenance = Provenance.of(shlex.join(["odenet", "report", *argv]), runs)
    axes = [require_axis(request.x, comparison.numeric)] if request.x else comparison.axes
    print(comparison_text(comparison, provenance), flush=True)
    if request.out:
        folder = make_folder(request.out)
        files = export.write_table(folder, comparison, provenance)
        files += export.write_figures(folder, comparison, provenance, axes)
        print(f"\n{len(files)} files in {folder}: {', '.join(path.name for path in files)}")
    return 0


def parse(argv: list[str]) -> Request:
    """Read the command line; raise RequestError for an unknown option. A path may hold `=`, as a sweep's folders do."""
    request, words, options = Request(), list(argv), dict[str, str]()
    while words:
        word = words.pop(0)
        key, equals, value = word.partition("=")
        key = "--out" if key == "out" and equals else key  # as other commands write it
        if key not in OPTIONS or not (equals or key == "--out"):
            if word.startswith("-") or (equals and "/" not in word and not os.path.exists(word)):
                raise RequestError(
                    f"{key} is not an option here.{nearest(key, OPTIONS)}\n  There are: {', '.join(OPTIONS)}."
                )
            request.paths.append(Path(os.path.expanduser(word)))
            continue
        if key in options:
            raise RequestError(f"{key} is said more than once.")
        options[key] = value if equals else words.pop(0) if words else ""
        if not options[key]:
            raise RequestError(f"{key} needs a value.")
    if "--out" in options:
        request.out = Path(os.path.expanduser(options["--out"]))
    if "by" in options:
        request.by = list(dict.fromkeys(filter(None, options["by"].split(","))))
    request.x = options.get("x")
    if not request.paths:
        raise RequestError("no path given: the folder of a run, of a sweep, or one above them, such as runs or sweeps.")
    if request.x and not request.out:
        raise RequestError(f"x={request.x} is the axis of figures; say where to write them: --out FOLDER.")
    return request


def require_axis(key: str, numeric: list[str]) -> str:
    """Return `key` if figures can have it as their axis, else raise RequestError."""
    if key not in numeric:
        known = f"There are: {', '.join(numeric)}." if numeric else "There is none."
        raise RequestError(f"x={key} is not a number that differs between the rows.{nearest(key, numeric)}\n  {known}")
    return key


def make_folder(folder: Path, option: str = "--out ") -> Path:
    """Make `folder` if it is not there; raise RequestError, which names it behind `option`, where it cannot be used."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"{option}{folder} cannot be made: {error.strerror}.") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RequestError(f"{option}{folder} cannot be written: no permission.")
    return folder
