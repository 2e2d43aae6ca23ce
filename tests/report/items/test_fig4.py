"""Figures 4 and 5 choose their learning rates on validation, and count what they expect."""

import numpy
import pytest
from matplotlib.figure import Figure

from odenet_cli.report import style
from odenet_cli.report.items import fig4, fig5
from odenet_cli.report.result import Entry
from odenet_cli.report.runs import read_run

GRID, FLAT = numpy.linspace(-4, 4, 5), numpy.ones((5, 5))
DRAWN = {
    "density": {"density": FLAT[None], "target": FLAT},
    "likelihood": {
        **{"times": numpy.array([0.5, 1.0]), "density": numpy.stack((FLAT, FLAT)), "target": FLAT},
        **{"particles": numpy.zeros((2, 7, 2)), "paths": numpy.zeros((4, 3, 2)), "target_samples": numpy.zeros((9, 2))},
    },
}


@pytest.fixture
def entries(tmp_path, write):
    """Two flows at two rates on one target; the rate that is best on the test is worse on validation."""

    def made(task, data, scores, score):
        for row, value in scores.items():
            for rate, valid, test in ((1e-3, 0.5, 1.5 * value), (1e-2, 0.3, 2 * value)):
                config = {"data": {"name": data}, "optim.lr": rate, "trainer.batch_size": 512}
                final = {score: test, "outside": 0.1, "best_epoch": 3, "nll": 1 + test, "kl_se": 0.01, "nll_se": 0.01}
                folder = write(tmp_path / f"{data}-{row}-{rate}", config, error=None, final=final, loss=valid)
                (folder / "figures").mkdir()
                numpy.savez(folder / "figures" / f"{task}.npz", x=GRID, y=GRID, **DRAWN[task])
                yield Entry("part", row, read_run(folder))

    return lambda *what: list(made(*what))


KL = ("density", "u1", {"planar 32": 0.4, "CNF 32": 0.02}, "kl")
GAP = ("likelihood", "moons", {"CNF 64": 0.02, "planar 64": 0.4}, "gap")


def test_the_rate_is_chosen_on_validation(entries):
    made = fig4.result(entries(*KL), {"notes": []})
    assert made.facts["kl_u1"] == pytest.approx(0.04)
    assert made.facts["cnf_below_planar"] == 1
    assert made.facts["smallest_kl"] == pytest.approx(3)
    assert set(made.figures) == {"densities", "loss", "curves"}
    assert all(figure is not None for figure in made.figures.values())
    assert [row["shown"] for row in made.rows] == [False, True, False, True]


def test_the_table_goes_energy_by_energy(entries):
    """Whatever the order of the cells: flows on one energy stand below each other, each density below its KL."""
    cells = entries(*KL) + entries("density", "u2", *KL[2:])
    cells = sorted(cells, key=lambda entry: entry.row)
    made = fig4.result(cells, {"notes": []})
    lines = [line.split("|")[1:3] for line in made.body[2].splitlines()[2:]]
    names = [[cell.strip() for cell in line] for line in lines]
    assert names == [[energy, flow] for energy in ("U1", "U2") for flow in ("CNF 32", "planar 32")]
    titles = {axes.get_title("center") for axes in made.figures["densities"].axes}
    assert {"U1, target", "CNF 32, KL 0.040", "planar 32, KL 0.800"} <= titles


def test_only_what_grows_with_the_size_is_a_line(entries):
    """Time falls and rises again with K and M: its marks carry their number instead."""
    size, parameters, time = fig4.result(entries(*KL), {"notes": []}).figures["loss"].axes
    assert [len(axes.texts) for axes in (size, parameters, time)] == [0, 0, 2]
    assert {text.get_text() for text in time.texts} == {"32"}


def test_a_film_says_how_far_it_is(entries):
    film = fig5.result(entries(*GAP), {"notes": []}).films["film"]("Figure 5, quick preset, seed 0")
    for frame, share in ((0, 0), (3, 100)):
        heading, *_ = film._func(frame)
        assert heading.get_text() == f"Figure 5, quick preset, seed 0: {share} % of the way from noise to data"


def test_the_continuous_flow_is_held_against_the_planar_one(entries):
    made = fig5.result(entries(*GAP), {"notes": []})
    assert made.facts["cnf_gap/moons"] == pytest.approx(0.04)
    assert made.facts["planar_above_cnf/moons"] == pytest.approx(0.76)
    assert made.facts["smallest_gap"] == pytest.approx(3)
    assert "| moons | CNF 64    |" in "\n".join(made.body)


def test_the_film_goes_there_and_back(entries, tmp_path):
    made = fig5.result(entries(*GAP), {"notes": []})
    path = style.save_film(made.films["film"]("Figure 5"), tmp_path / "film")
    assert path.read_bytes().startswith(b"GIF89a")
    assert path.stat().st_size > 1000


@style.styled
def test_a_legend_of_the_six_flows_is_one_row():
    figure = Figure(figsize=(style.WIDTH, 2.0))
    figure.subplots()
    style.legend(figure, [(f"{kind} {size}", {}) for kind in ("planar", "CNF") for size in (2, 8, 32)])
    assert figure.get_figheight() == pytest.approx(2 + 0.16 + 0.12)
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert 0 < box.x0 < box.x1 < figure.bbox.x1


@pytest.mark.parametrize("module", [fig4, fig5])
def test_nothing_done_is_no_figure(entries, module):
    failed = [e._replace(run=e.run.__class__(folder=e.run.folder, status="failed")) for e in entries(*KL)]
    made = module.result(failed, {"notes": []})
    assert made.figures == made.films == made.facts == {}
    assert len(made.rows) == 4
