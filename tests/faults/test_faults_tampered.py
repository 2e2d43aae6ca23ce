"""What is right by its checksum may still be wrong: content of another kind, links and pipes in the place of files."""

import json
import os
import shutil

import pytest
import torch
from faults_kit import ODE, TINY, content, kept, records

from odenet_cli.training import checkpoint

ROW = "9 security"
SHORT = ("train", *TINY, "trainer.epochs=1", "trainer.limit_batches=2")
pytestmark = pytest.mark.numerics


@pytest.fixture
def victim(odenet, tmp_path):
    """A run of two steps, to be tampered with."""
    assert odenet(*SHORT, "hydra.run.dir=run").code == 0
    return tmp_path / "run"


def resealed(folder, change, name="last", alone=True):
    """The checkpoint `name` with other content and its right digest; where `alone`, there is none before it."""
    path, found = folder / "checkpoints" / f"{name}.pt", kept(folder, name)
    found = change(found) or found
    if alone:
        checkpoint.previous(path).unlink(missing_ok=True)
    torch.save({"format": 1, "sha256": checkpoint.digest(found), "content": found}, path)


def without(key):
    return lambda content: {name: value for name, value in content.items() if name != key}


def with_(**values):
    return lambda content: content | values


def first(content):
    return next(iter(content["model"]))


def reshaped(content):
    content["model"][first(content)] = torch.ones(2, 3)


def broken(content):
    content["model"][first(content)][0] = float("nan")


ANYWHERE = {
    "no weights": (without("model"), "model is missing"),
    "a list": (lambda _: [1, 2], "is not a checkpoint of odenet"),
    "another shape": (reshaped, "(2, 3)"),
    "NaN": (broken, "is NaN or infinite"),
    "no config": (with_(config=None), "config is a NoneType"),
    "a step in words": (with_(step="7"), "step is a str"),
}
TO_GO_ON = {
    "no optimiser": (without("optimizer"), "optimizer is missing"),
    "an empty optimiser": (with_(optimizer={}), "does not fit this run: KeyError"),
    "no generator": (without("generator"), "generator is missing"),
    "a short generator": (with_(generator=torch.zeros(3, dtype=torch.uint8)), "does not fit this run"),
    "an odd window": (with_(window={"sums": 3}), "does not fit this run"),
}


def test_a_checkpoint_of_wrong_content_is_refused(odenet, tmp_path, victim):
    """A checkpoint with a right digest and wrong content, and none before it: exit 2 naming file and fault, from all
    that read one; the folder stays as it was, byte for byte."""
    shutil.copytree(victim, tmp_path / "sound")
    for name, (change, says) in {**ANYWHERE, **TO_GO_ON}.items():
        shutil.rmtree(victim)
        shutil.copytree(tmp_path / "sound", victim)
        resealed(victim, change)
        asked = [(["train", "resume=run", "trainer.epochs=5"], "last.pt")]
        if name in ANYWHERE:
            resealed(victim, change, "best")
            asked += [(["eval", "run"], "best.pt"), ([*SHORT, "checkpoint=run/checkpoints/best.pt"], "best.pt")]
        before = content(victim)
        for words, file in asked:
            done = odenet(*words)
            assert done.code == 2, (name, words, done)
            assert file in done.err, (name, words, done)
            assert says in done.err, (name, words, done)
            assert content(victim) == before, (name, words)


def test_a_checkpoint_of_wrong_content_gives_way_to_the_one_before(odenet, tmp_path, victim):
    """The same with a sound one before it: that one is taken, with a warning that names file and fault, exit 0."""
    assert odenet("train", "resume=run", "trainer.epochs=2").code == 0
    for name in ("last", "best"):
        path = victim / "checkpoints" / f"{name}.pt"
        if not checkpoint.previous(path).exists():  # the second epoch was no better
            shutil.copy(path, checkpoint.previous(path))
    shutil.copytree(victim, tmp_path / "sound")
    for name in ("no weights", "another shape", "NaN", "no optimiser", "an odd window"):
        change, says = {**ANYWHERE, **TO_GO_ON}[name]
        shutil.rmtree(victim)
        shutil.copytree(tmp_path / "sound", victim)
        resealed(victim, change, alone=False)
        asked = [(["train", "resume=run", "trainer.epochs=3"], "last.pt", "Continuing from the checkpoint before it")]
        if name in ANYWHERE:
            resealed(victim, change, "best", alone=False)
            asked.insert(0, (["eval", "run"], "best.pt", "Using the checkpoint before it"))
        for words, file, so in asked:
            done = odenet(*words)
            assert done.code == 0, (name, words, done)
            assert all(part in done.err for part in (f"run/checkpoints/{file}", says, so)), (name, words, done)
        assert [record["step"] for record in records(victim) if record["split"] == "valid"] == [2, 4, 6]


