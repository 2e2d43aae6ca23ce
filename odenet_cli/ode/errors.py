"""How a solve can fail. Every error says where it happened and which setting to turn."""

from __future__ import annotations

from odenet_cli.errors import RunFailed


class SolveError(RunFailed):
    """A solve that could not reach its end time."""


class PrecisionWarning(UserWarning):
    """What is asked for is below the resolution of the dtype."""


class StepLimit(SolveError):
    """More steps than `max_steps` were tried."""


class StepTooSmall(SolveError):
    """The tolerance asks for steps below the resolution of time, or below `min_step`."""


class NotFinite(SolveError):
    """The state, the field or an incoming gradient is NaN or infinite."""


class NotReversible(SolveError):
    """The pair of a reversible solve has come apart, so that its steps cannot be undone."""


class NotCompiled(SolveError):
    """`torch.compile` cannot make one graph of the field."""


class RandomField(SolveError, RuntimeError):
    """The vector field draws random numbers where a gradient cannot draw the same again."""


class FieldChanged(SolveError, RuntimeError):
    """The vector field is not, in the backward pass, what it was in the forward solve. Autograd's own check of tensors
    that were changed in place raises a RuntimeError too."""
