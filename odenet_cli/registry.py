"""Names that are file names, and options that are a constructor's arguments.

A package such as `odenet_cli.models` is a registry: every module in it is one entry, so adding a file adds the name.
No torch here: listing and checking names must stay instant.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from odenet_cli.errors import RequestError, user_frame
from odenet_cli.markdown import join_words

MAX_OFFERED, MIN_BEGINNING = 3, 3  # names; letters
ELSEWHERE = {  # what scipy, MATLAB, torchdiffeq, PyTorch and YAML call it
    **{"rk45": "dopri5", "ode45": "dopri5", "rk23": "bosh3", "ode23": "bosh3", "dop853": "dopri8"},
    **{"adaptiveheun": "heun_euler", "implicitadams": "adams", "bdf": "rodas5p", "radau": "rodas5p"},
    **{"autograd": "backprop", "double": "float64", "yes": "true", "on": "true", "no": "false", "off": "false"},
}


def names(package: str) -> list[str]:
    """Return the entries of a registry package: its public modules, sorted."""
    modules = pkgutil.iter_modules(_folders(package))
    return sorted(module.name for module in modules if not module.name.startswith("_") and not module.ispkg)


def headlines(package: str) -> dict[str, str]:
    """Return name -> first line of its docstring for the entries of a registry package; none is imported."""
    (folder,) = _folders(package)
    texts = {name: Path(folder, f"{name}.py").read_text(encoding="utf-8") for name in names(package)}
    return {name: (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0] for name, text in texts.items()}


def _folders(package: str) -> list[str]:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(package)
    return list(spec.submodule_search_locations)


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return ' Did you mean `x`?' for the closest of `choices`, or an empty string.

    A key is known by its last word: `rtol` may be any that ends so, the shortest first, `solver.tol` is `solver.rtol`.
    Case, blanks and hyphens do not count, and a beginning stands for all that begin so, `data` for the keys of data.
    Other libraries' names are known.
    """
    choices = list(choices)
    if (ours := ELSEWHERE.get(_bare(str(name)))) in choices:
        return offer([ours])
    by_end: dict[str, list[str]] = {}
    for choice in choices:
        by_end.setdefault(_bare(choice.rpartition(".")[2]), []).append(choice)
    section, _, last = str(name).rpartition(".")
    end = _bare(last)
    begun = [other for other in by_end if len(end) >= MIN_BEGINNING and other.startswith(end)]
    close = [end] if end in by_end else begun or difflib.get_close_matches(end, by_end, n=1, cutoff=0.7)
    keys = [key for other in close or by_end for key in by_end[other]]
    of_section = [choice for choice in choices if choice.startswith(f"{name}.")]
    if of_section and not close:
        keys = of_section
    elif section or not close:
        keys = difflib.get_close_matches(str(name), keys, n=1, cutoff=0.8 if section and not close else 0.6)
    return offer(sorted(keys, key=lambda key: key.count("."))[:MAX_OFFERED])


def offer(names: Sequence[str]) -> str:
    """Return ' Did you mean `x` or `y`?', an empty string without names."""
    return f" Did you mean {join_words([f'`{name}`' for name in names], 'or')}?" if names else ""


def require(key: str, name: str, choices: Iterable[str]) -> str:
    """Return `name` if it is one of `choices`; else raise RequestError, which lists them and offers the nearest."""
    known = list(choices)
    if name not in known:
        raise RequestError(f"{key}={name} is not known.{nearest(name, known)}\n  Available: {', '.join(known)}.")
    return name


def require_alike(key: str, name: str, choices: Iterable[str]) -> str:
    """Return the choice that is spelled like `name` but for case, blanks and punctuation: odenet is `ODE-Net`."""
    known = list(choices)
    alike = [choice for choice in known if _bare(choice) == _bare(name)]
    return require(key, alike[0] if len(alike) == 1 else name, known)


