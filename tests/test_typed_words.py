"""What is typed means what it says: paths, several of them, `None`, and a key that is taken away."""

import json
import os
import shlex
import shutil

import pytest

from odenet_cli.config.saved import load
from odenet_cli.config.schema import DATA_PLACES, INCIDENTAL, PATHS
from odenet_cli.errors import RequestError
from odenet_cli.request.compose import compose
from odenet_cli.request.job import expand_resume
from odenet_cli.request.overrides import differing_keys, parse, parse_values

CSV = "series,time,x\n" + "".join(f"s{s},{t},{s * 0.3 + t * 0.1}\n" for s in range(12) for t in range(6))
RNN = ("device=cpu", "data=csv", "model=rnn", "model.hidden=4", "trainer.steps=2")


@pytest.mark.parametrize(
    "word", ["~trainer", "~optim.weight_decay", "~solver", "~model", "~seed", "~optim=sgd", "~data.x"]
)
def test_nothing_is_taken_out_of_a_configuration(word):
    with pytest.raises(RequestError, match=r"no key can be removed from a configuration(.|\n)*Leave .* out"):
        parse([word])


@pytest.mark.parametrize(
    "word",
    [
        "optim.clip=None",
        "optim.clip=none",
        "solver.rtol=None",
        "eval.dtype=None",
        "checkpoint=None",
        "data.root=none",
        "trainer.epochs=nil",
        "optim.clip=1,None",
        "+model.x=None",
    ],
)
def test_null_is_written_null(word):
    key = word.lstrip("+").partition("=")[0]
    for reader in (lambda: parse([word]), lambda: parse_values(word)):
        with pytest.raises(RequestError, match=f"write null for no value: {key}=null"):
            reader()


@pytest.mark.parametrize(
    "word", ["optim.clip=null", "resume=none", "name=None", "data.path='None'", "+model.kind=none"]
)
def test_what_is_no_None_passes(word):
    parse([word])


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("data.values=[Natrium,Hämoglobin]", [["Natrium", "Hämoglobin"]]),
        ("data.values=[T außen , 10 µg/l]", [["T außen", "10 µg/l"]]),
        ("data.time=Zeit_°", ["Zeit_°"]),
        ("data.values=['é','it\\'s ü',\"ö\"]", [["é", "it's ü", "ö"]]),
        ("+data.option={a:ä,b:[é,1]}", [{"a": "ä", "b": ["é", 1]}]),
        ("data.time=choice(ä,b)", ["ä", "b"]),
        ("data.time=ä,b", ["ä", "b"]),
    ],
)
def test_names_of_any_language_need_no_quotes(word, values):
    (override,) = parse(["-m", word]).overrides
    for text in (word, override):
        key, found = parse_values(text)
        found = [getattr(value, "text", value) for value in found]
        assert (key, json.loads(json.dumps(found, default=str))) == (word.lstrip("+").partition("=")[0], values)


def test_bytes_that_are_no_text_are_refused():
    word = os.fsdecode(b"hydra.run.dir=\xfc2")
    with pytest.raises(RequestError, match=r"udcfc2' is not text in the encoding of this locale, utf-8(.|\n)*UTF-8"):
        parse(["model=mlp", word])


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("data.time=Zeit [s]", "\"data.time='Zeit [s]'\""),
        ("data.values=[Hb (g/dl),x]", "\"data.values=['one (1)','another']\""),
        ("data.time=$a(", "\"data.time='value'\""),
    ],
)
def test_what_hydra_cannot_read_is_told_with_its_quotes(word, quoted):
    with pytest.raises(RequestError, match="cannot be read") as told:
        parse_values(word)
    assert str(told.value).endswith(f"or =: {quoted}.")


def test_a_path_with_a_comma_is_one_path_or_is_told_how_to_be_several(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match="is read as one path that contains a comma") as refused:
        parse(["-m", "data.path=a.csv,b c.csv"])
    assert str(refused.value).endswith("quote each of them: \"data.path='a.csv','b c.csv'\"")
    assert parse(["-m", "data.path='a.csv','b c.csv'"]).overrides == ["data.path='a.csv','b c.csv'"]
    (tmp_path / "a,b").touch()
    assert parse(["-m", "data.path=a,b"]).overrides == ["data.path='a,b'"]
    assert parse(["data.path=x,y"]).overrides == ["data.path='x,y'"]


