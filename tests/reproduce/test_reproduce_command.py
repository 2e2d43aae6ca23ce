"""`odenet reproduce` from outside: what it starts, what it starts again, what it writes and what it refuses."""

import json
import os
import re
from pathlib import Path

import pytest
from hydra.core.plugins import Plugins

from odenet_cli import data
from odenet_cli.analysis.measures import error_control
from odenet_cli.commands import reproduce as command
from odenet_cli.config.resolve import complete
from odenet_cli.config.saved import save
from odenet_cli.errors import RequestError
from odenet_cli.reproduce import launcher, stages
from odenet_cli.reproduce.plan import plan
from odenet_cli.training import check as checks

FAKES = Path(__file__).parents[1] / "fakes"

WORDS = ("reproduce", "table1", "--rows", "MLP", "--seeds", "2", "device=cpu", "trainer.epochs=1", "--out", "out")
LISTED = re.compile(r"^  (\w+) +odenet train (.*) hydra\.run\.dir=(runs/cells/[0-9a-f]{16}) resume=auto$", re.MULTILINE)


def starts(folder):
    """cell -> how often its training began."""
    return {path.parent.name: len(path.read_text()) for path in folder.glob("runs/cells/*/starts")}


def by_seed(folder):
    """Seed -> the name of its cell."""
    found = {}
    for path in folder.glob("runs/cells/*/config.yaml"):
        found[int(re.search(r"^seed: (\d+)$", path.read_text(), re.MULTILINE)[1])] = path.parent.name
    return found


