"""A run fails in the step that goes wrong, says where it was, and keeps what `odenet rerun` needs to repeat it."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from odenet_cli.errors import RunFailed
from odenet_cli.ode import SolveError
from odenet_cli.training import generators

if TYPE_CHECKING:
    from odenet_cli.training.loop import Session

log = logging.getLogger("odenet")

WHERE = {"train": "optimiser step", "valid": "the validation after step", "test": "the test after step"}


@contextlib.contextmanager
def repeatable(run: Session, keep: Any, split: str = "train", batch: Any = ()) -> Iterator[None]:
    """Around a step, or the scoring of `split`: what fails inside is kept, and told with its place in the run.

    Nothing inside may have changed the weights when it fails.
    """
    before = generators.states(run.device, whole=run.config.model["name"] == "custom") if run.watch else None
    try:
        yield
    except Exception as error:
        try:
            keep.failed(run, split, batch, before or generators.states(run.device))
        except Exception:  # the failure itself is what has to be told
            log.info("the failed step could not be kept", exc_info=True)
        if isinstance(error, SolveError):
            number = run.step + 1 if split == "train" else run.step
            raise RunFailed(f"in {WHERE[split]} {number}: {error}\n  It was at {circumstances(run)}.") from error
        raise


def check_loss(run: Session, loss: Tensor, step: int) -> None:
    """Refuse a loss that is NaN or infinite; reading it waits for the device."""
    value = loss.item()
    if not math.isfinite(value):
        raise diverged(run, value, step)
    run.good = step, value


def check_gradients(run: Session) -> None:
    """Refuse a gradient that is NaN or infinite, before the weights take it."""
    found = {name: weight.grad for name, weight in run.model.named_parameters() if weight.grad is not None}
    # A sum is not finite where one of its terms is not; it is the cheapest look at all of them, and may overflow.
    if math.isfinite(sum(slope.sum() for slope in found.values()) if found else 0.0):
        return
    name = broken(found)
    if name is not None:
        raise RunFailed(
            f"the run diverged: the gradient of {name} is not finite at step {run.step + 1}, with the loss at "
            f"{run.good[1] if run.good else math.nan:.6g} and learning rate {run.optimizer.param_groups[0]['lr']:g}.\n"
            "  Lower optim.lr, or solve the gradient more accurately (gradient.solver.rtol, gradient=replay)."
        )


def broken(state: Any, name: str = "") -> str | None:
    """The name of a tensor in `state`, nested as it may be, that is NaN or infinite; None where there is none."""
    if isinstance(state, Tensor):
        return None if torch.isfinite(state).all() else name
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, (list, tuple)) else ()
    names = (broken(part, f"{name}.{key}" if name else str(key)) for key, part in items)
    return next((one for one in names if one is not None), None)


def diverged(run: Session, loss: float, step: int) -> RunFailed:
    """The error for a loss that is NaN or infinite."""
    rate = run.optimizer.param_groups[0]["lr"]
    return RunFailed(
        f"the run diverged: the loss is {loss} at step {step} with learning rate {rate:g}; {good(run)}.\n"
        "  Lower optim.lr, or solve more accurately (solver.rtol)."
    )


def circumstances(run: Session) -> str:
    """Learning rate and last good loss."""
    return f"learning rate {run.optimizer.param_groups[0]['lr']:g}; {good(run)}"


def good(run: Session) -> str:
    """The last loss that was a number."""
    return f"the last good loss was {run.good[1]:.6g} at step {run.good[0]}" if run.good else "no loss came before it"
