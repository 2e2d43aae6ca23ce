"""What code can read: the variables and attributes that its bytecode names.

A field is compared with itself between a solve and its backward pass (`field.snapshot`). What its code never
reads, a log beside it or the loss that a model keeps, may change.
"""

from __future__ import annotations

import dis
import os
import sys
import sysconfig
import types
from functools import lru_cache
from typing import Any, NamedTuple

import torch


class Reads(NamedTuple):
    """What the code of a function can read.

    variables   names it looks up as globals
    attributes  names it looks up in objects, strings that may be such names, and modules that it imports
    bare        variables whose object it uses as a whole: calls, passes on, indexes; of others it reads attributes only
    anything    it reads attributes that it does not name, by getattr say
    fills       it puts items into dictionaries
    library     it belongs to Python, to torch or to an installed package, whose globals stay as they are
    """

    variables: frozenset[str]
    attributes: frozenset[str]
    bare: frozenset[str]
    anything: bool
    fills: bool
    library: bool


class ClassReads(NamedTuple):
    """What the code of a class reads of its instances.

    own       its classes whose code is the user's, to be looked into like the field
    local     attributes that the code of its other classes reads
    anything  that code reads attributes it does not name
    slots     names of its slots
    opaque    it has no code in Python
    """

    own: tuple[type, ...]
    local: frozenset[str]
    anything: bool
    slots: tuple[str, ...]
    opaque: bool


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Names by which code gets at attributes that it does not name.
_BY_NO_NAME = _words(
    """getattr vars eval exec attrgetter methodcaller globals locals __dict__ __getattribute__ asdict astuple
    functional_call state_dict _modules _parameters _buffers modules named_modules children named_children parameters
    named_parameters buffers named_buffers get_submodule get_parameter get_buffer"""
)
_FILLING = _words("setdefault update __setitem__")
# Methods that no evaluation calls.
_IDLE = _words(
    """__init__ __new__ __post_init__ __repr__ __str__ __setstate__ __getstate__ __reduce__ __reduce_ex__ __del__
    __setattr__ __delattr__ __deepcopy__ __copy__ __init_subclass__ __class_getitem__ __eq__ __hash__ extra_repr"""
)
_LIBRARIES = tuple(
    {os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {os.path.join(os.path.dirname(torch.__file__), "")}
)
_known: dict[int, tuple[types.CodeType, Reads]] = {}


def reads(code: types.CodeType) -> Reads:
    """Return what `code`, and the functions written inside it, can read."""
    known = _known.get(id(code))  # not by equality: a code object hashes all its bytes
    if known is None or known[0] is not code:
        if len(_known) > 10_000:
            _known.clear()
        known = _known[id(code)] = (code, _read(code))
    return known[1]


def _read(code: types.CodeType) -> Reads:
    variables: set[str] = set()
    attributes = {text for text in code.co_consts if isinstance(text, str) and text.isidentifier()}
    bare: set[str] = set()
    instructions = list(dis.get_instructions(code))
    for instruction, following in zip(instructions, [*instructions[1:], None]):
        name, value = instruction.opname, instruction.argval
        if name in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "IMPORT_FROM", "IMPORT_NAME"):
            attributes.add(value)
        elif name.startswith(("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_FAST", "LOAD_CLASSDEREF", "LOAD_FROM_")):
            loaded = value if isinstance(value, tuple) else (value,)  # two of them in one instruction
            if name.startswith(("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_")):
                variables.update(loaded)
            as_base = following is not None and following.opname in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR")
            bare.update(loaded[:-1] if as_base else loaded)
    inner = [_read(part) for part in code.co_consts if isinstance(part, types.CodeType)]
    variables = variables.union(*(part.variables for part in inner))
    attributes = attributes.union(*(part.attributes for part in inner))
    return Reads(
        frozenset(variables),
        frozenset(attributes),
        frozenset(bare.union(*(part.bare for part in inner))),
        not _BY_NO_NAME.isdisjoint(variables | attributes),
        any(part.fills for part in inner)
        or not _FILLING.isdisjoint(attributes)
        or any(instruction.opname == "STORE_SUBSCR" for instruction in instructions),
        is_library(code.co_filename),
    )


def is_library(file: str | None) -> bool:
    """Return whether `file` belongs to Python, to torch or to an installed package."""
    return file is None or file.startswith(("<frozen", "<__array_function__", *_LIBRARIES))


@lru_cache(maxsize=1000)
def class_reads(cls: type) -> ClassReads:
    """Return what the code of `cls` and of its bases reads of an instance."""
    line = [base for base in cls.__mro__ if base not in (object, torch.nn.Module)]
    own = tuple(base for base in line if not _library_class(base))
    slots = [vars(base).get("__slots__", ()) for base in cls.__mro__]
    names = dict.fromkeys(name for part in slots for name in ((part,) if isinstance(part, str) else part))
    # A user's class reads by its own code; what a framework above it keeps in it is no part of the field.
    lent = [base for base in line if base not in own and (not own or base.__module__.startswith("torch."))]
    codes = [code for base in lent for name, value in vars(base).items() if name not in _IDLE for code in _codes(value)]
    found = [reads(code) for code in codes]
    module = issubclass(cls, torch.nn.Module)
    return ClassReads(
        own,
        frozenset().union(*(part.attributes for part in found)),
        not module and not own and any(part.anything for part in found),
        tuple(_mangled(cls, name) for name in names if name not in ("__dict__", "__weakref__")),
        not own and not codes and not module,
    )


def always_read(base: type, whole: bool) -> list[str]:
    """Return the names of the methods of `base` that are called without being named, on an object that is used `whole`
    or of which only attributes are read."""
    if not whole:
        return [name for name in ("__getattr__", "__getattribute__") if name in vars(base)]
    return [name for name in vars(base) if name == "forward" or (name[:2] == "__" and name not in _IDLE)]


def _library_class(base: type) -> bool:
    if base.__module__ == "builtins":
        return True
    module = sys.modules.get(base.__module__)
    return module is not None and base.__module__ != "__main__" and is_library(getattr(module, "__file__", None))


def _codes(value: Any) -> list[types.CodeType]:
    """The code behind an entry of a class: of a function, a property, a class method."""
    parts = (value, *(getattr(value, name, None) for name in ("fget", "__func__", "func")))
    return [part.__code__ for part in parts if isinstance(part, types.FunctionType)]


def _mangled(cls: type, name: str) -> str:
    """A slot's name as its class writes it."""
    if not name.startswith("__") or name.endswith("__"):
        return name
    owner = next(base for base in cls.__mro__ if name in vars(base).get("__slots__", ()))
    return f"_{owner.__name__.lstrip('_')}{name}"
