"""CUDA graphs: what a graph returns lies in memory that its next replay writes over. Nobody may keep it."""

from __future__ import annotations

import warnings

import pytest
import torch
from ode_cases import Swirl
from test_compiled import ENDS, MANY, Y0, agree, results

from odenet_cli.ode import Adaptive, Fixed
from odenet_cli.ode.compiled import kernels, loops
from odenet_cli.ode.gradient import replay

GRAPHED = [None, "replay", "adjoint"]


MEMORY: list[torch.Tensor] = []


class Graph:
    """A stand-in for a unit that is replayed as a CUDA graph: outputs and gradients lie in memory that the next call,
    of this or of another unit, makes worthless."""

    def __init__(self, unit, parameters):
        self.unit, self.parameters, self.calls = unit, parameters, 0

    def __call__(self, function, numbers, y, opening=()):
        self.calls += 1
        for held in MEMORY:
            held.fill_(torch.nan)
        MEMORY.clear()
        if torch.is_grad_enabled():
            return _Graphed.apply(self, function, numbers, *y, *opening, *self.parameters)
        found = self.unit(function, numbers, y, *([opening] if opening else []))
        return torch.utils._pytree.tree_map_only(torch.Tensor, lent, found)


def lent(tensor):
    MEMORY.append(tensor.detach().clone())
    return MEMORY[-1]


class _Graphed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, graph, function, numbers, y, *inputs):
        leaves = [tensor.detach().requires_grad_() for tensor in (y, *inputs[: -len(graph.parameters)])]
        with torch.enable_grad():
            ctx.made = graph.unit(function, numbers, (leaves[0],), *([tuple(leaves[1:])] if leaves[1:] else []))
        ctx.inputs = [*leaves, *graph.parameters]
        return tuple(lent(part) for part in ctx.made)

    @staticmethod
    def backward(ctx, *cotangents):
        found = torch.autograd.grad(ctx.made, ctx.inputs, cotangents, allow_unused=True)
        return None, None, None, *(None if g is None else lent(g) for g in found)


@pytest.fixture
def graphs(monkeypatch):
    """On this CPU, as on a GPU; the field whose parameters a graph knows, and the graphs that were made."""
    field, made = Swirl(), []

    def compile(unit, *, options=None, **_):
        def traced(*inputs):
            with monkeypatch.context() as patch:
                patch.setattr(torch.compiler, "is_compiling", lambda: True)
                return unit(*inputs)

        if (options or {}).get("triton.cudagraphs"):
            made.append(Graph(traced, list(field.parameters())))
            return made[-1]
        return traced

    known = (kernels.attempt, kernels.derivative, kernels.initial_step, kernels.advance)
    for cached in known:
        cached.cache_clear()
    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(loops, "_tensor", lambda numbers, y: torch.tensor(numbers, dtype=torch.float64))
    for module in (loops, replay):
        monkeypatch.setattr(module, "on_gpu", lambda y: True)
    yield field, made
    for cached in known:
        cached.cache_clear()


@pytest.mark.parametrize("times", [ENDS, MANY], ids=["ends", "many"])
@pytest.mark.parametrize("grad", GRAPHED)
@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (Adaptive, {"method": "dopri5", "rtol": 1e-5, "atol": 1e-5}),
        (Adaptive, {"method": "dopri5", "rtol": 1e-8, "atol": 1e-8, "first_step": 1.5}),  # rejected steps
        (Fixed, {"method": "rk4", "steps": 3}),
        (Fixed, {"method": "dopri5", "steps": 3}),
    ],
    ids=["adaptive", "rejected", "rk4", "fixed"],
)
def test_nobody_keeps_what_a_graph_writes_over(graphs, make, settings, grad, times):
    field, made = graphs
    settings = {**settings, "gradient": grad or "backprop"}
    plain, stats = results(make(**settings), field, Y0, times, grad is not None)
    found, counted = results(make(**settings, compile=True), field, Y0, times, grad is not None)
    assert sum(graph.calls for graph in made) >= counted.accepted + counted.rejected
    assert counted == stats
    for one, other in zip(found, plain):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_backprop_holds_all_steps_and_takes_no_graphs(graphs):
    field, made = graphs
    settings = {"method": "dopri5", "rtol": 1e-5, "atol": 1e-5}
    plain, _ = results(Adaptive(**settings), field, Y0, ENDS, True)
    found, _ = results(Adaptive(**settings, compile=True), field, Y0, ENDS, True)
    assert [graph.calls for graph in made] == [1]  # the choice of the first step
    for one, other in zip(found, plain):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.gpu
@pytest.mark.parametrize("times", [ENDS, MANY], ids=["ends", "many"])
@pytest.mark.parametrize("grad", [*GRAPHED, "backprop"])
@pytest.mark.parametrize(
    ("make", "settings"),
    [(Adaptive, {"rtol": 1e-6, "atol": 1e-6, "first_step": 1.5}), (Fixed, {"steps": 3})],
    ids=["adaptive", "fixed"],
)
def test_on_a_gpu_graphs_are_the_plain_solve(make, settings, grad, times):
    wanted = {"wanted": grad is not None, "gradient": grad or "backprop"}
    agree(Swirl().cuda(), Y0.cuda(), times, make=make, method="dopri5", **settings, **wanted)


@pytest.mark.gpu
@pytest.mark.parametrize("grad", GRAPHED)
def test_on_a_gpu_every_unit_becomes_a_graph(grad):
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters["inductor"].clear()
    settings = {"method": "dopri5", "rtol": 1e-6, "atol": 1e-6, "gradient": grad or "backprop", "compile": True}
    for _ in range(3):
        results(Adaptive(**settings), Swirl().cuda(), Y0.cuda(), ENDS, grad is not None)
    assert counters["inductor"]["cudagraph_skips"] == 0
    assert counters["inductor"]["cudagraph_recorded_non_static_inputs"] > 0


@pytest.mark.gpu
@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("grad", [*GRAPHED, "backprop"])
def test_on_a_gpu_a_solve_waits_once_an_attempt(grad, compile):
    """torch itself counts the waits: one an attempted step, and the few with which a solve begins: three of Hairer's
    rule, and one where it ends; an adjoint's again as many, and one for the size of the gradient."""
    field, y0 = Swirl().cuda(), Y0.cuda()
    solve = Adaptive(method="dopri5", rtol=1e-8, atol=1e-8, gradient=grad or "backprop", compile=compile)
    for _ in range(3):  # compile, record
        results(solve, field, y0, ENDS, grad is not None)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            _, stats = results(solve, field, y0, ENDS, grad is not None)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    few = 6
    if grad == "adjoint":  # two evaluations begin it, and each attempt takes six
        few += (stats.nfe_backward - 2) // 6 + 4
    assert 0 < sum("synchronizing" in str(wait.message) for wait in waits) <= stats.accepted + stats.rejected + few
