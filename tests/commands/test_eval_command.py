"""`odenet eval`: one checkpoint, one row for every solver and tolerance."""

import json
import re
from itertools import pairwise

import pytest
from runs_kit import train_run

from odenet_cli.commands import eval as command
from odenet_cli.commands._common import combinations
from odenet_cli.config.resolve import complete, eval_solver
from odenet_cli.config.saved import load, save
from odenet_cli.errors import RequestError
from odenet_cli.request.compose import compose
from odenet_cli.training import progress
from odenet_cli.training import run as runs

WORDS = ("data=digits", "device=cpu", "model=odenet", "model.width=4", "trainer.max_steps=1", "trainer.batch_size=8")


def trained(folder, *words):
    return train_run(folder, *WORDS, *words)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs") / "run", "solver.rtol=1e-2", "trainer.limit_batches=1")


@pytest.fixture
def rows(run_folder):
    """Evaluate and return the records it appended."""

    def call(*words, folder=run_folder):
        path = folder / "eval.jsonl"
        before = len(path.read_text().splitlines()) if path.exists() else 0
        assert command.main([str(folder), *words]) == 0
        return [json.loads(line) for line in path.read_text().splitlines()[before:]]

    return call


def test_evaluations_rise_as_the_tolerance_falls(rows, capsys):
    records = rows("eval.solver.rtol=1e-1,1e-3,1e-5")
    assert [(record["rtol"], record["atol"]) for record in records] == [(x, x) for x in (1e-1, 1e-3, 1e-5)]
    assert all(a["nfe_forward"] < b["nfe_forward"] for a, b in pairwise(records))
    assert {record["method"] for record in records} == {"dopri5"}
    keys = {"split", "method", "rtol", "atol", "steps", "max_steps", "loss", "error", "time_s"}
    assert keys | {"nfe_forward", "nfe_backward", "vjps", "accepted", "rejected"} == records[0].keys()
    table = capsys.readouterr().out.splitlines()
    assert "best weights, step 1, 200 of 360 samples of digits (test)" in table[0]
    assert table[1].split() == ["method", "rtol", "atol", "steps", "error", "NFE", "rejected", "time"]
    assert len(table) == 5
    assert all(f"{record['error']:.2%}" in line for record, line in zip(records, table[2:]))


def test_it_says_which_point_is_scored(rows, capsys, monkeypatch):
    monkeypatch.setattr(progress, "SILENCE_S", -1)
    rows("eval.solver.rtol=1e-1,1e-3", "eval.batch_size=100", "trainer.limit_batches=2")
    told = [re.sub(r"\d:\d\d", "T", line) for line in capsys.readouterr().err.splitlines()]
    first, second = "dopri5 0.1", "dopri5 0.001"
    assert told == [f"1/2  {first}", *[f"1/2  eta T  {first}"] * 2, *[f"2/2  eta T  {second}"] * 2, f"2/2  {second}"]


def test_an_adaptive_method_keeps_the_tolerance_and_a_fixed_one_brings_its_steps(rows):
    records = rows("eval.solver.method=bosh3,rk4,euler,dopri5")
    assert [record["method"] for record in records] == ["bosh3", "rk4", "euler", "dopri5"]
    bosh3, rk4, euler, dopri5 = records
    assert (bosh3["rtol"], bosh3["atol"], bosh3["steps"]) == (1e-2, 1e-2, None)
    assert (rk4["rtol"], rk4["atol"]) == (None, None)
    assert rk4["nfe_forward"] == 4 * rk4["steps"]
    assert euler["nfe_forward"] == euler["steps"]
    assert (dopri5["rtol"], dopri5["atol"]) == (1e-2, 1e-2)


FLOW = "model=cnf data=moons"


