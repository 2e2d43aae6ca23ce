"""The door into Python: what is loaded computes what the run computed."""

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from runs_kit import train_run

import odenet_cli as odenet
from odenet_cli.commands import export
from odenet_cli.config.resolve import eval_batch
from odenet_cli.data import load as load_data
from odenet_cli.errors import OdenetError, RequestError
from odenet_cli.tasks import task
from odenet_cli.training.evaluate import evaluate

WORDS = ["model=odenet", "model.width=4", "model.stem=conv", "data=digits", "device=cpu"]
WORDS += ["trainer.epochs=1", "trainer.max_steps=3", "trainer.limit_batches=3"]
OWN = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, classes):
        super().__init__(nn.Flatten(), nn.Linear(784, classes))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run, and a folder in which it is `last`."""
    folder = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield odenet.train(WORDS)


def digits_of(run):
    """The test samples as the run was scored on them."""
    name, options = run.config.source()
    settings = {"batch_size": 8, "eval_batch_size": eval_batch(run.config), "seed": 0}
    return load_data(name, options, **settings, device=torch.device("cpu"), dtype=torch.float32).test


def test_a_trained_run_is_loaded(run):
    """Its network scores the test digits as the run did, and says how it was made."""
    score = evaluate(run.model, task("classify"), digits_of(run))
    assert score["error"] == pytest.approx(run.record["final"]["error"], rel=1e-6)
    assert score["loss"] == pytest.approx(run.record["final"]["loss"], rel=1e-6)
    assert not run.model.training
    assert run.solver.rtol == run.config.solver.rtol == 1e-3
    assert run.metrics[-1]["split"] == "test"


def test_a_run_is_shown_in_a_line(run):
    error = f"{run.record['final']['error']:.2%}".replace("%", " %")
    assert repr(run) == f"<run {os.path.relpath(run.folder)}: odenet-dopri5, digits, done, test error {error}>"


def test_last_is_the_newest_run(run):
    """`last` and the folder are the same run; there is none before it."""
    assert odenet.load("last").folder == run.folder
    with pytest.raises(RequestError, match=r"last~1 is not a run: .* hold 1"):
        odenet.load("last~1")


def test_the_tolerance_is_changed_in_a_copy(run):
    """At 1e-6 the network solves finer; the loaded one is as it was."""
    x = torch.rand(4, 1, 28, 28)
    fine = run.with_solver(rtol=1e-6)
    with torch.no_grad():
        before, finer, after = run.model(x), fine.model(x), run.model(x)
    assert torch.equal(before, after)
    assert 0 < (finer - before).abs().max() < 0.1
    assert (fine.solver.rtol, fine.solver.atol) == (1e-6, 1e-6)


def test_the_solver_is_changed_to_fixed_steps_and_back(run):
    """In 64 steps of rk4 the network is near the one solved at 1e-6; without steps rk4 is refused."""
    x = torch.rand(4, 1, 28, 28)
    fixed, fine = run.with_solver(method="rk4", steps=64), run.with_solver(rtol=1e-6)
    with torch.no_grad():
        assert (fixed.model(x) - fine.model(x)).abs().max() < 1e-4
    assert (fixed.solver.method, fixed.solver.steps) == ("rk4", 64)
    assert fixed.with_solver(method="dopri5", rtol=1e-6).solver == fine.solver
    with pytest.raises(ValueError, match=r"rk4 has no error estimate: solve in fixed steps, Fixed\(steps=…\)"):
        run.with_solver(method="rk4")
    with pytest.raises(TypeError, match="rtoll"):
        run.with_solver(rtoll=1e-6)


@pytest.mark.parametrize("shape", [(28, 28), (1, 28, 28), (2, 1, 32, 32), (2, 3, 28, 28), (2, 784)])
def test_an_input_of_another_shape_is_refused(run, shape):
    """The convolutions alone would take images of any size."""
    with pytest.raises(ValueError, match=re.escape(f"x has shape {shape}; this network takes (B, 1, 28, 28).")):
        run.with_solver(rtol=1e-2).model(torch.rand(shape))


def test_an_input_by_its_name_is_checked_too(run):
    with pytest.raises(ValueError, match=re.escape("x has shape (2, 1, 32, 32)")):
        run.model(x=torch.rand(2, 1, 32, 32))


def test_as_scored_computes_the_test_score(tmp_path):
    """`run.model` solves as in training; scoring may be coarser, finer, or in another dtype."""
    words = ("eval.solver.method=euler", "eval.solver.steps=1", "eval.dtype=float64", "compile=false")
    scored = odenet.load(train_run(tmp_path / "run", *WORDS, *words)).as_scored()
    assert (scored.solver.method, scored.solver.steps) == ("euler", 1)
    assert next(scored.model.parameters()).dtype == torch.float64
    assert next(odenet.load(scored.folder).model.parameters()).dtype == torch.float32
    test, final = digits_of(scored), scored.record["final"]
    score = evaluate(scored.model, task("classify"), test, limit=3, dtype=torch.float64)
    assert [score[name] for name in ("loss", "error")] == [final[name] for name in ("loss", "error")]


def test_a_run_of_a_gpu_is_loaded_without_one(tmp_path):
    """Nor is what `compile=auto` would compile, which is worth it in training alone."""
    folder = train_run(tmp_path / "run", "model=planar", "model.layers=1", "device=cpu", "trainer.max_steps=1")
    flow = train_run(tmp_path / "flow", "model=cnf", "model.units=2", "device=cpu", "trainer.max_steps=1")
    longer = {"device: cpu": "device: cuda:9", "  steps: 2000": "  steps: 900000", "  max_steps: 1\n": "\n"}
    for path in (folder / "config.yaml", flow / "config.yaml"):
        for old, new in longer.items():
            path.write_text(path.read_text().replace(old, new))
    odenet.load(folder)
    assert odenet.load(flow).solver.compile is False
    assert export.main([str(flow), f"out={tmp_path / 'w.safetensors'}"]) == 0


def test_no_file_names_code(tmp_path, monkeypatch):
    """The class is named again, as for a command; a network of it can be pickled and saved as a whole."""
    (tmp_path / "own_net.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    own = "model.target=own_net:Net"
    folder = train_run(tmp_path / "run", "model=custom", own, *WORDS[3:])
    sys.modules.pop("own_net")
    with pytest.raises(RequestError, match=re.escape(f"Give it again: odenet.load(…, code=['{own}'])")):
        odenet.load(folder)
    assert "own_net" not in sys.modules
    net, x = odenet.load(folder, code=[own]).model, torch.rand(2, 1, 28, 28)
    assert torch.equal(pickle.loads(pickle.dumps(net))(x), net(x))
    with pytest.raises(RequestError, match=r"code=model\.width is not known"):
        odenet.load(folder, code=[own, "model.width=3"])
    with pytest.raises(RequestError, match=r"code: this run has no class of your own in data\.target; leave it out"):
        odenet.load(folder, code=[own, "data.target=net:Data"])


def test_a_killed_run_is_none_that_runs(run, tmp_path):
    """As `odenet runs` and reports see it; its last checkpoint is loaded."""
    shutil.copytree(run.folder, tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    path.write_text(json.dumps(run.record | {"status": "running", "final": None}))
    assert odenet.load(tmp_path / "run").record["status"] == "killed"


def test_metrics_are_a_pandas_frame(run):
    frame = run.frame()
    assert frame.query("split == 'test'")["error"].tolist() == [run.record["final"]["error"]]
    assert len(frame) == len(run.metrics)


def test_loading_draws_no_random_numbers(run):
    """Torch's generator is where it was."""
    state = torch.get_rng_state()
    odenet.load(run.folder)
    assert torch.equal(state, torch.get_rng_state())


