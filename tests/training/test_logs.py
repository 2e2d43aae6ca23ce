"""TensorBoard shows the records of metrics.jsonl: one run, no ghosts, no step twice."""

import json

import pytest
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from odenet_cli.training.log import LAYOUT, Logbook
from odenet_cli.training.progress import Progress

ODE = ("model=odenet", "model.width=4", "solver=heun", "solver.steps=2", "trainer.log_every=1")


def board(folder):
    accumulator = event_accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return accumulator


def curves(folder):
    accumulator = board(folder)
    return {tag: [(e.step, e.value) for e in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}


def test_the_board_shows_the_records(train, metrics):
    folder = train(*ODE, "trainer.limit_batches=2")
    shown, records = curves(folder), metrics(folder)
    assert shown.keys() == {
        *(f"{name}/{split}" for name in ("loss", "error") for split in ("train", "valid", "test")),
        *("nfe/forward", "nfe/backward", "steps/accepted", "steps/rejected"),
        *("memory/saved_mib", "time/step_ms", "lr"),
    }
    for split in ("train", "valid", "test"):
        expected = [(r["step"], pytest.approx(r["error"], rel=1e-6)) for r in records if r["split"] == split]
        assert shown[f"error/{split}"] == expected
    assert shown["nfe/backward"] == [(step, 4) for step in range(1, 7)]
    assert len(list(folder.rglob("events.out.*"))) == 1


def test_the_layout_puts_forward_and_backward_in_one_chart(train):
    accumulator = board(train("trainer.limit_batches=1", "trainer.epochs=1"))
    (event,) = accumulator.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for category in layout.category for chart in category.chart}
    assert charts == {title: tags for title, (_, tags) in LAYOUT["odenet"].items()}
    assert ["nfe/forward", "nfe/backward"] in charts.values()


def hparams(folder):
    content = board(folder).summary_metadata
    found = [meta.plugin_data.content for meta in content.values() if meta.plugin_data.plugin_name == "hparams"]
    return [plugin_data_pb2.HParamsPluginData.FromString(one) for one in found]


def test_there_is_one_hparams_entry(train):
    folder = train("trainer.limit_batches=1", "trainer.epochs=1")
    kinds = [one.WhichOneof("data") for one in hparams(folder)]
    assert sorted(kinds) == ["experiment", "session_end_info", "session_start_info"]
    (start,) = (one.session_start_info for one in hparams(folder) if one.WhichOneof("data") == "session_start_info")
    assert start.hparams["model"].string_value == "mlp"
    assert start.hparams["model.hidden"].number_value == 4
    assert start.hparams["seed"].number_value == 0


@pytest.mark.parametrize("known", [0, 3])
def test_a_killed_runs_steps_are_not_shown_twice(tmp_path, tiny, known):
    """`known` is the step of the checkpoint; 0: it was killed before the first."""
    config = tiny()

    def record(step):
        return {"step": step, "epoch": 0, "split": "train", "loss": 1.0 / step}

    before = Logbook(tmp_path, config)
    size = 0
    for step in range(1, 7):
        before.write(record(step))
        if step == known:
            size = before.flush()
    before.board.flush()  # all of it reached the disk; then the process was killed
    after = Logbook(tmp_path, config, size)
    for step in range(known + 1, 9):
        after.write(record(step))
    after.close()
    before.close()
    lines = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == list(range(1, 9))
    assert [step for step, _ in curves(tmp_path)["loss/train"]] == list(range(1, 9))
    assert len(hparams(tmp_path)) == 3
    assert len(board(tmp_path).Tensors("custom_scalars__config__")) == 1


@pytest.mark.parametrize("fate", ["deleted", "cut", "overwritten", "whole"])
def test_what_tensorboard_lost_is_drawn_again_from_the_records(tmp_path, tiny, fate):
    """A run of three starts, whose event files are not what they were: the whole curve, once, and the layout."""
    config = tiny()

    def more(size, first):
        book = Logbook(tmp_path, config, size)
        for step in range(first, first + 3):
            book.write({"step": step, "epoch": 0, "split": "train", "loss": 1.0 / step, "nfe_forward": 20.0})
        book.write({"step": step, "epoch": 0, "split": "valid", "loss": 0.5})
        size = book.flush()
        book.close()
        return size

    size = more(more(0, 1), 4)
    files = sorted(tmp_path.glob("events.out.*"))
    if fate == "deleted":
        for path in files:
            path.unlink()
    elif fate != "whole":
        content = files[0].read_bytes()
        half = len(content) // 2
        files[0].write_bytes(content[:half] + (b"x" * (len(content) - half) if fate == "overwritten" else b""))
    more(size, 7)
    shown = curves(tmp_path)
    assert shown["loss/train"] == [(step, pytest.approx(1 / step)) for step in range(1, 10)]
    assert shown["loss/valid"] == [(step, 0.5) for step in (3, 6, 9)]
    assert [step for step, _ in shown["nfe/forward"]] == list(range(1, 10))
    assert len(board(tmp_path).Tensors("custom_scalars__config__")) == 1
    assert len(list(tmp_path.glob("events.out.*"))) == 1


def test_a_checkpoint_hands_all_events_to_the_system(tmp_path, tiny):
    """TensorBoard's writer holds records back for minutes; those before a checkpoint would be lost by a kill."""
    book = Logbook(tmp_path, tiny())
    book.write({"step": 1, "epoch": 0, "split": "train", "loss": 1.0})
    book.flush()
    assert curves(tmp_path)["loss/train"] == [(1, 1.0)]
    book.close()


def test_progress_away_from_a_terminal_is_plain_lines(capsys):
    show = Progress(20, 0, 10)
    for step in range(1, 21):
        show.step(step)
    common = {"step": 20, "epoch": 2, "loss": 0.5}
    train = {"split": "train", "error": 0.25, "nfe_forward": 26, "nfe_backward": 20.5, "step_ms": 3.0}
    show.record(common | train)
    show.record(common | {"split": "valid", "error": 0.125})
    show.close()
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0].startswith("20 steps, 10 an epoch: about ")
    assert lines[1] == ("epoch 2  step 20/20  loss 0.5000  error 25.00 %  NFE 26/20.5  3 ms/step  valid  error 12.50 %")
    assert "\x1b" not in out
    assert "\r" not in out


def test_progress_of_a_loss_alone(capsys):
    show = Progress(5, 3, 5)
    show.record({"split": "valid", "step": 3, "epoch": 0, "loss": 0.5})
    show.close()
    assert capsys.readouterr().out.strip() == "epoch 0  step 3/5  valid  loss 0.5000"
