"""Estimate the cost of a run from its first steps, made in memory on its own data and discarded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from odenet_cli.config.schema import Config
from odenet_cli.training import build, least_squares
from odenet_cli.training.loop import make_step
from odenet_cli.training.run import assemble
from odenet_cli.training.session import Session

MAX_TIMED_STEPS, MAX_SECONDS = 10, 3.0


def first_steps(config: Config) -> tuple[Session, dict[str, Any]]:
    """Train for a few steps, eagerly, and return the session and the means of a step; a fit may converge in them.

    The first step, which pays for warming up, counts in `step_ms` only where there is no other.
    """
    where = build.choose_device(config)
    trainer = replace(config.trainer, certify=0)
    session = assemble(replace(config, compile="false", trainer=trainer), where)
    least_squares.search_start(session.model, session.data, config)
    session.model.train()
    started = opened = time.perf_counter()
    for batch in batches(session):
        session.set_learning_rate()
        session.window.add(*make_step(session, batch))
        if session.step == 1:
            session.window.means()  # waits for the device
            opened = time.perf_counter()
        if session.step > MAX_TIMED_STEPS or (session.step > 1 and time.perf_counter() - opened > MAX_SECONDS):
            break
    means = session.window.means()
    timed = (opened, session.step - 1) if session.step > 1 else (started, 1)
    return session, {**means, "step_ms": 1e3 * (time.perf_counter() - timed[0]) / timed[1]}


def batches(session: Session) -> Iterator[Any]:
    while session.step < session.end:
        yield from session.batches()
        session.epoch += 1
