"""Name the likely cause of a wrong gradient, by trying what would correct it, on the same samples.

Each trial changes one thing: the backward pass, the precision, the tolerance, the field's time, the outputs through
which the gradient enters. The cause is the change that removes the error.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from odenet_cli.ode import SolveError
from odenet_cli.training.certificate.backward import exact_steps, outputs, rounding, sign, time, tolerance
from odenet_cli.training.certificate.measure import MAX_FIELD_ERROR, REPEATED, WARNING, Cause, Check, named, percent
from odenet_cli.training.certificate.probe import look
from odenet_cli.training.evaluate import solved_by
from odenet_cli.training.exact_gradient.model_contexts import repeatable

LOOKS = 4  # inspections of a field that seems to repeat its values


def find_cause(check: Check, above: float = WARNING) -> Cause | None:
    """Return the likely cause of an error of the gradient of `check`; None if it is right.

    above  error above which trials are made; they take the time of several certificates
    """
    if check.coarse:
        return half_precision(check)
    # The error of the whole gradient: a large relative error of a tensor with a small gradient hardly changes the step.
    if check.error <= above and check.repeats and not check.missing and not check.unseen:
        return coarse_products(check)
    trials = (redrawn, misled, missing, overwritten, rounding, tolerance, time, sign, outputs)
    for trial in trials:
        try:
            cause = trial(check)
        except SolveError:
            continue  # a trial whose solve fails is inconclusive
        if cause is not None:
            return cause
    return coarse_products(check) or Cause("unknown", unknown(check))


def half_precision(check: Check) -> Cause:
    """Name the dtypes below the state's in which a field computes."""
    names = ", ".join(sorted(map(spelled_dtype, check.coarse)))
    return Cause(
        "half precision",
        f"the vector field computes in {names}, below the state's {spelled_dtype(check.dtype)}: an adaptive solve "
        "mistakes its rounding errors for errors of the step. Keep the field in the dtype of its input",
    )


def coarse_products(check: Check) -> Cause | None:
    """Name a field whose rounding errors are too large for the tolerance."""
    rtol = getattr(check.solver, "rtol", None)
    if rtol is None or check.field_error <= max(MAX_FIELD_ERROR, 10 * rtol):
        return None
    return Cause(
        "coarse products",
        f"the vector field is {check.field_error:.0e} off its own value in float64, and solver.rtol={rtol:g} needs a "
        "smaller error: products in TF32, or cancellation. Use dtype=float64, or a tolerance above that error",
    )


def redrawn(check: Check) -> Cause | None:
    """Name a field that has another value when evaluated again."""
    how, looks = "", list(check.looks)
    # Signs drawn for eight samples may well agree by chance once, but hardly in all of these evaluations.
    while max((each.repeated for each in looks), default=0.0) <= REPEATED and len(looks) < LOOKS * len(check.looks):
        looks += look(check.objective, check.solver)
    worst = max((each.repeated for each in looks), default=0.0)
    if worst > REPEATED:
        how = f"evaluated twice at the same time and state it differs by {percent(worst)}"
    elif check.recording.random and check.right(check.backprop()):
        how = "it draws random numbers, and the gradient is right if nothing is evaluated again (gradient=backprop)"
    if not how:
        return None
    if not check.recording.random and (cause := overwritten(check)) is not None:
        return cause
    drops = [n for n, m in check.model.named_modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0]
    what = f"dropout ({named(drops)})" if drops else "noise"
    return Cause(
        "redrawn",
        f"the vector field draws {what} again in the backward pass: {how}. Draw once before the solve, and pass it to "
        "the field",
    )


def misled(check: Check) -> Cause | None:
    """Name what misleads autograd: a tensor changed without its knowledge, or a detach."""
    if not check.misled and not check.unseen:
        return None
    if (cause := overwritten(check)) is not None:
        return cause
    names = check.unseen
    if not names:
        wrong = {name: check.errors_along((0, 1), [name])[0] for name in check.own.parts}
        names = [name for name in sorted(wrong, key=lambda name: -wrong[name]) if wrong[name] > WARNING / 2]
    time = " (output times have a gradient, and the field may detach t)" if any(e.times for e in check.looks) else ""
    return Cause(
        "detached",
        f"finite differences of the loss with respect to {named(names)} differ from autograd{time}: look for a "
        "detach, a tensor converted to a number (.item(), float()), or a custom backward. If this is intended, "
        "trainer.certify=0 turns these checks off",
    )


def missing(check: Check) -> Cause | None:
    """Name tensors that receive no gradient."""
    if not check.missing or not check.cures(dict.fromkeys(check.missing)):
        return None
    return Cause(
        "missing parameter",
        f"the backward pass misses {named(check.missing)}, whose gradient is exactly zero and should not be: pass "
        "tensors that inspection cannot find to the solve, solver(field, y0, ts, parameters=...)",
    )


def overwritten(check: Check) -> Cause | None:
    """Name parameters and buffers that are modified while the loss is computed, after a solve has read them."""
    norms = [m for m in check.model.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
    statistics = {id(buffer) for m in norms for buffer in m.buffers()}
    tensors: list[tuple[str, str, Tensor]] = [("parameter", *pair) for pair in check.model.named_parameters()]
    tensors += [("buffer", *pair) for pair in check.model.named_buffers() if id(pair[1]) not in statistics]
    with solved_by(check.model, check.solver), repeatable(check.model), torch.no_grad():
        before = [(kind, name, x, x.detach().clone()) for kind, name, x in tensors]
        check.objective.loss_fn(check.model, check.objective.batch)
        now = {**dict(check.model.named_parameters()), **dict(check.model.named_buffers())}
        written = [(kind, name) for kind, name, _, was in before if not torch.equal(now[name], was)]
    if not written or not (check.misled or not check.repeats or check.right(check.backprop())):
        return None
    kinds = {kind for kind, _ in written}
    return Cause(
        "stale buffer" if kinds == {"buffer"} else "changed field",
        f"{named([name for _, name in written])} is modified while the loss is computed, before the backward pass of "
        "an earlier solve: pass what changes between solves as arguments, solver(field, y0, ts, args=(u, ...))",
    )


def unknown(check: Check) -> str:
    """Describe an error whose cause is unknown."""
    name = max(check.by_tensor, key=lambda name: check.by_tensor[name])
    where = f"{name}, {percent(check.by_tensor[name])}"
    if check.right(check.backprop()):
        off = f"the backward pass differs from the exact gradient of the same steps, most in {where}"
        return f"{off}. {exact_steps(check)}"
    return f"it is largest in {where}; `odenet gradcheck` shows details"


def spelled_dtype(dtype: torch.dtype) -> str:
    """Return the dtype as a config names it."""
    return str(dtype).removeprefix("torch.")
