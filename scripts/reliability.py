#!/usr/bin/env python3
"""Run the fault suite and the planted faults, and write results/reliability.md:

    python scripts/reliability.py                all of it: a quarter of an hour and more
    python scripts/reliability.py --quick        without what takes long, and without planted faults
    python scripts/reliability.py --kills 200    kill so often

Exit code 1 where a test failed or a planted fault was not caught; the table says which.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
RESULT = ROOT / "results" / "reliability.md"
MAX_TEXT = 200  # characters of what happened


@dataclass(frozen=True)
class Outcome:
    """Hold one test: the section of the page it belongs to, the fault, what was demanded, what happened."""

    row: str
    fault: str
    demanded: str
    happened: str
    failed: bool


def run_suite(options: list[str], folder: Path) -> tuple[list[Outcome], str]:
    """Run the suite and return the outcome of every test that has a row, and pytest's last line."""
    report = folder / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-q", "tests/faults", f"--junitxml={report}", *options]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    if not report.exists():
        sys.exit(result.stdout)
    outcomes = [read_outcome(case) for case in xml.parse(report).getroot().iter("testcase")]
    outcomes = sorted((o for o in outcomes if o.row), key=lambda o: (int(o.row.split()[0]), o.row))
    return outcomes, result.stdout.splitlines()[-1]


def read_outcome(case: xml.Element) -> Outcome:
    """Return the outcome of a test in pytest's report."""
    pairs = [(entry.get("name"), entry.get("value", "")) for entry in case.iter("property")]
    properties, happened = dict(pairs), [value for name, value in pairs if name == "happened"]
    errors, skipped = [*case.findall("failure"), *case.findall("error")], case.find("skipped")
    if errors:
        text = "FAILED: " + (errors[0].get("message") or "").partition("\n")[0]
    elif skipped is not None:
        text = f"not tried: {skipped.get('message')}"
    else:
        text = "; ".join(happened) or "as demanded"
    fault = (case.get("name") or "").removeprefix("test_").replace("_", " ")
    demanded = " ".join(properties.get("demanded", "").split())
    happened_in = f"{text[:MAX_TEXT]} ({float(case.get('time') or 0):.1f} s)"
    return Outcome(properties.get("row", ""), fault, demanded, happened_in, bool(errors))


def plant_faults(folder: Path) -> list[dict[str, str | bool]]:
    """Run scripts/planted_faults.py and return its outcomes."""
    path = folder / "planted.json"
    subprocess.run([sys.executable, str(ROOT / "scripts" / "planted_faults.py"), "--json", str(path)], cwd=ROOT)
    outcomes: list[dict[str, str | bool]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return outcomes


def page(outcomes: list[Outcome], last: str, faults: list[dict[str, str | bool]], argv: list[str], commit: str) -> str:
    """Return results/reliability.md."""
    import torch

    from odenet_cli import __version__
    from odenet_cli.bench.machine import processor

    lines = [
        "# Faults: what was demanded, and what happened",
        "",
        "Each line is a test of `tests/faults`, which drives the real command in processes of its own.",
        "",
        f"- command: {' '.join(['python', 'scripts/reliability.py', *argv])}",
        f"- commit: {commit}",
        f"- machine: {processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        f"- versions: odenet {__version__}, python {platform.python_version()}, torch {torch.__version__}",
        f"- date: {time.strftime('%Y-%m-%d %H:%M %z')}",
        f"- outcome: {last.strip('= ')}",
    ]
    for row, group in groupby(outcomes, lambda outcome: outcome.row):
        number, _, title = row.partition(" ")
        lines += ["", f"## {number}. {title.capitalize()}", "", "| fault | demanded | happened |", "|---|---|---|"]
        lines += [f"| {escape(o.fault)} | {escape(o.demanded)} | {escape(o.happened)} |" for o in group]
    if faults:
        lines += ["", "## Planted faults", "", "A guarantee is broken in a copy of the source, and a test is run.", ""]
        lines += ["| planted | test | caught |", "|---|---|---|"]
    for fault in faults:
        test = str(fault["test"]).rpartition("::")[2]
        lines.append(f"| {fault['name']} | `{test}` | {'yes' if fault['caught'] else '**no**'} |")
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Return text for a cell of a Markdown table, without folders of this machine."""
    text = re.sub(r"/\S*?pytest-\d+/\w+/?", "", text.replace(str(ROOT), ""))
    return text.replace("|", "\\|").replace("\n", " ")


def describe_commit() -> str:
    """Return the commit, with a plus where the source was changed; the page itself does not count."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True).stdout

    changed = [line for line in git("status", "--porcelain").splitlines() if not line.endswith(RESULT.name)]
    return (git("rev-parse", "HEAD").strip() or "unknown") + "+" * bool(changed)


def main() -> int:
    """Run everything and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="without what takes long, and without planted faults")
    parser.add_argument("--kills", type=int, default=20, help="how often a run is killed, of each kind")
    request, commit = parser.parse_args(), describe_commit()
    with tempfile.TemporaryDirectory() as folder:
        layers = "not slow" if request.quick else "not gpu"
        outcomes, last = run_suite(["-m", layers, f"--kills={request.kills}"], Path(folder))
        faults = [] if request.quick else plant_faults(Path(folder))
    RESULT.write_text(page(outcomes, last, faults, sys.argv[1:], commit), encoding="utf-8")
    print(f"{last.strip('= ')}; {RESULT.relative_to(ROOT)}")
    failed = any(outcome.failed for outcome in outcomes) or not all(fault["caught"] for fault in faults)
    return 1 if failed or not outcomes or (not faults and not request.quick) else 0


if __name__ == "__main__":
    sys.exit(main())
