"""The dispatcher answers at once, and every dead end says what to do next."""

import importlib
import json
import os
import re
import subprocess
import sys
import time

import pytest

from odenet_cli import __version__
from odenet_cli.cli import commands


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["--version"], ["nonsense"]])
def test_help_needs_no_heavy_imports(words):
    code = (
        "import sys, odenet_cli.cli as cli; cli.main();"
        "print([m for m in ('torch', 'hydra', 'omegaconf', 'numpy') if m in sys.modules], file=sys.stderr)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert time.perf_counter() - start < 2  # half a second on a quiet machine
    assert done.stderr.splitlines()[-1] == "[]"


COMMANDS = ["audit", "bench", "data", "docs", "eval", "export", "gradcheck", "help", "info"]
COMMANDS += ["list", "report", "reproduce", "rerun", "runs", "sample", "train", "verify"]


def test_help_lists_every_command(odenet):
    done = odenet("--help")
    assert done.returncode == 0
    assert re.findall(r"^  (\w+) +\S", done.stdout, re.M) == commands() == COMMANDS
    assert all(hasattr(importlib.import_module(f"odenet_cli.commands.{name}"), "main") for name in COMMANDS)


def test_version(odenet):
    assert odenet("--version", fresh=True).stdout == f"odenet {__version__}\n"


def test_an_unknown_command_names_the_nearest(odenet):
    done = odenet("trian")
    assert done.returncode == 2
    assert "Did you mean `train`?" in done.stderr
    assert "list" in done.stderr


@pytest.mark.parametrize("words", [["list"], ["list", "solvers"], ["list", "--help"], ["data", "--help"]])
def test_lists_need_no_torch(odenet, words):
    done = odenet(*words, fresh=True, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert "| torch\n" not in done.stderr


def test_list_knows_the_solvers_and_refuses_other_kinds(odenet):
    assert "dopri5" in odenet("list", "solvers").stdout
    done = odenet("list", "solver5")
    assert done.returncode == 2
    assert "Did you mean `solvers`?" in done.stderr


def test_a_reader_that_leaves_is_no_error():
    command = f"{sys.executable} -m odenet_cli list | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


BROKEN = """
import sys
from odenet_cli import cli
def dispatch(words):
    raise ValueError("a bug")
cli.dispatch = dispatch
sys.exit(cli.main())
"""


def test_an_unexpected_error_is_short_unless_debugging():
    def fail(**environ):
        command = [sys.executable, "-c", BROKEN, "list"]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environ})

    done = fail()
    assert done.returncode == 1
    assert done.stderr == ("error: ValueError: a bug\n  This was not expected. ODENET_DEBUG=1 shows the traceback.\n")
    assert "Traceback" in fail(ODENET_DEBUG="1").stderr


def test_ctrl_c_is_130_without_a_traceback(odenet):
    done = odenet("train", "data=digits", "device=cpu", "seed=9", fakes=True)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr


def test_tab_completion_in_bash(odenet, tmp_path):
    script = odenet("train", "-sc", "install=bash").stdout
    (tmp_path / "odenet").write_text(f'#!/bin/sh\nexec {sys.executable} -m odenet_cli "$@"\n')
    (tmp_path / "odenet").chmod(0o755)

    def complete(line):
        code = f'{script}\nCOMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}}; _odenet_complete; echo "${{COMPREPLY[*]}}"'
        env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        return subprocess.run(["bash", "-c", code], capture_output=True, text=True, env=env).stdout.split()

    assert complete("odenet tr") == ["train"]
    assert complete("odenet list s") == ["solvers"]
    assert "odenet" in complete("odenet train model=")  # bash has kept `model=`
    assert complete("odenet train solver=rk4 solver.st") == ["solver.steps="]


def test_info_as_json_is_what_a_report_asks_for(capsys):
    assert importlib.import_module("odenet_cli.commands.info").main(["--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {"odenet": __version__, "cuda": facts["cuda"], "mps": facts["mps"]}.items() <= facts.items()
