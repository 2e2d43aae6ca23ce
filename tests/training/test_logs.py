"""TensorBoard shows the records of metrics.jsonl: one run, no ghosts, no step twice."""

import json

import pytest
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from odenet_cli.report import pictures
from odenet_cli.request.compose import compose
from odenet_cli.rundir import read_record
from odenet_cli.training import progress
from odenet_cli.training import run as runs
from odenet_cli.training.boards import LAYOUT, TensorBoard
from odenet_cli.training.log import Logbook
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
    folder = train(*ODE, "trainer.limit_batches=2", "trainer.certify=500")
    shown, records = curves(folder), metrics(folder)
    assert shown.keys() == {
        *(f"{name}/{split}" for name in ("loss", "error_percent") for split in ("train", "valid", "test")),
        *("nfe/forward", "nfe/backward", "steps/accepted", "steps/rejected"),
        *("memory/saved_mib", "time/step_ms", "lr", "gradient/relative_error", "nfe/certify"),
    }
    for split in ("train", "valid", "test"):
        expected = [(r["step"], pytest.approx(100 * r["error"], rel=1e-6)) for r in records if r["split"] == split]
        assert shown[f"error_percent/{split}"] == expected
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
    parts = [plugin_data_pb2.HParamsPluginData.FromString(one) for one in found]
    kinds = [part.WhichOneof("data") for part in parts]
    assert sorted(kinds) == ["experiment", "session_end_info", "session_start_info"]  # one of each
    return {kind: getattr(part, kind) for kind, part in zip(kinds, parts)}


def test_hparams_of_a_solve_and_of_none(train):
    """Solver, tolerance and gradient stand only where there is a solve; the main metric of the task is the first."""
    short = ("trainer.limit_batches=1", "trainer.epochs=1")
    known = hparams(train(*short))["session_start_info"].hparams
    assert known["model.hidden"].number_value == 4
    assert known["seed"].number_value == 0
    assert not {"solver", "rtol", "steps", "gradient"} & known.keys()
    entry = hparams(train("model=odenet", "model.width=4", "solver.rtol=0.1", *short, name="ode"))
    known = entry["session_start_info"].hparams
    assert (known["solver"].string_value, known["rtol"].number_value) == ("dopri5", 0.1)
    assert known["gradient"].string_value == "adjoint"
    metrics = [metric.name.tag for metric in entry["experiment"].metric_infos]
    assert metrics[:3] == ["error_percent/test", "loss/test", "nfe/forward"]
    assert len(set(metrics)) == len(metrics)


def test_hparams_of_a_fit_name_no_gradient_and_no_rate(tmp_path):
    """Its steps follow no gradient, and its optim.lr=1 is the part that is taken of each."""
    board = TensorBoard(tmp_path, compose(["model=fit", "model.field=sir", "data=table", "data.path=own.csv"]))
    board.add({"step": 1, "epoch": 1, "split": "valid", "loss": 1.0, "nfe_forward": 8})
    board.close()
    entry = hparams(tmp_path)
    known = entry["session_start_info"].hparams
    assert (known["solver"].string_value, known["model.field"].string_value) == ("dopri8", "sir")
    assert not {"gradient", "lr"} & known.keys()
    assert {"gradient", "lr"} <= {info.name for info in entry["experiment"].hparam_infos}


def test_five_hparams_are_shown_first_beside_runs_of_any_kind(train):
    """TensorBoard takes the columns from one of the runs, puts those that differ first, and shows five."""
    infos = hparams(train("trainer.limit_batches=1", "trainer.epochs=1"))["experiment"].hparam_infos
    assert {info.name for info in infos if info.differs} == {"model", "solver", "rtol", "gradient", "seed"}


def test_the_main_metric_is_that_of_the_task(tmp_path, tiny):
    scores = {"loss": 9.0, "nll": 9.0, "kl": 2.0, "rmse_window_clean": 0.1, "rmse_further_clean": 0.25}
    shown = TensorBoard(tmp_path, tiny())
    shown.add({"step": 1, "epoch": 1, "split": "valid", "nfe_forward": 8, **scores})
    shown.close()
    assert hparams(tmp_path)["experiment"].metric_infos[0].name.tag == "rmse_further_clean/test"


def test_the_config_is_a_text(train):
    (event,) = board(train("trainer.limit_batches=1", "trainer.epochs=1")).Tensors("config/text_summary")
    lines = event.tensor_proto.string_val[0].decode().splitlines()
    assert "    logger: tensorboard" in lines
    assert "      hidden: 4" in lines


def test_figures_are_images_there(tmp_path, tiny):
    runs.run(tiny("trainer.limit_batches=1", "trainer.epochs=1"), tmp_path, "", [], draw=pictures.write)
    assert {path.name for path in (tmp_path / "figures").glob("*.png")} == {"training.png", "misread.png"}
    assert set(board(tmp_path).Tags()["images"]) == {"figures/training", "figures/misread"}


