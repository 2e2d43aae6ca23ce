"""Dates in local time: zones by name, and the hours that clocks leave out or have twice."""

import datetime

import polars
import pytest
import table_kit
import torch
from runs_kit import train_run
from table_kit import write

from odenet_cli.commands import predict
from odenet_cli.data.common.series import Series
from odenet_cli.errors import RequestError

BERLIN = ["2024-10-27 01:00", "2024-10-27 02:00", "2024-10-27 02:00", "2024-10-27 03:00", "2024-10-27 04:00"]


def load(path, **options):
    """The record of a table of one series, and its times to train on in seconds."""
    found = table_kit.load(path, **{"split": "time", "validation": 0.0, "window": 1.0, **options})
    x = Series(*next(iter(found.train.unshuffled(9).epoch(0))))
    return found.record, (x.target_times[0] * found.record["time_unit"]).tolist()


def zoned(tmp_path, times, end="", **options):
    lines = ["time,y", *(f"{t}{end},{n * n % 7}" for n, t in enumerate(times))]
    return load(write(tmp_path, "\n".join(lines)), **options)


@pytest.mark.parametrize("end", ["", " Europe/Berlin", ":00 Europe/Berlin"])
def test_local_times_across_the_end_of_summer(tmp_path, end):
    """Of the hour that is there twice the first row is the earlier; an hour stays an hour."""
    zone = {} if end else {"zone": "Europe/Berlin"}
    with pytest.raises(RequestError, match=r"line 3: time=2024-10-27 02:00:00 exists twice.*also in line 4"):
        zoned(tmp_path, BERLIN, end, **zone)
    record, times = zoned(tmp_path, BERLIN, end, **zone, ambiguous="order")
    assert times == pytest.approx([0, 3600, 7200])
    assert record["table"][1].startswith("time: 2024-10-27 01:00:00+02:00 to 2024-10-27 04:00:00+01:00, gaps 1 h")
    for hour, gap in (("earliest", 3600), ("latest", 7200)):
        _, times = zoned(tmp_path, [BERLIN[0], *BERLIN[2:]], end, **zone, ambiguous=hour)
        assert times == pytest.approx([0, gap])


def test_a_time_that_states_its_offset_needs_no_zone(tmp_path):
    stated = ["2024-10-27T01:00+02:00", "2024-10-27T02:00+02:00[Europe/Berlin]", "2024-10-27T01:00Z", *BERLIN[3:]]
    _, times = zoned(tmp_path, stated, zone="Europe/Berlin")
    assert times == pytest.approx([0, 3600, 7200])


def test_stored_dates_are_local_too(tmp_path):
    path = tmp_path / "own.parquet"
    moments = [datetime.datetime(2024, 3, 31, hour) for hour in (0, 1, 3, 4, 5, 6)]
    polars.DataFrame({"time": moments, "y": [1.0, 2, 4, 3, 1, 2]}).write_parquet(path)
    gaps = {}
    for zone in (None, "Europe/Berlin"):
        gaps[zone] = torch.tensor(load(path, zone=zone)[1]).diff().tolist()
    assert gaps[None] == pytest.approx([3600, 7200, 3600])
    assert gaps["Europe/Berlin"] == pytest.approx([3600, 3600, 3600])


@pytest.mark.parametrize(
    ("times", "options", "says"),
    [
        (
            ["2024-03-31 02:30", "2024-03-31 04:30"],
            {"zone": "Europe/Berlin"},
            "line 2: time=.* 02:30:00 does not exist",
        ),
        (
            BERLIN,
            {"zone": "Europe/Berln"},
            r"data\.zone=Europe/Berln is not the name of a time zone.* Did you mean Europe/B",
        ),
        (["1", "2"], {"zone": "UTC"}, r"time='1': data\.zone=UTC only applies to dates"),
        (["2024-01-01 00:00 Europe/Berln"], {}, "Europe/Berln is not the name of a time zone"),
        (BERLIN, {"ambiguous": "both"}, r"data\.ambiguous=both is not known. Available: earliest, latest, order"),
    ],
)
def test_bad_zones(tmp_path, times, options, says):
    with pytest.raises(RequestError, match=says):
        zoned(tmp_path, times, **options)


def test_a_forecast_is_told_in_the_zone_of_the_table(tmp_path):
    """Two hours behind the last point clocks are put back: its local times say which is which."""
    rows = [f"2024-10-{26 + hour // 24} {hour % 24:02d}:00,{hour * hour % 7}" for hour in range(26)]
    (tmp_path / "own.csv").write_text("\n".join(["time,y", *rows]))
    words = ("data=table", f"data.path={tmp_path / 'own.csv'}", "data.split=time", "data.zone=Europe/Berlin")
    few = ("trainer.epochs=null", "trainer.steps=1", "compile=false", "device=cpu")
    folder, out = train_run(tmp_path / "run", "model=rnn", *words, *few), tmp_path / "out.csv"
    assert predict.main([str(folder), f"out={out}", "horizon=3h", "draws=5", "times=2024-10-27T05:00"]) == 0
    times = polars.read_csv(out)["time"].to_list()[-5:]
    assert [time[11:16] + time[-6:] for time in times] == [
        "01:00+02:00",
        "02:00+02:00",
        "02:00+01:00",
        "03:00+01:00",
        "05:00+01:00",
    ]


def test_a_forecast_by_a_fit_is_told_in_that_zone_too(tmp_path):
    rows = [f"2024-07-{day:02d} 06:00,{50 / (1 + 20 * 2.718**-day):.4f}" for day in range(1, 11)]
    (tmp_path / "own.csv").write_text("\n".join(["time,size", *rows]))
    words = ("data=table", f"data.path={tmp_path / 'own.csv'}", "data.zone=Europe/Berlin")
    near = (
        "model.starts=1",
        "+model.start.rate=0.9",
        "+model.start.capacity=45",
        "trainer.steps=3",
        "solver.rtol=1e-6",
    )
    field = ("model=fit", "model.field=logistic", *near, "compile=false", "device=cpu")
    folder = train_run(tmp_path / "run", *field, *words)
    out = tmp_path / "out.csv"
    assert predict.main([str(folder), f"out={out}", "horizon=1d"]) == 0
    times = polars.read_csv(out)["time"].to_list()
    assert [time[:16] + time[-6:] for time in times] == [f"2024-07-{n:02d}T06:00+02:00" for n in range(1, 12)]
