"""What is wrong with data, told at once: how often each kind, the first of it, and what mends it."""

from __future__ import annotations

from odenet_cli.errors import RequestError

MAX_KINDS = 9  # that are told; an error has at most 12 lines


class Faults:
    """Collect faults of the data at `where`, a file, a folder or a class."""

    def __init__(self, where: object) -> None:
        self.where, self.kinds = where, list[tuple[int, str]]()

    def add(self, text: str, remedy: str, count: int = 1) -> None:
        """Add a kind of fault that occurs `count` times; `remedy` names the option that mends it, or the way out."""
        self.kinds.append((count, f"{text}. {remedy}"))

    def raise_all(self) -> None:
        """Raise RequestError if there were any."""
        if not self.kinds:
            return
        if len(self.kinds) == 1:
            raise RequestError(f"{self.where}: {self.kinds[0][1]}")
        total = sum(count for count, _ in self.kinds)
        listed = [f"  {text}" for _, text in self.kinds[:MAX_KINDS]]
        more = [f"  and {len(self.kinds) - MAX_KINDS} kinds more"] if len(self.kinds) > MAX_KINDS else []
        raise RequestError(
            "\n".join([f"{self.where} has {total:,} faults of {len(self.kinds)} kinds.", *listed, *more])
        )
