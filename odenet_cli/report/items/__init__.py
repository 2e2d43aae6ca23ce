"""The items of `odenet reproduce`, one per file.

`result(entries, rest)` makes tables and figures of the item's runs; its `facts` are the numbers for expectations.
"""