def _bare(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold().replace("δ", "d")


def check_options(
    key: str,
    function: Callable[..., Any],
    options: Mapping[str, Any],
    given: Iterable[str] = (),
    sign: str = "",
    of: str = "",
) -> None:
    """Check `options` against the signature of `function`; arguments in `given` come from elsewhere.

    sign  what is written before the key of an option that no preset has: `+`
    of    the preset whose options they are

    Names must exist, nothing required may be missing, and values must have the annotated type. A `RequestError` names
    the full key (`model.width`), the value and what is allowed.
    """
    signature = inspect.signature(function)
    plain = inspect.isclass(function) and not dataclasses.is_dataclass(function)
    # Of a dataclass each field is annotated in the words of the module that has it.
    hints = typing.get_type_hints(function.__init__ if plain else function)
    named = {name: p for name, p in signature.parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    allowed = {name: p for name, p in named.items() if name not in given}
    for name, value in options.items():
        if name not in allowed:
            listing = ", ".join(allowed) or "none"
            where = f"of {key}={of}" if of else "here"
            raise RequestError(
                f"{key}.{name} is not an option {where}.{nearest(name, allowed)}\n  Available: {listing}."
            )
        if name in hints and not has_type(value, hints[name]):
            raise RequestError(f"{key}.{name}={value!r} is not {describe_type(hints[name])}.")
    for name, parameter in allowed.items():
        if parameter.default is inspect.Parameter.empty and name not in options:
            known = f"; the program itself passes {', '.join(given)}" if given else ""
            raise RequestError(f"{key}.{name} is missing; give it a value: {sign}{key}.{name}=…{known}.")


def has_type(value: object, hint: Any) -> bool:
    """Return whether `value` has the annotated type; a whole number is also a float, a truth value is no number."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin is typing.Literal:
        return value in arguments
    if origin in (typing.Union, types.UnionType):
        return any(has_type(value, part) for part in arguments)
    if origin in (list, tuple):
        return isinstance(value, (list, tuple)) and all(has_type(item, arguments[0]) for item in value)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is type(None):
        return value is None
    return isinstance(value, hint) if inspect.isclass(hint) else True


def describe_type(hint: Any) -> str:
    """Return an annotated type in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe_type(part) for part in arguments)
    if origin in (list, tuple):
        return f"a list of {describe_type(arguments[0])}"
    plain = {int: "a whole number", float: "a number", str: "a word", bool: "true or false", type(None): "null"}
    return plain.get(hint, getattr(hint, "__name__", str(hint)))


def load_target(key: str, options: Mapping[str, Any]) -> tuple[type[Any], dict[str, Any]]:
    """Return the user's own class, `options["target"]` as `package.module:Class`, and the other options."""
    rest = {name: value for name, value in options.items() if name != "target"}
    return load_class(f"{key}.target", options.get("target")), rest


def load_class(key: str, target: object) -> type[Any]:
    """Return the user's own class of networks, `target` as `package.module:Class`.

    Whatever the constructor raises becomes a `RequestError`.
    """
    own = load_named(key, target)
    if not (inspect.isclass(own) and hasattr(own, "named_parameters")):
        raise RequestError(f"{key}={target} is not a class of networks (torch.nn.Module).")
    return _guarded(f"{key}={target}", own)


def load_named(key: str, target: object) -> Any:
    """Return what the user's own code names `target`, `package.module:Name`.

    The current folder is searched last. Whatever the module raises becomes a `RequestError`.
    """
    module, colon, name = str(target or "").partition(":")
    if not (module and colon and name):
        raise RequestError(f"{key}={target} must read package.module:Class.")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        loaded = importlib.import_module(module)
    except ImportError as error:
        raise RequestError(f"{key}={target} cannot be imported: {error}") from error
    except (Exception, SystemExit) as error:
        raise RequestError(f"{key}={target} cannot be imported: {describe(error)}.") from error
    try:
        return getattr(loaded, name)
    except AttributeError as error:
        raise RequestError(f"{key}: {module} has no {name}.") from error


def _guarded(what: str, own: type[Any]) -> type[Any]:
    """Return `own` with a constructor whose errors become RequestError."""

    @functools.wraps(own.__init__)
    def construct(self: Any, *arguments: Any, **options: Any) -> None:
        try:
            own.__init__(self, *arguments, **options)
        except RequestError:
            raise
        except (Exception, SystemExit) as error:
            raise RequestError(f"{what} cannot be created: {describe(error)}.") from error
        object.__setattr__(self, "__class__", own)  # as which it can be pickled

    names = {name: getattr(own, name) for name in ("__module__", "__qualname__", "__doc__")}
    kind: Any = type(own)
    guarded: type[Any] = kind(own.__name__, (own,), {**names, "__init__": construct})
    return guarded


def describe(error: BaseException) -> str:
    """Return an exception in one line, and where in the user's code it arose."""
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({'' if error.code is None else repr(error.code)})"
    where = user_frame(error)
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".removesuffix(".")
    return f"{text}\n  {where}" if where else text
