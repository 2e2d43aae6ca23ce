"""The old name of `data=table`."""

from __future__ import annotations

from odenet_cli.data import table


class Source(table.Source):
    """Options of `data=csv`: those of `data=table`."""
