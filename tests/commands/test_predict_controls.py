"""Runs with controls: trained by command, scored, and asked for forecasts that take the controls from the table."""

import cmath
import json
import math

import polars
import pytest
from runs_kit import train_run

from odenet_cli.commands import eval as eval_command
from odenet_cli.commands import predict as command
from odenet_cli.errors import RequestError

SHORT = ("trainer.epochs=null", "trainer.steps=3", "compile=false", "device=cpu")


def oscillators(count=10, points=12, ahead=3, end=6.0):
    """y'' + 0.4 y' + 4 y = a cos(w t + p), exactly; u is the right-hand side, known three rows further on."""
    damping, natural = 0.2, 2.0
    beat = math.sqrt(natural**2 - damping**2)
    for n in range(count):
        a, w, p = 1 + n % 5 / 2, 0.5 + (7 * n % 11) / 11, n
        response = a * cmath.exp(1j * p) / (natural**2 - w**2 + 2j * damping * w)
        c = math.sin(3 * n) - response.real
        d = (math.cos(5 * n) - (1j * w * response).real + damping * c) / beat
        for k in range(points + ahead):
            t = k * end / (points - 1)
            free = math.exp(-damping * t) * (c * math.cos(beat * t) + d * math.sin(beat * t))
            y = (response * cmath.exp(1j * w * t)).real + free
            yield f"s{n}", t, y if k < points else None, a * math.cos(w * t + p), "AB"[n % 2]


def write(path, rows):
    lines = [f"{name},{t:.6f},{'' if y is None else f'{y:.6f}'},{u:.6f},{kind}" for name, t, y, u, kind in rows]
    path.write_text("\n".join(["series,time,y,u,kind", *lines]))
    return path


@pytest.fixture
def own(tmp_path):
    path = write(tmp_path / "own.csv", oscillators())
    return ("data=table", f"data.path={path}", "data.controls=[u]", "data.static=[kind]")


@pytest.mark.parametrize("model", ["latent_ode", "rnn", "rnn_dt"])
def test_a_run_with_controls_is_scored_and_goes_on(own, tmp_path, capsys, model):
    folder = train_run(tmp_path / "run", f"model={model}", *own, *SHORT)
    record = json.loads((folder / "run.json").read_text())
    assert list(record["data"]["controls"]) == ["u", "kind=A", "kind=B"]
    assert math.isfinite(record["final"]["rmse_further_noisy"])
    assert eval_command.main([str(folder)]) == 0

    out = tmp_path / "out.csv"
    assert command.main([str(folder), f"out={out}", "draws=20"]) == 0
    frame = polars.read_csv(out).filter(polars.col("series") == "s3")
    assert frame["seen"].to_list() == [True] * 12 + [False] * 3
    assert frame["time"].to_list() == pytest.approx([k * 6 / 11 for k in range(15)], abs=1e-5)
    assert frame["y"].null_count() == 3
    assert frame["y_mean"].is_finite().all()

    assert command.main([str(folder), f"out={out}", "draws=20", "horizon=1", "seen=0.5"]) == 0
    frame = polars.read_csv(out).filter(polars.col("series") == "s3")
    assert frame["seen"].to_list() == [True] * 6 + [False] * 7
    capsys.readouterr()


def test_another_control_is_another_forecast(own, tmp_path):
    """Rows ahead in another file: what it says of u there is what the network is told."""
    folder = train_run(tmp_path / "run", "model=rnn_dt", *own, *SHORT)
    means = []
    for change in (0.0, 5.0):
        rows = [(name, t, y, u + change * (t > 6.01), kind) for name, t, y, u, kind in oscillators(2)]
        path, out = write(tmp_path / "new.csv", rows), tmp_path / "out.csv"
        assert command.main([str(folder), f"data.path={path}", f"out={out}", "draws=50"]) == 0
        means.append(polars.read_csv(out).filter(polars.col("series") == "s0")["y_mean"].to_list())
    assert means[0][:12] == means[1][:12]
    assert all(abs(a - b) > 1e-3 for a, b in zip(means[0][12:], means[1][12:]))


