"""The numbers of one kept cell, computed again: from its weights, from its log, or by taking its first steps again.

Equal means the same number, or one that rounding explains: another CPU adds in another order. What rounding can do is
measured here, and only where a number is not the same (`in_doubt`, `nfe_range`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import zip_longest
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import torch
from torch import Tensor

from odenet_cli.analysis.trained import weights_of_run
from odenet_cli.config.resolve import eval_solver
from odenet_cli.config.schema import Config, SolverConfig
from odenet_cli.ode import Stats
from odenet_cli.report.runs import Run
from odenet_cli.reproduce.comparison import DIFFERS, EQUAL, TIMES, UNCHECKED, Check, close_to
from odenet_cli.training import build, device
from odenet_cli.training.evaluate import converted, evaluate, scoring
from odenet_cli.training.identity import check_same_data
from odenet_cli.training.loop import fit, loss_and_gradients
from odenet_cli.training.run import assemble, close
from odenet_cli.training.session import Session

COUNTS = {field.name for field in fields(Stats)}
SAME = 1e-6  # relative: two sums of the same numbers in another order
DOUBT = 8  # a class is in doubt where its margin is below so many times the largest rounding error of a logit
SHIFT = 1e-3  # relative change of a tolerance that does to the choice of steps at least what rounding does
TF32, TF32_SHIFT = 2.0**-11, 0.5  # of GPUs: how they round in convolutions, and what that does to an error estimate
# Relative: what rounding makes of the records of a few optimiser steps. With the vector instructions of another CPU
# (AVX-512 and SSE4.1) losses were apart by at most 8e-5, evaluations of the adjoint at 1e-4 by 7.5 %.
STEPWISE = {"loss": 1e-3, "nfe_backward": 0.15}
MEASURED = 0.01  # relative: of a measurement, whose rounding is not measured; three samples of a list of them
STEP = 7  # function evaluations of a step
STEPS_S = 20.0  # seconds for the steps of one cell, by its own record of them


def same(what: str, committed: Any, here: Any) -> Check:
    """Compare two numbers that rounding may separate by a relative `SAME` at most; whole numbers not at all."""
    return Check(what, committed, here, EQUAL if close_to(committed, here, SAME) else DIFFERS)


def from_log(run: Run) -> Iterator[Check]:
    """Compare the final numbers of a run with those that its log says; raise nothing where there are none."""
    final, train, valid, test = run.record["final"], run.records("train"), run.records("valid"), run.records("test")[-1]
    said = {name: value for name, value in test.items() if name in final and name not in COUNTS | TIMES}
    said |= {"nfe_test": test["nfe_forward"], "saved_mib": max(record["saved_mib"] for record in train)}
    said |= {name: train[-1][name] for name in ("nfe_forward", "nfe_backward")}
    if valid:
        merit = "error" if "error" in valid[0] else "loss"
        best = min(valid, key=lambda record: (record[merit], record["loss"]))
        said |= {"best_epoch": best["epoch"], "valid_loss": best["loss"], "valid_error": best.get("error")}
    for name, value in said.items():
        yield Check(name, final.get(name), value, EQUAL if final.get(name) == value else DIFFERS)


def from_weights(folder: Path, config: Config, run: Run) -> Iterator[Check]:
    """Score the weights in `folder` again, on test and validation samples, and take one step from them."""
    where = device.choose(config.device)
    device.configure_backends(where, config.deterministic, build.tightest(config))
    session = assemble(config, where)
    check_same_data(run.record.get("data") or {}, session.data.record, folder)
    session.model.load_state_dict(weights_of_run(folder, config, "best")["model"])
    parameters = sum(parameter.numel() for parameter in session.model.parameters())
    yield Check("parameters", run.record["parameters"], parameters, exact(run.record["parameters"], parameters))

    answers: dict[str, Tensor] = {}
    test, final = scores(session, "test", answers), run.record["final"]
    if "error" in final:
        yield answered(session, folder, run, answers)
    else:
        more = close(session, test)
        names = [name for name in final if name in more and name not in COUNTS | TIMES | {"step", "epoch"}]
        for name in names:
            yield rounded(session, f"test {name}", final[name], more[name], "test", name)
    yield steps_taken(session, run, test)
    if session.data.valid.size:
        yield validated(session, run)
    yield saved(session, run)


def exact(a: Any, b: Any) -> str:
    return EQUAL if a == b else DIFFERS


def scores(
    session: Session,
    split: str,
    answers: dict[str, Tensor] | None = None,
    solver: SolverConfig | None = None,
    dtype: torch.dtype | None = None,
) -> dict[str, Any]:
    """Return the scores of a split, as the run made them; or by another solver, or in another precision."""
    scorer = session.scorer if solver is None else build.solver(solver)
    limit, samples = session.config.trainer.limit_batches, getattr(session.data, split)
    return evaluate(session.model, session.loss_fn, samples, scorer, limit, dtype or session.precision, answers)


def on_gpu(session: Session, run: Run) -> bool:
    """Tell whether a GPU trained the run or scores it here."""
    return session.device.type != "cpu" or not str(run.record.get("device")).startswith("cpu")


def answered(session: Session, folder: Path, run: Run, answers: Mapping[str, Tensor]) -> Check:
    """Compare the test error sample by sample with the predictions that were kept."""
    committed = run.record["final"]["error"]
    here, label = (answers[name].cpu().numpy() for name in ("predicted", "label"))
    wrong = int((here != label).sum())
    check = Check("test error", committed, wrong / len(label), EQUAL)
    path = folder / "predictions.npz"
    if not path.exists():
        return check._replace(verdict=exact(round(committed * len(label)), wrong), why="no predictions are kept")
    with numpy.load(path) as kept:
        before, labels = kept["predicted"], kept["label"]
    if len(before) != len(here) or (labels != label).any() or round(committed * len(label)) != (before != labels).sum():
        return check._replace(verdict=DIFFERS, why="the kept predictions are of other samples, or of another error")
    changed = set(numpy.flatnonzero(before != here).tolist())
    if not changed:
        return check
    doubt = in_doubt(session, "test", on_gpu(session, run), changed)
    why = f"{len(changed)} of {len(here):,} predictions differ, {len(changed & doubt)} of them within rounding"
    return check._replace(verdict=EQUAL if changed <= doubt else DIFFERS, why=why)


@torch.no_grad()
def in_doubt(session: Session, split: str, coarse: bool = False, which: set[int] | None = None) -> set[int]:
    """Return the samples whose class rounding may change: the two largest logits are nearer than `DOUBT` times the
    largest difference, in their batch, between logits in this precision and in float64.

    coarse  a GPU computed the one or the other, so it is at least that of TF32
    which   look only at batches with one of these
    """
    found, start = set(), 0
    for batch in getattr(session.data, split).epoch(0):
        size = len(batch[0])
        if which is None or which & set(range(start, start + size)):
            logits = []
            for dtype in (session.precision, torch.float64):
                with scoring(session.model, session.scorer, dtype) as net:
                    logits.append(net(converted(batch, dtype)[0]).double())
            error = (logits[0] - logits[1]).abs().max()
            bound = DOUBT * (torch.maximum(error, TF32 * logits[1].abs().max()) if coarse else error)
            top = logits[0].topk(2, dim=1).values
            found |= {start + int(place) for place in torch.nonzero(top[:, 0] - top[:, 1] <= bound)}
        start += size
    return found


def rounded(session: Session, what: str, committed: float, here: float, split: str, name: str) -> Check:
    """Compare a score that is a mean; one that is not the same may differ by what it differs by in float64."""
    check = same(what, committed, here)
    if check.verdict == EQUAL or session.precision == torch.float64:
        return check
    bound = DOUBT * abs(scores(session, split, dtype=torch.float64)[name] - here)
    verdict = EQUAL if abs(committed - here) <= bound else DIFFERS
    return check._replace(verdict=verdict, why=f"rounding explains {bound:.1e}")


def steps_taken(session: Session, run: Run, found: Mapping[str, Any]) -> Check:
    """Compare the function evaluations of a batch of test samples, a mean over batches."""
    committed, here, solver = run.record["final"]["nfe_test"], found["nfe_forward"], eval_solver(session.config)
    check = Check("NFE of an evaluation", committed, here, exact(committed, here))
    if check.verdict == EQUAL or solver.rtol is None or solver.atol is None or not here:
        return check
    low, high = nfe_range(session, solver, found, TF32_SHIFT if on_gpu(session, run) else SHIFT)
    verdict = EQUAL if low <= committed <= high else DIFFERS
    return check._replace(verdict=verdict, why=f"rounding explains {low:g} to {high:g}")


def nfe_range(session: Session, solver: SolverConfig, found: Mapping[str, Any], shift: float) -> tuple[float, float]:
    """Return the least and the most evaluations of a batch at tolerances changed by `shift`, and a step more or less.

    Rounding reaches the error estimate, which is held against the tolerance, as a relative 1e-4 at a tolerance of 1e-3
    in float32; where an estimate is as near to it as that, a step is taken or is not.
    """
    assert solver.rtol is not None
    assert solver.atol is not None
    counts = [found["nfe_forward"]]
    for factor in (1 - shift, 1 + shift):
        changed = replace(solver, rtol=factor * solver.rtol, atol=factor * solver.atol)
        counts.append(scores(session, "test", solver=changed)["nfe_forward"])
    samples, limit = session.data.test, session.config.trainer.limit_batches
    batches = min(math.ceil(samples.size / samples.batch_size), limit or samples.size)
    step = math.ceil(found["nfe_forward"] / max(1.0, found["accepted"] + found["rejected"])) / batches
    return min(counts) - step, max(counts) + step


def validated(session: Session, run: Run) -> Check:
    """Compare the score of the validation samples that the weights were chosen by."""
    answers: dict[str, Tensor] = {}
    final, found = run.record["final"], scores(session, "valid", answers)
    if final.get("valid_error") is None:
        return rounded(session, "validation loss", final["valid_loss"], found["loss"], "valid", "loss")
    size = len(answers["label"])
    before, here = round(final["valid_error"] * size), round(found["error"] * size)
    check = Check("validation error", final["valid_error"], found["error"], exact(before, here))
    if check.verdict == EQUAL:
        return check
    doubt = len(in_doubt(session, "valid", on_gpu(session, run)))
    return check._replace(verdict=EQUAL if abs(before - here) <= doubt else DIFFERS, why=f"{doubt} are within rounding")


def saved(session: Session, run: Run) -> Check:
    """Compare what a training step from these weights keeps for its backward pass with those that the log has.

    Exact where a network has always the same steps. Where the steps are chosen by a tolerance, it is one of those that
    were seen in training; the table quotes the largest.
    """
    committed = run.record["final"]["saved_mib"]
    session.model.train()
    loss_and_gradients(session, next(iter(session.data.train.epoch(0))))
    here, seen = session.window.saved_mib, {record["saved_mib"] for record in run.records("train")}
    check = Check("saved memory (MiB)", committed, here, exact(committed, here))
    if check.verdict == EQUAL:
        return check
    if on_gpu(session, run):
        return check._replace(verdict=UNCHECKED, why=f"trained on {run.record.get('device')}")
    return check._replace(verdict=EQUAL if here in seen else DIFFERS, why=f"{len(seen)} values in training")


class _Enough(Exception):
    """The steps that were asked for are taken."""


def first_steps(config: Config, until: int, folder: Path, run: Run) -> list[dict[str, Any]]:
    """Return what the log says of the first steps of a training, taken here, up to the record of step `until`."""
    where = device.choose(config.device)
    device.configure_backends(where, config.deterministic, build.tightest(config))
    session, records = assemble(config, where), list[dict[str, Any]]()
    check_same_data(run.record.get("data") or {}, session.data.record, folder)

    def write(record: dict[str, Any]) -> None:
        records.append(record)
        if record["step"] >= until:
            raise _Enough

    silent = SimpleNamespace(step=lambda *_: None, record=lambda *_: None)
    with contextlib.suppress(_Enough):
        fit(session, SimpleNamespace(write=write), None, SimpleNamespace(name=None), silent)  # type: ignore[arg-type]
    return records


def from_steps(folder: Path, config: Config, run: Run) -> Iterator[Check]:
    """Take the first steps of a measured cell again, those that it took `STEPS_S` for, and compare their records."""
    train, trained_on = run.records("train"), str(run.record.get("device"))
    if not trained_on.startswith("cpu"):
        yield Check("records of steps", len(train), None, UNCHECKED, f"taken on {trained_on}")
        return
    spent, affordable = 0.0, []
    for before, record in zip([{"step": 0}, *train], train):
        spent += (record["step"] - before["step"]) * record["step_ms"] / 1000
        if spent > STEPS_S:
            break
        affordable.append(record)
    if len(affordable) < len(train):
        rest = len(train) - len(affordable)
        yield Check("records of steps", rest, None, UNCHECKED, f"they took more than {STEPS_S:.0f} s")
    if affordable:
        here = first_steps(config, affordable[-1]["step"], folder, run)
        for name in ("loss", "nfe_forward", "nfe_backward", "saved_mib"):
            yield stepwise(name, [one[name] for one in affordable], [one[name] for one in here], affordable)


def stepwise(
    name: str, committed: Sequence[float], here: Sequence[float], records: Sequence[Mapping[str, Any]]
) -> Check:
    """Compare one number of the records of training, step by step: a step of a solve more or less is rounding's."""
    off = max(abs(a - b) / max(abs(a), 1e-12) for a, b in zip(committed, here))
    attempts = max(one["accepted"] + one["rejected"] for one in records)
    allowed = max(STEPWISE.get(name, 0.0), 1 / attempts if attempts and name != "loss" else 0.0)
    why = f"apart by {off:.1e}; rounding explains {allowed:.1e}" if off else ""
    return Check(f"steps: {name}", committed[-1], here[-1], EQUAL if off <= allowed else DIFFERS, why)


