"""What can be wrong with a solve: one file a cause.

Each has `find(solve)`, which returns None where its cause does not show. Their thresholds were chosen on the problems
of `tests/ode/sick_problems.py` that are not held out.
"""
