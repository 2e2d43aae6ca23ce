"""Ralston, "Runge-Kutta methods with minimum error bounds", Math. Comp. 16 (1962): order 2."""

from odenet_cli.ode.tableau import Tableau

# c_2 = 2/3 makes the bound on the error of third order the least that two stages can have.
METHOD = Tableau.parse(
    """
      0  |
     2/3 | 2/3
    -----+----------
      b  | 1/4  3/4
    """,
    order=2,
)
