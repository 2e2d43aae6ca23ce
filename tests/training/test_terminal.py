"""A run tells its story on a terminal of any width, and to train.log."""

import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import termios
import threading
import time

import pytest

from odenet_cli import terminal
from odenet_cli.training import progress
from odenet_cli.training.ending import beside_trivial, last_line
from odenet_cli.training.progress import SILENCE_S, Parts, fitting

WORDS = ("data=digits", "device=cpu", "model=odenet", "model.width=4", "solver.rtol=0.1", "trainer.batch_size=64")
RHYTHM = ("trainer.limit_batches=3", "trainer.epochs=2", "trainer.log_every=1", "optim.milestones=[0.5,0.75]")
LABELS = ("model:", "data:", "solver:", "gradient:", "recipe:", "device:", "folder:")


@pytest.fixture
def screen(fork_server, tmp_path):
    """Run `odenet` in a terminal of so many columns; return all lines that it wrote, each state of a live line too."""

    def run(width, *words):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
        env = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "ODENET_REQUEST")}
        terminal, content = os.ttyname(theirs), []

        def read():
            with contextlib.suppress(OSError):  # its end, on Linux
                while part := os.read(ours, 65536):
                    content.append(part)

        reader = threading.Thread(target=read)
        reader.start()
        request = {"argv": words, "cwd": str(tmp_path), "env": env | {"TERM": "xterm-256color"}, "figures": True}
        child = fork_server.ask(**request, out=terminal, err=terminal)["pid"]
        code = fork_server.ask(wait=child)["code"]
        os.close(theirs)
        reader.join()
        os.close(ours)
        written = b"".join(content).decode()
        assert code == 0, written
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
        return [line for line in re.split(r"[\r\n]+", text) if line]

    return run


slow = pytest.mark.slow


@pytest.mark.parametrize(
    "width",
    [60, pytest.param(80, marks=pytest.mark.numerics), pytest.param(100, marks=slow), pytest.param(120, marks=slow)],
)
def test_no_line_is_wider_than_the_terminal(screen, tmp_path, width):
    """Banner, live line and end fit; loss and time to go are there at any width, the rest where there is room."""
    lines = screen(width, "train", *WORDS, *RHYTHM)
    assert max(map(len, lines)) <= width
    assert [line.split()[0] for line in lines if line.startswith(LABELS)] == list(LABELS)
    live = [line for line in lines if re.search(r"loss \d.*  eta \d+:\d\d$", line)]
    assert live
    for field, columns in {"NFE": 60, "ms/step": 80, "error": 100, "epoch": 120}.items():
        assert width < columns or all(field in line for line in live), field
    for phase in ("scoring the test data", "drawing the figures"):
        assert any(phase in line for line in lines), phase
    assert "figures:  training.png, misread.png, in figures/ there" in lines
    assert [line.strip() for line in lines[-2:]] == [
        "next:     odenet eval last eval.solver.rtol=1e-1,1e-3,1e-6",
        "odenet report runs",
    ]

    (folder,) = tmp_path.glob("runs/*/*")
    log = (folder / "train.log").read_text()
    for text in (*LABELS, "epoch 1  step 3/6  loss", "valid  error", "test  error", "| runs/", "figures:"):
        assert text in log


def test_fields_are_dropped_by_importance():
    """No field is cut: the least important go first, the loss and the time to go never."""
    fields = {"epoch": "epoch 2", "step": "step 7/20", "loss": "loss 0.5000", "nfe": "NFE 20/14", "eta": "eta 1:05"}
    assert fitting(fields, 60) == "epoch 2  step 7/20  loss 0.5000  NFE 20/14  eta 1:05"
    assert fitting(fields, 46) == "step 7/20  loss 0.5000  NFE 20/14  eta 1:05"
    assert fitting(fields, 35) == "step 7/20  loss 0.5000  eta 1:05"
    assert fitting(fields, 10) == "loss 0.5000  eta 1:05"


def test_a_signal_is_seen_before_the_run_acts_on_it(monkeypatch):
    """A step, or the scoring, may take minutes: the live line says that it was heard, and what a second one does."""
    monkeypatch.setattr(progress, "columns", lambda: 80)
    monkeypatch.setattr(progress, "with_bar", lambda line, *_: line)
    signals = []
    shown = progress.Progress(20, 3, 10, lambda: bool(signals))
    assert shown._live_line() == "epoch 1  step 3/20"
    signals.append("SIGINT")
    assert shown._live_line() == "epoch 1  step 3/20  stopping; Ctrl-C again stops at once"
    shown.phase("scoring the test data")
    assert shown._live_line() == "epoch 1  step 3/20  scoring the test data; Ctrl-C again stops at once"


