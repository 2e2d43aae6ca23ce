"""Table 1 from runs written by hand: known numbers in, the numbers of a textbook out."""

import csv
import json
from itertools import combinations, product

import numpy
import pytest
import scipy.stats

from odenet_cli.report.items import _significance, table1
from odenet_cli.report.provenance import Provenance
from odenet_cli.report.result import About, Check, Entry, Page, check_expectations, result_of
from odenet_cli.report.runs import Run, read_run
from odenet_cli.report.statistics import Discordant, Pair

MNIST = {"data": {"name": "mnist", "crop": 4, "validation": 5000}}
REST = {"paper": {"ODE-Net": {"error": "0.42", "memory": "O(1)"}}, "notes": ["A free choice."]}
RESNET = {"model": {"name": "resnet", "stem": "conv", "width": 64, "blocks": 6, "tied": False}}
NO_SOLVER = {"nfe_forward": 0, "nfe_backward": 0, "nfe_test": 0, "vjps": 0}


@pytest.fixture
def entry(tmp_path, write):
    """A finished cell; `step_ms` is the time of all its steps but the first, which takes a second."""
    made = []

    def make(part, row, config=None, step_ms=5.0, **run):
        folder = write(tmp_path / f"{len(made)}", config, **run)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for place, line in enumerate(lines):
            if line["split"] == "train":
                line["step_ms"] = step_ms if place else 1000.0
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        made.append(folder)
        return Entry(part, row, read_run(folder))

    return make


@pytest.fixture
def compared(entry):
    """Three seeds of ODE-Net with errors of 1, 2 and 3 %, one of ResNet-6 with 5 %."""
    found = [entry("compare", "ODE-Net", {"seed": n}, error=0.01 * (n + 1), parameters=208266) for n in range(3)]
    return [*found, entry("compare", "ResNet-6", RESNET, error=0.05, final=NO_SOLVER, parameters=576778)]


@pytest.fixture
def answered(entry):
    """Two seeds of three networks, and what they answered to 400 samples: ODE-Net and ResNet-6 have 4 wrong, two of
    them both; MLP has 40 wrong, those of ResNet-6 among them."""
    wrong = {"ODE-Net": range(2, 6), "ResNet-6": range(4), "MLP": range(40)}
    label, found = numpy.arange(400, dtype=numpy.uint8) % 10, []
    for seed, (row, places) in product(range(2), wrong.items()):
        config = {"seed": seed, **MNIST}
        found.append(entry("compare", row, config, error=len(places) / 400))
        predicted = label.copy()
        predicted[list(places)] = (label[list(places)] + 1) % 10
        numpy.savez_compressed(found[-1].run.folder / "predictions.npz", predicted=predicted, label=label)
    return found


@pytest.fixture
def scaled(entry):
    """ResNet: memory 2 L + 1, exactly straight, and times whose R² is 3/4. RK-Net: memory with R² of 3/4 against the
    evaluations of accepted steps. ODE-Net: memory from 4.0 to 4.1."""
    found = []
    for blocks, ms in ((1, 1.0), (2, 2.0), (3, 2.0)):
        config = {"model": {**RESNET["model"], "blocks": blocks}}
        found.append(
            entry("scaling", "ResNet", config, ms, final={**NO_SOLVER, "saved_mib": 2.0 * blocks + 1}, error=0.9)
        )
    for rtol, vjps, saved in ((0.1, 10, 1.0), (0.01, 20, 2.0), (0.001, 30, 2.0)):
        final = {"vjps": vjps, "nfe_forward": 5 * vjps + int(1 / rtol), "saved_mib": saved, "nfe_backward": 0}
        config = {"solver.rtol": rtol, "gradient.method": "backprop"}
        found.append(entry("scaling", "RK-Net", config, vjps / 10, final=final, error=0.9))
    for rtol, nfe, saved in ((0.1, 14, 4.0), (0.01, 20, 4.05), (0.001, 26, 4.1)):
        final = {"nfe_forward": nfe, "nfe_backward": nfe + 1, "vjps": nfe + 1, "saved_mib": saved}
        found.append(entry("scaling", "ODE-Net", {"solver.rtol": rtol}, 3.0 * nfe, final=final, error=0.9))
    return found


