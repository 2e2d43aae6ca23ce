"""The places that a field's code can read: in closures, globals, objects, modules and containers, each once.

Attributes are looked up by name where the code reads them by name (`odenet_cli.ode.field.code`).
"""

from __future__ import annotations

import functools
import gc
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import torch
from torch import Tensor

from odenet_cli.ode.field.code import always_read, class_reads, is_library, reads
from odenet_cli.ode.field.random_state import RANDOM, Generator, kept, of_modules
from odenet_cli.ode.field.snapshot import ABSENT, SIMPLE, Place, Slots, Snapshot, is_array

_ITEMS = (list, tuple, set, frozenset, deque)
_BUILTIN = frozenset((dict, *_ITEMS))
_WRAPPERS = (property, staticmethod, classmethod, functools.cached_property)
_CODE = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType, type)
_LOOKED_INTO = (torch.nn.Module, *_CODE, functools.partial, *_WRAPPERS)
_DULL = SIMPLE - {types.BuiltinFunctionType}  # one may be the method of a generator
_OF_MODULES = frozenset(vars(torch.nn.Module())) - {"training"}  # looked into apart


def reach(roots: Iterable[tuple[str, Any]]) -> tuple[Snapshot, dict[int, Tensor], list[Generator]]:
    """Return what is held within the reach of `roots`, by id the parameters of modules there that no code names, and
    the generators of random numbers."""
    walk = _Walk()
    for name, root in roots:
        walk.push(root, Place(None, "{}", name))
    walk.run()
    if not RANDOM.isdisjoint(walk.names):
        walk.generators += of_modules()
    return Snapshot(walk.slots, walk.fills), walk.spare(), walk.generators


class _Space:
    """A namespace of which only some names are read: of an object, a class, or a module.

    local     names that are read whatever code says; None: all
    absent    a name that it lacks counts too, for it may come and hide another
    named     never read but by name
    spare     what is not named is within reach all the same
    sized     an entry more is a change
    """

    def __init__(
        self,
        mapping: Any,
        place: Place,
        local: AbstractSet[str] | None = frozenset(),
        *,
        absent: bool = False,
        named: bool = False,
        spare: bool = False,
        sized: bool = False,
    ) -> None:
        self.mapping, self.place, self.local = mapping, place, local
        self.absent, self.named, self.spare, self.sized = absent, named, spare, sized
        self.keys: set[str] = set()
        self.stand: Any = None


