"""Write a run's weights for other programs: odenet export RUN out=FILE.safetensors

Writes the run's weights as safetensors, under the names of the network's state dict; an existing file is replaced.
The best weights are those of the test score.

  odenet export runs/2026-11-23/171403-482113-odenet-dopri5 out=odenet.safetensors

In Python: model.load_state_dict(safetensors.torch.load_file("odenet.safetensors"))"""

from __future__ import annotations

from argparse import Namespace

from odenet_cli.commands import _common
from odenet_cli.errors import RequestError, is_disk_full
from odenet_cli.terminal import say_text

PARSER = _common.Parser(__name__, __doc__, run=True)
PARSER.add_argument("--out", metavar="FILE", type=_common.path, help="the file to write, NAME.safetensors")
_common.add_checkpoint(PARSER)


@PARSER.command
def main(request: Namespace) -> int:
    _common.check_out(request.out, ".safetensors")
    from odenet_cli.analysis.trained import weights_of_run
    from odenet_cli.reproduce.plan import digest
    from odenet_cli.training import weights

    config = _common.overridden(request.config, request.overrides)
    state = weights_of_run(request.folder, config, request.checkpoint)
    try:
        weights.save(request.out, state, config, digest(request.config))
    except OSError as error:
        if is_disk_full(error):
            raise
        raise RequestError(f"out={request.out} cannot be written: {error.strerror}.") from error
    numbers = sum(tensor.numel() for tensor in state["model"].values())
    say_text(f"{request.out}: {weights.which(state)} weights, step {state['step']}, {numbers:,} numbers")
    return 0
