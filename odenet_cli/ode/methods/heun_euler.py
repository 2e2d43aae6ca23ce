"""Heun's method with Euler's inside it, the pair of order 2(1) (Hairer, Nørsett & Wanner, "Solving ODEs I", II.4)."""

from odenet_cli.ode.tableau import Tableau

# Euler's step is there in any case: the estimate costs no stage, and is the cheapest there is.
METHOD = Tableau.parse(
    """
     0 |
     1 |  1
    ---+----------
     b | 1/2  1/2
     b*|  1    0
    """,
    order=2,
)
