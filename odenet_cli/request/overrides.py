"""Parse a command line: Hydra's flags, and overrides with one or several values, quoted for Hydra's grammar."""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, RangeSweep, ValueType
from omegaconf import OmegaConf

from odenet_cli.config.check import check
from odenet_cli.config.presets import groups, offer_choices
from odenet_cli.config.schema import PATHS, Config, find_field, key_of, schema_keys
from odenet_cli.errors import RequestError
from odenet_cli.registry import nearest
from odenet_cli.request.hydra_errors import translate_hydra_errors
from odenet_cli.request.hydra_internals import get_args_parser
from odenet_cli.rundir import named_run

# Keys whose values are taken as they are; of data.decimal=',' the shell leaves a comma.
QUOTED = (*PATHS, "data.decimal", "resume", "name", "hydra.run.dir", "hydra.sweep.dir")
WORD = r"""(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")"""  # quoted from end to end
NOT_NULL = ("None", "none", "nil", "NONE")  # what other languages write for null
MAX_KEY_BYTES = 255  # a file's name takes no more
MAX_SWEEP_POINTS = 10_000
CONFIG_DIR = ("--config-dir", "-cd")
DRY_RUN = ("dry-run=true", "dry_run=true")  # as an option of the other commands may be spelled


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return flags and overrides, in any order, `--key=value` too; path-like values are quoted.

    `argv` of the result has them in the order that Hydra's own parser takes.
    """
    words: list[str] = []
    for word, following in zip(argv, [*argv[1:], "="]):
        if re.search("[\ud800-\udfff]", word):  # it could be written to no file
            raise RequestError(
                f"{word!a} is not text in the encoding of this locale, {sys.getfilesystemencoding()}.\n"
                "  Use UTF-8: put LC_ALL=C.UTF-8 or PYTHONUTF8=1 before the command."
            )
        option, equals, value = word.partition("=")
        if option in CONFIG_DIR and equals:
            word = f"{option}={named_run(value)}"
        elif words and words[-1] in CONFIG_DIR:
            word = str(named_run(word))
        key = option.removeprefix("--")
        is_key = word.startswith("--") and "=" in word and ("." in key or find_field(key) or key in groups())
        words.append("--dry-run" if word in DRY_RUN else word.removeprefix("--") if is_key else word)
        if word in ("--info", "-i") and "=" in following:
            words.append("all")  # argparse would take an override for --info's optional value

    parser = get_args_parser()
    parser.add_argument("--dry-run", action="store_true")
    parser.error = _refuse  # type: ignore[method-assign]
    args = parser.parse_intermixed_args(words)
    if args.experimental_rerun is not None:
        raise RequestError("--experimental-rerun would load a pickle, which can run code. Use --config-dir RUN.")
    if args.config_path is not None:
        name = "" if args.config_name else " --config-name config"
        raise RequestError(
            f"--config-path={args.config_path} would replace all of odenet's presets.\n"
            f"  To add presets use --config-dir {args.config_path}; to repeat a run, --config-dir RUN{name}."
        )
    if args.config_dir and not args.config_name and os.path.isfile(os.path.join(args.config_dir, "run.json")):
        raise RequestError(
            f"--config-dir {args.config_dir} is the folder of a run, and its configuration would not be read.\n"
            "  Add --config-name config to run it again."
        )
    for override in args.overrides:
        _check_form(override)
        if args.multirun:
            _check_single_path(override)
    flags = [word for word in words if word not in (*args.overrides, "--dry-run")]
    args.overrides = [quote_override(override) for override in args.overrides]
    args.argv = [*flags, *args.overrides]
    return args


def _refuse(message: str) -> NoReturn:
    option = re.search(r"(?<=arguments: --)[\w-]+", message)
    near = nearest(option[0], [key for key, _ in schema_keys()]) if option else ""
    raise RequestError(f"{message}.{near}\n  Use key=value; `odenet train --help` lists the keys.")


def _check_form(override: str) -> None:
    """Refuse a word that is no key and its value, one that takes a key away, and a `None` that means null."""
    key, equals, value = override.partition("=")
    bare = key_of(override)
    if not re.match(r"[^\W\d]|\$", bare) or not (equals or key.startswith("~")):
        raise RequestError(
            f"{override!r} is not of the form key=value, in one word without spaces.{offer_choices(override)}\n"
            "  `odenet train --help` shows the keys."
        )
    if len(os.fsencode(bare)) > MAX_KEY_BYTES:  # Hydra would look for a file of this name
        raise RequestError(f"{bare} is not a key of the configuration.")
    if key.startswith("~") and not key.startswith(("~hydra.", "~hydra/", "~experiment")):
        raise RequestError(
            f"{override}: no key can be removed from a configuration.\n"
            f"  Leave {key[1:]} out to use its default. A key without a value is null: optim.clip=null."
        )
    if bare in ("resume", "name", "logger") or bare.startswith("hydra"):
        return
    not_null = ("None",) if bare.startswith("model.") else NOT_NULL
    if any(word.strip("[] ") in not_null for word in value.split(",")):
        raise RequestError(f"{override}: write null for no value: {bare}=null.")


def _check_single_path(override: str) -> None:
    """Refuse, in a sweep, a path with a comma in it that may have been meant as several."""
    key, _, value = override.partition("=")
    if "," not in value or key_of(override) not in PATHS or _is_quoted(value):
        return
    if not os.path.exists(os.path.expanduser(value)):
        word = f"{key}={','.join(quote(part.strip()) for part in value.split(','))}"
        word = shlex.quote(word) if re.search(r'["$`\\!]', word) else f'"{word}"'
        raise RequestError(
            f"{override} is read as one path that contains a comma, and this file does not exist.\n"
            f"  To sweep over several paths, quote each of them: {word}"
        )


def _is_quoted(value: str) -> bool:
    """Return whether a value is in Hydra's grammar as it is: quoted words, or a choice of them."""
    return bool(re.fullmatch(rf"{WORD}(\s*,\s*{WORD})*|(choice|sort|shuffle)\(.*\)", value, re.DOTALL))


