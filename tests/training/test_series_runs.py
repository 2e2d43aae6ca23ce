"""Runs of the models of series: they train, are scored, drawn from, and go on to the same bits."""

import hashlib
import json
import math

import numpy
import pytest
import torch
from runs_kit import configure

from odenet_cli.commands import eval as command
from odenet_cli.errors import RequestError
from odenet_cli.request.compose import compose
from odenet_cli.training import checkpoint
from odenet_cli.training.check import check
from odenet_cli.training.resume import begin_from_checkpoint
from odenet_cli.training.run import assemble

FEW = ("data.count=12", "data.validation=4", "data.test=5", "trainer.batch_size=4")
SHORT = ("trainer.epochs=null", "trainer.steps=7", "trainer.limit_batches=3", "compile=false")
SPIRALS = ("data=spirals", "data.observed=10", *FEW, *SHORT)


def final(folder):
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "done"
    return record["final"]


@pytest.mark.parametrize("model", ["latent_ode", "rnn", "rnn_dt"])
def test_a_run_on_spirals(train, metrics, capsys, model):
    folder = train(f"model={model}", *SPIRALS)
    scores = final(folder)
    for name in ("window_clean", "window_noisy", "further_clean", "further_noisy", "last_value", "velocity"):
        assert scores[f"rmse_{name}"] > 0
    assert ("kl" in scores) == (scores["nfe_forward"] > 0) == (model == "latent_ode")
    assert {record["split"] for record in metrics(folder)} == {"train", "valid", "test"}
    with numpy.load(folder / "figures" / "series.npz") as arrays:
        assert arrays["path"].shape == (5, 400, 2)
        assert numpy.isfinite(arrays["path"]).all()

    if model == "latent_ode":  # a new run from these weights: the weight of its KL divergence rises again
        path = folder / "checkpoints" / "last.pt"
        config = configure(f"model={model}", *SPIRALS, f"checkpoint={path}")
        session, before = assemble(config, torch.device("cpu")), checkpoint.load(path)["model"]
        begin_from_checkpoint(session.model, config)
        after = session.model.state_dict()
        assert (int(before.pop("updates")), int(after.pop("updates"))) == (7, 0)
        assert all(torch.equal(weight, after[name]) for name, weight in before.items())

    capsys.readouterr()
    assert command.main([str(folder)]) == 0
    head, row = (line.split() for line in capsys.readouterr().out.splitlines()[1:3])
    cells = dict(zip(head, row))
    assert float(cells["rmse_further_clean"]) == pytest.approx(scores["rmse_further_clean"], abs=1e-5)
    assert len(row) == len(head) + 1  # the seconds' unit


def test_a_run_on_events(train):
    scores = final(train("model=latent_poisson", "data=poisson", "data.expected=20", *FEW, *SHORT))
    assert scores["rate_error"] > 0
    assert scores["nfe_forward"] > 0


def test_a_run_on_a_table(train, tmp_path):
    rows = [f"s{n},{t + n / 10},{n * t},{t}" for n in range(9) for t in range(3 + n)]
    (tmp_path / "own.csv").write_text("\n".join(["series,time,a,b", *rows]))
    scores = final(train("model=latent_ode", "data=csv", f"data.path={tmp_path / 'own.csv'}", *SHORT))
    assert scores["rmse_further_noisy"] > 0
    assert "rmse_further_clean" not in scores


@pytest.mark.parametrize("model", ["latent_ode", "rnn", "rnn_dt"])
def test_a_run_on_a_table_with_missing_cells(train, metrics, tmp_path, model):
    rows = [f"s{n},{t},{math.sin(n + t):.3f},{'' if (n + t) % 3 else t}" for n in range(8) for t in range(6)]
    (tmp_path / "own.csv").write_text("\n".join(["series,time,a,b", *rows]))
    folder = train(f"model={model}", "data=table", f"data.path={tmp_path / 'own.csv'}", *SHORT)
    assert final(folder)["rmse_further_noisy"] > 0
    assert all(math.isfinite(record["loss"]) for record in metrics(folder))
    assert json.loads((folder / "run.json").read_text())["data"]["masked"]
    assert command.main([str(folder)]) == 0