def test_a_refused_resume_leaves_other_notes_too(odenet, tmp_path, victim):
    """Hydra's notes in a folder of another name, and a folder without them: a refusal leaves both as they were."""
    resealed(victim, reshaped)
    shutil.rmtree(victim / ".hydra")
    (victim / "train.log").unlink(missing_ok=True)
    before, folders = content(victim), sorted(path.name for path in victim.iterdir())
    for words in (["hydra.output_subdir=notes"], ["hydra.job.name=other"], []):
        assert odenet("train", "resume=run", "trainer.epochs=5", *words).code == 2
        assert content(victim) == before
        assert sorted(path.name for path in victim.iterdir()) == folders


def test_a_job_that_is_refused_in_a_sweep_is_left_as_it_was(odenet, tmp_path):
    """A sweep that goes on where one job's checkpoint is of no use and one's record is damaged: the folders of both,
    and of one that is done, stay as they were; the summary names each."""
    words = ["train", "-m", *SHORT[1:], "seed=1,2,3", "hydra.sweep.dir=out"]
    assert odenet(*words).code == 0
    done, odd, damaged = (tmp_path / "out" / f"{n}-seed={n + 1}" for n in range(3))
    resealed(odd, reshaped)
    (odd / "run.json").write_text((odd / "run.json").read_text().replace('"done"', '"interrupted"'))
    (damaged / "run.json").write_text("{")
    before = [content(folder) for folder in (done, odd, damaged)]
    again = odenet(*words, "resume=auto")
    assert again.code == 1, again
    assert "does not fit the model" in again.err
    assert [content(folder) for folder in (done, odd, damaged)] == before
    jobs = json.loads((tmp_path / "out" / "summary.json").read_text())["jobs"]
    assert [job["status"] for job in jobs] == ["done", "interrupted", "unreadable"]
    assert "run.json cannot be read" in jobs[2]["reason"]


def test_the_checkpoint_before_it_is_scored(odenet, victim):
    """best.pt damaged, or gone: the one before it is scored, with a warning where it is damaged; with none, exit 2."""
    best = victim / "checkpoints" / "best.pt"
    shutil.copy(best, checkpoint.previous(best))
    best.write_bytes(best.read_bytes()[:-40])
    done = odenet("eval", "run")
    assert done.code == 0, done
    assert "best.pt is not a valid checkpoint" in done.err
    assert "previous-best weights" in done.out
    best.unlink()
    done = odenet("eval", "run")
    assert (done.code, done.err) == (0, ""), done
    assert "previous-best weights" in done.out
    checkpoint.previous(best).write_bytes(b"")
    done = odenet("eval", "run")
    assert done.code == 2, done
    assert "no valid checkpoint" in done.err


EDITED = {"hidden: 4": ("hidden: 5", "model.hidden: 4"), "validation: 144": ("validation: 100", "data.validation: 144")}


def test_a_config_that_was_edited_is_refused(odenet, victim):
    """config.yaml says another model or other data than the checkpoint: exit 2 naming the key and both values."""
    config = victim / "config.yaml"
    sound = config.read_text()
    for before, (after, says) in EDITED.items():
        assert before in sound
        config.write_text(sound.replace(before, after))
        done = odenet("eval", "run")
        assert done.code == 2, (before, done)
        assert f"{says} in the checkpoint" in done.err


def test_a_pipe_and_a_device_are_no_checkpoints(odenet, tmp_path, victim):
    """A pipe or a device as checkpoint=, best.pt or last.pt: exit 2 naming it, at once."""
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "/dev/zero"):
        done = odenet(*SHORT, f"checkpoint={name}", timeout=60)
        assert done.code == 2, done
        assert "a device or a pipe" in done.err
    for name, words in (("best", ["eval", "run"]), ("last", ["eval", "run", "checkpoint=last"])):
        path = victim / "checkpoints" / f"{name}.pt"
        path.unlink()
        os.mkfifo(path)
        done = odenet(*words, timeout=60)
        assert done.code == 2, done
        assert f"{name}.pt is not a valid checkpoint: it is a device or a pipe" in done.err


