"""`odenet gradcheck`: how wrong a run's gradient is, told apart by method, norm and tolerance."""

import json
import sys
from statistics import median

import pytest
from runs_kit import train_run

from odenet_cli.analysis import gradcheck as gradchecks
from odenet_cli.analysis.gradcheck import Limits, judge
from odenet_cli.commands import gradcheck as command
from odenet_cli.config.saved import load
from odenet_cli.errors import RequestError
from odenet_cli.training import progress

NET = ("data=digits", "device=cpu", "trainer.limit_batches=40")


def trained(folder, *words):
    return train_run(folder, *NET, *words)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A net of 8 channels whose field has grown: 300 steps with exact gradients of cheap solves."""
    words = ("model=rknet", "model.width=8", "solver=midpoint", "solver.steps=2", "optim.lr=0.1", "seed=1")
    more = ("data.validation=0", "trainer.batch_size=32", "trainer.max_steps=300")
    return trained(tmp_path_factory.mktemp("runs") / "run", *words, *more)


@pytest.fixture(scope="module")
def adjoint_folder(tmp_path_factory):
    words = ("model=odenet", "model.width=4", "gradient.norm=absolute", "gradient.solver.rtol=3e-2")
    words += ("trainer.max_steps=1", "trainer.batch_size=8")
    return trained(tmp_path_factory.mktemp("runs") / "run", *words)


@pytest.fixture
def check(run_folder, capsys):
    """The exit code, the records it appended, and what it printed."""

    def call(*words, folder=run_folder):
        path = folder / "gradcheck.jsonl"
        before = len(path.read_text().splitlines()) if path.exists() else 0
        capsys.readouterr()
        code = command.main([str(folder), "reference=1e-4", *words])
        records = [json.loads(line) for line in path.read_text().splitlines()[before:]]
        return code, records, capsys.readouterr().out.splitlines()

    return call


COARSE = ("solver.method=dopri5", "solver.rtol=1e-2")


@pytest.mark.numerics
def test_replay_is_exact_for_its_steps(check):
    code, records, lines = check(*COARSE, "gradient.method=replay,backprop")
    assert code == 0
    assert [(record["gradient"], record["batch"]) for record in records] == [
        (method, n) for method in ("replay", "backprop") for n in (1, 2, 3)
    ]
    assert max(record["error_steps"] for record in records) < 1e-5  # the rounding of float32
    assert max(record["error_steps_field"] for record in records) < 1e-5
    assert all(0.01 < record["error"] < 0.5 for record in records)  # coarse steps, exactly differentiated
    replay, backprop = records[:3], records[3:]
    assert all(record["nfe_backward"] == 6 * record["accepted"] for record in replay)
    assert {record["nfe_backward"] for record in backprop} == {0}
    assert lines[-1] == "passed: 2 of 2 have a median error of at most 0.5 against the reference"


@pytest.mark.numerics
def test_the_absolute_adjoint_at_a_coarse_tolerance_is_no_gradient(check):
    words = (*COARSE, "gradient.method=adjoint", "gradient.norm=absolute,relative")
    code, records, lines = check(*words)
    assert code == 1
    absolute, relative = records[:3], records[3:]
    for key in ("error_steps", "error"):
        assert 0.6 < median(record[key] for record in absolute) < 1.5  # over seeds 0.7 to 1
        assert median(record[key] for record in relative) < 0.5
    assert all(a["nfe_backward"] < b["nfe_backward"] for a, b in zip(absolute, relative))
    assert lines[-1].startswith("failed: 1 of 2")
    assert check(*words[:-1], "gradient.norm=absolute", "threshold=5", "batches=1")[0] == 0


def test_it_says_which_gradient_is_checked(check, capsys, monkeypatch):
    told = []
    monkeypatch.setattr(progress.Parts, "_show", lambda parts, **_: told.append(parts.line().split("  ", 2)[-1]))
    check("batches=2")
    assert told[-1].endswith("batch 2: backprop, -, midpoint 2 steps")
    assert len(told) == 2


def test_the_table(check):
    code, (record,), lines = check("batches=1", "threshold=1e-9")
    assert code == 1
    assert "last weights, step 300" in lines[0]  # nothing was held out, so there is no best
    assert "32 training samples of digits per batch, float32" in lines[0]
    assert lines[1] == "reference: the differential equation in float64, dopri5 at 0.0001"
    heads = ["gradient", "backward", "forward", "batch", "loss", "norm", "steps", "field", "reference", "field"]
    assert lines[2].split() == [*heads, "NFE", "back"]
    assert lines[3].split()[:6] == ["backprop", "-", "midpoint", "2", "steps", "1"]
    assert f"{record['error']:.1e}" in lines[3]
    assert "median" in lines[4]
    error = f"{record['error']:.1e}"
    assert lines[5] == f"failed: the median error against the reference is {error}, not at most threshold=1e-09"


def test_it_is_deterministic_and_leaves_the_run_alone(check, run_folder):
    def content():
        return {p: p.read_bytes() for p in run_folder.rglob("*") if p.is_file() and p.name != "gradcheck.jsonl"}

    before = content()
    assert check("batches=1")[1] == check("batches=1")[1]
    assert content() == before


def test_a_solve_that_fails_is_a_row_and_stops_no_other(check):
    words = ("gradient.method=reversible,replay", "solver.method=dopri5", "solver.max_steps=2", "solver.rtol=1e-4")
    code, records, lines = check(*words)
    assert code == 1
    assert [("failed" in record, record["gradient"]) for record in records] == [(True, "reversible"), (True, "replay")]
    assert "Raise solver.max_steps" in records[1]["failed"]
    assert lines[-1].startswith("failed: 0 of 2")


def test_what_the_run_was_trained_with_gives_way(adjoint_folder):
    """Another gradient starts without the options of this one, the same keeps them; an rtol brings its atol."""
    run = load(adjoint_folder)
    assert (run.gradient.norm, run.gradient.solver.rtol) == ("absolute", 3e-2)
    kept = command.changed(run, {"gradient.method": "adjoint", "solver.rtol": 1e-2})
    assert (kept.gradient, kept.solver.atol) == (run.gradient, 1e-2)
    replay = command.changed(run, {"gradient.method": "replay"}).gradient
    assert (replay.norm, replay.solver.rtol) == ("relative", None)
    fixed = command.changed(run, {"solver.method": "rk4"})
    assert (fixed.solver.rtol, fixed.solver.steps, fixed.gradient.solver.rtol) == (None, 4, None)
    assert fixed.gradient.norm == "absolute"
    backward = command.changed(run, {"gradient.solver.method": "bosh3"}).gradient.solver
    assert (backward.method, backward.rtol) == ("bosh3", None)
    relative = command.changed(run, {"gradient.norm": "relative"}).gradient
    assert (relative.norm, relative.solver.rtol) == ("relative", None)


PLANTED = """
import torch
from torch import nn

