"""Write programs of scripts/examples as notebooks beside them: python scripts/notebooks.py

A program's docstring opens its notebook, imports and definitions are a cell each, and the paragraphs of its `main` are
the cells that follow; a paragraph's opening comment becomes the text above it. Figures are shown, not saved.
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent / "examples"
NAMES = ("ode_block", "solve_and_look")


def notebook(program: Path) -> str:
    """Return the notebook of a program as JSON, without outputs."""
    source = program.read_text(encoding="utf-8")
    tree, lines = ast.parse(source), source.splitlines()
    title = (ast.get_docstring(tree) or "").partition(": python")[0]
    cells = [("markdown", f"# {title}\n\nThe program is `scripts/examples/{program.name}`.")]
    main = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    head = "\n".join(lines[tree.body[0].end_lineno : main.lineno - 1])
    cells += [("code", part) for part in re.split(r"\n{3,}", head.replace("import sys\n\n", "").strip())]
    body = textwrap.dedent("\n".join(lines[main.body[0].lineno - 1 : main.end_lineno]))
    body = re.sub(r"\n(return .*)$", "", body.rstrip())
    for part in re.sub(r"\b\w+\.savefig\(figure.*\)", "plt.show()", body).split("\n\n"):
        comments = re.match(r"(# .*\n)*", part)
        assert comments is not None
        if text := comments[0].replace("# ", "").strip():
            cells.append(("markdown", text))
        cells.append(("code", part[comments.end() :]))
    return json.dumps(
        {
            "cells": [cell(n, *content) for n, content in enumerate(cells)],
            "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
            "nbformat": 4,
            "nbformat_minor": 5,
        },
        indent=1,
        ensure_ascii=False,
    )


def cell(number: int, kind: str, text: str) -> dict[str, object]:
    """Return a cell as nbformat 4.5 has it."""
    outputs = {"execution_count": None, "outputs": []} if kind == "code" else {}
    source = text.splitlines(keepends=True)
    return {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, **outputs, "source": source}


if __name__ == "__main__":
    for name in NAMES:
        target = EXAMPLES / f"{name}.ipynb"
        target.write_text(notebook(EXAMPLES / f"{name}.py") + "\n", encoding="utf-8")
        print(target)
