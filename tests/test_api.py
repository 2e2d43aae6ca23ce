"""The door into Python: what is loaded computes what the run computed."""

import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import odenet_cli as odenet
from odenet_cli.config.resolve import eval_batch
from odenet_cli.data import load as load_data
from odenet_cli.errors import OdenetError, RequestError
from odenet_cli.tasks import task
from odenet_cli.training.evaluate import evaluate

WORDS = ["model=odenet", "model.width=4", "model.stem=conv", "data=digits", "device=cpu"]
WORDS += ["trainer.epochs=1", "trainer.max_steps=3", "trainer.limit_batches=3"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run, and a folder in which it is `last`."""
    folder = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield odenet.train(WORDS)


def test_a_trained_run_is_loaded(run):
    """Its network scores the test digits as the run did, and says how it was made."""
    name, options = run.config.source()
    settings = {"batch_size": 8, "eval_batch_size": eval_batch(run.config), "seed": 0}
    data = load_data(name, options, **settings, device=torch.device("cpu"), dtype=torch.float32)
    score = evaluate(run.model, task(data.task), data.test)
    assert score["error"] == pytest.approx(run.record["final"]["error"], rel=1e-6)
    assert score["loss"] == pytest.approx(run.record["final"]["loss"], rel=1e-6)
    assert not run.model.training
    assert run.solver.rtol == run.config.solver.rtol == 1e-3
    assert run.metrics[-1]["split"] == "test"


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


def test_metrics_are_a_pandas_frame(run, monkeypatch):
    """By pandas, which is not installed with the package: here what it is given is seen."""
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=lambda rows: ("frame", rows)))
    assert run.frame() == ("frame", run.metrics)


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


def test_importing_the_package_imports_no_torch():
    """The command line answers without it."""
    code = "import sys, odenet_cli; before = 'torch' in sys.modules; odenet_cli.ode.Adaptive; assert not before"
    subprocess.run([sys.executable, "-c", code], check=True)
