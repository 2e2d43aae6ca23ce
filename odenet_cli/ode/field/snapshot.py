"""Detect whether a field has changed between the forward solve and the backward pass.

    loss = 0
    for k in (1.0, 2.0):
        loss = loss + solve(lambda t, y: -k * y, y0, ts).y.sum()
    loss.backward()

evaluates both fields again with k = 2, and would return a wrong gradient. So the values that a field can read are
recorded when a solve begins (`Snapshot`), and compared when its backward pass begins: by identity; numbers and strings
also by value; tensors by autograd's version counter, by address and by their first 64 bytes; arrays by a checksum.
Whatever has changed by the end of the forward solve (a counter, a cache, running statistics) is changed by the field
itself, and is ignored. Any other change raises `FieldChanged` with the name of the value.

Not detected: a write through `.data` beyond the first 64 bytes of a tensor, or anywhere in a tensor that is not on the
CPU or not contiguous.
"""

from __future__ import annotations

import ctypes
import types
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from operator import is_
from typing import Any
from weakref import ref

import torch
from torch import Tensor

from odenet_cli.ode.errors import FieldChanged

ABSENT: Any = object()
_CHANGED_BY_FIELD: Any = object()
_DENSE_TYPES = (Tensor, torch.nn.Parameter, torch.nn.Buffer)  # a subclass need not have memory of its own
# Types whose values are compared by ==, not by identity.
SIMPLE = frozenset(
    {int, float, complex, bool, str, bytes, type(None), type(...), range, slice, types.BuiltinFunctionType}
    | {torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format}
)


class Holder:
    """Hold the recorded values of a function's variables, an object's attributes or a container's items.

    name      for messages, "field.layers"
    form      how a key is appended to the name: ".{}", "[{}]"
    keys      of the values
    read      returns the present values
    is_dict   whether it is a dictionary
    may_grow  whether another number of entries counts as unchanged
    """

    __slots__ = ("form", "is_dict", "keys", "may_grow", "name", "read", "values")

    def __init__(self, name: str, form: str, keys: list[Any], read: Callable[[], Iterable[Any]], is_dict: bool = False):
        self.name, self.form, self.keys, self.read, self.is_dict = name, form, keys, read, is_dict
        self.may_grow = False
        self.values = list(read())

    def label(self, key: Any) -> str:
        """Return the name of the value with that key."""
        return self.name + self.form.format(key)

    def changes(self) -> list[tuple[int, Any, Any]]:
        """Return (index, recorded value, present value) of each change; (-1, recorded, present number of entries)."""
        now, changed = list(self.read()), []
        if len(now) != len(self.values) and not self.may_grow:
            changed.append((-1, len(self.values), len(now)))
        # By identity first, for all values at once: this is usually enough.
        if not all(map(is_, self.values, now)):
            for n, (old, new) in enumerate(zip(self.values, map(_without_graph, now))):
                if old is not new and old is not _CHANGED_BY_FIELD and not _equal(old, new):
                    changed.append((n, old, new))
        return changed


class _TensorContents:
    """Hold the contents of a tensor, but not the tensor itself, whose graph could keep the solve alive.

    window  its first bytes in memory; valid only while the tensor is at this address
    """

    __slots__ = ("address", "bytes", "label", "tensor", "version", "window")

    def __init__(self, tensor: Tensor, label: str) -> None:
        self.tensor, self.label, self.version = ref(tensor), label, version_of(tensor)
        # For a subclass or a sparse tensor the address may not be that of the numbers.
        dense = type(tensor) in _DENSE_TYPES and tensor.layout is torch.strided
        self.address = tensor.data_ptr() if dense else 0
        visible = self.address and tensor.is_cpu and tensor.is_contiguous()
        # Read in place, without an operation of torch, since this is done for each tensor of each solve.
        self.window = (ctypes.c_char * (min(64, tensor.nbytes) if visible else 0)).from_address(self.address)
        self.bytes = self.window.raw

    def change(self) -> str:
        """Return how the tensor has changed; an empty text if it has not, or if it no longer exists."""
        tensor = self.tensor()
        if tensor is None:
            return ""
        if (version := version_of(tensor)) != self.version:
            return f"was changed in place (version {self.version} then, {version} now)"
        if self.address and (tensor.data_ptr() != self.address or self.window.raw != self.bytes):
            return "has other numbers now, by way of `.data`"
        return ""


class _ArrayContents:
    """Hold a checksum of an array of NumPy or of Python."""

    __slots__ = ("array", "checksum", "label")

    def __init__(self, array: Any, label: str) -> None:
        self.array, self.label, self.checksum = array, label, _checksum(array)

    def change(self) -> str:
        return "" if _checksum(self.array) == self.checksum else "has other numbers now"


