"""`odenet <command> …`: finds the command, and turns what goes wrong into a few plain lines and an exit code.

A command is a module of `odenet_cli/commands` with a one-line docstring and `main(argv) -> int`. Nothing else is
imported here, so that help answers at once.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TextIO

from odenet_cli import __version__, threads
from odenet_cli.errors import Interrupted, OdenetError, full, no_space

COMMANDS = Path(__file__).resolve().parent / "commands"
LINES = 12
SIGNALS: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143}


def main() -> int:
    """Run the command line in `sys.argv`; the exit code is 0, 1, 2, 130 or 143 (see `errors`)."""
    interrupted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        interrupted.append(number)
        raise KeyboardInterrupt

    threads.wait_passively()
    opened()
    for number in SIGNALS:
        signal.signal(number, note)
    os.umask(os.umask(0o077) | 0o002)  # whatever was set: no file of ours is writable for everybody
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a locale without é or × is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    try:
        code = dispatch(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone (`| head`); what is still buffered has nowhere to go.
        discard(sys.stdout)
        return 0
    except Interrupted as stop:
        return report(stop, str(stop) or "interrupted", stop.code)
    except KeyboardInterrupt as stop:
        return report(stop, "interrupted", SIGNALS[interrupted[-1]] if interrupted else 130)
    except Exception as error:
        if interrupted:  # what an interrupted import raises may be anything
            return report(error, "interrupted", SIGNALS[interrupted[-1]])
        if isinstance(error, OdenetError):
            return report(error, f"error: {error}", error.code)
        if full(error):
            return report(error, f"error: {no_space(error)}\n  Make room, and start it again.", 1)
        text = f"error: {type(error).__name__}: {error}\n  This was not expected. ODENET_DEBUG=1 shows the traceback."
        return report(error, text, 1)
    return code


def opened() -> None:
    """Lead a standard stream that was closed (`>&-`) to nowhere; else the next file to be opened would take its place.

    The lowest free descriptor is the one that was closed.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def dispatch(argv: list[str]) -> int:
    """Run one command."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"odenet {__version__}")
        return 0

    command, rest = argv[0], argv[1:]
    if command not in commands():
        from odenet_cli.registry import nearest

        known = ", ".join(commands())
        print(f"error: odenet {command}: no such command.{nearest(command, commands())}", file=sys.stderr)
        print(f"  There are: {known}.", file=sys.stderr)
        return 2
    return int(importlib.import_module(f"odenet_cli.commands.{command}").main(rest))


def commands() -> list[str]:
    """The names of the commands: the public modules of `odenet_cli/commands`."""
    return sorted(path.stem for path in COMMANDS.glob("*.py") if not path.stem.startswith("_"))


def overview() -> str:
    """What `odenet --help` prints."""
    lines = ["usage: odenet COMMAND ...", "", "Neural Ordinary Differential Equations (Chen et al. 2018).", ""]
    for name in commands():
        docstring = ast.get_docstring(ast.parse((COMMANDS / f"{name}.py").read_text(encoding="utf-8"))) or ""
        lines.append(f"  {name:<9} {docstring.partition(chr(10))[0]}")
    lines += ["", "`odenet COMMAND --help` says more. A first run: odenet train model=odenet solver=dopri5 data=digits"]
    return "\n".join(lines)


def report(error: BaseException, text: str, code: int) -> int:
    """Print `text`, at most 12 lines; the traceback comes before it where ODENET_DEBUG=1 asks for it."""
    lines = text.splitlines()
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], f"  … {len(lines) - LINES + 1} more lines."]
    try:
        if os.environ.get("ODENET_DEBUG") == "1":
            import traceback

            traceback.print_exception(type(error), error, error.__traceback__)
        print("\n".join(lines), file=sys.stderr, flush=True)
    except (OSError, ValueError):  # its reader has gone, its disk is full, it was closed: the exit code says it alone
        discard(sys.stderr)
    try:
        sys.stdout.flush()
    except (OSError, ValueError):  # Python would try once more at the end, and exit with a code of its own
        discard(sys.stdout)
    return code


def discard(stream: TextIO) -> None:
    """Lead what is still buffered to nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
