"""What the system does to a command: streams that take nothing, files that may not be read, folders that go away."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from faults_kit import LONG, RHYTHM, TINY, faults, kept, records, run_json

pytestmark = pytest.mark.numerics  # commands from end to end, minutes

ROW = "12 bad luck"
SHORT = ("train", *TINY, "trainer.epochs=1", "trainer.max_steps=2")
FULL = Path("/dev/full")
TRAIN_OWN = ("train", "model=custom", "model.target=nets:Net", "data=digits", "device=cpu", "trainer.max_steps=4")
OBEY = faults("obey_permissions")


@pytest.fixture
def victim(odenet):
    """A finished run in `run`."""
    assert odenet(*SHORT, "hydra.run.dir=run").code == 0


def test_a_run_does_not_mind_a_full_disk_behind_its_output(odenet, tmp_path):
    """`odenet train >/dev/full`: exit 0, the run done."""
    done = odenet(*SHORT, "hydra.run.dir=run", out=FULL)
    assert (done.code, done.err) == (0, "")
    assert run_json(tmp_path / "run")["status"] == "done"


def test_a_result_that_reached_nobody_is_said(odenet, tmp_path, victim):
    """What is printed is the result: computed to the end, then exit 1. What a file keeps is there."""
    for words in ("eval run", "report run", "list", "train --cfg job"):
        done = odenet(*words.split(), out=FULL)
        assert done.code == 1, words
        assert "not all of the output could be written: no space left" in done.err
    rows = (tmp_path / "run" / "eval.jsonl").read_text().splitlines()
    assert [json.loads(row)["split"] for row in rows] == ["test"]


def test_a_terminal_that_goes_away_does_no_harm(start, tmp_path):
    """Its window is closed while the bar is drawn: writing gives EIO, and the run goes on to its end."""
    mine, theirs = os.openpty()
    child = start(
        *SHORT[:1], *LONG[:-4], "trainer.epochs=12", *RHYTHM, "hydra.run.dir=run", out=Path(os.ttyname(theirs))
    )
    child.until_records(tmp_path / "run", 3)
    os.close(theirs)
    os.close(mine)
    assert (child.wait().code, child.err) == (0, "")
    assert run_json(tmp_path / "run")["status"] == "done"


def test_a_hangup_stops_a_run_with_its_checkpoint(start, tmp_path):
    """SIGHUP: exit 143, the checkpoint kept; where it is ignored, as nohup has it, nothing happens."""
    child = start("train", *LONG, "hydra.run.dir=run")
    child.until_records(tmp_path / "run", 3)
    child.send(signal.SIGHUP)
    assert child.wait().code == 143
    assert run_json(tmp_path / "run")["status"] == "interrupted"
    assert kept(tmp_path / "run")["step"] >= records(tmp_path / "run")[-1]["step"]
    child = start("train", *LONG, "hydra.run.dir=other", before=faults("ignore_hangup"))
    child.until_records(tmp_path / "other", 3)
    child.send(signal.SIGHUP)
    child.until_records(tmp_path / "other", 9)
    child.send(signal.SIGTERM)
    assert child.wait().code == 143


def test_a_working_directory_that_was_deleted_is_said(odenet, tmp_path):
    """Exit 2, and the way out; help needs none."""
    for number, words in enumerate(("train", "eval run", "list", "report run")):
        done = odenet(*words.split(), before=faults("leave_folder", str(tmp_path / f"gone{number}")))
        assert (done.code, done.out) == (2, "")
        assert "the working directory no longer exists" in done.err
    assert odenet("--help", before=faults("leave_folder", str(tmp_path / "gone"))).code == 0


def test_a_checkpoint_that_may_not_be_read_is_named(odenet, tmp_path, victim):
    """Exit 2 with its path and what the system says; it is not called damaged, and the one before does not step in."""
    best = tmp_path / "run" / "checkpoints" / "best.pt"
    shutil.copy(best, best.with_name("previous-best.pt"))
    best.chmod(0)
    done = odenet("eval", "run", before=OBEY)
    assert done.code == 2
    assert done.err == "error: run/checkpoints/best.pt cannot be read: Permission denied.\n"


def test_too_little_memory_is_said(odenet, victim):
    """The allocator's own refusal, in a command that is no run: exit 1."""
    patch = "import torch; torch.nn.functional.cross_entropy = lambda *_: torch.empty(1 << 50)"
    done = odenet("eval", "run", before=patch)
    assert done.code == 1
    assert done.err.startswith("error: odenet eval: out of memory: "), done


NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.a, self.b, self.calls = nn.Linear(784, 12), nn.Linear({width}, classes), 0

    def forward(self, x):
        self.calls += 1
        if self.calls > {last}:
            raise ValueError("my own words")
        return self.b(self.a(x.flatten(1)))
