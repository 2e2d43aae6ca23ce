"""A job that fails leaves the others to finish; a sweep goes on by the same command; no two runs share a folder."""

import json

import pytest
from faults_kit import RHYTHM, TINY, run_json, same_bits

ROW = "4 sweeps"
slow, numerics = pytest.mark.slow, pytest.mark.numerics
SWEEP = ("train", "-m", *TINY, *RHYTHM)


def summary(folder):
    return json.loads((folder / "summary.json").read_text())["jobs"]


@numerics
def test_a_failing_job_leaves_the_others(start, odenet, tmp_path, happened):
    """One job diverges: the others finish, summary.json has all with status and reason, exit 1; the same command with
    resume=auto skips what is done; a job gives the bits of the run alone."""
    words = [*SWEEP[:-1], "optim.lr=0.3,1e30,0.1", "hydra.sweep.dir=out"]
    done = odenet(*words)
    assert done.code == 1
    jobs = summary(tmp_path / "out")
    assert [job["status"] for job in jobs] == ["done", "failed", "done"]
    assert "the loss is" in jobs[1]["reason"]
    assert jobs[0]["final"]["error"] == run_json(tmp_path / "out" / jobs[0]["folder"])["final"]["error"]
    assert odenet(*words).code == 2
    weights = {job["folder"]: tmp_path / "out" / job["folder"] / "checkpoints" / "last.pt" for job in jobs}
    times = {folder: path.stat().st_mtime_ns for folder, path in weights.items() if path.exists()}
    again = odenet(*words, "resume=auto")
    assert again.code == 1
    assert again.out.count("already finished") == 2
    assert {folder: weights[folder].stat().st_mtime_ns for folder in times} == times
    alone = odenet("train", *TINY, *RHYTHM[:-1], "optim.lr=0.1", "hydra.run.dir=alone")
    assert alone.code == 0
    assert same_bits(tmp_path / "out" / jobs[2]["folder"], tmp_path / "alone")
    happened(f"done, failed ({jobs[1]['reason'].splitlines()[0]}), done; exit 1")


@slow
def test_a_killed_sweep_goes_on(start, odenet, tmp_path):
    """SIGKILL in the second of three jobs: the same command with resume=auto skips the first, resumes the second, and
    runs the third; the bits are those of each run alone."""
    words = [*SWEEP, "seed=1,2,3", "hydra.sweep.dir=out"]
    child = start(*words)
    child.until_records(tmp_path / "out" / "1-seed=2", 6)
    child.send(9)
    child.wait()
    done = odenet(*words, "resume=auto")
    assert done.code == 0, done.err
    assert done.out.count("already finished") == 1
    assert [job["status"] for job in summary(tmp_path / "out")] == ["done"] * 3
    for seed in (2, 3):
        assert odenet("train", *TINY, *RHYTHM, f"seed={seed}", f"hydra.run.dir=alone{seed}").code == 0
        assert same_bits(tmp_path / "out" / f"{seed - 1}-seed={seed}", tmp_path / f"alone{seed}")


@slow
def test_a_job_without_memory_leaves_the_others(odenet, tmp_path, happened):
    """One job needs more memory than the process may have: it fails saying so, the next one trains, exit 1."""
    words = ["train", "-m", "model=cnf", "data=moons", "device=cpu", "trainer.steps=2", "compile=false"]
    words += ["eval.solver.rtol=1e-2", "eval.dtype=float32", "trainer.limit_batches=1", "gradient=backprop"]
    words += ["trainer.batch_size=2000000,8", "hydra.sweep.dir=out"]
    done = odenet(*words, limits={"RLIMIT_AS": 8 << 30})
    assert done.code == 1
    jobs = summary(tmp_path / "out")
    assert [job["status"] for job in jobs] == ["failed", "done"]
    assert "out of memory on cpu" in jobs[0]["reason"]
    assert "trainer.batch_size=2000000" in jobs[0]["reason"]
    assert "gradient=replay, adjoint or reversible need less" in jobs[0]["reason"]
    happened(jobs[0]["reason"].splitlines()[0])


@slow
def test_runs_started_together_have_folders_of_their_own(start, tmp_path):
    """Ten runs started at once: ten folders, each of one run."""
    words = ["train", *TINY, "trainer.epochs=1", "trainer.limit_batches=2"]
    children = [start(*words) for _ in range(10)]
    assert [child.wait().code for child in children] == [0] * 10
    runs = list((tmp_path / "runs").glob("*/*/run.json"))
    assert len(runs) == 10
    assert len({path.parent for path in runs}) == 10


@numerics
def test_a_folder_that_holds_something_else_is_refused(odenet, tmp_path):
    """A folder with another sweep, a run, or foreign files: exit 2 naming it, nothing in it changed."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("mine")
    for words in (["train", *TINY, "hydra.run.dir=thesis"], [*SWEEP, "seed=1,2", "hydra.sweep.dir=thesis"]):
        done = odenet(*words)
        assert done.code == 2
        assert "thesis is not empty" in done.err
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]


@numerics
def test_a_bad_point_stops_the_sweep_before_it_begins(odenet, tmp_path):
    """A bad value in the last of many points: exit 2 naming it, before the first job."""
    done = odenet(*SWEEP, "seed=1,2,3", "solver.rtol=1e-3,1e-2,-1", "hydra.sweep.dir=out")
    assert done.code == 2
    assert "solver.rtol=-1" in done.err
    assert not (tmp_path / "out").exists()


@slow
def test_a_job_that_cannot_go_on_does_not_stop_the_others(odenet, tmp_path):
    """A user's network that raises: its job fails with its own words, the next one runs."""
    (tmp_path / "nets.py").write_text(
        "import torch\nclass Net(torch.nn.Linear):\n"
        "  def __init__(self, shape, classes, broken):\n    super().__init__(784, classes)\n    self.broken = broken\n"
        "  def forward(self, x):\n"
        "    if self.broken: raise KeyError('no such key')\n    return super().forward(x.flatten(1))\n"
    )
    words = [word for word in TINY if not word.startswith("model")]
    words += ["model=custom", "model.target=nets:Net", "+model.broken=true,false", "hydra.sweep.dir=out"]
    done = odenet("train", "-m", *words)
    assert done.code == 1
    jobs = summary(tmp_path / "out")
    assert [job["status"] for job in jobs] == ["failed", "done"]
    assert "KeyError: 'no such key'" in jobs[0]["reason"]
