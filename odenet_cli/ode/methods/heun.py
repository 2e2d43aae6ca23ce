"""Heun, "Neue Methoden zur approximativen Integration", Z. Math. Phys. 45 (1900): the trapezoidal rule, explicit."""

from odenet_cli.ode.tableau import Tableau

# The y1 on the trapezoidal rule's right-hand side is predicted by a step of Euler's.
METHOD = Tableau.parse(
    """
     0 |
     1 |  1
    ---+----------
     b | 1/2  1/2
    """,
    order=2,
)
