"""`odenet verify`: a committed table is computed again from kept cells, and what is wrong is named."""

import csv
import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch

from odenet_cli.commands import reproduce, verify
from odenet_cli.config.resolve import complete, eval_solver
from odenet_cli.config.saved import load, save
from odenet_cli.errors import RequestError
from odenet_cli.files import file_sha256
from odenet_cli.report.runs import read_run
from odenet_cli.reproduce import kept_cells, recompute, stages, verification
from odenet_cli.reproduce import processes as launching
from odenet_cli.reproduce.processes import is_done
from odenet_cli.reproduce.recompute import DIFFERS, EQUAL, UNCHECKED, Check, is_close
from odenet_cli.reproduce.verification import Tally
from odenet_cli.request.compose import compose
from odenet_cli.training import weights
from odenet_cli.training.run import assemble, run

pytestmark = pytest.mark.numerics  # commands from end to end, minutes

CPU = torch.device("cpu")
WORDS = ["--rows", "MLP,ODE-Net", "--seeds", "2", "device=cpu", "solver.rtol=1e-1"]
WORDS += ["trainer.epochs=1", "trainer.limit_batches=2", "trainer.batch_size=16"]
ITEM = ["table1", *WORDS]


def in_process(jobs, at_once, gpus, update):
    """Stands in for `launch`: the cells in this process, one after the other."""
    for job in jobs:
        if not is_done(job.folder):
            config = complete(compose(list(job.overrides)), gpu=False)
            job.folder.mkdir(parents=True)
            save(config, job.folder, tied=True)
            run(config, job.folder, shlex.join(["odenet", "train", *job.overrides]), list(job.overrides))
    return {}


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """The `results` of a table of five tiny cells: two seeds of MLP and ODE-Net, and a step of ODE-Net measured."""
    where = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(where)
        patch.setattr(stages, "launch", in_process)
        assert reproduce.main(ITEM) == 0
        assert reproduce.main([*ITEM, "--keep"]) == 0
        assert reproduce.main(ITEM) == 0
    return where / "results"


@pytest.fixture
def results(committed, tmp_path, monkeypatch):
    """The same in a folder of its own, where nothing was run."""
    shutil.copytree(committed, tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stages, "launch", in_process)
    return Path("results")


@pytest.fixture
def records_only(monkeypatch):
    """Leave the weights alone, which takes most of the time."""
    monkeypatch.setattr(verification, "verify_cells", lambda *_: None)


def table(out):
    """What -> [equal, differs, cannot be checked] of the table that is printed."""
    rows = re.findall(r"^\| (.+?) *\| *(\d*) \| *(\d*) \| *(\d*) *\|$", out, re.MULTILINE)
    return {what: [int(count or 0) for count in counts] for what, *counts in rows}


def cell_of(results, model, part="compare"):
    """The folder of a kept cell."""
    rows = json.loads((results / "table1" / "quick.json").read_text())["rows"]
    return kept_cells.FOLDER / next(row["cell"] for row in rows if (row["row"], row["part"]) == (model, part))


def seal(folder):
    """Write SHA256SUMS anew, as who changes a file on purpose would."""
    names = [name for name in kept_cells.read_sums(folder) if (folder / name).exists()]
    (folder / kept_cells.SUMS).write_text("".join(f"{file_sha256(folder / name)}  {name}\n" for name in names))


def test_elsewhere_kept_cells_are_done_and_make_the_same_table(results, capsys):
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    assert reproduce.main(ITEM) == 0
    out = capsys.readouterr().out
    assert "kept: 5 of 5, in results/cells\n5 cells: 5 already done, 0 to run\n" in out
    pictures = {path for path in before if path.suffix in (".svg", ".png")}
    after = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    assert {path: after[path] for path in before if path not in pictures} == {
        path: content for path, content in before.items() if path not in pictures
    }
    assert after.keys() == before.keys()


