"""diffrax (Kidger 2021) on JAX, with the whole solve compiled. Fields use `jax.numpy`; the mode has no meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from odenet_cli.bench.peers import Solve

NEEDS = ("jax", "diffrax")
INSTALL = "pip install diffrax"
METHODS = {"dopri5": "Dopri5", "tsit5": "Tsit5", "dopri8": "Dopri8", "bosh3": "Bosh3"}
MODES = ("",)
TRAIT = "calls the field of torch from compiled code of JAX, which cannot differentiate it: state and loss alone"


def solver(mode: str, field: Any, ts: Sequence[float], *, method: str, rtol: float, atol: float) -> Solve:
    """Return a solve whose y0 and y are JAX arrays; it waits for the result."""
    solve = compiled(field, ts, method)
    return lambda y0: solve(y0, rtol, atol)


def compiled(field: Any, ts: Sequence[float], method: str) -> Callable[[Any, float, float], Any]:
    """Return solve(y0, rtol, atol), compiled once for all tolerances."""
    import diffrax
    import jax

    term = diffrax.ODETerm(lambda t, y, args: field(t, y))
    save = diffrax.SaveAt(ts=list(ts)) if len(ts) > 2 else diffrax.SaveAt(t1=True)
    formulas = getattr(diffrax, METHODS[method])()

    def solve(y0: Any, rtol: Any, atol: Any) -> Any:
        control = diffrax.PIDController(rtol=rtol, atol=atol)
        ys = diffrax.diffeqsolve(
            term, formulas, ts[0], ts[-1], None, y0, stepsize_controller=control, saveat=save, max_steps=1_000_000
        ).ys
        return ys if len(ts) > 2 else ys[0]

    jitted = jax.jit(solve)

    def wait_for(y0: Any, rtol: float, atol: float) -> Any:
        y = jax.block_until_ready(jitted(y0, rtol, atol))
        jax.effects_barrier()  # waits for the callbacks of `observed`
        return y

    return wait_for


def witness(mode: str, field: Any, ts: Sequence[float], *, method: str, rtol: float, atol: float) -> Solve:
    """Return a solve, without gradients, of a torch field of one vector, called from JAX."""

    def solve(y0: Tensor) -> Tensor:
        import jax

        start, dtype = array(y0), y0.dtype

        @torch.no_grad()
        def host(t: Any, y: Any) -> Any:
            time, state = (torch.tensor(x.tolist(), dtype=dtype, device=y0.device) for x in (t, y))
            return field(time, state).cpu().numpy()

        def called(t: Any, y: Any) -> Any:
            return jax.pure_callback(host, jax.ShapeDtypeStruct(y.shape, y.dtype), t, y)

        y = compiled(called, ts, method)(start, rtol, atol)
        return tensor(y).to(y0)

    return solve


def observed(field: Any, callback: Callable[[], None]) -> Any:
    """Return `field` wrapped so that compiled code calls `callback` at each evaluation."""
    import jax

    def calling(t: Any, y: Any) -> Any:
        jax.debug.callback(callback)
        return field(t, y)

    return calling


def array(x: Tensor) -> Any:
    """Return a tensor as a JAX array on its default device; float64 stays float64."""
    import jax

    if x.is_cuda and jax.default_backend() == "cpu":
        raise RuntimeError("this JAX knows no GPU")
    if x.dtype == torch.float64:
        jax.config.update("jax_enable_x64", True)
    return jax.numpy.asarray(x.detach().cpu().numpy())


def tensor(x: Any) -> Tensor:
    """Return an array as a tensor on the CPU."""
    import numpy

    return torch.from_numpy(numpy.array(x))