def quote_override(override: str) -> str:
    """Return an override whose path-like value is one word for Hydra's grammar: spaces, commas, brackets, `=` and all.

    A leading `~` is the home folder. Values that are quoted already, null, or a `choice(…)` to sweep stay. Of other
    values words with a letter beyond ASCII are quoted, which the grammar does not know: [Natrium,Hämoglobin].
    """
    key, equals, value = override.partition("=")
    if key_of(key) not in QUOTED:
        return override if override.isascii() else f"{key}{equals}{_quote_foreign(value)}"
    if not equals or value in ("", "null") or _is_quoted(value):
        return override
    if key_of(key) != "name":
        value = os.path.expanduser(value)
    return f"{key}={quote(value)}"


def _quote_foreign(value: str) -> str:
    """Return a value with every word in quotes that has a letter beyond ASCII and is in none."""

    def word(match: re.Match[str]) -> str:
        return match[0] if match[0].isascii() or match[0][0] in "'\"" else quote(match[0])

    return re.sub(rf"{WORD}|[^\s,:=(){{}}\[\]'\"](?:[^,:=(){{}}\[\]'\"]*[^\s,:=(){{}}\[\]'\"])?", word, value)


def quote(value: str) -> str:
    """Return `value` as a single-quoted word of Hydra's grammar."""
    return QuotedString(text=value, quote=Quote.single).with_quotes()


def parse_values(word: str) -> tuple[str, list[Any]]:
    """Return the key and the values of an override."""
    _check_form(word)
    with translate_hydra_errors([word]):
        (override,) = OverridesParser.create().parse_overrides([quote_override(word)])
        count_values(override)
        key = override.key_or_group
        return key, list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]


def differing_keys(points: Iterable[list[str]]) -> list[str]:
    """Return the keys that do not have the same value in all `points`, each a list of overrides.

    A key that some points leave out differs too; `resume` never does: it changes nothing of what a job computes.
    """
    values = [dict(override.partition("=")[::2] for override in point) for point in points]
    keys = dict.fromkeys(key for point in values for key in point if key != "resume")
    return [key for key in keys if len({point.get(key) for point in values}) > 1]


def count_values(override: Override) -> int:
    """Return how many values an override has, without making them; refuse none at all, and too many."""
    if not override.is_sweep_override():
        return 1
    value, word = override.value(), override.input_line
    if isinstance(value, RangeSweep):
        ends = (value.start or 0, value.stop or 0, value.step)
        if not all(math.isfinite(end) for end in ends) or value.step == 0:
            raise RequestError(f"{word}: a range needs finite limits and a step other than 0.")
        start, stop, step = map(Decimal, ends)
        number = max(0, math.ceil((stop - start) / step))
    elif override.value_type == ValueType.GLOB_CHOICE_SWEEP and override.config_loader is None:
        raise RequestError(f"{word}: a glob only works for presets; list the values instead.")
    elif override.is_discrete_sweep():
        number = sum(1 for _ in override.sweep_iterator())
    else:
        raise RequestError(f"{word}: an interval cannot be swept over; give a range, or list values.")
    if not 0 < number <= MAX_SWEEP_POINTS:
        many = f"{number:,} values; the limit for a sweep is {MAX_SWEEP_POINTS:,}" if number else "no values"
        raise RequestError(f"{word} has {many}.")
    return number


def check_points(numbers: Mapping[str, int]) -> None:
    """Refuse more combinations than a sweep takes, given how many values each key has, before any is made."""
    if (total := math.prod(numbers.values())) > MAX_SWEEP_POINTS:
        factors = ", ".join(f"{key} {number:,}" for key, number in numbers.items() if number > 1)
        raise RequestError(f"{factors}: {total:,} points in total; the limit for a sweep is {MAX_SWEEP_POINTS:,}.")


def altered(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return `config` with these keys set, typed and checked."""
    with translate_hydra_errors([f"{key}={value}" for key, value in changes.items()]):
        content = OmegaConf.structured(config)
        for key, value in changes.items():
            OmegaConf.update(content, key, value)
        result = OmegaConf.to_object(content)
    assert isinstance(result, Config)
    return check(result)
