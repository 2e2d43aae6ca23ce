"""Runs are told apart by what was computed, and by nothing else."""

import itertools

import pytest

from odenet_cli.errors import RequestError
from odenet_cli.report.compare import compare, distinguishing_keys
from odenet_cli.report.provenance import data_of
from odenet_cli.report.runs import read_run

MLP = {"model": {"name": "mlp", "hidden": 300}}
NO_SOLVER = {"nfe_forward": 0, "nfe_backward": 0, "nfe_test": 0}


@pytest.fixture
def runs(tmp_path, write):
    """Read runs with these configs, each written as it is asked for."""
    numbers = itertools.count()

    def call(*configs, **options):
        return [read_run(write(tmp_path / str(next(numbers)), config, **options)) for config in configs]

    return call


def shape(comparison):
    return [(tuple(group.values.values()), len(group.runs)) for group in comparison.groups]


def test_seeds_names_places_and_logs_are_no_difference(runs):
    same = {"name": "other", "device": "cuda", "data.root": "/x", "data.download": True, "trainer.log_every": 5}
    found = compare(runs({}, {"seed": 1, **same}, {"seed": 2, "trainer.checkpoint_every": 9}))
    assert (found.keys, shape(found)) == ([], [((), 3)])
    assert found.common["solver.rtol"] == 0.001
    assert not {"seed", "name", "device", "data.root"} & set(found.common)


def test_a_tolerance_sweep_is_one_key(runs):
    """`atol` follows `rtol` in the saved config, and is no column."""
    found = compare(runs(*({"solver.rtol": rtol, "seed": seed} for rtol in (1e-1, 1e-3, 1e-2) for seed in (0, 1))))
    assert found.keys == ["solver.rtol"]
    assert shape(found) == [((1e-3,), 2), ((1e-2,), 2), ((1e-1,), 2)]
    assert (found.numeric, found.axes, found.mixed) == (["solver.rtol"], ["solver.rtol"], [])
    own = compare(runs({}, {"solver.atol": 1e-5}))
    assert own.keys == ["solver.atol"]


def test_options_of_other_models_are_no_columns(runs):
    found = compare([*runs({}, {"gradient.method": "backprop"}), *runs(MLP, final=NO_SOLVER)])
    assert found.keys == ["model.name", "gradient.method"]
    assert shape(found) == [(("odenet", "adjoint"), 1), (("odenet", "backprop"), 1), (("mlp", None), 1)]
    assert found.partial["model.hidden"] == 300
    assert found.partial["solver.rtol"] == 0.001
    assert found.common["data.name"] == "digits"
    assert not {"model.hidden", "solver.rtol"} & set(found.common)


def test_an_option_of_one_run_counts_where_nothing_else_differs(runs):
    found = compare(runs({}, {"model.extra": 3}))
    assert found.keys == ["model.extra"]
    assert shape(found) == [((3,), 1), ((None,), 1)]


def test_a_network_without_a_solver_has_no_tolerance(runs):
    """Nor has one that failed before it logged anything."""
    sweep = [{**MLP, "solver.rtol": rtol} for rtol in (1e-1, 1e-2)]
    early = runs({**MLP, "solver.rtol": 1e-3}, status="failed", reason="no memory", logged=False)
    found = compare([*runs(*sweep, final=NO_SOLVER), *runs({"seed": 1}), *early])
    assert shape(found) == [(("mlp",), 3), (("odenet",), 1)]


def test_other_data_under_the_same_name_is_told_apart(runs):
    one, other = ({"data": {"used": "digits", "sha256": digest * 32}} for digest in ("ab", "cd"))
    found = compare([*runs({}, {"seed": 1}, **one), *runs({}, **other)])
    assert shape(found) == [(("ab" * 6,), 2), (("cd" * 6,), 1)]
    assert found.keys == ["data.sha256"]


def test_a_run_that_failed_before_its_data_were_read_is_in_the_row_of_the_others(runs):
    found = compare([*runs({}), *runs({"seed": 1}, status="failed", reason="no memory", data=None)])
    assert (found.keys, shape(found)) == ([], [((), 2)])


def test_a_network_on_vectors_has_no_stem(runs):
    """It is one linear layer, whatever model.stem says."""
    vectors = {"data": {"used": "features", "sha256": "ab", "input": [4]}}
    found = compare(runs({"model.stem": "conv"}, {"model.stem": "res", "seed": 1}, **vectors))
    assert (found.keys, "model.stem" in found.common) == ([], False)
    images = {"data": {"used": "images", "sha256": "ab", "input": [1, 8, 8]}}
    assert compare(runs({}, **images)).common["model.stem"] == "conv"


def test_data_in_several_files_are_told_apart_by_any_of_them(runs):
    """MNIST's record has a digest for each file."""
    one, other = ({"data": {"used": "mnist", "sha256": {"images": "ab", "labels": digest}}} for digest in ("cd", "ef"))
    found = compare([*runs({}, {"seed": 1}, **one), *runs({}, **other)])
    assert sorted(len(group.runs) for group in found.groups) == [1, 2]
    assert found.keys == ["data.sha256"]
    assert data_of(found.runs[0]) == "mnist (images ab, labels cd)"
    found.runs[0].record["data"] = {"used": "moons", "sha256": None}  # drawn anew
    assert data_of(found.runs[0]) == "moons"


