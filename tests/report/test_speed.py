"""The figure of `odenet bench` shows what its pages say."""

import json

import pytest

from odenet_cli.commands import bench
from odenet_cli.errors import RequestError
from odenet_cli.report import speed

MADE = {"processor": "2 cores", "commit": "0123456789", "date": "2026-11-25 08:54"}
TIMED = [
    {"subject": "torchdiffeq odeint", "times_ms": [100.0] * 3, "ms": 100.0, "ratio": 1.0, "failed": None},
    {"subject": "odenet backprop", "times_ms": [40.0, 50.0, 60.0], "ms": 50.0, "ratio": 2.0, "failed": None},
    {"subject": "torchode adjoint", "times_ms": [], "ms": None, "ratio": None, "failed": "too far off"},
]
SOLVED = [
    {"subject": name, "tolerance": tol, "nfe": nfe, "error": 10 * tol}
    for name in ("odenet dopri5", "a peer")
    for tol, nfe in ((1e-3, 100), (1e-5, 300))
]


@pytest.fixture
def pages(tmp_path):
    tables = {"w1": [{"title": "CNF, batch 8", "records": TIMED}], "precision": [{"title": "orbit", "records": SOLVED}]}
    for name, content in tables.items():
        (tmp_path / f"{name}-cpu.json").write_text(json.dumps({"tables": content, "made": MADE}))
    return tmp_path


def test_a_panel_shows_medians_and_middle_halves(pages):
    figure = speed.draw(speed.read(pages)["cpu"])
    times, precision = (axes for band in figure.subfigs for axes in band.axes if axes.get_title("left"))
    assert (times.get_title("left"), precision.get_title("left")) == ("CNF", "orbit")
    bars = [line.get_xdata().tolist() for line in times.get_lines() if line.get_ydata()[0] == 2]
    assert bars == [[1, 2], [pytest.approx(100 / 55), pytest.approx(100 / 45)], [2]]
    assert [text.get_text() for text in times.texts] == ["failed"]
    (line,) = precision.get_lines()  # of the solvers that are drawn
    assert line.get_xydata().tolist() == [[100, 1e-2], [300, pytest.approx(1e-4)]]
    assert figure._suptitle.get_text() == "odenet bench: 2 cores; commit 01234567; 2026-11-25"


def test_the_command_draws_beside_the_pages(pages, capsys):
    assert bench.main(["--draw", str(pages)]) == 0
    assert capsys.readouterr().out.split() == [f"{pages}/speed-cpu.svg", f"{pages}/speed-cpu.png"]


@pytest.mark.parametrize(("text", "reason"), [(None, "holds no page"), ("[]", r"w1-cpu\.json is not a page")])
def test_what_cannot_be_drawn_is_refused(tmp_path, text, reason):
    if text:
        (tmp_path / "w1-cpu.json").write_text(text)
    with pytest.raises(RequestError, match=reason):
        bench.main([f"draw={tmp_path}"])
    assert not list(tmp_path.glob("speed*"))
