"""Runs of the models of series: they train, are scored, drawn from, and go on to the same bits."""

import json

import numpy
import pytest
import torch

from odenet_cli.commands import eval as command
from odenet_cli.errors import RequestError
from odenet_cli.request import compose
from odenet_cli.training.run import check

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
