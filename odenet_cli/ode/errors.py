"""How a solve can fail. Messages say where, and which setting to change by its key on the command line."""

from __future__ import annotations

from odenet_cli.errors import RunFailed


class SolveError(RunFailed):
    """Report a solve, or its backward pass, that failed."""


class PrecisionWarning(UserWarning):
    """Warn that a tolerance or a time is below the resolution of the dtype."""


class StepLimit(SolveError):
    """Report that more steps than `max_steps` were tried."""


class StepTooSmall(SolveError):
    """Report that the tolerance asks for steps below the resolution of time, or below `min_step`."""


class NotFinite(SolveError):
    """Report that the state, the field or an incoming gradient is NaN or infinite."""


class NotReversible(SolveError):
    """Report that the pair of a reversible solve has come apart, so that its steps cannot be undone."""


class NotCompiled(SolveError):
    """Report that `torch.compile` cannot make one graph of the field."""


class RandomField(SolveError, RuntimeError):
    """Report that the vector field draws random numbers where a gradient cannot draw the same again."""


class FieldChanged(SolveError, RuntimeError):
    """Report that the vector field has changed between the forward solve and the backward pass. A RuntimeError, like
    that of autograd for tensors that were changed in place."""