class _Walk:
    """A search, and what it has found.

    generators  of random numbers
    names       attributes that code reads
    anything    code reads attributes that it does not name
    fills       code puts entries into dictionaries
    """

    def __init__(self) -> None:
        self.slots: list[Slots] = []
        self.generators: list[Generator] = []
        self.names: set[str] = set()
        self.anything = self.fills = False
        self._seen: dict[int, tuple[Any, bool]] = {}
        self._pending: list[tuple[Any, Place, bool]] = []
        self._spaces: list[_Space] = []
        self._classes: dict[type, _Space] = {}
        self._libraries: list[tuple[Place, dict[str, Any]] | None] = []
        self._parts, self._calls = _Parts(), _Calls()

    def push(self, value: Any, place: Place, whole: bool = True) -> None:
        """Look into `value` later. Not `whole`: it is neither called nor passed on, only its attributes are read."""
        if type(value) not in _DULL and not isinstance(value, Tensor):
            self._pending.append((value, place, whole))

    def run(self) -> None:
        seen, pending = self._seen, self._pending
        while pending:
            while pending:
                value, place, whole = pending.pop()
                known = seen.get(id(value))
                if known is None or (whole and not known[1]):
                    seen[id(value)] = (value, whole)
                    self._visit(value, place, whole)
            for n, at in enumerate(self._libraries):
                if at and (self.anything or not self.names.isdisjoint(at[1])):  # the user may have put something there
                    self._spaces.append(_Space(at[1], at[0]))
                    self._libraries[n] = None
            for space in self._spaces:
                self._scan(space)
        self._finish()

    def spare(self) -> dict[int, Tensor]:
        found: dict[int, Tensor] = {}
        for space in self._spaces:
            for part in [part for key, part in space.mapping.items() if key not in space.keys] if space.spare else ():
                tensors = [part] if isinstance(part, Tensor) else () if part is None else part.parameters()
                found.update((id(tensor), tensor) for tensor in tensors if tensor.requires_grad)
        return found

    def _add(
        self,
        read: Callable[[], Sequence[Any]],
        names: Sequence[Any],
        form: str,
        holder: Place,
        container: Any = None,
        bare: frozenset[str] | None = None,
    ) -> None:
        """Note places, and look into what they hold; as a whole only what is used `bare`."""
        self.slots.append(Slots(read, names, form, holder, container))
        for name, value in zip(names, read()):
            if type(value) not in _DULL and not isinstance(value, Tensor):
                self._pending.append((value, Place(holder, form, name), bare is None or name in bare))

    def _scan(self, space: _Space) -> None:
        """Note the names of a namespace that are read, as far as they are known by now."""
        mapping, known, names, local = space.mapping, space.keys, self.names, space.local
        stand = len(names), self.anything, 0 if local is None else len(local)
        if stand == space.stand:
            return
        space.stand = stand
        keys = [key for key in list(mapping) if key not in _OF_MODULES and key not in known]
        if local is not None and (space.named or not self.anything):
            keys = [key for key in keys if key in names or key in local]
        if space.absent:
            keys += [key for key in names if key not in known and key not in mapping]
        if keys:
            known.update(keys)
            self._add(
                functools.partial(_get, mapping, keys), keys, ".{}", space.place, mapping if space.sized else None
            )

    def _visit(self, value: Any, place: Place, whole: bool) -> None:
        if isinstance(value, torch.nn.Module):
            self._object(value, place, whole)
        elif isinstance(value, types.FunctionType):
            self._function(value, place)
        elif isinstance(value, types.MethodType):
            code = getattr(value.__func__, "__code__", None)
            self.push(value.__func__, place)
            itself = code is None or code.co_varnames[:1] == () or code.co_varnames[0] in reads(code).bare
            self.push(value.__self__, Place(place, ": {}", "self"), itself)
        elif isinstance(value, types.ModuleType):
            if value.__name__ in RANDOM:
                self.names.add("random")
            elif not is_library(getattr(value, "__file__", None)):
                self._spaces.append(_Space(vars(value), place, named=True))
        elif isinstance(value, type):
            self._class(value, place, whole)
        elif isinstance(value, weakref.ref):
            self.push(value(), place)
        elif isinstance(value, _WRAPPERS):
            for name in ("fget", "__func__", "func"):
                self.push(getattr(value, name, None), place)
        elif isinstance(value, functools.partial):
            self.push(value.func, place)
            self._add(functools.partial(list, value.args), range(len(value.args)), ": argument {}", place)
            self._add(
                functools.partial(_get, value.keywords, list(value.keywords)), list(value.keywords), ": {}", place
            )
        elif isinstance(value, dict):
            keys = list(value)
            self._add(functools.partial(_get, value, keys), keys, "[{!r}]", place, container=value)
        elif isinstance(value, _ITEMS):
            self._add(functools.partial(list, value), range(len(value)), "[{}]", place, container=value)
        elif isinstance(value, types.BuiltinFunctionType):
            if kept(value.__self__) is not None:
                self.push(value.__self__, place)
        elif is_array(value):
            return
        elif (generator := kept(value)) is not None:
            self.generators.append(generator)
            return
        if type(value) not in _BUILTIN and not isinstance(value, _LOOKED_INTO):
            self._object(value, place, whole)

    def _function(self, function: types.FunctionType, place: Place) -> None:
        code = function.__code__
        found = reads(code)
        if not found.library:
            self.names |= found.attributes
            self.anything, self.fills = self.anything or found.anything, self.fills or found.fills
            variables = [name for name in found.variables if name in function.__globals__]
            self._add(
                functools.partial(_get, function.__globals__, variables), variables, ": {}", place, None, found.bare
            )
        if function.__closure__:
            cells = functools.partial(_contents, function.__closure__)
            self._add(cells, code.co_freevars, ": {}", place, None, None if found.library else found.bare)
        if function.__defaults__ or function.__kwdefaults__:
            self._add(functools.partial(_defaults, function), ("defaults", "defaults"), ": its {}", place)
        if function.__dict__:
            self._spaces.append(_Space(vars(function), place, {"__wrapped__", "_torchdynamo_orig_callable"}))

    def _class(self, cls: type, place: Place, whole: bool) -> None:
        """Look into the code, and the attributes, that a class of the user's has for its instances."""
        for base in class_reads(cls).own:
            known = self._classes.get(base)
            if known is None:
                known = self._classes[base] = _Space(vars(base), Place(place, "", ""), named=True)
                self._spaces.append(known)
            known.local = frozenset((*(known.local or ()), *always_read(base, whole)))

    def _object(self, value: Any, place: Place, whole: bool) -> None:
        kind: Any = type(value)
        known = class_reads(kind)
        mapping = getattr(value, "__dict__", None)
        if isinstance(value, torch.nn.Module):
            self._module(value, place, whole)
            if not known.own:
                return
        elif known.opaque:
            read = functools.partial(_referents, value, mapping)
            self._add(read, range(len(read())), "", place)
        local = None if known.anything else known.local
        self._class(kind, place, whole)
        if isinstance(mapping, dict):
            self._spaces.append(_Space(mapping, place, local, absent=bool(known.own)))
        if known.slots:
            self._spaces.append(_Space(_Attributes(value, known.slots), place, local))

    def _module(self, module: torch.nn.Module, place: Place, whole: bool) -> None:
        """Look into a module: what a user's class holds by name, all of others; and what its call goes through."""
        kind: Any = type(module)
        known, mapping = class_reads(kind), vars(module)
        if isinstance(module, torch.jit.ScriptModule):
            read = functools.partial(lambda m: [*m.parameters(), *m.buffers()], module)
            return self._add(read, range(len(read())), " tensor {}", place)
        for name in ("_parameters", "_buffers", "_modules"):
            if part := mapping.get(name):
                if known.own:
                    self._spaces.append(_Space(part, place, spare=whole and name != "_buffers"))
                    continue
                self._parts.places.append(place)
                self._parts.mappings.append(part)
                self._parts.counts.append(len(part))
                if name == "_modules":
                    self._pending += [(child, Place(place, ".{}", key), True) for key, child in part.items()]
        if not known.own:
            self._libraries.append((place, mapping))
            if local := [name for name in known.local if name in mapping and name not in _OF_MODULES]:
                self._add(functools.partial(_get, mapping, local), local, ".{}", place)
        if whole:
            self._calls.places.append(place)
            self._calls.mappings.append(mapping)
            for name in ("_forward_pre_hooks", "_forward_hooks"):
                if hooks := mapping.get(name):
                    self._add(functools.partial(_get, hooks, list(hooks)), list(hooks), ": hook {}", place)
            self.push(mapping.get("forward"), Place(place, ".{}", "forward"))
        return None

    def _finish(self) -> None:
        """Note what is read of all modules together: the bulk of most fields."""
        if self._parts:
            self.slots.append(Slots(self._parts.read, self._parts, "{}", None, container=self._parts, keeps=True))
        if self._calls.mappings:
            self.slots.append(Slots(self._calls.read, self._calls, "the call of {}", None))


