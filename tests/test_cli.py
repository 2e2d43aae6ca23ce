"""The dispatcher answers at once, and every dead end says what to do next."""

import importlib
import os
import re
import shutil
import subprocess
import sys
import time

import pytest

from odenet_cli import __version__, cli
from odenet_cli.cli import commands
from odenet_cli.commands._completion import offers
from odenet_cli.config.presets import options
from odenet_cli.errors import RequestError
from odenet_cli.registry import ELSEWHERE, names, nearest


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


COMMANDS = ["audit", "bench", "data", "docs", "doctor", "eval", "export", "gradcheck", "help", "info"]
COMMANDS += ["list", "predict", "report", "reproduce", "rerun", "runs", "sample", "train", "tune", "verify"]


def test_help_lists_every_command(odenet):
    done = odenet("--help")
    assert done.returncode == 0
    assert re.findall(r"^  (\w+) +\S", done.stdout, re.M) == commands() == COMMANDS
    assert all(hasattr(importlib.import_module(f"odenet_cli.commands.{name}"), "main") for name in COMMANDS)


def test_version(odenet):
    assert odenet("--version", fresh=True).stdout == f"odenet {__version__}\n"


@pytest.mark.parametrize(
    ("group", "name", "ours"),
    [("solver", "RK45", "dopri5"), ("solver", "DOP853", "dopri8"), ("gradient", "autograd", "backprop")],
)
def test_a_name_of_another_library_is_known(group, name, ours):
    """scipy's RK45 is Dormand & Prince's pair, not the rk4 that is spelled most alike."""
    assert nearest(name, options(group)) == f" Did you mean `{ours}`?"
    words = [*options("solver"), *options("gradient"), "float64", "true", "false"]
    assert set(ELSEWHERE.values()) <= set(words)
    assert set(words).isdisjoint(ELSEWHERE)


def test_an_unknown_command_names_the_nearest(odenet):
    done = odenet("trian")
    assert done.returncode == 2
    assert "Did you mean `train`?" in done.stderr
    assert "list" in done.stderr


def test_an_error_wraps_on_a_terminal_and_a_command_stays_one_line(monkeypatch, capsys):
    text = f"error: {'word ' * 7}--config-dir/here.\n  Try it: odenet train resume=runs/a-long-name"
    monkeypatch.setenv("COLUMNS", "50")
    cli.report(RequestError(), text, 2)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    cli.report(RequestError(), text, 2)
    assert capsys.readouterr().err == f"{text}\n{text.replace(' --', chr(10) + '--')}\n"


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


def test_list_knows_the_equations_of_a_fit(odenet):
    """Each field is there with the first line of its docstring."""
    lines = odenet("list", "fields", COLUMNS="200").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == names("odenet_cli.fields")
    assert "  pendulum         A damped pendulum of any amplitude; angles in radians." in lines
    assert lines == [line for line in odenet("list", COLUMNS="200").stdout.splitlines() if line in lines]


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
    assert done.stderr == ("error: ValueError: a bug\n  This is unexpected. ODENET_DEBUG=1 shows the traceback.\n")
    assert "Traceback" in fail(ODENET_DEBUG="1").stderr


def test_ctrl_c_is_130_without_a_traceback(odenet):
    done = odenet("train", "data=digits", "device=cpu", "seed=9", fakes=True)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr


@pytest.fixture
def complete(odenet, tmp_path):
    """Return what a shell offers for the last word of a line, as its own completion calls our script."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "odenet").write_text(f'#!/bin/sh\nexec {sys.executable} -m odenet_cli "$@"\n')
    (tmp_path / "bin" / "odenet").chmod(0o755)
    end = {
        "bash": 'COMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}}; _odenet_complete; printf "%s\n" "${{COMPREPLY[@]}}"',
        "zsh": 'compadd() {{ print -l -- $offers }}; words=("${{(@s: :):-{line}}}"); CURRENT=$#words; _odenet_complete',
        "fish": 'complete -C "{line}"',
    }

    def run(line, shell="bash"):
        if shutil.which(shell) is None:
            pytest.skip(f"there is no {shell}")
        script = odenet("-sc", f"install={shell}").stdout
        env = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HOME": str(tmp_path)}
        code = f"{'compdef() {{ : }}' if shell == 'zsh' else ''}\n{script}\n{end[shell].format(line=line)}"
        done = subprocess.run([shell, "-c", code], capture_output=True, text=True, env=env, cwd=tmp_path)
        assert done.stderr == ""
        return done.stdout.split()

    return run


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_tab_completion_in_each_shell(complete, shell):
    assert complete("odenet tr", shell) == ["train"]
    assert complete("odenet train solver=rk4 solver.st", shell)[-1].endswith("solver.steps=")


def test_tab_completion_knows_every_command(tmp_path, monkeypatch):
    """Options in both spellings, their choices, keys, what there is to name, and the runs here."""
    for n in (1, 2):
        (tmp_path / "runs" / f"day{n}").mkdir(parents=True)
        (tmp_path / "runs" / f"day{n}" / "run.json").write_text(f'{{"status": "done", "started": "2026-0{n}"}}')
    monkeypatch.chdir(tmp_path)
    assert offers("odenet list s") == ["solvers"]
    assert offers("odenet eval ")[:4] == ["last", "last~1", "runs/day2", "runs/day1"]
    assert offers("odenet eval last --sp") == ["--split"]
    assert offers("odenet eval last split=t") == ["split=test", "split=train"]
    assert offers("odenet eval last --split v") == ["valid"]
    assert "eval.solver.rtol=" in offers("odenet eval last eval.s")
    assert offers("odenet report last~") == ["last~1"]
    assert offers("odenet train resume=l") == ["resume=last", "resume=last~1"]
    assert offers("odenet train --config-dir runs/day1") == ["runs/day1"]
    assert offers("odenet train --dr") == ["--dry-run"]
    assert offers("odenet help solver.rt") == ["solver.rtol"]
    assert offers("odenet reproduce fig3 --dry") == ["--dry-run"]
    assert offers("odenet verify tab") == ["table1", "table2"]
    assert set(offers("odenet ")) >= set(commands())
    for command in commands():
        assert command == "train" or offers(f"odenet {command} "), command
