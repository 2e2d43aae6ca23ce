"""The items of `odenet reproduce`, one a file.

`result(entries, rest)` makes tables and figures of its runs; `facts` are the same in numbers, for what is expected.
"""
