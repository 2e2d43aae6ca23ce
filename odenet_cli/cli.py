"""`odenet <command> …`: finds the command, and turns what goes wrong into a few plain lines and an exit code.

A command is a module of `odenet_cli/commands` whose name has no underscore in front, with `main(argv) -> int` and a
docstring whose first line is its summary. Nothing heavy, and no command, is imported here: help answers at once.
"""

from __future__ import annotations

import ast
import importlib
import logging
import os
import re
import signal
import sys
from pathlib import Path
from types import FrameType

from odenet_cli import __version__, collector, streams, threads
from odenet_cli.errors import (
    SIGNAL_CODES,
    Interrupted,
    OdenetError,
    RequestError,
    describe_disk_full,
    describe_external,
    is_disk_full,
    message_of,
)

COMMANDS = Path(__file__).resolve().parent / "commands"
MAX_LINES = 12
MAX_NAME, MAX_LINE, SHOWN = 256, 1_000, 60  # characters
SIGNALS: dict[int, int] = {getattr(signal, name): code for name, code in SIGNAL_CODES.items()}


def main() -> int:
    """Run the command line in `sys.argv`; the exit code is 0, 1, 2, 130 or 143 (see `errors`)."""
    interrupted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        interrupted.append(number)
        raise KeyboardInterrupt

    words = sys.argv[1:]  # Hydra is given others
    collector.relax()
    threads.wait_passively()
    streams.secure()
    if logging.lastResort is not None:  # prints the warnings of commands that configure no logging
        logging.lastResort.setFormatter(streams.WrappedWarning())
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # which is how nohup asks
            signal.signal(number, note)
    os.umask(os.umask(0o077) | 0o002)  # whatever was set: no file of ours is writable for everybody
    try:
        return dispatch(words) or printed()
    except Interrupted as stop:
        return report(stop, str(stop) or "interrupted", stop.code)
    except KeyboardInterrupt as stop:
        return report(stop, "interrupted", SIGNALS[interrupted[-1]] if interrupted else 130)
    except Exception as error:
        if interrupted:  # what an interrupted import raises may be anything
            return report(error, "interrupted", SIGNALS[interrupted[-1]])
        if isinstance(error, OdenetError):
            return report(error, f"error: {error}", error.code)
        text = describe_external(error)
        if text is not None:
            return report(error, f"error: odenet {' '.join(words[:1])}: {text}", 1)
        text = f"error: {message_of(error)}\n  This is unexpected. ODENET_DEBUG=1 shows the traceback."
        return report(error, text, 1)
    finally:
        collector.end()


def printed() -> int:
    """Return the exit code of a successful command that printed its result: 1 if output was lost."""
    lost = streams.unprinted()
    if lost is None:
        return 0
    words = describe_disk_full(lost) if is_disk_full(lost) else f"{lost.strerror}."
    return report(lost, f"error: not all of the output could be written: {words}\n  Redirect it elsewhere.", 1)


def dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help") or argv == ["help"]:
        print(overview())
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"odenet {__version__}")
        return 0

    command, rest = argv[0], argv[1:]
    if command == "-sc":  # of a shell
        command, rest = "_completion", argv
    elif command not in commands():
        from odenet_cli.registry import nearest

        near = nearest(command, commands())
        raise RequestError(f"odenet {command}: no such command.{near}\n  Available: {', '.join(commands())}.")
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise RequestError("the working directory no longer exists. Change to one that does (cd).") from error
    return int(importlib.import_module(f"odenet_cli.commands.{command}").main(rest))


def commands() -> list[str]:
    """Return the names of the commands: the public modules of `odenet_cli/commands`."""
    return sorted(path.stem for path in COMMANDS.glob("*.py") if not path.stem.startswith("_"))


def overview() -> str:
    """Return what `odenet --help` prints."""
    lines = ["usage: odenet COMMAND ...", "", "Neural Ordinary Differential Equations (Chen et al. 2018).", ""]
    for name in commands():
        docstring = ast.get_docstring(ast.parse((COMMANDS / f"{name}.py").read_text(encoding="utf-8"))) or ""
        lines.append(streams.hanging(f"  {name:<9} ", docstring.partition(chr(10))[0]))
    lines += ["", streams.hanging("", "`odenet COMMAND --help` describes a command, `odenet help KEY` a key.")]
    lines += ["A first run: odenet train model=odenet solver=dopri5 data=digits"]
    return "\n".join(lines)


def report(error: BaseException, text: str, code: int) -> int:
    """Print `text`, at most 12 lines; the traceback comes before it where ODENET_DEBUG=1 asks for it."""
    # What is longer than any file's name, or path, was not meant: it is cut.
    text = re.sub(rf"[^\s/]{{{MAX_NAME},}}", lambda match: f"{match[0][:SHOWN]}…", text)
    lines = [line[:MAX_LINE] for line in text.splitlines()]
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], f"  … {len(lines) - MAX_LINES + 1} more lines."]
    if os.environ.get("ODENET_DEBUG") == "1":
        import traceback

        traceback.print_exception(type(error), error, error.__traceback__)
    sys.stdout.flush()
    text = "\n".join(lines)
    print(streams.wrapped_text(text) if sys.stderr.isatty() else text, file=sys.stderr, flush=True)
    return code
