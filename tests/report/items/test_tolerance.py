"""Training and evaluating at different tolerances, from rows written by hand: known answers in, the verdict out."""

import pytest
import scipy.stats

from odenet_cli.report.items import tolerance
from odenet_cli.report.result import Entry
from odenet_cli.report.runs import Run, read_run

REST = {"notes": ["A note."]}
EVALUATED = (1e-1, 1e-3, 1e-6)
NFE = {1e-1: 20, 1e-3: 26.5, 1e-6: 150}


@pytest.fixture
def network(tmp_path, write):
    """A network trained at `rtol` whose answers to the samples `wrong[tolerance]` of 500 are wrong."""
    made = []

    def make(rtol, wrong, seed=0, step_ms=1.0, error=0.1):
        folder = write(tmp_path / str(len(made)), {"solver.rtol": rtol, "seed": seed}, final={"valid_error": 0.03})
        made.append(folder)
        text = (folder / "metrics.jsonl").read_text()
        (folder / "metrics.jsonl").write_text(text.replace('"step_ms": 1.0', f'"step_ms": {step_ms}'))
        rows = [
            {
                **{"kind": "score", "rtol": tol, "samples": 500, "wrong": list(wrong[tol]), "loss": 0.1},
                **{"error": len(wrong[tol]) / 500, "nfe_forward": NFE[tol], "rejected": 0, "time_s": 1.0},
            }
            for tol in EVALUATED
        ]
        key = {"kind": "gradient", "samples": 8, "reference": 1e-8}
        rows += [{**key, "batch": n, "error": error * factor} for n, factor in enumerate((0.5, 1.0, 3.0))]
        return Entry("train", "ODE-Net", read_run(folder), rows)

    return make


@pytest.fixture
def trained(network):
    """Trained at 1e-1: 30 wrong at its own tolerance and 25 at the tightest. At 1e-3: 10, whatever the evaluation. All
    that the better network has wrong the other has wrong too."""
    loose = network(1e-1, {1e-1: range(30), 1e-3: range(25), 1e-6: range(25)}, step_ms=300.0, error=0.2)
    tight = network(1e-3, dict.fromkeys(EVALUATED, range(10)), step_ms=400.0, error=0.04)
    return [tight, loose]


def line(text, beginning):
    return next(row for row in text.splitlines() if row.startswith(f"| {beginning} "))


def test_a_row_is_a_training_and_a_column_an_evaluation(trained):
    error, nfe = tolerance.result(trained, REST).body[:2]
    assert [cell.strip() for cell in error.splitlines()[0].split("|")][1:5] == [
        *("test error %", "at 0.1", "at 0.001", "at 1e-6")
    ]
    assert [cell.strip() for cell in line(error, "trained at 0.1").split("|")][2:5] == ["6.00", "5.00", "5.00"]
    assert [cell.strip() for cell in line(error, "trained at 0.001").split("|")][2:5] == ["2.00"] * 3
    assert [cell.strip() for cell in line(nfe, "trained at 0.001").split("|")][2:5] == ["20", "26.5", "150"]
    assert error.splitlines()[2].startswith("| trained at 0.1 ")  # the loosest first, whatever came first


def test_the_verdict_says_which_of_the_two_is_enough(trained):
    made = tolerance.result(trained, REST)
    first, second = made.verdict.split(". ", 1)
    assert first == (
        "Trained at 0.001 and evaluated at 0.1, the ODE-Net has 2.00 % instead of 2.00 % at 1e-6, for 20 instead of "
        "150 function evaluations: no difference that the test samples show (McNemar's p = 1)"
    )
    p = 2 * scipy.stats.binomtest(15, 15).pvalue  # 15 samples that only one has wrong; Holm's correction of two
    assert second == (
        "Trained at 0.1 and evaluated at 1e-6 it has 5.00 % for 0.75 of the time of a step: "
        f"more errors than by both accurately (McNemar's p = {p:.2g}), of one training each, which another seed "
        "changes too."
    )


def test_what_a_training_cost_and_what_its_gradient_was_worth(trained):
    made = tolerance.result(trained, REST)
    table = next(text for text in made.body if text.startswith("| trained at "))
    loose = [cell.strip() for cell in line(table, "0.1").split("|")][1:-1]
    p = scipy.stats.binomtest(0, 5).pvalue
    assert loose == ["0.1", "0.300", "20 / 26", "20", "3", f"5 : 0 ({p:.2g})"]  # the median of 10, 20 and 60 %
    assert "0 : 0 (1)" in line(table, "0.001")
    assert made.facts["test_error/0.1/1e-6"] == pytest.approx(5)
    assert made.facts["largest_own_error"] == pytest.approx(6)
    assert made.facts["nfe_rises"] == 1


def test_a_gradient_that_could_not_be_had_is_no_number(trained):
    for row in trained[0].measured:
        if row["kind"] == "gradient" and row["batch"] == 1:
            del row["error"]
            row["failed"] = "10000 steps"
    table = next(text for text in tolerance.result(trained, REST).body if text.startswith("| trained at "))
    assert [cell.strip() for cell in line(table, "0.001").split("|")][4] == "–"


def test_seeds_are_averaged_and_compared_one_by_one(network):
    few, many = dict.fromkeys(EVALUATED, range(10)), dict.fromkeys(EVALUATED, range(30))
    entries = [network(rtol, wrong, seed) for seed in range(2) for rtol, wrong in ((1e-1, many), (1e-3, few))]
    assert "0.1 and evaluated at 1e-6 it has 6.00 %" in tolerance.result(entries, REST).verdict
    assert tolerance.result(entries, REST).verdict.count("more errors than by both accurately") == 1
    assert "of one training each" not in tolerance.result(entries, REST).verdict
    entries[2] = network(1e-1, few, 1)
    made = tolerance.result(entries, REST)
    assert "0.1 and evaluated at 1e-6 it has 4.00 %" in made.verdict
    assert made.verdict.count("no difference that the test samples show") == 2  # the second seed shows none


def test_nothing_or_one_network_gives_no_verdict(trained, tmp_path):
    missing = Entry("train", "ODE-Net", Run(folder=tmp_path / "x", status="failed"))
    made = tolerance.result([missing], REST)
    assert (made.verdict, made.rows) == ("", [])
    made = tolerance.result([trained[0], missing], REST)
    assert (made.verdict, made.figures["tolerances"]) == ("", None)


def test_the_figure_has_a_line_for_each_training(trained):
    figure = tolerance.result(trained, REST).figures["tolerances"]
    score, cost, worth = figure.axes
    assert [list(drawn.get_ydata()) for drawn in score.get_lines()] == [
        [pytest.approx(6), pytest.approx(5), pytest.approx(5)],
        [pytest.approx(2)] * 3,
    ]
    assert list(cost.get_lines()[0].get_ydata()) == [20, 26.5, 150]
    assert [list(*drawn.get_xydata()) for drawn in worth.get_lines()] == [[0.3, pytest.approx(20)], [0.4, 4]]
    low, high = score.get_xlim()
    assert low > high  # tighter to the right
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["0.1", "0.001"]


def test_the_csv_has_the_measured_rows_without_the_samples(trained):
    rows = tolerance.result(trained, REST).rows
    assert len(rows) == 2 * (3 + 3)
    assert {row["trained_at"] for row in rows} == {1e-1, 1e-3}
    assert not any("wrong" in row for row in rows)
    assert {"machine", "commit", "data", "cell"} <= rows[0].keys()
