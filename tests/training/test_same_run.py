"""A run that is done, or was stopped, is gone on with where it is the same run, and refused by name where it is not."""

import json

import pytest

from odenet_cli.request.compose import compose
from odenet_cli.request.data import complete_for

MLP = ("data=digits", "device=cpu", "model=mlp", "model.hidden=4", "trainer.limit_batches=2", "trainer.epochs=1")


def listed(folder):
    """Seed and test loss of every job that the sweep's summary has."""
    jobs = json.loads((folder / "summary.json").read_text())["jobs"]
    seeds = [next(word for word in job["overrides"] if word.startswith("seed=")) for job in jobs]
    return {seed: (job["folder"], job["final"]["loss"]) for seed, job in zip(seeds, jobs)}


@pytest.mark.numerics
def test_a_sweep_keeps_its_jobs_and_takes_new_ones(odenet, tmp_path):
    """One sweep, several requests: other points are added, of another model too, under names that tell them apart; a
    point that is there under another number is not run again."""
    sweep = ("train", "-m", *MLP, "hydra.sweep.dir=S")
    assert odenet(*sweep, "seed=1,2").returncode == 0
    first = listed(tmp_path / "S")
    assert set(first) == {"seed=1", "seed=2"}

    done = odenet(*sweep, "seed=0,2,1", "resume=auto")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("already finished") == 2
    second = listed(tmp_path / "S")
    assert set(second) == {"seed=0", "seed=1", "seed=2"}
    assert {seed: second[seed] for seed in first} == first

    for seed in (5, 6):  # alone, a point has no key that differs from another of its request
        done = odenet(*sweep, f"seed={seed}", "resume=auto")
        assert done.returncode == 0, done.stderr
    assert set(listed(tmp_path / "S")) == {"seed=0", "seed=1", "seed=2", "seed=5", "seed=6"}
    assert "5 of 5 done" in done.stdout

    other = [word for word in sweep if not word.startswith("model")]
    done = odenet(*other, "model=resnet", "model.width=2", "seed=1,2", "resume=auto")
    assert done.returncode == 0, done.stderr
    jobs = json.loads((tmp_path / "S" / "summary.json").read_text())["jobs"]
    assert [job["folder"] for job in jobs[-2:]] == [f"{n}-model.width=2,model=resnet,seed={n + 1}" for n in (0, 1)]
    assert {seed: second[seed] for seed in first} == first


@pytest.mark.numerics
@pytest.mark.parametrize("status", ["done", "interrupted", "failed"])
def test_other_words_are_refused_however_the_run_ended(odenet, tmp_path, status):
    """Also where it has no checkpoint yet to tell it apart."""
    assert odenet("train", *MLP, "hydra.run.dir=R").returncode == 0
    record = tmp_path / "R" / "run.json"
    if status != "done":
        record.write_text(record.read_text().replace('"done"', f'"{status}"'))
        for path in (tmp_path / "R" / "checkpoints").iterdir():
            path.unlink()
    before = {path: path.read_bytes() for path in (tmp_path / "R").rglob("*") if path.is_file()}
    done = odenet("train", *MLP, "hydra.run.dir=R", "resume=auto", "optim.lr=0.01", "eval.dtype=float64")
    assert done.returncode == 2
    assert "R contains a different run (there → here):" in done.stderr
    assert "  eval.dtype: null → float64\n  optim.lr: 0.05 → 0.01\n" in done.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "R").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(("device", "epochs"), [("NVIDIA H100", 160), ("cpu (2 threads)", 3), (None, 3)])
def test_a_run_that_moved_between_machines_is_as_long_as_it_began(tmp_path, device, epochs):
    """MNIST's recipe has 160 epochs on a GPU and 3 on a CPU; `device=cpu` says where to go on, not how far."""
    if device:
        record = dict.fromkeys(("reason", "final", "data", "versions", "resumed", "command", "git"))
        record |= {"status": "interrupted", "device": device, "started": None, "finished": None}
        (tmp_path / "run.json").write_text(json.dumps(record))
    config = compose(["model=mlp", "data=mnist", "device=cpu", "resume=auto"])
    assert complete_for(config, tmp_path, None).trainer.epochs == epochs
    config = compose(["model=mlp", "data=mnist", "device=cpu"])
    assert complete_for(config, tmp_path, None).trainer.epochs == 3
