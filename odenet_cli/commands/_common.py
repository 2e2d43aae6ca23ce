"""What the commands share: a parser whose help is a docstring, the RUN they look at, and the file of what they find."""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import math
import os
import sys
import textwrap
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NoReturn

from odenet_cli.config.check import check_code_given
from odenet_cli.config.saved import load
from odenet_cli.config.schema import CODE_KEYS, DATA_PLACES, STEP_CONTROL, Config, SolverChange, SolverConfig
from odenet_cli.errors import RequestError
from odenet_cli.files import append_json
from odenet_cli.registry import nearest
from odenet_cli.rundir import named_run
from odenet_cli.streams import wrapped

Overrides = dict[str, list[Any]]  # key -> its values

SOLVER_FIELDS = tuple(field.name for field in fields(SolverChange))
READING = ("data.sheet", "data.skip", "data.decimal", "data.missing", "data.incomplete")
RUN_KEYS = (*DATA_PLACES, "data.download", "device", *READING, *CODE_KEYS)  # of every command that takes a RUN
RUN_HELP = f"""{", ".join((*DATA_PLACES, "data.download", "device"))}: where to find the data, and where to compute.
{", ".join(READING)}: how to read another table than the run's.
{", ".join(CODE_KEYS)}: must be given again if the run uses a class of your own, since no file may name code."""


