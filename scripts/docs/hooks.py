"""What mkdocs calls as it builds the guide: its tables come from the presets, the schema and `results/`.

A line that ends in `<!-- presets solver -->` gives way to what the function of that name below returns; read elsewhere,
it says where that stands. What lies in `results/`, and the log of decisions, become pages as they are.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from odenet_cli.bench.table import Table, markdown
from odenet_cli.commands.help import describe_key
from odenet_cli.config.presets import conf_dir, headline, options, written
from odenet_cli.config.schema import schema_keys
from odenet_cli.markdown import markdown_table

ROOT = Path(__file__).resolve().parents[2]
SHOWN = (".md", ".png", ".svg", ".gif")
LINK = re.compile(r"\]\((?!https?:|#)([^)\s]*)\)")
HOLE = re.compile(r"^.*<!-- (presets|bench|keys) ?(\S*) -->$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and figures of `results/`, and the log of decisions."""
    added = {path.relative_to(ROOT): path for path in (ROOT / "results").rglob("*") if "cells" not in path.parts}
    added[Path("decisions.md")] = ROOT / "odenet_cli" / "DECISIONS.md"
    for name, path in added.items():
        if path.suffix in SHOWN:
            files.append(File.generated(config, name.as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Fill in what is generated, and find the pages beside `pages/`; in a page of `results/`, a link to what is no page
    becomes a name."""
    if page.file.src_uri.startswith("results/"):
        return LINK.sub(lambda link: link[0] if link[1].endswith(SHOWN) else "]", markdown)
    fill = {"presets": presets, "bench": bench, "keys": keys}
    filled = HOLE.sub(lambda hole: fill[hole[1]](*filter(None, [hole[2]])), markdown)
    return filled.replace("](../../../odenet_cli/DECISIONS.md)", "](decisions.md)").replace("](../../../", "](")


def presets(group: str) -> str:
    """Return the presets of a group with what each is, as `odenet list` has them."""
    rows = [[f"`{group}={name}`", headline(group, name)] for name in options(group)]
    if group not in ("solver", "gradient", "optim"):
        return markdown_table([group, "what it is"], rows, left=2)
    for row, name in zip(rows, options(group)):
        row.append(", ".join(f"`{key}`" for key in written(group, name) if key not in ("method", "name")))
    return markdown_table([group, "what it is", "its keys"], rows, left=3)


def bench(name: str) -> str:
    """Return the tables of `results/bench/NAME.json`, and where their machine and versions stand."""
    content = json.loads((ROOT / "results" / "bench" / f"{name}.json").read_text(encoding="utf-8"))
    tables = [markdown(Table(**part)) for part in content["tables"]]
    return "\n\n".join([*tables, f"Machine, versions and commit: [{name}](results/bench/{name}.md)."])


def keys() -> str:
    """Return every key of the schema, a heading a section; then the presets of models and data."""
    sections: dict[str, list[list[str]]] = {}
    for key, _ in schema_keys():
        meaning, facts = describe_key(key)
        kind = f"one of {facts['one of']}" if facts["one of"] else facts["type"]
        row = [f"`{key}`", meaning, kind, *(facts[name] for name in ("default", "range", "unit"))]
        sections.setdefault(key.rpartition(".")[0] or "the run", []).append(row)
    heads = ["key", "meaning", "type", "default", "range", "unit"]
    parts = [f"## {section}\n\n{markdown_table(heads, rows, left=len(heads))}" for section, rows in sections.items()]
    for group in ("model", "data"):
        for name in options(group):
            lines = (conf_dir() / group / f"{name}.yaml").read_text(encoding="utf-8").rstrip()
            parts.append(f"## {group}={name}\n\n```yaml\n{lines}\n```")
    return "\n\n".join(parts)
