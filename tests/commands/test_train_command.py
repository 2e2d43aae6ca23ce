"""`odenet train`: a wrong request ends in exit 2 and leaves nothing behind; a right one becomes runs and summaries."""

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest

from odenet_cli.commands._summary import markdown, summarise
from odenet_cli.config.saved import save
from odenet_cli.errors import RequestError
from odenet_cli.request.compose import compose
from odenet_cli.request.folders import folder_name
from odenet_cli.request.job import prepare
from odenet_cli.request.overrides import parse, quote_override

WRONG = {
    "model=odenett": ["model=odenett", "Did you mean `odenet`?", "resnet"],
    "model=ODE-Net": ["Did you mean `odenet`?"],
    "solver=dopri": ["Did you mean `dopri5` or `dopri8`?"],
    "model.units=64": ["model.units is not a key of the configuration.\n"],
    "-m model=odenet,mlp model.width=4": [
        "model.width is not a key of the configuration.",
        "able: model.hidden, model.name.",
    ],
    "modle=odenet": ["modle", "Did you mean `model`?"],
    "lr=0.1": ["lr is not a key", "Did you mean `optim.lr`?"],
    "rtol=1e-4": ["Did you mean `solver.rtol`, `gradient.solver.rtol` or `eval.solver.rtol`?"],
    "rtl=1e-4": ["Did you mean `solver.rtol`, `gradient"],
    "eval.rtol=1e-4": ["Did you mean `eval.solver.rtol`?"],
    "batch_size=8": ["Did you mean `trainer.batch_size` or `eval.batch_size`?"],
    "optim.learning_rate=1": ["Did you mean `optim.lr`?"],
    "data=moons lr=1": ["Did you mean `optim.lr`?"],
    "model=custom model.target=m:Net model.hidden=3": ["model.hidden", "write a plus: +model.hidden="],
    "solver.rtol=-1": ["solver.rtol=-1", "above 0"],
    "solver.rtol=abc": ["solver.rtol=abc is not a number"],
    "solver.rtol=nan": ["solver.rtol=nan", "finite"],
    "solver.rtol=1e-10": ["solver.rtol=1e-10", "dtype=float64"],
    "solver.rtl=1e-3": ["solver.rtl", "Did you mean `solver.rtol`?"],
    "solver.rtol=1e-1,1e-2": ["add -m"],
    "solver=rk4 solver.rtol=1e-3": ["rk4", "fixed steps", "solver=rk4"],
    "solver.steps=3": ["dopri5", "chooses its steps from the tolerance"],
    "solver.method=rk5": ["solver.method=rk5", "Did you mean `rk4`?"],
    "solver=null": ["solver=null"],
    "eval.solver.method=rk5": ["eval.solver.method=rk5"],
    "eval.solver.steps=3": ["eval.solver.steps=3", "dopri5"],
    "gradient.norm=l2": ["gradient.norm=l2", "seminorm"],
    "gradient=adjoint gradient.norm=seminorm gradient.control_parameters=true": [
        "gradient.norm=seminorm",
        "gradient.control_parameters=true",
    ],
    "gradient=backprop gradient.solver.rtol=1e-3": ["gradient.solver.rtol", "backprop"],
    "optim.lr=inf": ["optim.lr=inf", "finite"],
    "optim.momentum=1": ["optim.momentum=1", "[0, 1)"],
    "optim=adam optim.momentum=0.9": ["optim.momentum=0.9", "adam"],
    "optim.milestones=[0.5,0.2]": ["increasing"],
    "optim.schedule=cosin": ["optim.schedule=cosin", "cosine"],
    "optim.warmup=1": ["optim.warmup=1", "[0, 1)"],
    "solver.jumps=0.5": ["solver.jumps=0.5 is not a list; write a list with brackets: solver.jumps=[0.5]"],
    "data=custom": ["data.target is missing: data.target=package.module:Class"],
    "trainer.epochs=2.5": ["trainer.epochs=2.5 is not a whole number"],
    "trainer.epochs=0": ["trainer.epochs=0", "1 or more"],
    "trainer.epochs=3 trainer.steps=4": ["trainer.epochs=3", "trainer.steps=4"],
    "trainer=3": ["trainer is a section"],
    "data=moons data.recipe=3": ["data.recipe=3", "is a section; set its keys instead", "data.recipe.lr"],
    "data=moons data.recipe.eval=3": ["data.recipe.eval=3", "data.recipe.eval.rtol"],
    "data=digits data.recipe.epochs=3": ["data.recipe.epochs=3", "data.recipe.epochs.cpu"],
    "data=digits data.recipe.lr=fast": ["data.recipe.lr=fast is not a number"],
    "data=digits data.recipe.batch_size=8.5": ["data.recipe.batch_size=8.5 is not a whole number"],
    "data=moons data.recipe.eval.method=7": ["data.recipe.eval.method=7 is not a word"],
    "data=auto +data.recipe=3": ["data.recipe=3", "a section"],
    "data=moons data.noise={a:1}": ["data.noise={'a': 1}", "not a section"],
    "data=digits model=mlp model.hidden={a:1}": ["model.hidden={'a': 1}", "not a section"],
    "seed=null": ["seed=null"],
    "seed=-1": ["seed=-1"],
    "device=gpu": ["device=gpu", "cuda:N"],
    "dtype=float16": ["dtype=float16", "float64"],
    "name=../x": ["name='../x'"],
    "name=${nope}": ["nope", "does not exist"],
    "+foo=1": ["foo", "not a key"],
    "+solver.foo=1": ["solver.foo", "not a key"],
    "model.wdth=3": ["Did you mean `model.width`?"],
    "odenet": ["'odenet' is not of the form key=value", "Did you mean `model=odenet`?"],
    "resume": ["'resume' is not of the form key=value"],
    "solver.rtol = 1": ["'solver.rtol' is not of the form key=value", "without spaces"],
    "--rtol 1e-3": ["arguments: --rtol. Did you mean `solver.rtol`"],
    "model=odenet,": ["model=odenet, cannot be read: it does not follow Hydra's grammar"],
    "model.width=[1": ["model.width=[1 cannot be read"],
    "resume=nowhere": ["nowhere", "config.yaml"],
    "checkpoint=no.pt": ["checkpoint=/", "/no.pt: this file does not exist"],
    "+model._target_=os.system": ["_target_", "code to run"],
    "hydra.sweeper._target_=os.system": ["_target_", "code to run"],
    "+hydra.job_logging.handlers.file.stream=ext://os.environ": ["code to run"],
    "--experimental-rerun x": ["pickle"],
    "--cfg x": ["--cfg"],
    "--config-dir nowhere": ["nowhere"],
    "--config-name config": ["--config-dir RUN"],
    "-m seed=1,-2": ["seed=-2"],
    "-m hydra.sweep.subdir=same seed=1,2": ["same folder"],
    "hydra.run.dir=/proc/version/x": ["not a folder"],
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_request_is_refused_in_plain_words(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError) as refused:
        prepare(words.split(" "))
    text = str(refused.value)
    assert len(text.splitlines()) <= 12
    for part in WRONG[words]:
        assert part in text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words", ["model=odenett", "-m solver.rtol=1e-3,-1", "model.width=13", "data=mnist data.root=/nowhere"]
)
def test_a_refusal_is_exit_2_and_makes_no_folder(odenet, tmp_path, words):
    done = odenet("train", "device=cpu", *words.split(), fakes=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("data=moons data.recipe=3", "data.recipe=3"),
        ("data=digits model.width={a:1}", "model.width={'a': 1}"),
        ("data=digits data.recipe=null", "trainer.steps is null"),
        ("data=digits data.recipe.epochs=null", "trainer.steps is null"),
        ("data=digits data.recipe.batch_size=null", "trainer.batch_size is null"),
        ("data=digits data.recipe.lr=null", "optim.lr is null, and the recipe of data=digits has no value for it"),
    ],
)
def test_a_recipe_of_another_shape_is_exit_2(odenet, tmp_path, words, told):
    done = odenet("train", "device=cpu", *words.split(), fakes=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {told}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "gradient"),
    [
        ("", "adjoint"),
        ("model=rknet", "backprop"),
        ("model=rknet gradient=adjoint", "adjoint"),
        ("gradient=backprop model=odenet", "backprop"),
    ],
)
def test_the_command_line_wins_over_the_model_preset(words, gradient):
    config = compose(words.split())
    assert config.gradient.method == gradient
    assert config.model["name"] == "odenet"
    assert config.name.startswith("rknet-" if "rknet" in words else "odenet-")