class Help(argparse.HelpFormatter):
    """Wrap the text to the width of the terminal; indented lines, which are examples and lists, stay lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = []
        for paragraph in text.strip("\n").split("\n\n"):
            is_list = "\n " in f"\n{paragraph}"
            whole = paragraph.splitlines() if is_list else [" ".join(paragraph.split())]
            lines += [wrapped(line, width) for line in whole]
            lines.append("")
        return "\n".join(lines[:-1])


class Parser(argparse.ArgumentParser):
    """Parse the words of a command. Its help is the docstring of its module.

    `--out DIR`, `--out=DIR` and `out=DIR` mean the same, and so do `--all` and `all=true`. Whatever is wrong raises
    `RequestError`.

    run      the first word is the folder of a run, and the keys of `RUN_KEYS` may be overridden
    goes_on  the run goes on from its checkpoint: the tolerance is where it began, not where `solver.budget` steered it
    keys     what else may be overridden, `key=value`
    several  patterns of the keys that take several values, `key=a,b`

    `offers` returns what completion offers for its words.

    >>> PARSER = Parser(__name__, __doc__)
    >>> PARSER.add_argument("--out", type=Path)
    >>> @PARSER.command
    ... def main(request: Namespace) -> int:
    ...     return 0
    """

    def __init__(
        self,
        module: str,
        doc: str | None,
        run: bool = False,
        keys: Sequence[str] = (),
        several: Sequence[str] = (),
        goes_on: bool = False,
    ) -> None:
        command = module.rpartition(".")[2]
        super().__init__(
            f"odenet {command}",
            description=doc,
            epilog="An option may also be written name=VALUE.",
            formatter_class=Help,
            add_help=False,
            allow_abbrev=False,
            exit_on_error=False,
        )
        self.options: dict[str, argparse.Action] = {}
        self.needs_words = False
        self.offers: Callable[[], list[str]] = list
        self.goes_on = goes_on
        self.run, self.keys, self.several = run, (*keys, *(RUN_KEYS if run else ())), several
        if run:
            self.add_argument("folder", metavar="RUN", type=run_folder, help="folder of a run; or last, last~1, …")
            self.add_argument("overrides", metavar="key=value", nargs="*", default=[], help="see above")
            self.description = f"{doc}\n\n{textwrap.indent(RUN_HELP, '  ')}"

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        action = super().add_argument(*names, **settings)
        self.options |= dict.fromkeys(action.option_strings, action)
        self.needs_words |= not action.option_strings and settings.get("nargs") not in ("*", "?")
        return action

    def command(self, function: Callable[[Namespace], int]) -> Callable[[list[str]], int]:
        """Return `main(argv)`, which parses and calls `function`; `--help`, or no word where one is needed, prints."""

        @functools.wraps(function)
        def main(argv: list[str]) -> int:
            asked = not {"-h", "--help"}.isdisjoint(argv)
            if asked or (self.needs_words and not argv):
                print(self.format_help(), end="")
                return 0 if asked else 2
            return function(self.parse(argv))

        return main

    def parse(self, argv: Sequence[str]) -> Namespace:
        """Return what was asked for: the arguments, `argv` itself and, of a RUN, `config` and `overrides`."""
        try:
            request, unknown = self.parse_known_intermixed_args(self._as_options(argv))
        except ArgumentTypeError as error:  # of a flag
            raise RequestError(f"a flag must be true or false: {error}") from error
        except argparse.ArgumentError as error:
            name, message = str(error.argument_name), error.message
            if message.startswith("expected"):
                raise RequestError(f"{name} needs a value.") from error
            option = name.startswith("-")
            raise RequestError(f"{name.lstrip('-')}={message}" if option else f"{name} {message.lstrip()}") from error
        for word in unknown:
            self.refuse(word)
        request.argv = list(argv)
        if self.run:
            config = load(request.folder)
            if config.solver.budget is not None and not self.goes_on:
                from odenet_cli.training.budget import at_its_end

                config = at_its_end(request.folder, config)
            request.overrides = self.read_overrides(request.overrides)
            request.config = locate_data(request.folder, config, request.overrides)
        return request

    def _as_options(self, argv: Sequence[str]) -> list[str]:
        """Return the words with `name=value` as `--name=value` for each option; none may be there twice.

        A flag is also set by `name=true`, and a key by `--key=value`.
        """
        words: list[str] = []
        for word in argv:
            name, equals, value = word.partition("=")
            bare = name.removeprefix("--")
            option = self.options.get(f"--{bare}") if equals else None
            if words and words[-1] in self.options and self.options[words[-1]].nargs != 0:
                words.append(word)  # the value of the option before it
            elif option is not None and option.nargs == 0:
                words += [f"--{bare}"] * (one_of("true", "false")(value) == "true")
            elif option is not None:
                words.append(f"--{bare}={value}")
            else:
                words.append(word.removeprefix("--") if bare in self.keys else word)
        names = [word.partition("=")[0] for word in words]
        for name in self.options:
            if names.count(name) > 1:
                raise RequestError(f"{name.lstrip('-')} is given more than once; give it only once.")
        return words

    def read_overrides(self, words: Sequence[str]) -> Overrides:
        """Return the values given for each key, in Hydra's grammar."""
        overrides: Overrides = {}
        if words:
            from odenet_cli.request.overrides import parse_values as parse_override
        for word in words:
            if "=" not in word:
                file = f" A file of data is named by data.path={word}." if os.path.exists(word) else ""
                raise RequestError(
                    f"{word!r} is not of the form key=value, in one word without spaces.{file}\n"
                    f"  `{self.prog} --help` lists the keys."
                )
            key, values = parse_override(word)
            if key not in self.keys:
                self.refuse(key)
            if key in overrides:
                raise RequestError(f"{key} is given more than once; write several values as {key}=a,b.")
            if len(values) > 1 and not any(fnmatch(key, pattern) for pattern in self.several):
                accept = f"only {' and '.join(self.several)}" if self.several else "no key"
                raise RequestError(f"{word}: {accept} accept{'s' * (len(self.several) < 2)} several values.")
            overrides[key] = values
        return overrides

    def refuse(self, word: str) -> NoReturn:
        """Raise for a word that means nothing, and name the nearest that does."""
        name, *_ = word.partition("=")
        known = [*self.options, *self.keys]
        near = nearest(name, known if name.startswith("-") else [option.lstrip("-") for option in known])
        listing = f"\n  Available: {', '.join(known)}." if known else ""
        raise RequestError(f"{name} is not {'a key' if self.keys else 'an option'} here.{near}{listing}")

    def error(self, message: str) -> NoReturn:
        """Raise for a word that is missing, where argparse would print and exit."""
        missing = message.removeprefix("the following arguments are required: ")
        raise RequestError(f"{missing} is missing; see {self.prog} --help.")


