"""Table 2: a learning rate is chosen by validation, and what it gives is shown beside the paper's numbers."""

import json

import pytest

from odenet_cli.report.items import table2
from odenet_cli.report.result import Entry, check_expectations, result_of
from odenet_cli.report.runs import read_run
from odenet_cli.report.selection import at_best_epoch, choose

PAPER = {"RNN": {30: "0.3937", 50: "0.3202"}, "latent ODE": {30: "0.1642", 50: "0.1502"}}
MODELS = {"latent ODE": "latent_ode", "RNN": "rnn", "Δt-RNN": "rnn_dt"}
REST = {"paper": PAPER, "notes": ["a free choice"]}
SCORES = ("rmse_further_noisy", "relative_further", "rmse_familiar_clean", "rmse_window_clean")


@pytest.fixture
def cell(tmp_path, write):
    """A run of a model on spirals, of which validation and test are told."""

    def written(
        row, size=30, rate=0.01, seed=0, test=0.2, valid=0.2, best=None, status="done", measured=(), epochs=20, kl=1.0
    ):
        folder = tmp_path / f"{row}-{size}-{rate}-{seed}-{kl}"
        config = {
            "seed": seed,
            "model": {"name": MODELS[row]} | ({"kl": kl} if row == "latent ODE" else {}),
            "data": {"name": "spirals", "observed": size},
            "optim.lr": rate,
        }
        final = {
            "rmse_further_clean": test,
            "rmse_last_value": 0.76,
            "rmse_velocity": 1.38,
            "best_epoch": best or epochs,
        }
        final |= dict.fromkeys(SCORES, test + 0.1)
        write(folder, config=config, error=None, final=final, status=status)
        curve = valid if isinstance(valid, list) else [valid + 1 / epoch for epoch in range(1, epochs)] + [valid]
        records = [
            {"split": "valid", "step": 100 * n, "epoch": n, "rmse_further_noisy": v} for n, v in enumerate(curve, 1)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        return Entry("compare", row, read_run(folder), measured)

    return written


def test_the_rate_is_chosen_by_validation_alone(cell):
    entries = [cell("RNN", rate=0.01, test=0.30, valid=0.2), cell("RNN", rate=0.02, test=0.25, valid=0.3)]
    choice = choose(entries, table2.score)
    assert choice.setting == "0.01"
    assert choice.group.mean("rmse_further_clean") == pytest.approx(0.30)
    assert [choice.tried[rate].mean for rate in ("0.01", "0.02")] == [0.2, 0.3]


def test_a_rate_at_which_a_seed_diverged_is_not_shown(cell):
    entries = [cell("RNN", rate=0.01, seed=seed, valid=0.3) for seed in (0, 1)]
    entries += [cell("RNN", rate=0.02, valid=0.1), cell("RNN", rate=0.02, seed=1, status="failed")]
    assert choose(entries, table2.score).setting == "0.01"
    assert choose(entries[3:], table2.score) is None


def test_the_weight_of_the_divergence_is_tuned_as_a_rate_is(cell):
    entries = [cell("latent ODE", rate=0.02, kl=kl, test=kl, valid=1 / kl) for kl in (1.0, 2.0, 3.0)]
    entries += [cell("RNN", rate=rate, valid=rate) for rate in (0.01, 0.02)]
    body = "\n".join(table2.result(entries, REST).body)
    lines = [[word.strip() for word in line.split("|")[1:-1]] for line in body.splitlines() if line.startswith("|")]
    assert ["", "points", "0.01", "0.02", "0.02 · 2 KL", "0.02 · 3 KL", "chosen"] in lines
    assert ["latent ODE", "30", "–", "1.000", "0.500", "0.333", "0.02 · 3 KL"] in lines
    assert ["RNN", "30", "0.010", "0.020", "–", "–", "0.01"] in lines


def test_the_validation_error_is_of_the_tested_weights(cell):
    run = cell("RNN", valid=[0.5, 0.2, 0.3], best=2).run
    assert at_best_epoch(run, "rmse_further_noisy") == 0.2


def test_models_by_points_with_the_papers_numbers(cell):
    entries = [
        cell(row, size, seed=seed, test=test + 0.02 * seed)
        for row, test in (("latent ODE", 0.18), ("RNN", 0.40), ("Δt-RNN", 0.30))
        for size in (30, 50)
        for seed in (0, 1)
    ]
    made = table2.result(entries, REST)
    clean = made.body[1].splitlines()
    assert [cell.strip() for cell in clean[0].split("|")[1:-1]] == [
        "",
        "30/100",
        "paper",
        "50/100",
        "paper",
        "runs (seeds)",
    ]
    assert [cell.strip() for cell in clean[2].split("|")[1:-1]][:3] == ["latent ODE", "0.190 ± 0.014", "0.1642"]
    assert [cell.strip() for cell in clean[4].split("|")[1:-1]][2] == "–"  # the paper has no Δt-RNN here
    assert clean[5].startswith("| last value")
    assert "0.760" in clean[5]
    assert made.facts["rmse/latent ODE/30"] == pytest.approx(0.19)
    assert made.facts["rmse_ratio/50"] == pytest.approx(0.19 / 0.31)
    assert made.facts["validation_fall"] > 0
    assert set(made.figures) == {"scores", "curves"}
    assert all(made.figures.values())
    assert len(made.rows) == 12
    assert all(row["shown"] for row in made.rows)
    assert "- a free choice" in made.body


def test_the_other_pace_of_an_rnn_is_a_table_of_its_own(cell):
    row = {"kind": "pace", "pace": "time", "rmse_further_clean": 0.6}
    made = table2.result([cell("RNN", measured=[row]), cell("latent ODE")], REST)
    assert any(part == table2.PACE for part in made.body)
    assert any("| RNN" in part and "0.600" in part for part in made.body)


def test_nothing_done_is_said_and_judged_as_not_measured(cell):
    made = result_of("table2", [cell("latent ODE", status="failed")], REST)
    assert "not done" in made.body[1]
    assert made.figures == {"scores": None, "curves": None}
    (check,) = check_expectations(made, {"rmse/latent ODE/30": [None, 0.2]})
    assert check == ("RMSE of latent ODE, 30 points", None, 0.2, None)
    assert not check.hit
