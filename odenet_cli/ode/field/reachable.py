"""Find the values that a vector field can read, wherever they are stored.

    nets = [Net(), Net()]
    def field(t, y):
        return nets[int(t > 0.5)](y) * settings.scale

The walk starts at the field and follows what each value's code can read (`odenet_cli.ode.field.code`): from a function
to its closure, the globals that it names and its defaults; from a method to its function and its object; from an object
to those attributes that are named by any code reached so far; from a container to its items; from a module of torch to
its parameters, buffers, submodules and hooks. Here it finds `nets`, both networks and their layers, `settings`, and its
attribute `scale`. Since code found later can name an attribute of an object found earlier, objects are visited again
until nothing new is found.

Each holder of values is recorded with a function that reads the values again, from which `snapshot` finds changes. Not
found: values inside objects of C extensions, ContextVars, and what code imports at run time.
"""

from __future__ import annotations

import logging
import types
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from odenet_cli.ode.field.code import class_reads, code_reads, implicit_methods, is_library
from odenet_cli.ode.field.random_state import RANDOM_MODULES, Generator, as_generator, module_generators
from odenet_cli.ode.field.snapshot import ABSENT, SIMPLE, Holder, Snapshot

_ITEMS = (list, tuple, set, frozenset, deque)
_MAPPINGS = (dict, types.MappingProxyType)
_WITHOUT_ATTRIBUTES = frozenset((*_ITEMS, *_MAPPINGS, types.BuiltinFunctionType))
# Not walked into: a logger reaches all others. But a builtin function may be a generator's method, as random.gauss is.
_LEAVES = SIMPLE - {types.BuiltinFunctionType} | {logging.Logger, logging.RootLogger}
_REGISTERED = ("_parameters", "_buffers", "_modules")
_MODULE_INTERNALS = frozenset(vars(torch.nn.Module())) - {"training"}
_DYNAMO_ORIGINAL = "_torchdynamo_orig_callable"  # where torch.compile keeps the function that it was given


class Reachable(NamedTuple):
    """Hold the result of a walk.

    snapshot    the values, as they are now
    parameters  of torch modules, by id, that no code names but a module's own call may read
    generators  of random numbers
    """

    snapshot: Snapshot
    parameters: dict[int, Tensor]
    generators: list[Generator]


def reachable(roots: Iterable[tuple[str, Any]]) -> Reachable:
    """Return everything that can be read from the named `roots`."""
    # Names lead to what an error message calls a value: "field.net[0].weight".
    walk = _Walk()
    for name, root in roots:
        walk.push(root, name)
    walk.run()
    # np.random.normal and random.gauss name the module whose hidden generator they draw from.
    if not RANDOM_MODULES.isdisjoint(walk.names):
        walk.generators += module_generators()
    return Reachable(Snapshot(walk.holders), walk.unnamed_parameters(), walk.generators)


@dataclass(slots=True)
class _Namespace:
    """Hold the attributes of an object, class or Python module; only those that code names are read.

    name        of the object, for messages
    attributes  as a mapping
    local       names that are read in any case
    of_object   whether code that composes names may read all attributes, as for objects; those of classes and Python
                modules are read by name only
    hides       whether absent attributes are recorded too: one set later would hide that of the class
    known       names recorded already
    version     of the names at the last lookup
    """

    name: str
    attributes: Mapping[str, Any]
    local: AbstractSet[str] = frozenset()
    of_object: bool = True
    hides: bool = False
    known: AbstractSet[str] = frozenset()
    version: tuple[int, int, bool] | None = None


class _Slots(dict[str, Any]):
    """Show the slots of an object as a mapping."""

    def __init__(self, value: Any, names: Iterable[str]) -> None:
        super().__init__(dict.fromkeys(names))
        self._value = value

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self._value, name, default)


