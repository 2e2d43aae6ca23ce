"""A run that was stopped at whatever moment ends with the bits of one that was not."""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from odenet_cli.analysis.rerun import repeat
from odenet_cli.errors import Interrupted, RequestError, RunFailed
from odenet_cli.metrics import MetricsFile
from odenet_cli.training import checkpoint, loop

# Five steps an epoch: checkpoints at 2 and 4 fall inside an epoch, those at 5 and 10 on its last step.
RHYTHM = ("trainer.log_every=2", "optim.lr=0.3")


class Killed(BaseException):
    """Nobody expects it."""


class Moments:
    """Calls `act` before or after the n-th thing that a run does to its files, and around each scoring."""

    def __init__(self, monkeypatch, act):
        self.act, self.at, self.count, self.quiet = act, None, 0, False
        for owner, name in [
            (checkpoint, "save"),
            (os, "replace"),
            (MetricsFile, "write"),
            (loop, "evaluate"),
        ]:
            monkeypatch.setattr(owner, name, self.around(getattr(owner, name)))

    def around(self, real):
        def call(*arguments, **named):
            self.tick()
            result = real(*arguments, **named)
            self.tick()
            return result

        return call

    def tick(self):
        self.count += 1
        if self.count == self.at:
            self.at = None
            self.act()


def kill():
    raise Killed


def terminate():
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("every", "stride"),
    [
        pytest.param(5, 1, marks=pytest.mark.slow),
        pytest.param(5, 2, marks=pytest.mark.numerics),
        (5, 41),
        (2, 29),
        (1, 67),
        (1000, 31),
    ],
)
def test_a_kill_at_any_moment_costs_no_bit(train, same_bits, monkeypatch, every, stride):
    words = (*RHYTHM, f"trainer.checkpoint_every={every}", "trainer.epochs=2")
    whole = train(*words, name="whole")
    moments = Moments(monkeypatch, kill)
    train(*words, name="counted")
    total = moments.count
    assert total > 40
    for moment in range(stride, total + 1, stride):
        moments.at, moments.count = moment, 0
        with pytest.raises(Killed):
            train(*words, name=f"at {moment}")
        assert same_bits(train(*words, name=f"at {moment}"), whole), moment


def test_a_signal_at_any_moment_costs_no_bit(train, same_bits, monkeypatch, tmp_path):
    words = (*RHYTHM, "trainer.checkpoint_every=5", "trainer.epochs=2")
    whole = train(*words, name="whole")
    moments = Moments(monkeypatch, terminate)
    train(*words, name="counted")
    for moment in range(4, moments.count - 1, 17):  # the first two are of the config's file, before the run
        moments.at, moments.count = moment, 0
        with pytest.raises(Interrupted) as stopped:
            train(*words, name=f"at {moment}")
        assert stopped.value.code == 143
        record = json.loads((tmp_path / f"at {moment}" / "run.json").read_text())
        assert record["status"] in ("interrupted", "done")
        if record["status"] == "interrupted":
            assert "SIGTERM after step" in record["reason"]
            assert shlex.quote(f"resume={tmp_path / f'at {moment}'}") in str(stopped.value)
        assert same_bits(train(*words, name=f"at {moment}"), whole), moment


def test_many_kills_in_a_row(train, same_bits, monkeypatch):
    words = (*RHYTHM, "trainer.checkpoint_every=2")
    whole = train(*words, name="whole")
    moments, draw = Moments(monkeypatch, kill), random.Random(3)
    for _ in range(12):
        moments.at, moments.count = draw.randrange(10, 60), 0
        try:
            train(*words, name="killed")
        except Killed:
            continue
        break
    moments.at = None
    assert same_bits(train(*words, name="killed"), whole)


def test_an_odenet_goes_on_to_the_same_bits(train, same_bits, monkeypatch):
    words = ("model=odenet", "model.width=4", "trainer.batch_size=4", "solver.rtol=1e-2", "trainer.epochs=2", *RHYTHM)
    whole = train(*words, "trainer.checkpoint_every=3", name="whole")
    moments = Moments(monkeypatch, kill)
    moments.at, moments.count = 30, 0
    with pytest.raises(Killed):
        train(*words, "trainer.checkpoint_every=3", name="killed")
    assert same_bits(train(*words, "trainer.checkpoint_every=3", name="killed"), whole)


def test_a_finished_run_is_left_as_it_is(train):
    folder = train(*RHYTHM)
    before = content(folder, leave_out=())
    train(*RHYTHM)
    assert content(folder, leave_out=()) == before


