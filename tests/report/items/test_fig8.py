"""Figures 8 to 10: drawn from what was measured on networks of table 2, at the learning rates validation chose."""

import json

import pytest

from odenet_cli.report import style
from odenet_cli.report.items import fig8
from odenet_cli.report.result import Entry
from odenet_cli.report.runs import read_run

MODELS = {"latent ODE": "latent_ode", "RNN": "rnn"}


def path(series, error):
    at = [[0.1 * n, 0.2 * n] for n in range(11)]
    line = {"at": [0.2 * n for n in range(11)], "clean": at, "fine": [0.1 * n for n in range(21)]}
    line |= {"path": [[0.05 * n, 0.1 * n] for n in range(21)], "times": [0.0, 0.5], "values": at[:2], "end": 1.0}
    return {
        "kind": "path",
        "series": series,
        **line,
        "turns": 1.0,
        "rmse_window_clean": 0.1,
        "rmse_further_clean": error,
    }


def latent(series):
    z = [[n, series, -n, 1.0] for n in range(5)]
    return {"kind": "latent", "series": series, "z": z, "turns": 1.0 if series % 2 else -1.0}


def varied(dimension, value, turns):
    line = [[value, 0.0], [value + 1, 1.0], [value, 2.0]]
    return {"kind": "varied", "dimension": dimension, "value": value, "path": line, "turns": turns}


@pytest.fixture
def cell(tmp_path, write):
    def written(row, size=30, rate=0.01, valid=0.2, error=0.1):
        folder = tmp_path / f"{row}-{size}-{rate}"
        config = {"model": {"name": MODELS[row]}, "data": {"name": "spirals", "observed": size}, "optim.lr": rate}
        write(folder, config=config, error=None, final={"best_epoch": 1})
        record = {"split": "valid", "step": 100, "epoch": 1, "rmse_further_noisy": valid}
        (folder / "metrics.jsonl").write_text(json.dumps(record) + "\n")
        measured = [path(n, error) for n in range(4)]
        if row == "latent ODE":
            measured += [latent(n) for n in range(6)]
            measured += [varied(1, v, 1.0) for v in (-1.0, 1.0)] + [varied(2, v, v) for v in (-1.0, 0.0, 1.0)]
        return Entry("networks", row, read_run(folder), measured)

    return written


def test_the_network_that_validation_chose_is_drawn(cell):
    entries = [cell("latent ODE", rate=0.01, valid=0.3, error=0.5), cell("latent ODE", rate=0.02, valid=0.2, error=0.1)]
    made = fig8.result([*entries, cell("RNN", error=0.4)], {"notes": []})
    assert made.facts["error_ratio"] == pytest.approx(0.25)
    assert len(made.rows) == 8
    assert all(made.figures.values())


@pytest.mark.numerics
def test_both_parts_of_a_path_meet_in_two_colours(cell):
    made = fig8.result([cell("latent ODE"), cell("RNN")], {"notes": []})
    figure = made.figures["spirals"]
    assert len(figure.axes) == 8
    assert [figure.axes[n].get_title("left") for n in (0, 4)] == ["8a  RNN", "8b  latent ODE"]
    lines = {line.get_color(): line.get_xydata().tolist() for line in figure.axes[4].get_lines()}
    inside, after = lines[style.CYCLE[0]], lines[style.CYCLE[1]]
    assert inside[-1] == after[0]
    assert len(inside) == 11
    assert len(after) == 11


def test_by_number_of_points_only_the_latent_ode(cell):
    made = fig8.result([cell("latent ODE", 30), cell("latent ODE", 100), cell("RNN", 30)], {"notes": []})
    titles = [axes.get_title("left") for axes in made.figures["points"].axes]
    assert [title for title in titles if title] == ["30 points", "100 points"]


def test_the_dimension_that_turns_spirals_round_is_the_one_shown(cell):
    made = fig8.result([cell("latent ODE")], {"notes": []})
    assert "dimension 2" in "".join(made.body)
    assert made.facts["turns_both_ways"] == 1
    assert made.figures["latent"].axes[1].get_xlabel() == "$z_3$"


def test_without_a_trained_network_nothing_is_drawn(cell):
    made = fig8.result([cell("RNN")._replace(measured=[])], {"notes": []})
    assert not made.figures
    assert not made.rows
