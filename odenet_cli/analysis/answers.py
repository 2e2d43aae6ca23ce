"""Predict each sample by the trained network of a run: a class and probabilities, or values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from odenet_cli import data as datasets
from odenet_cli.analysis.trained import Trained, known_data, trained
from odenet_cli.config.resolve import eval_batch, eval_solver
from odenet_cli.config.schema import Config
from odenet_cli.data import Split
from odenet_cli.scores import value_names
from odenet_cli.terminal import percent
from odenet_cli.training import build
from odenet_cli.training.evaluate import converted, scoring


def answers(folder: Path, config: Config, which: str) -> tuple[pl.DataFrame, str]:
    """Return the predictions of the run's `best` or `last` weights beside the true values, and a summary of the errors.

    For a user's own data these are all samples, in their order; for a data set with its own test split, that split.
    """
    net, record = trained(folder, config, which, eval_batch(config), predicted=True), known_data(folder)
    own = datasets.own_samples(*config.source(), record)
    splits: dict[Any, Any] = {"test": net.data.test}
    if own is not None:
        splits = {**net.splits(eval_batch(config)), None: net.data.unlabelled}
    parts = {name: _ask(net, split, config) for name, split in splits.items()}
    output, truth = (torch.cat([part[n] for part in parts.values()]) for n in (0, 1))
    unlabelled = len(parts[None][0]) if own else 0
    known = len(output) - unlabelled
    judged = slice(0 if net.other_data else known - len(parts["test"][0]), known)
    places, truth = (own.row, own.y) if own else (torch.arange(len(output)), truth)
    split_known = own and not net.other_data
    columns = {"file": [own.names[n] for n in places.tolist()]} if own and own.names else {}
    columns |= {"split": [name for name, part in parts.items() for _ in part[0]]} if split_known else {}
    if net.data.task == "regression":
        more, line = _values(output, truth, record, judged)
    else:
        more, line = _classes(output, truth, record.get("classes") or [], judged)
    if not known:
        more = {name: column for name, column in more.items() if name not in ("label", *value_names(record))}
        line = "the data have no y to compare with"
    elif not net.other_data or unlabelled:
        line += f" ({len(output[judged]):,} samples{'' if net.other_data else ' of the test'})"
        line += f"; {unlabelled:,} samples without y are only predicted" if unlabelled else ""
    frame = (
        pl.DataFrame(columns | more | {"sample": places.numpy()}).select("sample", pl.exclude("sample")).sort("sample")
    )
    return frame, line


def _ask(net: Trained, split: Split, config: Config) -> tuple[Tensor, Tensor]:
    """Return the network's output and the true values for every sample of a split, on the CPU."""
    dtype, outputs, truths = build.eval_dtype(config), [], []
    with torch.no_grad(), scoring(net.model, build.solver(eval_solver(config)), dtype) as model:
        for batch in split.epoch(0):
            x, y, *_ = converted(batch, dtype)
            outputs.append(model(x).cpu())
            truths.append(y.cpu())
    if not outputs:
        return torch.empty(0, net.data.classes, dtype=dtype), split.rows[1].cpu()  # type: ignore[attr-defined]
    return torch.cat(outputs), torch.cat(truths)


def _classes(logits: Tensor, label: Tensor, names: list[str], judged: slice) -> tuple[dict[str, list[object]], str]:
    """Return columns of label, class and probabilities, named by class if classes have names, and the error rate."""
    p, predicted = logits.softmax(1), logits.argmax(1)
    named = names or range(p.shape[1])
    columns: dict[str, list[object]] = {
        "label": [named[k] if k >= 0 else None for k in label],
        "class": [named[k] for k in predicted],
    }
    columns |= {f"p{name}" if not names else f"p_{name}": p[:, k].tolist() for k, name in enumerate(named)}
    wrong = (predicted != label)[judged].float().mean()
    chosen = p.gather(1, predicted[:, None])[judged].mean()
    return columns, f"error {percent(float(wrong))}; mean probability of the predicted class {percent(float(chosen))}"


def _values(
    output: Tensor, truth: Tensor, record: Mapping[str, Any], judged: slice
) -> tuple[dict[str, list[object]], str]:
    """Return columns of the true and the predicted values, in the data's units, and the root mean square error."""
    mean, sd = (torch.tensor(record[key], dtype=torch.float64) for key in ("y_mean", "y_sd"))
    predicted, y = output.double() * sd + mean, truth
    columns, names = dict[str, list[object]](), value_names(record)
    for k, name in enumerate(names):
        known = [None if math.isnan(value) else value for value in y[:, k].tolist()]
        columns |= {name: known, f"{name}_predicted": predicted[:, k].tolist()}
    errors = (predicted - y)[judged].square().mean(0).sqrt().tolist()
    told = [f"{name} {error:.4g}" if len(names) > 1 else f"{error:.4g}" for name, error in zip(names, errors)]
    return columns, f"RMSE {', '.join(told)}"
