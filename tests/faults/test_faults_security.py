"""Nothing in a config, a checkpoint or a data file runs code; no secret gets out; nobody else's file is overwritten."""

import json
import os
import pickle
import time
from pathlib import Path

import pytest
import torch
import yaml
from faults_kit import LONG, TINY, content

ROW = "9 security"
slow, numerics = pytest.mark.slow, pytest.mark.numerics
SHORT = ("train", *TINY, "trainer.epochs=1", "trainer.limit_batches=2")


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.fixture
def victim(odenet, tmp_path):
    """A run of two steps, to be tampered with."""
    assert odenet(*SHORT, "hydra.run.dir=run").code == 0
    return tmp_path / "run"


def pickled(path):
    payload = torch.load(path, weights_only=True)
    payload["content"]["extra"] = Bomb()
    torch.save(payload, path)


@numerics
def test_a_pickle_in_a_checkpoint_does_not_run(odenet, tmp_path, victim):
    """A checkpoint with a pickle that makes a folder: every command that reads one refuses it, exit 2, no folder."""
    for path in (victim / "checkpoints").glob("*.pt"):
        pickled(path)
    record = json.loads((victim / "run.json").read_text())
    record |= {"status": "failed", "failed": {"split": "train", "step": 1}}
    (victim / "run.json").write_text(json.dumps(record))
    for words in (
        ["train", "resume=run", "trainer.epochs=5"],
        ["eval", "run"],
        ["rerun", "run"],
        [*SHORT, "checkpoint=run/checkpoints/last.pt"],
    ):
        done = odenet(*words)
        assert done.code == 2, (words, done)
        assert ".pt" in done.err
        assert not (tmp_path / "exploded").exists(), words


PLANTED = {
    "model._target_": "os.mkdir",
    "trainer._target_": "os.mkdir",
    "data.x._target_": "os.mkdir",
    "hydra.callbacks.x._target_": "os.mkdir",
    "hydra.launcher._target_": "os.mkdir",
    "hydra.job_logging.handlers.x.()": "os.mkdir",
    "hydra.job_logging.handlers.x.class": "os.mkdir",
    "model.target": "os:mkdir",
    "model.field": "os:mkdir",
}


def planted(path, key, value):
    loaded = yaml.safe_load(path.read_text())
    place = loaded
    *sections, last = key.split(".")
    for section in sections:
        place = place.setdefault(section, {})
    place[last] = value
    if key == "model.target":
        loaded["model"] = {"name": "custom", "target": value, "path": "exploded"}
    path.write_text(yaml.safe_dump(loaded, sort_keys=False))


@numerics
def test_a_class_path_in_a_saved_config_runs_nothing(odenet, tmp_path, victim):
    """_target_, a handler's class or model.target planted in a saved config: exit 2 naming it, nothing runs."""
    config = victim / "config.yaml"
    sound = config.read_text()
    for key, value in PLANTED.items():
        config.write_text(sound)
        planted(config, key, value)
        for words in (["train", "--config-dir", "run", "--config-name", "config"], ["eval", "run"]):
            if key.startswith("hydra") and words[0] == "eval":
                continue  # it reads nothing of Hydra's
            done = odenet(*words)
            assert done.code == 2, (key, words, done)
            assert "target" in done.err or key.rpartition(".")[2] in done.err or "data.x is not" in done.err
            assert not (tmp_path / "exploded").exists()


@numerics
def test_a_class_path_on_the_command_line_is_refused(odenet, tmp_path):
    """_target_ anywhere in the words: exit 2 naming it."""
    for word in (
        "+model._target_=os.mkdir",
        "+hydra.callbacks.x._target_=os.mkdir",
        "hydra.launcher._target_=os.mkdir",
    ):
        done = odenet(*SHORT, word)
        assert done.code == 2
        assert "_target_" in done.err
    assert list(tmp_path.iterdir()) == []


