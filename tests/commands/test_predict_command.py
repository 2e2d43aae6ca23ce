"""`odenet predict` writes mean and quantiles of series in the table's own units, and classes with probabilities."""

import json
import math
import re

import numpy
import polars
import pytest
import torch
from runs_kit import train_run

from odenet_cli.commands import eval as eval_command
from odenet_cli.commands import predict as command
from odenet_cli.data.poisson import Source as Poisson
from odenet_cli.data.spirals import Source as Spirals
from odenet_cli.errors import RequestError
from odenet_cli.models.latent_ode import LatentODE
from odenet_cli.models.rnn import RNN
from odenet_cli.ode import Adaptive

SHORT = ("trainer.epochs=null", "trainer.steps=3", "compile=false", "device=cpu")


def wave(n, t):
    return round(1000 + 50 * math.sin(t + n), 6)


@pytest.fixture
def own(tmp_path):
    """Dated series in large units, some cells missing."""
    rows = [f"s{n},2020-01-{t + 1:02d},{'' if t % 4 == 3 else wave(n, t)},{n - t}" for n in range(9) for t in range(12)]
    (tmp_path / "own.csv").write_text("\n".join(["name,day,x,y", *rows]))
    return ("data=table", f"data.path={tmp_path / 'own.csv'}", "data.series=name", "data.time=day")


@pytest.mark.parametrize("model", ["latent_ode", "rnn", "rnn_dt"])
def test_series_come_out_in_their_own_units(own, tmp_path, capsys, model):
    folder = train_run(tmp_path / "run", f"model={model}", *own, *SHORT)
    out = tmp_path / "out.csv"
    assert command.main([str(folder), f"out={out}", "draws=50"]) == 0
    text = capsys.readouterr().out
    frame = polars.read_csv(out, try_parse_dates=True)
    assert f"108 rows in {out}" in text
    assert re.search(
        r"inside the band of 90 %: [\d.]+% of 90 observations not seen, [\d.]+% of 99 observations seen", text
    )
    kinds = ("", "_mean", "_5", "_50", "_95")
    assert frame.columns == ["name", "day", "seen", *(f"{column}{kind}" for column in "xy" for kind in kinds)]
    one = frame.filter(polars.col("name") == "s3")
    assert [day.day for day in one["day"]] == list(range(1, 13))
    assert one["seen"].to_list() == [True] * 6 + [False] * 6
    assert one["x"].to_list() == pytest.approx([None if t % 4 == 3 else wave(3, t) for t in range(12)])
    assert 900 < one["x_mean"].mean() < 1100
    assert (frame["x_5"] < frame["x_50"]).all()
    assert (frame["x_50"] < frame["x_95"]).all()

    before = out.read_bytes()
    assert command.main([str(folder), f"out={out}", "draws=50"]) == 0
    assert out.read_bytes() == before


def test_new_series_go_on(own, tmp_path):
    folder = train_run(tmp_path / "run", "model=latent_ode", *own, *SHORT)
    new, out = tmp_path / "new.csv", tmp_path / "out.parquet"
    new.write_text("day,name,y,x\n" + "".join(f"2021-05-{3 * t + 1:02d},z,{t},{wave(0, 3 * t)}\n" for t in range(4)))
    words = [str(folder), f"data.path={new}", f"out={out}", "draws=20"]
    assert command.main([*words, "horizon=7d", "times=2021-05-02,2021-06-01T12:00"]) == 0
    frame = polars.read_parquet(out)
    assert [(when.month, when.day) for when in frame["day"]] == [(5, d) for d in (1, 2, 4, 7, 10, 13, 16)] + [(6, 1)]
    assert frame["seen"].to_list() == [True, False, True, True, True, False, False, False]
    assert frame["y"].to_list() == pytest.approx([0, None, 1, 2, 3, None, None, None])


