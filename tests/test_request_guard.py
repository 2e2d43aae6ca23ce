"""A configuration is data: no code, no environment, no file but a run's own; what cannot be built is named."""

import os
import time

import pytest
import yaml

from odenet_cli.config.saved import load, save
from odenet_cli.errors import RequestError
from odenet_cli.request.compose import compose
from odenet_cli.request.job import prepare
from odenet_cli.request.overrides import parse_values, quote_override

TINY = ["data=digits", "device=cpu", "model=mlp", "model.hidden=4"]
SAVED = ["--config-dir", "run", "--config-name", "config"]
LOGS = "hydra.job_logging.handlers.file"
LONG = "x" * 300


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The text of a saved configuration."""
    folder = tmp_path_factory.mktemp("sound")
    save(compose(TINY), folder, tied=False)
    return (folder / "config.yaml").read_text()


@pytest.fixture
def saved(tmp_path, monkeypatch, sound):
    """`run/config.yaml`, and how to plant a value in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", "hunter2")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(sound)

    def plant(key, value):
        content = place = yaml.safe_load(sound)
        *sections, last = key.split("|") if "|" in key else key.split(".")
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
        (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

    return plant


PLANTED = [
    ("hydra.job.env_set.PATH", "/evil", "hydra.job.env_set"),
    ("hydra.job.env_copy", ["SECRET"], "hydra.job.env_copy"),
    ("hydra.job.env_copy", ["NOT_THERE"], "hydra.job.env_copy"),
    ("hydra.callbacks.x._target_", "hydra.core.utils.os.mkdir", "code to run"),
    ("hydra.callbacks.x.y", 1, "hydra.callbacks.x.y"),
    ("hydra.callbacks", "${data}", "hydra.callbacks"),
    ("hydra.launcher._target_", "hydra.core.utils.os.system", "code to run"),
    ("hydra.sweeper._target_", "hydra.core.utils.os.system", "code to run"),
    ("hydra.launcher._target_", "${data.name}", "code to run"),
    ("hydra.searchpath", ["pkg://antigravity"], "hydra.searchpath"),
    ("hydra.overrides.hydra", ["hydra.launcher.setup=[x]"], "hydra.overrides"),
    ("hydra.sweeper.params.hydra/launcher", "joblib", "hydra.sweeper.params.hydra/launcher"),
    ("hydra|sweeper|params|+hydra.job.env_set.A", "b", "hydra.sweeper.params.+hydra.job.env_set"),
    ("hydra.sweeper.max_batch_size", 0, "hydra.sweeper.max_batch_size"),
    (f"{LOGS}.class", "logging.io.FileIO", "code to run"),
    (f"{LOGS}.()", "logging.FileHandler", "code to run"),
    ("hydra.job_logging.formatters.simple.()", "logging.io.FileIO", "code to run"),
    ("hydra.job_logging.formatters.simple.class", "logging.io.FileIO", "formatters.simple.class"),
    (f"{LOGS}.stream", "ext://os.environ", "code to run"),
    (f"{LOGS}.filename", "/etc/foreign", ".filename is not allowed"),
    ("hydra.job_logging.formatters.simple.format", "$(evil)", "give it on the command line"),
    ("hydra.hydra_logging.handlers.console.filename", "x", "hydra_logging.handlers.console.filename"),
    ("hydra.job.name", "../../x", "hydra.job.name"),
    ("defaults", ["schema", "hydra/odenet", {"override /hydra/job_logging": "x"}, "_self_"], "its defaults"),
    ("defaults", ["schema", {"experiment@hydra.callbacks.x": "fig3"}, "_self_"], "its defaults"),
    ("hydra|sweeper|params|experiment@hydra", "x", "experiment@hydra is not allowed"),
    ("hydra.runtime.output_dir", "/etc", "hydra.runtime.output_dir"),
    ("hydra.output_subdir", "../x", "hydra.output_subdir"),
    ("hydra.output_subdir", "/x", "hydra.output_subdir"),
    ("hydra.run.dir", "${oc.env:SECRET}", ": hydra.run.dir uses ${oc.env:"),
    ("name", "${oc.env:SECRET}", ": name uses ${oc.env:"),
    ("data.root", "a-${oc.decode:'1'}", ": data.root uses ${oc.decode:"),
    ("name", "${${.dtype}:SECRET}", ": name uses ${"),
    ("name", "${oc.select:x,${oc.env:SECRET}}", ": name uses ${oc.env:"),
    ("defaults", ["schema", "hydra/odenet", {"x": "${oc.env:SECRET}"}], ": defaults.2.x uses ${oc.env:"),
    ("hydra.run.dir", "\\${oc.env:SECRET}", "hydra.run.dir"),
    ("hydra.sweeper.params.name", "\\${oc.env:SECRET}", "hydra.sweeper.params.name uses ${oc.env:"),
]


@pytest.mark.parametrize(("key", "value", "says"), PLANTED, ids=range(len(PLANTED)))
def test_what_a_file_may_not_say_is_refused(saved, tmp_path, key, value, says):
    saved(key, value)
    mode = ["-m"] if "params" in key else []
    with pytest.raises(RequestError) as refused:
        prepare([*SAVED, *mode])
    assert says in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    if key != "hydra.run.dir" and not mode:
        with pytest.raises(RequestError):
            prepare(["resume=run"])


@pytest.mark.parametrize("question", [["--info"], ["--help"], ["--cfg", "job"]])
def test_a_question_sets_up_no_foreign_log(saved, question):
    saved("hydra.hydra_logging.handlers.console.class", "logging.io.FileIO")
    with pytest.raises(RequestError, match="code to run"):
        prepare([*SAVED, *question])


ELSEWHERE = [
    ("experiment", "# @package _global_\nhydra: {job: {env_set: {PATH: /evil}}}\n", "hydra.job.env_set"),
    ("experiment", "# @package hydra\njob: {env_set: {PATH: /evil}}\n", "hydra is not allowed in a file"),
    ("experiment", "# @package hydra.callbacks.x\n_target_: os.mkdir\n", "code to run"),
    ("experiment", "# @package _global_\nepochs: 3\n", "epochs is not a key"),
    ("model", "_target_: os.mkdir\nname: mlp\nhidden: 4\n", "code to run"),
    ("hydra/launcher", "setup: [touch x]\n", "hydra/launcher is not allowed in a file"),
    ("hydra/job_logging", "handlers: {x: {class: logging.handlers.SocketHandler}}\n", "not allowed in a file"),
]


@pytest.mark.parametrize(("group", "text", "says"), ELSEWHERE, ids=range(len(ELSEWHERE)))
def test_a_preset_in_the_same_folder_is_no_better(saved, tmp_path, group, text, says):
    (tmp_path / "run" / group).mkdir(parents=True)
    (tmp_path / "run" / group / "mine.yaml").write_text(text)
    with pytest.raises(RequestError) as refused:
        prepare([*SAVED[:2], *TINY, f"{group}=mine"])
    assert says in str(refused.value)


@pytest.mark.parametrize(("mode", "key"), [([], "hydra.run.dir"), (["-m"], "hydra.sweep.dir")])
def test_an_empty_name_is_not_the_current_folder(tmp_path, monkeypatch, mode, key):
    """What an unset variable of the shell leaves would strew a run's files."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=f"{key}= is empty"):
        prepare([*mode, *TINY, "seed=1", f"{key}="])


def test_what_the_command_line_says_itself_passes(saved, tmp_path):
    words = ["hydra.job_logging.formatters.simple.format='x %(message)s'", "hydra.verbose=true"]
    assert prepare([*TINY, *words]).jobs
    assert prepare([*TINY, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.launcher.backend=loky"]).jobs
    assert prepare([*TINY, "hydra/launcher=submitit_slurm", "hydra.launcher.setup=['module load x']"]).jobs
    assert prepare([*TINY, "hydra/launcher=submitit_local", "hydra/job_logging=none", "hydra.output_subdir=null"]).jobs
    assert prepare([*TINY, "name='${oc.env:SECRET}'"]).jobs[0].config.name == "hunter2"
    (tmp_path / "run" / "experiment").mkdir()
    mine = "# @package _global_\ndefaults: [{override /solver: rk4}, {override /hydra/launcher: joblib}]\nseed: 3\n"
    (tmp_path / "run" / "experiment" / "mine.yaml").write_text(
        f"{mine}hydra: {{sweeper: {{params: {{seed: '1,2'}}}}}}\n"
    )
    assert len(prepare([*SAVED[:2], *TINY, "experiment=mine", "-m"]).jobs) == 2


@pytest.mark.parametrize(
    "word",
    [
        "+hydra.job.env_set.A=b",
        "hydra.job.env_copy=[SECRET]",
        "+experiment@hydra.job=fig3",
        f"{LOGS}.class=logging.SocketHandler",
        "hydra.output_subdir=/x",
        "hydra.output_subdir=a/../../x",
        "hydra.run.dir=a\nb",
        f"hydra.run.dir={LONG}",
        f"hydra.run.dir={'xxxxxxxxx/' * 420}",
        f"checkpoint={LONG}",
        f"resume={LONG}",
        f"--config-dir={LONG}",
        f"--config-name={LONG}",
        "resume=~nouser",
        "resume=[",
        "hydra.sweeper.params.seed=1",
    ],
    ids=range(16),
)
def test_a_run_leads_nowhere_else(saved, tmp_path, word):
    with pytest.raises(RequestError) as refused:
        prepare([*TINY, word])
    assert "hunter2" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    "word",
    [
        "hydra.sweep.subdir=../${hydra.job.num}",
        "hydra.sweep.subdir=/x${hydra.job.num}",
        f"hydra.sweep.subdir=${{hydra.job.num}}{LONG}",
        f"hydra.sweep.dir={LONG}",
        "hydra.sweep.dir=a\nb",
        "hydra.sweeper.max_batch_size=0",
        "hydra.output_subdir=../x",
    ],
    ids=range(7),
)
def test_a_sweep_leads_nowhere_else(saved, tmp_path, word):
    with pytest.raises(RequestError, match=word.partition("=")[0]):
        prepare(["-m", *TINY, "seed=1,2", word])
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


UNSOUND = {
    "a key twice": "seed: 1\nseed: 2\n",
    "a list as a key": "? [1]\n: 2\n",
    "nothing as a key": "null: 2\n",
    "two documents": "seed: 1\n---\nseed: 2\n",
    "a bad merge": "seed: {<<: 3}\n",
    "a word": "hello\n",
    "a number": "3\n",
    "a list": "- 1\n",
    "5,000 digits": f"seed: {'9' * 5000}\n",
    "as a key": f"{'9' * 5000}: 1\n",
    "5,000 hexadecimal digits": f"seed: 0x{'f' * 5000}\n",
    "no truth": "seed: !!bool maybe\n",
    "no number": "seed: !!int ''\n",
    "a long interpolation": "seed: " + "${" * 2000 + "\n",
    "a deep interpolation": "seed: " + "${a:" * 240 + "\n",
}


@pytest.mark.parametrize("name", UNSOUND)
def test_what_cannot_be_built_is_refused_by_name(saved, tmp_path, name):
    (tmp_path / "run" / "config.yaml").write_text(UNSOUND[name])
    for read in (lambda: prepare(SAVED), lambda: prepare(["resume=run"]), lambda: load(tmp_path / "run")):
        with pytest.raises(RequestError, match=r"config\.yaml"):
            read()


def test_a_saved_configuration_is_resolved_once(saved, tmp_path):
    for value in ("${oc.env:SECRET}", "\\${oc.env:SECRET}", "${.b}{oc.env:SECRET}", "${.root}", "${nowhere}"):
        saved("data.b", "$")
        saved("data.root", value)
        with pytest.raises(RequestError, match=r"config\.yaml"):
            load(tmp_path / "run")
    with pytest.raises(RequestError, match="File name too long"):
        load(tmp_path / LONG)


SWEEPS = {
    "seed=range(3,0)": "seed=range(3,0) has no value",
    "seed=glob(x)": "seed=glob(x) has no value",
    "seed=range(0,nan)": "seed=range(0,nan): a range needs",
    "seed=range(0,inf)": "seed=range(0,inf): a range needs",
    "seed=range(1,3,0)": "seed=range(1,3,0): a range needs",
    "seed=interval(1,3)": "seed=interval(1,3): an interval",
    "seed=range(1,1e9)": "seed=range(1,1e9) has 999,999,999 values",
    "seed=range(1,1000000000)": "has 999,999,999 values",
    "seed=shuffle(range(1,1000000000))": "has 999,999,999 values",
    "seed=range(0,200) optim.lr=range(1,101)": "seed 200, optim.lr 100: 20,000 points in total; the limit",
    "hydra.sweeper.params.seed=1,2": "on the command line use the key itself",
    "model=mlp,odnet": "Did you mean `odenet`?",
}


@pytest.mark.parametrize("words", SWEEPS)
def test_a_sweep_is_counted_before_it_is_made(saved, words):
    begun = time.process_time()
    with pytest.raises(RequestError) as refused:
        prepare(["-m", *TINY, *words.split(" ")])
    assert SWEEPS[words] in str(refused.value)
    assert time.process_time() - begun < 10


def test_points_around_a_run_are_counted_too():
    assert parse_values("eval.solver.rtol=range(1,4)") == ("eval.solver.rtol", [1, 2, 3])
    assert parse_values("seed=range(1,2,0.25)")[1] == [1.0, 1.25, 1.5, 1.75]
    assert parse_values("seed=range(3,0,-1)")[1] == [3, 2, 1]
    for word in ("seed=range(0,0)", "seed=range(0,nan)", "seed=range(1,1e9)", "seed=glob(x)", "seed=interval(0,1)"):
        with pytest.raises(RequestError, match="seed="):
            parse_values(word)


def test_only_what_is_quoted_from_end_to_end_is_quoted():
    assert quote_override("name='a' 'b'") == r"name='\'a\' \'b\''"
    assert quote_override("data.decimal=,") == "data.decimal=','"
    assert quote_override("name='a'b'") == r"name='\'a\'b\''"
    for word in ("name='a'", 'name="a b"', r"name='it\'s'", "name='a','b'", "name=choice(a,b)"):
        assert quote_override(word) == word
    for name in ("'a' 'b'", "'a'b'", "''a", "a'"):
        assert compose([*TINY, f"name={name}"]).name == name


def test_a_truth_value_is_said_to_be_one():
    with pytest.raises(RequestError, match=r"deterministic=maybe is not true or false\."):
        compose(["deterministic=maybe"])


def test_git_runs_nothing_that_a_file_planted(saved, tmp_path, odenet):
    """The whole command, with a filter for git planted by way of the environment."""
    settings = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.fsmonitor"}
    saved("hydra.job.env_set", {**settings, "GIT_CONFIG_VALUE_0": f"touch {tmp_path}/exploded; false"})
    for words in (SAVED, ["resume=run"]):
        done = odenet("train", *words)
        assert done.returncode == 2
        assert "hydra.job.env_set" in done.stderr
    assert os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize("word", ["=5", "=", "~=", "~", "+=3", "@=3", ":=5", "/=5", ".=3", "5=5", "", " ", "+"])
def test_a_word_without_a_key_is_shown_as_it_was_typed(word):
    for refuse in (parse_values, lambda word: compose([word])):
        with pytest.raises(RequestError) as refused:
            refuse(word)
        assert str(refused.value).startswith(f"{word!r} is not of the form key=value")
