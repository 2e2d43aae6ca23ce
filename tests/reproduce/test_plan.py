"""A cell is found by what it computes: its hash, what a row of an experiment becomes, and the words of the user."""

import copy
import functools
import os
import subprocess
import sys
from dataclasses import asdict

import pytest
from omegaconf import OmegaConf

from odenet_cli.commands.reproduce import parse
from odenet_cli.config.check import leaves
from odenet_cli.config.presets import conf_dir
from odenet_cli.config.resolve import complete
from odenet_cli.errors import RequestError
from odenet_cli.reproduce.plan import digest, is_incidental, plan, rows_text
from odenet_cli.request.compose import compose

PRESETS = ("quick", "cpu", "day", "paper")
CANDIDATE = "onecycle 0.2 crop 2"


@functools.cache
def planned(item, preset, rows=(), said=(), seeds=1):
    return plan(item, preset, seeds, rows, ("device=cpu", *said))


def changed(config, key):
    """The config with another value at `key`, whatever it may be."""
    made = copy.deepcopy(config)
    *sections, last = key.split(".")
    where = made
    for section in sections:
        where = where[section] if isinstance(where, dict) else getattr(where, section)
    if isinstance(where, list):
        where[int(last)] = "another"
    elif isinstance(where, dict):
        where[last] = "another"
    else:
        setattr(where, last, "another")
    return made


@pytest.mark.parametrize("words", [("model=odenet", "data=mnist"), ("model=resnet", "data=digits", "solver=rk4")])
def test_names_places_device_and_logging_leave_the_hash_and_every_other_key_changes_it(words):
    config = complete(compose([*words, "optim.milestones=[0.5]"]), gpu=False)
    keys = [key for key, _ in leaves(asdict(config))]
    assert {"solver.rtol", "gradient.solver.atol", "model.stem", "optim.milestones.0", "eval.batch_size"} < set(keys)
    free = {"name", "device", "resume", "logger", "trainer.log_every", "trainer.checkpoint_every", "trainer.certify"}
    free |= {"data.root", "data.download"} if "data=mnist" in words else set()
    assert {key for key in keys if digest(changed(config, key)) == digest(config)} == free


def test_the_hash_is_the_same_in_every_process():
    code = (
        "from odenet_cli.reproduce.plan import plan\n"
        "print(plan('fig3', 'quick', 1, (), ('device=cpu',)).cells[0].folder)"
    )
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    there = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == str(planned("fig3", "quick").cells[0].folder)


def test_the_hash_is_that_of_the_complete_config():
    """What the data set's recipe fills in belongs to it, said or not."""
    said = {digest(complete(compose(["data=digits", *words]), gpu=False)) for words in ([], ["trainer.batch_size=8"])}
    assert len(said) == 1


@pytest.mark.parametrize(
    ("words", "one", "same", "another"),
    [
        ("model=latent_ode", "model.kl=1", "model.kl=1.0", "model.kl=1.5"),
        ("model=latent_ode", "model.kl=0", "model.kl=-0.0", "model.kl=false"),
        ("model=latent_ode", "model.sigma=1", "model.sigma=1.0", "model.sigma=true"),
        ("model=latent_poisson", "data.expected=250", "data.expected=250.0", "data.expected='250'"),
        ("model=cnf", "model.horizon=1", "model.horizon=1.0", "model.horizon='1'"),
        ("model=cnf", "data.noise=1", "data.noise=1.0", "data.noise=true"),
        ("model=cnf", "data.recipe.lr=1 optim.lr=null", "optim.lr=1.0", "optim.lr=2"),
        ("model=cnf", "solver.rtol=1", "solver.rtol=1.0", "solver.rtol=1.5"),
        ("model=custom model.target=a:B", "+model.x=1", "+model.x=1", "+model.x=1.0"),
    ],
)
def test_numbers_that_are_equal_are_one_cell_where_the_key_takes_any_number(words, one, same, another):
    hashes = [digest(complete(compose([*words.split(), *said.split()]), gpu=False)) for said in (one, same, another)]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("preset", PRESETS)
def test_the_network_of_figure_3_is_a_cell_of_table_1(preset):
    (network,) = planned("fig3", preset).cells
    one_tolerance = ("solver.rtol=1e-3",)  # the usual one; the comma list is not needed here
    compared, *_ = planned("table1", preset, ("ODE-Net",), one_tolerance).cells
    assert (compared.part, compared.seed) == ("compare", 0)
    assert network.folder == compared.folder
    assert network.config.model["name"] == "odenet"


