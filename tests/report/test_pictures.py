"""The figures of single runs: what was seen of series and events, and what was made of it; how a classifier fared."""

import itertools

import numpy
import pytest

from odenet_cli.report import forecast_figure, style
from odenet_cli.report.pictures import classify, events, fit, regression, series
from odenet_cli.report.runs import Run


@pytest.fixture
def run(tmp_path):
    return Run(folder=tmp_path, status="done")


def arrays(count=5, features=2, clean=True):
    fine = numpy.linspace(0, 2, 40)[None].repeat(count, 0)
    path = numpy.stack([fine + n for n in range(features)], 2)
    at = numpy.array([[0.0, 0.5, 1.0, 1.5, 2.0]]).repeat(count, 0)
    noisy = numpy.stack([at + n for n in range(features)], 2)
    seen = numpy.array([[True, True, False]]).repeat(count, 0)
    scope = numpy.array([[1, 1, 2, 2, 0]]).repeat(count, 0)
    known = {"times": at[:, :3], "values": noisy[:, :3], "seen": seen, "at": at, "noisy": noisy, "scope": scope}
    return {**known, "clean": noisy if clean else noisy[..., :0], "fine": fine, "path": path, "end": at[:, 1]}


def drawn(axes):
    return {line.get_color(): line.get_xydata() for line in axes.get_lines()}


def test_reconstruction_and_extrapolation_meet_in_two_colours(run):
    figure = series.draw(arrays(), run)["series"]
    panels = [axes for axes in figure.axes if axes.axison]
    assert len(panels) == 5
    lines = drawn(panels[0])
    inside, after = lines[style.CYCLE[0]], lines[style.CYCLE[1]]
    assert inside[-1].tolist() == after[0].tolist()
    assert inside[:, 0].max() <= 0.5
    assert after[-1, 0] == 2.0
    assert len(lines["#222222"]) == 2
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {
        "observed",
        "reconstruction",
        "extrapolation",
        "truth",
    }


@pytest.mark.parametrize(
    ("dates", "label", "end"),
    [(None, "Hours since the first point", 7200.0), ("date", "hours since the first point", 2.0)],
)
def test_series_of_a_table_are_drawn_in_its_units(run, dates, label, end):
    """The model's time runs from 0 to 2, and its values have mean 0."""
    units = {"columns": ["id", "Hours", "load $", "b"], "time_unit": 3600.0, "mean": [500.0, 0], "dates": dates}
    run.record["data"] = {**units, "standard_deviation": [10.0, 1]}
    figure = series.draw(arrays(features=2, clean=False), run)["series"]
    assert (figure.axes[4].get_xlabel(), figure.axes[0].get_ylabel()) == (label, r"load \$")
    lines = drawn(figure.axes[0])
    assert lines[style.CYCLE[1]][-1].tolist() == pytest.approx([end, 520])
    assert lines["#222222"][:, 1].tolist() == pytest.approx([500, 505])
    assert lines[style.GREY][:, 0].tolist() == pytest.approx([end / 2, 0.75 * end])


@pytest.mark.numerics
def test_without_a_truth_held_back_values_are_drawn(run):
    figure = series.draw(arrays(features=3, clean=False), run)["series"]
    lines = drawn(figure.axes[0])
    assert lines[style.GREY][:, 0].tolist() == [1.0, 1.5]
    assert "held back" in {text.get_text() for text in figure.legends[0].get_texts()}


def test_rates_beside_the_events(run, tmp_path):
    grid = numpy.linspace(0, 5, 20)[None].repeat(3, 0)
    times = numpy.array([[1.0, 2.0, 0.0]]).repeat(3, 0)
    there = numpy.array([[True, True, False]]).repeat(3, 0)
    given = {"times": times, "there": there, "grid": grid, "rate": grid + 1, "path": grid + 2}
    figure = events.draw(given, run)["events"]
    assert drawn(figure.axes[0])[style.CYCLE[0]][0].tolist() == [0.0, 2.0]
    assert len(figure.axes[0].collections[0].get_segments()) == 2
    assert all(path.stat().st_size for path in style.save(figure, tmp_path / "events"))


def wrong(count, misread):
    labels = numpy.arange(count) % 10
    images = numpy.full((count, 28, 28), 255, numpy.uint8)
    return {"images": images, "label": labels, "predicted": labels + 1, "misread": misread, "samples": 1000}


