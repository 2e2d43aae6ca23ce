"""Repeat the step in which a run failed: odenet rerun RUN

Trains from the last checkpoint up to the step in which the run failed, and repeats that step: on a CPU with the same
weights and the same batch, bit for bit. Changed settings apply to that step alone. Writes nothing. Exit code 1 if it
fails again, 0 if it passes.

  odenet rerun RUN                                   unchanged
  odenet rerun RUN solver.rtol=1e-5                  would this have helped?
  odenet rerun RUN gradient.method=replay dtype=float64

  {solver,gradient.solver,eval.solver}.{method,rtol,atol,steps,max_steps,controller,first_step,min_step,max_step,jumps}
  gradient.{method,norm,control_parameters,coupling}, dtype, eval.dtype"""

from __future__ import annotations

from argparse import Namespace
from shlex import quote

from odenet_cli.commands import _common, doctor, gradcheck
from odenet_cli.commands import eval as scoring
from odenet_cli.errors import RunFailed
from odenet_cli.terminal import say_text

PARSER = _common.Parser(
    __name__, __doc__, run=True, keys=[*gradcheck.KEYS, *scoring.SOLVER_KEYS, "dtype", "eval.dtype"], goes_on=True
)


@PARSER.command
def main(request: Namespace) -> int:
    changes = _common.combinations(request.overrides)[0]
    config = doctor.change(request.config, changes)

    from odenet_cli.analysis.rerun import repeat

    try:
        print(repeat(request.folder, request.config, config, say_text))
    except RunFailed as error:
        doctor_run = f"odenet doctor {quote(str(request.folder))}"
        raise RunFailed(f"{error}\n  To find the cause and a remedy: {doctor_run}") from error
    return 0