def test_a_table_that_has_moved_or_changed(train, tmp_path, caplog):
    table, moved = tmp_path / "own.csv", tmp_path / "moved.csv"
    table.write_text("\n".join(["series,time,a", *(f"s{n},{t},{n * t}" for n in range(9) for t in range(4))]))
    folder = train("model=rnn", "data=csv", f"data.path={table}", *SHORT)
    table.rename(moved)
    with pytest.raises(RequestError, match=r"own\.csv"):
        command.main([str(folder)])
    assert command.main([str(folder), f"data.path={moved}"]) == 0
    assert "other data" not in caplog.text
    moved.write_text(moved.read_text() + "\ns9,0,1\ns9,1,1")
    assert command.main([str(folder), f"data.path={moved}"]) == 0
    assert "was trained on other data" in caplog.text


def wave(n, t):
    return (f"s{n}", t, math.sin(t + n), n + t / 2)


WAVES = [wave(n, t) for n in range(20) for t in range(6)]


def write(path, rows, header="series,time,a,b", order=(0, 1, 2, 3)):
    names = header.split(",")
    lines = [",".join(names[k] for k in order), *(",".join(str(row[k]) for k in order) for row in rows)]
    path.write_text("\n".join(lines))
    return f"data.path={path}"


@pytest.fixture
def score(capsys):
    """The title and the record of `odenet eval`."""

    def call(folder, *words):
        capsys.readouterr()
        assert command.main([str(folder), *words]) == 0
        record = json.loads((folder / "eval.jsonl").read_text().splitlines()[-1])
        return capsys.readouterr().out.splitlines()[0], {**record, "time_s": 0}

    return call


@pytest.fixture
def waves(train, tmp_path):
    return train("model=rnn", "data=csv", write(tmp_path / "own.csv", WAVES), *SHORT)


def test_a_copy_in_another_order_scores_the_same(waves, score, tmp_path, caplog):
    copy = write(tmp_path / "copy.csv", WAVES[::-1], order=(3, 1, 0, 2))
    for words in ((), ("split=all",), ("split=train",)):
        (_, record), (_, other) = score(waves, *words), score(waves, *words, copy)
        assert record == other
    assert "3 samples of csv (test)" in score(waves, copy)[0]
    assert "other data" not in caplog.text
    assert score(waves)[1]["rmse_further_noisy"] == final(waves)["rmse_further_noisy"]
    splits = {split: score(waves, f"split={split}")[1]["rmse_further_noisy"] for split in ("train", "valid", "test")}
    mean = sum(size * splits[name] ** 2 for name, size in (("train", 14), ("valid", 3), ("test", 3))) / 20
    assert score(waves, "split=all")[1]["rmse_further_noisy"] == pytest.approx(math.sqrt(mean), rel=1e-6)


def test_another_table_is_scored_whole_in_the_units_of_the_run(waves, score, tmp_path):
    """All values 1000 standard deviations off: so is every prediction, up to what the network says itself."""
    record = json.loads((waves / "run.json").read_text())["data"]
    (a, b), head = record["standard_deviation"], WAVES[:30]
    far = write(tmp_path / "far.csv", [(name, t, x + 1000 * a, y + 1000 * b) for name, t, x, y in head])
    title, found = score(waves, far)
    assert f"5 samples of {tmp_path / 'far.csv'} (all)" in title
    assert (found["split"], found["data"]) == ("all", hashlib.sha256((tmp_path / "far.csv").read_bytes()).hexdigest())
    assert 990 < found["rmse_further_noisy"] < 1010
    half = write(tmp_path / "half.csv", [row for row in WAVES if row[1] < 3])
    assert json.loads((waves / "run.json").read_text())["data"] == record
    assert "20 samples" in score(waves, half)[0]
    assert "3 samples" in score(waves, half, "split=test")[0]


def test_a_table_without_the_columns_of_the_run(waves, tmp_path):
    other = write(tmp_path / "other.csv", WAVES, header="series,time,a,c")
    with pytest.raises(RequestError, match=r"other\.csv, line 1: .* missing: b; extra: c"):
        command.main([str(waves), other])


