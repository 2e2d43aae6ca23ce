"""List what exists: odenet list [models|solvers|gradients|data|optimisers|experiments]

Lists what `odenet train group=name` can choose from."""

from __future__ import annotations

from argparse import Namespace

from odenet_cli.commands import _common
from odenet_cli.config.presets import headline, options
from odenet_cli.registry import require

# What the user calls it, and the group of `conf/` that holds it.
KINDS = {
    "models": "model",
    "solvers": "solver",
    "gradients": "gradient",
    "data": "data",
    "optimisers": "optim",
    "experiments": "experiment",
}
PARSER = _common.Parser(__name__, __doc__)
PARSER.add_argument("kinds", metavar="KIND", nargs="*", default=[], help="left out: all of them")


@PARSER.command
def main(request: Namespace) -> int:
    """Print the kinds."""
    plural = {group: kind for kind, group in KINDS.items()}
    for kind in [require("kind", plural.get(word, word), KINDS) for word in request.kinds] or list(KINDS):
        group = KINDS[kind]
        print(f"{kind} ({group}=…)")
        names = options(group)
        width = max((len(name) for name in names), default=0)
        for name in names:
            print(f"  {name:<{width}}  {headline(group, name)}")
        if not names:
            print("  none yet")
    return 0