def test_an_experiment_wins_over_the_model_preset(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndefaults:\n  - override /model: rknet\n  - override /gradient: adjoint\nseed: 5\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    config = compose(["--config-dir", str(tmp_path), "experiment=mine"])
    assert (config.name, config.gradient.method, config.seed) == ("rknet-dopri5", "adjoint", 5)
    config = compose(["--config-dir", str(tmp_path), "experiment=mine", "gradient=backprop", "seed=6"])
    assert (config.gradient.method, config.seed) == ("backprop", 6)


def test_a_preset_of_ones_own_has_a_name_of_its_own(tmp_path):
    """One of a shipped name was passed over without a word."""
    (tmp_path / "solver").mkdir()
    text = "method: dopri5\nrtol: 0.5\natol: ${.rtol}\n"
    (tmp_path / "solver" / "mine.yaml").write_text(text)
    words = ["--config-dir", str(tmp_path), "data=digits"]
    assert compose([*words, "solver=mine"]).solver.rtol == 0.5
    (tmp_path / "solver" / "dopri5.yaml").write_text(text)
    with pytest.raises(RequestError, match=r"solver/dopri5\.yaml has the name of a preset that comes with odenet"):
        compose([*words, "solver=dopri5"])


@pytest.mark.parametrize("path", ["a b", "é", "a=b,c", "x[1]", "it's", '"', "back\\slash", "{a}", "(a", "'", "a\\'b"])
def test_paths_of_any_spelling_arrive(path, tmp_path, monkeypatch):
    """Of the folder the command is called in, whatever was composed elsewhere before."""
    monkeypatch.chdir(tmp_path)
    config = compose([f"checkpoint={path}", "data=mnist", f"data.root={path}"])
    assert config.data["root"] == config.checkpoint == os.path.abspath(path)


def test_home_is_expanded_and_quoted_values_stay(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert quote_override("data.root=~/x") == "data.root='/home/me/x'"
    assert quote_override("data.root='a b'") == "data.root='a b'"
    assert quote_override("checkpoint=null") == "checkpoint=null"
    assert quote_override("solver.rtol=1e-3") == "solver.rtol=1e-3"
    assert parse(["seed=1", "-m", "seed=2"]).overrides == ["seed=1", "seed=2"]


def test_the_folder_of_a_configuration_may_be_the_last_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    for words in (["--config-dir", "last"], ["--config-dir=last"], ["-cd", "last"]):
        args = parse([*words, "--config-name", "config"])
        assert args.config_dir == "runs/a"
        assert not [word for word in args.argv if "last" in word]


def test_a_key_may_have_hyphens_as_an_option_has():
    args = parse(["--optim.lr=1", "--seed=2", "--solver=rk4", "--config-dir=x", "--cfg=job", "dry-run=true"])
    assert args.overrides == ["optim.lr=1", "seed=2", "solver=rk4"]
    assert (args.config_dir, args.cfg, args.dry_run) == ("x", "job", True)
    with pytest.raises(RequestError, match="unrecognized arguments: --optimm=1"):
        parse(["--optimm=1"])


def test_folder_names_are_safe_and_short():
    assert folder_name(3, "seed=1,solver.rtol=0.1") == "3-seed=1,solver.rtol=0.1"
    assert folder_name(3, "data.root=/a/b,seed=1") == "3-seed=1"
    assert folder_name(3, "") == "3"
    assert len(folder_name(3, "x" * 500)) < 120
    assert folder_name(3, "x" * 500) != folder_name(3, "x" * 501)
    assert folder_name(3, "a=é b'*") == "3-a=é_b_"


def record(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def advised(text: str) -> list[str]:
    """The words of the command that a message advises."""
    return shlex.split(text.strip().rpartition("odenet train ")[2])


def test_a_preset_beside_a_saved_config_is_refused_with_words_that_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["data=digits", "device=cpu", "solver=rk4", "solver.steps=3", "name=a b", "resume=auto"]
    save(compose(words), tmp_path, tied=False)

    def refused(*added, **record):
        content = {"status": "done", "command": "odenet train", "overrides": words, **record}
        (tmp_path / "run.json").write_text(json.dumps(content))
        with pytest.raises(RequestError, match="cannot take") as error:
            prepare(["--config-dir", str(tmp_path), "--config-name", "config", *added])
        return advised(str(error.value))

    advice = refused("model=rknet", "device=auto")
    config = compose(advice)
    assert (config.gradient.method, config.solver.steps, config.name) == ("backprop", 3, "a b")
    assert (config.device, config.resume) == ("auto", "none")
    assert compose(refused("solver=dopri5")).solver.rtol == 1e-3  # no steps of rk4 are left
    assert refused("solver=dopri5", command="odenet train resume=runs/x") == ["solver=dopri5", "…"]


def test_a_run_is_saved_and_can_be_repeated_and_continued(odenet, tmp_path):
    def train(*words):
        return odenet("train", *words, fakes=True)

    assert train("device=cpu", "hydra.run.dir=my run").returncode == 0
    first = tmp_path / "my run"
    assert record(first)["command"] == "odenet train device=cpu 'hydra.run.dir=my run'"
    assert record(first)["data"] == {"used": "digits", "options": {"crop": 2, "validation": 144}, "requested": "auto"}
    assert record(first)["final"]["epochs"] == 14
    assert "atol: ${.rtol}" in (first / "config.yaml").read_text()

    done = train("hydra.run.dir=my run", "device=cpu")
    assert done.returncode == 2
    assert "finished run" in done.stderr

    assert train("--config-dir", "my run", "--config-name", "config", "solver.rtol=1e-5", "seed=3").returncode == 0
    (again,) = (tmp_path / "runs").glob("*/*")
    assert again.name.endswith("-odenet-dopri5")
    assert "rtol: 1.0e-05\n  atol: ${.rtol}" in (again / "config.yaml").read_text()
    done = train("--config-dir", "my run", "--config-name", "config", "solver=euler")
    assert done.returncode == 2
    assert advised(done.stderr) == ["device=cpu", "solver=euler"]

    assert train("resume=my run", "trainer.epochs=31").returncode == 0
    assert record(first)["final"]["epochs"] == 31
    done = train("resume=my run", "optim.lr=3")
    assert done.returncode == 2
    assert "trainer.*" in done.stderr


def test_a_sweep_goes_on_when_a_job_fails_and_later_takes_up_what_is_left(odenet, tmp_path):
    words = ["train", "-m", "device=cpu", "model=odenet,rknet", "seed=1,7", "hydra.sweep.dir=out"]
    done = odenet(*words, fakes=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stdout.count("resolved") == 1  # data=auto, once for all

    out = tmp_path / "out"
    jobs = json.loads((out / "summary.json").read_text())["jobs"]
    assert [job["status"] for job in jobs] == ["done", "failed"] * 2
    assert jobs[1]["reason"].startswith("the loss is not finite")
    assert jobs[0]["final"]["error"] == 0.1
    assert jobs[0]["folder"] == "0-model=odenet,seed=1"
    assert jobs[3]["overrides"] == ["device=cpu", "model=rknet", "seed=7"]
    assert "| model  | seed | error % |" in (out / "summary.md").read_text()
    assert (out / "summary.md").read_text().strip() in done.stdout

    assert odenet(*words, fakes=True).returncode == 2
    assert odenet(*words, "resume=auto", fakes=True).returncode == 1
    assert (out / "0-model=odenet,seed=1" / "starts").read_text() == "x"
    assert (out / "1-model=odenet,seed=7" / "starts").read_text() == "xx"


def test_a_damaged_record_is_told_from_a_job_that_was_not_started(odenet, tmp_path):
    words = ["train", "-m", "device=cpu", "seed=1,2", "hydra.sweep.dir=out"]
    assert odenet(*words, fakes=True).returncode == 0
    odd = tmp_path / "out" / "0-seed=1"
    (odd / "run.json").write_text('{"status": "do')
    shutil.rmtree(tmp_path / "out" / "1-seed=2")
    assert summarise(tmp_path / "out", [([], odd), ([], tmp_path / "out" / "1-seed=2")]) == 2
    jobs = json.loads((tmp_path / "out" / "summary.json").read_text())["jobs"]
    assert [job["status"] for job in jobs] == ["unreadable", "not started"]
    assert "run.json cannot be read" in jobs[0]["reason"]
    assert "| unreadable" in (tmp_path / "out" / "summary.md").read_text()


def test_the_jobs_of_a_sweep_are_handed_out_in_batches(odenet, tmp_path):
    words = ["device=cpu", "seed=1,2,3", "hydra.sweeper.max_batch_size=2", "hydra.sweep.dir=out"]
    done = odenet("train", "-m", *words, fakes=True)
    assert done.returncode == 0, done.stderr
    jobs = json.loads((tmp_path / "out" / "summary.json").read_text())["jobs"]
    assert [(job["folder"], job["status"]) for job in jobs] == [(f"{n}-seed={n + 1}", "done") for n in range(3)]
    assert done.stdout.count("Launching") == 2


def test_an_interrupt_stops_the_sweep(odenet, tmp_path):
    done = odenet("train", "-m", "device=cpu", "seed=1,9,3", "hydra.sweep.dir=out", fakes=True)
    assert done.returncode == 130
    jobs = json.loads((tmp_path / "out" / "summary.json").read_text())["jobs"]
    assert [job["status"] for job in jobs] == ["done", "interrupted", "not started"]


@pytest.mark.numerics
def test_joblib_runs_the_jobs_in_other_processes(odenet, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["device=cpu", "seed=1,2,8", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=out"]
    done = odenet("train", "-m", *words, fakes=True, fresh=True)
    assert done.returncode == 1
    jobs = json.loads((tmp_path / "out" / "summary.json").read_text())["jobs"]
    assert [job["status"] for job in jobs] == ["done", "done", "failed"]
    assert jobs[2]["reason"].splitlines()[0] == "ValueError: a bug"
    assert record(tmp_path / "out" / "0-seed=1")["data"]["requested"] == "auto"


@pytest.mark.parametrize(
    "launcher",
    [[], pytest.param(["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], marks=pytest.mark.numerics)],
)
def test_a_refused_job_is_not_done_though_its_run_is(odenet, tmp_path, launcher):
    """A job whose finished run has a damaged config.yaml is refused: it counts as failed in whatever process it ran."""
    if launcher:
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["train", "-m", "device=cpu", "seed=1,2", "hydra.sweep.dir=out"]
    assert odenet(*words, fakes=True).returncode == 0
    refused = tmp_path / "out" / "0-seed=1"
    (refused / "config.yaml").write_text("{")
    before = {path.name for path in refused.iterdir()}
    assert odenet(*words, *launcher, "resume=auto", fakes=True, fresh=bool(launcher)).returncode == 1
    jobs = json.loads((tmp_path / "out" / "summary.json").read_text())["jobs"]
    assert [job["status"] for job in jobs] == ["failed", "done"]
    assert "config.yaml" in jobs[0]["reason"]
    assert record(refused)["status"] == "done"
    assert {path.name for path in refused.iterdir()} == before


def test_a_sweep_written_in_a_configuration_is_checked_too(odenet, tmp_path):
    text = "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: 1,-1\n"
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "swept.yaml").write_text(text)
    done = odenet("train", "--config-dir", ".", "experiment=swept", "device=cpu", fakes=True)
    assert done.returncode == 2
    assert "seed=-1" in done.stderr
    assert (
        odenet("train", "--config-dir", ".", "experiment=swept", "seed=1,2", "device=cpu", fakes=True).returncode == 0
    )


@pytest.mark.parametrize("words", [["--help"], ["--cfg", "job"], ["--info", "defaults"], ["--hydra-help"]])
def test_hydras_questions_are_answered(odenet, tmp_path, words):
    done = odenet("train", *words, *([] if words == ["--hydra-help"] else ["solver=rk4"]))
    assert done.returncode == 0
    assert done.stdout
    assert not list(tmp_path.iterdir())
    if words == ["--help"]:
        assert "model: cnf, custom, fit, latent_ode" in done.stdout
        assert "method: rk4" in done.stdout


def test_a_run_killed_in_the_first_write_of_its_record_can_go_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    (tmp_path / "run" / ".run.json.part").write_text('{"status": "run')
    words = ["data=digits", "device=cpu", "hydra.run.dir=run"]
    assert prepare([*words, "resume=auto"]).folder == Path("run")
    with pytest.raises(RequestError, match="unfinished run"):
        prepare(words)


@pytest.mark.parametrize("data", ["null", "3", "[digits]"])
def test_a_saved_config_without_a_data_set_leaves_the_choice_open(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ODENET_DATA", str(tmp_path / "none"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(f"data: {data}\n")
    prepare(["data=auto", "data.download=false", "device=cpu", "hydra.run.dir=run", "resume=auto"])
    assert json.loads(os.environ["ODENET_REQUEST"])["auto"] == "digits"


def test_a_summary_shows_what_each_task_is_judged_by():
    def job(number, **final):
        overrides = [f"data={number}", "x=a|b"]
        return {"overrides": overrides, "status": "done", "final": final, "folder": f"{7 - number}-data={number}"}

    events = {"nll": 3.0, "kl": 1.0, "gap": 0.01, "rate_error": 0.1, "nfe_forward": 20}
    series = {"nll": 3.0, "kl": 1.0, "rmse_further_clean": 0.2, "rmse_further_noisy": 0.3}
    noisy = {"nll": 3.0, "rmse_further_noisy": 0.3}
    finals = ({"error": 0.1}, {"kl": 0.0123}, {"nll": 2.0, "gap": -0.25}, series, noisy, events, {})
    lines = markdown([job(n, **final) for n, final in enumerate(finals)], ["data", "x"]).splitlines()
    head, _, *found = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    shown = [{title: cell for title, cell in zip(head[3:-1], row[3:-1]) if cell} for row in found]
    assert shown == [
        {"error %": "10.00"},
        {"KL, nat": "0.0123"},
        {"NLL, nat": "2.000", "gap, nat": "-0.250"},
        {"RMSE, clean": "0.200"},
        {"RMSE, noisy": "0.300"},
        {"rate error": "0.100", "gap, nats an event": "0.0100", "NFE forward": "20.0"},
        {},
    ]
    assert [row[:3] for row in found] == [[str(7 - n), str(n), r"a\|b"] for n in range(7)]


def test_the_table_of_a_sweep_fits_the_terminal():
    """The number, the main score, the status and the swept keys stay; `summary.md` has all columns."""
    final = {"nll": 1.378, "gap": 0.901, "nfe_forward": 76.9, "nfe_backward": 0, "saved_mib": 2.3, "time_s": 16.3}
    records = [{"overrides": ["solver.rtol=1e-06", "model.units=8"], "status": "done", "final": final, "folder": "0"}]
    whole = markdown(records, ["solver.rtol", "model.units"])
    assert max(map(len, whole.splitlines())) > 100
    for width in (60, 80, 100):
        head, *rows = markdown(records, ["solver.rtol", "model.units"], width).splitlines()
        assert max(map(len, [head, *rows])) <= width
        titles = [title.strip() for title in head.strip("| ").split(" | ")]
        assert {"job", "solver.rtol", "model.units", "NLL, nat", "status"} <= set(titles)
        assert [cell.strip() for cell in rows[-1].strip("| ").split(" | ")][titles.index("NLL, nat")] == "1.378"
