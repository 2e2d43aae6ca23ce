"""What a run leaves behind while it runs: `metrics.jsonl`, the truth, and TensorBoard, a view of the same records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from odenet_cli.config.schema import Config
from odenet_cli.rundir import MetricsFile, read_metrics

TAGS = {  # of all but the metrics of the task, whose tags are name/split
    "nfe_forward": "nfe/forward",
    "nfe_backward": "nfe/backward",
    "accepted": "steps/accepted",
    "rejected": "steps/rejected",
    "saved_mib": "memory/saved_mib",
    "peak_mib": "memory/peak_mib",
    "step_ms": "time/step_ms",
    "lr": "lr",
}
NOT_DRAWN = ("step", "epoch", "split", "vjps", "time_s", "epoch_s")
LAYOUT = {
    "odenet": {
        "field evaluations": ["Multiline", ["nfe/forward", "nfe/backward"]],
        "error": ["Multiline", ["error/train", "error/valid", "error/test"]],
        "loss": ["Multiline", ["loss/train", "loss/valid", "loss/test"]],
        "memory (MiB)": ["Multiline", ["memory/saved_mib", "memory/peak_mib"]],
    }
}


def add_images(folder: Path, images: list[Path], step: int) -> None:
    """Add PNG files to the run's TensorBoard, under their names."""
    import numpy
    from PIL import Image
    from torch.utils.tensorboard import SummaryWriter

    board = SummaryWriter(str(folder))
    for path in images:
        pixels = numpy.asarray(Image.open(path).convert("RGB"))
        board.add_image(f"figures/{path.stem}", pixels, step, dataformats="HWC")
    board.close()


class Logbook:
    """Write each record to both places. Where a run goes on, TensorBoard's files are made again from the records kept.

    size  bytes of `metrics.jsonl` to keep
    """

    def __init__(self, folder: Path, config: Config, size: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.metrics = MetricsFile(folder, size)
        # After a kill they may hold steps that are made again, or half an event.
        for path in folder.glob("events.out.*"):
            path.unlink()
        self.board = SummaryWriter(str(folder))
        self.board.add_custom_scalars(LAYOUT)
        self._hparams(config)
        for record in read_metrics(folder):
            self._draw(record)
        self.flush()

    def write(self, record: dict[str, Any]) -> None:
        """Write one record of one (step, split)."""
        self.metrics.write(record)
        self._draw(record)

    def _draw(self, record: dict[str, Any]) -> None:
        split = record["split"]
        for name, value in record.items():
            tag = None if name in NOT_DRAWN else TAGS.get(name, name + "/{split}")
            # Counters of the other splits would mix with those of training in one curve.
            if tag and value is not None and (split == "train" or "{split}" in tag):
                self.board.add_scalar(tag.format(split=split), value, record["step"])

    def flush(self) -> int:
        """Hand all that was written to the system, so that a kill loses none; return the bytes of `metrics.jsonl`."""
        self.board.flush()
        return self.metrics.size

    def close(self) -> None:
        """Close both."""
        self.metrics.close()
        self.board.close()

    def _hparams(self, config: Config) -> None:
        """Write them to this run's own event file: `SummaryWriter.add_hparams` would make a second, ghost run of it."""
        from torch.utils.tensorboard.summary import hparams

        settings = {
            "model": config.name,
            "solver": config.solver.method,
            "rtol": config.solver.rtol,
            "steps": config.solver.steps,
            "gradient": config.gradient.method,
            "lr": config.optim.lr,
            "batch_size": config.trainer.batch_size,
            "data": config.data["name"],
            "seed": config.seed,
            **{f"model.{key}": value for key, value in config.model.items()},
        }
        plain = {key: value for key, value in settings.items() if isinstance(value, (bool, int, float, str))}
        metrics = dict.fromkeys(("error/test", "loss/test", "nfe/forward", "nfe/backward", "memory/saved_mib"), 0.0)
        writer = self.board._get_file_writer()  # type: ignore[no-untyped-call]
        for summary in hparams(plain, metrics):  # type: ignore[no-untyped-call]
            writer.add_summary(summary)
