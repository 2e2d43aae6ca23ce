"""Kutta's method of order 3, Z. Math. Phys. 46 (1901)."""

from odenet_cli.ode.tableau import Tableau

# b is Simpson's rule, of which one stage has the middle.
METHOD = Tableau.parse(
    """
      0  |
     1/2 | 1/2
      1  | -1    2
    -----+---------------
      b  | 1/6  2/3  1/6
    """,
    order=3,
)