def test_of_another_table_its_reading_is_told(own, tmp_path, caplog):
    """In metres instead of kilometres, and with a cell of thousands that may be a decimal number."""
    folder = train_run(tmp_path / "run", "model=rnn", *own, *SHORT)
    assert command.main([str(folder), f"out={tmp_path / 'out.csv'}", "draws=20"]) == 0
    assert "other data" not in caplog.text
    new = tmp_path / "new.csv"
    new.write_text("day,name,y,x\n" + "".join(f"2021-05-{t + 1:02d},z,{1e6 * t},{wave(0, t)}\n" for t in range(4)))
    assert command.main([str(folder), f"data.path={new}", f"out={tmp_path / 'out.csv'}", "draws=20"]) == 0
    assert "was trained on other data" in caplog.text
    assert "1 series (name) of 4 points, 4 in all\n" in caplog.text
    assert "y: 1.5e+06 ± 1.12e+06\n" in caplog.text
    assert re.search(r"y of series z \(.* times\) goes more than 100 times as far as is usual", caplog.text)

    new.write_text("day;name;y;x\n2021-05-01;z;1.230;950\n2021-05-02;z;987;1.040\n2021-05-03;z;900;1.010")
    words = [str(folder), f"data.path={new}", f"out={tmp_path / 'out.csv'}", "draws=20"]
    with pytest.raises(RequestError, match=r"ambiguous: . may separate thousands .* data.decimal=','"):
        command.main(words)
    assert command.main([*words, "data.decimal=,"]) == 0
    assert polars.read_csv(tmp_path / "out.csv")["y"].to_list() == [1230, 987, 900]
    assert "y: 1.230 read as 1230\n" in caplog.text


def test_an_option_of_a_newer_version_is_refused_by_name(own, tmp_path):
    folder = train_run(tmp_path / "run", "model=rnn", *own, *SHORT)
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("  window: 0.5", "  window: 0.5\n  later: 1"))
    with pytest.raises(RequestError, match=r"data\.later is not an option of data=table"):
        command.main([str(folder), "out=out.csv"])


def test_series_without_a_value_are_named(own, tmp_path, capsys):
    folder = train_run(tmp_path / "run", "model=rnn", *own, *SHORT)
    new, out = tmp_path / "new.csv", tmp_path / "out.csv"
    rows = [f"{name},2021-05-{t + 1:02d},{x},{x}" for name, x in (("z", 1), ("void", "")) for t in range(4)]
    new.write_text("\n".join(["name,day,x,y", *rows]))
    assert command.main([str(folder), f"data.path={new}", f"out={out}", "draws=20"]) == 0
    assert "ignored, without values: 1 series (void)" in capsys.readouterr().out
    assert set(polars.read_csv(out)["name"]) == {"z"}


def test_rows_without_a_value_ask_for_one(own, tmp_path):
    folder = train_run(tmp_path / "run", "model=latent_ode", *own, *SHORT)
    new, out = tmp_path / "new.csv", tmp_path / "out.parquet"
    rows = [f"{name},2021-05-{t:02d},{t},{t}" for name in "yz" for t in (2, 3, 5, 6)]
    empty = [f"z,2021-05-{t:02d},," for t in (1, 4, 7, 9)]  # nothing is predicted before the first value
    new.write_text("\n".join(["name,day,x,y", *rows, *empty]))
    assert command.main([str(folder), f"data.path={new}", f"out={out}", "draws=20"]) == 0
    found = {name: polars.read_parquet(out).filter(polars.col("name") == name) for name in "yz"}
    assert [when.day for when in found["y"]["day"]] == [2, 3, 5, 6]
    assert found["y"]["seen"].to_list() == [True, True, False, False]  # the window of the run
    assert [when.day for when in found["z"]["day"]] == [2, 3, 4, 5, 6, 7, 9]
    assert found["z"]["seen"].to_list() == [True, True, False, True, True, False, False]
    assert found["z"]["x"].to_list() == [2, 3, None, 5, 6, None, None]
    assert found["z"]["x_mean"].is_finite().all()


