"""How far a run's gradient is from exact ones, on batches of its own training data at its own weights.

There are two exact gradients: that of the steps which the run's own forward solve takes, and that of the differential
equation. The first tells how well the backward pass does its work, the second also how well the steps follow the
equation.
"""

from __future__ import annotations

import copy
from itertools import islice
from typing import Any

from odenet_cli.config import Config, gradient_solver
from odenet_cli.errors import RequestError
from odenet_cli.ode import SolveError, Solver
from odenet_cli.ode.gradient import options as gradient_options
from odenet_cli.training import build, device
from odenet_cli.training.slope import Slope, fields_of, of_equation, of_steps, slope
from odenet_cli.training.trained import Trained


class Gradcheck:
    """A trained network, in its own precision and in float64, and the first `batches` of its training data.

    size       of a batch
    tolerance  of the reference
    """

    def __init__(self, run: Trained, size: int, batches: int, tolerance: float) -> None:
        train = run.data.train.plain(size)
        if batches > len(train):
            raise RequestError(f"batches={batches} is more than the {len(train)} there are, of {size} samples each.")
        self.batches = list(islice(train.epoch(0), batches))
        self.model, self.loss_fn, self.device = run.model.eval(), run.loss_fn, run.device
        self.double = copy.deepcopy(self.model).double()
        self.tolerance, self.references = tolerance, dict[int, Slope]()
        self.about = {"step": run.step, "batch_size": size}

    def row(self, config: Config, n: int) -> dict[str, Any]:
        """The gradient of `config` on batch `n`, and its errors; where a solve fails, how it `failed`."""
        device.settle(self.device, config.deterministic, build.tightest(config))
        solver = solver_of(config)
        record = {**self.about, **setting(config), "batch": n + 1}
        try:
            own = slope(self.model, self.loss_fn, self.batches[n], solver)
            steps = of_steps(self.model, self.double, self.loss_fn, self.batches[n], solver)
        except SolveError as error:
            return {**record, "failed": str(error)}
        equation, of = self.reference(n), fields_of(self.model).__contains__
        return {
            **record,
            "loss": own.loss,
            "gradient_norm": own.norm(),
            "error_steps": own.error(steps),
            "error_steps_field": own.error(steps, of),
            "error": own.error(equation),
            "error_field": own.error(equation, of),
            **vars(own.cost),
            "reference_rtol": self.tolerance,
            "reference_loss": equation.loss,
            "reference_norm": equation.norm(),
            "reference_nfe": equation.cost.nfe_forward,
        }

    def reference(self, n: int) -> Slope:
        """The gradient of the equation on batch `n`; it is the same for all points."""
        if n not in self.references:
            self.references[n] = of_equation(self.double, self.loss_fn, self.batches[n], self.tolerance)
        return self.references[n]


def solver_of(config: Config) -> Solver:
    """What the run solves with when it trains; without `compile`, which changes no more than the rounding."""
    return build.solver(config.solver, build.gradient(config))


def setting(config: Config) -> dict[str, Any]:
    """What the gradient depends on, flat; `backward_…` is the adjoint's own solve."""
    known = gradient_options(config.gradient.method)
    backward = vars(gradient_solver(config)) if "solver" in known else {}
    return {
        "gradient": config.gradient.method,
        **{name: getattr(config.gradient, name) for name in known if name != "solver"},
        **{f"backward_{name}": value for name, value in backward.items()},
        **vars(config.solver),
    }
