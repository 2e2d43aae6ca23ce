"""A solve, its backward pass, its tensors and its tally may each live in a thread of their own."""

from __future__ import annotations

import functools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from ode_cases import GRADIENTS, doubles
from torch import nn

from odenet_cli.ode import Adaptive, tally

TS = [0.0, 1.0]


@pytest.fixture(params=GRADIENTS)
def solve(request):
    return Adaptive(method="dopri5", rtol=1e-8, atol=1e-8, gradient=request.param)


def elsewhere(function):
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(function).result()


def expected(u):
    """d/du of exp(-tanh(u))."""
    return -torch.exp(-torch.tanh(u)) * (1 - torch.tanh(u) ** 2)


@pytest.mark.parametrize("busy", [0, 200])
def test_a_tensor_made_in_another_thread(solve, busy):
    """Autograd numbers its nodes thread by thread: the tensor's may be above or below those of the solve."""
    u = doubles(0.3, grad=True)

    def make():
        for _ in range(busy):
            u.clone()
        return torch.tanh(u)

    w = elsewhere(make)
    for _ in range(200 - busy):
        u.clone()
    y = solve(lambda t, y: -w * y, doubles(1.0), TS).y
    (found,) = torch.autograd.grad(y.sum(), u)
    torch.testing.assert_close(found, expected(u.detach()), rtol=1e-6, atol=0)


def test_a_tensor_that_the_first_call_caches(solve):
    u = doubles(0.3, grad=True)

    class Caching:
        w = None

        def __call__(self, t, y):
            if self.w is None:
                self.w = torch.tanh(u)
            return -self.w * y

    @functools.lru_cache
    def cached():
        return torch.tanh(u)

    for field in (Caching(), lambda t, y: -cached() * y):
        for _ in range(2):  # the second solve finds it there
            y = solve(field, doubles(1.0), TS).y
            (found,) = torch.autograd.grad(y.sum(), u, retain_graph=True)
            torch.testing.assert_close(found, expected(u.detach()), rtol=1e-6, atol=0)


def test_a_backward_pass_in_another_thread(solve):
    net, y0 = nn.Linear(2, 2).double(), doubles(1.0, 2.0)

    def gradient(run):
        y, stats = solve(lambda t, y: torch.tanh(net(y)), y0, TS)
        return run(lambda: torch.autograd.grad(y.sum(), list(net.parameters()))), stats

    (there, counted), (here, stats) = gradient(elsewhere), gradient(lambda run: run())
    assert counted == stats
    for one, other in zip(there, here):
        assert torch.equal(one, other)


def test_tallies_of_two_threads_do_not_mix():
    solve, together, counts = Adaptive(method="bosh3", rtol=1e-3, atol=1e-3), threading.Barrier(2), {}

    def run(name, solves):
        with tally() as seen:
            together.wait()
            for _ in range(solves):
                solve(lambda t, y: -y, doubles(1.0), TS)
            together.wait()
        counts[name] = len(seen)

    threads = [threading.Thread(target=run, args=(n, n)) for n in (3, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == {3: 3, 5: 5}


def test_solves_begun_in_a_backward_pass_are_tallied_where_the_outer_one_is(solve):
    w = doubles(0.5, grad=True)

    def field(t, y):
        return -w * solve(lambda s, z: -z, y, TS).y

    def count(run):
        with tally() as solves:
            outer = Adaptive(method="bosh3", rtol=1e-2, atol=1e-2, gradient=solve.gradient)
            run(outer(field, doubles(1.0), TS).y.sum().backward)
        return len(solves)

    assert count(elsewhere) == count(lambda run: run()) > 1
