"""Tuning: limits are read exactly, races and fronts are those of brute force, and what is found is what is there."""

import itertools
import json
import math
import random
import shlex
from dataclasses import replace

import pytest
from runs_kit import train_run

from odenet_cli.analysis import tuning
from odenet_cli.analysis.tuned_settings import Measured, Setting, front, halve, parse_want, setting_of
from odenet_cli.analysis.tuning import Tuner
from odenet_cli.commands import gradcheck, tune
from odenet_cli.config.resolve import complete
from odenet_cli.config.saved import load, save
from odenet_cli.errors import RequestError
from odenet_cli.request.compose import compose
from odenet_cli.request.job import prepare


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("gradient<=5%", {"gradient": 0.05}),
        ("gradient<0.05", {"gradient": 0.05}),
        ("gradient<=5% memory<=1GiB", {"gradient": 0.05, "memory": 1024.0}),
        ("time<=0.2s,nfe<=60", {"time": 200.0, "nfe": 60.0}),
        ("time<=20ms state<=1e-3 memory<=512KiB", {"time": 20.0, "state": 1e-3, "memory": 0.5}),
    ],
)
def test_limits_are_read(text, limits):
    assert parse_want(text) == pytest.approx(limits)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gradient", "is not a limit"),
        ("gradient<=", "is not a limit"),
        ("gradient <= 5%", "is not a limit"),
        ("gradiant<=5%", "gradient"),
        ("gradient<=5ms", "with %"),
        ("time<=5", "with ms or s"),
        ("nfe<=5%", "no unit"),
        ("gradient<=-5%", "above 0"),
        ("gradient<5", "below 100 %.*gradient<=5%"),
        ("state<=1", "state<=5%"),
        ("gradient<=5% gradient<=6%", "given only once"),
        ("gradient<=1e400", "above 0"),
        ("gradient<=1e", "needs a number"),
        (" ", "needs limits"),
    ],
)
def test_limits_that_mean_nothing_are_refused(text, message):
    with pytest.raises(RequestError, match=message):
        parse_want(text)


def test_nothing_that_fits_is_timed_as_nothing(folder):
    tuner = tuner_of(folder, {"gradient": 1e-9}, metric="nfe")
    assert Tuner.time_steps(tuner, [], 8) == []


def test_a_race_halves_the_field_at_each_rung():
    """On a made table: who is scored at which rung, and who is left."""
    table = {
        "a": {8: 5.0, 32: 3.0, 128: 9.0},
        "b": {8: 4.0, 32: 4.0, 128: 2.0},
        "c": {8: 3.0, 32: 9.0},
        "d": {8: math.inf},
        "e": {8: 9.0},
    }
    scored = []

    def scores(arms, rung):
        scored.extend((arm, rung) for arm in arms)
        return [table[arm][rung] for arm in arms]

    assert halve("abcde", (8, 32, 128), scores) == ["b", "a"]
    assert scored == [*((arm, 8) for arm in "abcde"), *((arm, 32) for arm in "cba"), ("a", 128), ("b", 128)]


def test_a_race_finds_the_best_of_a_table_whose_order_holds():
    random.seed(0)
    for count in (1, 2, 3, 7, 16):
        costs = {arm: random.random() for arm in range(count)}
        best = halve(list(costs), (1, 2, 4), lambda arms, rung, costs=costs: [costs[arm] * rung for arm in arms])
        assert best[0] == min(costs, key=costs.get)


def test_the_front_is_that_of_brute_force():
    random.seed(1)
    for _ in range(30):
        rows = [tuple(random.randrange(4) for _ in range(3)) for _ in range(20)]
        beaten = {
            n
            for n, own in enumerate(rows)
            for other in rows
            if other != own and max(b - a for a, b in zip(own, other)) <= 0
        }
        assert front(rows, lambda row: row) == [row for n, row in enumerate(rows) if n not in beaten]


