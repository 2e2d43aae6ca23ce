"""A finished run, looked at: its gradient, its steps, its networks under other solvers."""