def test_each_value_of_a_comma_list_and_each_seed_is_a_cell_of_its_own():
    cells = planned("table1", "quick", ("ResNet-1", "ResNet"), seeds=2).cells
    compared, scaled = cells[:2], cells[2:]
    assert [cell.config.seed for cell in compared] == [0, 1]
    assert [cell.title for cell in compared] == ["ResNet-1, seed 0", "ResNet-1, seed 1"]
    assert [cell.config.model["blocks"] for cell in scaled] == [1, 2, 4, 8, 16, 32]
    assert {cell.config.seed for cell in scaled} == {0}
    assert [cell.title for cell in scaled][:2] == ["ResNet, model.blocks=1, seed 0", "ResNet, model.blocks=2, seed 0"]
    assert len({cell.folder for cell in cells}) == 8


def test_steps_are_timed_alone_where_times_are_quoted():
    """The same seven networks, in a part of their own; the quick preset has no times to quote."""
    cells = planned("table1", "cpu", ("MLP", "RK-Net"), ("solver.rtol=1e-3",)).cells
    timed = [cell for cell in cells if cell.part == "times"]
    assert [cell.row for cell in timed] == [cell.row for cell in cells if cell.part == "compare"] == ["MLP", "RK-Net"]
    assert all(cell.alone and cell.config.trainer.max_steps == 200 for cell in timed)
    assert not any(cell.alone for cell in cells if cell.part == "compare")
    assert "times" not in {cell.part for cell in planned("table1", "quick", ("MLP",)).cells}


def test_a_part_may_have_seeds_and_presets_of_its_own():
    """The candidates of a recipe are compared on a seed that is not in the table, and only there."""
    candidates = planned("table1", "day", (CANDIDATE,), seeds=3).cells
    assert [cell.part for cell in candidates] == ["recipe"]
    assert {cell.seed for cell in candidates} == {100}
    assert {cell.config.seed for cell in candidates} == {100}
    with pytest.raises(RequestError, match="--rows"):
        planned("table1", "cpu", (CANDIDATE,))


def test_a_rows_own_word_takes_the_place_of_the_presets():
    (candidate,) = planned("table1", "day", (CANDIDATE,), seeds=3).cells
    assert sum(word.startswith("trainer.epochs=") for word in candidate.overrides) == 1


def test_the_words_of_a_cell_are_those_of_odenet_train():
    cell = planned("table1", "quick", ("ResNet-1", "ResNet"), seeds=2).cells[1]
    config = complete(compose(list(cell.overrides)), gpu=False)
    assert cell.folder.name == digest(config)
    assert str(cell.folder.parent) == "runs/cells"


def test_a_page_of_some_rows_names_the_fewer_of_those_it_has_and_those_it_lacks():
    assert rows_text([], ["MLP"]) == rows_text(["MLP", "RK-Net"], []) == ""
    assert rows_text(["MLP"], ["RK-Net"]) == "only MLP"
    assert rows_text(["MLP", "RK-Net", "ODE-Net"], ["ResNet-1", "no middle"]) == "without ResNet-1, no middle"


def test_a_preset_says_words_of_its_own_and_fills_the_braces_in_those_of_the_rows():
    quick, cpu, day, paper = (planned("fig3", preset).cells[0].config for preset in PRESETS)
    assert [one.model["width"] for one in (quick, cpu, day, paper)] == [16, 64, 64, 64]
    assert [one.data["name"] for one in (quick, cpu, day, paper)] == ["digits", "mnist", "mnist", "mnist"]
    assert [one.trainer.epochs for one in (cpu, paper)] == [3, 160]
    assert day.optim.schedule == "onecycle"
    assert "digits" in planned("fig3", "quick").about


@pytest.mark.parametrize("preset", ["quick", "cpu", "paper"])
def test_the_trainings_of_tolerance_differ_in_it_alone(preset):
    """The adjoint's own solve keeps the default of images, which is no tighter than the forward solve."""
    trained = [complete(cell.config, gpu=False) for cell in planned("tolerance", preset).cells]
    assert [config.solver.rtol for config in trained] == [1e-1, 1e-2, 1e-3, 1e-4, 1e-5]
    assert all(config.solver.atol == config.solver.rtol for config in trained)
    backward = [(config.gradient.solver.method, config.gradient.solver.rtol) for config in trained]
    assert backward == [("bosh3", 1e-1), *[("bosh3", 3e-2)] * 4]
    assert {config.model["width"] for config in trained} == {64}


def test_a_preset_has_words_for_single_rows_and_the_page_tells_them():
    made = planned("table1", "quick", ("MLP", "ResNet-1"))
    assert {cell.row: cell.config.optim.lr for cell in made.cells} == {"MLP": 0.02, "ResNet-1": 0.1}
    assert made.about.endswith("; MLP with optim.lr=0.02")
    assert "MLP" not in planned("table1", "quick", ("ResNet-1",)).about + planned("fig3", "quick").about
    own = planned("table1", "quick", ("MLP",), ("optim.lr=0.2",))
    assert (own.cells[0].config.optim.lr, "MLP" in own.about) == (0.2, False)
    content = OmegaConf.load(conf_dir() / "experiment" / "table1.yaml").reproduce.table1
    known = {row for part in content.parts.values() for row in part.rows}
    assert {row for preset in content.presets.values() for row in preset.get("rows", ())} <= known


