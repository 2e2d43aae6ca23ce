"""What is measured on trained models of series: the same numbers as their scores, and nothing twice."""

import json

import pytest
import torch

from odenet_cli.analysis.measures import Rows, error_control, event_rates, paces, spiral_paths
from odenet_cli.config.saved import save
from odenet_cli.errors import RequestError

FEW = ("data.count=12", "data.validation=4", "data.test=5", "trainer.batch_size=4")
SHORT = ("trainer.epochs=null", "trainer.steps=3", "compile=false")
SPIRALS = ("data=spirals", "data.observed=10", *FEW, *SHORT)
PATHS = {"shown": 2, "latent": 3, "times": 21, "varied": 4}


def final(folder):
    return json.loads((folder / "run.json").read_text())["final"]


def kinds(rows):
    return [row["kind"] for row in rows]


def test_paths_of_a_latent_ode(train):
    folder = train("model=latent_ode", *SPIRALS)
    rows = spiral_paths.measure(folder, PATHS, print)
    assert kinds(rows) == ["path"] * 2 + ["latent"] * 3 + ["varied"] * 16
    assert len(rows[0]["fine"]) == len(rows[0]["path"]) == 21
    assert rows[0]["turns"] * rows[1]["turns"] < 0  # by turns clockwise and not
    assert len(rows[2]["z"][0]) == 4
    before = (folder / "spiral_paths.jsonl").read_bytes()
    assert spiral_paths.measure(folder, PATHS, print) == rows
    assert (folder / "spiral_paths.jsonl").read_bytes() == before
    assert len(spiral_paths.measure(folder, {**PATHS, "shown": 5}, print)) == len(rows) + 3


@pytest.mark.numerics
def test_the_error_of_all_paths_is_the_score(train):
    folder = train("model=rnn", *SPIRALS)
    rows = spiral_paths.measure(folder, {**PATHS, "shown": 5}, print)
    assert kinds(rows) == ["path"] * 5
    mean = (sum(row["rmse_further_clean"] ** 2 for row in rows) / 5) ** 0.5
    assert mean == pytest.approx(final(folder)["rmse_further_clean"], rel=1e-5)


def test_a_circle_turns_once():
    angle = torch.linspace(0, 2 * torch.pi, 101)
    circle = torch.stack((angle.cos(), angle.sin()), 1)
    assert spiral_paths.turns(circle) == pytest.approx(0.99)  # as many turns as there are steps but one
    assert spiral_paths.turns(circle.flip(0)) == pytest.approx(-0.99)


@pytest.mark.numerics
def test_another_pace_is_another_error_of_the_same_network(train):
    folder = train("model=rnn", *SPIRALS)
    same, other = paces.measure(folder, {"paces": ["gap", "time"]}, print)
    assert same["rmse_further_clean"] == pytest.approx(final(folder)["rmse_further_clean"], rel=1e-6)
    assert other["rmse_further_clean"] != same["rmse_further_clean"]
    assert paces.measure(train("model=latent_ode", *SPIRALS, name="ode"), {"paces": ["time"]}, print) == []


def test_rates_of_held_out_events(train):
    folder = train("model=latent_poisson", "data=poisson", "data.expected=20", *FEW, *SHORT)
    rows = event_rates.measure(folder, {"shown": 2}, print)
    assert kinds(rows) == ["sequence"] * 5 + ["rate"] * 2
    scores = final(folder)
    for name in ("rate_error", "gap"):
        assert sum(row[name] for row in rows[:5]) / 5 == pytest.approx(scores[name], rel=1e-3, abs=1e-5)
    assert len(rows[5]["times"]) == rows[0]["events"]
    assert event_rates.measure(folder, {"shown": 2}, print) == rows


MEASURES = {error_control: {}, event_rates: {"shown": 1}, paces: {"paces": [1]}, spiral_paths: PATHS}


@pytest.mark.parametrize("module", MEASURES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_a_class_named_in_a_file_is_not_measured(tiny, tmp_path, monkeypatch, module):
    (tmp_path / "planted_cell.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = tiny()
    config.model.clear()
    config.model.update(name="custom", target="planted_cell:Net", pace=1)
    save(config, tmp_path, tied=True)
    with pytest.raises(RequestError, match=r"names code to run, model\.target=planted_cell:Net"):
        module.measure(tmp_path, MEASURES[module], print)


def test_rows_do_not_go_through_a_link(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "paces.jsonl").symlink_to(precious)
    with pytest.raises(RequestError, match=r"paces\.jsonl is a symbolic link to"):
        Rows(tmp_path / "paces.jsonl")
    assert precious.read_text() == "mine"
