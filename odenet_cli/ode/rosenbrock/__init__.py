"""Rosenbrock methods for stiff fields: formulas, a step by the Jacobian of the field, loops over steps."""
