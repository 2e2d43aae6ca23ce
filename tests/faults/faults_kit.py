"""What the fault tests share: the smallest runs, how to break one, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
import struct
from pathlib import Path

import torch

import odenet_cli

TINY = ["data=digits", "device=cpu", "model=mlp", "model.hidden=4", "trainer.limit_batches=30", "trainer.epochs=3"]
RHYTHM = ["trainer.log_every=4", "trainer.checkpoint_every=3", "optim.lr=0.3"]
LONG = [*TINY[:-2], "trainer.epochs=2000", *RHYTHM]  # minutes, to be stopped
ODE = ["data=digits", "device=cpu", "model=odenet", "model.width=4", "trainer.limit_batches=3", "trainer.epochs=1"]
ROOT = Path(odenet_cli.__file__).parent.parent
KEEP = ("PATH", "LANG", "TMPDIR", "VIRTUAL_ENV")
CLOCK = ("step_ms", "epoch_s", "peak_mib")


def environment(home, environ):
    env = {name: os.environ[name] for name in KEEP if name in os.environ}
    env |= {"PYTHONPATH": str(ROOT), "HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    return env | environ


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def bare(folder):
    """The records without what a clock measured."""
    return [
        {key: value for key, value in record.items() if key not in CLOCK and not key.startswith("time_")}
        for record in records(folder)
    ]


def run_json(folder):
    return json.loads((folder / "run.json").read_text())


def kept(folder, name="last"):
    return torch.load(folder / "checkpoints" / f"{name}.pt", weights_only=True)["content"]


def same_bits(a, b):
    """Two runs agree in every record, in their weights, and in their generators."""
    assert bare(a) == bare(b)
    for name in ("last", "best"):
        x, y = kept(a, name)["model"], kept(b, name)["model"]
        assert x.keys() == y.keys()
        assert all(torch.equal(x[key], y[key]) for key in x)
    assert torch.equal(kept(a)["generator"], kept(b)["generator"])
    finals = [{k: v for k, v in run_json(folder)["final"].items() if not k.startswith("time")} for folder in (a, b)]
    assert finals[0] == finals[1]
    return True


def board(folder):
    """The steps that TensorBoard shows of the training loss."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return [event.step for event in accumulator.Scalars("loss/train")]


def content(folder, but=()):
    """Every file of a folder with its bytes."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name not in but}


def tiny_mnist(root):
    """ROOT/MNIST/raw with 60 + 20 images."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 60), ("t10k", 20)):
        pixels = torch.randint(256, (count * 784,), generator=torch.Generator().manual_seed(count), dtype=torch.uint8)
        header = struct.pack(">4I", 0x803, count, 28, 28)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + bytes(pixels.tolist()))
        labels = bytes(n % 10 for n in range(count))
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, count) + labels)
    return raw


# What a child of the fork server does to itself before it becomes `odenet`, said as `before=faults(…)`.


def faults(name, *arguments):
    """Python that calls the function `name` of this module."""
    return f"import faults_kit; faults_kit.{name}{arguments!r}"


def die_in_checkpoint(moment):
    """SIGKILL at the n-th thing that is done to a checkpoint's file: opened, half written, written, synced, renamed."""
    from odenet_cli.training import checkpoint

    left = [moment]

    def tick():
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    class Slow:
        def __init__(self, path, mode):
            tick()
            self.file = open(path, mode, buffering=0)  # noqa: SIM115

        def write(self, data):
            half = len(data) // 2
            self.file.write(data[:half])
            tick()
            self.file.write(data[half:])
            tick()

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def flush(self):
            pass

        def fileno(self):
            return self.file.fileno()

    def around(real, counts):
        def call(*arguments):
            real(*arguments)
            if counts(arguments):
                tick()

        return call

    checkpoint.open = Slow
    os.fsync = around(os.fsync, lambda _: True)
    os.replace = around(os.replace, lambda paths: str(paths[1]).endswith(".pt"))


MOMENTS = 7  # of one write that `die_in_checkpoint` counts, the first ones being shorter


def poison(what, step):
    """The `step`-th training step meets a NaN in its loss, its field, or its backward pass."""
    import torch.nn.functional as F

    from odenet_cli.models.common import blocks

    class Backward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, slope):
            return slope * float("nan")

    seen, real = [0], F.cross_entropy

    def loss(*arguments, **named):
        value = real(*arguments, **named)
        if torch.is_grad_enabled():
            seen[0] += 1
            if seen[0] == step:
                return Backward.apply(value) if what == "backward" else value * float(what)
        return value

    if what != "field":
        F.cross_entropy = loss
        return
    block, field = blocks.ODEBlock.forward, blocks.ConvField.forward

    def counted(self, x):
        seen[0] += torch.is_grad_enabled()
        return block(self, x)

    def slope(self, t, x):
        return field(self, t, x) * (float("nan") if seen[0] == step else 1.0)

    blocks.ODEBlock.forward, blocks.ConvField.forward = counted, slope


def no_room(where, after):
    """The disk is full from the `after`-th write to a file whose name holds `where`."""
    import builtins
    import errno
    import io

    import tensorboard.compat.tensorflow_stub.io.gfile as gfile

    left = [after]

    def full(name):
        if where in str(name):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(name))

    real, write = builtins.open, gfile.GFile.write

    def opened(path, *arguments, **named):
        full(path)
        return real(path, *arguments, **named)

    def written(self, data):
        full(self.filename)
        return write(self, data)

    builtins.open = io.open = opened
    gfile.GFile.write = written


def hang(step):
    """The `step`-th training step does not end."""
    import time

    import torch.nn.functional as F

    seen, real = [0], F.cross_entropy

    def loss(*arguments, **named):
        seen[0] += torch.is_grad_enabled()
        while seen[0] == step:
            time.sleep(0.01)
        return real(*arguments, **named)

    F.cross_entropy = loss


def meet(place, number):
    """A request that was checked waits for the others: says `here<number>`, and goes on at `go`."""
    import time

    from odenet_cli.commands import train

    real = train.prepare

    def prepare(argv):
        request = real(argv)
        Path(place, f"here{number}").touch()
        while not Path(place, "go").exists():
            time.sleep(0.002)
        return request

    train.prepare = prepare


def obey_permissions():
    """Root reads and writes where the modes of files allow it, and nowhere else (capabilities(7): DAC_OVERRIDE, 1, and
    DAC_READ_SEARCH, 2)."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    assert libc.capget(header, sets) == 0
    sets[0], sets[1] = sets[0] & ~0b110, sets[1] & ~0b110
    assert libc.capset(header, sets) == 0


def leave_folder(path):
    """The working directory is deleted."""
    os.mkdir(path)
    os.chdir(path)
    os.rmdir(path)


def ignore_hangup():
    """What nohup does."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