def rows_of_measurement(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> Iterator[Check]:
    """Compare the rows of a measurement, value by value: counts, errors, which samples are wrong; not times."""
    pairs: Iterator[Any] = zip_longest(before, after, fillvalue={})
    for one, other in pairs:
        for name in (name for name in one.keys() | other.keys() if name not in TIMES):
            mine, here = one.get(name), other.get(name)
            if isinstance(mine, list) and isinstance(here, list):
                off = len(set(map(str, mine)) ^ set(map(str, here)))
                yield Check(
                    "measured again", len(mine), len(here), EQUAL if off <= 3 else DIFFERS, f"{name}: {off} apart"
                )
                continue
            near = close_to(mine, here, MEASURED)
            if type(mine) is int and type(here) is int:
                near = abs(mine - here) <= max(STEP, MEASURED * mine)
            yield Check("measured again", mine, here, EQUAL if near else DIFFERS, f"{name}, {one.get('kind')}")


def trained_again(before: Run, after: Run) -> Check:
    """Compare a cell that was trained a second time: the same bits, or what two such networks may differ by."""

    def bits(run: Run) -> list[dict[str, Any]]:
        return [{name: value for name, value in record.items() if name not in TIMES} for record in run.metrics]

    name = "error" if before.value("error") is not None else "loss"
    one, other = before.value(name) or 0.0, after.value(name) or 0.0
    check = Check(f"trained again: test {name}", one, other, EQUAL)
    if bits(before) == bits(after):
        return check._replace(why=f"bit for bit: {len(after.metrics)} records but for their times")
    if name == "error":
        size = after.record["data"]["sizes"]["test"]
        allowed = 1.96 * math.sqrt((one + other) / size)
    else:
        allowed = 0.1 * abs(one)
    machines = [
        f"{run.record.get('device')}, torch {(run.record.get('versions') or {}).get('torch')}"
        for run in (before, after)
    ]
    why = f"not bit for bit: kept {machines[0]}; here {machines[1]}; two such networks may differ by {allowed:.2g}"
    return check._replace(verdict=EQUAL if abs(one - other) <= allowed else DIFFERS, why=why)