def test_every_number_is_equal_and_nothing_is_written(results, capsys):
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert verify.main(["table1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("table1, quick preset: 5 kept cells; all SHA-256 sums agree\n")
    found = table(out)
    assert {counts[1] for counts in found.values()} == {0}
    for what in ("test error", "validation error", "parameters", "NFE of an evaluation", "saved memory (MiB)"):
        assert found[what] == [4, 0, 0]
    assert found["steps: saved_mib"] == found["steps: nfe_backward"] == [1, 0, 0]
    rows = json.loads((results / "table1" / "quick.json").read_text())["rows"]
    times = sum(row.get(name) is not None for row in rows for name in ("epoch_s", "step_ms", "peak_mib"))
    assert found["times, and a GPU's peak memory"] == [0, 0, times]
    assert found["results/table1/quick.json, from the records"][0] > 100
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_a_flipped_byte_is_refused_by_name(results):
    folder = cell_of(results, "ODE-Net")
    for name in ("config.yaml", "run.json", "metrics.jsonl", "predictions.npz", "model.safetensors"):
        whole = (folder / name).read_bytes()
        data = bytearray(whole)
        data[len(data) // 2] ^= 16
        (folder / name).write_bytes(data)
        with pytest.raises(RequestError, match=re.escape(f"{folder / name} is damaged")):
            kept_cells.check(folder)
        if name != "model.safetensors":
            (folder / name).write_bytes(whole)
    for command in (verify.main, lambda words: reproduce.main([*ITEM])):
        with pytest.raises(RequestError, match=re.escape(f"{folder / name} is damaged")) as refused:
            command(["table1"])
        assert refused.value.code == 2


@pytest.mark.parametrize("kind", ["facts", "rows", "expected", "verdict", "md", "sign", "csv"])
def test_a_changed_number_of_the_table_differs(results, records_only, capsys, kind):
    ending = {"csv": "csv", "md": "md", "sign": "md"}.get(kind, "json")
    path = results / "table1" / f"quick.{ending}"
    if kind == "verdict":
        whole = json.loads(path.read_text())
        error = re.search(r"test errors of ([\d.]+)", whole["verdict"])[1]
        path.write_text(json.dumps({**whole, "verdict": whole["verdict"].replace(error, "0.01", 1)}))
    elif path.suffix == ".json":
        whole = json.loads(path.read_text())
        part = {"facts": whole["facts"], "rows": whole["rows"][-1], "expected": whole["expected"][0]}[kind]
        key = {"facts": "test error of MLP (%)", "rows": "saved_mib", "expected": "measured"}[kind]
        part[key] = (part[key] or 0) + 0.01
        path.write_text(json.dumps(whole))
    elif kind == "csv":
        rows = list(csv.DictReader(path.open()))
        path.write_text(path.read_text().replace(rows[0]["error"], "0.5", 1))
    else:
        path.write_text(path.read_text().replace(" 13,674 ", " 13,675 " if kind == "md" else " -13,674 ", 1))
    assert verify.main(["table1"]) == 1
    out = capsys.readouterr().out
    assert re.search(rf"^differs: {re.escape(str(path))}: ", out, re.MULTILINE)
    assert table(out)[f"{path}, from the records"][1] == 1


def test_other_weights_differ_though_their_files_are_whole(results, capsys, monkeypatch):
    monkeypatch.setattr(verification, "how_many_at_once", lambda *_: 2)
    folder = cell_of(results, "MLP")
    state = weights.load(folder / "model.safetensors", load(folder))
    for tensor in state["model"].values():
        tensor.neg_()
    weights.save(folder / "model.safetensors", state, load(folder), folder.name)
    seal(folder)
    assert verify.main(["table1"]) == 1
    out = capsys.readouterr().out
    assert re.search(rf"^differs: compare, MLP, seed 0 \({folder.name}\): test error: .* predictions differ", out, re.M)
    assert table(out)["test error"] == [3, 1, 0]


@pytest.mark.parametrize(
    ("cores", "threads", "gib", "places", "at_once"),
    [
        (2, None, 8, {}, 2),
        (64, None, 512, {}, 7),  # of 62 cells, 8 each
        (64, None, 16, {}, 5),
        (1, None, 8, {}, 1),
        (2, "2", 8, {}, 1),  # OMP_NUM_THREADS: all cores for one
        (64, None, 512, {"device": "mps"}, 1),
    ],
)
def test_as_many_cells_at_once_as_there_are_cores_and_memory(monkeypatch, cores, threads, gib, places, at_once):
    monkeypatch.setattr(verification.threads, "cores", lambda: cores)
    monkeypatch.setattr(verification.threads, "chosen", lambda: threads and int(threads))
    monkeypatch.setattr(verification.device, "memory", lambda name: gib * 2**30)
    monkeypatch.setattr(verification.device, "choose", torch.device)
    monkeypatch.setattr(verification, "read_record", lambda folder: {"device": "cpu (2 threads)"})
    assert verification.how_many_at_once([Path(str(number)) for number in range(62)], places) == at_once


def test_a_record_that_its_log_contradicts_differs(results, records_only, capsys):
    folder = cell_of(results, "ODE-Net")
    record = json.loads((folder / "run.json").read_text())
    record["final"]["valid_loss"] += 0.5
    record["final"]["gradient_error"] = 0.0
    (folder / "run.json").write_text(json.dumps(record))
    seal(folder)
    assert verify.main(["table1"]) == 1
    out = capsys.readouterr().out
    for name in ("valid_loss", "gradient_error"):
        assert re.search(rf"^differs: {folder.name}: run\.json, by the log: {name}: ", out, re.M)


def test_a_config_of_another_cell_is_refused(results):
    folder = cell_of(results, "MLP")
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 7"))
    seal(folder)
    with pytest.raises(RequestError, match=r"config\.yaml is that of another cell, [0-9a-f]{16}\."):
        verify.main(["table1"])


def test_a_table_without_kept_cells_says_so(results):
    folder = cell_of(results, "MLP")
    shutil.rmtree(folder)
    with pytest.raises(RequestError, match=rf"not in results/cells.*: {folder.name} \(MLP, seed 0\)\."):
        verify.main(["table1"])
    shutil.rmtree(kept_cells.FOLDER)
    with pytest.raises(
        RequestError, match=r"no kept cells: results/table1/quick\.json was made without kept cells"
    ) as refused:
        verify.main(["table1"])
    assert refused.value.code == 2


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("table1 --preset cpu", "Presets with a table here: quick."),
        ("tabel1", "tabel1 cannot be verified: it is neither an item nor the folder of a run. Did you mean `table1`?"),
        ("table1 --presett cpu", "--presett is not a key here. Did you mean `--preset`?"),
        ("table1 fig3", "Give one item"),
        ("table1 --retrain", "--retrain needs a value"),
        ("table1 --retrain zzz", "--retrain zzz: no cell begins with that."),
    ],
)
def test_what_cannot_be_verified_is_refused(results, words, reason):
    with pytest.raises(RequestError, match=re.escape(reason)):
        verify.main(words.split())


def test_a_table_that_is_none_is_refused(results):
    (results / "table1" / "quick.json").write_text('{"rows": []}')
    with pytest.raises(RequestError, match=r"results/table1/quick\.json is not a table of a report"):
        verify.main(["table1"])


def test_a_cell_trained_again_has_the_same_bits(results, capsys, monkeypatch):
    """It goes where it was trained before, a CPU, though no word says so."""
    chosen, jobs = verification.choose_cell, []

    def without_device(*args):
        cell = chosen(*args)
        return replace(cell, overrides=tuple(word for word in cell.overrides if not word.startswith("device=")))

    def launch(*args):
        jobs.extend(args[0])
        return in_process(*args)

    monkeypatch.setattr(verification, "choose_cell", without_device)
    monkeypatch.setattr(launching, "launch", launch)
    name = cell_of(results, "MLP").name
    assert verify.main(["table1", "--retrain", name[:6]]) == 0
    out = capsys.readouterr().out
    assert re.search(
        r"^trained again: test error [\d.]+ equal \(bit for bit: \d+ records but for their times\)$", out, re.M
    )
    assert (Path("runs/retrained") / name / "run.json").exists()
    assert "device=cpu" in jobs[0].overrides


def test_only_the_first_steps_are_taken_again(monkeypatch):
    """Cells of more steps are there for their times, which are not compared."""
    same = {"loss": 1.0, "nfe_forward": 0, "nfe_backward": 0, "saved_mib": 1.0, "accepted": 0, "rejected": 0}
    train, taken = [{**same, "step": step, "step_ms": 10.0} for step in (20, 40, 60)], []
    monkeypatch.setattr(recompute, "first_steps", lambda *args: taken.append(args[-1]) or train[:1])
    run = SimpleNamespace(records=lambda split: train, record={"device": "cpu (1 thread)"})
    left, *steps = recompute.from_steps(Path(), None, run)
    assert (taken, left.verdict, left.committed) == ([20], UNCHECKED, 2)
    assert [check.verdict for check in steps] == 4 * [EQUAL]


def test_a_cell_trained_elsewhere_may_differ_as_two_networks_do(results):
    """1.96 sd of the difference of independent counts: of 360 digits 100 and 120 wrong are alike, 100 and 140 not."""
    before = read_run(cell_of(results, "MLP"))

    def after(wrong):
        final = {**before.record["final"], "error": wrong / 360}
        return SimpleNamespace(
            **{name: getattr(before, name) for name in ("folder", "config")},
            metrics=[],
            record={**before.record, "final": final},
            value=lambda name: final.get(name),
        )

    start = SimpleNamespace(**{**vars(after(100)), "metrics": before.metrics})
    assert recompute.trained_again(start, after(120)).verdict == EQUAL
    far = recompute.trained_again(start, after(140))
    assert far.verdict == DIFFERS
    assert "not bit for bit" in far.reason


@pytest.fixture(scope="module")
def session():
    words = ("data=digits", "device=cpu", "model=mlp", "model.hidden=8")
    return assemble(complete(compose(list(words)), gpu=False), CPU)


def test_a_digit_is_in_doubt_where_its_largest_logits_are_equal(session):
    """With the last layer at zero all logits are its bias: equal for every digit, or far apart for every digit."""
    layer = [module for module in session.model.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
    assert len(recompute.near_ties(session, "test")) == 360
    some = recompute.near_ties(session, "test", samples={200})
    assert some == set(range(200, 360))  # the batch of it
    assert recompute.near_ties(session, "test", enough=3) == set(range(200))  # the first batch has them
    with torch.no_grad():
        layer.bias[3] = 1.0
    assert recompute.near_ties(session, "test") == set()
    with torch.no_grad():
        layer.bias[4] = 0.998  # below 8 * 2^-11 of the largest logit
    assert recompute.near_ties(session, "test") == set()
    assert len(recompute.near_ties(session, "test", tf32=True)) == 360


def test_predictions_may_differ_only_where_they_are_in_doubt(session, tmp_path):
    answers = {"predicted": torch.zeros(360, dtype=torch.long), "label": torch.arange(360) % 10}
    kept_ones = answers["predicted"].numpy().astype(numpy.uint8)
    kept_ones[5] = 5
    numpy.savez(tmp_path / "predictions.npz", predicted=kept_ones, label=answers["label"].numpy())
    final = {"error": float((kept_ones != answers["label"].numpy()).mean())}
    run = SimpleNamespace(record={"final": final, "device": "cpu (1 threads)"})
    layer = [module for module in session.model.modules() if isinstance(module, torch.nn.Linear)][-1]
    for bias, verdict in ((0.0, EQUAL), (1.0, DIFFERS)):
        with torch.no_grad():
            layer.weight.zero_()
            layer.bias.zero_()
            layer.bias[0] = bias
        check = recompute.compare_test_error(session, tmp_path, run, answers)
        assert check.verdict == verdict
        assert check.reason.startswith("1 of 360 predictions differ")


def test_evaluations_may_differ_as_they_do_for_a_tolerance_changed_a_little():
    words = ("data=digits", "device=cpu", "model=odenet", "model.width=4", "trainer.limit_batches=1")
    session = assemble(complete(compose(list(words)), gpu=False), CPU)
    found = recompute.scores(session, "test")
    solver = eval_solver(session.config)
    nfe = found["nfe_forward"]
    assert recompute.nfe_range(session, solver, found) == (nfe - 7, nfe + 7)  # 32 in 5 steps
    low, high = recompute.nfe_range(session, solver, found, 1e-3)
    assert low <= found["nfe_forward"] - 6  # one step of dopri5, in one batch of one
    assert found["nfe_forward"] + 6 <= high <= found["nfe_forward"] + 13
    for committed, verdict in ((found["nfe_forward"] + 6, EQUAL), (found["nfe_forward"] + 60, DIFFERS)):
        run = SimpleNamespace(record={"final": {"nfe_test": committed}, "device": "cpu (1 threads)"})
        assert recompute.compare_evaluation_nfe(session, run, found).verdict == verdict


def test_values_are_close_only_as_numbers():
    assert is_close(0.1 + 0.2, 0.3, 1e-9)
    assert not is_close(0.3, 0.3001, 1e-9)
    assert not is_close(3, 4, 1.0)
    assert not is_close(0.3, None, 1.0)
    assert is_close(None, None, 0.0)
    assert is_close("cpu", "cpu", 0.0)
    tally = Tally()
    tally.check("here", Check("NFE", 20, 26, DIFFERS, "why"))
    assert tally.differences == ["here: NFE: 20 committed, 26 here (why)"]