def test_a_control_in_another_unit_is_told(own, tmp_path, caplog):
    folder = train_run(tmp_path / "run", "model=rnn_dt", *own, *SHORT)
    mean, sd = json.loads((folder / "run.json").read_text())["data"]["controls"]["u"]
    rows = [(name, t, y, u + 100, kind) for name, t, y, u, kind in oscillators(2)]
    path = write(tmp_path / "new.csv", rows)
    said = f"training series: u ({sum(row[3] for row in rows) / len(rows):.4g}; there {mean:.4g} ± {sd:.3g}). If"
    for main, words in ((command.main, [f"out={tmp_path / 'out.csv'}", "draws=5"]), (eval_command.main, [])):
        caplog.clear()
        assert main([str(folder), f"data.path={path}", *words]) == 0
        assert said in caplog.text


def test_a_forecast_beyond_the_control_is_refused_by_name(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = train_run(tmp_path / "run", "model=rnn", *own, *SHORT)
    says = (
        r"own\.csv: u of series s\d is given up to 7\.636364, and the forecast goes to 30\. Add rows with u up to there"
    )
    with pytest.raises(RequestError, match=says):
        command.main([str(folder), "out=a.csv", "times=30"])
    # Rows go a part of the way: the forecast ended with them, without a word.
    with pytest.raises(
        RequestError, match=r"horizon=30 goes to 36, and the controls of series s\d are given up to 7\.6"
    ):
        command.main([str(folder), "out=a.csv", "horizon=30"])
    bare = tmp_path / "bare.csv"
    bare.write_text("series,time,y,kind\na,0,1,A\na,1,2,A\n")
    with pytest.raises(
        RequestError, match=r"data\.controls=u: there is no such column. Available: series, time, y, kind"
    ):
        command.main([str(folder), f"data.path={bare}", "out=a.csv"])
    path = write(tmp_path / "short.csv", oscillators(ahead=0))
    with pytest.raises(
        RequestError, match=r"short\.csv: u of series s[0-9] is given up to 6, and the forecast goes to 6\.5"
    ):
        command.main([str(folder), f"data.path={path}", "out=a.csv", "horizon=1"])
    assert not (tmp_path / "a.csv").exists()


def test_a_class_of_one_s_own_takes_controls_or_is_refused(own, odenet, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "from odenet_cli.models.rnn import RNN\n"
        "class Deaf(RNN):\n"
        "    def __init__(self, shape, classes):\n"
        "        super().__init__(shape, classes, hidden=4, cell='rnn', pace='gap')\n"
        "    def forecast(self, times, values, observed_mask, target_times=None):\n"
        "        return super().forecast(times, values, observed_mask, target_times)\n"
        "class Told(RNN):\n"
        "    def __init__(self, shape, classes):\n"
        "        super().__init__(shape, classes, hidden=4, cell='rnn', pace='gap')\n"
    )
    refused, done = (
        odenet("train", "model=custom", f"model.target=mine:{name}", *own, *SHORT, f"hydra.run.dir={name}")
        for name in ("Deaf", "Told")
    )
    assert refused.returncode == 2
    assert "its method `forecast` has no argument control=None" in refused.stderr
    assert not (tmp_path / "Deaf").exists()
    assert done.returncode == 0, done.stderr
    assert "u: " in done.stdout
    assert "control (linear), to 7.63636" in done.stdout


@pytest.mark.numerics
@pytest.mark.parametrize("model", ["latent_ode", "rnn_dt"])
def test_with_the_control_extrapolation_errs_by_half_or_less(tmp_path, model):
    """Of a forced oscillator: both runs see half of each series, one is told the force."""
    path = write(tmp_path / "own.csv", oscillators(40, 24, ahead=0, end=8.0))
    words = ("data=table", f"data.path={path}", "trainer.steps=150", "optim.lr=2e-2", "optim.schedule=cosine")
    errors = []
    for name, columns in {"with": ["data.controls=[u]"], "without": []}.items():
        folder = train_run(
            tmp_path / name, f"model={model}", *words, *columns, "data.values=[y]", "compile=false", "device=cpu"
        )
        errors.append(json.loads((folder / "run.json").read_text())["final"]["rmse_further_noisy"])
    assert errors[0] <= 0.5 * errors[1]
