"""Diagnose a run and try a remedy: odenet doctor RUN

If the run failed, repeats what failed from its last checkpoint, as `odenet rerun` does, and examines the solve in it.
Otherwise examines the solves of its first training samples, at its best weights. The diagnoses are

  stiff        the step size is limited by stability, not by accuracy
  blow_up      the solution ends before the last time
  nonfinite    the field is NaN or infinite where the state is finite; when, and in which number
  jump         the field is discontinuous; at which times
  noise        two evaluations at one point differ: dropout, redrawn noise
  resolution   the dtype cannot resolve what the tolerance asks for
  tolerance    the tolerance is so loose that the solve leaves the solution
  scale        the tolerance does not fit the size of a part of the state
  step_limit   the solve is sound, but needs more or other steps
  optimiser    weights, losses or initial states that no solver can use

Each comes with its numbers and with the setting that remedies it, which is tried on the same solve and by repeating
what failed. Writes nothing. Exit code 0 if nothing is wrong, 1 otherwise."""

from __future__ import annotations

import shlex
from argparse import Namespace
from typing import Any

from odenet_cli.commands import _common, gradcheck
from odenet_cli.commands import eval as scoring
from odenet_cli.config.schema import Config
from odenet_cli.terminal import say_text

PARSER = _common.Parser(__name__, __doc__, run=True, goes_on=True)


@PARSER.command
def main(request: Namespace) -> int:
    from odenet_cli.analysis.doctor import examine
    from odenet_cli.ode.diagnosis import in_words

    report, keys, outcome = examine(request.folder, request.config, say_text, change)
    say_text(str(report))
    if keys:
        where = shlex.quote(str(request.folder))
        anew = f"train --config-dir {where} --config-name config" if "optim.lr" in keys else f"rerun {where}"
        # A class of the user's own is named anew by each command.
        words = [*in_words(request.config.named_code()), *in_words(keys)]
        print(f"  command   odenet {anew} {shlex.join(words)}\n            {outcome}")
    return 0 if report.kind == "sound" else 1


def change(run: Config, keys: dict[str, Any]) -> Config:
    """Return the run's config with these keys set, as `odenet rerun` sets them."""
    scored = {key: value for key, value in keys.items() if key in scoring.SOLVER_KEYS}
    trained = {key: value for key, value in keys.items() if key not in scored}
    config = gradcheck.changed(run, trained) if trained else run
    return scoring.changed(config, scored) if scored else config
