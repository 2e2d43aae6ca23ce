"""Threads wait passively unless told otherwise; nobody computes with more of them than the cores it was given."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from odenet_cli import threads
from odenet_cli.request.job import share_cores

JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
LOCAL = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher"
SLURM = "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"
BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
NAMES = (*threads.WAIT, "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@pytest.fixture
def env(monkeypatch):
    """The environment without what was said about threads; put back afterwards."""
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that it is put back, whoever sets it
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(
    ("said", "policy"),
    [
        ({}, "passive"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "active"),
        ({"GOMP_SPINCOUNT": "1000"}, "GOMP_SPINCOUNT=1000"),
        ({"KMP_BLOCKTIME": "200"}, "KMP_BLOCKTIME=200"),
    ],
)
def test_threads_wait_passively_unless_told(env, said, policy):
    for name, value in said.items():
        env.setenv(name, value)
    threads.wait_passively()
    assert threads.wait_policy() == policy
    assert {name: os.environ[name] for name in said} == said


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_cores_are_those_the_process_is_bound_to():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert threads.cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("groups", "quotas", "cores"),
    [
        ("0::/", {"cpu.max": "300000 100000"}, 3),
        ("0::/", {"cpu.max": "150000 100000"}, 2),  # a core and a half: two threads use it all
        ("0::/", {"cpu.max": "10000 100000"}, 1),
        ("0::/", {"cpu.max": "max 100000"}, 16),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2),  # of the group around it
        (
            "3:cpu,cpuacct:/a",
            {f"cpu,cpuacct/cpu.cfs_{n}_us": v for n, v in (("quota", "400000"), ("period", "1e5"))},
            16,
        ),
        ("3:cpu,cpuacct:/a", {f"cpu,cpuacct/cpu.cfs_{n}_us": v for n, v in (("quota", "50"), ("period", "10"))}, 5),
        ("3:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 16),
        ("2:memory:/", {"memory/cpu.max": "100000 100000"}, 16),
        ("0::/", {}, 16),
    ],
)
def test_cores_are_no_more_than_the_control_group_grants(monkeypatch, tmp_path, groups, quotas, cores):
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    for name, text in {
        "proc/self/cgroup": groups,
        **{f"sys/fs/cgroup/{n}": text for n, text in quotas.items()},
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert threads.cores(tmp_path) == cores


@pytest.mark.parametrize(
    ("launcher", "jobs", "share"),
    [
        ({"_target_": JOBLIB, "n_jobs": 4}, 9, "4"),
        ({"_target_": JOBLIB, "n_jobs": -1}, 9, "1"),  # as many as there are jobs
        ({"_target_": JOBLIB, "n_jobs": -1}, 40, "1"),  # sixteen
        ({"_target_": JOBLIB, "n_jobs": -13}, 40, "4"),  # four
        ({"_target_": JOBLIB, "n_jobs": 4}, 2, "8"),
        ({"_target_": JOBLIB, "n_jobs": 4}, 1, None),
        ({"_target_": LOCAL}, 5, "3"),
        ({"_target_": SLURM}, 5, None),
        ({"_target_": BASIC}, 5, None),
    ],
)
def test_jobs_side_by_side_share_the_cores(env, launcher, jobs, share):
    env.setattr(threads, "cores", lambda: 16)
    cfg = OmegaConf.create({"hydra": {"launcher": launcher}})
    share_cores(cfg, jobs)
    assert os.environ.get("OMP_NUM_THREADS") == share
    env.setenv("OMP_NUM_THREADS", "6")
    share_cores(cfg, jobs)
    assert os.environ["OMP_NUM_THREADS"] == "6"  # who says so means it


@pytest.mark.parametrize(
    ("said", "cores", "before", "after"),
    [("", 2, 8, 2), ("", 8, 4, 4), ("3", 2, 8, 3), ("3,1", 8, 1, 3), ("many", 2, 8, 2)],
)
def test_a_process_computes_with_its_share(env, said, cores, before, after):
    from odenet_cli.training import device

    env.setenv("OMP_NUM_THREADS", said)
    env.setattr(threads, "cores", lambda: cores)
    torch = SimpleNamespace(threads=before, get_num_threads=lambda: torch.threads)
    torch.set_num_threads = lambda n: setattr(torch, "threads", n)
    env.setattr(device, "torch", torch)
    device.use_cores()
    assert torch.threads == after


@pytest.mark.slow
def test_a_run_says_what_it_computed_with(tmp_path):
    """Two jobs side by side have half of the cores each; the banner and run.json say so."""
    words = ["data=digits", "model=mlp", "trainer.max_steps=1", "seed=0,1", "hydra.sweep.dir=S"]
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    env = {name: value for name, value in os.environ.items() if name not in (*NAMES, "ODENET_REQUEST")}
    command = [sys.executable, "-m", "odenet_cli", "train", "-m", *words, *launcher]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    records = [json.loads(path.read_text()) for path in tmp_path.glob("S/*/run.json")]
    expected = threads.share(2)
    assert [(record["threads"], record["wait_policy"]) for record in records] == 2 * [(expected, "passive")]
    count = f"{expected} thread{'s' * (expected != 1)}"
    assert f"device:   cpu ({count}), wait policy passive" in done.stdout + done.stderr