def locate_data(folder: Path, run: Config, overrides: Overrides) -> Config:
    """Return the config of the run in `folder` with its data where they are now, unless the user says where.

    Raises if the run has a class of the user's own that is not named again.
    """
    check_code_given(run, overrides)
    if not any(key in overrides for key in DATA_PLACES):
        from odenet_cli.training.identity import find_moved_data

        places = {key.partition(".")[2]: place for key, place in find_moved_data(folder, run).items()}
        return replace(run, data={**run.data, **places}) if places else run
    return run


def overridden(config: Config, overrides: Overrides) -> Config:
    """Return the config of a run with these keys set, one value of each."""
    from odenet_cli.request.overrides import altered

    return altered(config, combinations(overrides)[0])


def combinations(overrides: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """Return every combination of the values; they are counted before they are made."""
    from odenet_cli.request.overrides import check_points

    check_points({key: len(values) for key, values in overrides.items()})
    return [dict(zip(overrides, point)) for point in itertools.product(*overrides.values())]


# Types of arguments. Each reads a text, or raises with a message that goes on after `name=`.


def word(text: str) -> str:
    """Read what is not empty."""
    if not text:
        raise ArgumentTypeError(" needs a value.")
    return text


def path(text: str) -> Path:
    return Path(os.path.expanduser(word(text)))


def run_folder(text: str) -> Path:
    """Read the folder of a run, or `last`."""
    return named_run(str(path(text)))


def positive(text: str) -> float:
    """Read a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"{text} must be a number above 0.")
    return value


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return a reader of whole numbers from `low` to `high`."""
    limits = f"above {low - 1}" if high is None else f"from {low} to {high:,}"

    def read(text: str) -> int:
        value = int(text) if text.isdecimal() and len(text) < 20 else low - 1  # Python reads no 5,000 digits
        if value < low or (high is not None and value > high):
            raise ArgumentTypeError(f"{text[:40]}{'…' * (len(text) > 40)} must be a whole number {limits}.")
        return value

    return read


def one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ArgumentTypeError(f"{text} is not known.{nearest(text, choices)}\n  Available: {', '.join(choices)}.")
        return text

    return read


def several(read: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """Return a reader of values with commas between them, of which each counts once."""
    return lambda text: list(dict.fromkeys(read(part.strip()) for part in word(text).split(",") if part.strip()))


def check_out(out: Path | None, *suffixes: str) -> None:
    """Raise unless `out` is the name of a file, one that ends so, that can be made."""
    if out is None:
        raise RequestError(f"out= is missing; give {' or '.join(f'out=FILE{suffix}' for suffix in suffixes)}.")
    if suffixes and out.suffix not in suffixes:
        raise RequestError(f"out={out} must end with {' or '.join(suffixes)}.")
    if not os.path.isdir(out.parent):
        raise RequestError(f"out={out}: the folder {out.parent} does not exist.")
    if os.path.isdir(out):
        raise RequestError(f"out={out} is a folder.")


def add_checkpoint(parser: Parser) -> None:
    parser.add_argument(
        "--checkpoint", metavar="best|last", type=one_of("best", "last"), default="best", help="weights"
    )


def describe_solver(solver: SolverConfig) -> str:
    """Return a solver as a table names it: `dopri5 0.001`, `euler 1 step`."""
    if solver.rtol is None:
        return f"{solver.method} {solver.steps} step{'s' * (solver.steps != 1)}"
    atol = "" if solver.atol == solver.rtol else f"/{solver.atol:g}"
    control = [f", {name} {getattr(solver, name)}" for name in STEP_CONTROL if getattr(solver, name) is not None]
    return f"{solver.method} {solver.rtol:g}{atol}{''.join(control)}"


@contextlib.contextmanager
def journal(path: Path, write: Callable[[Path, Any], object] = append_json) -> Iterator[Callable[[Any], None]]:
    """Yield a function that appends a record to the file `path` of a run, or puts it there by `write`.

    Where the file cannot be written, the command goes on, and warns once, at the end.
    """
    errors: list[OSError] = []

    def add(record: Any) -> None:
        try:
            write(path, record)
        except OSError as error:
            errors.append(error)

    try:
        yield add
    finally:
        if errors:
            reason = errors[0].strerror or errors[0]
            print(f"warning: {path} was not written: {reason}. The printed results were not saved.", file=sys.stderr)
