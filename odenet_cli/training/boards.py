"""Show the records of a run while it trains, by the key `logger`: in TensorBoard, Weights & Biases, or nowhere."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from odenet_cli.config.schema import Config
from odenet_cli.errors import RequestError, RunFailed
from odenet_cli.scores import ERROR, SCORE_NAMES, scores_of

log = logging.getLogger("odenet")
TAGS = {  # of all but the metrics of the task, whose tags are name/split
    ERROR.name: "error_percent/{split}",
    "nfe_forward": "nfe/forward",
    "nfe_backward": "nfe/backward",
    "nfe_certify": "nfe/certify",
    "gradient_error": "gradient/relative_error",
    "accepted": "steps/accepted",
    "rejected": "steps/rejected",
    "saved_mib": "memory/saved_mib",
    "peak_mib": "memory/peak_mib",
    "step_ms": "time/step_ms",
    "lr": "lr",
}
NOT_DRAWN = ("step", "epoch", "split", "vjps", "time_s", "epoch_s")
SHOWN_HPARAMS = ("model", "solver", "rtol", "gradient", "seed")
LAYOUT = {
    "odenet": {
        "field evaluations": ["Multiline", ["nfe/forward", "nfe/backward"]],
        "error (%)": ["Multiline", ["error_percent/train", "error_percent/valid", "error_percent/test"]],
        "loss": ["Multiline", ["loss/train", "loss/valid", "loss/test"]],
        "memory (MiB)": ["Multiline", ["memory/saved_mib", "memory/peak_mib"]],
    }
}


def tag(name: str, split: str) -> str:
    """Return the name under which a board shows a number of a record."""
    return TAGS.get(name, name + "/{split}").format(split=split)


def scalars(record: dict[str, Any]) -> dict[str, float]:
    """Return the numbers that a board shows of a record, by tag; errors in percent, as on the terminal."""
    split = record["split"]
    shown = {name: value for name, value in record.items() if name not in NOT_DRAWN and value is not None}
    if split != "train":  # counters of the other splits would mix with those of training in one curve
        shown = {name: value for name, value in shown.items() if "{split}" in TAGS.get(name, "{split}")}
    return {tag(name, split): value * (ERROR.factor if name == ERROR.name else 1) for name, value in shown.items()}


class Board:
    """Show nothing: `logger=none`."""

    def __init__(self, folder: Path, config: Config) -> None:
        self.folder, self.config = folder, config

    def add(self, record: dict[str, Any]) -> None:
        """Show one record of one (step, split)."""

    def add_images(self, images: Iterable[Path], step: int) -> None:
        """Show PNG files under their names."""

    def flush(self) -> None:
        """Hand all that was written to the system, so that a kill loses none."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard(Board):
    """Write event files into the run's folder; for a continued run write all of them again."""

    def __init__(self, folder: Path, config: Config) -> None:
        import yaml
        from torch.utils.tensorboard import SummaryWriter

        super().__init__(folder, config)
        # After a kill they may hold steps that are made again, or half an event.
        for path in folder.glob("events.out.*"):
            path.unlink()
        self.writer = SummaryWriter(str(folder))
        self.writer.add_custom_scalars(LAYOUT)
        content = {key: value for key, value in asdict(config).items() if key != "reproduce"}
        text = yaml.safe_dump(content, sort_keys=False)
        self.writer.add_text("config", textwrap.indent(text, "    "))  # a block of code in Markdown
        self.described = False

    def add(self, record: dict[str, Any]) -> None:
        for name, value in scalars(record).items():
            self.writer.add_scalar(name, value, record["step"])
        if record["split"] != "train" and not self.described:  # only now is it known what the task is judged by
            self._add_hparams(record)
            self.described = True

    def add_images(self, images: Iterable[Path], step: int) -> None:
        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary

        for path in images:  # as they are: `SummaryWriter.add_image` would take pixels, and make PNG of them again
            with Image.open(path) as image:
                size = {"width": image.width, "height": image.height, "colorspace": len(image.getbands())}
            content = Summary.Image(encoded_image_string=path.read_bytes(), **size)
            summary = Summary(value=[Summary.Value(tag=f"figures/{path.stem}", image=content)])
            self.writer._get_file_writer().add_summary(summary, step)  # type: ignore[no-untyped-call]

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()

    def _add_hparams(self, record: dict[str, Any]) -> None:
        """Write them to this run's own event file: `SummaryWriter.add_hparams` would make a second, ghost run of it.

        TensorBoard takes the columns of all runs from any one of them, sorts them by name and shows five, those first
        that are marked as differing. So every run names all columns, the solver's too where it has none.
        """
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
        from torch.utils.tensorboard.summary import hparams

        config = self.config
        solver = {"solver": config.solver.method, "rtol": config.solver.rtol, "steps": config.solver.steps}
        follows = not config.optim.least_squares  # a gradient, at a learning rate
        settings = {
            "model": config.name,
            **(solver if record["nfe_forward"] else {}),
            **({"gradient": config.gradient.method} if record["nfe_forward"] and follows else {}),
            "seed": config.seed,
            "data": config.data["name"],
            **({"lr": config.optim.lr} if follows else {}),
            "batch_size": config.trainer.batch_size,
            **{f"model.{key}": value for key, value in config.model.items()},
        }
        plain = {key: value for key, value in settings.items() if isinstance(value, (bool, int, float, str))}
        names = [*(score.name for score in scores_of(record)), "loss", "nfe_forward", "nfe_backward", "saved_mib"]
        names += SCORE_NAMES  # of other tasks, whose runs may lie beside this one
        columns, *_ = hparams(  # type: ignore[no-untyped-call]
            {"solver": "", "rtol": 0.0, "steps": 0, "gradient": "", "lr": 0.0} | plain,
            dict.fromkeys((tag(name, "test") for name in names), 0.0),
        )
        plugin = columns.value[0].metadata.plugin_data
        content = HParamsPluginData.FromString(plugin.content)
        for info in content.experiment.hparam_infos:
            info.differs = info.name in SHOWN_HPARAMS
        plugin.content = content.SerializeToString()
        writer = self.writer._get_file_writer()  # type: ignore[no-untyped-call]
        for summary in (columns, *hparams(plain, {})[1:]):  # type: ignore[no-untyped-call]
            writer.add_summary(summary)