def test_a_dry_run_lists_every_command_and_runs_nothing(odenet, tmp_path):
    words = ["fig3", "table1", "solver.rtol=1e-3", "--dry-run", "--seeds", "1", "device=cpu"]
    done = odenet("reproduce", *words, fakes=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("fig3, quick preset: 1 cell: 1,797 handwritten digits instead of MNIST, 16 channels")
    count = int(re.match(r"table1, quick preset: (\d+) cells: 1,797 handwritten digits", lines[2])[1])
    cells = LISTED.findall(done.stdout)
    assert len(cells) == len(lines) - 2 == count + 1
    assert {status for status, _, _ in cells} == {"missing"}
    assert len({folder for _, _, folder in cells}) == count  # figure 3's network is a cell of table 1
    assert all(words.endswith(" seed=0 solver.rtol=0.001 device=cpu") for _, words, _ in cells)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def reproduce(tmp_path, monkeypatch, capsys):
    """The command in this process, which has loaded already what it needs; the processes of cells have stand-ins."""

    def prepare(name, options):
        return {"used": name, "sha256": os.environ.get("ODENET_FAKE_SHA"), "sizes": {"train": 1437}}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "prepare", prepare)
    monkeypatch.setattr(checks, "check", lambda config: None)
    path = os.pathsep.join(filter(None, [str(FAKES), os.environ.get("PYTHONPATH")]))
    environ = {"ODENET_FAKES": "1", "PYTHONPATH": path, "ODENET_REQUEST": "{}", "OMP_NUM_THREADS": "1"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    def call(*words):
        code = command.main([*words])
        return code, capsys.readouterr().out

    return call


@pytest.mark.numerics
def test_a_failing_cell_is_named_and_only_it_is_run_again(odenet, reproduce, tmp_path):
    done = odenet(*WORDS, fakes=True, ODENET_FAKE_FAILS="0")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    failed, fine = (by_seed(tmp_path)[seed] for seed in (0, 1))
    assert starts(tmp_path) == {failed: 1, fine: 1}
    assert "2 cells: 2 to run\n" in done.stdout
    assert "[1/2] MLP, seed 1: test error 10.00 %, NFE 20/26, " in done.stdout
    named = f"MLP, seed 0: the loss is not finite at step 3\n  runs/cells/{failed}, runs/cells/{failed}.log\n"
    assert done.stdout.endswith(named)
    text = (tmp_path / "out" / "table1" / "quick.md").read_text()
    partial = "(partial: only MLP; partial: 1 of 2 cells not done; changed: trainer.epochs=1)"
    assert text.splitlines()[0] == f"# Table 1, MLP, ResNets, RK-Net and ODE-Net: quick preset {partial}"
    assert "- MLP, seed 0: the loss is not finite at step 3\n" in text
    assert "1 (1)" in text

    code, out = reproduce(*WORDS[1:], "trainer.log_every=7")
    assert code == 0
    assert starts(tmp_path) == {failed: 2, fine: 1}
    assert "2 cells: 1 already done, 1 to run\n" in out
    folder = tmp_path / "out" / "table1"
    assert {path.name for path in folder.iterdir()} == {"quick.md", "quick.csv", "quick.json"}
    assert not (tmp_path / "results").exists()
    text, whole = (folder / "quick.md").read_text(), json.loads((folder / "quick.json").read_text())
    assert text.splitlines()[0].endswith("quick preset (partial: only MLP; changed: trainer.epochs=1)")
    assert "10.00 ± 0.00" in text
    assert whole["source"]["command"] == f"odenet {' '.join(WORDS)} trainer.log_every=7"
    for name in ("command", "commit", "machine", "data"):
        assert re.search(rf"^- {name}: .", text, re.MULTILINE)
    assert whole["missing"] == []
    assert [row["error"] for row in whole["rows"]] == [0.1, 0.1]
    assert [row["cell"] for row in whole["rows"]] == [failed, fine]


@pytest.mark.numerics
def test_a_finished_cell_is_never_run_again(reproduce, tmp_path):
    words = ("table1", "--rows", "MLP", "--seeds", "1", "device=cpu")
    assert reproduce(*words)[0] == 0
    folder = tmp_path / "results" / "table1"
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, out = reproduce(*words)
    assert code == 0
    assert "1 cell: 1 already done, 0 to run\n" in out
    assert list(starts(tmp_path).values()) == [1]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert "(partial: 1 of 2 seeds; partial: only MLP)" in first["quick.md"].decode()
    assert re.search(r"^  done +odenet train ", reproduce(*words, "--dry-run")[1], re.MULTILINE)


def test_cells_of_other_data_under_the_same_name_are_refused(reproduce, tmp_path, monkeypatch):
    words = ("table1", "--rows", "MLP", "--seeds", "1", "device=cpu")
    (cell,) = plan("table1", "quick", 1, ["MLP"], ["device=cpu"]).cells
    (tmp_path / cell.folder).mkdir(parents=True)
    save(complete(cell.config, gpu=False), tmp_path / cell.folder, tied=True)
    record = {"status": "done", "data": {"used": "digits", "sha256": "aaaa"}}
    (tmp_path / cell.folder / "run.json").write_text(json.dumps(record))
    monkeypatch.setenv("ODENET_FAKE_SHA", "bbbb")
    with pytest.raises(RequestError, match=r"MLP, seed 0.* different data of the same name.*aaaa.*bbbb") as refused:
        reproduce(*words, "--out", "other")
    assert refused.value.code == 2
    assert not starts(tmp_path)
    assert not (tmp_path / "other").exists()
    monkeypatch.setenv("ODENET_FAKE_SHA", "aaaa")
    assert reproduce(*words, "--dry-run")[0] == 0


def test_a_place_that_cannot_be_written_is_refused_before_anything_runs(reproduce, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="--out file/table1 cannot be created"):
        reproduce("table1", "--rows", "MLP", "--seeds", "1", "device=cpu", "--out", "file")
    assert not list(tmp_path.glob("runs/cells/*"))


@pytest.mark.parametrize(
    ("words", "alone"),
    [((), True), (("hydra/launcher=joblib",), True), (("hydra/launcher=submitit_slurm",), False)],
)
def test_timed_cells_run_alone_on_this_machine(monkeypatch, words, alone):
    """One at a time when all others are done; only a queue, which gives each job its own place, takes them with it."""
    started = []

    def launched(jobs, at_once, gpus, update):
        started.append((at_once, {job.folder for job in jobs}))
        return {}

    def handed(task, jobs, words, update):
        started.append(("launcher", {job.folder for job in jobs}))

    monkeypatch.setattr(stages, "launch", launched)
    monkeypatch.setattr(launcher, "launch", handed)
    planned = plan("table1", "cpu", 1, ["MLP", "ResNet-1"], ["device=cpu"])
    timed = {cell.folder for cell in planned.cells if cell.alone}
    others = {cell.folder for cell in planned.cells} - timed
    stages.run_cells(planned, command.parse(["table1", *words]), lambda cfg: None)
    assert len(timed) == len(others) == 2
    first = "launcher" if words else 1
    assert started == ([(first, others), (1, timed)] if alone else [(first, others | timed)])


@pytest.mark.numerics
def test_hydras_launcher_gives_the_same_files(odenet, reproduce, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["table1", "--rows", "MLP", "--seeds", "1", "device=cpu"]
    assert reproduce(*words, "--out", "own")[0] == 0
    mine = starts(tmp_path)
    (tmp_path / "runs").rename(tmp_path / "before")
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = odenet("reproduce", *words, "--out", "theirs", *launcher, fakes=True, fresh=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(mine.values()) == [1]
    assert starts(tmp_path) == mine
    (record,) = (json.loads(path.read_text()) for path in tmp_path.glob("runs/cells/*/run.json"))
    (before,) = (json.loads(path.read_text()) for path in tmp_path.glob("before/cells/*/run.json"))
    assert record["pid"] != before["pid"]
    assert record["final"] == before["final"]

    def told(name):
        folder = tmp_path / name / "table1"
        whole = json.loads((folder / "quick.json").read_text())
        rows = [{**row, "data": None} for row in whole["rows"]]
        return sorted(path.name for path in folder.iterdir()), rows, whole["facts"], whole["partial"]

    assert told("own") == told("theirs")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("table1 --preset huge", "--preset=huge is not known"),
        ("table1 --rows Foo", "--rows=Foo is not known"),
        ("table1 trainer.epoch=1 --rows MLP --seeds 1", "Did you mean `trainer.epochs`?"),
        ("table1 model.widht=1 --rows no\xa0middle --seeds 1", "model.widht"),
    ],
)
def test_what_is_refused_leaves_nothing(reproduce, tmp_path, words, reason):
    with pytest.raises(RequestError) as refused:
        reproduce(*[word.replace("\xa0", " ") for word in words.split(" ")], "device=cpu")
    assert reason in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_refusal_ends_in_exit_code_two(odenet, tmp_path):
    done = odenet("reproduce", "table1", "--seeds", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: seeds=0 must be a whole number from 1 to 1,000.\n"
    assert not list(tmp_path.iterdir())


def test_alone_it_prints_its_help(reproduce):
    code, out = reproduce()
    assert code == 2
    text = " ".join(out.split())
    assert "ITEM is one of budget, fig3, " in text
    assert "table2, tolerance, or all." in text
    assert reproduce("--help") == (0, out)


def test_a_launcher_that_stops_leaves_the_table_to_what_is_done(reproduce, tmp_path, monkeypatch):
    """The launcher is given all words for Hydra, those that add a key too."""
    given = {}

    class Launcher:
        def launch(self, points, initial_job_idx):
            raise OSError("the queue is gone")

    def instantiate(plugins, hydra_context, task_function, config):
        given.update(config.hydra.launcher)
        return Launcher()

    monkeypatch.setattr(Plugins, "instantiate_launcher", instantiate)
    words = ("table1", "--rows", "MLP", "--seeds", "1", "device=cpu", "hydra/launcher=basic", "+hydra.launcher.own=3")
    code, out = reproduce(*words)
    assert code == 1
    assert given["own"] == 3
    assert "MLP, seed 0: not started\n" in out
    assert "- MLP, seed 0: not started\n" in (tmp_path / "results" / "table1" / "quick.md").read_text()


def test_a_partial_page_leaves_a_fuller_one_alone(reproduce, tmp_path, monkeypatch):
    """Two rows by `--rows` do not take the place of the whole table; where they are is printed."""
    monkeypatch.setattr(stages, "run_cells", lambda made, *_: dict.fromkeys(made.by_folder, "stopped"))
    page = tmp_path / "results" / "table1" / "quick.json"
    page.parent.mkdir(parents=True)
    page.write_text('{"rows": [{"cell": "other", "status": "done"}]}')
    words = ("table1", "--rows", "MLP", "--seeds", "1", "device=cpu")
    code, out = reproduce(*words)
    assert code == 1
    assert [path.name for path in page.parent.iterdir()] == ["quick.json"]
    assert "files in runs/partial/table1: quick.md, quick.csv, quick.json\n" in out
    assert (
        "results/table1/quick.md has cells that this page lacks and was not replaced: this page is partial: 1 of 2 "
        in out
    )
    assert "MLP" in (tmp_path / "runs" / "partial" / "table1" / "quick.md").read_text()
    reproduce(*words, "--overwrite")
    assert "other" not in page.read_text()


def test_keep_counts_the_cells_never_started(reproduce):
    """`--keep` gives a reason for each run that cannot be kept; the cells that never ran are a number."""
    folder = next(iter(plan("table1", "quick", 3, ("MLP",), ("device=cpu",)).by_folder))
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"status": "interrupted"}')
    code, out = reproduce("table1", "--rows", "MLP", "--seeds", "3", "device=cpu", "--keep")
    assert code == 0
    assert out.splitlines()[1:] == ["  left out: MLP, seed 0: not done: interrupted", "  not started: 2"]


def test_only_the_seeds_that_an_experiment_names_are_measured(reproduce, monkeypatch):
    """Figure 3 shows the training of every seed, and measures on the network of one."""
    made = plan("fig3", "quick", 3, (), ("device=cpu",))
    measured = []
    monkeypatch.setattr(error_control, "measure", lambda folder, options, say: measured.append(folder) or [])
    assert [cell.seed for cell in made.cells] == [0, 1, 2]
    assert stages.measure(made, {}) == {made.cells[0].folder: []}
    assert measured == [made.cells[0].folder]


@pytest.mark.parametrize(
    ("words", "shared"),
    [
        ("--jobs 2", 4),
        ("--jobs 2 device=auto", 4),
        ("--jobs 2 device=cuda", 4),
        ("--jobs 2 device=cuda:1", 0),
        ("--jobs 2 device=cpu", 0),
        ("--jobs 1", 0),
    ],
)
def test_gpus_are_shared_out_unless_it_is_said_which_to_use(monkeypatch, words, shared):
    monkeypatch.setattr(stages, "gpu_count", lambda: 4)
    assert stages.gpus(command.parse(["table1", *words.split()])) == shared


def test_a_cell_that_holds_another_run_is_refused(reproduce, tmp_path, monkeypatch):
    """A cell is not done because of the name of its folder."""
    (cell,) = plan("table1", "quick", 1, ["MLP"], ["device=cpu"]).cells
    config = complete(cell.config, gpu=False)
    config.model["hidden"] = 5
    (tmp_path / cell.folder).mkdir(parents=True)
    save(config, tmp_path / cell.folder, tied=True)
    record = {"status": "done", "final": {}, "data": {"used": "digits", "sha256": "aaaa"}}
    (tmp_path / cell.folder / "run.json").write_text(json.dumps(record))
    monkeypatch.setenv("ODENET_FAKE_SHA", "aaaa")
    with pytest.raises(RequestError, match=rf"{cell.folder} contains a different run(.|\n)*model\.hidden: 5 → 300"):
        reproduce("table1", "--rows", "MLP", "--seeds", "1", "device=cpu")
    assert not starts(tmp_path)
