"""Bogacki & Shampine, "A 3(2) pair of Runge-Kutta formulas", Appl. Math. Lett. 2 (1989)."""

from odenet_cli.ode.tableau import Tableau

# The last row of a is b (FSAL): the fourth stage, which only b* weighs, is the next step's first.
METHOD = Tableau.parse(
    """
      0  |
     1/2 |  1/2
     3/4 |   0    3/4
      1  |  2/9   1/3   4/9
    -----+---------------------------
      b  |  2/9   1/3   4/9    0
      b* |  7/24  1/4   1/3   1/8
    """,
    order=3,
)
