"""No room, no memory, no file handles: exit 1 saying so, the last checkpoint intact, and with room the run goes on."""

import os
import subprocess
from pathlib import Path

import pytest
from faults_kit import RHYTHM, TINY, faults, kept, run_json, same_bits

ROW = "8 resources"
slow, numerics = pytest.mark.slow, pytest.mark.numerics
TRAIN = ("train", *TINY, *RHYTHM)
PLACES = {  # the name of the file, and the write to it that fails
    "metrics.jsonl": ("metrics", 0),
    ".last.pt.part": ("a checkpoint", 4),
    ".best.pt.part": ("the best checkpoint", 0),
    "events.out": ("TensorBoard", 20),
    "config.yaml": ("the start", 0),
    ".run.json.part": ("run.json", 0),
}


@slow
def test_a_full_disk(odenet, tmp_path, happened):
    """No space at the start, in metrics, a checkpoint or TensorBoard: exit 1 saying so; the checkpoint before is
    intact; with room again, resume=auto ends with the bits of an undisturbed run."""
    assert odenet(*TRAIN, "hydra.run.dir=whole").code == 0
    said = []
    for number, (name, (what, after)) in enumerate(PLACES.items()):
        place = tmp_path / f"run {number}"
        done = odenet(*TRAIN, f"hydra.run.dir={place}", before=faults("no_room", name, after))
        assert done.code == 1, (name, done)
        assert "no space left" in done.err, (name, done)
        if what in ("a checkpoint", "TensorBoard"):
            assert kept(place)["step"] >= 1
        assert not list(place.rglob("*.part"))
        again = odenet(*TRAIN, f"hydra.run.dir={place}", "resume=auto")
        assert again.code == 0, (name, again)
        assert same_bits(place, tmp_path / "whole")
        said.append(what)
    happened("exit 1 in " + ", ".join(said))


@numerics
def test_a_limit_on_the_size_of_files(odenet, tmp_path, happened):
    """RLIMIT_FSIZE: exit 1 saying no space, and resumes without the limit."""
    done = odenet(*TRAIN, "hydra.run.dir=run", limits={"RLIMIT_FSIZE": 20_000})
    assert done.code == 1
    assert "no space left" in done.err
    assert odenet(*TRAIN, "hydra.run.dir=run", "resume=auto").code == 0
    assert run_json(tmp_path / "run")["status"] == "done"
    happened(done.err.splitlines()[0].removeprefix("error: ").replace(str(tmp_path), ""))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 KB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=800k", "none", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip("no right to mount a tmpfs here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize(
    "left", [pytest.param(left, marks=numerics if left == 60 else slow) for left in (0, 4, 60, 120, 180)]
)
def test_a_small_disk(odenet, tmp_path, small_disk, left, happened):
    """A disk with so many KB left: exit 1 saying no space, and resumes when there is room."""
    (small_disk / "filler").write_bytes(bytes((800 - left) << 10))
    done = odenet(*TRAIN, "trainer.epochs=40", "trainer.max_steps=300", f"hydra.run.dir={small_disk / 'run'}")
    assert done.code == 1, done
    assert "no space left" in done.err
    (small_disk / "filler").unlink()
    again = odenet(*TRAIN, "trainer.max_steps=90", f"hydra.run.dir={small_disk / 'run'}", "resume=auto")
    assert again.code in (0, 2), again
    if again.code == 2:  # it had not begun, or had other epochs: nothing of it stands in the way of a new one
        assert "epochs" in again.err
    happened(done.err.splitlines()[0].removeprefix("error: ").replace(str(tmp_path), ""))


@slow
def test_a_limit_on_memory(odenet, tmp_path, happened):
    """RLIMIT_AS: exit 1 with the peak, the batch size and what needs less."""
    words = ["train", "model=cnf", "data=moons", "device=cpu", "trainer.steps=2", "compile=false", "gradient=backprop"]
    done = odenet(*words, "trainer.batch_size=2000000", "hydra.run.dir=run", limits={"RLIMIT_AS": 8 << 30})
    assert done.code == 1
    for part in ("out of memory", "MiB", "trainer.batch_size=2000000", "replay, adjoint or reversible need less"):
        assert part in done.err
    assert run_json(tmp_path / "run")["status"] == "failed"
    happened(done.err.splitlines()[0].removeprefix("error: "))


@slow
def test_few_file_handles(odenet, tmp_path):
    """64 file handles are enough for a sweep of three runs."""
    done = odenet("train", "-m", *TINY, "seed=1,2,3", "hydra.sweep.dir=out", limits={"RLIMIT_NOFILE": 64})
    assert done.code == 0, done.err


@numerics
def test_a_folder_without_permission(odenet, tmp_path):
    """A folder that cannot be written: exit 2 naming it."""
    if os.geteuid() == 0:
        place = Path("/proc/self/fdinfo/x")
    else:
        (tmp_path / "closed").mkdir(mode=0o500)
        place = tmp_path / "closed" / "x"
    done = odenet(*TRAIN, f"hydra.run.dir={place}")
    assert done.code == 2
    assert str(place.parent) in done.err
