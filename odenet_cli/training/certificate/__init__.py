"""Certificates of a run's training gradient, made during training from a few samples of the batch.

measure   the gradient, the exact gradient of its own steps, and finite differences of the loss
probe     inspection of the vector fields: their precision, and whether they are functions of (t, y)
causes    the likely cause of an error, found by trying remedies
backward  causes in the backward pass
schedule  when a run makes a certificate, its cost, and the warnings
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
    """Hold the relative error of a gradient over all parameters, compared with the exact gradient of its own steps.

    worst   the tensor with the largest error of its gradient, and this error
    cause   the likely cause of the error; None: no error
    time_s  seconds taken by the certificate
    """

    error: float
    worst: tuple[str, float]
    cause: Cause | None
    time_s: float


def certify(model: nn.Module, loss_fn: Loss, batch: Any, seed: int = 0, above: float = WARNING) -> Certificate:
    """Return the certificate of the gradient of a loss on the first samples of `batch`; raise `NotCertified` with the
    reason if it cannot be made.

    seed   of the direction of the finite differences of the loss
    above  error above which the cause is sought
    """
    start = time.perf_counter()
    try:
        with torch.enable_grad():
            check = Check(Objective(model, loss_fn, first_samples(batch)), own_solver(model), seed)
            cause = find_cause(check, above)
    except NotCertified:
        raise
    except Exception as error:  # a network may fail in float64, or on few samples, but the run continues
        reason = "there is not enough memory" if is_out_of_memory(error) else str(error).partition("\n")[0]
        raise NotCertified(reason or type(error).__name__) from error
    if not check.error < float("inf"):
        raise NotCertified("the gradient is NaN or infinite")
    worst = max(check.by_tensor.items(), key=lambda item: item[1])
    return Certificate(check.error, worst, cause, time.perf_counter() - start)
