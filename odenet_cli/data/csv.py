"""The old name of `data=table`."""

from odenet_cli.data.table import Source

__all__ = ["Source"]
