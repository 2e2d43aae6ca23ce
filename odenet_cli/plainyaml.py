"""YAML from elsewhere is looked through before anything is made of it: plain values only, and not too many of them.

A saved configuration comes with a run that someone else may have made. Tags can ask for objects, and a few lines of
aliases of aliases stand for billions of values; here they are counted as they are read, none of them is made.
"""

from __future__ import annotations

from pathlib import Path

from odenet_cli.errors import RequestError

BYTES, VALUES, DEPTH = 1 << 20, 20_000, 50
PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq")}


def look_through(path: Path) -> None:
    """Refuse the YAML file at `path`, by name, unless it is small and plain."""
    import yaml

    try:
        with open(path, "rb") as file:
            content = file.read(BYTES + 1)
        if len(content) > BYTES:
            raise RequestError(f"{path} has more than {BYTES:,} bytes, too many for a configuration.")
        _count(content.decode("utf-8"), path)
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not a text in UTF-8.") from error
    except yaml.YAMLError as error:
        raise RequestError(f"{path} is not sound YAML: {' '.join(str(error).split())[:200]}") from error


def _count(text: str, path: Path) -> None:
    """Go through the events of a parser. An alias counts as often as what it stands for."""
    import yaml

    sizes: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = [(None, 0)]  # (anchor, values so far) of every collection we are in
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        tag, anchor, new = getattr(event, "tag", None), getattr(event, "anchor", None), 0
        if tag not in (None, "!") and tag not in PLAIN:
            raise RequestError(
                f"{path}, line {event.start_mark.line + 1}: the tag {tag.replace('tag:yaml.org,2002:', '!!')} asks for "
                "more than plain values, which a configuration may not do here."
            )
        if isinstance(event, yaml.AliasEvent):
            if anchor not in sizes:
                raise RequestError(f"{path}, line {event.start_mark.line + 1}: *{anchor} stands for nothing.")
            new = sizes[anchor]
        elif isinstance(event, yaml.ScalarEvent):
            new = 1
            if anchor:
                sizes[anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_.append((anchor, 0))
        elif isinstance(event, yaml.CollectionEndEvent):
            ended, inside = open_.pop()
            new = inside + 1
            if ended:
                sizes[ended] = new
        open_[-1] = open_[-1][0], open_[-1][1] + new
        if len(open_) > DEPTH or open_[-1][1] > VALUES:
            raise RequestError(
                f"{path}, line {event.start_mark.line + 1}: more than {VALUES:,} values, or {DEPTH} one in the other; "
                "no configuration needs so many."
            )
