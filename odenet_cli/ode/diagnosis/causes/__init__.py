"""Causes of trouble in a solve, one per file.

Each has `find(solve)`, which returns None if its cause is not found. Thresholds were chosen on those problems of
`tests/ode/sick_problems.py` that are not held out.
"""
