"""Tab completion of `odenet` in bash, zsh and fish: commands, options, RUNs, and behind `train` whatever Hydra offers.

The shells ask `odenet -sc query`, with the line up to the cursor in COMP_LINE, for what the last word may be.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from collections.abc import Iterable

from odenet_cli.errors import RequestError
from odenet_cli.registry import require

# Bash splits words at `=` and `:`, and replaces only what is behind the last of them: offers are cut to that.
BASH = r"""_odenet_complete() {
    local line="${COMP_LINE:0:COMP_POINT}" word begun
    word="${line##*[[:space:]]}"
    COMPREPLY=($(compgen -W "$(COMP_LINE="$line" odenet -sc query 2>/dev/null)" -- "$word"))
    begun="${word%"${word##*[=:]}"}"
    [[ -n "$begun" ]] && COMPREPLY=("${COMPREPLY[@]#"$begun"}")
    return 0
}
complete -o nospace -o default -F _odenet_complete odenet"""
ZSH = r"""_odenet_complete() {
    local -a offers
    offers=(${(f)"$(COMP_LINE="${(j: :)words[1,CURRENT]}" odenet -sc query 2>/dev/null)"})
    compadd -S '' -a offers || _files
}
(( $+functions[compdef] )) || { autoload -U compinit; compinit }
compdef _odenet_complete odenet"""
FISH = r"""function _odenet_complete
    COMP_LINE=(commandline -cp | string collect) odenet -sc query 2>/dev/null
end
complete -c odenet -a '(_odenet_complete)'"""
INSTALL = {"bash": BASH, "zsh": ZSH, "fish": FISH}
UNINSTALL = {
    "bash": "complete -r odenet; unset -f _odenet_complete",
    "zsh": "compdef -d odenet; unfunction _odenet_complete",
    "fish": "complete -e -c odenet; functions -e _odenet_complete",
}
MAX_RUNS = 20  # that are offered


def main(argv: list[str]) -> int:
    """Print the script of `-sc install=SHELL`, its removal for `uninstall=`, or what is offered for `query`."""
    what, _, shell = " ".join(argv[1:]).partition("=")
    if what == "query":
        print("\n".join(offers(os.environ.get("COMP_LINE", ""))))
        return 0
    if what not in ("install", "uninstall"):
        raise RequestError("-sc takes install=SHELL or uninstall=SHELL; the shells: bash, zsh, fish.")
    require(what, shell, INSTALL)
    print((INSTALL if what == "install" else UNINSTALL)[shell])
    return 0


def offers(line: str) -> list[str]:
    """Return what the last word of a line, which may be empty, can be."""
    from odenet_cli.cli import commands

    words = line.split() + [""] * (not line or line[-1].isspace())
    if len(words) <= 2:
        candidates: Iterable[str] = [*commands(), "--help", "--version"]
    elif words[1] == "train" or (words[1] == "help" and len(words) > 3):
        candidates = of_train(words)
    elif words[1] == "help":
        from odenet_cli.config.schema import schema_keys

        keys = [key for key, _ in schema_keys()]
        candidates = [*keys, *{key.rpartition(".")[0]: None for key in keys if "." in key}]
    elif words[1] in commands():
        candidates = of_command(words)
    else:
        candidates = []
    return [word for word in candidates if word.startswith(words[-1])]


def of_train(words: list[str]) -> list[str]:
    """Return keys, presets and values, as Hydra offers them, and RUNs."""
    if words[-1].startswith("resume=") or words[-2] == "--config-dir":
        prefix = "resume=" * words[-1].startswith("resume=")
        return [prefix + run for run in runs()]
    if words[-1].startswith("-"):
        return ["--dry-run", "--help", "--cfg", "--info", "--config-dir", "--config-name", "--multirun", "--resolve"]
    from odenet_cli.request.compose import Composer
    from odenet_cli.request.job import TrainRequest
    from odenet_cli.request.overrides import parse

    # Hydra takes the first word away as the program, and would read the command as an override.
    os.environ["COMP_LINE"] = " ".join(["odenet", *(word for word in words[2:] if word[:1] != "-")])
    args = parse(["-sc", "query=fish"])
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        importlib.import_module("odenet_cli.commands.train").start(TrainRequest(Composer(args), args.argv))
    return printed.getvalue().split()


def of_command(words: list[str]) -> list[str]:
    """Return the options of a command in both spellings, their choices, its keys, and what else may stand there."""
    from odenet_cli.commands._common import Parser

    parser: Parser = importlib.import_module(f"odenet_cli.commands.{words[1]}").PARSER
    name, equals, _ = words[-1].partition("=")
    option = parser.options.get(f"--{name.removeprefix('--')}" if equals else words[-2])
    if option is not None and option.nargs != 0:
        choices = str(option.metavar or "").split("|")
        return [f"{name}=" * bool(equals) + choice for choice in choices if len(choices) > 1]
    spelled = [word for name, action in parser.options.items() for word in (name, f"{name[2:]}=") if action.nargs != 0]
    flags = [name for name, action in parser.options.items() if action.nargs == 0]
    first = runs() if parser.run and len(words) == 3 else parser.offers()
    return [*first, *spelled, *flags, *(f"{key}=" for key in parser.keys), "--help"]


def runs() -> list[str]:
    """Return the newest runs here: `last`, `last~1` and so on, and their folders."""
    from odenet_cli.rundir import recent_runs

    recent = recent_runs()[:MAX_RUNS]
    return ["last" if n == 0 else f"last~{n}" for n in range(len(recent))] + [str(folder) for folder in recent]
