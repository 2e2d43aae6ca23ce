"""A certificate of the gradient that a run trains with, made while it trains, from a few samples of its batch.

measure   the gradient, the exact one of its own steps, and finite differences of the loss
probe     a look at the vector fields: their precision, and whether they are functions of (t, y)
causes    what is likely wrong, by trying what makes it right
backward    where that is the backward pass
schedule  when a run makes one, what it costs, and what is said of it
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from odenet_cli.errors import is_out_of_memory
from odenet_cli.tasks import Loss
from odenet_cli.training.certificate.causes import find_cause
from odenet_cli.training.certificate.measure import WARNING, Cause, Check, NotCertified, first_samples, own_solver
from odenet_cli.training.exact_gradient.model_contexts import Objective


@dataclass(frozen=True)
class Certificate:
    """Hold the relative error of a gradient over all parameters, against the exact one of its own steps.

    worst   the tensor whose gradient is most wrong, and by how much
    cause   what is likely wrong; None: nothing
    time_s  seconds that all this took
    """

    error: float
    worst: tuple[str, float]
    cause: Cause | None
    time_s: float


def certify(model: nn.Module, loss_fn: Loss, batch: Any, seed: int = 0, above: float = WARNING) -> Certificate:
    """Return the certificate of the gradient of a loss on the first samples of `batch`; raise `NotCertified` with the
    reason where there is none.

    seed   of the direction in which the loss is differentiated by finite differences
    above  an error of which the cause is looked for
    """
    start = time.perf_counter()
    try:
        with torch.enable_grad():
            check = Check(Objective(model, loss_fn, first_samples(batch)), own_solver(model), seed)
            cause = find_cause(check, above)
    except NotCertified:
        raise
    except Exception as error:  # a network may fail in float64, or on few samples: the run goes on
        reason = "there is not enough memory" if is_out_of_memory(error) else str(error).partition("\n")[0]
        raise NotCertified(reason or type(error).__name__) from error
    if not check.error < float("inf"):
        raise NotCertified("the gradient is NaN or infinite")
    worst = max(check.by_tensor.items(), key=lambda item: item[1])
    return Certificate(check.error, worst, cause, time.perf_counter() - start)