def test_more_epochs_go_on_where_it_ended(train, metrics):
    folder = train(*RHYTHM, "trainer.epochs=2")
    before = metrics(folder)
    train(*RHYTHM, "trainer.epochs=4")
    after = metrics(folder)
    assert after[: len(before) - 1] == before[:-1]  # all but the test score, which comes last again
    assert [record["step"] for record in after if record["split"] == "valid"] == [5, 10, 15, 20]
    assert [record["step"] for record in after if record["split"] == "test"] == [20]
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "done"
    assert [(entry["step"], entry["changed"]) for entry in record["resumed"]] == [(10, {"trainer.epochs": "2 → 4"})]


def test_a_finished_run_is_not_taken_for_a_shorter_one(train, checkpoint_of):
    folder = train(*RHYTHM, "trainer.max_steps=8")
    before = content(folder)
    with pytest.raises(RequestError, match=r"trainer\.epochs: 3 → 1\n  trainer\.max_steps: 8 → null\n"):
        train(*RHYTHM, "trainer.epochs=1")
    assert content(folder) == before
    train(*RHYTHM, "trainer.limit_batches=2", "trainer.epochs=7")
    assert checkpoint_of(folder)["step"] == 14


OTHERS = {
    "optim.lr=0.1": "optim.lr: 0.3 → 0.1",
    "model.hidden=5": "model.hidden: 4 → 5",
    "seed=1": "seed: 0 → 1",
    "eval.dtype=float64": "eval.dtype: null → float64",
    "data.crop=1": "data.crop: 2",
    "solver.rtol=1e-4": "solver.rtol",
    "trainer.batch_size=16": "trainer.batch_size: 8",
    "dtype=float64": "dtype: float32",
}


def test_another_config_is_refused_naming_the_key(train, tmp_path):
    train(*RHYTHM, "trainer.max_steps=3")
    before = content(tmp_path / "run")
    for word, part in OTHERS.items():
        words = [*(w for w in RHYTHM if w.partition("=")[0] != word.partition("=")[0]), word]
        with pytest.raises(RequestError) as refused:
            train(*words)
        assert part in str(refused.value), word
        assert content(tmp_path / "run") == before, word


def resealed(path, change):
    """Other content, under its right digest."""
    content = torch.load(path, weights_only=True)["content"]
    content = change(content) or content
    torch.save({"format": 1, "sha256": checkpoint.digest(content), "content": content}, path)


def reshaped(content):
    content["model"]["layers.1.weight"] = torch.ones(2, 3)


def no_number(content):
    content["model"]["layers.1.weight"][0] = float("nan")


def flipped(path):
    """A bit in the middle."""
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)


UNFIT = {
    "a flipped bit": (flipped, "last.pt"),
    "no weights": (
        lambda content: {key: value for key, value in content.items() if key != "model"},
        "model is missing",
    ),
    "another shape": (reshaped, "does not fit the model: layers.1.weight is (2, 3)"),
    "NaN": (no_number, "is NaN or infinite"),
    "a short generator": (
        lambda content: content | {"generator": torch.zeros(3, dtype=torch.uint8)},
        "does not fit this run",
    ),
    "an odd window": (lambda content: content | {"window": {"sums": 3}}, "does not fit this run"),
    "another config": (lambda content: content | {"config": content["config"] | {"seed": 5}}, "seed: 5"),
}


@pytest.mark.parametrize("fault", UNFIT)
def test_a_checkpoint_of_no_use_gives_way_to_the_one_before(train, same_bits, caplog, fault):
    whole = train(*RHYTHM, name="whole")
    folder = train(*RHYTHM, "trainer.max_steps=7", name="part")
    change, says = UNFIT[fault]
    last = folder / "checkpoints" / "last.pt"
    change(last) if change is flipped else resealed(last, change)
    odd = last.read_bytes()
    train(*RHYTHM, name="part")
    assert str(last) in caplog.text
    assert says in caplog.text
    assert "Continuing from the checkpoint before it" in caplog.text
    assert last.with_name("damaged-last.pt").read_bytes() == odd
    # The one before was of step 5, so even the validation at step 7 is made again where it belongs: not at all.
    assert same_bits(folder, whole)


def test_a_failed_run_is_repeated_from_the_one_before(train, tiny):
    words, said = (*RHYTHM, "trainer.max_steps=7"), []
    folder = train(*words)
    resealed(folder / "checkpoints" / "last.pt", reshaped)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"status": "failed", "reason": "the run diverged"}))
    assert "It passes: loss" in repeat(folder, tiny(*words), tiny(*words), said.append)
    assert "last.pt does not fit the model" in said[0]
    assert "Using the checkpoint before it" in said[0]


