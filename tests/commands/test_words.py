"""One parser reads the words of the commands: two spellings of an option, the nearest of a slip, help that wraps."""

import importlib
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from odenet_cli import terminal
from odenet_cli.cli import commands, overview
from odenet_cli.commands import _common
from odenet_cli.errors import RequestError
from odenet_cli.streams import wrapped


def parser():
    made = _common.Parser(
        "odenet_cli.commands.example", "Do something: odenet example\n\nA long text.\n\n  odenet example"
    )
    made.add_argument("--out", type=_common.path)
    made.add_argument("--n", type=_common.whole(1, 9))
    made.add_argument("--some", type=_common.several(_common.positive))
    made.add_argument("--all", action="store_true")
    made.add_argument("places", nargs="*", default=[])
    return made


@pytest.mark.parametrize(
    "words", [["--out", "a=b"], ["--out=a=b"], ["out=a=b"], ["x", "out=a=b", "--n", "3", "y", "--all"]]
)
def test_both_spellings_of_an_option(words):
    assert parser().parse(words).out == Path("a=b")


@pytest.mark.parametrize("words", [["--all"], ["all=true"], ["--all=true"]])
def test_flags(words):
    assert parser().parse(words).all
    assert not parser().parse(["all=false"]).all
    with pytest.raises(RequestError, match="true or false"):
        parser().parse(["all=maybe"])


WITHOUT = {"train"}  # a parser: it has Hydra's grammar
PARSERS = {name: importlib.import_module(f"odenet_cli.commands.{name}").PARSER for name in {*commands()} - WITHOUT}
OPTIONS = sorted((c, name) for c, made in PARSERS.items() for name, action in made.options.items() if action.nargs != 0)


def accepted(option):
    """A text that the type of an option takes."""
    for text in ("3", "true", "best", "test", "cpu", "nfe"):
        try:
            (option.type or str)(text)
        except ArgumentTypeError:
            continue
        return text
    raise AssertionError(option)


@pytest.mark.parametrize(("command", "name"), OPTIONS)
def test_every_option_of_every_command_has_the_same_spellings(command, name):
    made, bare = PARSERS[command], name.removeprefix("--")
    action = made.options[name]
    text = accepted(action)
    for words in ([name, text], [f"{name}={text}"], [f"{bare}={text}"]):
        request, _ = made.parse_known_intermixed_args(made._as_options(["x", *words]))
        assert getattr(request, action.dest) == (action.type or str)(text)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--ot=x"], "--ot is not an option here. Did you mean `--out`?\n  Available: --out, --n, --some, --all."),
        (["out="], "out= needs a value."),
        (["some="], "some= needs a value."),
        (["--out"], "--out needs a value."),
        (["n=10"], "n=10 must be a whole number from 1 to 9."),
        (["--n", "1.5"], "n=1.5 must be a whole number from 1 to 9."),
        (["n=1", "--n=2"], "n is given more than once; give it only once."),
    ],
)
def test_what_is_refused(words, says):
    with pytest.raises(RequestError) as refused:
        parser().parse(words)
    assert str(refused.value) == says


def test_help_wraps_at_the_width_of_the_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    example = _common.Parser("odenet_cli.commands.example", f"{'word ' * 30}\n\n  name  {'what it is ' * 9}")
    main = example.command(lambda request: 3)
    assert (main(["--help"]), main([])) == (0, 3)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    assert sum(line.startswith("        ") for line in lines) == 1  # the rest of what it is, below its own text
    assert wrapped(f"  {'word ' * 7}  {'text ' * 6}", 60) == f"  {'word ' * 6}word\n      {'text ' * 5}text"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_every_help_fits_the_terminal(monkeypatch, width):
    """Only what has no blank to break at may be longer."""
    monkeypatch.setenv("COLUMNS", str(width))
    for text in (overview(), *(made.format_help() for made in PARSERS.values())):
        longest = max(map(len, text.split()))
        assert [line for line in text.splitlines() if len(line) > max(width, longest + 24)] == []


def test_the_help_of_train_fits_the_terminal(odenet):
    lines = odenet("train", "--help", COLUMNS="60").stdout.splitlines()
    assert max(map(len, lines)) <= 60
    assert any(line.startswith("  --dry-run  ") for line in lines)


COLUMNS = [("gradient", 16), ("forward", 12), ("NFE", 6), ("error", 9)]


@pytest.mark.parametrize("width", [None, 49, 48, 30])
def test_a_table_that_is_too_wide_has_its_words_above_the_numbers(width, monkeypatch, capsys):
    """Once for the rows that share them; what is no terminal gets whole rows."""
    monkeypatch.setattr(terminal, "on_terminal", lambda: width is not None)
    monkeypatch.setattr(terminal, "columns", lambda: width)
    table = terminal.Table(COLUMNS, left=2)
    for n in (1, 2):
        table.row("adjoint relative", "dopri5 0.001", str(n), "0.5")
    lines = capsys.readouterr().out.splitlines()
    numbers = [f"{'NFE':>6}  {'error':>9}", f"{1:>6}  {0.5:>9}", f"{2:>6}  {0.5:>9}"]
    if width in (None, 49):
        assert lines[1:] == [f"adjoint relative  dopri5 0.001  {row}" for row in numbers[1:]]
        return
    words = ["gradient          forward", "adjoint relative  dopri5 0.001"]
    assert lines == [words[0], f"  {numbers[0]}", words[1], *(f"  {row}" for row in numbers[1:])]


def test_numbers_stand_closer_where_even_they_are_too_wide(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "on_terminal", lambda: True)
    monkeypatch.setattr(terminal, "columns", lambda: 17)
    terminal.Table(COLUMNS, left=2).row("adjoint relative", "dopri5 0.001", "1", "0.5")
    assert capsys.readouterr().out.splitlines()[1::2] == [f" {'NFE':>6} {'error':>9}", f" {1:>6} {0.5:>9}"]


def test_a_row_is_broken_between_cells(monkeypatch, capsys):
    """Notes beyond the columns, and numbers where even they are too wide; a note of nothing adds no line."""
    monkeypatch.setattr(terminal, "on_terminal", lambda: True)
    row = f"{'dopri5':30}  {0.5:>9}"
    for width, shown in ((60, [f"{row}  trained with"]), (50, [row, "trained with"])):
        monkeypatch.setattr(terminal, "columns", lambda width=width: width)
        table = terminal.Table([("solver", 30), ("error", 9)])
        for note in ("trained with", ""):
            table.row("dopri5", "0.5", note)
        assert capsys.readouterr().out.splitlines()[1:] == [*shown, row]
    monkeypatch.setattr(terminal, "columns", lambda: 12)
    terminal.Table(COLUMNS, left=2).row("adjoint relative", "dopri5 0.001", "1", "0.5")
    assert capsys.readouterr().out.splitlines()[1:3] == [f" {'NFE':>6}", f"{'error':>9}"]


def test_sentences_are_broken_between_words_on_a_terminal(monkeypatch, capsys):
    text = "run: best weights, 360 samples\nof digits"
    for is_one, shown in ((False, text), (True, "run: best weights,\n360 samples\nof digits")):
        monkeypatch.setattr(terminal, "on_terminal", lambda is_one=is_one: is_one)
        monkeypatch.setattr(terminal, "columns", lambda: 18)
        terminal.say_text(text)
        assert capsys.readouterr().out == f"{shown}\n"
