"""Sum up the cost of a run for `run.json`: function evaluations of every kind, FLOP, and seconds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from odenet_cli.metrics import steps_of
from odenet_cli.models import solvers
from odenet_cli.ode.problem import Problem
from odenet_cli.ode.state import vjp
from odenet_cli.ode.tableau import Tableau
from odenet_cli.training.certificate.probe import at_start
from odenet_cli.training.exact_gradient.model_contexts import Objective
from odenet_cli.training.session import Session

aten = torch.ops.aten
PRODUCTS = {aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default}

log = logging.getLogger("odenet")


class FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Count the floating-point operations of products and convolutions, as `torch.utils.flop_counter` does.

    That module imports triton, which takes 0.2 s, and is used only for fused attention and scaled products.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler: 1.4 s

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in PRODUCTS:  # (…, M, K) times (…, K, N): the last two arguments
            self.total += 2 * result.numel() * args[-1].shape[-2]
        elif func is aten.convolution.default:
            self.total += _of_convolution(args[0], args[1], result, transposed=args[6])
        elif func is aten.convolution_backward.default:
            output, x, weight, wanted = args[0], args[1], args[2], args[10]
            self.total += sum(wanted[:2]) * _of_convolution(x, weight, output, transposed=args[7])
        elif "attention" in (name := func._overloadpacket.__name__) or name == "_scaled_mm":
            from torch.utils.flop_counter import flop_registry

            if (formula := flop_registry.get(func._overloadpacket)) is not None:
                self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def _of_convolution(x: Tensor, weight: Tensor, output: Tensor, transposed: bool) -> int:
    """Return the FLOP of a convolution; its gradients, by x or by the weights, have as many."""
    positions = (x if transposed else output)[:, 0].numel()  # in all samples: each sees all the weights
    return 2 * positions * weight.numel()


def account(session: Session, records: Sequence[dict[str, Any]], nfe_test: float) -> dict[str, Any]:
    """Return the evaluations of every kind, the FLOP of the fields in training, and the seconds.

    records   of the log
    nfe_test  evaluations of a batch of test samples
    """
    train = [record for record in records if record["split"] == "train"]

    def total(name: str) -> int:
        counted: int = round(sum(record[name] * count for record, count in zip(train, steps_of(train))))
        return counted

    forward, backward, rejected = total("nfe_forward"), total("nfe_backward"), total("rejected")
    limit = session.config.trainer.limit_batches
    valid, test = (min(len(split), limit or len(split)) for split in (session.data.valid, session.data.test))
    evaluations = {
        "forward": forward,
        "in_rejected_steps": rejected * _per_attempt(session),
        "backward": backward,
        "certificates": sum(record.get("nfe_certify", 0) for record in train),
        "validation": round(sum(r["nfe_forward"] for r in records if r["split"] == "valid") * valid),
        "test": round(nfe_test * test),
    }
    evaluation, product = 0, 0
    if forward:
        try:
            with session.counting():
                evaluation, product = flop_of_fields(session)
        except Exception as error:  # a run that is over does not fail by what is counted
            log.info("FLOPs were not counted: %s", error, exc_info=error)
    return {
        "evaluations": evaluations | {"other": session.nfe_other},
        "flop": {
            "evaluation": evaluation,
            "vjp": product,
            "training": evaluation * (forward + backward) + product * total("vjps"),
        },
        "seconds": {
            "predicted": session.predicted_s,
            "measured": session.elapsed_s,
            "certificates": session.certificates.time_s,
        },
    }


def flop_of_fields(session: Session) -> tuple[int, int]:
    """Return the FLOP of one evaluation of a field on a training batch, and of its product, means over the solves."""
    weights = [weight for weight in session.model.parameters() if weight.requires_grad]
    counts = list[tuple[int, int]]()

    def count(problem: Problem, t: float) -> None:
        y = tuple(part.detach().requires_grad_() for part in problem.rhs.y0)
        forward, backward = FlopCounter(), FlopCounter()
        with forward:
            value = problem.rhs(t, y)
        with backward:
            vjp(value, map(torch.ones_like, value), (*y, *weights))
        counts.append((forward.total, backward.total))

    solver = replace(solvers(session.model)[0].solver, compile=False, gradient=at_start(count))
    Objective(session.model, session.loss_fn, next(iter(session.data.train.epoch(0))))(solver)
    forward, backward = (round(sum(column) / len(counts)) for column in zip(*counts))
    return forward, backward


def _per_attempt(session: Session) -> int:
    """Return the evaluations of an attempted step that is not accepted: its first stage is known. 0 of formulas that
    are no Runge-Kutta method."""
    formulas = solvers(session.model)[0].solver.formulas if solvers(session.model) else None
    return int(formulas.stages) - 1 if isinstance(formulas, Tableau) else 0
