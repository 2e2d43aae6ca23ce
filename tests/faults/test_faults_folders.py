"""A folder has one run; what is refused leaves no folder, and what is damaged is named before anything is changed."""

import json

import pytest
from faults_kit import RHYTHM, TINY, content, faults, meet, run_json

ROW = "5 bad input"
slow, numerics = pytest.mark.slow, pytest.mark.numerics
SHORT = ("train", *TINY[:-2], "trainer.limit_batches=2", "trainer.epochs=1")


@numerics
@pytest.mark.parametrize("epochs", [1, pytest.param(60, marks=slow)])
def test_two_at_once_are_one_run(start, tmp_path, epochs):
    """Two runs started together in one folder: one finishes, the other is exit 2 naming the folder, and touches
    nothing."""
    words = [*SHORT[:-1], f"trainer.epochs={epochs}", "hydra.run.dir=x"]
    both = [start(*words, f"seed={n}", before=faults(meet.__name__, str(tmp_path), n)) for n in (1, 2)]
    for n, child in enumerate(both, 1):
        child.until((tmp_path / f"here{n}").exists)
    (tmp_path / "go").touch()
    done = [child.wait() for child in both]
    assert sorted(one.code for one in done) == [0, 2], done
    winner = 1 + [one.code for one in done].index(0)
    assert "x is in use" in done[2 - winner].err or "x contains a finished run" in done[2 - winner].err, done
    assert run_json(tmp_path / "x")["status"] == "done"
    assert f"seed={winner}" in (tmp_path / "x" / ".hydra" / "overrides.yaml").read_text()
    assert f"seed: {winner}\n" in (tmp_path / "x" / "config.yaml").read_text()


@numerics
@pytest.mark.parametrize("word", ["root.level=NOPE", "version=7", "handlers.file.filename=/nonexist/x"])
def test_what_hydra_refuses_leaves_no_folder(odenet, tmp_path, word):
    """What Hydra refuses after it made the folder: exit 2 and no folder, of a run and of a sweep."""
    for words in (["hydra.run.dir=x"], ["-m", "seed=1,2", "hydra.sweep.dir=x"]):
        done = odenet(*SHORT, *words, f"hydra.job_logging.{word}")
        assert done.code == 2, done
        assert not (tmp_path / "x").exists()


@numerics
def test_a_finished_run_without_checkpoints_is_refused(odenet, tmp_path):
    """More epochs of a finished run whose checkpoints are gone: exit 2 naming them, nothing changed."""
    assert odenet(*SHORT, "hydra.run.dir=x").code == 0
    for path in (tmp_path / "x" / "checkpoints").iterdir():
        path.unlink()
    before = content(tmp_path / "x")
    for words, code in ((["trainer.epochs=2"], 2), ([], 0)):
        done = odenet("train", "resume=x", *words)
        assert done.code == code
        assert ("last.pt" in done.err and "another folder" in done.err) == (code == 2)
        assert content(tmp_path / "x") == before


@numerics
def test_a_damaged_record_is_refused(odenet, tmp_path):
    """A run.json that is not the record of a run: exit 2 naming it, nothing changed."""
    assert odenet(*SHORT, "hydra.run.dir=x").code == 0
    for text in ("[1,2]", "5", "null", '"x"', '{"data":"x"}', '{"data":null}', '{"resumed":5}', "[]", "[" * 100_000):
        (tmp_path / "x" / "run.json").write_text(text)
        before = content(tmp_path / "x")
        done = odenet("train", "resume=x", "trainer.epochs=2")
        assert done.code == 2, (text[:20], done)
        assert "run.json" in done.err
        assert content(tmp_path / "x") == before


NET = """
import sys, torch
{}
class Net(torch.nn.Linear):
    def __init__(self, shape, classes, where="forward"):
        super().__init__(784, classes)
        self.where = where
        where == "constructor" and sys.exit(0)
    def forward(self, x):
        self.where == "forward" and sys.exit(0)
        return super().forward(x.flatten(1))
"""
CUSTOM = [word for word in SHORT if not word.startswith("model")] + ["model=custom", "model.target=nets:Net"]


@numerics
@pytest.mark.parametrize("where", ["import", "constructor", "forward"])
def test_a_network_that_ends_the_process_is_a_failure(odenet, tmp_path, where):
    """A user's network that calls sys.exit(0): exit 1 saying so, exit 2 where it cannot be made, never 0."""
    (tmp_path / "nets.py").write_text(NET.format("sys.exit(0)" if where == "import" else ""))
    done = odenet(*CUSTOM, f"+model.where={where}", "hydra.run.dir=x")
    assert done.code == (1 if where == "forward" else 2), done
    assert "sys.exit(0)" in done.err
    if where == "forward":
        assert run_json(tmp_path / "x")["status"] == "failed"
        assert "sys.exit(0)" in run_json(tmp_path / "x")["reason"]
    else:
        assert not (tmp_path / "x").exists()


@numerics
def test_a_field_that_ends_the_process_is_a_failure(odenet, tmp_path):
    """A user's field of a flow that calls sys.exit(0): exit 1 saying so, in its record too."""
    (tmp_path / "nets.py").write_text(
        "import sys, torch\nclass Net(torch.nn.Linear):\n  def __init__(self, shape): super().__init__(2, 2)\n"
        "  def forward(self, t, z): sys.exit(0)\n"
    )
    words = ["data=moons", "device=cpu", "trainer.steps=2", "model=custom", "model.target=nets:Net"]
    done = odenet("train", *words, "hydra.run.dir=x")
    assert done.code == 1, done
    assert "error: the model called sys.exit(0)" in done.err
    assert run_json(tmp_path / "x")["status"] == "failed"


@numerics
def test_a_job_that_ends_the_process_leaves_the_others(odenet, tmp_path):
    """A sweep's network that calls sys.exit(0): its job fails, the next one runs, exit 1."""
    (tmp_path / "nets.py").write_text(NET.format(""))
    done = odenet(*CUSTOM, "-m", "+model.where=forward,nowhere", "hydra.sweep.dir=x")
    assert done.code == 1, done
    jobs = json.loads((tmp_path / "x" / "summary.json").read_text())["jobs"]
    assert [job["status"] for job in jobs] == ["failed", "done"]
    assert "sys.exit(0)" in jobs[0]["reason"]


@numerics
def test_a_damaged_log_is_refused(odenet, tmp_path):
    """A metrics.jsonl that lost what the checkpoint knew: exit 2 naming it before training, nothing changed."""
    words = ["train", *TINY[:-2], *RHYTHM, "trainer.limit_batches=5", "trainer.epochs=2", "hydra.run.dir=x"]
    assert odenet(*words, "trainer.max_steps=7").code == 0
    path = tmp_path / "x" / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:50])
    before = content(tmp_path / "x")
    done = odenet(*words, "resume=auto")
    assert done.code == 2, done
    assert "metrics.jsonl is damaged" in done.err
    assert content(tmp_path / "x") == before
