"""Witnesses: whoever solves, the loss is the run's own; what they say is compared with a far finer solve."""

import json
import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from runs_kit import train_run
from torch import nn

from odenet_cli.analysis.witnesses import Comparison, FlatField, Foreign, Witness, flat, scipy_solve, tightened
from odenet_cli.bench import peers
from odenet_cli.commands import verify
from odenet_cli.errors import RequestError
from odenet_cli.ode import Adaptive, Fixed, Stats
from odenet_cli.ode.gradient.adjoint import Adjoint

DOPRI5 = Adaptive(method="dopri5", rtol=1e-4, atol=1e-4)


class Field(nn.Module):
    """y' = A y, s' = Σ tanh(t + B y)."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(2, 3), nn.Linear(2, 2)

    def forward(self, t, state):
        y, _ = state
        return self.outer(y), torch.tanh(self.inner(y) + t).sum(1)


class Pair(nn.Module):
    """Two solves of tuples: one up in time with outputs inside, one down."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.field, self.solver = Field(), DOPRI5

    def forward(self, x):
        y, s = self.solver(self.field, (x, x.new_zeros(len(x))), [0.0, 0.4, 1.0]).y
        z, r = self.solver(self.field, (y[-1], s[-1]), [1.0, 0.2]).y
        return y.sum(0) * z, s.sum(0) + r


def loss(model, batch):
    y, s = model(batch[0])
    return y.square().mean() + s.mean(), {}


@pytest.fixture
def compared():
    """The comparison of a network with two solves, at 1e-4 in float32, the reference at 1e-10."""
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(1))
    train = SimpleNamespace(unshuffled=lambda size: SimpleNamespace(epoch=lambda n: iter([(x[:size],)])))
    net = SimpleNamespace(model=Pair(), loss_fn=loss, data=SimpleNamespace(train=train))
    return Comparison(net, DOPRI5, 4, 1e-10)


def ours(field, ts, *, method, rtol, atol):
    """Our own solver as a stranger's: it sees one vector."""
    solver = Adaptive(method=method, rtol=rtol, atol=atol)
    return lambda y: solver(field, y, ts).y


def wrong(field, ts, **settings):
    """The same, its gradient with the other sign."""
    solve = ours(field, ts, **settings)

    def solve_wrongly(y):
        solution = solve(y)
        return 2 * solution.detach() - solution

    return solve_wrongly


def test_our_own_solver_as_a_witness_says_what_we_say(compared):
    """The same steps and gradients, through states flattened and put together again."""
    own, same = compared.rows([Witness("mirror", ours)])
    assert same.failed is None
    # Counted twice here: by our solver, and by the field.
    assert (same.cost.nfe_forward, same.cost.nfe_backward) == (2 * own.cost.nfe_forward, 0)
    assert same.state == pytest.approx(own.state, rel=1e-3)
    assert same.gradient == pytest.approx(own.gradient, rel=1e-2)
    assert 1e-8 < own.state < 1e-4


def test_at_a_tight_tolerance_all_come_to_the_reference(compared):
    own, mirror, scipy = compared.rows([Witness("mirror", ours), Witness("scipy", scipy_solve, False)], 1e-8)
    assert max(own.state, own.gradient, mirror.state, mirror.gradient, scipy.state) < 1e-6
    assert scipy.gradient < 1e-4  # by differences of its loss


def test_a_wrong_gradient_stands_beside_a_right_state(compared):
    *_, row = compared.rows([Witness("wrong", wrong)], 1e-8)
    assert row.state < 1e-6
    assert row.gradient > 1.0


def test_differences_of_a_strangers_loss_find_a_wrong_gradient_of_ours(compared):
    """The reference's gradient with one part taken away: as far off as that part is long."""
    lost = compared.exact.parts["field.outer.bias"].norm().item()
    parts = {**compared.exact.parts, "field.outer.bias": torch.zeros(2, dtype=torch.float64)}
    compared.exact = replace(compared.exact, parts=parts)
    *_, scipy = compared.rows([Witness("scipy", scipy_solve, False)], 1e-8)
    assert scipy.gradient > 0.2 * lost / compared.exact.norm()  # along four directions


def test_a_witness_that_fails_fails_alone(compared):
    def broken(field, ts, **settings):
        raise OverflowError("it   breaks")

    rows = list(compared.rows([Witness("broken", broken), Witness("mirror", ours)]))
    assert [row.failed for row in rows] == [None, "OverflowError: it breaks", None]


