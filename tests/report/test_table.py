"""The table says what the runs say: numbers by hand, and the same in every format."""

import csv
import io
import json

import pytest

from odenet_cli.errors import RequestError
from odenet_cli.markdown import markdown_table
from odenet_cli.report import export
from odenet_cli.report.compare import compare
from odenet_cli.report.provenance import Provenance
from odenet_cli.report.runs import read_run
from odenet_cli.report.table import comparison_text

MLP = {"model": {"name": "mlp", "hidden": 300}}
NO_SOLVER = {"nfe_forward": 0, "nfe_backward": 0, "nfe_test": 0, "saved_mib": 0.033}


def made(folders, by=None):
    runs = [read_run(folder) for folder in folders]
    return compare(runs, by), Provenance.of("odenet report runs", runs)


def rows(text):
    """The table in `text` as one dictionary a row."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    head, _, *body = [[cell.strip() for cell in line] for line in lines]
    return [dict(zip(head, line)) for line in body]


@pytest.fixture
def sweep(tmp_path, write):
    """Errors 4, 5, 6 % at 0.1 and 2, 3, 4 % at 0.001, where a fourth seed failed."""
    for rtol, nfe, first in ((0.1, 14, 4), (0.001, 26, 2)):
        for seed in range(3):
            costs = {"nfe_forward": nfe, "nfe_backward": nfe + seed}
            changes = {"solver.rtol": rtol, "seed": seed}
            write(tmp_path / f"{rtol}-{seed}", changes, error=(first + seed) / 100, final=costs, epoch_s=2 + seed)
    failed = {"solver.rtol": 0.001, "seed": 3}
    write(tmp_path / "0.001-3", failed, status="failed", reason="the loss is nan at step 4.\n  Lower optim.lr.")
    return sorted(tmp_path.iterdir())


def test_by_hand(sweep):
    """Three seeds a point apart: sd 1, and 4.303 / √3 = 2.48 to either side."""
    text = comparison_text(*made(sweep))
    tight, loose = rows(text)
    assert loose == {
        "#": "2",
        "solver.rtol": "0.1",
        "runs (seeds)": "3 (0–2)",
        "test error %": "5.00 ± 1.00",
        "95 % interval": "2.52 to 7.48",
        "parameters": "208,266",
        "NFE forward": "14",
        "NFE backward": "15",
        "saved MiB": "4.00",
        "s / epoch": "3.00",
        "status": "done",
    }
    assert tight["test error %"] == "3.00 ± 1.00"
    assert tight["status"] == "3 done, 1 failed"
    assert f"- {sweep[3]}: failed: the loss is nan at step 4.\n" in text
    assert "In common: model odenet (stem conv, width 64, augment 0) · solver dopri5 · gradient adjoint · " in text
    assert "trainer (epochs 3, batch_size 8)" in text
    for line in (
        "command: odenet report runs",
        "commit: f31175c9",
        "machine: cpu (1 threads)",
        "data: digits (8f26b2bd)",
    ):
        assert f"- {line}\n" in text + "\n"


def test_one_seed_has_no_deviation(tmp_path, write):
    text = comparison_text(*made([write(tmp_path / "run", {"seed": 5}, error=0.0312)]))
    (row,) = rows(text)
    assert (row["runs (seeds)"], row["test error %"]) == ("1 (5)", "3.12")
    assert "95 % interval" not in row
    assert "±" not in text


def test_costs_of_networks_with_and_without_a_solver(tmp_path, write):
    folders = [
        write(tmp_path / "a", MLP, final=NO_SOLVER, parameters=238510),
        write(tmp_path / "b", {"gradient.method": "backprop"}, final={"nfe_backward": 0}),
        write(tmp_path / "c", final={"peak_mib": 66.25, "saved_mib": 22.125}),
    ]
    mlp, backprop, adjoint = rows(comparison_text(*made(folders)))
    assert (mlp["NFE forward"], mlp["NFE backward"], mlp["parameters"]) == ("–", "–", "238,510")
    assert (mlp["gradient.method"], mlp["saved MiB"], mlp["peak MiB"]) == ("–", "0.033", "–")
    assert (backprop["NFE forward"], backprop["NFE backward"]) == ("20", "0 (no re-evaluation)")
    assert (adjoint["NFE backward"], adjoint["saved MiB"], adjoint["peak MiB"]) == ("26", "22.1", "66.2")
    (alone,) = rows(comparison_text(*made(folders[:1])))
    assert not {"NFE forward", "NFE backward", "peak MiB"} & set(alone)


def test_likelihoods_show_their_loss(tmp_path, write):
    flow = {"model": {"name": "cnf", "units": 64}, "data": {"name": "moons"}}
    folders = [write(tmp_path / str(n), {**flow, "seed": n}, error=None, loss=0.5 + n / 100) for n in (0, 1)]
    (row,) = rows(comparison_text(*made(folders)))
    assert row["test loss"] == "0.5050 ± 0.0071"  # 0.01 / √2
    assert row["95 % interval of the loss"] == "0.4415 to 0.5685"  # 12.706 * 0.0071 / √2 is 0.0635
    assert "test error %" not in row
    _, both = rows(comparison_text(*made([*folders, write(tmp_path / "x")])))
    assert (both["test error %"], both["test loss"]) == ("5.00", "0.5000")


def test_runs_none_of_which_is_done(tmp_path, write):
    folders = [write(tmp_path / "a", status="interrupted", reason="SIGTERM"), write(tmp_path / "b", status="running")]
    (folders[0] / "run.json").write_text("{")
    text = comparison_text(*made(folders))
    (row,) = rows(text)
    assert (row["runs (seeds)"], row["status"], row["s / epoch"]) == ("0", "1 killed", "–")
    assert f"- {folders[0]}: unreadable: " in text
    assert f"- {folders[1]}: killed: it ended without a message" in text


def test_notes_say_what_a_row_is_a_mean_of(tmp_path, write):
    rates = [write(tmp_path / f"{n}", {"optim.lr": n}, device=f"machine {n}") for n in (4, 8)]
    text = comparison_text(*made(rates, by=["model.name"]))
    assert "Rows are means over optim.lr too" in text
    assert "Runs of one seed count as one" in text
    assert "Times come from several machines" in text
    assert "of odenet." not in text
    old = [write(tmp_path / f"old {n}", MLP, seed=n, versions={"odenet": f"0.{n}.0"}) for n in (1, 2)]
    assert "Row 2: means over versions 0.1.0, 0.2.0 of odenet." in comparison_text(*made([rates[0], *old]))


def test_no_mean_is_taken_of_the_times_of_two_machines(tmp_path, write):
    """1 s on one and 100 s on another are 50.5 s on none; each run's own time is in the JSON."""
    pairs = (("cpu", 1.0), ("GPU", 100.0))
    mixed = [write(tmp_path / name, device=name, epoch_s=seconds) for name, seconds in pairs]
    comparison, source = made([*mixed, write(tmp_path / "alone", MLP, device="cpu", epoch_s=3.0)])
    assert [row["s / epoch"] for row in rows(comparison_text(comparison, source))] == ["–", "3.00"]
    lines = csv.DictReader(io.StringIO(export.as_csv(comparison, source)))
    assert [line["epoch_s_mean"] for line in lines] == ["", "3.0"]
    assert sorted(run["epoch_s"] for run in json.loads(export.as_json(comparison, source))["runs"]) == [1, 3, 100]


