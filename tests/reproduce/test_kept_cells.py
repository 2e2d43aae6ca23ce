"""Finished cells are kept with the results, stand for their runs on another machine, and are refused when damaged."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import safetensors
import torch
from safetensors.torch import load_file

import odenet_cli
from odenet_cli.analysis.trained import trained
from odenet_cli.commands import export
from odenet_cli.config.resolve import complete
from odenet_cli.config.saved import load, save
from odenet_cli.errors import RequestError
from odenet_cli.reproduce import kept_cells
from odenet_cli.reproduce.plan import digest
from odenet_cli.reproduce.stages import unpack_kept
from odenet_cli.request.compose import compose
from odenet_cli.training import weights
from odenet_cli.training.run import assemble, run

pytestmark = pytest.mark.numerics  # commands from end to end, minutes

CPU = torch.device("cpu")
TINY = ("data=digits", "device=cpu", "trainer.limit_batches=2", "trainer.epochs=2", "trainer.batch_size=8")
MODELS = {
    "mlp": ("model=mlp", "model.hidden=4"),
    "tied": ("model=resnet", "model.width=4", "model.tied=true"),
    "odenet": ("model=odenet", "model.width=4"),
}
ROOT = "/home/somebody/mnist"


FLOW = ("model=planar", "model.layers=2", "data=u1", "device=cpu", "trainer.steps=2", "trainer.batch_size=8")


def cell(words, command="odenet train", overrides=(), base=TINY):
    """A finished run in `runs/cells/<hash>`."""
    config = complete(compose([*base, *words]), gpu=False)
    folder = Path("runs/cells") / digest(config)
    folder.mkdir(parents=True)
    save(config, folder, tied=True)
    run(config, folder, command, list(overrides))
    return folder


def test_what_a_flow_is_drawn_from_is_made_again_from_its_weights(here):
    folder = cell((), base=FLOW)
    with numpy.load(folder / "figures/density.npz") as file:
        before = dict(file)
    assert kept_cells.keep(folder)
    assert not (kept_cells.FOLDER / folder.name / "figures").exists()
    shutil.rmtree(folder)
    unpack_kept([SimpleNamespace(folder=folder)])
    with numpy.load(folder / "figures/density.npz") as file:
        assert file.files == [*before]
        for name in before:
            numpy.testing.assert_array_equal(file[name], before[name])


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def kept_cell(here):
    """A tiny cell that is kept, and the folder of its run."""
    folder = cell(MODELS["mlp"])
    assert kept_cells.keep(folder)
    return folder


@pytest.mark.parametrize("model", MODELS)
def test_exported_weights_give_the_same_logits_bit_for_bit(here, model):
    """Written by `odenet export`, read by `load_file`, taken strictly by the network that the config builds."""
    folder = cell(MODELS[model])
    assert export.main([str(folder), "out=net of é.safetensors"]) == 0
    config, before = load(folder), trained(folder, load(folder), "best", 200)
    other = assemble(config, CPU)
    assert other.model.load_state_dict(load_file("net of é.safetensors"), strict=True)
    (x, _) = next(iter(other.data.test.epoch(0)))
    with torch.no_grad():
        assert torch.equal(other.model.eval()(x), before.model.eval()(x))
    with safetensors.safe_open("net of é.safetensors", "pt") as file:
        about = file.metadata()
    assert about["format"] == "pt"
    assert about["odenet"] == odenet_cli.__version__
    assert (about["model"], about["config"], about["weights"]) == (config.model["name"], folder.name, "best")


def test_the_same_weights_are_the_same_bytes_in_every_process(here):
    folder = cell(MODELS["mlp"])
    command = [sys.executable, "-m", "odenet_cli", "export", str(folder), "out=there.safetensors"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert kept_cells.keep(folder)
    kept_bytes = (kept_cells.FOLDER / folder.name / "model.safetensors").read_bytes()
    assert Path("there.safetensors").read_bytes() == kept_bytes


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "give out=FILE.safetensors"),
        (["out=x.pt"], "must end with .safetensors"),
        (["out=no/where.safetensors"], "the folder no does not exist"),
        (["out=x.safetensors", "checkpoint=first"], "checkpoint=first is not known"),
        (["ot=x.safetensors"], "Did you mean `out`?"),
    ],
)
def test_an_export_that_cannot_be_is_refused(here, words, reason):
    folder = cell(MODELS["mlp"])
    with pytest.raises(RequestError, match=re.escape(reason)):
        export.main([str(folder), *words])
    assert not list(here.glob("*.safetensors"))


def test_a_kept_cell_lists_its_files_as_sha256sum_reads_them(kept_cell):
    folder = kept_cells.FOLDER / kept_cell.name
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    listed = [line.partition(":")[0] for line in done.stdout.splitlines()]
    names = ["config.yaml", "figures/classify.npz", "metrics.jsonl", "model.safetensors", "predictions.npz", "run.json"]
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert listed == names == sorted(files - {"SHA256SUMS"})


def test_keeping_twice_writes_once(kept_cell):
    def stamps():
        return {path: path.stat().st_mtime_ns for path in kept_cells.FOLDER.rglob("*")}

    before = stamps()
    assert kept_cells.keep(kept_cell) is False
    assert stamps() == before
    with open(kept_cell / "error_control.jsonl", "w") as file:
        file.write('{"kind": "solve"}\n')
    assert kept_cells.keep(kept_cell) is True  # what was measured on it since belongs to it
    assert (kept_cells.FOLDER / kept_cell.name / "error_control.jsonl").read_text() == '{"kind": "solve"}\n'


def test_what_is_kept_names_no_place_and_nothing_else_is_changed(here):
    """`data.root` goes from config, record and commands; every other value stays as the run wrote it."""
    command = f"odenet train data=digits 'data.root={ROOT}' hydra.run.dir=runs/cells/x resume=auto"
    words = (*MODELS["mlp"], "trainer.max_steps=1")  # whose weights are not asked for: digits have no data.root
    folder = cell(words, command, ["data=digits", f"data.root={ROOT}", "seed=0"])
    record = json.loads((folder / "run.json").read_text())
    record["data"]["root"] = ROOT
    (folder / "run.json").write_text(json.dumps(record))
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("data:\n", f"data:\n  root: {ROOT}\n"))
    kept_cells.keep(folder)

    there = kept_cells.FOLDER / folder.name
    assert "somebody" not in "".join(path.read_text("utf-8", "replace") for path in there.rglob("*") if path.is_file())
    record["data"]["root"] = None
    record["command"] = "odenet train data=digits hydra.run.dir=runs/cells/x resume=auto"
    record["overrides"] = ["data=digits", "seed=0"]
    assert json.loads((there / "run.json").read_text()) == record
    assert (there / "config.yaml").read_text() == text.replace("data:\n", "data:\n  root: null\n")


@pytest.mark.parametrize("place", ["/home/somebody/points.csv", "~/points.csv"])
def test_another_place_is_refused_by_its_key(here, place):
    folder = cell(MODELS["mlp"])
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "command": f"odenet train data.path={place}"}))
    with pytest.raises(RequestError, match=rf"run\.json, command names a place on this machine: .*{place}"):
        kept_cells.keep(folder)
    assert not list(kept_cells.FOLDER.iterdir())


def test_a_run_that_is_not_done_and_weights_that_were_not_scored_are_not_kept(here):
    folder = cell(MODELS["mlp"])
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "status": "interrupted", "final": None}))
    with pytest.raises(RequestError, match="not done: interrupted"):
        kept_cells.keep(folder)
    with pytest.raises(RequestError, match="not done: not started"):
        kept_cells.keep(folder.with_name("0" * 16))
    record["final"]["best_epoch"] += 1
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(RequestError, match=r"best\.pt is of epoch \d, and the test score of epoch \d"):
        kept_cells.keep(folder)
    assert not list(kept_cells.FOLDER.iterdir())


def test_steps_that_were_only_measured_are_kept_without_weights(here):
    folder = cell((*MODELS["mlp"], "trainer.max_steps=1"))
    kept_cells.keep(folder)
    assert not (kept_cells.FOLDER / folder.name / "model.safetensors").exists()
    kept_cells.check(kept_cells.FOLDER / folder.name)


def test_a_kept_cell_stands_for_its_run_elsewhere(kept_cell, tmp_path, monkeypatch):
    """The same record, log and weights; finished, and it cannot go on."""
    other = tmp_path / "other"
    shutil.copytree("results", other / "results")
    first = trained(kept_cell, load(kept_cell), "best", 200).model.state_dict()
    original = tmp_path / kept_cell
    monkeypatch.chdir(other)
    kept_cells.unpack(kept_cell)
    assert (kept_cell / "metrics.jsonl").read_bytes() == (original / "metrics.jsonl").read_bytes()
    assert json.loads((kept_cell / "run.json").read_text()) == json.loads((original / "run.json").read_text())
    net = trained(kept_cell, load(kept_cell), "best", 200)
    assert all(torch.equal(first[name], tensor) for name, tensor in net.model.state_dict().items())
    assert re.fullmatch(r"best weights, step \d+", net.weights)
    with pytest.raises(RequestError, match=r"contains the weights that were scored, not the last ones"):
        trained(kept_cell, load(kept_cell), "last", 200)
    assert run(load(kept_cell), kept_cell, "", []) == json.loads((original / "run.json").read_text())["final"]
    longer = load(kept_cell)
    longer.trainer.epochs = 3
    with pytest.raises(RequestError, match=r"is finished, and its checkpoints are gone: .*last\.pt does not exist"):
        run(longer, kept_cell, "", [])
    assert kept_cells.keep(kept_cell) is False


@pytest.mark.parametrize("left", ["run.json", "checkpoints"])
def test_a_run_that_is_there_is_left_as_it_is(kept_cell, left):
    """Checkpoints without a record are gone on with; kept weights beside them would not be the ones that are read."""
    for path in kept_cell.iterdir():
        if path.name not in (left, ".lock"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    kept_cells.unpack(kept_cell)
    assert {path.name for path in kept_cell.iterdir()} == {left, ".lock"}


@pytest.mark.parametrize(
    "name", ["config.yaml", "run.json", "metrics.jsonl", "model.safetensors", "predictions.npz", "SHA256SUMS"]
)
def test_a_flipped_byte_is_refused_by_name(kept_cell, name):
    path = kept_cells.FOLDER / kept_cell.name / name
    data = bytearray(path.read_bytes())
    for place in (0, len(data) // 2, len(data) - 1):
        broken = bytearray(data)
        broken[place] ^= 1
        path.write_bytes(broken)
        with pytest.raises(RequestError) as refused:
            kept_cells.check(path.parent)
        assert refused.value.code == 2
        assert path.parent.name in str(refused.value)
        assert name in str(refused.value) or name == "SHA256SUMS"
    shutil.rmtree(kept_cell)
    with pytest.raises(RequestError):
        kept_cells.unpack(kept_cell)
    assert not (kept_cell / "run.json").exists()
    path.write_bytes(data)
    kept_cells.check(path.parent)


def test_a_missing_file_and_a_list_that_lacks_one_are_refused(kept_cell):
    folder = kept_cells.FOLDER / kept_cell.name
    sums = (folder / "SHA256SUMS").read_text()
    for name in ("run.json", "model.safetensors"):
        lines = [line for line in sums.splitlines(keepends=True) if not line.endswith(name + "\n")]
        (folder / "SHA256SUMS").write_text("".join(lines))
        with pytest.raises(RequestError, match=rf"SHA256SUMS does not list {re.escape(name)}"):
            kept_cells.check(folder)
    (folder / "SHA256SUMS").write_text(sums + "0" * 64 + "  ../../x\n")
    with pytest.raises(RequestError, match="is not a list of SHA-256 sums and file names"):
        kept_cells.check(folder)
    (folder / "SHA256SUMS").write_text(sums)
    (folder / "metrics.jsonl").unlink()
    with pytest.raises(RequestError, match=r"metrics\.jsonl is missing"):
        kept_cells.check(folder)


def test_weights_are_checked_where_there_is_no_list(kept_cell):
    """Exported weights carry a SHA-256 over names, shapes, numbers and metadata."""
    path = kept_cells.FOLDER / kept_cell.name / "model.safetensors"
    data = path.read_bytes()
    for place in (len(data) - 1, data.index(b'"epoch":"') + 9, 3, 12):
        broken = bytearray(data)
        broken[place] ^= 1
        path.write_bytes(broken)
        with pytest.raises(RequestError, match=r"model\.safetensors"):
            weights.load(path, load(path.parent))


COMMITTED = sorted(Path(__file__).parents[2].glob("results/cells/*"))


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_a_committed_cell_is_whole_and_found_by_its_config(folder):
    """A key of the config that is new must not make another cell of it."""
    kept_cells.check(folder)
    assert digest(load(folder)) == folder.name


def test_committed_cells_are_small():
    assert sum(map(kept_cells.size_bytes, COMMITTED)) <= 40e6