@pytest.mark.parametrize(
    ("words", "said", "expected"),
    [
        (FLOW, "method=dopri5", ("dopri5", 1e-7, 1e-7, None)),
        (FLOW, "method=tsit5", ("tsit5", 1e-7, 1e-7, None)),
        (FLOW, "method=bosh3 rtol=1e-4", ("bosh3", 1e-4, 1e-4, None)),
        (FLOW, "method=bosh3 atol=1e-4", ("bosh3", 1e-7, 1e-4, None)),
        (FLOW, "rtol=1e-9", ("dopri5", 1e-9, 1e-9, None)),
        (FLOW, "method=rk4", ("rk4", None, None, 4)),
        (FLOW, "method=rk4 steps=9", ("rk4", None, None, 9)),
        (FLOW, "method=null", ("dopri5", 1e-5, 1e-5, None)),  # as in training
        (f"{FLOW} eval.solver.rtol=1e-4 eval.solver.atol=1e-6", "method=tsit5", ("tsit5", 1e-4, 1e-6, None)),
        (f"{FLOW} eval.solver.method=rk4 eval.solver.steps=9", "method=rk4", ("rk4", None, None, 9)),
        (f"{FLOW} eval.solver.method=rk4", "method=tsit5", ("tsit5", 1e-5, 1e-5, None)),  # as it was trained
        (f"{FLOW} solver=rk4 eval.solver.method=rk4", "method=tsit5", ("tsit5", 1e-5, 1e-5, None)),  # the data set's
        ("data=digits solver=rk4", "method=tsit5", ("tsit5", 1e-3, 1e-3, None)),
        ("data=digits solver=rk4 solver.steps=9", "method=euler", ("euler", None, None, 20)),
        ("data=digits solver=rk4 solver.steps=9", "method=rk4", ("rk4", None, None, 9)),
    ],
)
def test_what_is_left_out_is_as_the_run_was_scored(words, said, expected):
    run = complete(compose(words.split()), gpu=False)
    overrides = command.PARSER.read_overrides([f"eval.solver.{word}" for word in said.split()])
    (changes,) = combinations(overrides)
    solver = eval_solver(command.changed(run, changes))
    assert (solver.method, solver.rtol, solver.atol, solver.steps) == expected


def test_several_keys_make_a_product(rows):
    records = rows("eval.solver.method=bosh3,tsit5", "eval.solver.rtol=1e-1,1e-2", "eval.solver.atol=1e-4")
    found = [(record["method"], record["rtol"], record["atol"]) for record in records]
    assert found == [(method, rtol, 1e-4) for method in ("bosh3", "tsit5") for rtol in (1e-1, 1e-2)]


def test_alone_it_scores_as_the_run_was_scored(rows, run_folder):
    (record,) = rows()
    final = json.loads((run_folder / "run.json").read_text())["final"]
    assert (record["loss"], record["error"]) == (final["loss"], final["error"])
    assert record["rtol"] == 1e-2


@pytest.mark.parametrize(("split", "size"), [("test", 360), ("valid", 144), ("train", 1293)])
def test_every_split(rows, capsys, split, size):
    (record,) = rows(f"split={split}", "trainer.limit_batches=1", "eval.batch_size=16")
    assert record["split"] == split
    assert f" 16 of {size:,} samples of digits ({split})" in capsys.readouterr().out


def test_the_checkpoint_asked_for(rows, capsys):
    rows("checkpoint=last")
    assert "last weights" in capsys.readouterr().out


def test_scoring_changes_nothing_but_its_own_file(rows, run_folder):
    def content():
        return {p: p.read_bytes() for p in run_folder.rglob("*") if p.is_file() and p.name != "eval.jsonl"}

    before = content()
    rows("eval.solver.rtol=1e-1,1e-2")
    assert content() == before


