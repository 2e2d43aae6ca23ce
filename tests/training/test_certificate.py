"""The certificate of a gradient: what it catches and names, and that it leaves everything as it was."""

import itertools
import json
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from planted_gradients import DOPRI5, PLANTED, RK4, Field, Net, loss_fn, wrong_sign
from runs_kit import configure, same_tensors
from torch.utils.flop_counter import FlopCounterMode

from odenet_cli.config.schema import OptimConfig
from odenet_cli.models.cnf import PlanarField
from odenet_cli.models.common.blocks import ConvField
from odenet_cli.ode import method
from odenet_cli.ode.gradient import gradient, supports
from odenet_cli.ode.gradient import names as gradient_names
from odenet_cli.ode.gradient.adjoint import AugmentedField
from odenet_cli.ode.methods import names as method_names
from odenet_cli.training.certificate import Certificate, certify, schedule
from odenet_cli.training.certificate.backward import outputs
from odenet_cli.training.certificate.causes import find_cause
from odenet_cli.training.certificate.measure import ALARM, Cause, Check, NotCertified, own_solver
from odenet_cli.training.certificate.schedule import due
from odenet_cli.training.costs import FlopCounter
from odenet_cli.training.exact_gradient.model_contexts import Objective
from odenet_cli.training.run import assemble
from odenet_cli.training.session import Certificates


def batch(size=8):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, 3, generator=generator), torch.randn(size, 2, generator=generator)


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_a_planted_fault_is_named(planted, monkeypatch):
    torch.manual_seed(0)
    made = certify(planted.plant(monkeypatch), planted.loss_fn, batch())
    assert made.cause is not None
    assert made.cause.kind == planted.kind


class Hidden(Field):
    """Reads a weight behind autograd's back: its gradient is 3 % of the whole."""

    def forward(self, t, y):
        inner = torch.nn.functional.linear(y, self.inner.weight.data, self.inner.bias)
        return self.outer(torch.tanh(inner + self.rhythm * torch.sin(3 * t)))


