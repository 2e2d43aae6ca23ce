"""Our own solver. A mode is the name of a gradient method or empty, optionally with `compiled` or `compiled loop`.

`adjoint bosh3` is the adjoint with the backward solve used by `odenet train` on images: bosh3 at 3e-2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from odenet_cli.bench.peers import Solve
from odenet_cli.ode import Adaptive
from odenet_cli.ode.gradient.adjoint import Adjoint

NEEDS = ()
INSTALL = "pip install -e ."
IMAGES = "adjoint bosh3"
COMPILE: dict[str, bool | str] = {" compiled": True, " compiled loop": "loop"}


def compiled(*gradients: str, loop: bool = False) -> list[str]:
    """Return the compiled modes of these gradients; with `loop` also those of one compiled loop."""
    endings = list(COMPILE) if loop else list(COMPILE)[:1]
    return [f"{gradient}{ending}".strip() for gradient in gradients for ending in endings]


def adaptive(mode: str, *, method: str, rtol: float, atol: float) -> Adaptive:
    gradient, compile, rest = f" {mode}".partition(" compiled")
    options: dict[str, Any] = {"gradient": gradient.strip()} if gradient.strip() else {}
    if compile:
        options["compile"] = COMPILE[compile + rest]
    if options.get("gradient") == IMAGES:
        loose = max(rtol, 3e-2)
        options["gradient"] = Adjoint(solver=Adaptive(method="bosh3", rtol=loose, atol=loose))
    return Adaptive(method=method, rtol=rtol, atol=atol, **options)


def solver(mode: str, field: Any, ts: Sequence[float], *, method: str, rtol: float, atol: float) -> Solve:
    solve, times = adaptive(mode, method=method, rtol=rtol, atol=atol), list(ts)
    return lambda y0: solve(field, y0, times).y
