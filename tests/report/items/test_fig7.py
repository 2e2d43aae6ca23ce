"""Figure 7: inferred rates beside the true ones, and what is wrong with them, over sequences and seeds."""

import pytest

from odenet_cli.report.items import fig7
from odenet_cli.report.result import Entry
from odenet_cli.report.runs import read_run


@pytest.fixture
def cell(tmp_path, write):
    def written(seed=0, error=0.1, status="done"):
        config = {"seed": seed, "model": {"name": "latent_poisson"}, "data": {"name": "poisson"}}
        run = read_run(write(tmp_path / f"run-{seed}", config=config, error=None, status=status))
        measured = [
            {
                **{"kind": "sequence", "sequence": n, "events": 240 + n, "expected": 250.0},
                **{"rate_error": error + 0.01 * n, "rate_error_constant": 0.4, "gap": 0.002 * n - 0.001},
            }
            for n in range(5)
        ]
        grid = [0.0, 2.5, 5.0]
        for n in range(4):
            rate = {"times": [0.5] * (n + 1), "grid": grid, "rate": [50.0] * 3, "path": [45.0, 50.0, 55.0]}
            measured.append({"kind": "rate", "sequence": n, **rate})
        return Entry("networks", "latent Poisson", run, measured if status == "done" else [])

    return written


def test_errors_are_means_over_sequences_then_over_seeds(cell):
    made = fig7.result([cell(0, 0.1), cell(1, 0.2)], {"notes": ["a free choice"]})
    assert made.facts["rate_error"] == pytest.approx(0.17)
    assert made.facts["rate_error_ratio"] == pytest.approx(0.17 / 0.4)
    assert made.facts["gap"] == pytest.approx(0.003)
    assert made.facts["expected_events"] == 250
    assert "0.170 ± 0.071" in "".join(made.body)
    assert len(made.rows) == 2


def test_a_panel_a_sequence_with_its_error(cell):
    made = fig7.result([cell(1, 0.3), cell(0, 0.1)], {"notes": []})
    titles = [axes.get_title("left") for axes in made.figures["rates"].axes]
    assert len(titles) == 4
    assert titles[0].startswith("240 events")
    assert titles[0].endswith("0.100")
    assert len(made.figures["errors"].axes[0].get_lines()) == 4  # two seeds, the constant rate, the bound


def test_a_seed_that_failed_is_a_row_without_numbers(cell):
    made = fig7.result([cell(0), cell(1, status="failed")], {"notes": []})
    assert [row.get("rate_error") is None for row in made.rows] == [False, True]


def test_without_a_trained_network_nothing_is_drawn(cell):
    assert not fig7.result([cell(0, status="failed")], {"notes": []}).figures


def test_a_run_without_its_time_is_in_no_mean(cell):
    entries = [cell(0), cell(1)]
    entries[0].run.final["time_s"], entries[1].run.final["time_s"] = 90.0, None
    lines = "\n".join(fig7.result(entries, {"notes": []}).body).splitlines()
    assert next(line for line in lines if line.startswith("| latent ODE")).split("|")[-3].strip() == "1.50"