def test_a_run_whose_figures_cannot_be_drawn_is_done(tmp_path, tiny, caplog):
    def draw(folder):
        raise OSError("no font")

    runs.run(tiny("trainer.limit_batches=1", "trainer.epochs=1"), tmp_path, "", [], draw=draw)
    assert read_record(tmp_path)["status"] == "done"
    assert "The figures were not drawn: no font" in caplog.text


def test_without_a_board_there_are_the_records(train, metrics):
    folder = train("logger=none", "trainer.limit_batches=1", "trainer.epochs=1")
    assert [record["split"] for record in metrics(folder)] == ["train", "valid", "test"]
    assert not list(folder.rglob("events.out.*"))


def test_another_logger_goes_on_with_a_run(train):
    """It is drawn there from the start."""
    short = ("trainer.limit_batches=1", "trainer.epochs=2", "trainer.log_every=1")
    train(*short, "logger=none", "trainer.max_steps=1")
    assert [step for step, _ in curves(train(*short, "resume=auto"))["loss/train"]] == [1, 2]


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
    after.write(record(8) | {"split": "valid", "nfe_forward": 0})
    after.close()
    before.close()
    lines = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [*range(1, 9), 8]
    assert [step for step, _ in curves(tmp_path)["loss/train"]] == list(range(1, 9))
    assert hparams(tmp_path)
    assert len(board(tmp_path).Tensors("custom_scalars__config__")) == 1


@pytest.mark.parametrize("fate", ["deleted", "cut", "overwritten", "whole"])
def test_what_tensorboard_lost_is_drawn_again_from_the_records(tmp_path, tiny, fate):
    """A run of three starts, whose event files are not what they were: the whole curve, once, and the layout."""
    config = tiny()

    def more(size, first):
        book = Logbook(tmp_path, config, size)
        for step in range(first, first + 3):
            book.write({"step": step, "epoch": 0, "split": "train", "loss": 1.0 / step, "nfe_forward": 20.0})
        book.write({"step": step, "epoch": 0, "split": "valid", "loss": 0.5, "nfe_forward": 20.0})
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


def test_files_of_another_board_stay_and_are_named(tmp_path, tiny, caplog):
    Logbook(tmp_path, tiny()).close()
    (left,) = tmp_path.glob("events.out.*")
    Logbook(tmp_path, tiny("logger=none")).close()
    assert left.exists()
    assert "what tensorboard shows of this run ends where it was stopped" in caplog.text
    caplog.clear()
    Logbook(tmp_path, tiny()).close()
    assert not caplog.text


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
    assert lines[0].startswith("20 steps, 10 per epoch: about ")
    assert lines[1] == ("epoch 2  step 20/20  loss 0.5000  error 25.00 %  NFE 26/20.5  3 ms/step  valid  error 12.50 %")
    assert "\x1b" not in out
    assert "\r" not in out


def test_the_time_to_go_includes_the_validations(capsys):
    """After 10 of 30 steps of a second each, and a validation of 40 s: 20 s of training, and two validations."""
    show = Progress(30, 0, 10)
    common = {"step": 10, "epoch": 1, "loss": 0.5}
    show.record(common | {"split": "train", "nfe_forward": 0, "nfe_backward": 0, "step_ms": 1000.0})
    show.record(common | {"split": "valid", "time_s": 40.0})
    show.close()
    assert capsys.readouterr().out.strip().endswith("valid  loss 0.5000  eta 1:40")


def test_progress_of_a_loss_alone(capsys):
    show = Progress(5, 3, 5)
    show.record({"split": "valid", "step": 3, "epoch": 0, "loss": 0.5})
    show.close()
    assert capsys.readouterr().out.strip() == "epoch 0  step 3/5  valid  loss 0.5000"


def test_a_run_that_converges_foretells_no_time_and_ends_whole(monkeypatch, capsys):
    """A least-squares fit validates nothing, and stops long before its last step: no line may say what is left."""
    monkeypatch.setattr(progress, "columns", lambda: 80)
    monkeypatch.setattr(progress, "with_bar", lambda line, *_: line)
    show = progress.Progress(200, 0, 1, validates=False, converges=True)
    for step in range(1, 26):
        show.step(step)
    show.printed -= progress.QUIET_S  # a slow fit
    record = {"split": "train", "step": 25, "epoch": 25, "loss": 0.5, "nfe_forward": 611, "nfe_backward": 0}
    show.record(record | {"step_ms": 900.0})
    assert show._live_line() == "epoch 25  step 25/200  loss 0.5000  NFE 611/0  900 ms/step"
    show.total = 25
    show.record({"split": "test", "step": 25, "epoch": 25, "loss": 0.5})
    show.close()
    assert show.predicted_s is None
    assert capsys.readouterr().out.splitlines() == [
        "epoch 25  step 25/200  loss 0.5000  NFE 611/0  900 ms/step",
        "epoch 25  step 25/25  test  loss 0.5000",
    ]


def test_a_phase_says_how_far_it_is():
    show = Progress(5, 5, 5)
    show.phase("scoring the test data")
    told = [show.doing for _ in show.over(range(3), 3)]
    assert told == ["scoring the test data", "scoring the test data 1/3", "scoring the test data 2/3"]
    show.close()
