"""Euler, "Institutionum calculi integralis" (1768)."""

from odenet_cli.ode.tableau import Tableau

# y1 = y + h f(t, y): a residual block x + f(x) is this step with h = 1 (Chen et al. 2018, equation 1).
METHOD = Tableau.parse(
    """
     0 |
    ---+---
     b | 1
    """,
    order=1,
)