class Averaging(Field):
    """Writes a buffer at each evaluation, and reads it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, t, y):
        self.mean.add_(0.02 * y.detach().mean(0))
        return super().forward(t, y) + self.mean


class StraightThrough(Field):
    """Rounds on the way forward; the gradient passes through, as it is meant to."""

    def forward(self, t, y):
        hidden = torch.tanh(self.inner(y) + self.rhythm * torch.sin(3 * t))
        return 2 * self.outer(hidden + ((4 * hidden).round() / 4 - hidden).detach())


@pytest.mark.parametrize(
    ("field", "kind", "name"), [(Hidden, "detached", "field.inner.weight"), (Averaging, "stale buffer", "field.mean")]
)
@pytest.mark.parametrize("method", ["adjoint", "replay"])
def test_what_a_field_does_behind_autograd_is_named(field, kind, name, method):
    torch.manual_seed(0)
    cause = certify(Net(replace(DOPRI5, gradient=method), field), loss_fn, batch()).cause
    assert cause.kind == kind
    assert name in cause.text


@pytest.mark.parametrize("solver", [DOPRI5, RK4])
def test_a_straight_through_estimator_is_no_fault(solver):
    """Between its jumps the loss has another slope than across them: differences over short ways do not judge it."""
    torch.manual_seed(0)
    made = certify(Net(replace(solver, gradient="replay"), StraightThrough), loss_fn, batch())
    assert made.cause is None
    assert made.error < 1e-4


def test_hooks_of_parameters_are_no_fault_and_stay():
    """They clip what training uses; what the solve gives them is right."""
    torch.manual_seed(0)
    model = Net(replace(DOPRI5, gradient="replay"))
    for parameter in model.parameters():
        parameter.register_hook(lambda g: g.clamp(-1e-3, 1e-3))
    made = certify(model, loss_fn, batch())
    assert made.cause is None
    assert made.error < 1e-4
    loss_fn(model, batch())[0].backward()
    assert max(float(parameter.grad.abs().max()) for parameter in model.parameters()) < 1.001e-3


def test_a_tensor_with_little_of_the_gradient_is_no_cause():
    """It may be far off its own part; of the whole gradient that is 6 %."""
    nothing = {"missing": [], "unseen": [], "coarse": (), "solver": None}
    check = SimpleNamespace(error=0.06, by_tensor={"bias": 0.9}, repeats=True, **nothing)
    assert find_cause(check) is None


def test_a_loss_that_no_output_reaches_has_no_wrong_jump():
    model = Net(times=(0.0, 0.5, 1.0))
    torch.nn.init.zeros_(model.head.weight)
    assert outputs(Check(Objective(model, loss_fn, batch()), own_solver(model))) is None


EPOCHS = ("data=digits", "trainer.batch_size=4", "trainer.limit_batches=4", "trainer.epochs=1")
STEPS = ("trainer.batch_size=4", "trainer.limit_batches=2", "trainer.steps=3", "trainer.epochs=null")
DIGITS = (*EPOCHS, "model=odenet", "model.width=4")
FLOW = (*STEPS, "data=moons", "model=cnf", "model.units=4", "model.hidden=4")
SERIES = (*STEPS, "data=spirals", "data.count=8", "data.validation=4", "data.test=4")
SERIES += ("model=latent_ode", "model.rnn=4", "model.hidden=4")
TASKS = {"digits": DIGITS, "moons": FLOW, "spirals": SERIES}


def sessions(task, *words):
    """The network of a task as a run begins with it, its loss and a batch."""
    session = assemble(configure(*TASKS[task], *words), torch.device("cpu"))
    session.model.train()
    return session.model, session.loss_fn, next(session.batches())


def sound(task, solver, name):
    made = certify(*sessions(task, f"solver={solver}", f"gradient={name}"), above=ALARM)
    assert made.error <= ALARM, (task, solver, name, made)
    return made


PAIRS = [
    (solver, name) for solver in method_names() for name in gradient_names() if supports(gradient(name), method(solver))
]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("solver", "name"), [("dopri5", "adjoint"), ("dopri5", "replay"), ("rk4", "reversible")])
def test_no_alarm_where_nothing_is_wrong(task, solver, name):
    made = sound(task, solver, name)
    assert name == "adjoint" or made.cause is None
    assert name == "adjoint" or made.error < 1e-4


@pytest.mark.numerics
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("solver", "name"), PAIRS)
def test_no_alarm_over_all_methods_and_gradients(task, solver, name):
    sound(task, solver, name)


@pytest.fixture
def every_step(monkeypatch):
    """Certificates at any price."""
    monkeypatch.setattr(schedule, "SHARE", 1e9)


RANDOM = (*FLOW, "model.divergence=hutchinson", "gradient=replay")
TWO = ("trainer.max_steps=2", "trainer.log_every=1")


@pytest.mark.parametrize("words", [(*DIGITS, "dtype=float64"), RANDOM, SERIES], ids=["float64", "noise", "latent"])
def test_certificates_change_no_bit_of_a_run(words, every_step, train, metrics, checkpoint_of):
    a, b = (train(*words, *TWO, f"trainer.certify={n}", name=f"run{n}") for n in (0, 1))
    own = ("gradient_error", "nfe_certify")
    made = [record for record in metrics(b, "train") if "gradient_error" in record]
    assert len(made) == len(metrics(b, "train"))
    assert all(record["nfe_certify"] > 0 for record in made)
    times = ("step_ms", "time_s", "epoch_s")
    bare = [[{k: v for k, v in r.items() if k not in (*own, *times)} for r in metrics(run)] for run in (a, b)]
    assert bare[0] == bare[1]
    x, y = (checkpoint_of(run) for run in (a, b))
    assert same_tensors(x["model"], y["model"])
    assert torch.equal(x["generator"], y["generator"])


@pytest.mark.parametrize(
    ("solver", "gradient", "exact"),
    [
        ("dopri5", "adjoint", "gradient=backprop or replay"),
        ("dopri5", "reversible", "gradient=backprop or replay"),
        ("adams", "adjoint", "gradient=backprop"),
        ("dopri5", "backprop", ""),
    ],
)
@pytest.mark.parametrize("error", [0.2, 0.05])
def test_a_warning_without_a_cause_says_where_to_look(error, solver, gradient, exact, monkeypatch, capsys):
    """In a short run none is looked for; what has no error of a way back of its own is named."""
    monkeypatch.setattr(schedule, "on_terminal", lambda: True)
    config = SimpleNamespace(gradient=SimpleNamespace(method=gradient), solver=SimpleNamespace(method=solver))
    session = SimpleNamespace(certificates=Certificates(), step=0, total=5, elapsed_s=1.0, config=config)
    schedule.tell(session, Certificate(error, ("weight", error), None, 0.1))
    text = " ".join(capsys.readouterr().out.split())
    assert ("`odenet gradcheck RUN` shows details." in text) == ("is 20 % off" in text) == (error > 0.1)
    assert ("differentiates the steps" in text) == (error > 0.1 and bool(exact))
    assert (f"{exact} differentiates the steps themselves; `odenet" in text) == (error > 0.1 and bool(exact))


def test_a_run_that_goes_on_makes_the_same_certificates(every_step, train, metrics):
    words = (*DIGITS, "solver=heun", "solver.steps=2", "trainer.certify=1", "trainer.log_every=1")
    whole = train(*words, name="whole")
    train(*words, "trainer.max_steps=2", name="parts")
    parts = train(*words, name="parts")
    errors = [[(r["step"], r["loss"], r["gradient_error"]) for r in metrics(run, "train")] for run in (whole, parts)]
    assert errors[0] == errors[1]
    assert len(errors[0]) == 4


def test_what_a_run_has_cost_adds_up(every_step, train, metrics):
    folder = train(*DIGITS, "solver=heun", "solver.steps=2", "gradient=replay", "trainer.certify=2", "logger=none")
    record = json.loads((folder / "run.json").read_text())
    cost, made = record["cost"], metrics(folder, "train")
    # 4 steps of training, 144 of validation and 360 of testing in batches, limited to 4; heun evaluates twice a step.
    assert cost["evaluations"]["forward"] == 4 * 4
    assert cost["evaluations"]["backward"] == 4 * 4
    assert cost["evaluations"]["in_rejected_steps"] == 0
    assert cost["evaluations"]["certificates"] == sum(r.get("nfe_certify", 0) for r in made) > 0
    assert cost["evaluations"]["validation"] % 4 == cost["evaluations"]["test"] % 4 == 0
    # Two convolutions of 4 to 4 channels and 3 x 3 weights on 6 x 6 pixels, 4 samples, a product and a sum each.
    one = 2 * 2 * 4 * 4 * 9 * 36 * 4
    assert one <= cost["flop"]["evaluation"] <= 1.2 * one
    assert 1.8 * one <= cost["flop"]["vjp"] <= 2.4 * one
    whole = cost["flop"]["evaluation"] * 32 + cost["flop"]["vjp"] * 16
    assert cost["flop"]["training"] == whole
    assert 0 < cost["seconds"]["certificates"] < cost["seconds"]["measured"]


@pytest.mark.parametrize(
    ("call", "shapes"),
    [
        (torch.mm, [(3, 4), (4, 5)]),
        (torch.addmm, [(5,), (3, 4), (4, 5)]),
        (torch.bmm, [(2, 3, 4), (2, 4, 5)]),
        (torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)]),
        (partial(F.conv2d, stride=2, padding=1), [(2, 3, 7, 7), (5, 3, 3, 3), (5,)]),
        (partial(F.conv_transpose2d, stride=2), [(2, 3, 7, 7), (3, 5, 3, 3)]),
    ],
)
def test_flop_are_those_of_torch(call, shapes):
    """Of a product or convolution and its gradients."""
    for wanted in (range(1), range(len(shapes))):
        counts = []
        for counter in (FlopCounter(), FlopCounterMode(display=False)):
            inputs = [torch.ones(shape, requires_grad=n in wanted) for n, shape in enumerate(shapes)]
            with counter:
                call(*inputs).sum().backward()
            counts.append(counter.total if isinstance(counter, FlopCounter) else counter.get_total_flops())
        assert counts[0] == counts[1] > 0


def test_flop_of_fused_attention_are_those_of_torch():
    """As on a GPU, by tensors without numbers: one kernel, of no product that is seen."""
    counts = []
    for counter in (FlopCounter(), FlopCounterMode(display=False)):
        q = torch.ones(2, 4, 8, 16, device="meta", requires_grad=True)
        with counter:
            torch.ops.aten._scaled_dot_product_efficient_attention(q, q, q, None, True)[0].sum().backward()
        counts.append(counter.total if isinstance(counter, FlopCounter) else counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("gradient", ["backprop", "replay", "adjoint", "reversible"])
def test_every_call_of_the_field_is_in_one_column(gradient, every_step, train, monkeypatch):
    """A field that counts its own calls: in training, certificates, scores, and the figures of a flow."""
    calls, weights = [0], PlanarField._weights

    def counted(self, t):
        calls[0] += 1
        return weights(self, t)

    monkeypatch.setattr(PlanarField, "_weights", counted)
    fixed = ("solver=heun", "solver.steps=2", "eval.solver.method=heun", "eval.solver.steps=2")
    folder = train(*FLOW, *fixed, f"gradient={gradient}", "trainer.certify=2", "compile=false", "logger=none")
    columns = json.loads((folder / "run.json").read_text())["cost"]["evaluations"]
    assert columns.pop("in_rejected_steps") <= columns["forward"]
    assert sum(columns.values()) == calls[0]
    assert min(columns[name] for name in ("forward", "certificates", "validation", "test", "other")) > 0


def test_the_evaluations_of_a_certificate_given_up_are_counted(every_step, train, monkeypatch):
    forward, calls = ConvField.forward, [0]

    def noisy(self, t, y):
        calls[0] += 1
        return forward(self, t, y) + next(noise)

    noise = itertools.count(0.0, 1e-3)
    monkeypatch.setattr(ConvField, "forward", noisy)
    folder = train(*DIGITS, "solver=heun", "solver.steps=2", "gradient=backprop", "trainer.certify=1", "logger=none")
    columns = json.loads((folder / "run.json").read_text())["cost"]["evaluations"]
    assert (columns["certificates"], columns["other"]) == (2, 1)  # the FLOP are those of one evaluation
    assert sum(columns.values()) == calls[0]


def test_a_network_without_a_solver_has_none(train, metrics):
    folder = train("trainer.certify=1")
    assert not [record for record in metrics(folder) if "gradient_error" in record]
    assert "gradient_error" not in json.loads((folder / "run.json").read_text())["final"]


def test_a_field_that_cannot_be_checked_leaves_the_run_alone(caplog):
    class Stubborn(Net):
        def forward(self, x):
            return super().forward(x.float())

    with pytest.raises(NotCertified, match="dtype"):
        certify(Stubborn(), loss_fn, batch())


@pytest.mark.parametrize(
    ("step", "end", "made", "spent", "expected"),
    [
        (499, 500, 0, 0.0, True),  # the last step
        (499, 900, 0, 0.0, False),  # a short run: at its end alone
        (499, 5000, 0, 0.0, True),
        (498, 5000, 0, 0.0, False),
        (999, 5000, 1, 3.0, True),  # 6 of 10 s
        (999, 5000, 1, 8.0, False),  # 16 of 10 s: it has to wait
        (1499, 5000, 1, 7.0, True),
        (3999, 4100, 4, 32.0, False),  # the last one would take it over the limit
    ],
)
def test_certificates_take_at_most_a_hundredth_of_the_time(step, end, made, spent, expected):
    session = SimpleNamespace(
        config=SimpleNamespace(trainer=SimpleNamespace(certify=500), optim=OptimConfig()),
        certificates=Certificates(made=made, time_s=spent, latest_s=spent / made if made else 0.0),
        step=step,
        end=end,
        total=end,
        elapsed_s=float(step),
        device=torch.device("cpu"),
        model=Net(),
    )
    assert due(session) == expected


def test_an_alarm_is_told_once_and_kept(every_step, train, monkeypatch, caplog):
    true = AugmentedField.__call__
    monkeypatch.setattr(AugmentedField, "__call__", lambda *args, **more: wrong_sign(args[0], true, *args[1:], **more))
    folder = train(*DIGITS, *TWO, "gradient=adjoint", "trainer.certify=1")
    alarms = [entry.levelname for entry in caplog.records if "Likely cause, wrong sign" in entry.getMessage()]
    assert alarms == ["ALARM"]
    final = json.loads((folder / "run.json").read_text())["final"]
    assert final["gradient_error"] > 0.1


@pytest.mark.parametrize(
    ("kind", "words"),
    [("unknown", "No known cause: the backward pass"), ("time", "Likely cause, time: the backward pass")],
)
def test_a_warning_says_whether_a_cause_is_known(caplog, kind, words):
    made = Certificate(0.2, ("net", 0.4), Cause(kind, "the backward pass differs"), 0.1)
    schedule.tell(assemble(configure(*DIGITS, *TWO), torch.device("cpu")), made)
    (record,) = [entry for entry in caplog.records if entry.levelname == "WARNING"]
    assert f"{words} differs." in record.getMessage()
