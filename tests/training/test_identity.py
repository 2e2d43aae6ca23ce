"""The data of a run that moved are found by their SHA-256, and nothing else is taken for them."""

import json
import shutil
from pathlib import Path

import pytest

from odenet_cli.config.resolve import complete
from odenet_cli.config.saved import load, save
from odenet_cli.errors import RequestError
from odenet_cli.request.compose import compose
from odenet_cli.training.identity import find_moved_data

OLD = Path(__file__).parents[1] / "old_runs" / "latent_ode"


@pytest.fixture
def project(tmp_path):
    """A project of a table and a run of it, two folders down, which names the table by its absolute path."""
    (tmp_path / "old" / "tables").mkdir(parents=True)
    table = shutil.copy(OLD / "data.csv", tmp_path / "old" / "tables" / "data.csv")
    run = tmp_path / "old" / "runs" / "day" / "run"
    run.mkdir(parents=True)
    config = complete(compose(["data=csv", "model=rnn", f"data.path={table}"]), gpu=False)
    save(config, run, tied=True)
    record = json.loads((OLD / "run.json").read_text())
    record["data"]["root"] = str(table)
    (run / "run.json").write_text(json.dumps(record))
    return tmp_path / "old"


def ask(project):
    run = project / "runs" / "day" / "run"
    return find_moved_data(run, load(run))


def test_what_has_not_moved_stays(project):
    assert ask(project) == {}


def test_a_project_that_moved_as_a_whole(project):
    new = project.rename(project.with_name("new"))
    assert ask(new) == {"data.path": str(new / "tables" / "data.csv")}


def test_a_table_of_the_same_name_and_other_content_is_passed_over(project):
    new = project.rename(project.with_name("new"))
    near = new / "runs" / "data.csv"
    near.write_text((new / "tables" / "data.csv").read_text().replace("s0,0.0", "s0,0.1"))
    assert ask(new) == {"data.path": str(new / "tables" / "data.csv")}
    shutil.copy(new / "tables" / "data.csv", new / "runs" / "day" / "data.csv")
    assert ask(new) == {"data.path": str(new / "runs" / "day" / "data.csv")}


def test_where_there_is_none_what_to_say_is_told(project):
    (project / "tables" / "data.csv").unlink()
    with pytest.raises(RequestError, match=r"Give their new place: data\.path=FILE \(SHA-256 138e509b"):
        ask(project)


def test_data_without_a_place_are_left_alone(tmp_path):
    config = complete(compose(["data=digits", "model=mlp"]), gpu=False)
    assert find_moved_data(tmp_path, config) == {}
