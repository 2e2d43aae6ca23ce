"""Tab completion of `odenet` in bash: the commands, and behind `train` whatever Hydra offers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

SCRIPT = r"""_odenet_complete() {
    # Bash splits words at `=` and `:`; here a word ends at a space. Offers are cut to what bash will replace.
    local line="${COMP_LINE:0:COMP_POINT}" word choices begun
    local -a words
    read -ra words <<< "$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    word="${words[${#words[@]}-1]}"
    if (( ${#words[@]} <= 2 )); then
        choices="@COMMANDS@ --help --version"
    else
        case "${words[1]}" in
            train) choices=$(COMP_LINE="$line" "${words[0]}" train -sc query=bash 2>/dev/null) ;;
            list) choices="models solvers gradients data experiments" ;;
            data) choices="mnist digits" ;;
            *) choices="" ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$choices" -- "$word"))
    begun="${word%"${word##*[=:]}"}"
    [[ -n "$begun" ]] && COMPREPLY=("${COMPREPLY[@]#"$begun"}")
    return 0
}
complete -o nospace -o default -F _odenet_complete @EXECUTABLE@"""


def is_completion(argv: list[str]) -> bool:
    """Return whether the shell asks for completions."""
    return bool(argv) and argv[0] in ("-sc", "--shell-completion")


def complete(argv: list[str], start: Callable[[list[str]], int]) -> int:
    """Print our script for `-sc install=bash`, its removal for `-sc uninstall=bash`; `-sc query=bash` asks Hydra."""
    from odenet_cli.cli import commands

    if argv[1:] == ["install=bash"]:
        print(SCRIPT.replace("@COMMANDS@", " ".join(commands())).replace("@EXECUTABLE@", "odenet"))
        return 0
    if argv[1:] == ["uninstall=bash"]:
        print("complete -r odenet; unset -f _odenet_complete")
        return 0
    # Hydra takes the first word away as the program and would read `train` as an override.
    line = os.environ.get("COMP_LINE", "")
    os.environ["COMP_LINE"] = re.sub(r"^(\s*\S+\s+)train\s", r"odenet ", line, count=1)
    return start(argv)
