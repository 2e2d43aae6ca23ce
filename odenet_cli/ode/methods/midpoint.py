"""Runge, "Über die numerische Auflösung von Differentialgleichungen", Math. Ann. 46 (1895): the midpoint rule."""

from odenet_cli.ode.tableau import Tableau

# The slope in the middle alone counts: b_1 is 0, and k_1 serves the second stage only.
METHOD = Tableau.parse(
    """
      0  |
     1/2 | 1/2
    -----+----------
      b  |  0    1
    """,
    order=2,
)
