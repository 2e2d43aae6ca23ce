"""Euler, "Institutionum calculi integralis" (1768)."""

from odenet_cli.ode.tableau import Tableau

METHOD = Tableau.parse(
    """
     0 |
    ---+---
     b | 1
    """,
    order=1,
)