def test_of_wide_tables_a_row_without_any_value_asks_for_all_series(tmp_path):
    cells = [f"{t},{'' if t == 5 else wave(0, t)},{wave(1, t)},{wave(2, t)},{wave(3, t)}" for t in range(9)]
    path, out = tmp_path / "wide.csv", tmp_path / "out.parquet"
    path.write_text("\n".join(["t,a,b,c,d", *cells, "9,,,,", "12,,,,"]))
    words = ("data=table", f"data.path={path}", "data.form=wide", "data.time=t")
    folder = train_run(tmp_path / "run", "model=rnn", *words, *SHORT)
    assert command.main([str(folder), f"out={out}", "draws=20"]) == 0
    frame = polars.read_parquet(out)
    times = {name: frame.filter(polars.col("series") == name)["t"].to_list() for name in "ab"}
    assert times == {"a": [0, 1, 2, 3, 4, 6, 7, 8, 9, 12], "b": [*range(10), 12]}


def test_a_figure_of_the_first_series_is_drawn_beside_the_file(own, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = train_run(tmp_path / "run", "model=latent_ode", *own, *SHORT)
    assert command.main([str(folder), "out=fore.cast.csv", "draws=20"]) == 0
    first = polars.read_csv("fore.cast.csv")["name"][0]
    assert f"series {first}: fore.cast.png" in capsys.readouterr().out
    assert (tmp_path / "fore.cast.png").read_bytes()[:4] == b"\x89PNG"
    assert "<svg" in (tmp_path / "fore.cast.svg").read_text()


SPIRALS = ("data=spirals", "data.count=20", "data.validation=8", "data.test=3", "trainer.batch_size=20")


def test_the_test_series_of_spirals_are_predicted(tmp_path, capsys):
    folder = train_run(tmp_path / "run", "model=latent_ode", *SPIRALS, *SHORT)
    out = tmp_path / "out.csv"
    assert command.main([str(folder), f"out={out}", "times=0.01,9", "draws=50"]) == 0
    frame = polars.read_csv(out)
    assert re.search(
        r"[\d.]+% of 1,020 observations not seen, [\d.]+% of 180 observations seen", capsys.readouterr().out
    )
    assert len(frame) == 3 * 202
    one = frame.filter(polars.col("series") == 1)
    assert one["seen"].sum() == 30
    assert one.filter(polars.col("x1").is_null())["time"].to_list() == [0.01, 9.0]
    data = Spirals(count=20, validation=8, test=3).rows()
    assert one["x2"].drop_nulls().to_list() == pytest.approx(data.noisy[-2, :, 1].tolist(), abs=1e-6)
    last = one.filter("seen")["time"].max()
    assert last == pytest.approx(float(data.times[-2, -1]), abs=1e-5)

    # The band is scaled by what the run says it was on its validation series.
    record = json.loads((folder / "run.json").read_text())
    assert [len(part) for part in (record["band"]["window"], *record["band"]["further"])] == [2] * 6
    assert len(record["band"]["leads"]) == 5
    record["band"] = {"window": [1.0, 1.0], "further": [1.0, None]}  # of an older run
    (folder / "run.json").write_text(json.dumps(record))
    raw, widths = None, []
    for factors in ([1.0, 1.0], [2.0, None]):
        record["band"]["further"] = factors
        (folder / "run.json").write_text(json.dumps(record))
        command.main([str(folder), f"out={out}", "draws=50"])
        raw = polars.read_csv(out).filter(polars.col("series") == 1)
        widths.append([(raw[f"{name}_95"] - raw[f"{name}_5"]).to_numpy() for name in ("x1", "x2")])
    after = raw["time"].to_numpy() > last
    assert widths[1][0] / widths[0][0] == pytest.approx(1 + after, rel=1e-5)
    assert widths[1][1] == pytest.approx(widths[0][1])
    capsys.readouterr()
    command.main([str(folder), f"out={out}", "draws=50", "checkpoint=last"])
    assert "not calibrated: no validation series was available" in capsys.readouterr().out
    for damaged in ({"window": [1.0], "further": "none"}, {"window": [1.0, 1.0], "leads": [], "further": []}):
        (folder / "run.json").write_text(json.dumps({**record, "band": damaged}))
        with pytest.raises(RequestError, match=r"run.json: band is .* Restore what the run wrote"):
            command.main([str(folder), f"out={out}"])


def test_rates_of_events_are_predicted(tmp_path, capsys):
    words = ("data.expected=20", "data.count=8", "data.validation=2", "data.test=2", "trainer.batch_size=8")
    folder = train_run(tmp_path / "run", "model=latent_poisson", *words, *SHORT)
    out = tmp_path / "out.csv"
    assert command.main([str(folder), f"out={out}", "times=0.01", "draws=50"]) == 0
    assert re.search(r"inside the band of 90 %: [\d.]+% of 402 true rates\nseries 0", capsys.readouterr().out)
    frame = polars.read_csv(out)
    one = frame.filter(polars.col("series") == 1)
    assert one["rate"].drop_nulls().to_list() == pytest.approx(
        Poisson(expected=20, count=8, validation=2, test=2).rows().rate[-1].tolist(), rel=1e-5
    )
    assert (frame["rate_5"] > 0).all()
    assert (frame["rate_5"] < frame["rate_95"]).all()


def test_what_series_that_are_drawn_do_not_have_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = train_run(tmp_path / "run", "model=rnn", *SPIRALS, *SHORT)
    refused = {
        "seen=0.5": "seen= only applies to tables",
        "horizon=3": "horizon= only applies to tables",
        "times=-1": "begins at 0",
    }
    for words, says in {**refused, "times=soon": "each must be a number"}.items():
        with pytest.raises(RequestError, match=says):
            command.main([str(folder), "out=a.csv", words])
    assert not (tmp_path / "a.csv").exists()


REFUSED = {
    "": "out= is missing; give out=FILE.csv",
    "out=a.txt": "must end with .csv or .parquet",
    "out=nowhere/a.csv": "the folder nowhere does not exist",
    "out=a.csv seen=1.5": "seen=1.5 is out of range: it is a share",
    "out=a.csv horizon=7": "horizon=7 must be a number with a unit: 30d",
    "out=a.csv horizon=1e9d": "too many",
    "out=a.csv times=3": "times=3: each must be a date",
    "out=a.csv times=2999-01-01,1999-01-01": "times=1999-01-01: series .* begins later",
}


def test_a_request_that_cannot_be_met_writes_nothing(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = train_run(tmp_path / "run", "model=rnn", *own, *SHORT)
    for words, says in REFUSED.items():
        with pytest.raises(RequestError, match=says):
            command.main([str(folder), *words.split()])
    assert not (tmp_path / "a.csv").exists()


def test_a_classifier_gives_classes_and_probabilities(tmp_path, capsys):
    folder = train_run(
        tmp_path / "run", "model=mlp", "data=digits", "trainer.epochs=1", "trainer.max_steps=20", "device=cpu"
    )
    out = tmp_path / "out.csv"
    assert command.main([str(folder), f"out={out}"]) == 0
    frame = polars.read_csv(out)
    p = frame.select(f"p{k}" for k in range(10)).to_numpy()
    assert len(frame) == 360
    assert p.sum(1) == pytest.approx(1)
    assert (p.argmax(1) == frame["class"].to_numpy()).all()
    wrong = (frame["class"] != frame["label"]).mean()
    chosen = frame.select(polars.max_horizontal(f"p{k}" for k in range(10)).mean()).item()
    told = f"error {100 * wrong:.2f} %; mean probability of the predicted class {100 * chosen:.2f} % (360 samples"
    assert told in capsys.readouterr().out


def test_a_regression_gives_the_values_of_all_samples_in_the_order_of_the_file(tmp_path, capsys):
    x = numpy.random.default_rng(0).normal(size=(30, 2))
    y = 1e3 * x @ [[1.0, 2.0], [-1.0, 0.5]] + 5
    numpy.savez(tmp_path / "file.npz", x=x, y=y)
    numpy.savez(tmp_path / "other.npz", x=x[:4], y=y[:4])
    words = ["data=arrays", f"data.path={tmp_path / 'file.npz'}", "model=resnet", "model.width=4", "model.blocks=1"]
    folder = train_run(tmp_path / "run", *words, "trainer.max_steps=60", "device=cpu", "logger=none")
    final = json.loads((folder / "run.json").read_text())["final"]
    capsys.readouterr()
    assert command.main([str(folder), f"out={tmp_path / 'out.csv'}"]) == 0
    text = capsys.readouterr().out
    frame = polars.read_csv(tmp_path / "out.csv")
    assert frame["y2"].to_numpy() == pytest.approx(y[:, 1])
    held = frame.filter(polars.col("split") == "test")
    off = held.select("y1_predicted", "y2_predicted").to_numpy() - held.select("y1", "y2").to_numpy()
    assert numpy.sqrt((off**2).mean()) == pytest.approx(final["rmse"], rel=1e-5)
    each = numpy.sqrt((off**2).mean(0))
    assert f"RMSE y1 {each[0]:.4g}, y2 {each[1]:.4g} (3 samples of the test)" in text

    out = tmp_path / "few.csv"
    assert command.main([str(folder), f"data.path={tmp_path / 'other.npz'}", f"out={out}"]) == 0
    few = polars.read_csv(out)
    assert few["y1_predicted"].to_numpy() == pytest.approx(frame["y1_predicted"].to_numpy()[:4], rel=1e-5)
    assert few.columns == ["sample", "y1", "y1_predicted", "y2", "y2_predicted"]
    assert "of the test" not in capsys.readouterr().out

    numpy.savez(tmp_path / "new.npz", x=x[:4])  # nobody knows y
    assert command.main([str(folder), f"data.path={tmp_path / 'new.npz'}", f"out={out}"]) == 0
    new = polars.read_csv(out)
    assert new.columns == ["sample", "y1_predicted", "y2_predicted"]
    assert new["y1_predicted"].to_list() == few["y1_predicted"].to_list()
    assert "no y to compare with" in capsys.readouterr().out
    with pytest.raises(RequestError, match=r"new.npz has no y to compare with. .* odenet predict"):
        eval_command.main([str(folder), f"data.path={tmp_path / 'new.npz'}"])


def test_classes_that_have_names_are_written_by_name(tmp_path):
    x = numpy.random.default_rng(0).normal(size=(30, 2))
    numpy.savez(tmp_path / "file.npz", x=x, y=numpy.where(x[:, 0] > 0, "right", "left"))
    words = ["data=arrays", f"data.path={tmp_path / 'file.npz'}", "model=mlp", "model.hidden=4"]
    folder = train_run(tmp_path / "run", *words, "trainer.max_steps=60", "device=cpu", "logger=none")
    assert command.main([str(folder), f"out={tmp_path / 'out.csv'}"]) == 0
    frame = polars.read_csv(tmp_path / "out.csv")
    assert frame.columns == ["sample", "split", "label", "class", "p_left", "p_right"]
    assert frame["label"].to_list() == numpy.where(x[:, 0] > 0, "right", "left").tolist()
    assert ((frame["p_right"] > 0.5) == (frame["class"] == "right")).all()
    numpy.savez(tmp_path / "new.npz", x=x)
    assert command.main([str(folder), f"data.path={tmp_path / 'new.npz'}", f"out={tmp_path / 'out.csv'}"]) == 0
    new = polars.read_csv(tmp_path / "out.csv")
    assert new.columns == ["sample", "class", "p_left", "p_right"]
    assert new["class"].to_list() == frame["class"].to_list()


def test_draws_of_a_latent_ode_have_the_noise_of_the_observations():
    """With q a point, an observation is Gaussian around the decoded path with the standard deviation sigma."""
    torch.manual_seed(0)
    solver = Adaptive(method="dopri5", rtol=1e-5, atol=1e-5)
    options = {"latent": 3, "rnn": 5, "cell": "rnn", "hidden": 6, "layers": 1, "sigma": 0.2, "kl": 1.0, "warmup": 0}
    model = LatentODE((2,), 0, solver, **options).eval()
    with torch.no_grad():
        model.recognition.head.weight[3:] = 0
        model.recognition.head.bias[3:] = -30
        times, values = torch.tensor([[0.0, 1.0]]), torch.randn(1, 2, 2)
        mask, targets = torch.ones(1, 2, dtype=torch.bool), [0.5, 2.0, 3.0]
        draws = model.draw(times, values, mask, torch.tensor([targets]), 4000, torch.Generator().manual_seed(1))
        path = model.forecast(times, values, mask, torch.tensor([targets])).path
    assert draws.shape == (4000, 1, 3, 2)
    assert torch.allclose(draws.mean(0), path, atol=5 * 0.2 / 4000**0.5)
    assert torch.allclose(draws.std(0), torch.full_like(path, 0.2), rtol=0.06)


def test_draws_of_a_recurrent_network_widen_as_it_runs_freely():
    """In the window they are its one-step predictions; behind it each draw goes on with what it drew."""
    torch.manual_seed(0)
    model = RNN((1,), 0, hidden=4, cell="rnn", pace="gap").eval()
    times, mask = torch.tensor([[0.0, 1.0, 2.0]]), torch.ones(1, 3, dtype=torch.bool)
    values = torch.randn(1, 3, 1)
    with torch.no_grad():
        mean, spread, _ = model.one_step(times, values)
        draws = model.draw(times, values, mask, torch.tensor([[1.0, 2.0, 4.0]]), 4000, torch.Generator().manual_seed(1))
        first = model.forecast(times, values, mask, torch.tensor([[1.0, 2.0, 4.0]])).path
    assert torch.allclose(draws.mean(0)[:, :2], mean[:, 1:], atol=0.08 * float(spread.max()))
    assert torch.allclose(draws.std(0)[:, :2], spread[:, 1:], rtol=0.06)
    assert torch.allclose(first[:, :2], mean[:, 1:])
    assert draws.std(0)[0, 2, 0] > 0


def test_a_fit_goes_on_with_the_errors_of_its_parameters(tmp_path, capsys):
    """Behind its capacity a population stays; what was held out is not seen, and the band holds most of it."""
    t, noise = range(20), torch.randn(20, generator=torch.Generator().manual_seed(0)).tolist()
    rows = [f"{2000 + n},{50 / (1 + 20 * math.exp(-0.6 * n)) + e}" for n, e in zip(t, noise)]
    (tmp_path / "x.csv").write_text("\n".join(["year,size", *rows]))
    words = ("model=fit", "model.field=logistic", "data=table", f"data.path={tmp_path / 'x.csv'}", "data.time=year")
    folder = train_run(
        tmp_path / "run", *words, "data.test=0.2", "model.starts=4", "compile=false", "device=cpu", "solver.rtol=1e-6"
    )
    assert command.main([str(folder), f"out={tmp_path / 'out.csv'}", "horizon=2", "times=2030"]) == 0
    assert "observations not seen" in capsys.readouterr().out
    frame = polars.read_csv(tmp_path / "out.csv")
    assert frame["year"].to_list() == [*range(2000, 2022), 2030]
    assert frame["seen"].to_list() == [True] * 16 + [False] * 7
    assert frame["size_mean"][-1] == pytest.approx(50, abs=3)
    inside = (frame["size"] > frame["size_5"]) & (frame["size"] < frame["size_95"])
    assert inside.sum() >= 15
    with pytest.raises(RequestError, match="is not for a fit"):
        command.main([str(folder), f"out={tmp_path / 'out.csv'}", "seen=0.5"])
