"""Find the cheapest solver, gradient and tolerance that is good enough for a network and its data, by measurement.

A setting is measured at the initial and at the trained weights. Its errors, on a few samples, are relative to a
float64 reference, which is refined until it changes far less than the wanted errors; its cost is that of a training
step. Errors fall along a method's ladder of tolerances: the loosest that satisfies the limits is sought from above,
first with backprop, by which the methods are compared, then with the other gradients for the better half of the
methods. The settings within the limits then race on larger and larger parts of a batch, one step of each in turn, so
that other load slows all of them alike. Finally those close to the best are timed in the same way on a whole batch.

The same measurements show how good the search is: `check` climbs all ladders until nothing can win, and times the
candidates for the best, the setting found by the search and the run's own in turn.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch

from odenet_cli.analysis.gradcheck import solver_of
from odenet_cli.analysis.measures.error_control import synchronized_clock
from odenet_cli.analysis.trained import Trained
from odenet_cli.analysis.tuned_settings import ERRORS, Limits, Measured, Setting, halve, setting_of
from odenet_cli.analysis.witnesses import Comparison
from odenet_cli.config.presets import adaptive
from odenet_cli.config.schema import Config
from odenet_cli.errors import RequestError, first_line
from odenet_cli.ode import Adaptive, SolveError, Solver, Stats, StepLimit, tally
from odenet_cli.precision import EPS
from odenet_cli.training.evaluate import solved_by
from odenet_cli.training.exact_gradient.model_contexts import repeatable
from odenet_cli.training.memory import SavedMeter

METHODS = ("heun_euler", "bosh3", "tsit5", "dopri5", "dopri8")
TOLERANCES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
STEPS = (1, 2, 4, 8, 16, 32)  # of fixed-step methods
# Gradients besides backprop, with the tolerance of an adjoint solve by bosh3; None: it uses the forward solver.
OTHERS = (("replay", None), ("reversible", None), ("adjoint", None), ("adjoint", 3e-2), ("adjoint", 1e-1))
REFERENCE_SHARE, LADDER_SHARE = 0.3, 0.65  # of the time, by which these phases must end
HOPELESS = 2.0  # times the cost of the best; more than the error of an estimate
COARSEST, FINEST = 1e-3, 1e-11  # references
MARGIN = 20  # wanted error over the last change of the reference, at least
FEW, QUICK_SHARE = 8, 1 / 400  # samples used in any case; share of the time for a gradient of more samples
MAX_RACERS, SHORT_S, LONG_S = 8, 0.02, 0.5  # shorter steps are timed more often, longer ones less
DOUBT = 1.25  # factor on an estimated cost
PATIENCE = 8  # largest number of evaluations, relative to the run's own setting


class OutOfTime(Exception):
    """Signal that the time is over."""


@dataclass
class Tuner:
    """Hold a network, its weights, the limits, and the `rows` of measurements.

    weights  state dicts, first those that need the finer solves
    change   returns a config with these keys set
    metric   to be minimised
    seconds  limit of the search, by `clock`
    samples  on which errors are measured; None: as many as are quick. `few` is the number used
    own      the row of the run's own setting
    """

    net: Trained
    run: Config
    weights: Sequence[Mapping[str, Any]]
    change: Callable[[Config, dict[str, Any]], Config]
    limits: Limits
    metric: str = "time"
    seconds: float = 60.0
    methods: Sequence[str] = METHODS
    samples: int | None = None
    note: Callable[[str], None] = lambda text: None
    rows: dict[Setting | None, Measured] = field(default_factory=dict)
    references: list[Comparison] = field(default_factory=list)
    reference_rtol: float = math.nan
    reference_error: float = math.inf

    def __post_init__(self) -> None:
        self.started, self.model = clock(self.net.device), self.net.model.train()
        self.resident = [*self.model.parameters(), *self.model.buffers()]
        self.batch_size = self.run.trainer.batch_size or self.samples or FEW
        self.few = min(self.samples or FEW, self.batch_size)
        self.batches: dict[int, Any] = {}
        # The run's own setting has a separate row only if it is not among the settings tried.
        self.own_key = setting_of(self.run)

    @property
    def own(self) -> Measured:
        return self.rows[self.own_key]

    @property
    def spent(self) -> float:
        """The seconds since the start, by `clock`."""
        return clock(self.net.device) - self.started

    def tune(self) -> Measured | None:
        """Measure until all is known or the time is over; return the cheapest setting within the limits, if any."""
        try:
            self.find_references()
            self.measure_own()
            self.climb_ladders()
            self.race()
            self.complete_front()
            self.compare(DOUBT)
        except OutOfTime:
            pass
        return self.best()

    def check(self, found: Measured | None) -> Measured | None:
        """Measure all candidates for the best without a time limit, in turn with the row `found`; return the best."""
        self.seconds = math.inf
        for method in self.methods:
            for gradient, backward in (("backprop", None), *OTHERS):
                self.climb(method, gradient, backward, beyond=True)
        self.compare(HOPELESS, [self.own, *([found] if found else [])])
        return self.best()

    def compare(self, within: float, others: Sequence[Measured] = ()) -> None:
        """Time in turn, on a whole batch, the rows that cost at most `within` times the best row, and `others`."""
        best, names = self.best(), [row.name for row in others]
        most = within * (getattr(best, self.metric) if best else math.inf)
        rows = [row for row in self.rows.values() if row.samples and row.fits(self.limits, ERRORS)]
        size = (self.sizes or [self.few])[-1]
        self.measure_costs([row for row in rows if self.score(row) <= most or row.name in names], size)

    def best(self) -> Measured | None:
        """Return the cheapest row within the limits; an estimated cost must be smaller by its possible error."""
        fitting = [row for row in self.whole_rows() if row.fits(self.limits)]
        return min(fitting, key=lambda row: getattr(row, self.metric) * (DOUBT if row.estimate else 1), default=None)

    def check_time(self, share: float = 1.0) -> None:
        """Raise `OutOfTime` if this share of the time is over."""
        if self.spent > share * self.seconds:
            raise OutOfTime

    # --- references, and the run's own setting

    def take_samples(self) -> None:
        """Choose for errors as much of a batch as is quick: gradients of samples cancel more than their errors do, so
        that the relative error is smaller on few samples."""
        if self.samples is not None or self.few == self.batch_size:
            return
        # The very first gradient takes longer than others, so its time is ignored.
        sizes = [self.few, self.few, *(4**n * self.few for n in range(1, 20) if 4**n * self.few < self.batch_size)]
        allowed = math.inf
        for size in (*sizes, self.batch_size):
            began = self.spent
            Comparison(self.net, solver_of(self.run), size, COARSEST)
            if size > self.few and self.spent - began > allowed:
                break
            self.few = size
            # With a small network four times as many samples take hardly longer.
            allowed = max(QUICK_SHARE * self.seconds, 1.5 * (self.spent - began))

    @property
    def sizes(self) -> list[int]:
        """The parts of a batch for which costs are measured, besides the samples on which errors are measured."""
        return [size for size in (self.batch_size // 4, self.batch_size) if size > self.few]

    def find_references(self) -> None:
        """Refine the reference until it changes far less than the wanted errors, or its time is over."""
        self.take_samples()
        wanted = min((self.limits[name] for name in ERRORS if name in self.limits), default=0.01)
        rtol = COARSEST
        while rtol >= FINEST:
            self.note(f"reference at {rtol:g}")
            began, before, self.references = self.spent, self.references, []
            for weights in self.weights:
                self.model.load_state_dict(weights)
                self.references.append(Comparison(self.net, solver_of(self.run), self.few, rtol))
            changes = [old.distance(new) for old, new in zip(before, self.references)]
            self.reference_rtol, self.reference_error = rtol, max(changes, default=math.inf)
            too_long = self.spent + 3 * (self.spent - began) > REFERENCE_SHARE * self.seconds
            if self.reference_error <= wanted / MARGIN or too_long:
                break
            rtol /= 10

    def measure_own(self) -> None:
        """Measure the run's own setting; on parts of a batch its cost shows how that of others grows."""
        own = self.measure_errors(self.own_key)
        if own.failed is not None:
            raise RequestError(f"the run's own solver fails on these samples: {own.failed}")
        for size in self.sizes:
            self.check_time()
            self.measure_costs([own], size)

    # --- measuring one setting

    def row(self, setting: Setting | None) -> Measured:
        """Return the row of a setting, empty if it is new."""
        setting = setting and setting.plain()
        if setting not in self.rows:
            is_own = setting == self.own_key
            config = self.run if is_own or setting is None else self.change(self.run, setting.keys())
            solver = solver_of(config)
            if isinstance(solver, Adaptive) and not is_own:
                most = int(PATIENCE * max(100, self.own.nfe))
                solver = replace(solver, max_steps=min(solver.max_steps, most))
            self.rows[setting] = Measured(config=config, solver=solver)
        return self.rows[setting]

    def measure_errors(self, setting: Setting | None) -> Measured:
        """Return the row of a setting with its errors and, if they are within the limits, its cost on few samples."""
        row = self.row(setting)
        if row.failed is not None or row.gradient == row.gradient:
            return row
        self.note(", ".join(row.name))
        errors, costs, memory = [], [], 0.0
        for weights, reference in zip(self.weights, self.references):
            self.model.load_state_dict(weights)
            try:
                with SavedMeter(self.resident) as meter:
                    result = reference.own(row.solver, reference.dtype)
            except SolveError as error:
                row.failed = f"{type(error).__name__}: {first_line(error)}"
                return row
            assert result.cost is not None
            assert result.gradient is not None
            assert result.state is not None
            if not math.isfinite(result.gradient + result.state):
                row.failed = "its states or its gradient are NaN or infinite"
                return row
            errors.append((result.gradient, result.state))
            costs.append(result.cost)
            memory = max(memory, meter.peak_mib)
            row.gradient, row.state = (max(column) for column in zip(*errors))
            if not row.fits(self.limits, ERRORS) and setting != self.own_key:
                return row  # no need to try the other weights
        self._set_cost(row, self.few, costs, memory, self.time_steps([row.solver], self.few)[0])
        return row

    def measure_costs(self, rows: Sequence[Measured], samples: int) -> list[float]:
        """Measure the costs of rows on so many samples, the cheapest first, and return the metric; infinite outside the
        limits, or if the time was too short."""
        rows, given = self.affordable(rows, samples), rows
        self.note(f"{len(rows)} settings on {samples} samples")
        costs: list[list[Stats]] = [[] for _ in rows]
        memory = [0.0] * len(rows)
        for weights in self.weights:
            self.model.load_state_dict(weights)
            for n, row in enumerate(rows):
                self.check_time()
                with SavedMeter(self.resident) as meter:
                    costs[n].append(self._step(row.solver, self.batch(samples)))
                memory[n] = max(memory[n], meter.peak_mib)
        times = self.time_steps([row.solver for row in rows], samples)
        for row, stats, most, time_ms in zip(rows, costs, memory, times):
            self._set_cost(row, samples, stats, most, time_ms)
        return [self.score(row) if row in rows else math.inf for row in given]

    def affordable(self, rows: Sequence[Measured], samples: int) -> list[Measured]:
        """Return the cheapest rows whose costs can be measured in the remaining time; raise `OutOfTime` if none can."""
        left, chosen, step_s = self.seconds - self.spent, list[Measured](), 0.0
        for row in sorted(rows, key=self.score):
            own_s = self.whole(row).time / 1e3 * samples / self.batch_size
            step_s, repeats = step_s + own_s, repeats_of(own_s, len(rows))
            if len(self.weights) * (1 + repeats) * step_s > left:
                break
            chosen.append(row)
        if not chosen:
            raise OutOfTime
        return chosen

    def score(self, row: Measured) -> float:
        """Return the metric of a row for a whole batch; infinite outside the limits."""
        whole = self.whole(row)
        value: float = getattr(whole, self.metric)
        return value if whole.fits(self.limits) else math.inf

    def _set_cost(self, row: Measured, samples: int, costs: Sequence[Stats], memory: float, time_ms: float) -> None:
        total = sum(costs, start=Stats())
        row.nfe_forward, row.nfe_backward = total.nfe_forward / len(costs), total.nfe_backward / len(costs)
        row.samples, row.memory, row.time = samples, memory, time_ms
        row.costs[samples] = row.time, memory

    def time_steps(self, solvers: Sequence[Solver], samples: int) -> list[float]:
        """Return the ms per step of each solver, timed in turn: the mean over the weights of the shortest of a few."""
        totals, batch = [0.0] * len(solvers), self.batch(samples)
        for weights in self.weights:
            self.model.load_state_dict(weights)
            times: list[list[float]] = [[] for _ in solvers]
            repeats = 1
            while times and len(times[0]) < repeats:
                for solver, own in zip(solvers, times):
                    start = clock(self.net.device)
                    self._step(solver, batch)
                    own.append(clock(self.net.device) - start)
                if len(times[0]) == 1:
                    repeats = repeats_of(max(own[0] for own in times), len(times))
            totals = [total + min(own) for total, own in zip(totals, times)]
        return [1e3 * total / len(self.weights) for total in totals]

    def _step(self, solver: Solver, batch: Any) -> Stats:
        """Compute a gradient as training does, and return its cost."""
        with tally() as solves, solved_by(self.model, solver), repeatable(self.model):
            loss, _ = self.net.loss_fn(self.model, batch)
            loss.backward()  # type: ignore[no-untyped-call]
        self.model.zero_grad(set_to_none=True)
        return sum(solves, start=Stats())

    def batch(self, samples: int) -> Any:
        if samples not in self.batches:
            self.batches[samples] = next(islice(self.net.data.train.unshuffled(samples).epoch(0), 1))
        return self.batches[samples]

    # --- the cost of a whole batch

    def whole(self, row: Measured) -> Measured:
        """Return a row for a whole batch: from fewer samples, time and memory are extrapolated like those of rows
        measured on both, of the same gradient if there are any."""
        if row.samples in (0, self.batch_size):
            return row
        both = [other for other in self.rows.values() if {row.samples, self.batch_size} <= other.costs.keys()]
        alike = [other for other in both if other.config.gradient.method == row.config.gradient.method] or both
        pairs = [zip(other.costs[self.batch_size], other.costs[row.samples]) for other in alike]
        ratios = [[whole / max(part, 1e-9) for whole, part in pair] for pair in pairs]
        more = self.batch_size / row.samples
        time_growth, memory_growth = map(statistics.median, zip(*ratios)) if ratios else (more, more)
        return replace(row, time=row.time * time_growth, memory=row.memory * memory_growth, estimate=True)

    def whole_rows(self) -> list[Measured]:
        """Return the rows whose cost is known, for a whole batch."""
        return [self.whole(row) for row in self.rows.values() if row.samples]

    # --- the search

    def levels(self, method: str) -> Sequence[float]:
        """Return the ladder of a method, the loosest level first, as far as the dtype resolves."""
        least = 4 * EPS[self.run.dtype]
        return [rtol for rtol in TOLERANCES if rtol >= least] if adaptive(method) else STEPS

    def climb(
        self, method: str, gradient: str, backward: float | None = None, start: int = 0, beyond: bool = False
    ) -> int | None:
        """Return the index of the loosest level of a ladder within the limits, from `start` on; None if there is none.

        beyond  continue until the cost is hopeless
        """
        loosest = None
        for number, level in enumerate(self.levels(method)[start:], start):
            self.check_time(LADDER_SHARE)
            row = self.measure_errors(Setting(method, level, gradient, backward))
            if row.fits(self.limits, (*ERRORS, "nfe")):
                loosest = number if loosest is None else loosest
                if not beyond or self.hopeless(row):
                    return loosest
            too_many = row.samples and not row.fits(self.limits, ("nfe",))
            if too_many or (row.failed or "").startswith(StepLimit.__name__):  # tighter levels take even more
                return loosest
        return loosest

    def hopeless(self, row: Measured) -> bool:
        """Return whether a row costs far more than the best known row."""
        best = self.best()
        return best is not None and self.score(row) > HOPELESS * getattr(best, self.metric)

    def climb_ladders(self) -> None:
        """Find settings within the limits: all methods with backprop, then the better half with other gradients."""
        try:
            found = {method: self.climb(method, "backprop") for method in self.methods}
            loosest = {method: number for method, number in found.items() if number is not None}
            rows = {m: self.rows[Setting(m, self.levels(m)[number], "backprop")] for m, number in loosest.items()}
            for method in sorted(rows, key=lambda method: rows[method].nfe)[: max(2, -(-len(rows) // 2))]:
                for gradient, backward in OTHERS:
                    self.climb(method, gradient, backward, loosest[method])
        except OutOfTime:
            pass

    def race(self) -> None:
        """Let the settings within the limits race on larger and larger parts of a batch."""
        fitting = {key: self.whole(row) for key, row in self.rows.items() if row.samples}
        keys = [key for key, row in fitting.items() if row.fits(self.limits) and key != self.own_key]
        racers = sorted(keys, key=lambda key: getattr(fitting[key], self.metric))[:MAX_RACERS]
        if racers and self.sizes:
            halve(racers, self.sizes, lambda keys, size: self.measure_costs([self.rows[key] for key in keys], size))

    def complete_front(self) -> None:
        """Measure tighter levels of the settings found, to show the cost of more accuracy."""
        best = self.best()
        key = setting_of(best.config) if best is not None else None
        if key is not None:
            for level in self.levels(key.method):
                self.check_time()
                if level < key.level or not adaptive(key.method):
                    self.measure_errors(key._replace(level=level))


def repeats_of(step_s: float, count: int) -> int:
    """Return how often a step of this duration is timed, in turn with others, `count` in all."""
    return 8 if step_s < SHORT_S else 3 if step_s < LONG_S else 1 if count == 1 else 2


def clock(device: torch.device) -> float:
    """Return seconds: CPU time if one thread computes, since other load does not stretch it."""
    return time.process_time() if device.type == "cpu" and torch.get_num_threads() == 1 else synchronized_clock()
