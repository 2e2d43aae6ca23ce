"""Compare the gradient of a run's training with exact ones, on batches of its training data at its own weights.

There are two exact gradients, both in float64 by plain autograd: that of the steps taken by the run's forward solve,
and that of the differential equation. The first measures the error of the backward pass, the second also that of the
steps. The first is itself compared with finite differences of the loss, which use no autograd. The network is in
training mode: batch norm uses the batch, and dropout draws the same numbers each time.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import torch

from odenet_cli.analysis.trained import Trained
from odenet_cli.config.resolve import gradient_solver
from odenet_cli.config.schema import Config
from odenet_cli.errors import RequestError, first_line, is_out_of_memory
from odenet_cli.ode import SolveError, Solver
from odenet_cli.ode.gradient import options as gradient_options
from odenet_cli.ode.gradient import rounding
from odenet_cli.training import build
from odenet_cli.training.exact_gradient.model_contexts import Objective
from odenet_cli.training.exact_gradient.reference_gradient import (
    Gradient,
    NoExactGradient,
    compute_gradient,
    field_parameters,
    finite_difference_error,
    gradient_of_equation,
    gradient_of_steps,
    judged_by_differences,
    record_steps,
)
from odenet_cli.training.exact_gradient.step_replay import Recording, replaying_solver

ROUNDING = {"float32": 1e-4, "float64": 1e-8}
RANDOM = "a field draws random numbers at each evaluation, so it defines no differential equation"
BATCHES = 3


class Gradcheck:
    """Hold a trained network in training mode and the first `batches` of its training data, unshuffled.

    batch_size  samples per batch
    batches     None: BATCHES, or as many as there are
    tolerance   of the reference, the gradient of the differential equation
    """

    def __init__(self, run: Trained, batch_size: int, batches: int | None, tolerance: float) -> None:
        train = run.data.train.unshuffled(batch_size)
        batches = min(BATCHES, len(train)) if batches is None else batches
        if batches > len(train):
            raise RequestError(
                f"batches={batches} is more than the {len(train)} available batches of {batch_size} samples."
            )
        self.model, self.device = run.model.train(), run.device
        self.objectives = [Objective(self.model, run.loss_fn, batch) for batch in islice(train.epoch(0), batches)]
        self.tolerance, self.references = tolerance, dict[int, Gradient]()
        self.differences: dict[int, dict[str, Any]] = {}
        self.about = {"step": run.step, "batch_size": batch_size}

    def row(self, config: Config, n: int) -> dict[str, Any]:
        """Return the errors of the gradient of `config` on batch `n`; the reason if a solve `failed`, and if there is
        `no_reference`."""
        build.configure_backends(config, self.device)
        record = {**self.about, **setting(config), "batch": n + 1}
        try:
            own, exact, recording = self.gradients(config, n)
            if config.dtype == "float32" and may_be_rounding(config, own, exact):
                record["error_float32"] = own.error(exact)
                own, exact, recording = self.gradients(config, n, double=True)
        except (SolveError, NoExactGradient) as error:
            return {**record, "failed": str(error)}
        in_field = field_parameters(self.model).__contains__
        record |= {
            "precision": "float64" if "error_float32" in record else config.dtype,
            "loss": own.loss,
            "gradient_norm": own.norm(),
            "error_steps": own.error(exact),
            "error_steps_field": own.error(exact, in_field),
            **self.difference(n, solver_of(config), recording, exact),
        }
        try:
            equation = self.reference(n, recording)
        except NoExactGradient as error:
            return {**record, **vars(own.cost), "no_reference": str(error)}
        return {
            **record,
            "error": own.error(equation),
            "error_field": own.error(equation, in_field),
            **vars(own.cost),
            "reference_rtol": self.tolerance,
            "reference_loss": equation.loss,
            "reference_norm": equation.norm(),
            "reference_nfe": equation.cost.nfe_forward,
        }

    def gradients(self, config: Config, n: int, double: bool = False) -> tuple[Gradient, Gradient, Recording]:
        """Return the gradient of `config` on batch `n`, the exact gradient of its steps, and their recorded decisions.

        The first is in the run's dtype, or in float64 if `double`.
        """
        objective, solver = self.objectives[n], solver_of(config)
        with objective.in_dtype(torch.float64 if double else build.dtype(config)) as in_own:
            own, recording = compute_gradient(in_own, solver), record_steps(in_own, solver)
        try:
            return own, gradient_of_steps(objective, solver, recording), recording
        except (RuntimeError, ValueError, TypeError) as error:
            if isinstance(error, SolveError) or is_out_of_memory(error):
                raise
            raise RequestError(
                f"the network fails in float64, which exact gradients need: {first_line(error)}\n"
                "  It should compute in the dtype of its input and hold its tensors as buffers."
            ) from error

    def reference(self, n: int, recording: Recording | None = None) -> Gradient:
        """Return the gradient of the equation on batch `n`, computed once; raise `NoExactGradient` if there is none."""
        if recording is not None and recording.random:
            raise NoExactGradient(RANDOM)
        if n not in self.references:
            self.references[n] = gradient_of_equation(self.objectives[n], self.tolerance)
        return self.references[n]

    def difference(self, n: int, solver: Solver, recording: Recording, exact: Gradient) -> dict[str, Any]:
        """Return the error of autograd on batch `n` by finite differences, and whether the loss `jumps`, so that they
        are unreliable; computed once, for the first steps given."""
        if n not in self.differences:
            again = partial(replaying_solver, solver, recording)
            error = finite_difference_error(self.objectives[n], again, exact)
            jumps = error > ROUNDING["float32"] and not judged_by_differences(self.objectives[n], exact.parts, again)
            self.differences[n] = {"error_difference": error, **({"jumps": True} if jumps else {})}
        return self.differences[n]


def may_be_rounding(config: Config, own: Gradient, exact: Gradient) -> bool:
    """Return whether float32 may be the cause of an error: the network drew other random numbers than in float64, or a
    gradient that should be exact for its steps has a larger error than the rounding of most networks."""
    too_large = not own.error(exact) <= ROUNDING["float32"]
    return own.random_state != exact.random_state or (config.gradient.method != "adjoint" and too_large)


def solver_of(config: Config) -> Solver:
    """Return the solver of the run's training, without `compile`, which changes only the rounding."""
    return build.solver(config.solver, build.gradient(config))


