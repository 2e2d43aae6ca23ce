"""Whoever solves a workload, a fine tolerance brings the loss and gradient of the reference: the work is the same."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from odenet_cli.bench import mnist
from odenet_cli.bench import peers as libraries
from odenet_cli.bench.measure import distance
from odenet_cli.bench.work import Counter
from odenet_cli.bench.workloads import w1, w2, w3, w4
from odenet_cli.ode import Adaptive

BOUNDS = {"w1": 0.15, "w2": 1e-3, "w3": 2e-3, "w4": 1e-3}  # at the kinks of ReLUs gradients gain little by tolerance


@cache
def small(name):
    """A workload in a small size: its subjects for given peers, and its reference."""
    torch.manual_seed(0)
    work = {
        "w1": w1.Workload(width=4, batch=4, trained=0, tolerance=1e-4, fine=1e-5),
        "w2": w2.Workload(batch=4, end=2.0, tolerance=1e-6),
        "w3": w3.Workload(units=4, batch=8, tolerance=1e-5),
        "w4": w4.Workload(spirals=4, times=5, end=1.0, hidden=6),
    }[name]
    modes = [row for _, table, _ in work.tables(torch.device("cpu")) for row in table]
    _, _, problem = next(work.tables(torch.device("cpu")))
    if name == "w1":
        problem = problem[0], torch.rand(4, 1, 28, 28), torch.arange(4)
    return lambda *peers: work.subjects(peers, modes, problem), work.reference(problem)


@pytest.mark.parametrize("library", [*libraries.peers(), libraries.OURS])
@pytest.mark.parametrize("name", [pytest.param("w1", marks=pytest.mark.numerics), "w2", "w3", "w4"])
def test_results_agree(name, library):
    if library == "diffrax" and name != "w2":
        pytest.skip("the fields of this workload are torch's")
    if reason := libraries.missing(library):
        pytest.skip(f"{library} {reason}")
    subjects, exact = small(name)
    peers = () if library == libraries.OURS else (library,)
    for subject in subjects(*peers):
        if subject.library != library or (library != "diffrax" and "compiled" in subject.mode):
            continue
        assert distance(subject.work(subject.mode, None).run(), exact) < BOUNDS[name], subject.name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["w2", "w3", "w4"])
def test_compiled_results_agree(name):
    peers, _ = libraries.select(None)
    subjects, exact = small(name)
    for subject in subjects(*peers):
        if subject.library != "diffrax" and "compiled" in subject.mode:
            assert distance(subject.work(subject.mode, None).run(), exact) < 2e-3, subject.name


def test_the_concatenated_field_is_the_same_function():
    field = mnist.network(8, Adaptive(method="dopri5", rtol=1e-3, atol=1e-3)).flow.field
    x, t = torch.randn(3, 8, 6, 6), torch.tensor(0.7)
    plain = mnist.ConcatField(field)
    torch.testing.assert_close(plain(t, x), field(t, x))
    torch.testing.assert_close(plain(t.expand(3), x), field(t, x))


def test_the_trace_of_the_flow_is_that_of_its_jacobian():
    torch.manual_seed(0)
    flow, z = w3.PlanarFlow(5).double(), torch.randn(3, 2, dtype=torch.float64)
    t, zero = torch.tensor(0.3, dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow(t, (x, zero))[0].sum(0), z)
    torch.testing.assert_close(flow(t, (z, zero))[1][:, 0], -torch.einsum("ibi->b", jacobian))


@pytest.mark.parametrize("name", ["w3", "w4"])
def test_our_evaluations_are_those_a_field_sees(name):
    subjects, _ = small(name)
    for subject in subjects():
        if "compiled" in subject.mode:
            continue
        cost, counter = subject.cost(), Counter()
        subject.work(subject.mode, counter).run()
        assert counter.calls == cost.nfe_forward + cost.nfe_backward, subject.name
        assert (cost.nfe_backward == 0) == (subject.mode == "backprop")