def cells(text, row):
    """The cells of a row of a Markdown table, by their heads; heads that come twice have a number."""
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if "|" in line]
    heads = []
    for head in rows[0]:
        heads.append(head if head not in heads else f"{head} {heads.count(head) + 1}")
    return next(dict(zip(["", *heads[-len(line) + 1 :]], line)) for line in rows if line[0] == row)


def test_a_row_is_mean_deviation_and_interval(compared):
    made = table1.result(compared, REST)
    row = cells(made.body[0], "ODE-Net")
    assert row["test error %"] == "2.00 ± 1.00"
    half = 4.302652729911275 / 3**0.5  # Student's t of two degrees of freedom; no mean is below 0
    assert row["95 % interval"] == f"0.00 to {2 + half:.2f}"
    assert (row["parameters"], row["saved MiB"], row["s / epoch"]) == ("208,266", "4.00", "2.00")
    assert row["NFE"] == "20 / 26"
    assert row["runs (seeds)"] == "3 (0–2)"
    assert made.facts["test_error/ODE-Net"] == pytest.approx(2.0, abs=1e-12)


def test_one_seed_has_no_deviation_and_a_resnet_no_nfe(compared):
    row = cells(table1.result(compared, REST).body[0], "ResNet-6")
    assert (row["test error %"], row["95 % interval"]) == ("5.00", "–")
    assert row["NFE"] == "–"


def test_the_papers_numbers_stand_in_the_cells_of_ours(entry, compared):
    row = cells(table1.result([entry("compare", "ODE-Net", MNIST, error=0.0046)], REST).body[0], "ODE-Net")
    assert row["test error %"] == "0.46 (paper 0.42)"
    assert row["saved MiB"] == "4.00 (paper O(1))"
    text = table1.result(compared, REST).body[0]  # digits: the paper's are no numbers to compare with
    assert "paper" not in text
    assert text.splitlines()[0].count("|") == 9  # eight columns


def test_the_allocators_peak_is_shown_where_there_is_one(entry):
    on_cpu, on_gpu = entry("compare", "ODE-Net"), entry("compare", "ODE-Net", final={"peak_mib": 12.5})
    assert "peak MiB" not in "".join(table1.result([on_cpu], REST).body)
    found = next(text for text in table1.result([on_gpu], REST).body if "peak MiB" in text)
    assert cells(found, "ODE-Net")["peak MiB"] == "12.5"


def test_seconds_an_epoch_are_those_of_the_steps_timed_alone(entry):
    """An epoch has 10 steps; 5 ms of the training beside others, 3 ms alone."""
    trained, timed = entry("compare", "ODE-Net", epoch_s=2.0), entry("times", "ODE-Net", step_ms=3.0)
    made = table1.result([trained, timed], REST)
    assert cells(made.body[0], "ODE-Net")["s / epoch"] == "0.030"
    assert "nothing else on the machine" in made.body[2]
    waiting = Entry("times", "MLP", Run(folder=timed.run.folder / "x", status="failed"))
    for entries in ([trained], [trained, timed, waiting]):  # some rows alone and others not would not compare
        made = table1.result(entries, REST)
        assert cells(made.body[0], "ODE-Net")["s / epoch"] == "2.00"
        assert "may have shared the machine" in made.body[2]


def test_the_verdict_and_what_follows_come_from_the_answers(answered):
    made = table1.result(answered, {**REST, "paper": {"ResNet-6": {"error": "0.41"}, **REST["paper"]}})
    first, second = made.verdict.split(". ", 1)
    assert first == "ResNet-6 and ODE-Net have mean test errors of 1.00 and 1.00 %, 2 seeds (paper: 0.41 and 0.42 %)"
    assert second == (
        "McNemar's test on the same test samples tells no two of ResNet-6 and ODE-Net apart; "
        "ODE-Net's saved memory is 1 times and its epoch is 1 times that of ResNet-6."
    )
    line = made.body[1]
    assert "ODE-Net and ResNet-6 have fewer errors than MLP." in line
    assert "which is better of ODE-Net and ResNet-6." in line
    assert "2 trainings a row" in line
    counts = next(text for text in made.body if "only one has wrong" in text)
    assert cells(counts, "ODE-Net : MLP")["seed 1"] == f"0 : 36 ({scipy.stats.binomtest(0, 36).pvalue:.2g})"
    assert cells(counts, "ODE-Net : ResNet-6")["seed 0"] == "2 : 2 (1)"


