"""The words behind `odenet train`: Hydra's flags, and overrides made safe for Hydra's grammar."""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Iterable
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Quote, QuotedString

from odenet_cli.config.schema import PATHS
from odenet_cli.errors import RequestError

QUOTED = (*PATHS, "resume", "name", "hydra.run.dir", "hydra.sweep.dir")  # values that are taken as they are
WORD = r"""(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")"""  # quoted from end to end
NOTHING = ("None", "none", "nil", "NONE")  # what other languages write for null
LONGEST = 255  # bytes of a file's name
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
    if args.config_path is not None:
        name = "" if args.config_name else " --config-name config"
        raise RequestError(
            f"--config-path={args.config_path} would take the place of all of odenet's presets.\n"
            f"  A folder beside them is --config-dir {args.config_path}; of a run, --config-dir RUN{name}."
        )
    if args.config_dir and not args.config_name and os.path.isfile(os.path.join(args.config_dir, "run.json")):
        raise RequestError(
            f"--config-dir {args.config_dir} is the folder of a run, and its configuration would not be read.\n"
            "  Add --config-name config to run it again."
        )
    for override in args.overrides:
        meant(formed(override))
        if args.multirun:
            one_path(override)
    args.overrides = [quoted(override) for override in args.overrides]
    return args


def meant(override: str) -> None:
    """Refuse to take a key away, and a `None` that means null."""
    key, _, value = override.partition("=")
    if key.startswith("~") and not key.startswith(("~hydra.", "~hydra/", "~experiment")):
        raise RequestError(
            f"{override}: nothing can be taken out of a configuration, every key of it has a value.\n"
            f"  For its default leave {key[1:]} out. Where a key may say nothing it is null: optim.clip=null."
        )
    key = key.lstrip("+")
    if key in ("resume", "name") or key.startswith("hydra"):
        return
    nothing = ("None",) if key.startswith("model.") else NOTHING
    if any(word.strip("[] ") in nothing for word in value.split(",")):
        raise RequestError(f"{override}: no value is written null here: {key}=null.")


def one_path(override: str) -> None:
    """Refuse a path with a comma in it that may have been meant as several, in a sweep."""
    key, _, value = override.partition("=")
    if "," not in value or key.lstrip("+") not in PATHS or _settled(value) or os.path.exists(os.path.expanduser(value)):
        return
    each = ",".join(quote(part.strip()) for part in value.split(","))
    word = f"{key}={each}"
    word = shlex.quote(word) if re.search(r'["$`\\!]', word) else f'"{word}"'
    raise RequestError(
        f"{override} is one path, with a comma in it, and there is no such file.\n"
        f"  To sweep over several, quote each of them: {word}"
    )


def _settled(value: str) -> bool:
    """Return whether a value is in Hydra's grammar as it is: quoted words, or a choice of them."""
    return bool(re.fullmatch(rf"{WORD}(\s*,\s*{WORD})*|(choice|sort|shuffle)\(.*\)", value, re.DOTALL))


def formed(override: str) -> str:
    """Return `override`, if it begins with a key; what Hydra makes of others has no name."""
    key = override.lstrip("+~").partition("=")[0]
    if not re.match(r"[^\W\d]|\$", key):
        raise RequestError(
            f"{override!r} is not of the form key=value: it does not begin with a key.\n"
            "  `odenet train --help` shows the keys."
        )
    if len(os.fsencode(key)) > LONGEST:  # Hydra would look for a file of this name
        raise RequestError(f"{key} is not a key of the configuration.")
    return override


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
    if not equals or key.lstrip("+") not in QUOTED or value in ("", "null") or _settled(value):
        return override
    if key.lstrip("+") != "name":
        value = os.path.expanduser(value)
    return f"{key}={quote(value)}"


def quote(value: str) -> str:
    """`value` as a single-quoted word of Hydra's grammar."""
    return QuotedString(text=value, quote=Quote.single).with_quotes()
