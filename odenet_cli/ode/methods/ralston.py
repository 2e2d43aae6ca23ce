"""Ralston, "Runge-Kutta methods with minimum error bounds", Math. Comp. 16 (1962): order 2."""

from odenet_cli.ode.tableau import Tableau

METHOD = Tableau.parse(
    """
      0  |
     2/3 | 2/3
    -----+----------
      b  | 1/4  3/4
    """,
    order=2,
)
