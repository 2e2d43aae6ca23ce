"""Load a trained run, and see what its tolerance costs and changes: python load_and_refine.py [FIGURE] [RUN]

RUN is a run of model=cnf. Without one, a small flow is trained on two moons first, in a temporary folder.
"""

import sys
import tempfile

import matplotlib.pyplot as plt
import torch

import odenet_cli as odenet

WORDS = ["model=cnf", "model.units=16", "data=moons", "device=cpu", "trainer.steps=200", "trainer.batch_size=256"]
TOLERANCES = [10.0**-k for k in range(1, 7)]


def main(figure="load_and_refine.png", folder=None):
    if folder is None:
        with tempfile.TemporaryDirectory() as place:
            run = odenet.train([*WORDS, f"hydra.run.dir={place}/run"])
    else:
        run = odenet.load(folder)
    print(f"{run.config.name}: trained at {run.solver.rtol:g}, {run.metrics[-1]['loss']:.3f} nat a point")

    points = run.model.sample(500, generator=torch.Generator().manual_seed(0))
    evaluations, log_density = [], []
    with torch.no_grad():
        for rtol in TOLERANCES:
            with odenet.ode.tally() as solves:
                log_density.append(run.with_solver(rtol=rtol).model.log_prob(points))
            evaluations.append(solves[0].nfe_forward)
    errors = [float((at - log_density[-1]).abs().max()) for at in log_density[:-1]]

    _, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    left.semilogx(TOLERANCES, evaluations, "o-")
    left.set(xlabel="tolerance", ylabel="function evaluations")
    right.loglog(TOLERANCES[:-1], errors, "o-")
    right.set(xlabel="tolerance", ylabel="largest error of a log-density, nat")
    plt.savefig(figure)
    return evaluations, errors


if __name__ == "__main__":
    main(*sys.argv[1:])