def test_what_the_run_was_scored_with_gives_way(tmp_path, rows):
    """An rtol moves atol and a method brings its preset, also where the run had an `eval.solver` of its own."""
    folder = trained(tmp_path / "run", "eval.solver.rtol=1e-4", "eval.solver.atol=1e-5", "trainer.limit_batches=1")
    (own,) = rows(folder=folder)
    assert (own["rtol"], own["atol"]) == (1e-4, 1e-5)
    coarse, fine = rows("eval.solver.rtol=1e-1,1e-6", folder=folder)
    assert (coarse["atol"], fine["atol"]) == (1e-1, 1e-6)
    assert coarse["nfe_forward"] < fine["nfe_forward"]
    (rk4,) = rows("eval.solver.method=rk4", folder=folder)
    assert (rk4["rtol"], rk4["atol"]) == (None, None)


WRONG = {
    "eval.solver.rtol=-1": ["eval.solver.rtol=-1", "above 0"],
    "eval.solver.rtol=abc": ["eval.solver.rtol=abc is not a number"],
    "eval.solver.rtol=1e-3,-1": ["eval.solver.rtol=-1"],
    "eval.solver.rtol=nan": ["finite"],
    "eval.solver.rtol=1e-12": ["use eval.dtype=float64"],
    "eval.solver.rtl=1": ["Did you mean `eval.solver.rtol`?"],
    "eval.solver.steps=4": ["dopri5", "steps"],
    "eval.solver.method=rk5": ["rk4"],
    "eval.solver.method=5": ["eval.solver.method=5 is not known"],
    "eval.solver.method=rk4 eval.solver.rtol=1e-3": ["rk4", "fixed steps"],
    "eval.solver.rtol=1e-3 eval.solver.rtol=1e-4": ["eval.solver.rtol is given more than once"],
    "solver.rtol=1e-3": ["solver.rtol is not a key here", "eval.solver.rtol"],
    "optim.lr=3": ["optim.lr is not a key here"],
    "split=tset": ["Did you mean `test`?"],
    "split=test,valid": ["split=test,valid is not known"],
    "checkpoint=frist": ["best", "last"],
    "rtol": ["'rtol' is not of the form key=value", "`odenet eval --help` lists the keys"],
    "/dev/null": ["'/dev/null' is not of the form key=value", "A file of data is named by data.path=/dev/null"],
    "data.decimal=,": ["data.decimal is not an option of data=digits"],
    "data=new.csv": ["data is not a key here. Did you mean `data.path`"],
    "device=cpu,cpu": ["only eval.solver.* accepts several values"],
    "--rtol=3": ["--rtol is not a key here"],
    "eval.solver.rtol=[1": ["eval.solver.rtol=[1 cannot be read"],
    "eval.batch_size=0": ["eval.batch_size=0"],
    "device=cuda:99": ["cuda:99"],
    "device=gpu": ["device=gpu"],
    "trainer.limit_batches=0": ["trainer.limit_batches=0"],
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_request_is_refused_before_anything_is_scored(run_folder, words, capsys):
    path = run_folder / "eval.jsonl"
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(RequestError) as refused:
        command.main([str(run_folder), *words.split()])
    for part in WRONG[words]:
        assert part in str(refused.value)
    assert capsys.readouterr().out == ""
    assert (path.read_bytes() if path.exists() else None) == before


def test_a_damaged_checkpoint_and_a_foreign_one_are_refused(tmp_path, run_folder):
    with pytest.raises(RequestError, match="is not the folder of a run"):
        command.main([str(tmp_path)])
    folder = trained(tmp_path / "other", "trainer.limit_batches=1")
    config = load(folder)
    config.model["width"] = 8
    save(config, folder, tied=True)
    with pytest.raises(RequestError, match=r"model\.width: 4 in the checkpoint, 8 here"):
        command.main([str(folder)])
    (folder / "checkpoints" / "best.pt").write_bytes(b"damaged")
    with pytest.raises(RequestError, match=r"best\.pt is not a valid checkpoint"):
        command.main([str(folder)])


def test_the_command(odenet, tmp_path):
    done = odenet("eval", "nowhere", OMP_NUM_THREADS="1")
    assert done.returncode == 2
    assert "nowhere is not the folder of a run" in done.stderr
    assert not list(tmp_path.iterdir())
    assert command.main([]) == 2
    assert command.main(["--help"]) == 0


def test_a_class_named_in_a_file_does_not_run(tmp_path, monkeypatch, rows):
    text = "from torch import nn\nclass Net(nn.Sequential):\n  def __init__(self, shape, classes):\n"
    text += "    super().__init__(nn.Flatten(), nn.Linear(784, 10))\n"
    (tmp_path / "net_to_evaluate.py").write_text(text)
    (tmp_path / "planted.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    custom = ("model=custom", "model.target=net_to_evaluate:Net", "trainer.limit_batches=1")
    config = complete(compose([word for word in WORDS if not word.startswith("model")] + list(custom)), gpu=False)
    folder = tmp_path / "run"
    folder.mkdir()
    save(config, folder, tied=True)
    runs.run(config, folder, "", [])
    config.model["target"] = "planted:Net"
    save(config, folder, tied=True)
    with pytest.raises(RequestError, match=r"model\.target="):
        command.main([str(folder)])
    with pytest.raises(RequestError, match=r"net_to_evaluate has no Gone\.\Z"):  # and no word of the checkpoint
        command.main([str(folder), "model.target=net_to_evaluate:Gone"])
    (record,) = rows("model.target=net_to_evaluate:Net", folder=folder)
    assert record["nfe_forward"] == 0


def test_columns_keep_two_blanks_apart(run_folder, monkeypatch, capsys):
    class Scorer:
        title, solves = "a run", True
        losses = iter([-705.09692, -123456789.0])

        def __init__(self, *_):
            pass

        def row(self, _):
            loss = next(self.losses)
            cost = {"nfe_forward": 12345678.0, "rejected": 0, "time_s": 123456.0}
            return {"split": "test", "loss": loss, "nll": loss - 0.1, "gap": -705.24158, **cost}

    monkeypatch.setattr("odenet_cli.analysis.scoring.Scorer", Scorer)
    points = [command.changed(load(run_folder), {"eval.solver.rtol": rtol}) for rtol in (1.23456e-5, 0.1)]
    assert len(list(command.score(run_folder, points, split="test", checkpoint="best", parts=progress.Parts(2)))) == 2
    _, head, *lines = capsys.readouterr().out.splitlines()
    assert re.split(" {2,}", head) == [
        "method",
        "rtol",
        "atol",
        "steps",
        "loss",
        "nll",
        "gap",
        "NFE",
        "rejected",
        "time",
    ]
    assert [re.split(" {2,}", line)[4:] for line in lines] == [
        ["-705.09692", "-705.19692", "-705.24158", "12345678.0", "0.0", "123456.00 s"],
        ["-123456789.00000", "-123456789.10000", "-705.24158", "12345678.0", "0.0", "123456.00 s"],
    ]
    assert re.split(" {2,}", lines[0])[:4] == ["dopri5", "1.23456e-05", "1.23456e-05", "-"]


def test_a_network_without_a_solver_has_no_row_for_one(rows, tmp_path, capsys):
    """What would change nothing is refused by name."""
    folder = train_run(tmp_path / "run", *WORDS[:2], "model=mlp", "model.hidden=4", *WORDS[4:])
    rows(folder=folder)
    assert capsys.readouterr().out.splitlines()[-1].split()[:4] == ["-"] * 4
    with pytest.raises(RequestError, match="a run of model=mlp, which has no solver"):
        command.main([str(folder), "eval.solver.rtol=1e-1,1e-3"])


def test_a_narrow_terminal_keeps_the_main_score(monkeypatch):
    monkeypatch.setattr(command, "columns", lambda: 80)
    scores = [("loss", 8), ("rmse_window_clean", 17), ("rmse_further_clean", 18)]
    for terminal, kept in ((True, scores[2:]), (False, scores)):
        monkeypatch.setattr(command, "on_terminal", lambda terminal=terminal: terminal)
        assert command.fitting(scores, [8, 8, 5, 6, 8, 8]) == kept
