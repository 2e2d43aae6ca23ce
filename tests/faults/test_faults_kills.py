"""A run that is killed goes on to the same bits; a checkpoint is whole, or refused by name."""

import random
import shutil
import time

import pytest
import torch
from faults_kit import (
    MOMENTS,
    RHYTHM,
    TINY,
    bare,
    board,
    content,
    die_in_checkpoint,
    environment,
    faults,
    kept,
    records,
    same_bits,
    tiny_mnist,
)

ROW = "2 exact resume"
TRAIN = ("train", *TINY, *RHYTHM)
STEPS, WRITES = 90, 34  # of this run; a write every 3 steps, after every epoch, and of the best weights
slow, numerics = pytest.mark.slow, pytest.mark.numerics


@pytest.fixture(scope="module")
def whole(fork_server, tmp_path_factory):
    """The run that nothing happens to, and the seconds it takes."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    said = folder.parent / "said"
    request = {"cwd": str(folder.parent), "out": str(said), "err": str(said)}
    begun = time.perf_counter()
    argv = [*TRAIN, f"hydra.run.dir={folder}"]
    pid = fork_server.ask(argv=argv, env=environment(folder.parent, {}), **request)["pid"]
    assert fork_server.ask(wait=pid)["code"] == 0, said.read_text()
    assert records(folder)[-1]["step"] == STEPS
    return folder, time.perf_counter() - begun


def goes_on(odenet, folder, whole):
    done = odenet(*TRAIN, f"hydra.run.dir={folder}", "resume=auto")
    assert done.code == 0, done.err
    assert same_bits(folder, whole)
    assert board(folder) == board(whole)
    return True


def at_random(start, odenet, folder, whole, times, seed, happened):
    """Kill a little after a random record, so that the moments are spread over the steps and not over the start."""
    draw, before_first, after_last, last = random.Random(seed), 0, 0, len(records(whole[0]))
    for n in range(times):
        place = folder / f"{seed}-{n}"
        child = start(*TRAIN, f"hydra.run.dir={place}")
        child.until_records(place, draw.randrange(last))
        time.sleep(draw.random() * whole[1] / last)
        if child.alive:
            child.send(9)
        code = child.wait().code
        before_first += not (place / "checkpoints" / "last.pt").exists()
        after_last += code == 0
        assert code in (0, -9)
        assert goes_on(odenet, place, whole[0])
    happened(f"{times} kills, {before_first} before the first checkpoint, {after_last} after the end; the same bits")


def in_writes(start, odenet, folder, whole, moments, happened):
    for n in moments:
        place = folder / f"write {n}"
        assert start(*TRAIN, f"hydra.run.dir={place}", before=faults(die_in_checkpoint.__name__, n)).wait().code == -9
        assert goes_on(odenet, place, whole[0])
    happened(f"killed at {len(moments)} moments of writing a checkpoint; the same bits")


@numerics
def test_one_kill_of_each_kind(start, odenet, tmp_path, whole, happened):
    """SIGKILL at a random moment, and while a checkpoint is being written: resume=auto ends with the same bits."""
    at_random(start, odenet, tmp_path, whole, 1, 1, happened)
    in_writes(start, odenet, tmp_path, whole, [MOMENTS * 9 + 2], happened)


@slow
def test_kills_at_random_moments(start, odenet, tmp_path, whole, request, happened):
    """SIGKILL at random moments of a run: resume=auto ends with the same metrics and weights, bit for bit."""
    at_random(start, odenet, tmp_path, whole, request.config.getoption("--kills"), 2, happened)


@slow
def test_kills_during_checkpoint_writes(start, odenet, tmp_path, whole, request, happened):
    """SIGKILL while a checkpoint is being written: resume=auto ends with the same metrics and weights, bit for bit."""
    count, draw = request.config.getoption("--kills"), random.Random(3)
    first = list(range(1, min(count, MOMENTS) + 1))  # all of the first write, then any
    later = [draw.randrange(MOMENTS + 1, 6 * WRITES) for _ in range(count - len(first))]
    in_writes(start, odenet, tmp_path, whole, first + later, happened)


@slow
def test_six_kills_in_a_row(start, odenet, tmp_path, whole):
    """SIGKILL six times in a row, every time a little later: resume=auto ends with the same bits."""
    place = tmp_path / "run"
    for n in range(6):
        child = start(*TRAIN, f"hydra.run.dir={place}", "resume=auto")
        child.until_records(place, 4 * (n + 1))
        child.send(9)
        assert child.wait().code == -9
    assert goes_on(odenet, place, whole[0])


@numerics
def test_a_finished_run_is_left_alone(odenet, tmp_path, whole):
    """resume=auto of a finished run: exit 0, and no number, weight or curve changes; without it: exit 2."""
    place = tmp_path / "run"
    shutil.copytree(whole[0], place)
    ours = ("train.log", "overrides.yaml", "hydra.yaml", "config.yaml")  # Hydra's notes of what was asked
    before, config = content(place, ours), (place / "config.yaml").read_bytes()
    assert odenet(*TRAIN, "hydra.run.dir=run", "resume=auto").code == 0
    assert content(place, ours) == before
    assert (place / "config.yaml").read_bytes() == config
    refused = odenet(*TRAIN, "hydra.run.dir=run")
    assert refused.code == 2
    assert "contains a finished run" in refused.err
    assert content(place, ours) == before


@slow
def test_a_moved_run_goes_on_and_longer(start, odenet, tmp_path, whole):
    """A run that was killed, moved to another place and resumed there ends with the same bits; then more epochs."""
    child = start(*TRAIN, "hydra.run.dir=here")
    child.until_records(tmp_path / "here", 9)
    child.send(9)
    child.wait()
    (tmp_path / "deep").mkdir()
    (tmp_path / "here").rename(tmp_path / "deep" / "there")
    assert odenet("train", "resume=deep/there").code == 0
    assert same_bits(tmp_path / "deep" / "there", whole[0])
    assert odenet("train", "resume=deep/there", "trainer.epochs=4").code == 0
    steps = [record["step"] for record in records(tmp_path / "deep" / "there") if record["split"] == "train"]
    assert steps == sorted(set(steps))
    assert steps[-1] == STEPS * 4 // 3


OTHERS = {
    "model.hidden=5": "model.hidden: 4 → 5",
    "model=resnet": "model.name: mlp → resnet",
    "data.crop=1": "data.crop: 2 → 1",
    "optim.lr=0.1": "optim.lr: 0.3 → 0.1",
}


@pytest.mark.parametrize(
    "word", [pytest.param(word, marks=numerics if word == "model.hidden=5" else slow) for word in OTHERS]
)
def test_another_config_is_refused(odenet, tmp_path, whole, word):
    """Resuming with another model, width, data or learning rate: exit 2 naming the field, nothing changed."""
    place, key = tmp_path / "run", word.partition("=")[0]
    shutil.copytree(whole[0], place)
    (place / "run.json").write_text((place / "run.json").read_text().replace('"done"', '"failed"'))
    before = content(place)
    rest = [part for part in TRAIN if not part.startswith(key)]
    refused = odenet(*rest, word, "hydra.run.dir=run", "resume=auto")
    assert refused.code == 2
    assert OTHERS[word] in refused.err
    assert content(place) == before


@slow
def test_other_data_are_refused(odenet, tmp_path):
    """Resuming on other data of the same name: exit 2 naming the file whose SHA-256 differs."""
    raw = tiny_mnist(tmp_path / "root")
    words = ["train", "data=mnist", "data.root=root", "data.validation=10", "device=cpu", "model=mlp", "model.hidden=4"]
    words += ["trainer.batch_size=5", "trainer.epochs=4", "hydra.run.dir=run"]
    assert odenet(*words, "trainer.max_steps=3").code == 0
    path = raw / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\7")
    refused = odenet(*words, "resume=auto")
    assert refused.code == 2
    assert "the SHA-256 of train-images-idx3-ubyte differs" in refused.err


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param("a flipped bit", marks=numerics),
        pytest.param("cut", marks=slow),
        pytest.param("empty", marks=slow),
    ],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(start, odenet, tmp_path, whole, damage, happened):
    """A damaged last.pt is named, the checkpoint before it is used, and the run ends with the same bits."""
    place = tmp_path / "run"
    child = start(*TRAIN, "hydra.run.dir=run")
    child.until_records(place, 9)
    child.send(9)
    child.wait()
    path = place / "checkpoints" / "last.pt"
    good = path.read_bytes()
    numbers = good.index(kept(place)["model"]["layers.1.weight"].numpy().tobytes())
    flipped = good[:numbers] + bytes([good[numbers] ^ 1]) + good[numbers + 1 :]
    path.write_bytes({"a flipped bit": flipped, "cut": good[: len(good) // 2], "empty": b""}[damage])
    done = odenet(*TRAIN, "hydra.run.dir=run", "resume=auto")
    assert done.code == 0, done.err
    assert "last.pt" in done.err
    assert "Continuing from the checkpoint before it" in done.err
    assert bare(place) == bare(whole[0])
    assert torch.equal(kept(place)["model"]["layers.1.weight"], kept(whole[0])["model"]["layers.1.weight"])
    happened(done.err.splitlines()[0].replace(str(tmp_path), "").replace("warning: ", "").replace("WARNING: ", ""))


@numerics
def test_two_damaged_checkpoints_are_refused(odenet, tmp_path, whole):
    """Both checkpoints damaged: exit 2 naming the file, and nothing of the run is touched."""
    place = tmp_path / "run"
    shutil.copytree(whole[0], place)
    for name in ("last.pt", "previous-last.pt"):
        (place / "checkpoints" / name).write_bytes(b"PK")
    before = content(place)
    refused = odenet(*TRAIN, "hydra.run.dir=run", "resume=auto", "trainer.epochs=5")
    assert refused.code == 2
    assert "There is no valid checkpoint to continue from" in refused.err
    assert content(place) == before


@slow
def test_a_network_with_dropout_goes_on(start, odenet, tmp_path):
    """A network that draws random numbers of torch, NumPy and Python: a kill, then resume=auto, the same bits."""
    (tmp_path / "nets.py").write_text(
        "import random\nimport numpy\nimport torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "  def __init__(self, shape, classes):\n    super().__init__()\n    self.part = nn.Linear(784, classes)\n"
        "  def forward(self, x):\n    x = nn.functional.dropout(x.flatten(1), 0.5, self.training)\n"
        "    return self.part(x) * (1 + 0.1 * self.training * (random.random() + numpy.random.rand()))\n"
    )
    words = [word for word in TRAIN if not word.startswith("model")] + ["model=custom", "model.target=nets:Net"]
    assert odenet(*words, "hydra.run.dir=whole").code == 0
    child = start(*words, "hydra.run.dir=run")
    child.until_records(tmp_path / "run", 6)
    child.send(9)
    assert child.wait().code == -9
    assert odenet(*words, "hydra.run.dir=run", "resume=auto").code == 0
    assert same_bits(tmp_path / "run", tmp_path / "whole")


@numerics
def test_a_second_process_is_refused(start, odenet, tmp_path):
    """A folder in use: exit 2 naming it, and the run that is there goes on to its end."""
    child = start(*TRAIN, "trainer.epochs=2000", "hydra.run.dir=run")
    child.until_records(tmp_path / "run", 2)
    refused = odenet(*TRAIN, "trainer.epochs=2000", "hydra.run.dir=run", "resume=auto")
    assert refused.code == 2
    assert "run is in use by process " in refused.err
    assert child.alive
    size = (tmp_path / "run" / "metrics.jsonl").stat().st_size
    child.until(lambda: (tmp_path / "run" / "metrics.jsonl").stat().st_size > size)
