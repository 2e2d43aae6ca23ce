"""`data=points` from the command's side: trained on, drawn from, scored and drawn, in the units of the table."""

import csv

import numpy as np
import polars as pl
import pytest
from runs_kit import train_run

from odenet_cli.analysis.scoring import Scorer
from odenet_cli.commands import sample
from odenet_cli.config.saved import load
from odenet_cli.report import pictures
from odenet_cli.rundir import read_record
from odenet_cli.tasks.common import flow_figures

SHORT = ("data=points", "device=cpu", "trainer.steps=3", "trainer.batch_size=32", "logger=none")
PLANAR = ("model=planar", "model.layers=2")
NAMES = ["height, m", "mass", "$"]


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch):
    for name, value in {"GRID": 6, "SAMPLES": 50, "PATHS": 3, "MOMENTS": 5, "LINE": 9}.items():
        monkeypatch.setattr(flow_figures, name, value)


@pytest.fixture
def table(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 3)) * [1.0, 20.0, 1e-3] + [5.0, 100.0, 0.0]
    pl.DataFrame(x, schema=NAMES).write_csv(tmp_path / "own.csv")
    return x


def rows(path):
    names, *values = csv.reader(path.open())
    return names, np.array(values, dtype=float)


def test_points_come_out_in_their_own_units(table, tmp_path, caplog):
    folder = train_run(tmp_path / "run", *PLANAR, *SHORT, f"data.path={tmp_path / 'own.csv'}")
    record = read_record(folder)
    assert record["final"]["nll_data"] - record["final"]["nll"] == pytest.approx(
        np.log(record["data"]["standard_deviation"]).sum()
    )
    drawn, scored = tmp_path / "drawn.csv", tmp_path / "scored.csv"
    assert sample.main([str(folder), "n=500", f"out={drawn}"]) == 0
    names, x = rows(drawn)
    assert names == NAMES
    assert (abs(x.mean(0) - table.mean(0)) < 3 * table.std(0)).all()
    assert 0.1 < x[:, 1].std() / 20 < 10

    # Columns in another order, and one that the run does not know.
    pl.DataFrame(table, schema=NAMES).select(pl.lit("a").alias("kind"), *reversed(NAMES)).write_parquet(
        tmp_path / "new.parquet"
    )
    assert sample.main([str(folder), f"points={tmp_path / 'new.parquet'}", f"out={scored}"]) == 0
    names, x = rows(scored)
    assert names == [*NAMES, "log_density"]
    assert np.allclose(x[:, :3], table, rtol=1e-7)
    (tmp_path / "units.csv").write_text(
        "\n".join(['"height, m";mass;$', *(f"{a:.12f};{b:.12f} kg;{c:.12f}" for a, b, c in table)])
    )
    assert sample.main([str(folder), f"points={tmp_path / 'units.csv'}", f"out={scored}"]) == 0
    assert "units.csv: mass: kg stands in every cell" in caplog.text
    assert np.allclose(rows(scored)[1], x, rtol=1e-5)
    config = load(folder)
    everything = Scorer(folder, config, "all", "best").row(config)
    assert x[:, 3].mean() == pytest.approx(-everything["nll_data"], abs=1e-6)
    assert {"points.png", "points.svg"} == {path.name for path in pictures.write(folder)}


@pytest.mark.parametrize(("dim", "expected"), [(1, {"points"}), (2, {"points", "likelihood", "paths"})])
def test_figures_in_few_dimensions(table, tmp_path, dim, expected):
    np.save(tmp_path / "own.npy", table[:, :dim])
    cnf = ("model=cnf", "model.units=2", "model.hidden=4", "eval.solver.rtol=1e-3", "compile=false")
    folder = train_run(tmp_path / "run", *cnf, *SHORT, f"data.path={tmp_path / 'own.npy'}")
    assert {path.stem for path in pictures.write(folder)} == expected
    with np.load(folder / "figures" / "likelihood.npz") as arrays:
        assert arrays["points"].shape == (6, dim)
        assert arrays["samples"].shape == (50, dim)
        held_out = {round(value, 4) for value in arrays["points"][:, 0].tolist()}
    assert held_out < {round(value, 4) for value in table[:, 0].tolist()}


def test_hutchinson_trains_and_the_exact_divergence_scores(table, tmp_path):
    np.savez(tmp_path / "miniboone.npz", x=np.random.default_rng(0).normal(size=(60, 43)))
    own = ("model=cnf", "model.field=concatsquash", "model.units=4", "model.layers=1", "solver.rtol=1e-3")
    more = (*SHORT, "eval.solver.rtol=1e-3", "eval.dtype=float32", "compile=false")
    folder = train_run(tmp_path / "run", *own, *more, f"data.path={tmp_path / 'miniboone.npz'}")
    record, config = read_record(folder), load(folder)
    assert record["data"]["beside"].startswith("MINIBOONE: FFJORD's test NLL is 10.43 nat")
    first, again = (Scorer(folder, config, "test", "best").row(config)["nll"] for _ in range(2))
    assert first == again == record["final"]["nll"]


def test_by_command(odenet, tmp_path, table):
    train = ("train", *PLANAR, *SHORT, "hydra.run.dir=run")
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n1,2\n3,x\n4,\n" + "".join(f"{n}.5,{n * n}\n" for n in range(20)))
    done = odenet(*train, "data.path=bad.csv")
    assert done.returncode == 2
    for part in ("has 3 errors of 3 kinds", "data.repeats=drop", "data.missing=[x]", "data.incomplete=drop"):
        assert part in done.stderr
    assert not (tmp_path / "run").exists()

    done = odenet(*train, "data.path=own.csv")
    assert done.returncode == 0, done.stderr
    assert "60 points in 3 dimensions" in done.stdout
    assert "in the data's units" in done.stdout.splitlines()[-1]
    done = odenet("sample", "run", "n=2")
    assert done.stdout.splitlines()[0] == '"height, m",mass,$'