def test_with_neither_of_use_it_is_refused_by_name_and_nothing_is_touched(train):
    folder = train(*RHYTHM, "trainer.max_steps=7")
    last = folder / "checkpoints" / "last.pt"
    resealed(last, reshaped)
    for damage in (lambda path: resealed(path, no_number), lambda path: path.write_bytes(b"")):
        damage(checkpoint.previous(last))
        before = content(folder)
        with pytest.raises(
            RequestError, match=r"/last\.pt does not fit the model: .*\(2, 3\)(.|\n)*no valid checkpoint"
        ):
            train(*RHYTHM)
        assert content(folder) == before


def test_a_sound_checkpoint_of_another_config_is_what_is_told(train):
    folder = train(*RHYTHM, "trainer.max_steps=7")
    (folder / "checkpoints" / "last.pt").write_bytes(b"")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("seed: 0", "seed: 1"))
    with pytest.raises(RequestError, match=r"previous-last\.pt:\n  seed: 0 in the checkpoint, 1 here\n.*\Z") as refused:
        train(*RHYTHM, "seed=1")
    assert "no valid checkpoint" not in str(refused.value)


def test_the_best_weights_that_were_overwritten_since_are_found(train, metrics):
    """From the checkpoint before the last, of a run whose last validation was a better one and is not made again."""
    words = (*RHYTHM[:1], "optim.lr=0.05")
    folder = train(*words, "trainer.max_steps=7")
    assert [record["step"] for record in metrics(folder, "valid")] == [5, 7]
    for name, step in (("best", 7), ("previous-best", 5)):
        assert torch.load(folder / "checkpoints" / f"{name}.pt", weights_only=True)["content"]["step"] == step
    (folder / "checkpoints" / "last.pt").write_bytes(b"")
    record = folder / "run.json"
    record.write_text(record.read_text().replace('"done"', '"interrupted"'))
    train(*words, "trainer.max_steps=5")
    assert json.loads(record.read_text())["final"]["step"] == 5


def content(folder, leave_out=("config.yaml",)):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in leave_out]
    return {path: path.read_bytes() for path in files}


def test_without_its_checkpoints_a_finished_run_is_left_as_it_is(train):
    folder = train(*RHYTHM)
    shutil.rmtree(folder / "checkpoints")
    before = content(folder)
    with pytest.raises(RequestError, match=r"its checkpoints are gone: .*last\.pt does not exist(.|\n)*another folder"):
        train(*RHYTHM, "trainer.epochs=4")
    assert content(folder) == before
    train(*RHYTHM)
    with pytest.raises(RequestError, match=r"trainer\.epochs: 3 → 1"):
        train(*RHYTHM, "trainer.epochs=1")
    assert content(folder) == before


DAMAGES = {
    "shorter": lambda text: text[: text.index(b"\n") + 1],
    "empty": lambda text: b"",
    "cut": lambda text: text[:-9],
    "NUL": lambda text: bytes(len(text)),
    "garbage": lambda text: b"\xff garbage" + text[9:],
    "other records": lambda text: b"{}\n" + text,
    "deep": lambda text: b"[" * 100_000 + text,
}


def test_a_damaged_log_is_refused_before_training(train):
    folder = train(*RHYTHM, "trainer.max_steps=7")
    path = folder / "metrics.jsonl"
    text = path.read_bytes()
    known = text[: text.rindex(b"\n", 0, -1) + 1]  # the test's score comes after the last checkpoint
    for damage in (*DAMAGES, "missing", "a folder"):
        path.unlink(missing_ok=True)
        if damage == "a folder":
            path.mkdir()
        elif damage != "missing":
            path.write_bytes(DAMAGES[damage](known))
        before = content(folder)
        with pytest.raises(RequestError, match=r"metrics\.jsonl is damaged"):
            train(*RHYTHM)
        assert content(folder) == before, damage


def test_a_log_cut_after_what_the_checkpoint_knew_goes_on(train, same_bits):
    whole = train(*RHYTHM, name="whole")
    folder = train(*RHYTHM, "trainer.max_steps=5", name="part")
    with open(folder / "metrics.jsonl", "r+b") as file:
        file.truncate(len(file.read()) - 9)
    assert same_bits(train(*RHYTHM, name="part"), whole)


def test_without_a_checkpoint_a_damaged_log_begins_anew(train, same_bits, tmp_path):
    whole = train(*RHYTHM, name="whole")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_bytes(b"\0garbage")
    assert same_bits(train(*RHYTHM), whole)


