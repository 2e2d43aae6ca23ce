"""Compute the numbers of one kept cell again: from its log, from its weights, or by taking its first steps again.

Numbers are equal if they are the same, or if rounding explains the difference, since another CPU adds in another order.
The effect of rounding is measured only where a number is not the same (`near_ties`, `nfe_range`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import zip_longest
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor

from odenet_cli.analysis.trained import needs_float64, weights_of_run
from odenet_cli.config.resolve import eval_solver
from odenet_cli.config.saved import load
from odenet_cli.config.schema import Config, SolverConfig
from odenet_cli.ode import Stats
from odenet_cli.report.runs import Run, read_run
from odenet_cli.reproduce import kept_cells
from odenet_cli.training import build
from odenet_cli.training.evaluate import converted, evaluate, scoring, unwatched
from odenet_cli.training.identity import check_same_data
from odenet_cli.training.loop import fit, loss_and_gradients
from odenet_cli.training.run import assemble, close, save_figure_data
from odenet_cli.training.session import Session

EQUAL, DIFFERS, UNCHECKED = "equal", "differs", "cannot be checked here"
TIMES = {"step_ms", "epoch_s", "time_s", "peak_mib"}  # of a machine and its other work; peak_mib of a GPU's allocator
COUNTS = {field.name for field in fields(Stats)}

SUM_RTOL = 1e-6  # two sums of the same numbers in another order
MARGIN = 8  # a class is in doubt where its logit leads by less than so many times the largest rounding error of a logit
TOLERANCE_SHIFT = 1e-3  # relative change of a tolerance that changes the choice of steps at least as rounding does
TF32_ERROR, TF32_TOLERANCE_SHIFT = 2.0**-11, 0.5  # of a GPU: its rounding in convolutions, and the same change for it
# What rounding makes of the records of a few optimiser steps. With the vector instructions of another CPU (AVX-512 and
# SSE4.1) losses were apart by at most 8e-5, evaluations of the adjoint at 1e-4 by 7.5 %.
STEPS_RTOL = {"loss": 1e-3, "nfe_backward": 0.15}
MEASURED_RTOL, MEASURED_NFE, MEASURED_SAMPLES = 0.01, 7, 3  # of a measurement: one step of a solve; samples of a list
# Of one cell, by its own record of them. A cell of more steps is there for their times alone, which are not compared.
MAX_STEPS, MAX_STEPS_S = 20, 20.0


class Check(NamedTuple):
    """Hold one number of a cell: as it was committed, as it is here, and whether they are equal."""

    name: str
    committed: Any
    here: Any
    verdict: str
    reason: str = ""

    def within(self, equal: bool, reason: str) -> Check:
        """Return the check as equal or different for a `reason`, such as what rounding explains."""
        return self._replace(verdict=EQUAL if equal else DIFFERS, reason=reason)


def compare(name: str, committed: Any, here: Any, equal: bool | None = None, reason: str = "") -> Check:
    """Return a check of two values, judged by `equal` where it is given, else by whether they are the same."""
    return Check(name, committed, here, EQUAL if (committed == here if equal is None else equal) else DIFFERS, reason)


def is_close(a: Any, b: Any, rtol: float) -> bool:
    """Return whether two values are equal; floats to a relative error."""
    if isinstance(a, float) and isinstance(b, (int, float)):
        return a == b or math.isclose(a, b, rel_tol=rtol)
    return bool(a == b)


def from_log(run: Run) -> Iterator[Check]:
    """Compare the final numbers of a run with those of its log, from which pages take the NFE of a step."""
    final, train, valid, test = run.record["final"], run.records("train"), run.records("valid"), run.records("test")[-1]
    here = {name: value for name, value in test.items() if name in final and name not in COUNTS | TIMES}
    here |= {"nfe_test": test["nfe_forward"], "saved_mib": max(record["saved_mib"] for record in train)}
    if "gradient_error" in final:
        here["gradient_error"] = max((r["gradient_error"] for r in train if "gradient_error" in r), default=None)
    if valid:
        score = "error" if "error" in valid[0] else "loss"
        best = min(valid, key=lambda record: (record[score], record["loss"]))
        here |= {"best_epoch": best["epoch"], "valid_loss": best["loss"], "valid_error": best.get("error")}
    for name, value in here.items():
        yield compare(name, final.get(name), value)


def open_session(folder: Path, config: Config, run: Run) -> Session:
    """Return network and data of a cell on this machine; raises where the data are others."""
    needs_float64("verify", config)
    where = build.choose_device(config)
    session = assemble(config, where)
    check_same_data(run.record.get("data") or {}, session.data.record, folder)
    return session


def from_weights(folder: Path, config: Config, run: Run) -> Iterator[Check]:
    """Score the weights in `folder` again, on test and validation samples, and take one step from them."""
    session, final = open_session(folder, config, run), run.record["final"]
    session.model.load_state_dict(weights_of_run(folder, config, "best")["model"])
    yield compare("parameters", run.record["parameters"], sum(p.numel() for p in session.model.parameters()))

    answers: dict[str, Tensor] = {}
    test = scores(session, "test", answers)
    if "error" in final:
        yield compare_test_error(session, folder, run, answers)
    else:
        more = close(session, test)
        for name in final:
            if name in more and name not in COUNTS | TIMES | {"step", "epoch"}:
                yield compare_mean(session, f"test {name}", final[name], more[name], "test", name)
    yield compare_evaluation_nfe(session, run, test)
    if session.data.valid.size:
        yield compare_validation(session, run)
    yield compare_saved_memory(session, run)


def make_arrays(folder: Path) -> None:
    """Write what the figures of a flow are drawn from, which kept cells leave out, from the weights in `folder`."""
    run = read_run(folder)
    if any(score in run.final and not (folder / name).exists() for score, name in kept_cells.FROM_WEIGHTS.items()):
        config = replace(load(folder), compile="false")
        session = open_session(folder, config, run)
        session.model.load_state_dict(weights_of_run(folder, config, "best")["model"])
        save_figure_data(folder, session, {})


def scores(
    session: Session,
    split: str,
    answers: dict[str, Tensor] | None = None,
    solver: SolverConfig | None = None,
    dtype: torch.dtype | None = None,
) -> dict[str, Any]:
    """Return the scores of a split as the run made them, or by another solver, or in another precision."""
    scorer = session.scorer if solver is None else build.solver(solver)
    limit, samples = session.config.trainer.limit_batches, getattr(session.data, split)
    return evaluate(session.model, session.loss_fn, samples, scorer, limit, dtype or session.precision, answers)


def used_gpu(session: Session, run: Run) -> bool:
    """Return whether a GPU trained the run or scores it here, so that the rounding is that of TF32."""
    return session.device.type != "cpu" or not str(run.record.get("device")).startswith("cpu")


def compare_test_error(session: Session, folder: Path, run: Run, answers: Mapping[str, Tensor]) -> Check:
    """Compare the test error sample by sample with the predictions that were kept."""
    committed = run.record["final"]["error"]
    here, label = (answers[name].cpu().numpy() for name in ("predicted", "label"))
    errors, errors_here = round(committed * len(label)), int((here != label).sum())
    check = Check("test error", committed, errors_here / len(label), EQUAL)
    path = folder / "predictions.npz"
    if not path.exists():
        return check.within(errors == errors_here, "no predictions are kept")
    with numpy.load(path) as content:
        predicted, labels = content["predicted"], content["label"]
    if len(predicted) != len(here) or (labels != label).any() or errors != (predicted != labels).sum():
        return check.within(False, "the kept predictions are of other samples, or of another error")
    changed = set(numpy.flatnonzero(predicted != here).tolist())
    if not changed:
        return check
    ties = near_ties(session, "test", used_gpu(session, run), changed)
    reason = f"{len(changed)} of {len(here):,} predictions differ, {len(changed & ties)} of them within rounding"
    return check.within(changed <= ties, reason)


@torch.no_grad()
def near_ties(
    session: Session, split: str, tf32: bool = False, samples: set[int] | None = None, enough: int | None = None
) -> set[int]:
    """Return the samples whose class rounding may change.

    Their two largest logits are nearer than `MARGIN` times the largest difference, in their batch, between logits in
    this precision and in float64.

    tf32     a GPU computed the one or the other, so that difference is at least the rounding of TF32
    samples  look only at batches with one of these
    enough   look no further behind the batch with the sample of this count
    """
    ties, start = set(), 0
    for batch in getattr(session.data, split).epoch(0):
        size = len(batch[0])
        if samples is None or samples & set(range(start, start + size)):
            logits = []
            for dtype in (session.precision, torch.float64):
                with scoring(session.model, session.scorer, dtype) as net:
                    logits.append(net(converted(batch, dtype)[0]).double())
            error = (logits[0] - logits[1]).abs().max()
            bound = MARGIN * (torch.maximum(error, TF32_ERROR * logits[1].abs().max()) if tf32 else error)
            top = logits[0].topk(2, dim=1).values
            ties |= {start + int(place) for place in torch.nonzero(top[:, 0] - top[:, 1] <= bound)}
            if enough is not None and len(ties) >= enough:
                break
        start += size
    return ties


def compare_mean(session: Session, name: str, committed: float, here: float, split: str, key: str) -> Check:
    """Compare a score that is a mean over samples; rounding explains what it is off by in float64."""
    check = compare(name, committed, here, is_close(committed, here, SUM_RTOL))
    if check.verdict == EQUAL or session.precision == torch.float64:
        return check
    bound = MARGIN * abs(scores(session, split, dtype=torch.float64)[key] - here)
    return check.within(abs(committed - here) <= bound, f"rounding explains {bound:.1e}")


def compare_evaluation_nfe(session: Session, run: Run, test: Mapping[str, Any]) -> Check:
    """Compare the function evaluations of a batch of test samples, a mean over batches."""
    check = compare("NFE of an evaluation", run.record["final"]["nfe_test"], test["nfe_forward"])
    solver = eval_solver(session.config)
    if check.verdict == EQUAL or solver.rtol is None or solver.atol is None or not check.here:
        return check
    low, high = nfe_range(session, solver, test)
    if not low <= check.committed <= high:
        shift = TF32_TOLERANCE_SHIFT if used_gpu(session, run) else TOLERANCE_SHIFT
        low, high = nfe_range(session, solver, test, shift)
    return check.within(low <= check.committed <= high, f"rounding explains {low:g} to {high:g}")


def nfe_range(
    session: Session, solver: SolverConfig, test: Mapping[str, Any], shift: float = 0.0
) -> tuple[float, float]:
    """Return the least and the most evaluations of a batch at tolerances changed by `shift`, and a step more or less.

    Without a `shift` nothing is solved again: a step of one batch more or less than in `test`.

    Rounding reaches the error estimate, which is compared with the tolerance, as a relative 1e-4 at a tolerance of 1e-3
    in float32; where an estimate is as near to it as that, a step is accepted or is not.
    """
    assert solver.rtol is not None
    assert solver.atol is not None
    counts = [test["nfe_forward"]]
    for factor in (1 - shift, 1 + shift) if shift else ():
        changed = replace(solver, rtol=factor * solver.rtol, atol=factor * solver.atol)
        counts.append(scores(session, "test", solver=changed)["nfe_forward"])
    samples, limit = session.data.test, session.config.trainer.limit_batches
    batches = min(math.ceil(samples.size / samples.batch_size), limit or samples.size)
    step = math.ceil(test["nfe_forward"] / max(1.0, test["accepted"] + test["rejected"])) / batches
    return min(counts) - step, max(counts) + step


def compare_validation(session: Session, run: Run) -> Check:
    """Compare the score of the validation samples, by which the weights were chosen."""
    answers: dict[str, Tensor] = {}
    final, valid = run.record["final"], scores(session, "valid", answers)
    if final.get("valid_error") is None:
        return compare_mean(session, "validation loss", final["valid_loss"], valid["loss"], "valid", "loss")
    size = len(answers["label"])
    apart = abs(round(final["valid_error"] * size) - round(valid["error"] * size))
    check = compare("validation error", final["valid_error"], valid["error"], apart == 0)
    if check.verdict == EQUAL:
        return check
    ties = len(near_ties(session, "valid", used_gpu(session, run), enough=apart))
    return check.within(apart <= ties, f"{apart} apart; {'at least ' * (ties >= apart)}{ties} are within rounding")


def compare_saved_memory(session: Session, run: Run) -> Check:
    """Compare the memory that a training step from these weights saves for its backward pass with the log.

    Exact where a network has always the same steps. Where the steps are chosen by a tolerance, it is one of those that
    were seen in training; the table quotes the largest.
    """
    session.model.train()
    loss_and_gradients(session, next(iter(session.data.train.epoch(0))))
    check = compare("saved memory (MiB)", run.record["final"]["saved_mib"], session.window.saved_mib)
    if check.verdict == EQUAL:
        return check
    if used_gpu(session, run):
        return check._replace(verdict=UNCHECKED, reason=f"trained on {run.record.get('device')}")
    seen = {record["saved_mib"] for record in run.records("train")}
    return check.within(check.here in seen, f"{len(seen)} values in training")


class _Enough(Exception):
    """End a training whose first steps are all that is asked for."""


def first_steps(folder: Path, config: Config, run: Run, until: int) -> list[dict[str, Any]]:
    """Train on this machine and return the records of the log up to that of step `until`."""
    session, records = open_session(folder, config, run), list[dict[str, Any]]()

    def write(record: dict[str, Any]) -> None:
        records.append(record)
        if record["step"] >= until:
            raise _Enough

    # Nothing is shown, no checkpoint is written, and no signal stops it.
    nothing = dict.fromkeys(("step", "record", "last", "best"), lambda *_: None)
    silent: Any = SimpleNamespace(name=None, over=unwatched, **nothing)
    with contextlib.suppress(_Enough):
        fit(session, SimpleNamespace(write=write), silent, silent, silent)
    return records


def from_steps(folder: Path, config: Config, run: Run) -> Iterator[Check]:
    """Compare the records of the first steps of a cell that only times steps with those of the same steps here.

    Taken again are at most `MAX_STEPS`, and as many as took it `MAX_STEPS_S`.
    """
    train, trained_on = run.records("train"), str(run.record.get("device"))
    if not trained_on.startswith("cpu"):
        yield Check("records of steps", len(train), None, UNCHECKED, f"taken on {trained_on}")
        return
    spent_s, records = 0.0, []
    for before, record in zip([{"step": 0}, *train], train):
        spent_s += (record["step"] - before["step"]) * record["step_ms"] / 1000
        if record["step"] <= MAX_STEPS and spent_s <= MAX_STEPS_S:
            records.append(record)
    if len(records) < len(train):
        reason = f"beyond {MAX_STEPS} steps, or {MAX_STEPS_S:.0f} s by their own record"
        yield Check("records of steps", len(train) - len(records), None, UNCHECKED, reason)
    if not records:
        return
    here = first_steps(folder, config, run, records[-1]["step"])
    attempts = max(record["accepted"] + record["rejected"] for record in records)
    for name in ("loss", "nfe_forward", "nfe_backward", "saved_mib"):
        pairs = [(record[name], other[name]) for record, other in zip(records, here)]
        off = max(abs(a - b) / max(abs(a), 1e-12) for a, b in pairs)
        one_step = 1 / attempts if attempts and name != "loss" else 0.0  # rounding may accept a step of a solve or not
        allowed = max(STEPS_RTOL.get(name, 0.0), one_step)
        reason = f"apart by {off:.1e}; rounding explains {allowed:.1e}" if off else ""
        yield compare(f"steps: {name}", *pairs[-1], off <= allowed, reason)


def measured_rows(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> Iterator[Check]:
    """Compare the rows of a measurement, value by value: counts, errors, which samples are wrong; not times."""
    pairs: Iterator[Any] = zip_longest(before, after, fillvalue={})
    for row, row_here in pairs:
        for name in (row.keys() | row_here.keys()) - TIMES:
            a, b = row.get(name), row_here.get(name)
            if isinstance(a, list) and isinstance(b, list):
                off = len(set(map(str, a)) ^ set(map(str, b)))
                yield compare("measured again", len(a), len(b), off <= MEASURED_SAMPLES, f"{name}: {off} apart")
                continue
            equal = is_close(a, b, MEASURED_RTOL)
            if type(a) is int and type(b) is int:
                equal = abs(a - b) <= max(MEASURED_NFE, MEASURED_RTOL * a)
            yield compare("measured again", a, b, equal, f"{name}, {row.get('kind')}")


def trained_again(before: Run, after: Run) -> Check:
    """Compare a cell that was trained a second time: the same bits, or what two such networks may differ by."""
    key = "error" if before.value("error") is not None else "loss"
    name, a, b = f"trained again: test {key}", before.value(key) or 0.0, after.value(key) or 0.0
    records = [
        [{k: v for k, v in record.items() if k not in TIMES} for record in run.metrics] for run in (before, after)
    ]
    if records[0] == records[1]:
        return compare(name, a, b, True, f"bit for bit: {len(after.metrics)} records but for their times")
    # Of two networks that err independently, the numbers of errors differ by 1.96 standard deviations at most.
    allowed = 1.96 * math.sqrt((a + b) / after.record["data"]["sizes"]["test"]) if key == "error" else 0.1 * abs(a)
    versions = [(run.record.get("versions") or {}).get("torch") for run in (before, after)]
    kept, here = (f"{run.record.get('device')}, torch {version}" for run, version in zip((before, after), versions))
    reason = f"not bit for bit: kept {kept}; here {here}; two such networks may differ by {allowed:.2g}"
    return compare(name, a, b, abs(a - b) <= allowed, reason)
