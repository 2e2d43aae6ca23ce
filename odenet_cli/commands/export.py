"""Write a run's weights for other programs: odenet export RUN out=FILE.safetensors"""

from __future__ import annotations

import os
from pathlib import Path

from odenet_cli.commands._points import choice, files, own_class, product, read
from odenet_cli.config.saved import load
from odenet_cli.errors import RequestError, full

HELP = """usage: odenet export RUN out=FILE.safetensors [key=value ...]

Writes the run's weights as safetensors, under the names of the network's state dict; a file that is there is replaced.

  odenet export runs/2026-11-23/171403-482113-odenet-dopri5 out=odenet.safetensors

  out=FILE               ends with .safetensors
  checkpoint=best|last   best: those that the test score belongs to
  model.target=package.module:Class   to be said again where the run has a class of your own

In Python: model.load_state_dict(safetensors.torch.load_file("odenet.safetensors"))"""
KEYS = ("out", "checkpoint", "model.target")


def main(argv: list[str]) -> int:
    """Read the weights of the run and write them."""
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP)
        return 0 if argv else 2
    folder = Path(os.path.expanduser(argv[0]))
    run = load(folder)
    named, words = files(argv[1:], ("out",))
    said = read(words, KEYS, several=())
    which, path = choice(said, "checkpoint", ("best", "last")), _checked(named.get("out"))
    own_class(run, said)

    from odenet_cli.analysis.trained import weights_of_run
    from odenet_cli.reproduce.plan import digest
    from odenet_cli.request.points import altered
    from odenet_cli.training import weights

    (changes,) = product(said)
    config = altered(run, changes)
    state = weights_of_run(folder, config, which)
    try:
        weights.save(path, state, config, digest(run))
    except OSError as error:
        if full(error):
            raise
        raise RequestError(f"out={path} cannot be written: {error.strerror}.") from error
    numbers = sum(tensor.numel() for tensor in state["model"].values())
    print(f"{path}: {weights.which(state)} weights, step {state['step']}, {numbers:,} numbers")
    return 0


def _checked(path: Path | None) -> Path:
    if path is None:
        raise RequestError("no file given: say out=FILE.safetensors.")
    if path.suffix != ".safetensors":
        raise RequestError(f"out={path} must end with .safetensors, the format that is written.")
    if not path.parent.is_dir():
        raise RequestError(f"out={path}: there is no folder {path.parent}.")
    if path.is_dir():
        raise RequestError(f"out={path} is a folder.")
    return path