@pytest.mark.parametrize(("nfe", "panels"), [(20, ["NFE forward", "NFE backward"]), (0, [])])
def test_learning_curves_and_function_evaluations(tmp_path, nfe, panels):
    at = {"epoch": 1, "loss": 0.5, "error": 0.1, "saved_mib": 1.0}
    metrics = [{**at, "step": step, "split": "train", "nfe_forward": nfe, "nfe_backward": nfe} for step in (1, 2)]
    metrics.append({**at, "step": 2, "split": "valid", "nfe_forward": nfe})
    run = Run(folder=tmp_path, status="done", config={"name": "a", "trainer.epochs": 1}, metrics=metrics)
    figures = classify.draw(wrong(0, 0), run)
    assert figures.keys() == {"training"}
    titles = [axes.get_title("left") for axes in figures["training"].axes]
    assert titles == ["training loss", "validation error (%)", *panels]


@pytest.mark.parametrize(("count", "misread", "title"), [(3, 3, "3 misread"), (10, 25, "the first 10 of 25 misread")])
def test_misread_images_say_label_and_prediction(count, misread, title):
    figure = classify.misread(wrong(count, misread))
    assert figure.get_suptitle() == f"{title} of 1,000 test images"
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.texts]
    assert labels[:2] == ["0, read as 1", "1, read as 2"]
    assert len(labels) == count


@pytest.mark.parametrize("colours", [(), (3,)])
def test_misread_images_are_shown_as_they_are(colours):
    """Each below its label, in columns of five."""
    images = numpy.random.default_rng(0).integers(0, 256, (7, 8, 6, *colours), numpy.uint8)
    images[:, 0, 0], images[:, 0, 1] = 0, 255
    figure = classify.misread({**wrong(7, 7), "images": images})
    sheet = figure.axes[0].get_images()[0].get_array()
    inked = (sheet.reshape(*sheet.shape[:2], -1) != (1.0 if colours else 0.0)).any(2)
    for text, image in zip(figure.axes[0].texts, images):
        x, bottom = text.get_position()
        left, top = round(x + 0.5 - 3), round(bottom + 8 / 15)
        assert numpy.allclose(255 * sheet[top : top + 8, left : left + 6], image)
        inked[top : top + 8, left : left + 6] = False
    assert not inked.any()


def overlapping(figure, axis="xaxis"):
    """Return the pairs of neighbouring tick labels that touch each other."""
    figure.draw_without_rendering()
    boxes = [
        [label.get_window_extent() for label in getattr(axes, axis).get_ticklabels() if label.get_text()]
        for axes in figure.axes
    ]
    return [pair for row in boxes for pair in itertools.pairwise(row) if pair[0].overlaps(pair[1])]


def test_large_numbers_and_names_of_a_regression_are_legible(run):
    y = numpy.linspace(40_000, 312_000, 30)[:, None] * [1e-3, 1]
    run.record["data"] = {"outputs": 2, "target": ["rent", "price in $ (or US$)"]}
    figure = regression.predicted({"target": y, "predicted": y}, ["rent", "price in $ (or US$)"])
    assert not overlapping(figure)
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "rent of the test samples",
        r"price in \$ (or US\$) of the test samples",
    ]


def test_the_years_of_a_fit_are_legible(run):
    years = numpy.linspace(1900, 1920, 21)[None]
    values = numpy.ones((1, 21, 2))
    arrays = {
        "times": years,
        "fine": years,
        "values": values,
        "band": numpy.stack([values] * 3),
        "held_out": years > 1990,
    }
    run.record["data"] = {"columns": ["series", "year", "hares", "US$ of $"], "series": ["s"]}
    figure = fit.draw(arrays, run)["fit"]
    assert not overlapping(figure)
    assert figure.axes[1].get_ylabel() == r"US\$ of \$"
    assert figure.get_suptitle() == ""
    run.record["data"]["series"] = [f"s{n}" for n in range(1200)]
    assert fit.draw(arrays, run)["fit"].get_suptitle() == "the first 1 of 1,200 series"


def test_a_dollar_sign_in_a_forecast_begins_no_formula():
    rows = {f"$a_{kind}": numpy.zeros(3) for kind in ("mean", "5", "50", "95")}
    rows |= {"$s": ["$_$"] * 3, "t": numpy.arange(3.0), "seen": numpy.array([True] * 3), "$a": numpy.zeros(3)}
    forecast_figure.draw(rows, ["$s", "t", "$a"], "observations").draw_without_rendering()