def test_paths_are_those_of_the_folder_of_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    config = compose(["data=csv", "model=rnn", "data.path=a/../t.csv", "checkpoint=w.pt"])
    assert (config.data["path"], config.checkpoint) == (str(tmp_path / "t.csv"), str(tmp_path / "w.pt"))
    assert compose(["data=mnist", "data.root=~/x"]).data["root"] == "/home/me/x"
    assert compose(["data=mnist"]).data["root"] is None
    assert set(DATA_PLACES) < set(PATHS)
    assert set(DATA_PLACES) < INCIDENTAL


def test_keys_that_differ_between_jobs():
    assert differing_keys([["a=1", "seed=1"], ["a=1", "seed=2", "resume=auto"]]) == ["seed"]
    assert differing_keys([["a=1", "b=2"], ["a=1"]]) == ["b"]
    assert differing_keys([["a=1"]]) == []


def test_where_a_run_is_may_change_while_it_goes_on_and_nothing_else(tmp_path):
    shutil.copytree(os.path.join(os.path.dirname(__file__), "old_runs", "odenet"), tmp_path / "run")
    words = ["device=cpu", "name=x", "trainer.max_steps=5", "data.download=false"]
    made = expand_resume(parse([f"resume={tmp_path / 'run'}", *words]))
    assert [word.partition("=")[0] for word in made.overrides][:4] == [word.partition("=")[0] for word in words]
    for word in ("optim.lr=1", "seed=1", "eval.dtype=float64", "checkpoint=x", "trainer.batch_size=3"):
        with pytest.raises(RequestError, match=r"cannot change when a run is continued; only trainer\.\*, except"):
            expand_resume(parse([f"resume={tmp_path / 'run'}", word]))


def test_the_new_run_that_is_offered_can_be_typed(tmp_path, monkeypatch):
    """From `last`, in a folder with a blank; what it says goes through the shell and the parser as it was meant."""
    folder = tmp_path / "runs" / "my run"
    shutil.copytree(os.path.join(os.path.dirname(__file__), "old_runs", "odenet"), folder)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match="cannot change when a run is continued") as told:
        expand_resume(parse(["resume=last", "solver.jumps=[0.5, 0.7]"]))
    command = shlex.split(str(told.value).partition("As a new run: odenet train ")[2])
    args = parse(command)
    assert (args.config_dir, args.config_name) == ("runs/my run", "config")
    assert args.overrides == ["solver.jumps=[0.5, 0.7]"]


@pytest.mark.numerics
def test_folders_and_names_are_those_of_what_will_be_done(odenet, tmp_path):
    """What the recipe fills in is known before anything is named after it; two jobs of a sweep, and one run."""
    words = ("device=cpu", "data=digits", "model=mlp", "model.hidden=4", "trainer.max_steps=1")
    done = odenet("train", *words, "hydra.run.dir=R/lr${optim.lr}-${name}", "name=b${trainer.batch_size}")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "R").iterdir()] == ["lr0.05-b8"]
    assert load(tmp_path / "R" / "lr0.05-b8").name == "b8"
    done = odenet("train", "-m", *words, "seed=1,2", "hydra.sweep.dir=S", "hydra.sweep.subdir=lr${optim.lr}-${seed}")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "S").iterdir() if path.is_dir()} == {"lr0.05-1", "lr0.05-2"}


@pytest.mark.numerics
def test_a_table_may_move_and_not_change(odenet, tmp_path):
    """Trained in a folder of its own (chdir), scored from another; moved, then changed."""
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "t.csv").write_text(CSV)
    done = odenet("train", *RNN, "data.path=A/t.csv", "hydra.run.dir=R", "hydra.job.chdir=true")
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "R").data["path"] == str(tmp_path / "A" / "t.csv")

    (tmp_path / "A").rename(tmp_path / "B")
    done = odenet("train", "resume=R", "data.path=B/t.csv", "device=cpu", "trainer.steps=3")
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "R").data["path"] == str(tmp_path / "B" / "t.csv")

    (tmp_path / "B" / "t.csv").write_text(CSV.replace("s0,0,0.0", "s0,0,0.5"))
    done = odenet("train", "resume=R", "data.path=B/t.csv", "trainer.steps=4")
    assert done.returncode == 2
    assert "the data differ from those that the run in R began with" in done.stderr
    assert json.loads((tmp_path / "R" / "run.json").read_text())["final"]["step"] == 3