def heads(text):
    line = next(line for line in text.splitlines() if line.startswith("|"))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_a_table_fits_the_terminal(sweep, width):
    """What identifies a row and the main number come first; what does not fit is named."""
    comparison, origin = made(sweep)
    whole, text = comparison_text(comparison, origin), comparison_text(comparison, origin, width)
    shown = heads(text)
    whole_lines = [line for line in text.splitlines() if line.startswith("- ") or len(line.split()) == 1]  # to copy
    assert max(len(line) for line in text.splitlines() if line not in whole_lines) <= width
    assert {"#", "solver.rtol", "test error %"} <= set(shown)
    assert width < 80 or shown[:5] == ["#", "solver.rtol", "runs (seeds)", "status", "test error %"]
    left_out = [title for title in heads(whole) if title not in shown]
    assert bool(left_out) == (width < 200)
    named = f"Left out, as the terminal has {width} columns: {', '.join(left_out)} (--all, or --columns A,B)."
    assert (" ".join(named.split()) in " ".join(text.split())) == bool(left_out)
    assert "Left out" not in whole


def test_runs_of_several_tasks_show_a_score_each_on_a_terminal(tmp_path, write):
    """And the names of models and data before what else differs."""
    flow = {"model": {"name": "cnf", "units": 64}, "data.name": "moons", "optim.name": "adam"}
    folders = [
        write(tmp_path / "a"),
        write(tmp_path / "b", flow, error=None, final={"nll": 1.5, "nll_sd": 0.5, "gap": 0.1}),
    ]
    comparison, origin = made(folders)
    text = comparison_text(comparison, origin, 80)
    assert heads(text)[:4] == ["#", "test score", "model.name", "data.name"]
    assert [row["test score"] for row in rows(text)] == ["error % 5.00", "NLL, nat 1.500"]
    assert "test score" not in comparison_text(comparison, origin)