# --- on a run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    words = ("model=cnf", "data=moons", "device=cpu", "trainer.steps=2", "trainer.batch_size=32", "model.hidden=4")
    more = ("trainer.limit_batches=1", "model.units=4", "gradient=adjoint", "gradient.solver.rtol=1e-4")
    return train_run(tmp_path_factory.mktemp("runs") / "run", *words, *more)


LADDER = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)


@pytest.fixture(scope="module", autouse=True)
def _short_ladder():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "TOLERANCES", LADDER)
        patch.setattr(tuning, "METHODS", ("bosh3",))
        yield


def tuner_of(folder, limits, **options):
    """A tuner whose times are made up."""
    tuner = tune.assemble(tune.PARSER.parse([str(folder), "samples=8"]), limits, tune.Parts(1))
    for name, value in {"time_steps": lambda solvers, samples: [1e-3 * samples] * len(solvers), **options}.items():
        setattr(tuner, name, value)
    return tuner


@pytest.mark.parametrize(("share", "samples"), [(1e9, 32), (-1.0, 8)])
def test_errors_are_those_of_a_whole_batch_where_it_is_quick(folder, share, samples, monkeypatch):
    """On the first eight samples of a flow an error of 1.8 % was promised that was 11 % on its batches of 32."""
    tuner = tune.assemble(tune.PARSER.parse([str(folder)]), {"gradient": 0.1}, tune.Parts(1))
    monkeypatch.setattr(tuning, "QUICK_SHARE", share)
    clock = itertools.accumulate(itertools.count(), lambda now, _: 4 * now + 1)  # each gradient takes ever longer
    monkeypatch.setattr(tuning, "clock", lambda _: float(next(clock)))
    tuner.take_samples()
    assert tuner.few == samples
    assert bool(tuner.sizes) == (samples == 8)


@pytest.fixture(scope="module")
def tuned(folder):
    tuner = tuner_of(folder, {"gradient": 0.002}, metric="nfe", seconds=600.0)
    return tuner, tuner.tune()


def test_the_loosest_tolerance_that_fits_is_found(tuned):
    """One looser does not fit, and is not measured at the other weights; errors are those of gradcheck's reference."""
    tuner, _ = tuned
    tried = {
        key.level: row for key, row in tuner.rows.items() if key and (key.method, key.gradient) == ("bosh3", "backprop")
    }
    first = max(level for level, row in tried.items() if row.fits(tuner.limits))
    looser = [level for level in tried if level > first]
    assert looser == list(LADDER[: len(looser)])
    assert len(looser) > 0
    assert all(tried[level].gradient > 0.002 and tried[level].samples == 0 for level in looser)
    assert tuner.reference_error < 0.002 / 20


@pytest.mark.numerics
def test_the_cheapest_that_fits_is_the_one_of_exhaustive_search(folder, tuned):
    tuner, best = tuned
    assert best.nfe < tuner.own.nfe
    assert (best.samples, best.estimate) == (32, False)
    count = len(tuner.rows)
    everything = tuner.check(best)
    assert len(tuner.rows) > count
    assert best.fits({"gradient": 0.002, "nfe": everything.nfe * 1.1})
    assert tune.searched(tuner, best, everything) == {
        "name": best.name,
        "share": pytest.approx(best.nfe / everything.nfe),
    }


def test_backprop_and_replay_have_one_gradient_and_two_costs(tuned):
    tuner, _ = tuned
    pairs = [(row, tuner.rows.get(key._replace(gradient="replay"))) for key, row in tuner.rows.items() if key]
    pairs = [(a, b) for a, b in pairs if b is not None and a.config.gradient.method == "backprop" and b.samples]
    assert pairs
    for backprop, replay in pairs:
        assert replay.gradient == pytest.approx(backprop.gradient, rel=1e-3)
        assert backprop.nfe_backward == 0 < replay.nfe_backward


