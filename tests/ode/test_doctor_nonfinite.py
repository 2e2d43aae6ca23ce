"""The doctor names where a field is NaN or infinite at a finite state."""

from __future__ import annotations

import pytest
import torch

from odenet_cli.ode import Adaptive, Fixed, doctor

DOUBLE = torch.float64


def adaptive(method):
    return Adaptive(method=method, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize(
    "solver", [adaptive("dopri5"), adaptive("adams"), adaptive("rodas4"), Fixed(method="rk4", steps=32)]
)
def test_a_root_of_a_time_that_runs_out(solver, dtype):
    """sqrt(1 - t) ends at t = 1; the step that crosses it is 1/16 long where steps are fixed."""

    def field(t, y):
        return torch.stack([-y[0], y[1] * torch.sqrt(1 - t)])

    report = doctor(solver, field, torch.tensor([1.0, 2.0], dtype=dtype), [0.0, 2.0])
    assert report.kind == "nonfinite"
    assert "the field is nan at t = 1" in report.reason
    assert "y'[1]" in report.reason
    assert "it comes with t, not y" in report.reason
    # y = 2 exp(2/3) where the root is 0.
    assert report.evidence["y[1]"] == pytest.approx(3.8955, rel=1e-2)
    assert report.cure["ts"] == pytest.approx((0.0, 0.95), abs=0.06)
    assert report.tried["error"] < 1e-3


@pytest.mark.parametrize(("ts", "sign"), [([0.0, 2.0], -1), ([2.0, 0.0], 1)])
def test_a_logarithm_of_a_state_that_falls_below_0(ts, sign):
    """|y'| = 1 from y = 1 on, either way in time; the first attempts overshoot by far, the last one does not."""
    y0 = (torch.ones(2, 3, dtype=DOUBLE) * 3, torch.tensor(1.0, dtype=DOUBLE))
    report = doctor(adaptive("dopri5"), lambda t, y: (-y[0], sign + 0 * torch.log(y[1])), y0, ts)
    assert report.kind == "nonfinite"
    assert "the field is nan at t = 1, in y'[1]" in report.reason
    assert "it comes with y, not t" in report.reason
    assert report.evidence["y[1]"] == pytest.approx(0.0, abs=1e-9)
    assert report.evidence["finite up to t"] == pytest.approx(1.0, abs=1e-9)
    assert report.tried is not None


@pytest.mark.parametrize("solver", [adaptive("dopri5"), Fixed(method="euler", steps=4)])
def test_a_field_that_is_not_finite_at_the_start(solver):
    report = doctor(solver, lambda t, y: y / t, torch.tensor([[1.0], [2.0]]), [0.0, 1.0])
    assert report.kind == "nonfinite"
    assert "the field is inf at t = 0, in y'[0, 0], where the state is finite: the solve begins there" in report.reason
    assert (report.tried, [*report.cure]) == (None, ["field"])


def test_growth_that_overflows_is_blow_up_still():
    y0 = torch.tensor([1.0], dtype=DOUBLE)
    assert doctor(adaptive("dopri5"), lambda t, y: y * y, y0, [0.0, 2.0]).kind == "blow_up"
    assert doctor(Fixed(method="rk4", steps=200), lambda t, y: y * y, y0, [0.0, 2.0]).kind == "blow_up"
