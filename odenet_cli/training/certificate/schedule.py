"""Schedule the certificates of a run's gradient within a share of its time, and warn of errors."""

from __future__ import annotations

import logging
import time
from typing import Any

from odenet_cli.models import solvers
from odenet_cli.ode import Stats, method, tally
from odenet_cli.ode.gradient import exact_gradients, gradient
from odenet_cli.streams import hanging
from odenet_cli.terminal import on_terminal, say
from odenet_cli.training.certificate import Certificate, certify
from odenet_cli.training.certificate.measure import ALARM, SAMPLES, WARNING, NotCertified, percent
from odenet_cli.training.session import Session

SHARE = 0.01  # of the wall time, at most, for all certificates but the last
MIN_STEPS = 300  # of a run that seeks the cause of a warning; the cause of an alarm is always sought
EXPECTED_STEPS = 6  # time of the first certificate, in optimiser steps: measured 1.2 to 5
LEVELS = {"warning": logging.WARNING, "alarm": logging.WARNING + 5}
logging.addLevelName(LEVELS["alarm"], "ALARM")

log = logging.getLogger("odenet")


def certify_when_due(session: Session, batch: Any) -> None:
    """Certify the gradient of the current step, if a certificate is due, and warn of errors.

    The computation of the run is unchanged, and the seconds do not count as those of the step.
    """
    if not due(session):
        return
    start, state, window = time.perf_counter(), session.certificates, session.window
    try:
        # In a short run the search for a cause would take longer than the run itself.
        above = WARNING if session.step >= MIN_STEPS else ALARM
        with tally() as solves:  # also if the certificate is abandoned
            made = certify(session.model, session.loss_fn, batch, session.step, above)
    except NotCertified as reason:
        state.impossible = str(reason)
        log.info("no certificate of the gradient: %s", reason, exc_info=reason.__cause__)
    else:
        state.made, state.error = state.made + 1, max(made.error, state.error or 0.0)
        window.gradient_error = max(made.error, window.gradient_error or 0.0)
        tell(session, made)
    nfe = sum(solves, start=Stats()).nfe
    state.nfe, window.nfe_certify = state.nfe + nfe, window.nfe_certify + nfe
    seconds = time.perf_counter() - start
    state.latest_s, state.time_s = seconds, state.time_s + seconds
    window.time_s -= seconds
    share = state.time_s / (session.elapsed_s + seconds)
    if session.step + 1 == session.total and share > SHARE:
        log.info("certificates took %s of this short run, %.2f s", percent(share), state.time_s)


def due(session: Session) -> bool:
    """Return whether the current step has a certificate: every `trainer.certify`-th, as long as all of them take at
    most `SHARE` of the time, and the last step of the run's full length. A run stopped earlier by `trainer.max_steps`
    may be continued, and then has the same log as without the stop."""
    every, state, step = session.config.trainer.certify, session.certificates, session.step + 1
    if not every or state.impossible or session.device.type == "mps" or not solvers(session.model):
        return False
    if session.config.optim.least_squares:  # whose Jacobian is not computed by autograd
        return False
    if step == session.total:
        return True
    if step % every:
        return False
    step_s = session.elapsed_s / max(1, session.step)
    cost, allowed = state.latest_s or EXPECTED_STEPS * step_s, SHARE * session.elapsed_s
    # Keep the time of one for the end of the run. The first one may come early, since only it shows their cost.
    affordable = state.time_s + 2 * cost <= SHARE * step_s * session.total
    return affordable and (not state.made or state.time_s + cost <= allowed)


def tell(session: Session, made: Certificate) -> None:
    """Warn of an error, once per cause, and write every certificate to `train.log`."""
    state, step = session.certificates, session.step + 1
    name, largest = made.worst
    log.info(
        "certificate at step %d: the gradient is %s off the exact gradient of its steps, %s %s; %.2f s",
        *(step, percent(made.error), name, percent(largest), made.time_s),
    )
    if state.made == 1 and 1 < step < session.total:
        steps = made.time_s * session.step / session.elapsed_s
        log.info(
            "this is the time of %.1f steps: the next certificate follows after at least %.0f steps",
            steps,
            steps / SHARE,
        )
    level, kind = "alarm" if made.error > ALARM else "warning", made.cause.kind if made.cause else ""
    if (not kind and made.error <= WARNING) or (level, kind) in state.told:
        return
    state.told.append((level, kind))
    off = f"the gradient at step {step} is {percent(made.error)} off the exact gradient of its steps"
    what = [f"{off} (float64, {SAMPLES} samples)."] if made.error > WARNING else []
    if what and not made.cause:
        if not getattr(gradient(session.config.gradient.method), "exact", False):
            exact = exact_gradients(method(session.config.solver.method))
            what.append(f"{exact} differentiates the steps themselves;")
        what.append("`odenet gradcheck RUN` shows details.")
    if made.cause:
        state.cause = made.cause.text
        what.append(f"{'No known cause' if kind == 'unknown' else f'Likely cause, {kind}'}: {made.cause.text}.")
    prefix = f"{level.upper()}: "
    shown = hanging(prefix, " ".join(what))
    if on_terminal():  # above the live line, which a warning on standard error would run into
        say(shown)
        log.info("%s", shown)
    else:
        log.log(LEVELS[level], "%s", shown.removeprefix(prefix))