def test_rows_that_are_not_told_apart_are_said_in_groups():
    """A and D differ, all other pairs do not: two groups of three hold every pair that is open."""
    same, apart = {0: Discordant(5, 5)}, {0: Discordant(1, 60)}
    found = [
        Pair(a, b, apart if a + b == "AD" else same, 0.001 if a + b == "AD" else 1.0)
        for a, b in combinations("ABCD", 2)
    ]
    assert _significance.indistinct_groups(found, "ABCD") == [["A", "B", "C"], ["B", "C", "D"]]


def test_candidates_for_the_recipe_show_no_test_error(entry, compared):
    tried = entry("recipe", "onecycle 0.1", {"seed": 100}, error=0.0421, final={"valid_error": 0.0123})
    made = table1.result([*compared, tried], REST)
    found = next(text for text in made.body if "candidate" in text)
    assert cells(found, "onecycle 0.1")["validation error %"] == "1.23"
    assert "onecycle" not in made.body[0]
    assert "4.21" not in "".join(made.body)
    assert "error" not in made.rows[-1]
    assert made.rows[-1]["valid_error"] == 0.0123


def test_without_answers_nothing_is_said_to_differ(compared):
    made = table1.result(compared, {**REST, "paper": {"ResNet-6": {"error": "0.41"}, **REST["paper"]}})
    assert "Whether ResNet-6 and ODE-Net differ is not known" in made.verdict
    assert "McNemar's test cannot be computed" in made.body[1]
    assert "paper" not in made.verdict


def test_a_failed_cell_is_in_no_mean(compared, tmp_path):
    compared[1] = Entry("compare", "ODE-Net", Run(folder=tmp_path / "1", status="failed"))
    row = cells(table1.result(compared, REST).body[0], "ODE-Net")
    assert row["test error %"].startswith("2.00 ± 1.41")
    assert row["runs (seeds)"] == "2 (0, 2)"
    alone = table1.result([compared[1]], REST)
    assert cells(alone.body[0], "ODE-Net")["runs (seeds)"] == "not done"
    assert alone.facts["test_error/ODE-Net"] is None


def test_straightness_and_flatness_of_memory(compared, scaled):
    facts = table1.result([*compared, *scaled], REST).facts
    assert facts["memory_r2/ResNet/L"] == pytest.approx(1.0, abs=1e-12)
    assert facts["time_r2/ResNet/L"] == pytest.approx(0.75, abs=1e-12)
    assert facts["memory_r2/RK-Net/L~"] == pytest.approx(0.75, abs=1e-12)
    assert facts["time_r2/RK-Net/L~"] == pytest.approx(1.0, abs=1e-12)
    assert facts["time_r2/ODE-Net/L~"] == pytest.approx(1.0, abs=1e-12)
    flat = facts["memory_growth"]
    assert flat == pytest.approx(2.5, abs=1e-9)


def test_a_run_of_the_scaling_is_in_no_row_of_the_table(compared, scaled):
    alone, both = table1.result(compared, REST), table1.result([*compared, *scaled], REST)
    assert both.body[0] == alone.body[0]
    assert (alone.figures["scaling"], "![scaling]" in alone.body) == (None, False)


def test_depth_is_what_rk_net_keeps_and_ode_net_evaluates(scaled):
    steps = [table1.measured_step(one) for one in scaled]
    assert [one["depth"] for one in steps] == [1, 2, 3, 10, 20, 30, 14, 20, 26]
    assert [one["rtol"] for one in steps] == [None, None, None, 0.1, 0.01, 0.001, 0.1, 0.01, 0.001]
    assert steps[0]["step_ms"] == 1.0  # not the first step's second


