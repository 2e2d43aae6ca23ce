"""Figures draw every run they should, on the axes they should, and the same bytes each time."""

import pytest
from matplotlib.colors import to_hex

from odenet_cli.report import curves, export, style
from odenet_cli.report import sweep as against
from odenet_cli.report.compare import compare
from odenet_cli.report.provenance import Provenance
from odenet_cli.report.runs import read_run

MLP = {"model": {"name": "mlp", "hidden": 300}}
NO_SOLVER = {"nfe_forward": 0, "nfe_backward": 0, "nfe_test": 0}


def made(folders):
    return compare([read_run(folder) for folder in folders])


@pytest.fixture
def sweep(tmp_path, write):
    """Three tolerances, two gradients, two seeds."""
    folders = []
    for place, rtol in enumerate((1e-1, 1e-2, 1e-4)):
        for gradient in ("adjoint", "backprop"):
            for seed in (0, 1):
                config = {"solver.rtol": rtol, "gradient.method": gradient, "seed": seed}
                nfe = 14 + 6 * place + seed
                final = {"nfe_forward": nfe, "nfe_backward": nfe * (gradient == "adjoint"), "nfe_test": nfe}
                error = 0.05 - place / 100 + seed / 1000
                folders.append(write(tmp_path / f"{len(folders)}", config, error=error, final=final))
    return folders


def panels(figure):
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def test_one_line_a_run_and_one_colour_a_group(sweep):
    figure = curves.training(made(sweep))
    found = panels(figure)
    assert list(found) == ["training loss", "validation error (%)", "NFE forward", "NFE backward", "saved memory (MiB)"]
    for title, axes in found.items():
        lines = axes.get_lines()
        assert len(lines) == (6 if title == "NFE backward" else 12)  # backprop evaluates nothing backward
        assert axes.get_xlabel() == "epoch"
        looks = {(to_hex(line.get_color()), line.get_linestyle()) for line in lines}
        assert len(looks) == len(lines) / 2
    x, y = found["validation error (%)"].get_lines()[0].get_data()
    assert list(x) == [1, 2, 3]
    assert list(y) == pytest.approx([6, 4.5, 4])
    assert list(found["NFE forward"].get_lines()[0].get_xdata()) == [0.5, 1, 1.5, 2, 2.5, 3]
    (legend,) = figure.legends
    assert legend.get_title().get_text() == "solver.rtol, gradient.method"
    assert [text.get_text() for text in legend.get_texts()][:3] == [
        "0.0001, adjoint",
        "0.0001, backprop",
        "0.01, adjoint",
    ]


def test_runs_that_are_not_done_end_in_a_cross(tmp_path, write):
    """One that was stopped is seen whole; one that failed stretches nothing."""
    done = write(tmp_path / "done")
    wild = write(tmp_path / "wild", {"seed": 1}, loss=1e9, status="failed", reason="nan")
    high = write(tmp_path / "high", {"seed": 2}, loss=3.0, status="interrupted", reason="SIGTERM")
    loss = panels(curves.training(made([done, wild, high])))["training loss"]
    assert [line.get_marker() for line in loss.get_lines()] == ["", "", "x", "", "x"]
    assert 9 < loss.get_ylim()[1] < 20


def test_without_epochs_the_axis_is_steps(tmp_path, write):
    folder = write(tmp_path / "run", {"trainer.epochs": None, "trainer.steps": 300}, error=None)
    found = panels(curves.training(made([folder])))
    assert list(found)[1] == "validation loss"
    assert found["training loss"].get_xlabel() == "optimiser step"
    assert max(found["training loss"].get_lines()[0].get_xdata()) == 30


def test_networks_without_a_solver_have_three_panels(tmp_path, write):
    figure = curves.training(made([write(tmp_path / "run", MLP, final=NO_SOLVER)]))
    assert len(figure.axes) == 3
    assert not figure.legends  # one group needs no name


def test_long_runs_are_smoothed(tmp_path, write):
    loss = curves.training(made([write(tmp_path / "run", epochs=300)])).axes[0]
    assert loss.get_title(loc="left") == "training loss, smoothed"
    x = loss.get_lines()[0].get_xdata()
    assert len(x) == curves.MAX_POINTS
    assert x[-1] == 300


def test_without_a_record_there_is_no_figure(tmp_path, write):
    folder = write(tmp_path / "run", status="failed", reason="early")
    (folder / "metrics.jsonl").write_text("")
    assert curves.training(made([folder])) is None