def bomb():
    """A few lines that stand for 10^9 values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    return "\n".join(lines) + "\n"


EVIL = {
    "a tag": ("seed: !!python/object/apply:os.mkdir [exploded]\n", "!!python/object/apply:os.mkdir"),
    "an alias bomb": (bomb(), "anchors"),
    "an alias of itself": ("seed: &a [*a]\n", "*a"),
    "a deep nest": ("seed: " + "[" * 500 + "]" * 500 + "\n", "levels"),
    "an endless file": ("seed: 1\n#" + "x" * (2 << 20), "1,048,576 bytes"),
    "no YAML": ("seed: [1\n", "is not valid YAML"),
}


@numerics
def test_tags_and_alias_bombs_are_refused(odenet, tmp_path, victim, happened):
    """YAML tags, alias bombs, deep nests and endless files as a saved config: exit 2 naming file and line, within
    seconds and with little memory, by every way that reads one."""
    config, sound, slowest = victim / "config.yaml", (victim / "config.yaml").read_text(), 0.0
    for name, (text, says) in EVIL.items():
        config.write_text(sound.replace("seed: 0\n", "") + text)
        for words in (
            ["train", "--config-dir", "run", "--config-name", "config"],
            ["train", "resume=run"],
            ["eval", "run"],
            ["rerun", "run"],
        ):
            begun = time.monotonic()
            done = odenet(*words, limits={"RLIMIT_AS": 8 << 30, "RLIMIT_CPU": 30})
            slowest = max(slowest, time.monotonic() - begun)
            assert done.code == 2, (name, words, done)
            assert says in done.err, (name, words, done)
            assert "config.yaml" in done.err
    assert not (tmp_path / "exploded").exists()
    happened(f"{len(EVIL)} files, four commands each, {slowest:.1f} s at most")


OUTPUTS = ("metrics.jsonl", "run.json", "config.yaml", "train.log", "checkpoints/last.pt", "checkpoints/.last.pt.part")


@numerics
def test_links_do_not_lead_to_foreign_files(start, odenet, tmp_path):
    """An output of a run replaced by a link to somebody's file: exit 2 naming the link, the file is as it was."""
    child = start("train", *LONG, "hydra.run.dir=run")
    child.until_records(tmp_path / "run", 2)
    child.send(15)
    child.wait()
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name in OUTPUTS:
        path = tmp_path / "run" / name
        kept = path.read_bytes() if path.exists() else None
        path.unlink(missing_ok=True)
        path.symlink_to(precious)
        done = odenet("train", *LONG, "trainer.max_steps=5", "hydra.run.dir=run", "resume=auto")
        assert precious.read_text() == "mine", name
        assert done.code == 2, (name, done)
        assert name in done.err
        path.unlink()
        if kept is not None:
            path.write_bytes(kept)
    (tmp_path / "run" / "eval.jsonl").symlink_to(precious)
    odenet("eval", "run", "trainer.limit_batches=1")
    assert precious.read_text() == "mine"


@slow
def test_no_listening_socket(start, tmp_path):
    """A run that is under way listens on no socket."""
    child = start("train", *LONG, "hydra.run.dir=run")
    child.until_records(tmp_path / "run", 2)
    links = [os.readlink(path) for path in Path(f"/proc/{child.pid}/fd").iterdir() if path.is_symlink()]
    sockets = {link[8:-1] for link in links if link.startswith("socket:[")}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{child.pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            assert not (fields[3] == "0A" and fields[9] in sockets)


@slow
def test_no_secret_is_written_and_nothing_is_open_to_all(odenet, tmp_path):
    """A secret of the environment is in no file; no file is writable for everybody, whatever the umask."""
    secret = "hunter2-very-secret"
    words = ["train", "-m", *TINY, "seed=1,2", "trainer.epochs=1", "hydra.sweep.dir=out"]
    assert odenet(*words, umask=0, AWS_SECRET_ACCESS_KEY=secret, MY_TOKEN=secret).code == 0
    assert odenet(*SHORT, "optim.lr=1e30", "hydra.run.dir=failed", umask=0, MY_TOKEN=secret).code == 1
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if secret.encode() in path.read_bytes()] == []
    assert [path for path in [*files, *tmp_path.rglob("*/")] if path.stat().st_mode & 0o002] == []


@numerics
def test_an_evil_data_file_is_only_data(odenet, tmp_path):
    """A pickle under the name of a data file: exit 2, nothing runs."""
    raw = tmp_path / "root" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(pickle.dumps(Bomb()))
    before = content(raw)
    done = odenet("train", "data=mnist", "data.root=root", "model=mlp", "device=cpu")
    assert done.code == 2
    assert "magic number" in done.err
    assert content(raw) == before
    assert not (tmp_path / "exploded").exists()