def test_the_figure_has_a_point_a_run_and_a_line_a_network(compared, scaled):
    figure = table1.result([*compared, *scaled], REST).figures["scaling"]
    memory, time = figure.axes
    drawn = [line.get_xydata().tolist() for line in memory.get_lines()]
    assert drawn[0] == [[1, 3], [2, 5], [3, 7]]
    assert drawn[1] == [[0, 1], [3, pytest.approx(7)]]  # the stem is the intercept
    assert drawn[4] == [[14, 4.0], [20, 4.05], [26, 4.1]]
    assert time.get_lines()[0].get_ydata().tolist() == [0.001, 0.002, 0.002]
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == [
        "ResNet: 2 MiB a block, R² = 1.0000",
        "RK-Net: 0.05 MiB an evaluation, R² = 0.7500",
        "ODE-Net: flat",
    ]


def test_an_expectation_that_does_not_hold_is_a_miss():
    cases = {(None, 5, 6.0): "MISS", (5, 6, 6.0): "as expected", (0, None, None): "not measured"}
    cases |= {(0.98, None, 0.98): "as expected", (1, 2, 0.5): "MISS"}
    assert {case: Check("a", *case).outcome for case in cases} == cases


def written(folder, entries, expect=None, **about):
    made, told = (
        result_of("table1", entries, REST),
        {"item": "table1", "preset": "quick", "text": "narrow nets", **about},
    )
    checks = check_expectations(made, expect or {})
    origin = Provenance.of("odenet reproduce table1", [entry.run for entry in entries if entry.run.record])
    return Page(result=made, about=About(**told), checks=checks, source=origin).write(folder)


def test_the_report_says_what_is_partial_and_what_is_missing(compared, tmp_path):
    expect = {"test_error/ODE-Net": [None, 1.5]}
    whole = ("partial: 3 of 5 seeds", "changed: trainer.epochs=1")
    written(tmp_path / "out", compared, expect, partial=whole, missing=("ODE-Net, seed 3: killed by SIGKILL",))
    text = (tmp_path / "out" / "quick.md").read_text()
    title = (
        "# Table 1, MLP, ResNets, RK-Net and ODE-Net: quick preset (partial: 3 of 5 seeds; changed: trainer.epochs=1)"
    )
    assert text.splitlines()[0] == title
    assert text.splitlines()[2].startswith("**ODE-Net has ")
    assert text.splitlines()[4] == "Narrow nets."
    assert "| test error of ODE-Net (%) | at most 1.5 |        2 | MISS |" in text
    assert "Not done, and in no number above\n\n- ODE-Net, seed 3: killed by SIGKILL" in text
    written(tmp_path / "out", compared)
    text = (tmp_path / "out" / "quick.md").read_text()
    assert text.startswith("# Table 1, MLP, ResNets, RK-Net and ODE-Net: quick preset\n")
    assert "Not done" not in text


def test_the_files_say_where_the_numbers_come_from(compared, scaled, tmp_path):
    files = written(tmp_path / "out", [*compared, *scaled])
    names = ["quick.md", "quick.csv", "quick.json", "quick-scaling.svg", "quick-scaling.png"]
    assert [path.name for path in files] == names
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    told = {
        "command": "odenet reproduce table1",
        "trained by": "odenet train -m model=odenet",
        "commit": "f31175c9",
        "machine": "cpu (1 threads)",
        "data": "digits (8f26b2bd)",
    }
    text = (tmp_path / "out" / "quick.md").read_text()
    for name, value in told.items():
        assert f"- {name}: {value}\n" in text
    assert "![scaling](quick-scaling.svg)" in text
    assert "digits (8f26b2bd)" in (tmp_path / "out" / "quick-scaling.svg").read_text()
    rows = list(csv.DictReader((tmp_path / "out" / "quick.csv").open()))
    assert len(rows) == len(compared) + len(scaled)
    assert {row["command"] for row in rows} == {told["command"]}
    assert {(row["machine"], row["commit"], row["data"]) for row in rows} == {
        ("cpu (1 threads)", "f31175c9", "digits (8f26b2bd)")
    }
    assert [row["error"] for row in rows[:4]] == ["0.01", "0.02", "0.03", "0.05"]
    assert [row["depth"] for row in rows[:5]] == ["", "", "", "", "1"]
    whole = json.loads((tmp_path / "out" / "quick.json").read_text())
    assert whole["source"]["data"] == ["digits (8f26b2bd)"]
    assert whole["rows"][0]["cell"] == "0"
