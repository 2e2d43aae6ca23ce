"""A training step looks at the device once an attempted step of the solver, and otherwise only where it logs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from odenet_cli.training import device, loop
from odenet_cli.training import run as runs

LONG = (
    "trainer.log_every=1000",
    "trainer.checkpoint_every=1000",
    "trainer.certify=0",
    "trainer.epochs=1",
    "trainer.batch_size=8",
)


def per_step(train, looks, monkeypatch, *words):
    """Looks a training step, without those of a run's beginning, its records and its end; and the run's folder."""
    real = runs.assemble
    monkeypatch.setattr(runs, "assemble", lambda *of: replace(real(*of), check_every_step=False))  # as on a GPU
    found = []
    for batches in (4, 12):
        looks[0] = 0
        folder = train(*LONG, *words, f"trainer.limit_batches={batches}", "data.validation=0", name=f"{batches}")
        found.append((looks[0], folder))
    # The test split has two batches for both.
    return (found[1][0] - found[0][0]) / 8, found[1][1]


def test_without_a_solver_nothing_is_looked_at(train, looks, monkeypatch):
    assert per_step(train, looks, monkeypatch, "model=resnet", "model.width=4", "model.blocks=1")[0] == 0


def test_fixed_steps_are_looked_at_once_for_the_times_and_once_at_the_end(train, looks, monkeypatch):
    words = ("model=odenet", "model.width=4", "solver=rk4", "solver.steps=3", "gradient=replay")
    number, _ = per_step(train, looks, monkeypatch, *words)
    assert number == 2


@pytest.mark.parametrize("grad", ["backprop", "replay"])
def test_an_adaptive_solve_is_looked_at_once_an_attempt(train, looks, monkeypatch, metrics, grad):
    words = ("model=odenet", "model.width=4", "solver=dopri5", f"gradient={grad}")
    number, folder = per_step(train, looks, monkeypatch, *words)
    record = metrics(folder, "train")[-1]
    # The times, and three norms for the first step.
    assert number <= record["accepted"] + record["rejected"] + 4 + 0.5


@pytest.mark.gpu
@pytest.mark.parametrize("grad", ["backprop", "replay", "adjoint"])
def test_on_a_gpu_a_step_waits_once_an_attempt(grad, tiny):
    """torch itself counts the waits; the solve is the only one who makes the host wait."""
    import warnings

    from odenet_cli.training.run import assemble

    config = tiny("model=odenet", "model.width=16", f"gradient={grad}", "device=cuda")
    session = assemble(config, device.choose("cuda"))
    batch = next(iter(session.data.train.epoch(0, 0)))
    session.loss_fn(session.model, batch)[0].backward()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with loop.tally() as solves, warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            session.loss_fn(session.model, batch)[0].backward()
            session.optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    (stats,) = solves
    attempts = stats.accepted + stats.rejected + stats.nfe_backward / 6
    assert len(waits) <= attempts + 8