"""


@pytest.mark.parametrize(
    ("width", "last", "says", "line"),
    [(13, 99, "RuntimeError: mat1 and mat2 shapes cannot be multiplied", 14), (12, 2, "ValueError: my own words", 13)],
)
def test_an_error_in_a_network_of_ones_own_is_shown_with_its_place(odenet, tmp_path, width, last, says, line):
    """Exit 1 with the error's own words, the file and the line; run.json has them too."""
    (tmp_path / "nets.py").write_text(NETS.format(width=width, last=last))
    done = odenet(*TRAIN_OWN, "hydra.run.dir=run")
    assert done.code == 1
    assert done.err.startswith(f"error: {says}")
    assert f"{tmp_path}/nets.py, line {line}, in forward: " in done.err
    assert "unexpected" not in done.err
    assert f"nets.py, line {line}" in run_json(tmp_path / "run")["reason"]


def test_an_answer_of_the_wrong_shape_is_refused(odenet, tmp_path):
    """Ten classes are asked for, three scores given: exit 2 before any data is read, and no folder is left."""
    (tmp_path / "nets.py").write_text(
        NETS.format(width=12, last=99).replace("nn.Linear(12, classes)", "nn.Linear(12, 3)")
    )
    done = odenet(*TRAIN_OWN, "hydra.run.dir=run")
    assert done.code == 2
    assert "it returned (2, 3); the scores of the classes must be (2, 10)" in done.err
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_deleted_under_a_run_is_said(start, tmp_path):
    """Exit 1, "the run's folder has gone"; it is not made again."""
    child = start("train", *LONG, "hydra.run.dir=run")
    child.until_records(tmp_path / "run", 3)
    os.rename(tmp_path / "run", tmp_path / "gone")
    done = child.wait()
    assert done.code == 1
    assert done.err.startswith(f"error: the folder of the run is missing: {tmp_path}/run was deleted")
    assert not (tmp_path / "run").exists()


def test_a_run_that_may_not_be_written_to_is_looked_at_all_the_same(odenet, tmp_path):
    """eval, gradcheck and audit print all, warn that it is kept nowhere, and end as if it were."""
    ode = ("model=rknet", "model.width=4", "solver=euler", "solver.steps=1")
    words = [word for word in SHORT if not word.startswith("model")]
    assert odenet(*words, *ode, "hydra.run.dir=run").code == 0
    (tmp_path / "run").chmod(0o500)
    for words, file in (
        ("eval run eval.solver.steps=1,2", "eval.jsonl"),
        ("gradcheck run batches=1 reference=1e-3 threshold=9", "gradcheck.jsonl"),
        ("audit run steps=1,2 rtol=1e-1", "audit.json"),
    ):
        done = odenet(*words.split(), before=OBEY)
        assert done.code == 0, done
        assert done.err.splitlines() == [
            f"warning: run/{file} was not written: Permission denied. The printed results were not saved."
        ]
        assert len(done.out.splitlines()) >= 4
        assert not (tmp_path / "run" / file).exists()


def test_a_report_names_what_it_may_not_enter(odenet, tmp_path):
    """Its runs would change the means."""
    for seed in (1, 2):
        assert odenet(*SHORT, f"seed={seed}", f"hydra.run.dir=runs/{seed}").code == 0
    (tmp_path / "runs" / "2").chmod(0)
    done = odenet("report", "runs", before=OBEY)
    assert done.code == 0
    assert "runs/2: unreadable: runs/2/run.json: Permission denied" in done.out


def test_a_folder_in_use_is_not_an_unfinished_run(start, odenet, tmp_path):
    """A second `train` there, whatever it says of resuming, is told by whom; a run or a sweep alike."""
    child = start("train", *LONG, "hydra.run.dir=run")
    child.until_records(tmp_path / "run", 3)
    for words in (["hydra.run.dir=run"], ["hydra.run.dir=run", "resume=auto"], ["resume=run"]):
        done = odenet("train", *([] if words == ["resume=run"] else LONG), *words)
        assert done.code == 2
        assert f"is in use by process {child.pid} on " in done.err
    assert child.alive
    child.send(signal.SIGTERM)
    assert child.wait().code == 143


def test_a_reproduction_without_a_place_for_its_runs_is_refused_first(odenet, tmp_path):
    """`runs` is a file: exit 2 before anything is planned or written."""
    (tmp_path / "runs").write_text("")
    done = odenet("reproduce", "fig3", "--out", "elsewhere")
    assert (done.code, done.out) == (2, "")
    assert "runs/cells cannot be created" in done.err
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["runs"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "=5"], "'=5' is not of the form key=value"),
        (["train", "~="], "'~=' is not of the form key=value"),
        (["train", "k" * 5000 + "=5"], "k… is not a key of the configuration"),
        (["train", "model=" + "k" * 5000], "k… is not known"),
        (["train", "optim.lr=" + "k" * 5000], "k… is not a number"),
        (["train", "name=[" + "a b " * 2000], "error: "),
        (["k" * 5000], "k… no such command"),
        (["train", "--config-path", "run"], "To add presets use --config-dir run"),
        (["train", "--config-dir", "run"], "Add --config-name config"),
    ],
    ids=lambda value: value[-1][:12] if isinstance(value, list) else "",
)
def test_what_was_typed_is_shown_cut_to_a_line(odenet, tmp_path, words, says):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    (tmp_path / "run" / "config.yaml").write_text("seed: 0\n")
    done = odenet(*words)
    assert done.code == 2
    assert says in done.err
    assert max(map(len, done.err.splitlines())) <= 1000
