"""How far a run's gradient is from exact ones, on batches of its own training data at its own weights, as it trains.

There are two exact gradients: that of the steps which the run's own forward solve takes, and that of the differential
equation. The first tells how well the backward pass does its work, the second also how well the steps follow the
equation. And the first is held against finite differences of the loss, in which autograd plays no part.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch

from odenet_cli.analysis.borrowed import in_dtype
from odenet_cli.analysis.reference_gradient import (
    Slope,
    Untrusted,
    decided,
    difference,
    fields_of,
    of_equation,
    of_steps,
    slope,
)
from odenet_cli.analysis.step_replay import Decisions
from odenet_cli.analysis.trained import Trained
from odenet_cli.config.resolve import gradient_solver
from odenet_cli.config.schema import Config
from odenet_cli.errors import RequestError, exhausted
from odenet_cli.ode import SolveError, Solver
from odenet_cli.ode.gradient import options as gradient_options
from odenet_cli.training import build, device
from odenet_cli.training.evaluate import converted

FLOAT32 = 1e-4  # what its rounding may make of an exact gradient; beyond it float64 tells rounding from a fault
RANDOM = "a field draws random numbers whenever it is evaluated: it belongs to no differential equation"


class Gradcheck:
    """A trained network as it trains, and the first `batches` of its training data.

    size       of a batch
    tolerance  of the reference
    """

    def __init__(self, run: Trained, size: int, batches: int, tolerance: float) -> None:
        train = run.data.train.unshuffled(size)
        if batches > len(train):
            raise RequestError(f"batches={batches} is more than the {len(train)} there are, of {size} samples each.")
        self.batches = list(islice(train.epoch(0), batches))
        self.model, self.loss_fn, self.device = run.model.train(), run.loss_fn, run.device
        self.tolerance, self.references = tolerance, dict[int, Slope]()
        self.differences: dict[int, float] = {}
        self.about = {"step": run.step, "batch_size": size}

    def row(self, config: Config, n: int) -> dict[str, Any]:
        """The gradient of `config` on batch `n`, and its errors; where a solve fails, how it `failed`, and where there
        is no equation to hold it against, why there is `no_reference`."""
        device.settle(self.device, config.deterministic, build.tightest(config))
        record = {**self.about, **setting(config), "batch": n + 1}
        try:
            own, steps, decisions = self.gradients(config, n)
            if config.dtype == "float32" and _is_doubtful(config, own, steps):
                record["error_float32"], own, steps, decisions = (
                    own.error(steps),
                    *self.gradients(config, n, double=True),
                )
        except (SolveError, Untrusted) as error:
            return {**record, "failed": str(error)}
        of = fields_of(self.model).__contains__
        record |= {
            "precision": "float64" if "error_float32" in record else config.dtype,
            "loss": own.loss,
            "gradient_norm": own.norm(),
            "error_steps": own.error(steps),
            "error_steps_field": own.error(steps, of),
            "error_difference": self.difference(n, solver_of(config), decisions, steps),
        }
        try:
            equation = self.reference(n, decisions)
        except Untrusted as error:
            return {**record, **vars(own.cost), "no_reference": str(error)}
        return {
            **record,
            "error": own.error(equation),
            "error_field": own.error(equation, of),
            **vars(own.cost),
            "reference_rtol": self.tolerance,
            "reference_loss": equation.loss,
            "reference_norm": equation.norm(),
            "reference_nfe": equation.cost.nfe_forward,
        }

    def gradients(self, config: Config, n: int, double: bool = False) -> tuple[Slope, Slope, Decisions]:
        """The gradient of `config` on batch `n`, the exact one of its steps, and what was decided in them; the first in
        the run's precision, or all in `double`."""
        model, loss_fn, solver = self.model, self.loss_fn, solver_of(config)
        dtype = torch.float64 if double else build.dtype(config)
        batch = converted(self.batches[n], dtype)
        with in_dtype(model, dtype):
            own, decisions = slope(model, loss_fn, batch, solver), decided(model, loss_fn, batch, solver)
        try:
            return own, of_steps(model, loss_fn, batch, solver, decisions), decisions
        except (RuntimeError, ValueError, TypeError) as error:
            if isinstance(error, SolveError) or exhausted(error):
                raise
            raise RequestError(
                f"the network fails in float64, in which exact gradients are made: {str(error).partition(chr(10))[0]}\n"
                "  Let it compute in the dtype of its input, and let tensors that it holds be buffers."
            ) from error

    def reference(self, n: int, decisions: Decisions | None = None) -> Slope:
        """The gradient of the equation on batch `n`; it is the same for all points. Raises `Untrusted`."""
        if decisions is not None and decisions.random:
            raise Untrusted(RANDOM)
        if n not in self.references:
            self.references[n] = of_equation(self.model, self.loss_fn, self.batches[n], self.tolerance)
        return self.references[n]

    def difference(self, n: int, solver: Solver, decisions: Decisions, steps: Slope) -> float:
        """The error of autograd on batch `n` by finite differences of the loss, over the steps that are shown first."""
        if n not in self.differences:
            self.differences[n] = difference(self.model, self.loss_fn, self.batches[n], solver, decisions, steps)
        return self.differences[n]


def _is_doubtful(config: Config, own: Slope, steps: Slope) -> bool:
    """Tell whether float32 may be to blame: random numbers of the network's are others in float64, or a gradient that
    is exact for its steps is further off than the rounding of most networks."""
    return own.drawn != steps.drawn or (config.gradient.method != "adjoint" and not own.error(steps) <= FLOAT32)


def solver_of(config: Config) -> Solver:
    """What the run solves with when it trains; without `compile`, which changes no more than the rounding."""
    return build.solver(config.solver, build.gradient(config))


def setting(config: Config) -> dict[str, Any]:
    """What the gradient depends on, flat; `backward_…` is the adjoint's own solve."""
    known = gradient_options(config.gradient.method)
    backward = gradient_solver(config).record() if "solver" in known else {}
    return {
        "gradient": config.gradient.method,
        **{name: getattr(config.gradient, name) for name in known if name != "solver"},
        **{f"backward_{name}": value for name, value in backward.items()},
        **config.solver.record(),
    }