class Field(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.rate = kind, 1.0
        self.inner, self.outer = nn.Linear(16, 24), nn.Linear(24, 16)
        self.dropout = nn.Dropout(0.2)

    def forward(self, t, y):
        inner = torch.tanh(self.inner(y))
        if self.kind == "detach":
            inner = inner + inner.detach()
        if self.kind == "rounded":
            inner = inner + ((4 * inner).round() / 4 - inner).detach()
        if self.kind == "dropout":
            inner = self.dropout(inner)
        if self.kind == "float":
            inner = inner.float()
        return self.rate * self.outer(inner)

class Net(nn.Module):
    def __init__(self, solver, kind):
        super().__init__()
        self.field, self.solver, self.head = Field(kind), solver, nn.Linear(16, 10)

    def forward(self, x):
        y = nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)
        for rate in (1.0, 3.0):
            if self.field.kind == "late":
                self.field.rate = rate
            y = self.solver(self.field, y, [0.0, 1.0]).y
        return self.head(y)
"""
OWN = ("model=custom", "model.target=networks_at_fault:Net", "gradient=backprop", "solver=rk4", "solver.steps=2")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Runs of a network of one's own, by the fault that it has."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "networks_at_fault.py").write_text(PLANTED)
    sys.path.append(str(folder))

    def make(kind):
        if not (folder / kind).exists():
            trained(folder / kind, *OWN, f"+model.kind={kind}", "trainer.max_steps=3", "trainer.batch_size=64")
        return folder / kind

    yield make
    sys.path.remove(str(folder))


TARGET = "model.target=networks_at_fault:Net"


def test_what_is_right_passes_where_the_field_changes_between_solves(check, planted):
    """By backprop; replay evaluates the field with its last rate, and is off or refused."""
    code, records, lines = check(TARGET, folder=planted("late"))
    assert code == 0
    assert max(record["error_steps"] for record in records) < 1e-5
    assert max(record["error_difference"] for record in records) < 1e-5
    assert median(record["error"] for record in records) < 0.1
    code, records, lines = check(TARGET, "gradient.method=backprop,replay", folder=planted("late"))
    assert code == 1
    assert lines[-1].startswith("failed: 1 of 2")
    assert "failed" in records[-1] or records[-1]["error_steps"] > 0.01


def test_a_detach_is_found_by_finite_differences(check, planted):
    code, records, lines = check(TARGET, "batches=1", folder=planted("detach"))
    assert code == 1
    assert records[0]["error_steps"] < 1e-5
    assert records[0]["error_difference"] > 0.05
    assert "failed: autograd differs from finite differences of the loss by" in lines[-1]
    assert check(TARGET, "batches=1", "difference=10", folder=planted("detach"))[0] == 0


def test_a_straight_through_estimator_is_named_and_no_fault(check, planted):
    """Its gradient is not that of finite differences by design; that of a detach is wrong over any way."""
    code, (record,), lines = check(TARGET, "batches=1", folder=planted("rounded"))
    assert code == 0
    assert record["error_difference"] > 0.05
    assert record["jumps"]
    assert "as with a straight-through estimator" in " ".join(lines[-2:])
    assert "jumps" not in check(TARGET, "batches=1", folder=planted("detach"))[1][0]


def test_dropout_in_the_field_is_held_against_its_own_steps(check, planted):
    code, records, lines = check(TARGET, "batches=2", folder=planted("dropout"))
    assert code == 0
    assert max(record["error_steps"] for record in records) < 1e-5
    assert "error" not in records[0]
    assert "no reference: a field draws random numbers" in lines[-2]
    assert lines[-1].startswith("passed: the median error against its own steps is ")


def test_a_network_of_one_dtype_is_refused(check, planted):
    with pytest.raises(RequestError, match=r"the network fails in float64, .*\n.*the dtype of its input"):
        check(TARGET, "batches=1", folder=planted("float"))


def test_rounding_is_told_from_a_fault(check, planted, monkeypatch):
    """Where float32 is off by more than it should, float64 is asked; no exact gradient passes that is off there."""
    monkeypatch.setitem(gradchecks.ROUNDING, "float32", 1e-12)
    code, (record,), lines = check(TARGET, "batches=1", folder=planted("plain"))
    assert code == 0
    assert (record["precision"], record["error_steps"] < 1e-10 < record["error_float32"] < 1e-3) == ("float64", True)
    assert any(line.startswith("in float64; in float32 it is ") for line in lines)


def test_how_gradients_are_judged():
    limits = Limits(0.5, None, 1e-3)
    fine = {"gradient": "backprop", "precision": "float32", "error_steps": 9e-5, "error_difference": 1e-8, "error": 0.4}
    for change, well in (
        ({}, True),
        ({"error_steps": 1.1e-4}, False),
        ({"error_steps": float("nan")}, False),
        ({"precision": "float64"}, False),
        ({"precision": "float64", "error_steps": 1e-9}, True),
        ({"gradient": "adjoint", "error_steps": 0.3}, True),
        ({"gradient": "reversible", "error_steps": 9e-3}, True),
        ({"gradient": "reversible", "error_steps": 2e-2}, False),
        ({"gradient": "replay", "error_difference": 0.1}, False),
        ({"failed": "StepLimit"}, False),
    ):
        assert judge([fine, {**fine, **change}, fine], limits).passed == well, change
    assert not judge([{**fine, "error": 0.6}] * 3, limits).passed


WRONG = {
    "gradient.norm=relativ": ["gradient.norm=relativ", "relative"],
    "gradient.method=replay gradient.norm=absolute": ["gradient.norm=absolute has no meaning for gradient=replay"],
    "gradient.method=reply": ["replay"],
    "gradient=replay": ["gradient is not a key here", "gradient.method"],
    "solver.rtol=-1": ["solver.rtol=-1", "above 0"],
    "solver.rtol=abc": ["solver.rtol=abc is not a number"],
    "solver.method=adams gradient.method=replay": ["gradient=replay", "adams"],
    "threshold=0": ["threshold=0 must be a number above 0"],
    "threshold=x": ["threshold=x must be a number above 0"],
    "batches=1.5": ["batches=1.5 must be a whole number above 0"],
    "batches=1000": ["batches=1000 is more than the 162 available batches"],
    "batches=1,2": ["batches=1,2 must be a whole number above 0"],
    "checkpoint=first": ["best", "last"],
    "optim.lr=3": ["optim.lr is not a key here"],
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_request_is_refused(adjoint_folder, words, capsys):
    with pytest.raises(RequestError) as refused:
        command.main([str(adjoint_folder), *words.split()])
    for part in WRONG[words]:
        assert part in str(refused.value)
    assert capsys.readouterr().out == ""
    assert not (adjoint_folder / "gradcheck.jsonl").exists()


@pytest.mark.numerics
def test_a_run_on_few_samples_is_checked_on_all_of_them(tmp_path):
    table = tmp_path / "own.csv"
    table.write_text("\n".join(["a,y", *(f"{n % 7},{n / 9}" for n in range(25))]))
    words = ("data=features", f"data.path={table}", "data.y=y", "model=odenet", "model.width=4", "device=cpu")
    folder = train_run(tmp_path / "run", *words, "trainer.max_steps=1", "trainer.batch_size=16")
    assert command.main([str(folder), "reference=1e-4"]) == 0
    assert len((folder / "gradcheck.jsonl").read_text().splitlines()) == 2
    with pytest.raises(RequestError, match="batches=3 is more than the 2 available batches"):
        command.main([str(folder), "batches=3"])


def test_a_run_without_a_solver_is_refused(tmp_path):
    folder = trained(tmp_path / "run", "model=resnet", "model.width=4", "trainer.max_steps=1")
    with pytest.raises(RequestError, match="model=resnet, which has no solver"):
        command.main([str(folder)])
    with pytest.raises(RequestError, match="is not the folder of a run"):
        command.main([str(tmp_path)])


def test_the_command(odenet, run_folder):
    done = odenet("gradcheck", str(run_folder), "reference=1e-4", "batches=1", *COARSE, "gradient.method=replay")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("passed: the median error against the reference is ")
    assert command.main([]) == 2
    assert command.main(["--help"]) == 0