def test_a_sentence_at_the_end_is_broken_between_words(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "on_terminal", lambda: True)
    monkeypatch.setattr(terminal, "columns", lambda: 60)
    terminal.tell("after the window: RMSE 0.579; the last value repeated 0.762, a straight line 1.38")
    assert capsys.readouterr().out.splitlines() == [
        "after the window: RMSE 0.579; the last value repeated 0.762,",
        "a straight line 1.38",
    ]


COST = {"nfe_forward": 20, "nfe_backward": 14.5, "saved_mib": 3.84, "peak_mib": None, "time_s": 141.0}


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        ({"loss": 0.1, "error": 0.0361}, "test error 3.61 %"),
        (
            {"loss": 9.0, "nll": 9.0, "kl": 2.0, "rmse_window_clean": 0.1, "rmse_further_clean": 0.25},
            "test RMSE 0.250 clean",
        ),
        ({"loss": 1.25, "nll": 1.25, "nll_sd": 0.5, "gap": 0.01}, "test NLL 1.250 nat, gap 0.010 nat"),
        ({"loss": 1.25}, "test loss 1.25"),
    ],
    ids=["classifier", "series", "density", "own"],
)
def test_the_last_line_names_the_main_score(tmp_path, monkeypatch, scores, text):
    """Its first field is the main number of the task, its last the folder, which Python reads."""
    monkeypatch.chdir(tmp_path)
    line = last_line(scores | COST, tmp_path / "runs" / "a")
    assert line == f"{text} | NFE 20 forward, 14.5 backward | 3.8 MiB saved for backward | 2:21 min | runs/a"


@pytest.mark.parametrize(
    ("limit", "advice", "steps"),
    [
        ([], ["trainer.epochs=4"], 4),
        (["trainer.max_steps=1"], ["trainer.max_steps=null"], 2),
        (["trainer.max_steps=2"], ["trainer.max_steps=null", "trainer.epochs=4"], 4),
    ],
)
def test_a_finished_run_says_how_to_train_longer(train, capsys, limit, advice, steps):
    """And what it says does so."""
    words = ["trainer.limit_batches=1", "trainer.epochs=2"]
    folder = train(*words, *limit)
    capsys.readouterr()
    train(*words, *limit, "resume=auto")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "This run is finished. To train longer:"
    resume, *words_more = lines[1].split()[-len(advice) - 1 :]
    assert (resume.partition("=")[0], words_more) == ("resume", advice)
    assert lines[-1].rpartition("| ")[2] == str(folder)
    kept = [word for word in [*words, *limit] if word.partition("=")[0] not in {a.partition("=")[0] for a in advice}]
    train(*kept, *advice, "resume=auto")
    assert json.loads((folder / "run.json").read_text())["final"]["step"] == steps


@pytest.mark.parametrize(("ours", "better"), [(0.2, True), (0.5, False), (23.1, False)])
def test_a_forecast_stands_beside_those_without_a_model(ours, better):
    text = beside_trivial({"rmse_further_noisy": ours, "rmse_last_value": 1.34, "rmse_velocity": 0.5})
    assert text.startswith(f"after the window: RMSE {ours}; repeating the last value 1.34, a straight line 0.5")
    assert ("train longer" in text) is not better
    assert beside_trivial(
        {"rmse_further_clean": 0.1, "rmse_further_noisy": 9, "rmse_last_value": 1, "rmse_velocity": 1}
    )


@pytest.mark.numerics
def test_a_command_shows_its_parts_below_its_rows(train, screen, odenet):
    """The live line fits, and the rows are what they are elsewhere."""
    folder = train("model=rknet", "model.width=4", "solver=euler", "solver.steps=1", "trainer.max_steps=1")
    words = ("audit", str(folder), "steps=1,2", "rtol=1e-1")
    lines = list(map(str.rstrip, screen(80, *words)))
    live = [line for line in lines if "/7  " in line]
    assert max(map(len, live)) < 80
    assert any(re.search(r" 3/7  eta \d+:\d\d  midpoint 1 step", line) for line in live)
    table = odenet(*words)
    assert table.stderr == ""
    # Sentences and rows are folded at the terminal's width, and nowhere else; the live line is drawn anew below each.
    words_shown = " ".join(" ".join(line for line in lines if "/7  " not in line).split())
    assert [line for line in table.stdout.splitlines()[1:] if " ".join(line.split()) not in words_shown] == []


def test_parts_say_how_far_they_are_and_how_long_it_takes(capsys, monkeypatch):
    """Away from a terminal a line comes after a minute of silence, on standard error."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    with Parts(4) as parts:
        parts.begin("euler 1 step")
        for _ in parts.over(range(2), 2):
            now[0] += SILENCE_S / 2
        now[0] += 1
        parts.begin("rk4 2 steps")
        now[0] += 10
        parts.note("round 1 of 5")
        assert parts.line() == "2/4  eta 3:33  rk4 2 steps  round 1 of 5"
    out, err = capsys.readouterr()
    assert (out, err) == ("", "2/4  eta 3:03  rk4 2 steps\n")
