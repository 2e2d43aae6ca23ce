"""List what exists: odenet list [models|solvers|gradients|data|optimisers|experiments|fields|pairs]

Lists the choices for `odenet train group=name`; fields: the equations that model=fit knows; pairs: which data sets go
with which models."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator

from odenet_cli.commands import _common
from odenet_cli.config.presets import headline, options
from odenet_cli.registry import headlines, require
from odenet_cli.streams import hanging

# What the user calls it, and the group of `conf/` that holds it.
KINDS = {
    "models": "model",
    "solvers": "solver",
    "gradients": "gradient",
    "data": "data",
    "optimisers": "optim",
    "experiments": "experiment",
}
FIELDS = "fields"  # modules, which have no presets
PAIRS = "pairs"  # needs torch: listed where it is asked for
PARSER = _common.Parser(__name__, __doc__)
PARSER.add_argument("kinds", metavar="KIND", nargs="*", default=[], help=f"default: all but {PAIRS}")

PARSER.offers = lambda: [*KINDS, FIELDS, PAIRS]


@PARSER.command
def main(request: Namespace) -> int:
    plural = {group: kind for kind, group in KINDS.items()} | {"field": FIELDS}
    known = (*KINDS, FIELDS)
    for kind in [require("kind", plural.get(word, word), (*known, PAIRS)) for word in request.kinds] or known:
        if kind == PAIRS:
            print("\n".join(pairs()))
            continue
        title, entries = listing(kind)
        print(title)
        width = max(map(len, entries), default=0)
        for name, text in entries.items():
            print(hanging(f"  {name:<{width}}  ", text))
        if not entries:
            print("  none yet")
    if not request.kinds:
        print(f"Which data fit which models: odenet list {PAIRS}")
    return 0


def listing(kind: str) -> tuple[str, dict[str, str]]:
    """Return the title of a kind, and name -> description in one line."""
    if kind == FIELDS:
        return f"{FIELDS} (model=fit model.field=…)", headlines("odenet_cli.fields")
    group = KINDS[kind]
    return f"{kind} ({group}=…)", {name: headline(group, name) for name in options(group)}


def pairs() -> Iterator[str]:
    """Yield each task with its data, and the models that have the methods it calls."""
    from odenet_cli import data, tasks
    from odenet_cli.training.check import models_for

    by_task: dict[str, list[str]] = {}
    for name in data.names():
        for task in data.tasks(name):
            by_task.setdefault(task, []).append(name)
    yield hanging("", "task: its data, the models that can do it, what it calls of a class of your own (model=custom)")
    for task, names in sorted(by_task.items()):
        yield hanging(f"  {task:<10}  data   ", ", ".join(names))
        yield hanging(f"  {'':<10}  model  ", ", ".join(models_for(task)))
        yield hanging(f"  {'':<10}  calls  ", ", ".join(tasks.needs(task)))
