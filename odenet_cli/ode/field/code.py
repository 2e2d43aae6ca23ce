"""Find the names that code can read, from its bytecode.

    def field(t, y):
        return self.net(y) - RATE * y

reads the closure variable `self`, the global `RATE` and the attribute `net`. Other attributes of `self`, such as a log
or the loss of the last step, may change between a solve and its backward pass without affecting this field.

Attributes are identified by name, not by object, and every string that could be a name counts as one. So the result may
contain too much, but never too little, unless a name is composed at run time; `any_attribute` marks code that can do
so. Code of Python, torch and installed packages counts as a library, whose globals are assumed to be constant.
"""

from __future__ import annotations

import dis
import os
import sys
import sysconfig
import types
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch


class CodeReads(NamedTuple):
    """Hold what a function's code, and the functions written inside it, can read.

    globals        names looked up as globals
    attributes     names looked up in objects, strings that may be such names, and modules imported
    whole          variables whose object is called, passed on or indexed; of others only attributes are read
    any_attribute  attributes are read by names made at run time: getattr, vars, a loop over parameters()
    fills_dicts    entries are put into dictionaries: a cache may grow
    """

    globals: frozenset[str]
    attributes: frozenset[str]
    whole: frozenset[str]
    any_attribute: bool
    fills_dicts: bool


class ClassReads(NamedTuple):
    """Hold what the code of a class can read of an instance.

    own         base classes written by the user, whose code is looked into as the field's is
    attributes  names that the code of its library classes reads
    slots       names of its slots
    """

    own: tuple[type, ...]
    attributes: frozenset[str]
    slots: frozenset[str]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_READS_BY_NAME = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "IMPORT_FROM", "IMPORT_NAME")
# Beginnings of names: Python 3.11 to 3.13 have specialised and combined forms of each.
_READS_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_")
_READS_LOCAL = ("LOAD_DEREF", "LOAD_FAST", "LOAD_CLASSDEREF")
_ANY_ATTRIBUTE = _words(
    """getattr vars eval exec attrgetter methodcaller globals locals __dict__ __getattribute__ asdict astuple
    functional_call state_dict _modules _parameters _buffers modules named_modules children named_children parameters
    named_parameters buffers named_buffers get_submodule get_parameter get_buffer"""
)
_FILLS_DICTS = _words("setdefault update __setitem__")
# Methods that no evaluation calls; most of them name all attributes.
_NEVER_CALLED = _words(
    """__init__ __new__ __post_init__ __repr__ __str__ __eq__ __hash__ __setattr__ __delattr__ __del__ __getstate__
    __setstate__ __reduce__ __reduce_ex__ __copy__ __deepcopy__ __init_subclass__ __class_getitem__ extra_repr"""
)
_LIBRARY_PATHS = tuple(
    {os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {os.path.join(os.path.dirname(torch.__file__), ""), "<frozen", "<__array_function__"}
)
_cache: dict[int, tuple[types.CodeType, CodeReads]] = {}


def code_reads(code: types.CodeType) -> CodeReads:
    """Return what `code` can read; computed once for each code object, as disassembling takes 0.1 ms."""
    entry = _cache.get(id(code))  # not by equality: a code object hashes all its bytes
    if entry is None or entry[0] is not code:
        # Functions made in a loop share one code object: only code that is compiled anew, by exec say, fills this.
        if len(_cache) > 10_000:
            _cache.clear()
        entry = _cache[id(code)] = (code, _disassemble(code))
    return entry[1]


def _disassemble(code: types.CodeType) -> CodeReads:
    # Functions written inside are constants of the code around them; what they read counts for it.
    inner = [_disassemble(part) for part in code.co_consts if isinstance(part, types.CodeType)]
    globals_ = set().union(*(part.globals for part in inner))
    whole = set().union(*(part.whole for part in inner))
    # Any string may be a name: getattr(self, "rate").
    attributes = {text for text in code.co_consts if isinstance(text, str) and text.isidentifier()}
    attributes = attributes.union(*(part.attributes for part in inner))
    instructions = list(dis.get_instructions(code))
    for instruction, following in zip(instructions, [*instructions[1:], None]):
        name, value = instruction.opname, instruction.argval
        if name in _READS_BY_NAME:
            attributes.add(value)
        elif name.startswith((*_READS_GLOBAL, *_READS_LOCAL)):
            variables = value if isinstance(value, tuple) else (value,)  # Python 3.13 loads two in one instruction
            if name.startswith(_READS_GLOBAL):
                globals_.update(variables)
            # `x.rate` loads x and at once an attribute of it; whatever else is done with x may read all of it.
            attribute_follows = following is not None and following.opname in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR")
            whole.update(variables[:-1] if attribute_follows else variables)
    fills = not _FILLS_DICTS.isdisjoint(attributes) or any(part.fills_dicts for part in inner)
    return CodeReads(
        frozenset(globals_),
        frozenset(attributes),
        frozenset(whole),
        not _ANY_ATTRIBUTE.isdisjoint(globals_ | attributes),
        fills or any(instruction.opname == "STORE_SUBSCR" for instruction in instructions),
    )


@lru_cache(maxsize=1000)
def class_reads(cls: type) -> ClassReads:
    """Return what the code of `cls` and of its bases can read of an instance.

    Under a class of the user's, what a framework keeps in its base class (a trainer, a log) is no part of the field.
    """
    # nn.Module itself reads every attribute: what a module reads is decided by the classes below it.
    bases = [base for base in cls.__mro__ if base not in (object, torch.nn.Module)]
    own = tuple(base for base in bases if not _is_library_class(base))
    # Torch's own bases below a user's class are read all the same: torch.nn.Linear has the forward that the user calls.
    libraries = [base for base in bases if base not in own and (not own or base.__module__.startswith("torch."))]
    codes = [code for base in libraries for code in _codes(base)]
    members = [name for base in bases for name, x in vars(base).items() if type(x) is types.MemberDescriptorType]
    slots = frozenset(members) - {"__dict__", "__weakref__"}
    attributes = {"__wrapped__"}.union(*(code_reads(code).attributes for code in codes))
    # Classes written in C (partial, property) have no code to be read, but members.
    return ClassReads(own, frozenset(attributes if own or codes else attributes | slots), slots)


@lru_cache(maxsize=1000)
def implicit_methods(cls: type) -> frozenset[str]:
    """Return the methods of `cls` that Python or torch calls by itself: forward, and those for operators and calls."""
    return frozenset(
        name for name in vars(cls) if name == "forward" or (name.startswith("__") and name not in _NEVER_CALLED)
    )


def is_library(file: str | None) -> bool:
    """Return whether `file` belongs to Python, torch or an installed package."""
    return file is None or file.startswith(_LIBRARY_PATHS)


def _is_library_class(cls: type) -> bool:
    module = sys.modules.get(cls.__module__)
    if module is None or cls.__module__ == "__main__":
        return False
    return cls.__module__ == "builtins" or is_library(getattr(module, "__file__", None))


def _codes(cls: type) -> Iterator[types.CodeType]:
    """Yield the code of the functions, properties, static and class methods of `cls`."""
    for name, value in vars(cls).items():
        if name not in _NEVER_CALLED:
            for part in (value, *(getattr(value, name, None) for name in ("fget", "__func__", "func"))):
                if isinstance(part, types.FunctionType):
                    yield part.__code__
