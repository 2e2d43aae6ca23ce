"""The items of `odenet reproduce`, one a file: `result(entries, rest)` makes tables, figures and facts of its runs."""
