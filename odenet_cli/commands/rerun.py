"""Repeat the step that a run failed in: odenet rerun RUN"""

from __future__ import annotations

from odenet_cli.commands import eval as scoring
from odenet_cli.commands import gradcheck
from odenet_cli.commands._points import open_run, own_class, product, read

HELP = """usage: odenet rerun RUN [key=value ...]

Repeats the step in which a run failed, with the weights and the batch that it had, and says what happens.
Nothing is written. Exit code 1 where it fails again, 0 where it passes.

  odenet rerun RUN                                   as it was
  odenet rerun RUN solver.rtol=1e-5                  would this have helped?
  odenet rerun RUN gradient.method=replay dtype=float64

  {solver,gradient.solver,eval.solver}.{method,rtol,atol,steps,max_steps,controller,first_step,min_step,max_step,jumps}
  gradient.{method,norm,control_parameters,coupling}, dtype, device, data.root, data.path,
  data.download
  model.target=package.module:Class   to be said again where the run has a class of your own"""
KEYS = (*gradcheck.KEYS, *scoring.SOLVER, "dtype")


def main(argv: list[str]) -> int:
    """Read the request, then make the step."""
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP)
        return 0 if argv else 2
    folder, run = open_run(argv)
    said = read(argv[1:], KEYS, several=())
    own_class(run, said)
    (changes,) = product(said)
    scored = {key: changes.pop(key) for key in scoring.SOLVER if key in changes}
    config = gradcheck.changed(run, changes) if changes else run
    config = scoring.changed(config, scored) if scored else config

    from odenet_cli.analysis.rerun import repeat

    print(repeat(folder, run, config, lambda line: print(line, flush=True)))
    return 0