class Snapshot:
    """Hold the values of `holders`, and the contents of their tensors and arrays, at one time."""

    def __init__(self, holders: Iterable[Holder] = ()) -> None:
        # Two levels: which object is where (holders), and the contents of objects that can change in place.
        self._holders = list(holders)
        self._contents: dict[int, _TensorContents | _ArrayContents] = {}
        for holder in self._holders:
            for n, value in enumerate(holder.values):
                if type(value) in SIMPLE or id(value) in self._contents:
                    continue
                if isinstance(value, Tensor):
                    self._contents[id(value)] = _TensorContents(value, holder.label(holder.keys[n]))
                elif isinstance(value, (bytearray, array, memoryview)) or type(value).__name__ == "ndarray":
                    self._contents[id(value)] = _ArrayContents(value, holder.label(holder.keys[n]))
            holder.values = list(map(_without_graph, holder.values))

    def watch(self, name: str, tensors: Iterable[Tensor]) -> None:
        """Record the contents of `tensors` too."""
        for n, tensor in enumerate(tensors):
            # Under the first name only: that of a holder is better than "args[0]".
            self._contents.setdefault(id(tensor), _TensorContents(tensor, f"{name}[{n}]"))

    def tensors(self) -> list[Tensor]:
        """Return the tensors that require a gradient."""
        values = [contents.tensor() for contents in self._contents.values() if isinstance(contents, _TensorContents)]
        return [x for x in values if x is not None and x.requires_grad]

    def named_tensors(self) -> dict[str, Tensor]:
        """Return all tensors that still exist, by the name of the first place that holds each."""
        contents = [each for each in self._contents.values() if isinstance(each, _TensorContents)]
        return {each.label: tensor for each in contents if (tensor := each.tensor()) is not None}

    def accept_changes(self) -> None:
        """Ignore from now on whatever has changed so far."""
        # What the forward solve has changed is the field's own state, which changes in the backward pass as well.
        for holder in self._holders:
            for n, _, _ in holder.changes():
                # -1: entries were added or taken out.
                if n < 0:
                    holder.may_grow = True
                else:
                    holder.values[n] = _CHANGED_BY_FIELD
        self._contents = {key: contents for key, contents in self._contents.items() if not contents.change()}

    def check(self, gradient: str) -> None:
        """Raise FieldChanged if something is not what it was."""
        # The message names the first change only.
        for label, change in self._changes():
            raise FieldChanged(
                f"the vector field has changed since the forward solve: {label.lstrip(': .')} {change}.\n"
                f"  gradient={gradient} evaluates it again in the backward pass. Pass what changes between solves "
                "as an\n  argument, solver(field, y0, ts, args=(u, ...)) for field(t, y, u, ...); or leave it as it is "
                "until the\n  backward pass is done; or use gradient=backprop."
            )

    def _changes(self) -> Iterator[tuple[str, str]]:
        """Yield the name of whatever has changed, and how."""
        for holder in self._holders:
            for n, old, new in holder.changes():
                if n < 0:
                    yield holder.name, f"has {'more' if new > old else 'fewer'} entries now"
                else:
                    yield holder.label(holder.keys[n]), _difference(old, new)
        for contents in self._contents.values():
            if change := contents.change():
                yield contents.label, change


def _without_graph(value: Any) -> Any:
    """Return a weak reference to a tensor that may have a graph, else `value`."""
    # An object has one such weak reference, so identity compares these too. Parameters have no graph behind them.
    return ref(value) if isinstance(value, Tensor) and type(value) is not torch.nn.Parameter else value


def version_of(tensor: Tensor) -> int:
    try:
        return tensor._version
    except RuntimeError:  # a tensor of inference mode has no version counter
        return -1


def _checksum(numbers: Any) -> int:
    # Of the whole array, since NumPy has no version counters.
    view = memoryview(numbers)
    # An array of objects holds addresses, which do not show changes of the objects.
    return 0 if view.format == "O" else zlib.crc32(view.tobytes())


def _equal(old: Any, new: Any) -> bool:
    # NaN is not equal to itself, but unchanged.
    return type(old) is type(new) and _is_plain(old) and (old == new or (old != old and new != new))


def _is_plain(value: Any) -> bool:
    """Return whether == decides if this value has changed; for all other objects identity does."""
    if isinstance(value, (list, tuple, frozenset, set)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return type(value) in SIMPLE or (type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0)


def _difference(old: Any, new: Any) -> str:
    if type(old) in SIMPLE and type(new) in SIMPLE and max(len(repr(old)), len(repr(new))) < 40:
        return f"was {old!r}, and is {new!r} now"
    if old is ABSENT or new is ABSENT:
        return "is new" if old is ABSENT else "no longer exists"
    is_tensor = isinstance(new() if isinstance(new, ref) else new, Tensor)
    return "is another tensor now" if is_tensor else "is another object now"
