"""Write and read `config.yaml` of a run, also one from elsewhere or from an older version.

YAML from elsewhere is read as plain values only: tags can create objects, nested aliases can stand for billions of
values, and `${oc.env:…}` reads the environment.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from odenet_cli import files, rundir
from odenet_cli.config.check import check, leaves
from odenet_cli.config.presets import written
from odenet_cli.config.schema import INCIDENTAL, Config
from odenet_cli.errors import RequestError

MAX_BYTES, MAX_VALUES, MAX_DEPTH = 1 << 20, 20_000, 50
PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq")}
# ${key} and the resolvers of `conf/`, without another ${…} inside.
INTERPOLATION = re.compile(r"\$\{([^:${}]+|(now|hydra|oc\.select):[^${}]*)\}")
SECTIONS = ("model", "solver", "gradient", "data", "optim", "trainer", "eval")  # in every version, in reading order
_reported: set[tuple[str, ...]] = set()


def save(config: Config, folder: Path, tied: bool) -> None:
    """Write `folder/config.yaml` atomically; `odenet train --config-dir folder --config-name config` runs it again.

    tied  `atol` follows `rtol`, so that a change of one number changes both
    """
    from omegaconf import OmegaConf

    content = OmegaConf.create(OmegaConf.to_container(OmegaConf.structured(replace(config, resume="none"))))
    del content.reproduce
    if tied:
        content.solver.atol = "${.rtol}"
    head = OmegaConf.to_yaml(OmegaConf.create({"defaults": ["schema", "hydra/odenet", "_self_"]}))
    files.write(folder / "config.yaml", head + OmegaConf.to_yaml(content))


def read_saved(folder: Path) -> dict[str, Any]:
    """Return the content of `folder/config.yaml`, resolved, newer options at their defaults; empty without such a file.

    Raise RequestError, with the file's name, if it is damaged.
    """
    from omegaconf import OmegaConf

    path = folder / "config.yaml"
    try:
        if not path.exists():
            return {}
        checked = check_yaml(path)
        with _named(path):
            content = OmegaConf.to_container(checked, resolve=True)
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}.") from error
    except RecursionError as error:
        raise RequestError(f"{path} contains a reference that leads back to itself.") from error
    if not isinstance(content, dict) or not content:
        raise RequestError(f"{path} is damaged: it has no keys.\n{_remedy(path)}")
    content.pop("defaults", None)
    for section in SECTIONS:  # half of a file is no older version
        if not isinstance(content.get(section), dict):
            raise RequestError(f"{path} is damaged: it has no section `{section}`.\n{_remedy(path)}")
    return add_new_options({str(key): value for key, value in content.items()}, path)


def load(folder: Path) -> Config:
    """Return the config of the run in `folder`, typed and checked."""
    from omegaconf import OmegaConf

    path, content = folder / "config.yaml", read_saved(folder)
    content.pop("hydra", None)  # of no use here
    if not content:
        raise RequestError(
            f"{folder} is not the folder of a run: {path} does not exist.\n  {rundir.where_one_is(folder)}"
        )
    for key, value in leaves(content):
        if "${" in str(value):  # it would be resolved a second time
            raise RequestError(f"{path}: {key} still contains a reference after all references were resolved.")
    with _named(path):
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), content))
    assert isinstance(config, Config)
    return check(config)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn OmegaConf's errors about the content of `path` into a `RequestError` that names it."""
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except OmegaConfBaseException as error:
        raise RequestError(f"{path}: {str(error.msg or error).splitlines()[0]}") from error


def _remedy(path: Path) -> str:
    return f"  Restore the file that the run wrote; the run's overrides are in {path.with_name('run.json')}."