def test_scipy_solves_at_all_times():
    field = FlatField(lambda t, y: -y * t, (torch.ones(2),), True, (), Stats())
    solve = partial(scipy_solve, field, method="dopri8", rtol=1e-9, atol=1e-9)
    y0 = torch.tensor([1.0, 2.0], dtype=torch.float64)
    exact = [math.exp(-t * t / 2) for t in (0.0, 1.0, 2.0)]
    assert solve([0.0, 1.0, 2.0])(y0)[:, 1].tolist() == pytest.approx([2 * e for e in exact], rel=1e-7)
    assert solve([0.0, 2.0])(y0).tolist() == pytest.approx([exact[2], 2 * exact[2]], rel=1e-7)


def test_a_flat_field_splits_and_counts():
    stats, y = Stats(), (torch.arange(6.0).reshape(2, 3), torch.arange(2.0))
    field = FlatField(lambda t, state: (state[0] * t, state[1] + t), y, False, (), stats)
    a, b = field.split(field(torch.tensor([2.0]), flat(y)))
    assert torch.equal(a, 2 * y[0])
    assert torch.equal(b, y[1] + 2)
    field.solved = True
    field(torch.tensor(2.0), flat(y))
    assert (stats.nfe_forward, stats.nfe_backward) == (1, 1)
    rows = field.split(torch.stack([flat(y)] * 4))
    assert [part.shape for part in rows] == [(4, 2, 3), (4, 2)]


def test_the_tight_solver_is_tight_backward_too():
    loose = Adaptive(method="bosh3", rtol=1e-1, atol=1e-1)
    tight = tightened(replace(DOPRI5, gradient=Adjoint(solver=loose)), 1e-8)
    assert (tight.rtol, tight.atol, tight.gradient.solver, tight.gradient.norm) == (1e-8, 1e-8, None, "relative")
    assert tightened(Fixed(method="euler", steps=2), 1e-8).method == "dopri5"


@pytest.mark.parametrize(
    ("library", "mode"), [(library, mode) for library in peers.peers() for mode in peers.library(library).MODES]
)
def test_the_libraries_that_are_installed_agree(compared, library, mode):
    """All but torchdyn's adjoint, which goes back at times of the wrong sign after the solve down in time."""
    if reason := peers.missing(library):
        pytest.skip(f"{library} {reason}")
    witness = Witness(library, partial(peers.witness, library, mode), differentiates=bool(mode))
    _, row = compared.rows([witness], 1e-7)
    assert row.failed is None
    assert row.state < 1e-4
    assert (row.gradient > 0.01) if (library, mode) == ("torchdyn", "adjoint") else (row.gradient < 1e-3)


# --- the command


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    words = ("model=cnf", "data=moons", "device=cpu", "trainer.steps=1", "trainer.batch_size=4", "model.hidden=4")
    return train_run(tmp_path_factory.mktemp("runs") / "run", *words, "trainer.limit_batches=1", "solver.rtol=1e-3")


QUICK = ("samples=3", "tight=1e-5", "reference=1e-7")


def test_the_command_names_who_is_missing(folder, monkeypatch, capsys):
    monkeypatch.setattr(peers, "missing", lambda name: "is not installed")
    assert verify.main([str(folder), "against=scipy", *QUICK]) == 0
    printed = capsys.readouterr().out
    assert "as trained: dopri5 0.001, gradient=backprop, float32" in printed
    assert printed.count("\nscipy ") == 3
    assert "agreed: at 1e-05 in float64" in printed
    records = [json.loads(line) for line in (folder / "verify.jsonl").read_text().splitlines()]
    assert [(record["solver"], record["rtol"]) for record in records] == [
        *(("odenet", None), ("scipy", None)),
        *(("odenet", 1e-5), ("scipy", 1e-5)),
    ]
    assert verify.main([str(folder), "against=scipy,torchdiffeq", *QUICK, "threshold=1e-20"]) == 1
    printed = capsys.readouterr().out
    assert "torchdiffeq is not installed. Install it: pip install" in printed
    assert "not agreed:" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tabel1"], "neither an item nor the folder of a run.*table1"),
        (["table1", "against=scipy"], "against= only applies to a RUN"),
        (["{run}", "against=scipi"], "scipi.*scipy"),
        (["{run}", "table1"], "Give one item or one run"),
        (["{run}", "solver.rtol=1"], "solver.rtol is not a key here"),
    ],
)
def test_what_cannot_be_verified_is_refused(folder, words, message):
    with pytest.raises(RequestError, match=message):
        verify.main([word.format(run=folder) for word in words])


def test_a_foreign_solver_keeps_the_outputs_in_their_form():
    solver = Foreign(ours, DOPRI5)
    y0 = (torch.ones(2, 3), torch.ones(2))
    solution = solver(lambda t, y: (-y[0], y[1]), y0, torch.tensor([0.0, 0.5, 1.0]))
    assert [part.shape for part in solution.y] == [(3, 2, 3), (3, 2)]
    assert solution.y[1][-1].tolist() == pytest.approx([math.e] * 2, rel=1e-3)
    assert solution.stats.nfe_forward > 0
