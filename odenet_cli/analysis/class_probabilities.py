"""Ask the trained classifier of a run for class and probabilities of each test sample (`odenet predict`)."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import torch

from odenet_cli.analysis.trained import trained
from odenet_cli.config.resolve import eval_batch, eval_solver
from odenet_cli.config.schema import Config
from odenet_cli.training import build
from odenet_cli.training.evaluate import converted, scoring


def class_probabilities(folder: Path, config: Config, which: str) -> tuple[pl.DataFrame, str]:
    """Return label, class and probabilities by the run's `best` or `last` weights, and in words the share of errors."""
    net, dtype = trained(folder, config, which, eval_batch(config)), build.eval_dtype(config)
    labels, parts = [], []
    with torch.no_grad(), scoring(net.model, build.solver(eval_solver(config)), dtype) as model:
        for batch in net.data.test.epoch(0):
            x, label = converted(batch, dtype)
            parts.append(model(x).softmax(1).cpu())
            labels.append(label.cpu())
    p, label = torch.cat(parts), torch.cat(labels)
    predicted = p.argmax(1)
    columns = {"sample": range(len(p)), "label": label.tolist(), "class": predicted.tolist()}
    frame = pl.DataFrame(columns | {f"p{k}": p[:, k].tolist() for k in range(p.shape[1])})
    chosen = p.gather(1, predicted[:, None]).mean()
    return frame, f"{(predicted != label).float().mean():.2%} wrong; the class is given {chosen:.2%} on average"