def test_rows_are_not_written_through_a_link(odenet, tmp_path):
    """eval.jsonl, gradcheck.jsonl or a part of audit.json as a link: exit 2 naming it, before anything is computed."""
    assert odenet("train", *ODE, "hydra.run.dir=run").code == 0
    (tmp_path / "precious").write_text("mine")
    for name, command in (("eval.jsonl", "eval"), ("gradcheck.jsonl", "gradcheck"), (".audit.json.part", "audit")):
        (tmp_path / "run" / name).symlink_to(tmp_path / "precious")
        done = odenet(command, "run")
        assert done.code == 2, done
        assert f"run/{name} is a symbolic link" in done.err
        assert done.out == ""
        (tmp_path / "run" / name).unlink()
    assert (tmp_path / "precious").read_text() == "mine"


OWN = {
    "os:getcwd": "is not a class of networks",
    "builtins:dict": "is not a class of networks",
    "unfinished:Net": "SyntaxError",
    "raising:Net": "KeyError: 'a'",
    "leaving:Net": "it calls sys.exit(0)",
    "nets:Raising": "cannot be created: KeyError: 'b'",
    "nets:Leaving": "cannot be created: it calls sys.exit(0)",
    "nets:Silent": "the model has no forward",
}


def test_a_module_of_the_users_that_fails_is_named(odenet, tmp_path):
    """A class of one's own that is none, or whose module or constructor fails or leaves: exit 2 naming it and why."""
    (tmp_path / "unfinished.py").write_text("class Net(\n")
    (tmp_path / "raising.py").write_text("{}['a']\n")
    (tmp_path / "leaving.py").write_text("import sys\nsys.exit(0)\n")
    text = "import sys\nimport torch\nclass {}(torch.nn.Module):\n  def __init__(self, shape, classes):\n    {}\n"
    text += "  def forward(self, x):\n    return x\n"
    nets = (text.format("Raising", "{}['b']"), text.format("Leaving", "sys.exit(0)"))
    (tmp_path / "nets.py").write_text("".join(nets) + "class Silent(torch.nn.Module):\n  pass\n")
    words = [word for word in SHORT if not word.startswith("model")]
    for target, says in OWN.items():
        done = odenet(*words, "model=custom", f"model.target={target}")
        assert done.code == 2, (target, done)
        assert f"model.target={target}" in done.err
        assert says in done.err, (target, done)


LARGE = {
    "data=spirals model=latent_ode data.count=9223372036854775807": "data.count=9223372036854775807: this many traj",
    "data=spirals model=latent_ode data.test=100000000000": "data.test=100000000000: this many trajectories need",
    "data=poisson model=latent_poisson data.count=100000000000": "data.count=100000000000: this many sequences need",
    "device=cuda:128": "device=cuda:128 does not exist",
    "device=cuda:99999999999999999999": "device=cuda:99999999999999999999 does not exist",
}


@pytest.mark.parametrize("words", LARGE)
def test_what_is_too_large_is_refused(odenet, tmp_path, words):
    """More samples than memory holds, and a device far beyond those there are: exit 2 naming the key."""
    done = odenet("train", *words.split())
    assert done.code == 2, done
    assert LARGE[words] in done.err
    assert list(tmp_path.iterdir()) == []


def test_closed_and_full_streams(command, tmp_path):
    """`>&-`, `2>/dev/full` and `>/dev/full`: a run goes on to its end, and an error keeps its exit code."""
    import shlex
    import subprocess
    import sys

    from faults_kit import environment

    def shell(words, end):
        line = f"{shlex.quote(sys.executable)} -m odenet_cli {shlex.join(words)} {end}"
        env = {**environment(tmp_path, {}), "PYTHONSAFEPATH": "1"}
        return subprocess.run(["bash", "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True)

    done = shell([*SHORT, "hydra.run.dir=run"], ">&-")
    assert (done.returncode, done.stderr) == (0, "")
    assert kept(tmp_path / "run")["step"] == 2
    assert shell(["eval", "nowhere"], "2>/dev/full").returncode == 2
    assert shell(["eval", "nowhere"], ">&- 2>&-").returncode == 2
    done = shell(["--help"], ">/dev/full")
    assert done.returncode == 1
    assert "no space left" in done.stderr
    assert len(done.stderr.splitlines()) == 2
