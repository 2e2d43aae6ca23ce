"""Kutta, "Beitrag zur näherungsweisen Integration totaler Differentialgleichungen", Z. Math. Phys. 46 (1901)."""

from odenet_cli.ode.tableau import Tableau

# b is Simpson's rule, of which two stages share the middle.
METHOD = Tableau.parse(
    """
      0  |
     1/2 | 1/2
     1/2 |  0   1/2
      1  |  0    0    1
    -----+--------------------
      b  | 1/6  1/3  1/3  1/6
    """,
    order=4,
)