def test_starting_from_other_weights_is_told_apart(runs):
    found = compare(runs({}, {"checkpoint": "/a.pt"}, {"checkpoint": "/b.pt", "seed": 1}))
    assert (found.keys, shape(found)) == (["checkpoint"], [(("given",), 2), ((None,), 1)])


def test_other_first_weights_of_one_seed_share_no_row(runs):
    """Each seed may go on from weights of its own; a seed that has two begins in different ways."""
    a, b = ({"origin": digest * 32} for digest in ("ab", "cd"))
    first = [*runs({"checkpoint": "/a.pt"}, **a), *runs({"checkpoint": "/b.pt", "seed": 1}, **b)]
    other = runs({"checkpoint": "/b.pt"}, **b)
    assert shape(compare(first)) == [((), 2)]
    assert shape(compare([*first, *other])) == [(("ab" * 6,), 1), (("cd" * 6,), 2)]
    older = runs(*({"checkpoint": f"/where/runs/are/{name}.pt"} for name in "xy"))  # without `origin`
    assert [len(group.runs) for group in compare(older).groups] == [1, 1]


def test_a_run_made_longer_shares_no_row_with_one_as_long_from_the_start(runs):
    """Until then it followed the learning rates of a shorter run; an end by max_steps has those of the whole."""
    resumed = {"at": "2026-11-25T08:21:14+0000", "step": 20}
    longer = [resumed, resumed | {"changed": {"trainer.epochs": "2 → 3", "trainer.max_steps": "5 → null"}}]
    same = runs({}, {"seed": 1}, resumed=[resumed, resumed | {"changed": {"trainer.max_steps": "5 → null"}}])
    for by in (None, ["solver.rtol"]):
        found = compare([*same, *runs({"seed": 2}, resumed=longer)], by)
        assert [group.values["trainer.lengthened"] for group in found.groups] == ["trainer.epochs 2 → 3", None]
        assert [len(group.runs) for group in found.groups] == [1, 2]
    assert shape(compare(same)) == [((), 2)]


def test_by_takes_means_over_the_rest_and_says_so(runs):
    every = runs(*({"solver.rtol": rtol, "optim.lr": rate} for rtol in (0.1, 0.01) for rate in (4, 8)))
    found = compare(every, ["optim.lr"])
    assert (shape(found), found.mixed) == ([((4,), 2), ((8,), 2)], ["solver.rtol"])
    assert "solver.rtol" not in found.common
    whole = compare(every, [])
    assert (shape(whole), whole.mixed) == ([((), 4)], ["solver.rtol", "optim.lr"])
    by_seed = compare(runs({}, {"seed": 1}), ["seed"])
    assert (shape(by_seed), by_seed.mixed) == ([((0,), 1), ((1,), 1)], [])


@pytest.mark.parametrize(
    "other",
    [
        *({"data.name": "mnist"}, {"data.crop": 4}, MLP, {"model.width": 8}, {"trainer.epochs": 160}),
        *({"gradient.method": "backprop"}, {"solver.method": "bosh3"}, {"optim.name": "adam"}),
    ],
)
def test_no_mean_is_taken_over_other_data_models_or_lengths(runs, other):
    """Whatever `by` says: a key that only follows another one, as an option of a model does, is no exception."""
    for by in ([], ["solver.rtol"], ["seed"]):
        found = compare(runs({}, other), by)
        assert [len(group.runs) for group in found.groups] == [1, 1]
        assert not set(found.keys[len(by) :]) & set(by)
    follows = compare(runs({"data.extra": 3, "solver.rtol": 0.1}, {}), ["seed"])
    assert follows.keys == ["seed", "data.extra"]


def test_no_mean_is_taken_over_other_files_of_a_table(runs):
    """Two tables of one name and other content share no row, nor do a table and one of which nothing is known."""
    digests = ("ab" * 32, "cd" * 32, None)
    found = [run for digest in digests for run in runs({"data": {"name": "csv"}}, data={"sha256": digest})]
    assert [len(group.runs) for group in compare(found, ["solver.rtol"]).groups] == [1, 1, 1]


def test_by_an_unknown_key_names_the_nearest(runs):
    with pytest.raises(RequestError, match=r"by=solver\.tol: no run here has that key\. Did you mean `solver\.rtol`"):
        compare(runs({}), ["solver.tol"])


def test_what_follows_a_key_is_no_line_of_its_own(runs):
    """The looser backward tolerance of a recipe changes with the forward one."""
    pairs = ((1e-1, 1e-1), (1e-2, 3e-2), (1e-3, 3e-2))
    found = compare(runs(*({"solver.rtol": rtol, "gradient.solver.rtol": loose} for rtol, loose in pairs)))
    assert found.keys == ["solver.rtol", "gradient.solver.rtol"]
    assert distinguishing_keys(found.groups, found.keys) == (["solver.rtol"], ["gradient.solver.rtol"])
    assert (found.numeric, found.axes) == (found.keys, ["solver.rtol"])


def test_unfinished_runs_are_in_no_mean(runs):
    found = compare([*runs({}, error=0.1), *runs({"seed": 1}, {"seed": 2}, status="failed", reason="nan")])
    (group,) = found.groups
    assert (len(group.runs), len(group.done), group.mean("error")) == (3, 1, 0.1)
