"""Stand-ins for training and data, so that a test of the command line takes no torch and no time.

On PYTHONPATH this is imported by every Python that starts, a launcher's processes included. `seed` chooses what happens
to a run: 7 fails, 8 meets a bug, 9 is interrupted. ODENET_FAKE_FAILS has more seeds that fail, ODENET_FAKE_SHA the
digest of the data.
"""

import json
import os
import sys
import types

run = types.ModuleType("odenet_cli.training.run")
checks = types.ModuleType("odenet_cli.training.check")
data = types.ModuleType("odenet_cli.data")


def check(config):
    from odenet_cli.errors import RequestError

    if config.model.get("width") == 13:
        raise RequestError("model.width=13 cannot be built.")


def train(config, folder, command, overrides, data_record, job=0, tied=True, draw=None):
    from odenet_cli.config.saved import save
    from odenet_cli.errors import Interrupted, RunFailed

    def write(status, reason=None, **final):
        record = {"status": status, "reason": reason, "final": final, "command": command, "data": data_record}
        (folder / "run.json").write_text(json.dumps(record | {"overrides": overrides, "pid": os.getpid()}))

    save(config, folder, tied)
    with open(folder / "starts", "a") as log:
        log.write("x")
    if str(config.seed) in ("7", *os.environ.get("ODENET_FAKE_FAILS", "").split(",")):
        write("failed", "the loss is not finite at step 3")
        raise RunFailed("the loss is not finite at step 3. Lower optim.lr.")
    if config.seed == 8:
        raise ValueError("a bug")
    if config.seed == 9:
        write("interrupted", "SIGINT")
        raise Interrupted("stopped at step 3", 130)
    write("done", error=0.1, nfe_forward=20.0, nfe_backward=26.0, saved_mib=1.5, epochs=config.trainer.epochs)


def resolve_auto(options):
    print("resolved")
    return "digits"


def prepare(name, options):
    from odenet_cli.errors import RequestError

    if options.get("root") == "/nowhere":
        raise RequestError("data.root=/nowhere does not exist.")
    sha = os.environ.get("ODENET_FAKE_SHA")
    return {"used": name, "options": options} | ({"sha256": sha} if sha else {})


checks.check, run.run = check, train
data.check, data.resolve_auto, data.prepare = lambda name, options: None, resolve_auto, prepare
data.check_batch = lambda batch_size, name, record: None
if os.environ.get("ODENET_FAKES") == "1":
    for module in (run, checks, data):
        sys.modules[module.__name__] = module
        package, _, name = module.__name__.rpartition(".")
        if package in sys.modules:  # a child of the fork server, which has imported the real ones
            setattr(sys.modules[package], name, module)