def test_a_limit_on_memory_is_one_of_the_whole_batch(folder):
    """Backprop at so little memory does not fit, though on the few samples it would."""
    tuner = tuner_of(folder, {"gradient": 0.05}, seconds=600.0, metric="memory")
    tuner.find_references()
    tuner.measure_own()
    row = tuner.measure_errors(Setting("dopri5", 1e-4, "backprop"))
    few = row.memory
    whole = tuner.whole(row)
    assert whole.estimate
    assert whole.memory > few
    tuner.measure_costs([row], 32)
    assert not tuner.whole(row).estimate
    assert tuner.whole(row).memory == pytest.approx(row.memory)
    tuner.limits = {"gradient": 0.05, "memory": (few + row.memory) / 2}
    assert tuner.measure_costs([row], 32) == [math.inf]


def test_what_may_be_the_best_is_timed_in_turn(folder):
    """Alone, at different moments, the tighter tolerance seems cheaper; beside each other the looser one is."""

    def times(solvers, samples):
        sign = 1 if len(solvers) == 1 else -1
        return [10.0 + 0.1 * sign * math.log10(solver.rtol) for solver in solvers]

    tuner = tuner_of(folder, {"gradient": 0.05}, seconds=math.inf, metric="time", time_steps=times, few=32)
    best = tuner.tune()
    fitting = [row.solver.rtol for row in tuner.rows.values() if row.samples and row.fits(tuner.limits)]
    assert min(fitting) < best.solver.rtol == max(fitting)


def test_without_time_there_is_the_run_s_own_at_least(folder):
    tuner = tuner_of(folder, {"gradient": 0.5}, seconds=1e-3)
    best = tuner.tune()
    assert list(tuner.rows) == [tuner.own_key]
    assert best.name == tuner.own.name


def test_a_search_ends_within_its_time(folder, monkeypatch):
    """On a machine where an evaluation of the field takes 10 ms for eight samples: a race that began in time took
    26.8 s of 20."""
    now, step, own = [0.0], tuning.Tuner._step, tuning.Comparison.own

    def slow_step(tuner, solver, batch):
        stats = step(tuner, solver, batch)
        now[0] += 0.01 * stats.nfe * len(batch[0]) / 8
        return stats

    def slow_errors(*words):
        now[0] += 0.5
        return own(*words)

    monkeypatch.setattr(tuning, "clock", lambda _: now[0])
    monkeypatch.setattr(tuning.Tuner, "_step", slow_step)
    monkeypatch.setattr(tuning.Comparison, "own", slow_errors)
    tuner = tune.assemble(tune.PARSER.parse([str(folder), "samples=8"]), {"gradient": 0.05}, tune.Parts(1))
    tuner.seconds = 20.0
    best = tuner.tune()
    assert tuner.spent <= 21.0
    assert (best.config.solver.method, best.samples) == ("bosh3", 32)


def test_a_setting_whose_numbers_are_no_numbers_has_failed(folder, monkeypatch):
    tuner = tuner_of(folder, {"gradient": 0.5}, seconds=math.inf)
    monkeypatch.setattr(tuning, "FINEST", 1e-3)
    tuner.find_references()
    tuner.measure_own()
    own = tuning.Comparison.own
    monkeypatch.setattr(tuning.Comparison, "own", lambda *words: own(*words)._replace(gradient=math.nan))
    row = tuner.measure_errors(Setting("bosh3", 1e-1, "backprop"))
    assert "NaN" in row.failed
    assert not row.fits({})
    assert tuner.whole_rows() == [tuner.own]


def test_one_setting_has_one_row(folder):
    """An adjoint by bosh3 at 0.1 has, for a forward solve by bosh3 at 0.1, the name of the forward solver."""
    tuner = tuner_of(folder, {"gradient": 0.1})
    tuner.find_references()
    tuner.measure_own()
    rows = [tuner.row(Setting("bosh3", 0.1, "adjoint", backward)) for backward in (None, 0.1, 0.03)]
    assert [row.name for row in rows[1:]] == [("bosh3 0.1", "adjoint"), ("bosh3 0.1", "adjoint bosh3 0.03")]
    assert rows[0] is rows[1]


