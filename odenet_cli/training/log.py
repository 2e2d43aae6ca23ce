"""Log a run: `metrics.jsonl` holds all records, and a board such as TensorBoard shows the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from odenet_cli.config.schema import Config
from odenet_cli.metrics import MetricsFile, read_metrics
from odenet_cli.training.boards import BOARDS, say_left


class Logbook:
    """Write each record to both places. For a continued run the board is made again from the kept records.

    size  bytes of `metrics.jsonl` to keep
    """

    def __init__(self, folder: Path, config: Config, size: int = 0) -> None:
        self.metrics = MetricsFile(folder, size)
        say_left(folder, config.logger)
        self.board = BOARDS[config.logger](folder, config)
        for record in read_metrics(folder):
            self.board.add(record)
        self.flush()

    def write(self, record: dict[str, Any]) -> None:
        self.metrics.write(record)
        self.board.add(record)

    def flush(self) -> int:
        """Hand all that was written to the system, so that a kill loses none; return the bytes of `metrics.jsonl`."""
        self.board.flush()
        return self.metrics.size

    def close(self) -> None:
        self.metrics.close()
        self.board.close()
