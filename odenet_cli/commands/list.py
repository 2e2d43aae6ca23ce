"""List what exists: odenet list [models|solvers|gradients|data|optimisers|experiments]"""

from __future__ import annotations

import sys

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


def main(argv: list[str]) -> int:
    """Print one kind, or all of them."""
    if any(word in ("-h", "--help") for word in argv):
        print(f"usage: odenet list [{'|'.join(KINDS)}]\n\nLists what `odenet train group=name` can choose from.")
        return 0
    plural = {group: kind for kind, group in KINDS.items()}
    for kind in [require("kind", plural.get(word, word), KINDS) for word in argv] or list(KINDS):
        group = KINDS[kind]
        print(f"{kind} ({group}=…)")
        names = options(group)
        width = max((len(name) for name in names), default=0)
        for name in names:
            print(f"  {name:<{width}}  {headline(group, name)}")
        if not names:
            print("  none yet")
    sys.stdout.flush()
    return 0
