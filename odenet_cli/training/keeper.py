"""What a run's checkpoints hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from odenet_cli.errors import RunFailed
from odenet_cli.training import checkpoint, generators
from odenet_cli.training.failure import broken, circumstances
from odenet_cli.training.log import Logbook
from odenet_cli.training.loop import Session
from odenet_cli.training.sound import fingerprint

FAILED = "failed.pt"


class Keeper:
    """Writes the checkpoints `last.pt` and `best.pt`, and where a run fails `failed.pt`."""

    def __init__(self, folder: Path, logbook: Logbook) -> None:
        self.folder, self.logbook = folder, logbook

    def last(self, session: Session) -> None:
        """Everything a run needs to go on to the same bits."""
        content = {
            **self._weights(session),
            "optimizer": self._sound(session, session.optimizer.state_dict(), "the optimiser's state "),
            **generators.packed(generators.states(session.device)),
            "position": session.position,
            "validated": session.validated,
            "best": session.best,
            "elapsed_s": session.elapsed_s,
            "window": session.window.state(),
            "metrics_bytes": self.logbook.flush(),
        }
        checkpoint.save(self.folder / "last.pt", content)

    def best(self, session: Session) -> None:
        checkpoint.save(self.folder / "best.pt", self._weights(session))

    def failed(self, session: Session, split: str, batch: Any, before: tuple[Any, ...]) -> None:
        """The step that could not be made, or the scoring of `split`: as it was `before`, weights, batch and all."""
        content = {
            **self._weights(session),
            "optimizer": session.optimizer.state_dict(),
            **generators.packed(before),
            "position": session.position,
            "good": session.good,
            "split": split,
            "batch": [part if isinstance(part, torch.Tensor) else None for part in batch],
        }
        (self.folder / FAILED).unlink(missing_ok=True)  # only the latest is of use
        checkpoint.save(self.folder / FAILED, content)

    def _weights(self, session: Session) -> dict[str, Any]:
        weights = self._sound(session, session.model.state_dict())
        config = fingerprint(session.config)
        return {"config": config, "model": weights, "step": session.step, "epoch": session.epoch}

    @staticmethod
    def _sound(session: Session, state: dict[str, Any], what: str = "") -> dict[str, Any]:
        name = broken(state)
        if name is not None:
            raise RunFailed(
                f"the run diverged: {what}{name} is NaN or infinite after step {session.step}, "
                f"at {circumstances(session)}.\n  Lower optim.lr."
            )
        return state
