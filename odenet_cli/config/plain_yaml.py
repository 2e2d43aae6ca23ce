"""YAML from elsewhere is looked through before anything is made of it: plain values only, and not too many of them.

A saved configuration comes with a run that someone else may have made. Tags can ask for objects, a few lines of
aliases of aliases stand for billions of values, and `${oc.env:…}` reads the environment. Values are counted as they are
read, none of them is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from odenet_cli.errors import RequestError

BYTES, VALUES, DEPTH = 1 << 20, 20_000, 50
PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq")}
DIGITS, INTERPOLATED = 100, 1_000  # the longest whole number, and the longest text with ${…}
RESOLVERS = ("now", "hydra", "oc.select", "odenet.folder")  # those of `conf/`


def look_through(path: Path) -> None:
    """Refuse the YAML file at `path`, by name, unless it is small, plain and can be built."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with open(path, "rb") as file:
            content = file.read(BYTES + 1)
        if len(content) > BYTES:
            raise RequestError(f"{path} has more than {BYTES:,} bytes, too many for a configuration.")
        text = content.decode("utf-8")
        _count(text, path)
        _values(text, path)
        OmegaConf.create(text)
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not a text in UTF-8.") from error
    except RecursionError as error:
        raise RequestError(f"{path} has too much one in the other.") from error
    except (yaml.YAMLError, OmegaConfBaseException, LookupError, TypeError, ValueError) as error:
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


def _values(text: str, path: Path) -> None:
    """Go through the keys and values of a text that was counted."""
    import yaml

    root: Any = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        raise RequestError(f"{path} is not a configuration: there are no keys in it.")
    for key, node in _scalars(root):
        where = f"{path}, line {node.start_mark.line + 1}: {key}"
        if node.tag.endswith(":int") and len(node.value) > DIGITS:
            raise RequestError(f"{where} is a number of {len(node.value):,} digits; no configuration needs so many.")
        plain(where, node.value)


def _scalars(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(full key, scalar) of everything in a YAML node, the keys themselves included."""
    if isinstance(node.value, str):
        yield key or node.value[:DIGITS], node
        return
    for number, item in enumerate(node.value):
        name, inner = item if isinstance(item, tuple) else (None, item)
        if name is not None:
            yield from _scalars(name, key)
        last = str(number) if name is None else str(name.value)[:DIGITS]
        yield from _scalars(inner, f"{key}.{last}" if key else last)


def plain(where: str, text: str) -> None:
    """Refuse a `text` with a resolver, `${name:…}`, that `conf/` has no use for: `oc.env` would read secrets."""
    if "${" not in text:
        return
    if len(text) > INTERPOLATED:
        raise RequestError(f"{where} has more than {INTERPOLATED:,} characters around its ${{…}}.")
    for name in _resolvers(text):
        if name not in RESOLVERS:
            raise RequestError(
                f"{where} calls ${{{name}:…}}, which a configuration in a file may not do.\n"
                f"  Write the value itself, or refer to another key: ${{key}}. There are: {', '.join(RESOLVERS)}."
            )


def _resolvers(text: str) -> Iterator[str]:
    """The resolvers that OmegaConf would call for `text`, as they are written."""
    from omegaconf.grammar_parser import parse

    nodes: list[Any] = [parse(text)]
    while nodes:
        node = nodes.pop()
        if type(node).__name__ == "ResolverNameContext":
            yield node.getText()
        nodes += getattr(node, "children", None) or []