def test_against_a_swept_key(sweep):
    comparison = made(sweep)
    assert comparison.axes == ["solver.rtol"]
    figure = against.sweep(comparison, "solver.rtol")
    error, nfe, memory = figure.axes
    assert [axes.get_xscale() for axes in figure.axes] == ["log"] * 3
    assert (len(error.containers), len(nfe.containers), len(memory.containers)) == (2, 3, 2)
    line = error.containers[0].lines[0]
    assert list(line.get_xdata()) == [1e-4, 1e-2, 1e-1]
    assert list(line.get_ydata()) == pytest.approx([3.05, 4.05, 5.05])
    bar = error.containers[0].lines[2][0].get_segments()[0]
    assert bar[1][1] - bar[0][1] == pytest.approx(2 * 0.1 / 2**0.5)  # two seeds 0.1 points apart
    assert nfe.get_ylim()[0] == memory.get_ylim()[0] == 0
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "adjoint",
        "backprop",
        "NFE forward",
        "NFE backward",
    ]


def test_the_score_is_that_of_the_table(tmp_path, write):
    """A regression has an RMSE in the units of y; runs that share no score have their loss."""
    rtols = [{"solver.rtol": rtol} for rtol in (1e-1, 1e-2)]
    scores = {"rmse": 12.5, "r2": 0.9}
    folders = [write(tmp_path / str(n), config, error=None, final=scores) for n, config in enumerate(rtols)]
    axes = against.sweep(made(folders), "solver.rtol").axes[0]
    assert axes.get_title("left") == "test RMSE"
    assert list(axes.containers[0].lines[0].get_ydata()) == [12.5, 12.5]
    assert against.tradeoff(made(folders), "solver.rtol").axes[0].get_ylabel() == "test RMSE"
    other = write(tmp_path / "flow", {"solver.rtol": 1e-3}, error=None, final={"nll": 1.0})
    mixed = against.sweep(made([*folders, other]), "solver.rtol").axes[0]
    assert mixed.get_title("left") == "test loss"


def test_error_against_evaluations(sweep):
    figure = against.tradeoff(made(sweep), "solver.rtol")
    axes, bar = figure.axes
    assert len(axes.containers) == 6
    assert [container.lines[0].get_xdata()[0] for container in axes.containers][:3] == [26.5, 20.5, 14.5]
    assert bar.get_ylabel() == "solver.rtol"


def test_a_key_of_networks_without_a_solver(tmp_path, write):
    sizes = [{**MLP, "model.hidden": hidden} for hidden in (100, 200, 300)]
    plain = [write(tmp_path / str(n), size, final=NO_SOLVER) for n, size in enumerate(sizes)]
    comparison = made([*plain, write(tmp_path / "ode")])
    figure = against.sweep(comparison, "model.hidden")
    assert len(figure.axes) == 2
    assert [axes.get_xscale() for axes in figure.axes] == ["linear"] * 2
    assert list(figure.axes[0].get_xticks()) == [100, 200, 300]
    assert against.tradeoff(comparison, "model.hidden") is None


def test_what_follows_the_key_is_named_on_the_axis(tmp_path, write):
    pairs = ((1e-1, 1e-1), (1e-2, 3e-2), (1e-3, 3e-2))
    configs = [{"solver.rtol": rtol, "gradient.solver.rtol": loose} for rtol, loose in pairs]
    figure = against.sweep(made([write(tmp_path / str(n), c) for n, c in enumerate(configs)]), "solver.rtol")
    assert figure.axes[0].get_xlabel() == "solver.rtol (and gradient.solver.rtol)"
    assert len(figure.axes[0].containers) == 1


def test_files_are_the_same_bytes_and_say_where_they_come_from(tmp_path, sweep):
    runs = [read_run(folder) for folder in sweep]
    comparison, origin = compare(runs), Provenance.of("odenet report runs --out x", runs)
    written = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        written.append(export.write_figures(tmp_path / name, comparison, origin, axes=[]))
    assert [path.name for path in written[0]] == ["training.svg", "training.png"]
    for first, second in zip(*written):
        assert first.read_bytes() == second.read_bytes()
        assert first.stat().st_size > 10_000
        assert b"command: odenet report runs --out x" in first.read_bytes()
        assert b"commit: f31175c9" in first.read_bytes()
    assert "<dc:date>" not in written[0][0].read_text()


def test_colours_are_shades_of_a_number_or_a_cycle_for_words():
    shades = style.group_looks([{"rtol": rtol} for rtol in (0.1, 0.01, 0.001)])
    assert [look["color"] for look in shades] == [style.SHADES(part) for part in (1.0, 0.5, 0.0)]
    words = style.group_looks([{"model": name} for name in "abcdefgh"])
    assert [look["color"] for look in words[:7]] == list(style.CYCLE)
    assert (words[7]["color"], words[7]["linestyle"]) == (style.CYCLE[0], style.DASHES[1])
    pairs = style.group_looks([{"rtol": rtol, "gradient": g} for rtol in (0.1, 0.01, 0.001) for g in "ab"])
    assert pairs[0]["color"] == pairs[1]["color"] != pairs[2]["color"]
    assert pairs[0]["linestyle"] == pairs[2]["linestyle"] != pairs[1]["linestyle"]
