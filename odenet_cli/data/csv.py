"""The old name of `data=table`."""

from __future__ import annotations

from typing import ClassVar

from odenet_cli.data import table


class Source(table.Source):
    """Options of `data=csv`: those of `data=table`."""

    used: ClassVar = "csv"