def test_columns_by_name(sweep):
    comparison, origin = made(sweep)
    text = comparison_text(comparison, origin, 20, ["RTOL", "error", "nfe"])
    assert heads(text) == ["#", "solver.rtol", "test error %", "NFE forward", "NFE backward"]
    assert "Left out" not in text
    with pytest.raises(RequestError, match=r"--columns lr is no column here(.|\n)*Available: solver\.rtol, runs"):
        comparison_text(comparison, origin, None, ["lr"])


def test_the_folders_of_each_row(sweep, tmp_path, write):
    """Below the folder that holds all; four of a row, or every one."""
    lines = comparison_text(*made(sweep)).splitlines()
    at = lines.index(f"Folders of the rows, in {tmp_path}:")
    assert lines[at + 2 : at + 4] == ["- 1: 0.001-0, 0.001-1, 0.001-2, 0.001-3", "- 2: 0.1-0, 0.1-1, 0.1-2"]
    more = [*sweep, write(tmp_path / "more" / "a", {"solver.rtol": 0.001, "seed": 4})]
    assert "- 1: 0.001-0, 0.001-1, 0.001-2, 0.001-3 and 1 more\n" in comparison_text(*made(more))
    assert "0.001-3, more/a\n" in comparison_text(*made(more), every_folder=True)
    assert f"Folders of the rows:\n\n- 1: {sweep[0]}\n" in comparison_text(*made(sweep[:1]))


def test_csv_and_json_say_the_same(sweep):
    comparison, origin = made(sweep)
    sheet = list(csv.DictReader(io.StringIO(export.as_csv(comparison, origin))))
    whole = json.loads(export.as_json(comparison, origin))
    assert whole["keys"] == ["solver.rtol"]
    assert len(sheet) == len(whole["groups"]) == 2
    for row, group in zip(sheet, whole["groups"]):
        assert float(row["solver.rtol"]) == group["values"]["solver.rtol"]
        assert (int(row["runs"]), row["seeds"], row["status"]) == (group["runs"], "0 1 2", group["status"])
        for name, spread in group["measures"].items():
            cells = [row[f"{name}_{part}"] for part in export.SPREAD]
            assert [float(cell) if cell else None for cell in cells] == [spread[p] for p in export.SPREAD]
        assert (row["commit"], row["machine"], row["data"]) == ("f31175c9", "cpu (1 threads)", "digits (8f26b2bd)")
        assert row["command"] == whole["source"]["command"] == "odenet report runs"
    tight = whole["groups"][0]["measures"]
    assert tight["error"] == pytest.approx(
        {"n": 3, "mean": 0.03, "sd": 0.01, "low": 0.00516, "high": 0.05484}, rel=1e-3
    )
    assert [run["status"] for run in whole["runs"]].count("failed") == 1
    assert whole["runs"][0]["final"]["error"] == 0.02


