"""How a docstring of the package becomes Markdown: `name  what it is` is an item of a list, `>>>` an example."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

ITEM = re.compile(r"^(\s*)(\S.{0,30}?) {2,}(\S.*)$")


class Markdown(Extension):
    """Rewrite each docstring as it is loaded."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = "\n\n".join(map(paragraph, obj.docstring.value.split("\n\n")))


def paragraph(text: str) -> str:
    """Return a paragraph: an example as code, lines of `name  meaning` as a list, anything else as it is."""
    lines = text.splitlines()
    if lines and lines[0].lstrip().startswith(">>>"):
        return (
            "```python\n"
            + "\n".join(line.lstrip().removeprefix(">>> ").removeprefix("... ") for line in lines)
            + "\n```"
        )
    if not lines or not ITEM.match(lines[0]):
        return text
    items: list[str] = []
    for line in lines:
        if match := ITEM.match(line) if not line.startswith(" " * 8) else None:
            items.append(f"- **{match[2]}**: {match[3]}")
        else:
            items[-1] += f" {line.strip()}"
    return "\n".join(items)
