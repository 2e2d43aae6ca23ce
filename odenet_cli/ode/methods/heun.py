"""Heun, "Neue Methoden zur approximativen Integration", Z. Math. Phys. 45 (1900): the trapezoidal rule, explicit."""

from odenet_cli.ode.tableau import Tableau

METHOD = Tableau.parse(
    """
     0 |
     1 |  1
    ---+----------
     b | 1/2  1/2
    """,
    order=2,
)
