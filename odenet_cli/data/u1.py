"""Energy U1 of Rezende & Mohamed (2015): two half moons on a ring, within the wall of `_energies`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from odenet_cli.data.common.energies import Energy


@dataclass(frozen=True, kw_only=True)
class Source(Energy):
    """It has no options."""

    name: ClassVar = "u1"