def test_a_setting_is_found_in_a_config(folder):
    run = load(folder)
    assert setting_of(run) is None  # its own backward solve is by dopri5 at another tolerance
    for setting in (
        Setting("tsit5", 1e-2, "adjoint", 3e-2),
        Setting("bosh3", 1e-4, "adjoint"),
        Setting("rk4", 4, "replay"),
        Setting("dopri8", 0.1, "reversible"),
    ):
        assert setting_of(gradcheck.changed(run, setting.keys())) == setting
    loose = replace(run, solver=replace(run.solver, atol=1.0))
    assert setting_of(loose) is None
    assert Measured(config=run, solver=None).name == ("dopri5 1e-05", "adjoint dopri5 0.0001")


# --- the command


def test_the_command_prints_a_command_that_trains_so(folder, capsys, tmp_path):
    assert tune.main([str(folder), "want=gradient<=5%", "metric=nfe", "seconds=600"]) == 0
    lines = capsys.readouterr().out.splitlines()
    content = json.loads((folder / "tune.json").read_text())
    assert [row["best"] for row in content["rows"]].count(True) == 1
    assert [row["own"] for row in content["rows"]].count(True) == 1
    best = next(row for row in content["rows"] if row["best"])
    assert best["gradient"] <= 0.05
    words = shlex.split(next(line for line in lines if line.startswith("  odenet train")))[1:]
    assert words == content["command"]
    config = complete(compose(words[1:]), gpu=False)
    assert (config.solver.method, config.solver.rtol) == (best["method"], best["level"])
    assert config.gradient.method == best["gradient_method"]
    assert config.name == f"cnf-{best['method']}"
    assert (folder / "figures" / "tune.png").stat().st_size > 10_000
    assert "metric" in content
    assert any(line.startswith("figure: ") for line in lines)


@pytest.mark.parametrize(
    ("before", "after"), [("rk4", "bosh3"), ("dopri5", "rk4"), ("dopri5", "tsit5"), ("rk4", "rk38")]
)
def test_the_printed_words_are_the_setting_from_any_solver(tmp_path, monkeypatch, before, after):
    """A saved config of fixed steps has no atol that follows rtol: the words say both."""
    monkeypatch.chdir(tmp_path)
    words = ["data=digits", "model=rknet", "model.width=4"]
    run, wanted = (compose([*words, f"solver={name}"]) for name in (before, after))
    (tmp_path / "run").mkdir()
    save(run, tmp_path / "run", tied=run.solver.rtol is not None)
    command = tune.train_words(tmp_path / "run", run, wanted)
    assert prepare(command[1:]).jobs[0].config.solver == wanted.solver


def test_the_printed_words_name_a_field_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import torch\nclass Field(torch.nn.Linear):\n    def __init__(self):\n        super().__init__(2, 2)\n"
        "    def forward(self, t, y):\n        return super().forward(y)\n"
    )
    words = ["data=moons", "model=cnf", "model.field=mine:Field"]
    run, wanted = (compose([*words, f"solver={name}"]) for name in ("dopri5", "bosh3"))
    (tmp_path / "run").mkdir()
    save(run, tmp_path / "run", tied=True)
    command = tune.train_words(tmp_path / "run", run, wanted)
    assert prepare(command[1:]).jobs[0].config.model["field"] == "mine:Field"


def test_nothing_fits_where_too_much_is_asked(folder, capsys):
    assert tune.main([str(folder), "want=gradient<=10% nfe<=2", "seconds=600"]) == 1
    assert "no setting that was tried meets the limits" in capsys.readouterr().out


def test_an_interrupt_prints_what_is_known(folder, capsys, monkeypatch):
    monkeypatch.setattr(Tuner, "race", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    assert tune.main([str(folder), "want=gradient<=5%", "seconds=600"]) == 130
    assert "> cheapest within the limits" in capsys.readouterr().out
    assert json.loads((folder / "tune.json").read_text())["stopped"]


@pytest.mark.parametrize("words", [["methods=adams"], ["methods=dopri55"], ["want=gradient"], ["metric=speed"]])
def test_what_cannot_be_tuned_is_refused(folder, words):
    with pytest.raises(RequestError):
        tune.main([str(folder), *words])