def test_a_network_that_ends_the_process_fails(train, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.nn.Linear, "forward", lambda *_: sys.exit(0))
    with pytest.raises(RunFailed, match=r"called sys\.exit\(0\)"):
        train(*RHYTHM)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "failed"
    assert "sys.exit(0)" in record["reason"]


def test_a_moved_folder_goes_on(train, same_bits, tmp_path):
    whole = train(*RHYTHM, name="whole")
    train(*RHYTHM, "trainer.max_steps=7", name="here").rename(tmp_path / "there")
    train(*RHYTHM, name="there")
    late = [json.loads(line) for line in (tmp_path / "there" / "metrics.jsonl").read_text().splitlines()]
    assert late[-1]["loss"] == json.loads((whole / "metrics.jsonl").read_text().splitlines()[-1])["loss"]


def test_time_adds_up_over_a_resume(train, checkpoint_of):
    folder = train(*RHYTHM, "trainer.max_steps=7")
    before = checkpoint_of(folder)["elapsed_s"]
    train(*RHYTHM)
    assert checkpoint_of(folder)["elapsed_s"] > before
    assert json.loads((folder / "run.json").read_text())["final"]["time_s"] < 60


# The real command, really killed.

MLP = "data=digits device=cpu model=mlp model.hidden=4 trainer.epochs=20 trainer.log_every=7 trainer.checkpoint_every=9"
NET = (
    "data=digits device=cpu model=odenet model.width=4 solver=heun solver.steps=2 trainer.batch_size=8 "
    "trainer.limit_batches=20 trainer.epochs=3 trainer.log_every=7 trainer.checkpoint_every=9"
)


def start(folder, words, *more):
    command = [sys.executable, "-m", "odenet_cli", "train", *words.split(), *more, f"hydra.run.dir={folder}"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder.parent, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_steps(process, folder, lines):
    """Until the run has written so many records."""
    path, until = folder / "metrics.jsonl", time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        if path.exists() and path.read_bytes().count(b"\n") >= lines:
            return
        time.sleep(0.002)
    raise AssertionError(process.communicate())


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.numerics),  # the layer that is checked with every change
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
def test_the_command_stops_on_a_signal_and_goes_on(tmp_path, same_bits, train, number, code):
    folder = tmp_path / "my run"
    process = start(folder, MLP)
    wait_for_steps(process, folder, 5)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert json.loads((folder / "run.json").read_text())["status"] == ("running" if code == -9 else "interrupted")
    if code != -9:
        assert err.endswith(f"Continue with:\n  odenet train 'resume={folder.name}'\n")
        again = subprocess.run(
            [sys.executable, "-m", "odenet_cli", "train", f"resume={folder}"],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert again.returncode == 0, again.stderr
    else:
        again = start(folder, MLP, "resume=auto")
        _, err = again.communicate(timeout=120)
        assert again.returncode == 0, err
    whole = train(*MLP.split(), "trainer.limit_batches=null", name="whole")
    assert same_bits(folder, whole)


@pytest.mark.slow
@pytest.mark.parametrize("words", [MLP, NET], ids=["mlp", "odenet"])
def test_sigkill_at_random_moments(tmp_path, same_bits, words):
    whole = tmp_path / "whole"
    process = start(whole, words)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    records = len((whole / "metrics.jsonl").read_text().splitlines())
    draw = random.Random(0)
    for attempt in range(8):
        folder = tmp_path / f"killed {attempt}"
        process = start(folder, words)
        wait_for_steps(process, folder, draw.randrange(1, records - 2))
        time.sleep(draw.random() * 0.02)
        process.kill()
        process.communicate()
        process = start(folder, words, "resume=auto")
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert same_bits(folder, whole)


@pytest.mark.slow
def test_six_kills_in_a_row(tmp_path, same_bits):
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    start(whole, MLP).communicate(timeout=300)
    draw = random.Random(1)
    for n in range(6):
        process = start(folder, MLP, *(["resume=auto"] if n else []))
        wait_for_steps(process, folder, 20 * (n + 1))
        time.sleep(draw.random() * 0.02)
        process.kill()
        process.communicate()
    process = start(folder, MLP, "resume=auto")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert same_bits(folder, whole)


def test_a_diverging_run_is_exit_1(odenet, tmp_path):
    words = "device=cpu data=digits model=mlp model.hidden=4 optim.lr=1e30 hydra.run.dir=out"
    done = odenet("train", *words.split(), OMP_NUM_THREADS="1")
    assert done.returncode == 1
    assert "error: the run diverged: the loss is" in done.stderr
    assert "learning rate 1e+30" in done.stderr
    assert "Traceback" not in done.stderr
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["status"] == "failed"
    assert "diverged" in record["reason"]
