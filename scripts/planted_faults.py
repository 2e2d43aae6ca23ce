#!/usr/bin/env python3
"""Break each guarantee of the product on purpose, in a copy, and check that a test of tests/faults catches it:

    python scripts/planted_faults.py            all ten, some minutes
    python scripts/planted_faults.py no lock    those whose names begin with one of these words
    python scripts/planted_faults.py --json FILE   also what happened, for scripts/reliability.py

Exit code 1 where one is not caught, or where a patch does not fit the source any more.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("odenet_cli", "conf", "tests", "pyproject.toml")


@dataclass(frozen=True)
class Fault:
    """Hold a patch, `old` becomes `new` in `path`, and the test that must fail then."""

    name: str
    path: str
    old: str
    new: str
    test: str


KILLS, SECURITY = "tests/faults/test_faults_kills.py::", "tests/faults/test_faults_security.py::"
SWEEPS, NUMBERS = "tests/faults/test_faults_sweeps.py::", "tests/faults/test_faults_numbers.py::"
FAULTS = (
    Fault(
        "non-atomic write",
        "odenet_cli/training/checkpoint.py",
        "    write(path, buffer.getbuffer(), previous=previous(path))\n",
        "    path.write_bytes(buffer.getbuffer())\n",
        KILLS + "test_one_kill_of_each_kind",
    ),
    Fault(
        "generator not restored",
        "odenet_cli/training/resume.py",
        "        generators.restore(state, session.device)\n",
        "",
        KILLS + "test_a_network_with_dropout_goes_on",
    ),
    Fault(
        "digest ignored",
        "odenet_cli/training/checkpoint.py",
        '        intact = digest(payload["content"]) == payload["sha256"]\n',
        "        intact = True\n",
        KILLS + "test_a_damaged_checkpoint_gives_way_to_the_one_before[a flipped bit]",
    ),
    Fault(
        "pickle allowed",
        "odenet_cli/training/checkpoint.py",
        'map_location="cpu", weights_only=True',
        'map_location="cpu", weights_only=False',
        SECURITY + "test_a_pickle_in_a_checkpoint_does_not_run",
    ),
    Fault(
        "NaN ignored",
        "odenet_cli/training/failure.py",
        "    if not math.isfinite(value):\n        raise diverged(session, value, step)\n",
        "",
        NUMBERS + "test_a_number_that_is_none_ends_the_run[tiny-nan]",
    ),
    Fault(
        "finished run overwritten",
        "odenet_cli/request/folders.py",
        '    if status == "done":\n',
        '    if status == "done":\n        return shutil.rmtree(folder)\n    if status == "done":\n',
        KILLS + "test_a_finished_run_is_left_alone",
    ),
    Fault(
        "sweep aborted",
        "odenet_cli/commands/train.py",
        "        if sweep:\n            with suppress(OSError)",
        "        if sweep:\n            sys.exit(1)\n            with suppress(OSError)",
        SWEEPS + "test_a_failing_job_leaves_the_others",
    ),
    Fault(
        "exit 0 on failure",
        "odenet_cli/errors.py",
        'exit code."""\n\n    code = 1\n',
        'exit code."""\n\n    code = 0\n',
        NUMBERS + "test_a_learning_rate_that_is_too_large",
    ),
    Fault(
        "no lock",
        "odenet_cli/lock.py",
        "        fcntl.flock(handle, kind | fcntl.LOCK_NB)\n",
        "        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)\n",
        KILLS + "test_a_second_process_is_refused",
    ),
    Fault(
        "doubled metrics",
        "odenet_cli/metrics.py",
        "        self._file.truncate(min(size, os.path.getsize(self.path)))\n",
        "",
        KILLS + "test_one_kill_of_each_kind",
    ),
)


def plant(fault: Fault, tree: Path) -> str:
    """Patch the copy at `tree` and return the text that was there before."""
    path = tree / fault.path
    before = path.read_text(encoding="utf-8")
    if (times := before.count(fault.old)) != 1:
        sys.exit(f"{fault.name}: its text stands {times} times in {fault.path}, not once; mend the patch.")
    path.write_text(before.replace(fault.old, fault.new), encoding="utf-8")
    return before


def run_test(fault: Fault, tree: Path) -> tuple[bool, str]:
    """Return whether the test of a fault fails in `tree`, and the last line of pytest."""
    env = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider"]
    command += ["-m", "numerics or slow", fault.test]
    result = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True)
    last = (result.stdout.strip().splitlines() or [result.stderr[-300:]])[-1]
    # 1 is pytest's code for a test that failed; another code, or an error before it, says nothing of the fault.
    return result.returncode == 1 and "failed" in last, last


def main() -> int:
    """Plant each fault, run its test, and take the fault away again."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="of faults, or how they begin")
    parser.add_argument("--json", type=Path, help="write the outcomes to this file")
    request = parser.parse_args()
    faults = [fault for fault in FAULTS if not request.names or fault.name.startswith(tuple(request.names))]
    if not faults:
        parser.error(f"there are: {', '.join(fault.name for fault in FAULTS)}")
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        tree = Path(folder)
        for part in PARTS:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
            copy(ROOT / part, tree / part)
        for fault in faults:
            before = plant(fault, tree)
            caught, last = run_test(fault, tree)
            (tree / fault.path).write_text(before, encoding="utf-8")
            print(f"{fault.name:<26} {'caught' if caught else 'NOT CAUGHT'}   {fault.test}   {last}", flush=True)
            outcomes.append({"name": fault.name, "caught": caught, "test": fault.test, "last_line": last})
    if request.json:
        request.json.write_text(json.dumps(outcomes, indent=2) + "\n", encoding="utf-8")
    return 0 if all(outcome["caught"] for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