def check_yaml(path: Path) -> Any:
    """Return the YAML file at `path` as OmegaConf has it; refuse it, by name, unless it is small, plain and sound."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        if path.exists() and not path.is_file():  # to read a pipe would wait forever
            raise RequestError(f"{path} is not a file.")
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise RequestError(f"{path} is larger than {MAX_BYTES:,} bytes, the limit for a configuration.")
        _check_events(content.decode("utf-8"), path)
        loaded = OmegaConf.load(path)
        values = OmegaConf.to_container(loaded)
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 text.") from error
    except (yaml.YAMLError, OmegaConfBaseException, LookupError, TypeError, ValueError) as error:
        raise RequestError(f"{path} is not valid YAML: {' '.join(str(error).split())[:200]}") from error
    for key, value in leaves(values):
        if isinstance(value, int) and abs(value) >= 2**63:
            raise RequestError(f"{path}: {key} is out of range: it must be below 2^63.")
        check_interpolation(f"{path}: {key}", value)
    return loaded


def _check_events(text: str, path: Path) -> None:
    """Count the values of a YAML text before any is made; refuse tags of objects, anchors and aliases."""
    import yaml

    depth = values = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        where = f"{path}, line {event.start_mark.line + 1}"
        tag, anchor = getattr(event, "tag", None), getattr(event, "anchor", None)
        if tag not in (None, "!") and tag not in PLAIN_TAGS:
            raise RequestError(
                f"{where}: the tag {tag.replace('tag:yaml.org,2002:', '!!')} is not allowed; a configuration may only "
                "contain plain values."
            )
        if anchor:
            raise RequestError(
                f"{where}: a configuration may not contain YAML anchors and aliases (&{anchor}, *{anchor})."
            )
        if depth == 0 and isinstance(event, yaml.ScalarEvent | yaml.SequenceStartEvent):
            raise RequestError(f"{path} is not a configuration: it has no keys.")
        values += isinstance(event, yaml.ScalarEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH or values > MAX_VALUES:
            raise RequestError(
                f"{where}: more than {MAX_VALUES:,} values, or {MAX_DEPTH} levels; no configuration needs so many."
            )


def check_interpolation(where: str, value: Any) -> None:
    """Refuse a text from a file that calls a resolver `conf/` has no use for: `${oc.env:…}` would read secrets."""
    rest = INTERPOLATION.sub("", value) if isinstance(value, str) else ""
    if "${" in rest:
        raise RequestError(
            f"{where} uses {rest[rest.rindex('${') :][:100]}, which is not allowed in a configuration file.\n"
            "  Write the value itself, or refer to another key: ${key}."
        )


def add_new_options(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return `content` of the file at `path` with the options it lacks, at their defaults; name those on stderr, once.

    A new option's default is what the program did before there was one, so an old run means what it meant.
    """
    new = _fill(content, default_options(content))
    values = {key: value for key, value in new.items() if value is not None and key not in INCIDENTAL}
    if values and tuple(values) not in _reported:
        _reported.add(tuple(values))
        listed = ", ".join(f"{key}={value}" for key, value in values.items())
        print(
            f"warning: {path} was written by an older version and lacks {listed}; these values are used.",
            file=sys.stderr,
        )
    return content


def default_options(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of every option of the schema, and of the model and the data set that `content` names.

    What an interpolation computes has none.
    """
    defaults = asdict(Config())
    for key in ("name", "resume", "reproduce"):
        del defaults[key]
    del defaults["optim"]["name"]
    for group in ("model", "data"):
        name = (content.get(group) or {}).get("name")
        preset = written(group, name) if isinstance(name, str) else {}
        defaults[group] = {key: value for key, value in preset.items() if key not in ("name", "target", "recipe")}
    return defaults


def _fill(content: dict[str, Any], defaults: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Add missing `defaults` to `content`, and return the added full keys and values."""
    new: dict[str, Any] = {}
    for key, value in defaults.items():
        if isinstance(value, dict) and isinstance(content.get(key, {}), Mapping):
            new |= _fill(content.setdefault(key, {}), value, f"{prefix}{key}.")
        elif key not in content:
            new[f"{prefix}{key}"] = content[key] = value
    return new
