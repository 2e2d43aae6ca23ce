"""Tables and figures of the paper: plan, run and keep their cells, and compute their numbers again."""
