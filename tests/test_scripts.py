"""The scripts that reproduce the paper start what they say; the faults that are planted still fit the source."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from odenet_cli.commands.reproduce import parse
from odenet_cli.reproduce.plan import plan

ROOT = Path(__file__).parents[1]
WORKLOADS = ("w1", "train", "w2", "w3", "w4")  # of scripts/one_gpu.sh, in its order
SCRIPTS = ("scripts/reproduce_paper.sh", "scripts/slurm/one_node.sbatch", "scripts/slurm/launcher.sh")
EXPERIMENTS = [path.stem for path in sorted((ROOT / "conf" / "experiment").glob("*.yaml"))]


def dry(script, tmp_path, *words, odenet=f'exec "{sys.executable}" -m odenet_cli "$@"'):
    """What the script prints where `odenet` is this checkout's, or a line of shell."""
    command = tmp_path / "bin" / "odenet"
    command.parent.mkdir(exist_ok=True)
    command.write_text(f"#!/bin/sh\n{odenet}\n")
    command.chmod(0o755)
    first = {"PATH": str(command.parent), "PYTHONPATH": str(ROOT)}
    paths = {name: os.pathsep.join(filter(None, [path, os.environ.get(name)])) for name, path in first.items()}
    env = {**os.environ, **paths, "SLURM_GPUS_ON_NODE": "4"}
    said = ["bash", str(ROOT / script), "--dry-run", "--seeds", "1", *words]
    return subprocess.run(said, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.numerics
def test_a_script_plans_every_experiment_at_the_papers_length(tmp_path):
    done = dry("scripts/slurm/one_node.sbatch", tmp_path, "device=cuda", "solver.rtol=1e-3")
    assert done.returncode == 0, done.stderr
    heads = re.findall(r"^(\w+), (\w+) preset: (\d+) cells?(.*?): (.*)", done.stdout, re.MULTILINE)
    assert [head[0] for head in heads] == EXPERIMENTS
    assert {(preset, at_once) for _, preset, _, at_once, _ in heads} == {("paper", ", 4 at a time")}
    assert all("160 epochs" in about for item, *_, about in heads if item in ("table1", "fig3"))
    commands = re.findall(r"^  (\w+) +(odenet train .*)", done.stdout, re.MULTILINE)
    assert len(commands) == sum(int(head[2]) for head in heads)
    assert all(" device=cuda " in command for _, command in commands)
    assert {"runs", "results"}.isdisjoint(path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_asks_for_every_experiment_at_the_papers_length(script, tmp_path):
    """And what else it says of a run can be composed."""
    if "launcher" in script:
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    command, *words = dry(script, tmp_path, "device=cuda", odenet='printf "%s\\n" "$@"').stdout.splitlines()
    request = parse(words)
    assert (command, request.items, request.preset, request.seeds) == ("reproduce", EXPERIMENTS, "paper", 1)
    assert request.jobs == (4 if "one_node" in script else 1)
    (cell,) = plan("fig7", "paper", 1, (), request.overrides).cells
    assert cell.config.device == "cuda"


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_opens_with_how_to_start_it_and_stops_at_the_first_error(script):
    text = (ROOT / script).read_text()
    assert text.startswith("#!/usr/bin/env bash\n# ")
    assert script in text.partition("\nset -euo pipefail\n")[0]
    assert text.rstrip().endswith('"$@"')


def test_every_launch_script_is_here():
    found = {str(path.relative_to(ROOT)) for path in (ROOT / "scripts").rglob("*.s[!v]*") if "bench" not in path.parts}
    assert found == {*SCRIPTS, "scripts/one_gpu.sh"}


def test_one_gpu_lists_its_parts_within_nine_minutes(tmp_path):
    """Tests, the five workloads and the paper's cells; the limits of all but the last leave time for cells."""
    script = ["bash", str(ROOT / "scripts" / "one_gpu.sh"), str(tmp_path / "out"), "--dry-run", "data.root=/data"]
    lines = subprocess.run(script, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    parts = [re.fullmatch(r"(\S+), at most (\d+) s: (.*)", line).groups() for line in lines]
    assert [name for name, *_ in parts] == ["machine", "tests", *(f"bench-{w}" for w in WORKLOADS), "cells"]
    assert sum(int(seconds) for _, seconds, _ in parts[:-1]) <= 540 - 90
    commands = {name: command for name, _, command in parts}
    assert "-m gpu" in commands["tests"]
    assert all("device=cuda" in commands[f"bench-{w}"] for w in WORKLOADS)
    assert commands["cells"].startswith("odenet reproduce table1 --preset paper")
    assert commands["cells"].endswith("device=cuda data.root=/data")
    assert not (tmp_path / "out").exists()


def test_one_gpu_goes_on_and_names_what_failed(tmp_path):
    """With stand-ins for its commands: one bench fails, the cells run out of time; a second call repeats only these."""
    commands, out = tmp_path / "bin", tmp_path / "out"
    commands.mkdir()
    said = tmp_path / "said"
    (commands / "python").write_text(f'#!/bin/sh\necho "python $*" >> {said}\n')
    (commands / "odenet").write_text(
        f'#!/bin/sh\necho "odenet $*" >> {said}\ncase "$*" in "bench w2"*) exit 1;; reproduce*) kill -TERM $$;; esac\n'
    )
    for name in ("python", "odenet"):
        (commands / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}
    script = ["bash", str(ROOT / "scripts" / "one_gpu.sh"), str(out)]

    first = subprocess.run(script, env=env, capture_output=True, text=True, timeout=60)
    assert first.returncode == 1
    assert f"bench-w2: exit code 1, see {out}/bench-w2.txt" in first.stdout
    assert "cells: not done when its time was up" in first.stdout
    assert len(said.read_text().splitlines()) == 9
    said.unlink()
    again = subprocess.run(script, env=env, capture_output=True, text=True, timeout=60)
    assert "tests: done before" in again.stdout
    ran = [line.split()[:3] for line in said.read_text().splitlines()]
    assert ran[1:] == [["odenet", "bench", "w2"], ["odenet", "reproduce", "table1"]]


def test_one_gpu_is_refused_without_a_gpu(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    out = tmp_path / "out"
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", str(ROOT / "scripts" / "one_gpu.sh"), str(out)], env=env, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "torch finds no CUDA device here" in done.stderr
    assert not out.exists()


def test_every_planted_fault_has_its_place_and_its_test():
    faults = runpy.run_path(str(ROOT / "scripts" / "planted_faults.py"))["FAULTS"]
    for fault in faults:
        assert (ROOT / fault.path).read_text(encoding="utf-8").count(fault.old) == 1, fault.name
        path, _, name = fault.test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (ROOT / path).read_text(encoding="utf-8"), fault.name