class Wandb(Board):
    """Log a run of Weights & Biases, its files in the run's folder; `WANDB_MODE=offline` keeps it on this machine.

    Where the run goes on, so does that of the same id; one that is offline is written anew.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        import wandb

        super().__init__(folder, config)
        before = sorted((folder / "wandb").glob("*run-*-*"))
        for path in before:
            if path.name.startswith("offline-"):
                shutil.rmtree(path)
        try:
            self.run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "odenet"),
                name=folder.name,
                dir=folder,
                config=asdict(config),
                id=before[-1].name.rpartition("-")[2] if before else None,
                resume="allow",
                settings=wandb.Settings(console="off", symlink=False),  # a run goes on in no folder with links
            )
        except wandb.errors.Error as error:
            wrong = isinstance(error, (wandb.errors.UsageError, wandb.errors.AuthenticationError))  # nobody logged in
            raise (RequestError if wrong else RunFailed)(
                f"logger=wandb: {error}\n  `wandb login` once, or WANDB_MODE=offline, or logger=tensorboard."
            ) from error

    def add(self, record: dict[str, Any]) -> None:
        if record["step"] >= self.run.starting_step:  # what it has already it does not take again
            self.run.log(scalars(record), step=record["step"])

    def add_images(self, images: Iterable[Path], step: int) -> None:
        import wandb

        self.run.log({f"figures/{path.stem}": wandb.Image(str(path)) for path in images}, step=step)

    def close(self) -> None:
        self.run.finish(exit_code=int(sys.exc_info()[0] is not None))


BOARDS = {"tensorboard": TensorBoard, "wandb": Wandb, "none": Board}
FILES = {"tensorboard": "events.out.*", "wandb": "wandb/*run-*-*"}  # of a board in the run's folder


def say_left(folder: Path, logger: str) -> None:
    """Warn of files that another board left in the folder of a continued run; they are the user's to delete."""
    for name, pattern in FILES.items():
        if name != logger and any(folder.glob(pattern)):
            log.warning(
                "logger=%s: what %s shows of this run ends where it was stopped. logger=%s would show all of it.",
                *(logger, name, name),
            )


def check_installed(config: Config) -> None:
    """Raise `RequestError` if the package that `logger` names is not there."""
    if config.logger != "wandb":
        return
    package = importlib.util.find_spec("wandb")
    if package is None or package.origin is None:  # a folder of runs of that name is a package to Python too
        raise RequestError(
            'logger=wandb needs the package wandb: pip install -e ".[wandb]"\n  Or choose logger=tensorboard.'
        )
