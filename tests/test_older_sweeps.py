"""A sweep made before the modules were regrouped is reported, scored and gone on with."""

import json
import shutil
from pathlib import Path

import pytest

OLD = Path(__file__).parent / "old_runs" / "sweep"
WORDS = ["model=cnf", "model.units=4", "data=moons", "trainer.steps=6", "trainer.checkpoint_every=3"]
WORDS += ["trainer.max_steps=4", "seed=1", "device=cpu"]


@pytest.fixture
def sweep(tmp_path):
    """A copy of the old sweep: two CNFs of four units, four steps each."""
    return shutil.copytree(OLD, tmp_path / "sweep")


@pytest.mark.numerics
def test_an_old_sweep_is_reported(odenet, sweep):
    """The table has the scores that the old version wrote."""
    done = odenet("report", str(sweep))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2.194") == 2


@pytest.mark.numerics
def test_an_old_job_scores_as_it_did(odenet, sweep):
    """Scoring the old weights gives the test loss that the old version recorded, to float32."""
    job = sweep / "1-solver.rtol=0.001"
    done = odenet("eval", str(job))
    assert done.returncode == 0, done.stderr
    loss = json.loads((job / "eval.jsonl").read_text().splitlines()[-1])["loss"]
    assert loss == pytest.approx(2.19417971664962, abs=2e-6)


@pytest.mark.numerics
def test_an_old_sweep_takes_a_new_point(odenet, sweep, tmp_path):
    """The two old points stay as they are; the third is trained and stands beside them in the summary."""
    before = [(path, path.read_bytes()) for path in sweep.glob("*/metrics.jsonl")]
    done = odenet("train", "-m", *WORDS, "solver.rtol=1e-2,1e-3,1e-1", f"hydra.sweep.dir={sweep}", "resume=auto")
    assert done.returncode == 0, done.stderr
    assert all(path.read_bytes() == content for path, content in before)
    jobs = json.loads((sweep / "summary.json").read_text())["jobs"]
    assert [job["status"] for job in jobs] == ["done"] * 3