class _Walk:
    """Walk over values, depth first, each once.

    holders     of values that can be read
    names       of attributes that code reads
    generators  of random numbers
    """

    def __init__(self) -> None:
        self.holders: list[Holder] = []
        self.names: set[str] = set()
        self.generators: list[Generator] = []
        self._any_attribute = self._fills_dicts = False
        self._seen: dict[int, tuple[Any, bool]] = {}
        self._pending: list[tuple[Any, str, bool]] = []
        self._namespaces: list[_Namespace] = []
        self._classes: dict[type, set[str]] = {}
        self._called: list[tuple[torch.nn.Module, str]] = []

    def push(self, value: Any, name: str, whole: bool = True) -> None:
        """Visit `value` later. If not `whole`, it is neither called nor passed on, only attributes of it are read."""
        # A stack in place of recursion: what a field reads may nest deeper than Python recurses.
        if type(value) not in _LEAVES and not isinstance(value, Tensor):
            self._pending.append((value, name, whole))

    def run(self) -> None:
        """Visit everything within reach."""
        while self._pending:
            while self._pending:
                value, name, whole = self._pending.pop()
                first = id(value) not in self._seen
                if first or (whole and not self._seen[id(value)][1]):
                    # With the value, which so lives on: its id is not given to another object.
                    self._seen[id(value)] = (value, whole)
                    self._visit(value, name, whole, first)
            # Code that was read last may name attributes of objects that were visited first.
            for namespace in self._namespaces:
                self._read_named(namespace)
        if self._fills_dicts:
            for holder in self.holders:
                # A field that writes into dictionaries may keep a cache in any of them.
                holder.may_grow = holder.is_dict
        # What the call of a module goes through besides its class, of all modules together: most have none of it.
        modules = [vars(module) for module, _ in self._called]
        names = [name for _, name in self._called for _ in range(3)]
        self.holders.append(Holder("the call of ", "{}", names, partial(_hooks_and_forward, modules)))

    def unnamed_parameters(self) -> dict[int, Tensor]:
        """Return the parameters of modules, by id, that were not visited but can be reached through their parents."""
        # A user's forward may go over its children in a way that no name shows: their parameters are inputs as well.
        tensors: list[Tensor | None] = []
        for module in (module for module, _ in self._called if _is_own(module)):
            tensors += module._parameters.values()
            for child in module._modules.values():
                if child is not None and id(child) not in self._seen:
                    tensors += child.parameters()
        return {id(tensor): tensor for tensor in tensors if tensor is not None and tensor.requires_grad}

    def _hold(
        self,
        name: str,
        form: str,
        keys: Collection[Any],
        read: Callable[[], Iterable[Any]],
        whole: AbstractSet[Any] | None = None,
        is_dict: bool = False,
    ) -> None:
        """Note a holder, and visit its values: as a whole all of them, or those with keys in `whole`."""
        # Noted with the way to read it again: the backward pass compares places, not only the values they had.
        holder = Holder(name, form, list(keys), read, is_dict)
        self.holders.append(holder)
        for key, value in zip(holder.keys, holder.values):
            if type(value) not in _LEAVES and not isinstance(value, Tensor):
                self._pending.append((value, holder.label(key), whole is None or key in whole))

    def _read_named(self, space: _Namespace) -> None:
        """Note the attributes of `space` that are named by now."""
        # Names are only ever added, so that their numbers tell whether a second look can find anything.
        version = len(self.names), len(space.local), self._any_attribute
        if version == space.version:
            return
        space.version, present = version, space.attributes.keys()
        read = present if space.of_object and self._any_attribute else present & self.names
        if space.local:
            read = read | (present & space.local)
        # An attribute set later on the object would be read in the place of its class's: its absence is noted too.
        if space.hides:
            read = read | self.names
        if read and (keys := sorted(read - space.known - _MODULE_INTERNALS)):
            space.known = space.known | set(keys)
            self._hold(space.name, ".{}", keys, partial(_get, space.attributes, keys))

    def _visit(self, value: Any, name: str, whole: bool, first: bool) -> None:
        if isinstance(value, torch.nn.Module):
            self._visit_module(value, name, whole, first)
            self._visit_object(value, name, whole, first)
        elif isinstance(value, types.FunctionType):
            self._visit_function(value, name)
        elif isinstance(value, types.MethodType):
            code = getattr(value.__func__, "__code__", None)
            # `self` is read as a whole only where the code passes it on; else only the attributes of it that are named.
            itself = code is None or not code.co_varnames or code.co_varnames[0] in code_reads(code).whole
            self.push(value.__func__, name)
            self.push(value.__self__, f"{name}: self", itself)
        elif isinstance(value, types.ModuleType):
            if value.__name__ in RANDOM_MODULES:
                self.names.add("random")
            elif not is_library(getattr(value, "__file__", None)):
                self._namespaces.append(_Namespace(name, vars(value), of_object=False))
        elif isinstance(value, weakref.ref):
            self.push(value(), name)
        elif isinstance(value, type):
            self._visit_class(value, name, whole)
        elif (generator := as_generator(value)) is not None:
            self.generators.append(generator)
        else:
            if isinstance(value, _MAPPINGS):
                self._hold(name, "[{!r}]", value, value.values, is_dict=True)
            elif isinstance(value, _ITEMS):
                self._hold(name, "[{}]", range(len(value)), value.__iter__)
            if type(value) not in _WITHOUT_ATTRIBUTES:
                self._visit_object(value, name, whole, first)

    def _visit_function(self, function: types.FunctionType, name: str) -> None:
        reads, cells = code_reads(function.__code__), function.__closure__ or ()
        library = is_library(function.__code__.co_filename)
        variables = [] if library else [key for key in reads.globals if key in function.__globals__]
        if not library:
            self.names |= reads.attributes
            self._any_attribute |= reads.any_attribute
            self._fills_dicts |= reads.fills_dicts

        def read() -> list[Any]:
            defaults = function.__defaults__, function.__kwdefaults__
            return [*_get(function.__globals__, variables), *map(_contents, cells), *defaults]

        # Library code: what it closes over is read as a whole, since its own code is not looked into.
        keys = (*variables, *function.__code__.co_freevars, "its defaults", "its defaults")
        self._hold(name, ": {}", keys, read, None if library else reads.whole)
        if attributes := vars(function):
            local = frozenset(("__wrapped__", _DYNAMO_ORIGINAL))
            self._namespaces.append(_Namespace(name, attributes, local))

    def _visit_class(self, cls: type, name: str, whole: bool) -> None:
        """Look into the code, and the attributes, that a class of the user's has for its instances."""
        # Methods that Python calls by itself (forward, operators) are read although no code names them.
        for base in class_reads(cls).own:
            if base not in self._classes:
                self._classes[base] = set()
                self._namespaces.append(_Namespace(name, vars(base), self._classes[base], of_object=False))
            methods = implicit_methods(base)
            self._classes[base] |= methods if whole else methods & {"__getattr__", "__getattribute__"}

    def _visit_object(self, value: Any, name: str, whole: bool, first: bool) -> None:
        cls: Any = type(value)
        reads, attributes = class_reads(cls), getattr(value, "__dict__", None)
        if reads.own:
            self._visit_class(cls, name, whole)
        if first and isinstance(attributes, dict):
            self._namespaces.append(_Namespace(name, attributes, reads.attributes, hides=bool(reads.own)))
        if first and reads.slots:
            self._namespaces.append(_Namespace(name, _Slots(value, reads.slots), reads.attributes))

    def _visit_module(self, module: torch.nn.Module, name: str, whole: bool, first: bool) -> None:
        """Visit a module's registered values, by name if its class is the user's, and its forward and hooks."""
        attributes = vars(module)
        if not isinstance(attributes.get("_parameters"), dict):  # a scripted module keeps them in C++
            tensors = [*module.parameters(), *module.buffers()]
            self._hold(name, ": tensor {}", range(len(tensors)), lambda: tensors)
            return
        own = _is_own(module)
        # Of a user's class its code says which it reads; a class of torch, Sequential say, reads all it has registered.
        for key in _REGISTERED if first else ():
            if (registered := attributes[key]) and own:
                self._namespaces.append(_Namespace(name, registered))
            elif registered:
                self._hold(name, ".{}", registered, registered.values)
        # A module that is called runs its forward and hooks; one of which only attributes are read does not.
        if whole:
            self._called.append((module, name))
            self.push(attributes.get("forward"), f"{name}.forward")
            for hook in (*attributes["_forward_pre_hooks"].values(), *attributes["_forward_hooks"].values()):
                self.push(hook, f"{name}: hook")


def _is_own(module: torch.nn.Module) -> bool:
    """Return whether the class of `module` is the user's, so that its code decides what is read."""
    cls: Any = type(module)
    return bool(class_reads(cls).own)


def _hooks_and_forward(modules: list[dict[str, Any]]) -> list[Any]:
    values: list[Any] = []
    for module in modules:
        values += len(module["_forward_pre_hooks"]), len(module["_forward_hooks"]), module.get("forward")
    return values


def _get(mapping: Mapping[str, Any], keys: Iterable[str]) -> list[Any]:
    get = mapping.get
    return [get(key, ABSENT) for key in keys]


def _contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return ABSENT