def test_one_seed_is_empty_in_csv(tmp_path, write):
    comparison, origin = made([write(tmp_path / "run", {"model.width": 4}), write(tmp_path / "b", MLP, error=None)])
    first, second = csv.DictReader(io.StringIO(export.as_csv(comparison, origin)))
    assert (first["error_mean"], first["error_sd"], first["error_low"]) == ("0.05", "", "")
    assert second["error_mean"] == ""


TASKS = {  # final metrics -> what stands in the table
    "u1": ({"kl": 0.0123, "kl_sd": 0.5, "outside": 0.0}, {"test KL, nat": "0.0123"}),
    "moons": ({"nll": 2.0, "gap": 0.25}, {"test NLL, nat": "2.000", "test gap, nat": "0.250"}),
    "pinwheel": ({"nll": 2.0}, {"test NLL, nat": "2.000"}),
    "spirals": (
        {"nll": 3.0, "kl": 1.0, "rmse_further_clean": 0.2, "rmse_further_noisy": 0.3},
        {"test RMSE, clean": "0.200"},
    ),
    "csv": ({"nll": 3.0, "rmse_further_noisy": 0.3}, {"test RMSE, noisy": "0.300"}),
    "poisson": (
        {"nll": 3.0, "kl": 1.0, "gap": 0.01, "rate_error": 0.1},
        {"test rate error": "0.100", "test gap, nats an event": "0.0100"},
    ),
}


def task_run(write, folder, name, seed=0, more=0.0):
    final = {key: value + more for key, value in TASKS[name][0].items()}
    return write(folder, {"data": {"name": name}, "seed": seed}, error=None, loss=2.0, final=final)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_shows_its_main_score(tmp_path, write, name):
    (row,) = rows(comparison_text(*made([task_run(write, tmp_path / "run", name)])))
    shown = {title: cell for title, cell in row.items() if title.startswith("test ")}
    assert shown == TASKS[name][1] | ({} if name in ("moons", "pinwheel") else {"test loss": "2.0000"})


def test_tasks_side_by_side_keep_their_scores_apart(tmp_path, write):
    folders = [task_run(write, tmp_path / f"{name}-{n}", name, n, n / 100) for name in TASKS for n in (0, 1)]
    text = comparison_text(*made([*folders, write(tmp_path / "digits")], by=["data.name"]))
    found = {row["data.name"]: row for row in rows(text)}
    assert found["u1"]["test KL, nat"] == "0.0173 ± 0.0071"
    assert [found[name]["test KL, nat"] for name in ("spirals", "poisson", "digits")] == ["–"] * 3
    assert found["moons"]["test gap, nat"] == "0.255 ± 0.007"
    assert found["poisson"]["test gap, nat"] == found["moons"]["test gap, nats an event"] == "–"
    assert found["digits"]["test error %"] == "5.00"


def test_csv_and_json_have_the_scores_of_every_task(tmp_path, write):
    comparison, origin = made([task_run(write, tmp_path / str(n), "moons", n, n / 100) for n in (0, 1)])
    (row,) = csv.DictReader(io.StringIO(export.as_csv(comparison, origin)))
    assert float(row["gap_mean"]) == pytest.approx(0.255)
    assert json.loads(export.as_json(comparison, origin))["groups"][0]["measures"]["nll"]["n"] == 2


def test_a_bar_in_a_cell_does_not_end_it():
    head, rule, row = markdown_table(["∫|λ|", "b"], [["x|y|z", "1"]], left=1).splitlines()
    assert row == r"| x\|y\|z | 1 |"
    assert head == r"| ∫\|λ\|  | b |"
    assert rule == "|---------|--:|"
