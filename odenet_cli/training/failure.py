"""Detect a failing step, and say where it happened and how to go on."""

from __future__ import annotations

import contextlib
import math
import resource
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odenet_cli.errors import (
    Interrupted,
    OdenetError,
    RunFailed,
    describe_disk_full,
    describe_external,
    is_disk_full,
    is_out_of_memory,
    message_of,
)
from odenet_cli.markdown import join_words
from odenet_cli.models import solvers
from odenet_cli.ode import SolveError, method
from odenet_cli.ode.gradient import exact_gradients, leaner
from odenet_cli.rundir import resume_command, short
from odenet_cli.training.memory import MIB
from odenet_cli.training.session import Session

WHERE = {"train": "optimiser step", "valid": "the validation after step", "test": "the test after step"}


class Diverged(RunFailed):
    """Raised where a loss, a gradient or a weight is NaN or infinite."""


@contextlib.contextmanager
def failing_in(session: Session, split: str) -> Iterator[None]:
    """Record the step or the scoring of `split` in which an error happens inside; name it in that of a failed solve."""
    try:
        yield
    except Exception as error:
        step = session.step + 1 if split == "train" else session.step
        session.failed = {"split": split, "step": step}
        if isinstance(error, SolveError):
            raise RunFailed(f"in {WHERE[split]} {step}: {error}\n  It was at {describe_progress(session)}.") from error
        raise


def check_loss(session: Session, loss: Tensor | float, step: int) -> None:
    """Raise `RunFailed` if a loss, (), is NaN or infinite; reading it waits for the device."""
    value = loss.item() if isinstance(loss, Tensor) else loss
    if not math.isfinite(value):
        raise diverged(session, value, step)
    session.last_finite_loss = step, value


def check_gradients(session: Session) -> None:
    """Raise `RunFailed` if a gradient is NaN or infinite, before the weights take it."""
    gradients = {name: weight.grad for name, weight in session.model.named_parameters() if weight.grad is not None}
    # The cheapest check: a sum is not finite if one of its terms is not. It may also overflow by itself.
    if math.isfinite(sum(gradient.sum() for gradient in gradients.values()) if gradients else 0.0):
        return
    name = first_nonfinite(gradients)
    if name is not None:
        raise Diverged(
            f"the run diverged: the gradient of {name} is not finite at step {session.step + 1}, with the loss at "
            f"{session.last_finite_loss[1] if session.last_finite_loss else math.nan:.6g} and learning rate "
            f"{session.optimizer.param_groups[0]['lr']:g}.\n"
            "  Lower optim.lr, or solve the gradient more accurately (gradient.solver.rtol, "
            f"{exact_gradients(method(session.config.solver.method))})."
        )


def check_finite(session: Session, state: dict[str, Any], what: str = "") -> None:
    """Raise `Diverged` if a weight, or a number in another `state` of the session, is NaN or infinite."""
    name = first_nonfinite(state)
    if name is not None:
        raise Diverged(
            f"the run diverged: {what}{name} is NaN or infinite after step {session.step}, "
            f"at {describe_progress(session)}.\n  Lower optim.lr."
        )


def first_nonfinite(state: Any, name: str = "") -> str | None:
    """Return the name of a tensor in a nested `state` that is NaN or infinite; None if there is none."""
    if isinstance(state, Tensor):
        return None if torch.isfinite(state).all() else name
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, (list, tuple)) else ()
    names = (first_nonfinite(part, f"{name}.{key}" if name else str(key)) for key, part in items)
    return next((name for name in names if name is not None), None)


def diverged(session: Session, loss: float, step: int) -> Diverged:
    return Diverged(
        f"the run diverged: the loss is {loss} at step {step} with {describe_progress(session)}.\n"
        "  Lower optim.lr, or solve more accurately (solver.rtol)."
    )


def describe_progress(session: Session) -> str:
    rate = f"learning rate {session.optimizer.param_groups[0]['lr']:g}"
    if session.last_finite_loss is None:
        return f"{rate}; there was no loss before"
    step, loss = session.last_finite_loss
    return f"{rate}; the last finite loss was {loss:.6g} at step {step}"


def explain(error: BaseException, session: Session, folder: Path) -> tuple[str, str, BaseException]:
    """Return status and reason for `run.json`, and the error to raise; sets `session.failed` if it can be repeated."""
    again = resume_command(short(folder))
    if isinstance(error, Interrupted):
        kept = f"the checkpoint was saved. Continue with:\n  {again}"
        return "interrupted", error.reason, Interrupted(error.reason, error.code, kept)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "stopped at once by a second SIGINT", error
    if isinstance(error, Diverged) and session.failed is None:
        # Detected later than it happened, as on a GPU, or when an update broke the weights.
        session.failed = {"split": "train", "step": session.step}
    reason = describe_failure(error, session, folder, again)
    return ("failed", message_of(error), error) if reason is None else ("failed", reason, RunFailed(reason))


def describe_failure(error: BaseException, session: Session, folder: Path, again: str) -> str | None:
    """Return why the run failed and what to do; None for a bug, or for an error meant to end the process."""
    if isinstance(error, OSError) and not folder.exists():
        return f"the folder of the run is missing: {folder} was deleted, moved or renamed during the run."
    if is_out_of_memory(error):
        return out_of_memory(session)
    if is_disk_full(error):
        kept = (folder / "checkpoints" / "last.pt").exists()
        way_on = (
            "The last checkpoint is intact. Free some space and continue" if kept else "Free some space and start again"
        )
        return f"{describe_disk_full(error)}\n  {way_on} with: {again}"
    if isinstance(error, SystemExit):  # a user's network would end the process, as if all were done
        code = "" if error.code is None else repr(error.code)
        return f"the model called sys.exit({code}).\n  It should raise an error instead."
    if not isinstance(error, Exception):
        return None
    words = str(error) if isinstance(error, RunFailed) else describe_external(error)
    own = ", ".join(f"{key}={target}" for key, target in session.config.named_code().items())
    if words is None and own and not isinstance(error, OdenetError):
        words = f"{message_of(error)}\n  It occurred in the network of {own}; train.log has the traceback."
    if words is None:
        return None
    where = shlex.quote(short(folder))
    hint = f"\n  To diagnose it: odenet doctor {where}; to repeat it: odenet rerun {where}"
    return words + (hint if session.failed else "")


def out_of_memory(session: Session) -> str:
    """Return the peak memory, and settings that need less."""
    config = session.config
    if session.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(session.device)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    lean = leaner(config.gradient.method, method(config.solver.method)) if solvers(session.model) else []
    less = f"; gradient={join_words(lean, 'or')} need{'s' if len(lean) == 1 else ''} less" if lean else ""
    return (
        f"out of memory on {session.device} after step {session.step}: the peak was {peak / MIB:,.0f} MiB with "
        f"trainer.batch_size={config.trainer.batch_size} and gradient={config.gradient.method}.\n"
        f"  Use a smaller trainer.batch_size or eval.batch_size{less}."
    )
