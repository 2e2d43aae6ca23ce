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
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
RESULT = ROOT / "results" / "reliability.md"
SAID = 200  # characters of what happened


@dataclass(frozen=True)
class Outcome:
    """One test: the row of the table it belongs to, the fault, what was demanded, what happened."""

    row: str
    fault: str
    demanded: str
    happened: str
    failed: bool


def tested(words: list[str], folder: Path) -> tuple[list[Outcome], str]:
    """Run the suite; every test's outcome, and pytest's last line."""
    report = folder / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-q", "tests/faults", f"--junitxml={report}", *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    if not report.exists():
        sys.exit(done.stdout)
    cases = [outcome(case) for case in xml.parse(report).getroot().iter("testcase")]
    cases = sorted((case for case in cases if case.row), key=lambda case: int(case.row.split()[0]))
    return cases, done.stdout.splitlines()[-1]


def outcome(case: xml.Element) -> Outcome:
    """A test of pytest's report."""
    said = {one.get("name"): one.get("value", "") for one in case.iter("property")}
    faults = [one for kind in ("failure", "error") for one in case.findall(kind)]
    skipped = case.find("skipped")
    seen = [one.get("value", "") for one in case.iter("property") if one.get("name") == "happened"]
    if faults:
        text = "FAILED: " + (faults[0].get("message") or "").partition("\n")[0]
    elif skipped is not None:
        text = f"not tried: {skipped.get('message')}"
    else:
        text = "; ".join(seen) or "as demanded"
    name = (case.get("name") or "").removeprefix("test_").replace("_", " ")
    demanded = " ".join((said.get("demanded") or "").split())
    seconds = float(case.get("time") or 0)
    return Outcome(said.get("row", ""), name, demanded, f"{text[:SAID]} ({seconds:.1f} s)", bool(faults))


def planted(folder: Path) -> list[dict[str, str | bool]]:
    """The planted faults, caught or not."""
    found = folder / "planted.json"
    subprocess.run([sys.executable, str(ROOT / "scripts" / "planted_faults.py"), "--json", str(found)], cwd=ROOT)
    loaded: list[dict[str, str | bool]] = json.loads(found.read_text(encoding="utf-8")) if found.exists() else []
    return loaded


def written(cases: list[Outcome], last: str, faults: list[dict[str, str | bool]], argv: list[str], commit: str) -> str:
    """The file."""
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
    for row in dict.fromkeys(case.row for case in cases):
        number, _, title = row.partition(" ")
        lines += ["", f"## {number}. {title.capitalize()}", "", "| fault | demanded | happened |", "|---|---|---|"]
        mine = [case for case in cases if case.row == row]
        lines += [f"| {cell(one.fault)} | {cell(one.demanded)} | {cell(one.happened)} |" for one in mine]
    if faults:
        lines += ["", "## Planted faults", "", "A guarantee is broken in a copy of the source, and a test is run.", ""]
        lines += ["| planted | test | caught |", "|---|---|---|"]
        lines += [
            f"| {one['name']} | `{str(one['test']).rpartition('::')[2]}` | {'yes' if one['caught'] else '**no**'} |"
            for one in faults
        ]
    return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    """Text inside a table of Markdown, without folders of this machine."""
    text = re.sub(r"/\S*?pytest-\d+/\w+/?", "", text.replace(str(ROOT), ""))
    return text.replace("|", "\\|").replace("\n", " ")


def head() -> str:
    """The commit, with a plus where the source was changed, the result itself not counted."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip() or "unknown"
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True).stdout.splitlines()
    return commit + "+" * any(not line.endswith(RESULT.name) for line in changed)


def main() -> int:
    """Run everything, write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="without what takes long, and without planted faults")
    parser.add_argument("--kills", type=int, default=20, help="how often a run is killed, of each kind")
    asked, commit = parser.parse_args(), head()
    layers = "not slow" if asked.quick else "not gpu"
    with tempfile.TemporaryDirectory() as folder:
        cases, last = tested(["-m", layers, f"--kills={asked.kills}"], Path(folder))
        faults = [] if asked.quick else planted(Path(folder))
    RESULT.write_text(written(cases, last, faults, sys.argv[1:], commit), encoding="utf-8")
    print(f"{last.strip('= ')}; {RESULT.relative_to(ROOT)}")
    bad = any(case.failed for case in cases) or not all(one["caught"] for one in faults)
    return 1 if bad or not cases or (not faults and not asked.quick) else 0


if __name__ == "__main__":
    sys.exit(main())