class _Parts:
    """Parameters, buffers and parts of modules, one dictionary after the other, and their places."""

    def __init__(self) -> None:
        self.places: list[Place] = []
        self.mappings: list[dict[str, Any]] = []
        self.counts: list[int] = []

    def __len__(self) -> int:
        return sum(map(len, self.mappings))

    def __str__(self) -> str:
        """The place of that whose number of entries has changed."""
        return next(
            (str(place) for place, n, part in zip(self.places, self.counts, self.mappings) if len(part) != n), ""
        )

    def __getitem__(self, n: int) -> Place:
        names = [(place, name) for place, part in zip(self.places, self.mappings) for name in part]
        return Place(names[n][0], ".{}", names[n][1])

    def read(self) -> list[Any]:
        found: list[Any] = []
        for part in self.mappings:
            found += part.values()
        return found


class _Calls:
    """What the calls of modules go through besides their classes: hooks, and a `forward` of their own."""

    def __init__(self) -> None:
        self.places: list[Place] = []
        self.mappings: list[dict[str, Any]] = []

    def __getitem__(self, n: int) -> Place:
        return self.places[n // 3]

    def read(self) -> list[Any]:
        found: list[Any] = []
        for mapping in self.mappings:
            found += len(mapping["_forward_pre_hooks"]), len(mapping["_forward_hooks"]), mapping.get("forward")
        return found


class _Attributes:
    """The slots of an object, as a namespace."""

    def __init__(self, owner: Any, names: Sequence[str]) -> None:
        self.owner, self.names = owner, names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def get(self, name: str, default: Any) -> Any:
        return getattr(self.owner, name, default)


def _get(mapping: Any, keys: Sequence[Any]) -> list[Any]:
    get = mapping.get
    return [get(key, ABSENT) for key in keys]


def _contents(cells: Sequence[types.CellType]) -> list[Any]:
    return [ABSENT if cell == types.CellType() else cell.cell_contents for cell in cells]


def _defaults(function: types.FunctionType) -> list[Any]:
    return [function.__defaults__, function.__kwdefaults__]


def _referents(value: Any, mapping: Any) -> list[Any]:
    """What an object without code in Python holds; its class and its own namespace aside."""
    return [part for part in gc.get_referents(value) if part is not mapping and not isinstance(part, type)]