def test_a_run_that_kept_no_units_has_those_of_its_own_table(waves, score, tmp_path):
    far = write(tmp_path / "far.csv", [(name, t, 3 * x, y) for name, t, x, y in WAVES])
    expected = score(waves), score(waves, far)
    record = json.loads((waves / "run.json").read_text())
    for key in ("columns", "left_out", "content", "time_unit", "mean", "standard_deviation"):
        del record["data"][key]
    (waves / "run.json").write_text(json.dumps(record))
    assert (score(waves), score(waves, far)) == expected
    (tmp_path / "own.csv").write_text((tmp_path / "far.csv").read_text())
    with pytest.raises(RequestError, match=r"run\.json does not say in which units .*own\.csv.* has changed"):
        command.main([str(waves), far])


def test_a_constant_column_is_not_scored(train, tmp_path, caplog):
    rows = [(*row, 7.0 if row[1] < 3 else 7.0 + row[1]) for row in WAVES]
    three = write(tmp_path / "c.csv", rows, "series,time,a,b,still", range(5))
    folder = train("model=rnn", "data=csv", three, *SHORT, name="three")
    assert "ignored by model and scores: still" in caplog.text
    assert (
        final(folder)["loss"] == final(train("model=rnn", "data=csv", write(tmp_path / "o.csv", WAVES), *SHORT))["loss"]
    )


def test_a_run_goes_on_in_the_units_that_it_began_with(train, tmp_path, metrics):
    """Units of an older version, by another rule, hold for a run that they are kept of."""
    words = ("model=rnn", "data=csv", write(tmp_path / "own.csv", WAVES), *SHORT)
    folder = train(*words, "trainer.max_steps=1")
    record = json.loads((folder / "run.json").read_text())
    record["data"]["standard_deviation"] = [1e3 * sd for sd in record["data"]["standard_deviation"]]
    (folder / "run.json").write_text(json.dumps(record))
    train(*words)
    assert final(folder)["rmse_last_value"] < 0.01


@pytest.mark.numerics
def test_a_stopped_run_goes_on_to_the_same_bits(train, checkpoint_of):
    words = ("model=latent_ode", "model.warmup=5", *SPIRALS)
    train(*words, "trainer.max_steps=4", name="stopped")
    two = [train(*words, name=name) for name in ("stopped", "whole")]
    a, b = ({**final(folder), "time_s": 0, "saved_mib": 0} for folder in two)
    assert a.pop("nfe_backward") > 0 < b.pop("nfe_backward")  # means over windows, which the stop has cut
    assert a == b
    ours, theirs = (checkpoint_of(folder)["model"] for folder in two)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_presets_choose_data_optimiser_and_gradient():
    config = compose(["model=latent_ode", "device=cpu"])
    assert (config.data["name"], config.optim.name, config.optim.lr) == ("spirals", "adam", 1e-2)
    assert config.gradient.method == "replay"
    assert compose(["model=latent_ode", "gradient=adjoint"]).gradient.method == "adjoint"
    assert compose(["model=rnn_dt", "optim.lr=1e-3"]).optim.lr == 1e-3
    check(config)
    with pytest.raises(RequestError, match=r"model\.sigma=0"):
        check(compose(["model=latent_ode", "model.sigma=0"]))


LONG = ("trainer.epochs=null", "trainer.limit_batches=null", "compile=false", "gradient=backprop")


@pytest.mark.slow
def test_the_latent_ode_finds_the_spirals(train):
    scores = final(train("model=latent_ode", "data=spirals", "trainer.steps=2000", *LONG))
    assert scores["rmse_window_clean"] < 0.08
    assert scores["rmse_familiar_clean"] < 0.25
    assert scores["rmse_further_clean"] < scores["rmse_last_value"] < scores["rmse_velocity"]


@pytest.mark.slow
def test_rates_are_found_from_their_events(train):
    scores = final(train("model=latent_poisson", "data=poisson", "trainer.steps=700", *LONG))
    assert scores["rate_error"] < 0.25  # a constant rate is off by 0.38
    assert scores["gap"] < 0.06
