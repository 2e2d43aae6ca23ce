"""Steered and fixed trainings side by side, from runs written by hand: known answers in, the verdict out."""

import pytest
import scipy.stats

from odenet_cli.report.items import budget
from odenet_cli.report.result import Entry
from odenet_cli.report.runs import read_run


@pytest.fixture
def training(tmp_path, write):
    """A training of `nfe` evaluations a step, told `key=value`."""
    made = []

    def make(key, value, nfe, error, seed=0):
        changes = {key: value, "seed": seed}
        folder = write(tmp_path / str(len(made)), changes, final={"error": error})
        made.append(folder)
        run = read_run(folder)
        run.record["cost"] = {"evaluations": {"forward": run.final["step"] * nfe}}
        return Entry("train", "row", run)

    return make


@pytest.fixture
def entries(training):
    """Asked for 20: 19.5 and 20.5 with 6 and 8 % wrong. At 1e-2 as many evaluations with 4 and 5 %, at 3e-2 one fewer
    with 5 and 9 %; at 1e-3 the fewest errors of all, for 26."""
    steered = [
        training("solver.budget", 20, nfe, error, seed) for seed, nfe, error in ((0, 19.5, 0.06), (1, 20.5, 0.08))
    ]
    fixed = [
        training("solver.rtol", rtol, nfe, error, seed)
        for rtol, nfe, pair in ((1e-3, 26, (0.01, 0.01)), (1e-2, 20, (0.04, 0.05)), (3e-2, 19, (0.05, 0.09)))
        for seed, error in enumerate(pair)
    ]
    return [*fixed, *steered]


def test_a_budget_is_held_against_the_best_tolerance_of_the_same_mean(entries):
    made = budget.result(entries, {"notes": []})
    row = next(line for line in made.body[0].splitlines() if line.startswith("| solver.budget=20 "))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[1:4] == ["2", "20.00", "19.50 to 20.50"]
    assert cells[4] == "7.00 ± 1.41"
    low, high = scipy.stats.ttest_1samp([2, 3], 0).confidence_interval()  # 2 and 3 points, seed by seed
    assert cells[5:] == ["solver.rtol=0.01", f"+2.50 ({low:+.2f} to {high:+.2f})"]
    assert made.facts["largest_miss"] == pytest.approx(0.5)
    assert made.facts["least_excess"] == pytest.approx(low)
    assert made.facts["test_error/solver.rtol=0.001"] == pytest.approx(1)
    assert "took 20.00; no seed was off by more than 0.50" in made.verdict
    assert "+2.50 points above" in made.verdict
    assert made.verdict.endswith("no more than the seeds explain.")
    drawn = {float(line.get_xdata()[0]) for line in made.figures["budget"].axes[0].lines if len(line.get_xdata()) == 1}
    assert drawn >= {19.25, 20.25, 26.25, 19.75}  # a quarter to the right and to the left
    assert [row["mean_nfe"] for row in made.rows][-2:] == [19.5, 20.5]


def test_budgets_that_every_seed_of_which_errs_more_are_named(training):
    steered = [training("solver.budget", nfe, nfe, 0.06 + 0.01 * seed, seed) for nfe in (19, 20) for seed in range(3)]
    fixed = [training("solver.rtol", 1e-2, 20, 0.04 + 0.01 * seed, seed) for seed in range(3)]
    made = budget.result([*steered, *fixed], {"notes": []})
    assert made.facts["least_excess"] == pytest.approx(2)
    assert made.verdict.endswith("more than the seeds explain at solver.budget=19 and solver.budget=20.")


def test_without_a_tolerance_of_the_same_mean_there_is_no_verdict(entries):
    made = budget.result([entry for entry in entries if entry.run.config["solver.rtol"] != 1e-2][-3:], {"notes": []})
    assert made.facts["least_excess"] is None
