"""Figure 3 from a network written by hand: power laws in, their exponents out."""

import csv
import json
from itertools import product

import numpy
import pytest

from odenet_cli.report.items import fig3
from odenet_cli.report.provenance import Provenance
from odenet_cli.report.result import About, Entry, Page, check_expectations, result_of
from odenet_cli.report.runs import Run, read_run

TOLERANCES = [10.0**-n for n in range(1, 9)]
REST = {"notes": ["A note."]}
FALLS = "error_falls"


def rows(p=0.8, q=-0.2):
    """Errors of 3 tol^p and evaluations of 7 error^q on two batches whose mean this is; a time of 2 + 0.5 NFE; and
    gradients whose error is tol (ours) or 50 tol (the paper's norm, at half the evaluations backward)."""
    made = []
    for tol in TOLERANCES:
        error = 3 * tol**p
        nfe = 7 * error**q
        for batch, factor in enumerate((0.5, 1.5)):
            key = {"kind": "solve", "samples": 8, "reference": 1e-10, "batch": batch, "rtol": tol}
            made.append({**key, "nfe": nfe * factor, "rejected": batch, "error": error * factor})
        made.append({"kind": "time", "samples": 8, "rtol": tol, "nfe": nfe, "time_s": 2 + 0.5 * nfe})
    for setting, tol in product(fig3.SETTINGS, (1e-1, 1e-2, 1e-3)):
        key = {"kind": "gradient", "setting": setting, "rtol": tol, "batch": 0, "samples": 8, "reference": 1e-8}
        backward, error = (30, tol) if "relative" in setting else (10, 50 * tol)
        made.append({**key, "nfe_forward": 20, "nfe_backward": backward, "error": error})
    return made


@pytest.fixture
def network(tmp_path, write):
    def make(measured):
        folder = tmp_path / "network"
        return Entry("network", "ODE-Net", read_run(folder if folder.exists() else write(folder)), measured)

    return make


def test_the_exponents_of_power_laws_are_found(network):
    facts = fig3.result([network(rows(p=0.8, q=-0.2))], REST).facts
    assert facts["error_vs_tolerance"] == pytest.approx(0.8, abs=1e-9)
    assert facts["error_vs_nfe"] == pytest.approx(-5, abs=1e-9)
    assert facts["time_vs_nfe_r2"] == pytest.approx(1.0, abs=1e-9)
    assert facts["tolerances"] == 8
    assert facts[FALLS] == 1


def test_scatter_gives_the_slope_of_least_squares(network):
    generator = numpy.random.default_rng(0)
    measured = rows()
    for row in measured:
        if row["kind"] == "solve":
            row["error"] *= numpy.exp(generator.normal() / 5)
        if row["kind"] == "time":
            row["time_s"] *= numpy.exp(generator.normal() / 50)
    facts = fig3.result([network(measured)], REST).facts
    errors = [numpy.mean([r["error"] for r in measured if r["kind"] == "solve" and r["rtol"] == t]) for t in TOLERANCES]
    slope = numpy.polyfit(numpy.log(TOLERANCES), numpy.log(errors), 1)[0]
    assert facts["error_vs_tolerance"] == pytest.approx(slope, abs=1e-9)
    times = [(row["nfe"], row["time_s"]) for row in measured if row["kind"] == "time"]
    r = numpy.corrcoef(numpy.array(times).T)[0, 1]
    assert r**2 < 0.9999
    assert facts["time_vs_nfe_r2"] == pytest.approx(r**2, abs=1e-9)


def test_an_error_that_rises_once_is_a_miss(network):
    measured = rows()
    for row in measured:
        if row["kind"] == "solve" and row["rtol"] == TOLERANCES[4]:
            row["error"] *= 100
    made = result_of("fig3", [network(measured)], REST)
    assert made.facts[FALLS] == 0
    (check,) = check_expectations(made, {FALLS: [1, 1]})
    assert check.outcome == "MISS"


def test_the_gradient_by_solver_and_norm(network):
    made = fig3.result([network(rows())], REST)
    assert made.facts["nfe_ratio/dopri5, relative norm/0.01"] == 1.5
    assert made.facts["nfe_ratio/dopri5, absolute norm/0.01"] == 0.5
    assert made.facts["gradient_error/Adams, absolute norm/0.001"] == pytest.approx(5)
    assert "20 / 30, 1 %" in made.body[3]
    assert "20 / 10, 50 %" in made.body[3]


def test_a_gradient_that_could_not_be_had_is_no_number(network):
    measured = rows()
    lost = next(row for row in measured if row["kind"] == "gradient" and row["rtol"] == 1e-2)
    for name in ("nfe_forward", "nfe_backward", "error"):
        del lost[name]
    lost["failed"] = "100000 steps reached t = 0.1"
    made = fig3.result([network(measured)], REST)
    assert f"gradient_error/{lost['setting']}/0.01" not in made.facts
    line = next(line for line in made.body[3].splitlines() if line.startswith("| 0.01 "))
    assert line.split("|")[2].strip() == "–"
    panel = next(axes for axes in made.figures["panels"].axes if axes.get_ylabel() == "NFE backward")
    curves = {len(line.get_xdata()) for line in panel.get_lines()[:4]}
    assert curves == {3, 2}