def setting(config: Config) -> dict[str, Any]:
    """Return the settings on which the gradient depends, flat; `backward_…` are those of the adjoint's own solve."""
    known = gradient_options(config.gradient.method)
    backward = gradient_solver(config).record() if "solver" in known else {}
    return {
        "gradient": config.gradient.method,
        **{name: getattr(config.gradient, name) for name in known if name != "solver"},
        **{f"backward_{name}": value for name, value in backward.items()},
        **config.solver.record(),
    }


class Limits(NamedTuple):
    """Hold the largest errors that pass.

    threshold   of the median gradient, relative to the reference
    rounding    of a gradient that is exact for its steps, relative to the exact one; None: depends on the dtype
    difference  of autograd on any batch, relative to finite differences of the loss
    """

    threshold: float
    rounding: float | None
    difference: float


@dataclass(frozen=True)
class Outcome:
    """Hold whether a gradient `passed`, the `reason`, and whether that is its error relative to the reference."""

    passed: bool
    reason: str
    by_reference: bool = False


def medians(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the median of each error; NaN if one value is NaN or missing."""
    names = ("error_steps", "error_steps_field", "error", "error_field")
    columns = {name: [record.get(name, math.nan) for record in records] for name in names}
    return {name: math.nan if any(map(math.isnan, c)) else statistics.median(c) for name, c in columns.items()}


def judge(records: Sequence[dict[str, Any]], limits: Limits) -> Outcome:
    """Return the outcome for a gradient from its records of all batches: the first failed limit or the median error."""
    failed = any("failed" in record for record in records)
    for record in [] if failed else records:
        if not record["error_difference"] <= limits.difference and "jumps" not in record:
            return Outcome(
                False,
                f"autograd differs from finite differences of the loss by {record['error_difference']:.1e}, not at "
                f"most difference={limits.difference:g}. Look for a detach, or for a backward of one's own",
            )
        times = rounding(record["gradient"])
        most = None if times is None else times * (limits.rounding or ROUNDING[record["precision"]])
        if most is not None and not record["error_steps"] <= most:
            return Outcome(
                False,
                f"the error against its own steps is {record['error_steps']:.1e}, not at most rounding={most:g}. "
                "The field is not the same in the backward pass",
            )
    by_reference = failed or "no_reference" not in records[0]
    error = medians(records)["error" if by_reference else "error_steps"]
    passed = not failed and error <= limits.threshold  # False for NaN
    reason = f"the median error against {'the reference' if by_reference else 'its own steps'} is {error:.1e}, "
    reason += f"{'at most' if passed else 'not at most'} threshold={limits.threshold:g}"
    return Outcome(passed, reason, by_reference)
