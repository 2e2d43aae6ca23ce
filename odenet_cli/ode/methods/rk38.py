"""Kutta's 3/8 rule, Z. Math. Phys. 46 (1901)."""

from odenet_cli.ode.tableau import Tableau

# b is Simpson's 3/8 rule: as many stages as rk4, and a somewhat smaller error (Hairer II.1).
METHOD = Tableau.parse(
    """
      0  |
     1/3 |  1/3
     2/3 | -1/3   1
      1  |   1   -1    1
    -----+---------------------
      b  |  1/8  3/8  3/8  1/8
    """,
    order=4,
)
