"""The words behind `odenet train`: Hydra's flags, and overrides made safe for Hydra's grammar."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Quote, QuotedString

from odenet_cli.errors import RequestError

PATHS = ("data.root", "data.path", "resume", "checkpoint", "name", "hydra.run.dir", "hydra.sweep.dir")
WORD = r"""(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")"""  # quoted from end to end
SWITCHES = ("help", "hydra_help", "resolve", "run", "multirun", "shell_completion")
SETTINGS = ("cfg", "package", "config_path", "config_name", "config_dir", "info")


def parse(argv: Iterable[str]) -> argparse.Namespace:
    """Flags and overrides, in any order; path-like values are quoted."""
    words: list[str] = []
    for word in argv:
        if words and words[-1] in ("--info", "-i") and "=" in word:
            words.append("all")  # argparse would take the override for --info's optional value
        words.append(word)

    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    args = parser.parse_intermixed_args(words)
    if args.experimental_rerun is not None:
        raise RequestError("--experimental-rerun would load a pickle, which can run code. Use --config-dir RUN.")
    args.overrides = [quoted(override) for override in args.overrides]
    return args


def _refuse(message: str) -> NoReturn:
    raise RequestError(f"{message}.\n  Say key=value; `odenet train --help` shows what there is.")


def words(args: argparse.Namespace, overrides: Iterable[str]) -> list[str]:
    """The command line that says `args` with these overrides."""
    switches = [f"--{name.replace('_', '-')}" for name in SWITCHES if getattr(args, name)]
    settings = [
        f"--{name.replace('_', '-')}={getattr(args, name)}" for name in SETTINGS if getattr(args, name) is not None
    ]
    return [*switches, *settings, *overrides]


def quoted(override: str) -> str:
    """An override whose path-like value Hydra's grammar takes as one word: spaces, commas, brackets, `=` and all.

    A leading `~` is the home folder. Values that are quoted already, null, or a `choice(…)` to sweep stay.
    """
    key, equals, value = override.partition("=")
    if not equals or key.lstrip("+") not in PATHS or value in ("", "null"):
        return override
    if re.fullmatch(rf"{WORD}(\s*,\s*{WORD})*|(choice|sort|shuffle)\(.*\)", value, re.DOTALL):
        return override
    if key.lstrip("+") != "name":
        value = os.path.expanduser(value)
    return f"{key}={quote(value)}"


def quote(value: str) -> str:
    """`value` as a single-quoted word of Hydra's grammar."""
    return QuotedString(text=value, quote=Quote.single).with_quotes()
