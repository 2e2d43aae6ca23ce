"""Ordinary differential equations in PyTorch: solvers, and gradients through them.

>>> from odenet_cli.ode import Adaptive
>>> solve = Adaptive(method="dopri5", rtol=1e-6, atol=1e-6, gradient="adjoint")
>>> y, stats = solve(lambda t, y: -y, torch.ones(3), torch.tensor([0.0, 1.0]))
>>> path = solve.dense(lambda t, y: -y, torch.ones(3), [0.0, 1.0])
>>> path(0.3)
"""

from odenet_cli.ode.dense_solution import DenseSolution
from odenet_cli.ode.diagnosis import Report, doctor
from odenet_cli.ode.errors import (
    FieldChanged,
    NotCompiled,
    NotFinite,
    NotReversible,
    PrecisionWarning,
    RandomField,
    SolveError,
    StepLimit,
    StepTooSmall,
)
from odenet_cli.ode.event import Crossing
from odenet_cli.ode.methods import method
from odenet_cli.ode.solver import Adaptive, Fixed, Solution, Solver
from odenet_cli.ode.stats import Stats, tally
from odenet_cli.ode.tableau import Tableau

__all__ = [
    "Adaptive",
    "Crossing",
    "DenseSolution",
    "FieldChanged",
    "Fixed",
    "NotCompiled",
    "NotFinite",
    "NotReversible",
    "PrecisionWarning",
    "RandomField",
    "Report",
    "Solution",
    "SolveError",
    "Solver",
    "Stats",
    "StepLimit",
    "StepTooSmall",
    "Tableau",
    "doctor",
    "method",
    "tally",
]
