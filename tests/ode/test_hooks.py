"""Hooks see the whole gradient, once, however often a solve asks autograd for parts of it."""

from __future__ import annotations

import pytest
import torch
from ode_cases import GRADIENTS, doubles, label, solver

CASES = [("fixed", "rk4"), ("adaptive", "dopri5")]
ENDS = doubles(0.0, 1.0)


class Decay(torch.nn.Module):
    """y' = -k y, so y(1) = exp(-k) y0 and dy/dk = -exp(-k) y0."""

    def __init__(self):
        super().__init__()
        self.k = torch.nn.Parameter(doubles(1.0))

    def forward(self, t, y):
        return -self.k * y


def solved(case, name, field, y0=None):
    y0 = doubles(2.0) if y0 is None else y0
    return solver(case, name, tol=1e-8, steps=40)(field, y0, ENDS).y.sum()


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("case", CASES, ids=label)
def test_hooks_of_leaves_fire_once_with_the_whole_gradient(case, name):
    field, y0, seen = Decay(), doubles(2.0, grad=True), []
    field.k.register_hook(lambda g: seen.append(("k", g.item())))
    field.k.register_hook(lambda g: 2 * g)
    field.k.register_post_accumulate_grad_hook(lambda p: seen.append(("post", p.grad.item())))
    y0.register_hook(lambda g: seen.append(("y0", g.item())))
    loss = solved(case, name, field, y0)
    for _ in range(2):
        seen.clear()
        field.k.grad = y0.grad = None
        loss.backward(retain_graph=True)
        decay = torch.exp(doubles(-1.0)).item()
        assert {key for key, _ in seen} == {"k", "post", "y0"}
        assert len(seen) == 3
        assert dict(seen) == pytest.approx({"k": -2 * decay, "post": -4 * decay, "y0": decay}, rel=1e-5)


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("case", CASES, ids=label)
def test_a_tensor_made_before_keeps_its_gradient_and_its_hooks(case, name):
    """k = tanh(u): `retain_grad` holds dy/dk once, and u gets its share through it."""
    u, seen = doubles(0.5, grad=True), []
    k = torch.tanh(u)
    k.retain_grad()
    k.register_hook(lambda g: seen.append(g.item()))
    solved(case, name, lambda t, y: -k * y).backward()
    expected = -2 * torch.exp(-k).item()
    assert seen == pytest.approx([expected], rel=1e-5)
    assert k.grad.item() == pytest.approx(expected, rel=1e-5)
    assert u.grad.item() == pytest.approx(expected * (1 - k.item() ** 2), rel=1e-5)


@pytest.mark.parametrize("name", [name for name in GRADIENTS if name != "backprop"])
@pytest.mark.parametrize("case", CASES, ids=label)
def test_hooks_are_back_after_a_backward_pass_that_fails(case, name):
    k, seen, calls = doubles(1.0, grad=True), [], []
    k.register_hook(lambda g: seen.append(g.item()))

    def field(t, y):
        calls.append(t)  # a book of its own, which is not compared
        if len(calls) > 1000:
            raise ZeroDivisionError
        return -k * y

    loss = solved(case, name, field)
    calls.extend([0.0] * 1000)
    with pytest.raises(ZeroDivisionError):
        loss.backward()
    assert not seen
    calls.clear()
    solved(case, name, field).backward()
    assert len(seen) == 1


@pytest.mark.parametrize("name", [name for name in GRADIENTS if name != "adjoint"])
@pytest.mark.parametrize("case", CASES, ids=label)
def test_hooks_fire_once_in_a_second_derivative(case, name):
    """d²y/dk² = exp(-k) y0; a hook sees dy/dk and then d²y/dk², each once."""
    field, y0, seen = Decay(), doubles(2.0, grad=True), []
    field.k.register_hook(lambda g: seen.append(("k", g.item())))
    y0.register_hook(lambda g: seen.append(("y0", g.item())))
    loss, decay = solved(case, name, field, y0), torch.exp(doubles(-1.0)).item()
    of_k, _ = torch.autograd.grad(loss, (field.k, y0), create_graph=True)
    assert sorted(seen) == [("k", pytest.approx(-2 * decay, rel=1e-5)), ("y0", pytest.approx(decay, rel=1e-5))]
    seen.clear()
    of_k.backward()
    assert sorted(seen) == [("k", pytest.approx(2 * decay, rel=1e-4)), ("y0", pytest.approx(-decay, rel=1e-4))]


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("case", CASES, ids=label)
def test_only_the_inputs_asked_for_accumulate(case, name):
    field, y0, seen = Decay(), doubles(2.0, grad=True), []
    field.k.register_post_accumulate_grad_hook(lambda p: seen.append(p))
    solved(case, name, field, y0).backward(inputs=[y0])
    assert y0.grad is not None
    assert field.k.grad is None
    assert not seen
    (alone,) = torch.autograd.grad(solved(case, name, field, y0), field.k)
    assert field.k.grad is None
    assert alone.item() == pytest.approx(-2 * torch.exp(doubles(-1.0)).item(), rel=1e-5)


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("case", CASES, ids=label)
def test_anomaly_mode_changes_nothing(case, name):
    field, twin = Decay(), Decay()
    solved(case, name, twin).backward()
    with pytest.warns(UserWarning, match="Anomaly"), torch.autograd.detect_anomaly(check_nan=True):
        solved(case, name, field).backward()
    assert torch.equal(field.k.grad, twin.k.grad)


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("case", CASES, ids=label)
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_a_solve_changes_nothing(case, name, reentrant):
    field, twin, y0 = Decay(), Decay(), doubles(2.0, grad=True)
    solved(case, name, twin).backward()
    y = torch.utils.checkpoint.checkpoint(lambda y0: solved(case, name, field, y0), y0, use_reentrant=reentrant)
    y.backward()
    assert torch.equal(field.k.grad, twin.k.grad)
    assert y0.grad is not None