@pytest.mark.parametrize(
    ("item", "preset", "rows", "told"),
    [
        ("tabel1", "quick", [], ["tabel1", "Did you mean `table1`?", "fig3"]),
        ("table1", "quik", [], ["--preset=quik", "Did you mean `quick`?", "cpu, day, paper"]),
        ("table1", "quick", ["MLP", "ODENets"], ["--rows=ODENets", "Did you mean `ODE-Net`?", "ResNet-6 tied"]),
    ],
)
def test_an_unknown_name_is_met_with_those_there_are(item, preset, rows, told):
    with pytest.raises(RequestError) as refused:
        plan(item, preset, 1, rows, [])
    for part in told:
        assert part in str(refused.value)


def test_rows_are_known_in_any_case_without_hyphens():
    assert plan("table1", "quick", 1, ["odenet", "resnet 6", "RK-net"], []).rows == "only ODE-Net, ResNet-6, RK-Net"
    assert plan("table2", "quick", 1, ["dt_rnn"], []).rows == "only Δt-RNN"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("table1 seed=3", "seed=3 cannot be set: `odenet reproduce` sets it. Choose seeds with --seeds N."),
        ("table1 +seed=3", "+seed=3 cannot be set"),
        ("table1 experiment=fig3", "experiment=fig3 cannot be set"),
        ("table1 hydra.run.dir=x", "hydra.run.dir=x cannot be set"),
        ("table1 hydra.sweep.dir=x", "hydra.sweep.dir=x cannot be set"),
        ("table1 resume=auto", "resume=auto cannot be set"),
        ("tabel1", "tabel1 cannot be reproduced. Did you mean `table1`?"),
        ("device=cpu", "ITEM is missing. Available: budget, fig3, "),
        ("table1 --seeds 0", "seeds=0 must be a whole number from 1"),
        ("table1 --jobs x", "jobs=x must be a whole number from 1"),
        ("table1 --jobs=-2", "jobs=-2 must be a whole number from 1"),
        ("table1 --preset", "--preset needs a value"),
        ("table1 --job 2", "--job is not an option here. Did you mean `--jobs`?"),
        ("table1 --jobs 2 hydra/launcher=joblib", "cannot be used together"),
        ("table1 fig3 --rows MLP", "--rows applies to a single item"),
        ("all --rows MLP", "--rows applies to a single item"),
    ],
)
def test_a_word_that_is_not_for_the_user_to_say_is_refused(words, told):
    with pytest.raises(RequestError) as refused:
        parse(words.split())
    assert told in str(refused.value)
    assert refused.value.code == 2


def test_data_that_is_yet_to_be_chosen_is_refused():
    with pytest.raises(RequestError, match="data=auto cannot be reproduced") as refused:
        planned("table1", "quick", ("MLP",), ("data=auto",))
    assert refused.value.code == 2


def test_the_users_word_takes_the_place_of_the_presets():
    found = planned("table1", "quick", ("MLP",), ("data=mnist", "data.root=elsewhere", "trainer.epochs=1"))
    config = found.cells[0].config
    assert (config.data["name"], config.trainer.epochs) == ("mnist", 1)
    assert config.data["root"] == os.path.abspath("elsewhere")
    assert found.changes == ("data=mnist", "trainer.epochs=1")


def test_words_that_change_results_are_named_and_others_leave_the_cells():
    (plain,) = planned("table1", "quick", ("MLP",)).cells
    for words, changes in [
        (("trainer.log_every=5", "trainer.checkpoint_every=9", "name=mine"), ()),
        (("trainer.log_every=5", "optim.lr=0.1"), ("optim.lr=0.1",)),
    ]:
        found = planned("table1", "quick", ("MLP",), words)
        assert found.changes == changes
        assert (found.cells[0].folder == plain.folder) is (not changes)
    # Of the scaling every record is a step of the page: its own rhythm stays.
    cells = planned("table1", "quick", ("ODE-Net",), words).cells
    rhythms = {cell.part: cell.config.trainer.log_every for cell in cells}
    assert rhythms == {"compare": 5, "scaling": 1}


@pytest.mark.parametrize(
    ("word", "free"),
    [
        ("hydra/launcher=joblib", True),
        ("hydra.launcher.n_jobs=2", True),
        ("+hydra.launcher.x=2", True),
        ("device=cuda:1", True),
        ("dtype=float64", False),
        ("compile=true", False),
        ("~model.width", False),
        ("solver.rtol=1e-5", False),
    ],
)
def test_a_launcher_leaves_results_and_a_solver_does_not(word, free):
    assert is_incidental(word) is free


def test_an_experiment_that_repeats_no_seed_has_one():
    found = planned("fig8", "quick")
    assert (found.seeds, found.preset_seeds) == (1, 1)