@pytest.mark.numerics
def test_colour_is_the_tolerance_in_every_panel(network):
    figure = fig3.result([network(rows())], REST).figures["panels"]
    panels = {axes.get_title(loc="left")[:1] + axes.get_ylabel(): axes for axes in figure.axes}
    error, time = panels["arelative error of z(1)"], panels["brelative time"]
    assert len(error.get_lines()) == 16
    assert len({tuple(line.get_color()) for line in error.get_lines()}) == 8
    colours = [tuple(line.get_color()) for line in time.get_lines()[:8]]
    assert colours == list(dict.fromkeys(tuple(line.get_color()) for line in error.get_lines()))
    assert max(line.get_ydata()[0] for line in time.get_lines()[:8]) == 1  # relative to the longest
    # The title is of its own axes, and letters are used once.
    assert (error.get_xlabel(), error.get_title(loc="left")) == ("NFE forward", "a   error ∝ NFE$^{-5.0}$")
    letters = [axes.get_title(loc="left")[:1] for axes in figure.axes]
    assert letters == ["a", "b", "c", "d", "e", ""]
    assert [line.get_label() for line in panels["dNFE of a training step"].get_lines()] == ["forward", "backward"]


def test_the_four_settings_have_looks_of_their_own(network):
    figure = fig3.result([network(rows())], REST).figures["panels"]
    panel = next(axes for axes in figure.axes if axes.get_ylabel() == "gradient error (%)")

    def look(line):
        return line.get_color(), line.get_marker(), str(line._dash_pattern)

    looks = [look(line) for line in panel.get_lines()]
    assert [len(set(part)) for part in zip(*looks)] == [4, 4, 4]
    (legend,) = figure.legends
    assert [look(line)[:2] for line in legend.get_lines()] == [one[:2] for one in looks]
    drawn = panel.get_lines()[1].get_xydata().tolist()
    assert drawn == [[30, pytest.approx(500)], [30, pytest.approx(50)], [30, pytest.approx(5)]]


def test_every_seed_of_the_training_is_shown(tmp_path, write, network):
    """Seeds that evaluate 20 and 26 times have a mean of 23, over all three epochs of both."""
    first = network(rows())
    second = read_run(write(tmp_path / "second", {"seed": 1}, final={"nfe_forward": 26}, epochs=3))
    made = fig3.result([first, Entry("network", "ODE-Net", second)], REST)
    panel = next(axes for axes in made.figures["panels"].axes if axes.get_ylabel() == "NFE of a training step")
    forward = panel.get_lines()[:3]
    assert [set(line.get_ydata()) for line in forward] == [{20}, {26}, {23}]
    assert [line.get_xdata()[-1] for line in forward] == [3, 3, 3]
    assert panel.get_title(loc="left") == "d   training, 2 seeds"
    steps = [row for row in made.rows if row["kind"] == "training"]
    assert {row["seed"]: row["cell"] for row in steps} == {0: "network", 1: "second"}


def written(folder, entry, **about):
    made = result_of("fig3", [entry], REST)
    told = About(**{"item": "fig3", "preset": "quick", "text": "narrow nets; 1 seed", **about})
    source = Provenance.of("odenet reproduce fig3", [entry.run])
    return Page(result=made, about=told, checks=[], source=source).write(folder)


@pytest.mark.numerics
def test_the_files_and_the_same_bytes_each_time(network, tmp_path):
    first, second = (written(tmp_path / name, network(rows())) for name in "ab")
    names = ["quick.md", "quick.csv", "quick.json", "quick-panels.svg", "quick-panels.png"]
    assert [path.name for path in first] == names
    for a, b in zip(first, second):
        assert a.read_bytes() == b.read_bytes(), a.name
    table = list(csv.DictReader((tmp_path / "a" / "quick.csv").open()))
    assert [sum(row["kind"] == kind for row in table) for kind in ("solve", "time", "gradient", "training")] == [
        16,
        8,
        12,
        6,
    ]
    assert {row["data"] for row in table} == {"digits (8f26b2bd)"}
    assert float(table[0]["error"]) == json.loads((tmp_path / "a" / "quick.json").read_text())["rows"][0]["error"]


def test_without_a_trained_network_the_report_says_so(tmp_path):
    entry = Entry("network", "ODE-Net", Run(folder=tmp_path / "x", status="failed"))
    written(tmp_path, entry, missing=("ODE-Net, seed 0: killed by SIGKILL",), partial=("partial: 1 of 1 cells",))
    text = (tmp_path / "quick.md").read_text()
    assert text.startswith("# Figure 3, error control of a trained ODE-Net: quick preset (partial: 1 of 1 cells)\n")
    assert "the network is not trained" in text
    assert "- ODE-Net, seed 0: killed by SIGKILL" in text
    assert not list(tmp_path.glob("*.svg"))
