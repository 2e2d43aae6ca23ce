"""One parser reads the words of the commands: two spellings of an option, the nearest of a slip, help that wraps."""

from pathlib import Path

import pytest

from odenet_cli.commands import _common
from odenet_cli.errors import RequestError


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


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--ot=x"], "--ot is not an option here. Did you mean `--out`?\n  There are: --out, --n, --some, --all."),
        (["out="], "out= needs a value."),
        (["some="], "some= needs a value."),
        (["--out"], "--out needs a value."),
        (["n=10"], "n=10 must be a whole number from 1 to 9."),
        (["--n", "1.5"], "n=1.5 must be a whole number from 1 to 9."),
        (["n=1", "--n=2"], "n is said more than once; say it once."),
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
