"""The progress of a reproduction: counts, the time to go, and a plain line for every cell that ends."""

import json
from types import SimpleNamespace

import pytest
from rich.console import Console

from odenet_cli.lock import locked
from odenet_cli.reproduce import board as _board
from odenet_cli.reproduce.board import Board
from odenet_cli.reproduce.plan import Cell

FINAL = {"error": 0.05, "nfe_forward": 20.0, "nfe_backward": 26.5}


@pytest.fixture
def cell(tmp_path):
    def make(part, row, seed=0, **record):
        folder = tmp_path / f"{part}-{row}-{seed}"
        folder.mkdir()
        made = Cell(part=part, row=row, seed=seed, overrides=(), config=None, folder=folder)
        if record:
            end(made, **record)
        return made

    return make


def end(cell, status="done", time_s=None, **record):
    final = {**FINAL, "time_s": time_s} if status == "done" else None
    (cell.folder / "run.json").write_text(json.dumps({"status": status, "reason": None, "final": final, **record}))


@pytest.fixture
def clock(monkeypatch):
    """Time stands still until it is told to move."""
    now = SimpleNamespace(s=100.0)
    monkeypatch.setattr(_board, "time", SimpleNamespace(monotonic=lambda: now.s))
    return now


def counts(board):
    return {state: board.count(state) for state in _board.STATES}


def test_what_was_done_before_is_said_and_counted(cell, capsys):
    cells = [cell("compare", "MLP", 0, time_s=3.0), cell("compare", "MLP", 1), cell("compare", "MLP", 2)]
    board = Board(cells, 1)
    assert capsys.readouterr().out == "3 cells: 1 already done, 2 to run\n"
    assert counts(board) == {"done": 1, "running": 0, "failed": 0, "left": 2}
    Board(cells[1:2], 1)
    assert capsys.readouterr().out == "1 cell: 1 to run\n"


def test_a_cell_that_ends_is_a_line(cell, capsys, clock):
    first, second, third = (cell("compare", "ODE-Net", seed) for seed in range(3))
    with Board([first, second, third], 1) as board:
        capsys.readouterr()
        board.update({first.folder})
        assert counts(board) == {"done": 0, "running": 1, "failed": 0, "left": 2}
        assert board.remaining_s() is None
        clock.s += 12
        end(first, time_s=11.0)
        board.update({second.folder})
        assert counts(board) == {"done": 1, "running": 1, "failed": 0, "left": 1}
        assert board.remaining_s() == pytest.approx(24)
        clock.s += 5
        assert board.remaining_s() == pytest.approx(19)
        end(second, status="failed", reason="the loss is not finite\nLower optim.lr.")
        board.update(set())
        assert counts(board) == {"done": 1, "running": 0, "failed": 1, "left": 1}
    assert capsys.readouterr().out.splitlines() == [
        "[1/3] ODE-Net, seed 0: test error 5.00 %, NFE 20/26.5, 12.0 s   2 left, about 24.0 s",
        "[1/3] ODE-Net, seed 1: failed, the loss is not finite   1 left, about 12.0 s",
    ]


def test_nothing_new_says_nothing(cell, capsys, clock):
    one = cell("compare", "MLP")
    with Board([one], 1) as board:
        capsys.readouterr()
        for _ in range(3):
            clock.s += 100
            board.update({one.folder})
    assert capsys.readouterr().out == ""


def test_a_killed_cell_is_failed_though_its_record_says_running(cell, capsys):
    one = cell("compare", "MLP", status="running")
    board = Board([one], 1)
    board.update({one.folder})
    board.update(set())
    assert counts(board)["failed"] == 1
    assert "[0/1] MLP, seed 0: failed, it ended without a message" in capsys.readouterr().out


def test_a_cell_takes_what_its_row_took_or_its_part_or_all(cell):
    known = [cell("compare", "MLP", 0, time_s=10.0), cell("compare", "RK-Net", 0, time_s=30.0)]
    known += [cell("scaling", "ResNet", 0, time_s=2.0)]
    for left, expected in [
        (cell("compare", "MLP", 1), 10.0),
        (cell("compare", "ODE-Net", 0), 20.0),
        (cell("scaling", "MLP", 0), 2.0),
        (cell("other", "MLP", 0), 14.0),
    ]:
        assert Board([*known, left], 1).remaining_s() == pytest.approx(expected)


def test_side_by_side_they_take_less_but_never_less_than_the_longest(cell):
    known = [cell("compare", "MLP", 0, time_s=10.0), cell("compare", "RK-Net", 0, time_s=30.0)]
    left = [cell("compare", "MLP", 1), cell("compare", "MLP", 2), cell("compare", "RK-Net", 1)]
    assert Board([*known, *left], 1).remaining_s() == pytest.approx(50)
    assert Board([*known, *left], 2).remaining_s() == pytest.approx(30)
    assert Board([*known, *left], 4).remaining_s() == pytest.approx(30)
    assert Board(known, 2).remaining_s() == 0


def test_a_cell_that_went_on_from_its_checkpoint_took_all_its_starts(cell, clock):
    one, left = cell("compare", "MLP", 0), cell("compare", "MLP", 1)
    board = Board([one, left], 1)
    board.update({one.folder})
    clock.s += 5
    end(one, time_s=60.0)
    board.update(set())
    assert board.remaining_s() == pytest.approx(60)


def test_a_cell_that_another_process_finishes_is_done(cell, capsys):
    one = cell("compare", "MLP")
    board = Board([one], 1)
    board.update(set())
    assert counts(board)["left"] == 1
    end(one, time_s=4.0)
    board.update(set())
    assert counts(board)["done"] == 1
    assert "[1/1] MLP, seed 0: test error 5.00 %" in capsys.readouterr().out


def test_a_cell_that_another_process_took_a_moment_earlier_is_left_until_it_ends(cell):
    one = cell("compare", "MLP", status="running")
    board = Board([one], 1)
    with locked(one.folder):
        board.update({one.folder})
        board.update(set())
        assert counts(board) == {"done": 0, "running": 0, "failed": 0, "left": 1}
        board.update(set())
    end(one, time_s=4.0)
    board.update(set())
    assert counts(board)["done"] == 1


def test_the_table_of_a_terminal_fits_it(cell, clock):
    cells = [cell("compare", "ResNet-6 tied", seed, time_s=61.0) for seed in range(2)]
    cells += [cell("compare", "ODE-Net", seed) for seed in range(2)]
    board = Board(cells, 1)
    lines = [{"step": 5, "split": "train"}, {"step": 10, "split": "valid", "error": 0.125}]
    (cells[2].folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    board.update({cells[2].folder, cells[3].folder})
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(board.table())
    found = [line.rstrip() for line in console.export_text().splitlines()]
    assert [line.split() for line in found] == [
        ["done", "running", "failed", "left", "a", "cell", "now"],
        ["compare:", "ResNet-6", "tied", "2", "1:01", "min"],
        ["compare:", "ODE-Net", "2", "seed", "0:", "step", "10,", "error", "12.50", "%"],
        ["seed", "1:", "starting"],
        ["all", "4", "2", "2", "about", "2:02", "min", "to", "go"],
    ]
