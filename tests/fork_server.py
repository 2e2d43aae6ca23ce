"""Start `odenet` quickly and often: a process that has imported everything, and forks a child for every command.

The children are processes of their own, to be killed and starved like any other; only the seconds of importing torch
are saved. Reads requests as lines of JSON, answers each with one line.
"""

import gc
import json
import os
import resource
import signal
import sys
import traceback

import torch
import torch.fx.experimental.symbolic_shapes  # by torch.autograd.grad, when it is first called
import torch.utils.tensorboard

import odenet_cli
from odenet_cli import cli
from odenet_cli.analysis import rerun as repeat  # noqa: F401
from odenet_cli.commands import rerun, train  # noqa: F401 - imported for the children
from odenet_cli.data import digits
from odenet_cli.report import pictures  # noqa: F401
from odenet_cli.request.compose import compose
from odenet_cli.training import run  # noqa: F401

WRITTEN = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOCTTY


def start(request):
    """The number of a new process that does what `request` says.

    argv, cwd, env, out, err   of the command
    limits                     {RLIMIT_…: bytes or number}
    umask                      of the process
    figures                    of a run are drawn at its end
    before                     Python that the child runs first: it breaks something at the right moment
    """
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setsid()
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        out, err = (os.open(request[name], WRITTEN, 0o644) for name in ("out", "err"))
        null = os.open(os.devnull, os.O_RDONLY)
        for old, new in ((null, 0), (out, 1), (err, 2)):
            os.dup2(old, new)
        os.closerange(3, 256)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode) for n, mode in ((0, "r"), (1, "w"), (2, "w")))
        os.umask(request.get("umask", 0o022))
        for name, value in request.get("limits", {}).items():
            resource.setrlimit(getattr(resource, name), (value, value))
        sys.argv = ["odenet", *request["argv"]]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the tests themselves run behind nohup
        if not request.get("figures"):
            train._draw = lambda folder: []
        exec(request.get("before", ""), {"__name__": "before"})
        code = cli.main()
        sys.stdout.flush()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 71  # what `cli.main` let through
    finally:
        os._exit(code)


def main():
    torch.set_num_threads(1)
    # All commands here train on the same digits, and to read and enlarge them takes most of a second.
    small = digits.load_small()
    large = digits.enlarge(small[0])
    digits.load_small, digits.enlarge = lambda: small, lambda _: large
    compose([])  # Hydra looks for its plugins once
    gc.freeze()  # a collection in a child would write to, and so copy, every page that it shares with this process
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps({"package": odenet_cli.__file__}), file=channel, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            answer = {"code": os.waitstatus_to_exitcode(status)}
        else:
            answer = {"pid": start(request)}
        print(json.dumps(answer), file=channel, flush=True)


if __name__ == "__main__":
    main()