def test_a_failed_command_raises(tmp_path, monkeypatch):
    """The error is the command's own, from its first line on."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OdenetError, match=r"exit code 2: model=nothing is not known\.\n  Available: cnf, "):
        odenet.train(["model=nothing"])


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ("model=mlp data=digits", TypeError, "must be a list of texts"),
        (["model=mlp", 3], TypeError, "must be a list of texts"),
        (["-m", "model=mlp", "seed=0,1"], RequestError, "leave out -m"),
    ],
)
def test_wrong_words_start_nothing(tmp_path, monkeypatch, words, error, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(error, match=message):
        odenet.train(words)


def test_weights_are_the_best_or_the_last(run):
    with pytest.raises(RequestError, match=r"weights=bset is not known. Did you mean `best`"):
        odenet.load(run.folder, weights="bset")


def test_words_that_train_no_run_are_refused(tmp_path, monkeypatch):
    """There is nothing to load."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OdenetError, match="do not train a run to load"):
        odenet.train(["--cfg", "job"])


@pytest.mark.parametrize("end", [["wandb: synced"], ["warning: | ", "| " + "x" * 300], []])
def test_another_may_have_the_last_word(run, monkeypatch, end):
    """A library that logs, or the interpreter at its exit."""
    lines = [f"test error 90.00 % | NFE 20 forward | {run.folder}", *end]

    class Process(SimpleNamespace):
        def __init__(self, *_, **__):
            super().__init__(stdout=[line + "\n" for line in lines], returncode=0)

        __enter__ = __exit__ = lambda self, *_: self

    monkeypatch.setattr(subprocess, "Popen", Process)
    assert odenet.train(WORDS).folder == run.folder


@pytest.mark.numerics
@pytest.mark.parametrize(("kill", "name"), [(os.kill, "SIGTERM"), (os.killpg, "SIGINT")], ids=["alone", "both"])
def test_an_interrupt_stops_the_run(tmp_path, kill, name):
    """It reaches this process alone or, as from a notebook's front end, the run too, which tells what came first. It
    keeps its checkpoint, and says how it goes on."""
    words = [*WORDS[:5], "trainer.epochs=400", "hydra.run.dir=R"]
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # also below a shell's `&`
    code = f"{heard}; import odenet_cli; odenet_cli.train({words})"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("epoch 1 "):
            kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) != 0
    assert "odenet train resume=R" in "".join(said)
    record = odenet.load(tmp_path / "R").record
    assert record["status"] == "interrupted"
    assert record["reason"].startswith(f"{name} after step ")


def test_importing_the_package_imports_no_torch():
    """The command line answers without it."""
    code = "import sys, odenet_cli; before = 'torch' in sys.modules; odenet_cli.ode.Adaptive; assert not before"
    subprocess.run([sys.executable, "-c", code], check=True)
