"""The items of `odenet reproduce`, one a file: what their runs found."""
