"""What a field holds besides its arguments at the time of a solve: the numbers, tensors and flags that its code reads.

A backward pass that evaluates the field again must find it as it was. Places are compared by identity; numbers also by
value, tensors by version and address. What the field itself changed while it was solved, a counter or a cache, is its
own business.
"""

from __future__ import annotations

import ctypes
import functools
import types
import weakref
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter, is_
from typing import Any, NamedTuple

import torch
from torch import Tensor

from odenet_cli.ode.errors import FieldChanged

_string, _address, _version = ctypes.string_at, Tensor.data_ptr, attrgetter("_version")
_WITH_STORAGE = (Tensor, torch.nn.Parameter, torch.nn.Buffer)
ABSENT: Any = object()
_OWN: Any = object()  # a place that changed while the field was solved
_GONE: Any = object()  # a watched tensor that nobody has any more
SIMPLE = frozenset(
    {int, float, complex, bool, str, bytes, type(None), type(...), range, slice, types.BuiltinFunctionType}
    | {torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format}
)


class Place(NamedTuple):
    """Where a value is: the place of what holds it, and its name there, written by `form`."""

    holder: Place | None
    form: str
    name: Any

    def __str__(self) -> str:
        return (str(self.holder) if self.holder else "") + self.form.format(self.name)


class Mark(NamedTuple):
    """A tensor at one time, not kept alive by it.

    head  its first bytes, once the solve is done: a write through `.data` changes no version
    """

    tensor: Callable[[], Tensor | None]
    version: int
    address: int
    head: bytes | None = None


class ArrayMark(NamedTuple):
    """Numbers outside of torch, a numpy array say, at one time."""

    array: Any
    checksum: int


class Slots:
    """Places of one holder, read together.

    read       returns what they hold
    names      of the places, by number, written by `form`
    container  whose number of entries must stay too
    keeps      tensors in it live as long as their holder, and may be held
    numbers    it holds numbers alone
    """

    __slots__ = ("container", "count", "form", "holder", "names", "numbers", "read", "values")

    def __init__(
        self,
        read: Callable[[], Sequence[Any]],
        names: Any,
        form: str,
        holder: Place | None,
        container: Any = None,
        keeps: bool = False,
        numbers: bool = False,
    ) -> None:
        self.read, self.names, self.form, self.holder, self.container = read, names, form, holder, container
        self.numbers = numbers
        self.values = list(read()) if keeps or numbers else [_keep(value) for value in read()]
        self.count = 0 if container is None else len(container)

    def place(self, n: int | None) -> str:
        place = (self.holder or self.container) if n is None else Place(self.holder, self.form, self.names[n])
        return str(place).lstrip(": .")


class Snapshot:
    """What was held in `slots` when they were read.

    fills  the field's own code puts entries into dictionaries
    """

    def __init__(self, slots: Iterable[Slots] = (), fills: bool = False) -> None:
        self.slots, self.fills = list(slots), fills
        at = [(part, n, x) for part in self.slots for n, x in enumerate(part.values) if isinstance(x, Tensor)]
        self._held = [x for *_, x in at]
        self._places = [(part, n) for part, n, _ in at]
        self._numbers(_versions)
        self._numbers(_addresses)
        self._addresses = len(self.slots) - 1

    def watch(self, name: str, tensors: Iterable[Tensor]) -> None:
        """Compare `tensors` too, wherever they are kept."""
        known = [weakref.ref(tensor) for tensor in tensors]
        if known:
            read = functools.partial(lambda refs: [_GONE if (x := ref()) is None else x for ref in refs], known)
            self.slots.append(Slots(read, range(len(known)), name + "[{}]", None))

    def tensors(self) -> Iterator[Tensor]:
        """The tensors in it that require a gradient."""
        marked = (x.tensor() for slots in self.slots for x in slots.values if type(x) is Mark)
        return (x for x in (*self._held, *marked) if x is not None and x.requires_grad)

    def forgive(self) -> None:
        """Leave out what has changed by now."""
        for slots, n, _, _ in self._changes():
            if n is None:
                slots.container = None
            else:
                slots.values[n] = _OWN

    def settle(self) -> None:
        """Leave out what has changed by now, and hold the rest to what it is."""
        self.forgive()
        addresses = self.slots[self._addresses].values if self._held else []
        spans = [(0, 0) if known is _OWN else _span(x) for x, known in zip(self._held, addresses)]
        self.slots.append(Slots(functools.partial(_heads, spans), self._places, "_heads", None, numbers=True))
        for slots in self.slots:
            for n, value in enumerate(slots.values):
                if type(value) is Mark:
                    tensor = value.tensor()
                    slots.values[n] = _OWN if tensor is None else value._replace(head=_string(*_span(tensor)))

    def check(self, gradient: str) -> None:
        """Raise FieldChanged if the field is not what it was."""
        for slots, n, old, new in self._changes():
            if n is None and self.fills and isinstance(slots.container, dict):
                continue
            more = "more" if n is None and new > old else "fewer"
            change = f"has {more} entries now" if n is None else _difference(slots, old, new)
            if slots.numbers and n is not None:
                slots, n = slots.names[n]
            raise FieldChanged(
                f"the vector field is not what it was in the forward solve: {slots.place(n)} {change}.\n"
                f"  gradient={gradient} evaluates it again in the backward pass. Hand over what changes between solves "
                "as an\n  argument, solver(field, y0, ts, args=(u, ...)) for field(t, y, u, ...); or leave it as it is "
                "until the\n  backward pass is done; or use gradient=backprop."
            )

    def _numbers(self, read: Callable[[list[Tensor]], list[Any]]) -> None:
        """Compare numbers of the tensors that are held."""
        if self._held:
            form = read.__name__
            self.slots.append(Slots(functools.partial(read, self._held), self._places, form, None, numbers=True))

    def _changes(self) -> Iterator[tuple[Slots, int | None, Any, Any]]:
        for slots in self.slots:
            now, values = slots.read(), slots.values
            if not (now == values if slots.numbers else all(map(is_, values, now))):
                for n, (old, new) in enumerate(zip(values, now)):
                    if old is not new and old is not _OWN and new is not _GONE and not _same(old, new):
                        yield slots, n, old, new
            if slots.container is not None and len(slots.container) != slots.count:
                yield slots, None, slots.count, len(slots.container)


def is_array(value: Any) -> bool:
    return isinstance(value, (bytearray, array, memoryview)) or type(value).__name__ == "ndarray"


def _keep(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value if type(value) is torch.nn.Parameter else _mark(value)
    return ArrayMark(value, _checksum(value)) if is_array(value) else value


def _mark(tensor: Tensor) -> Mark:
    return Mark(weakref.ref(tensor), _versions([tensor])[0], _addresses([tensor])[0])


def _versions(tensors: list[Tensor]) -> list[int]:
    try:
        return list(map(_version, tensors))
    except RuntimeError:  # those of inference mode count no versions
        return [-1 if x.is_inference() else x._version for x in tensors]


def _addresses(tensors: list[Tensor]) -> list[int]:
    try:
        return list(map(_address, tensors))
    except (RuntimeError, ValueError):  # some have no storage, or not yet
        return [_address(x) if type(x) in _WITH_STORAGE and x.layout is torch.strided else 0 for x in tensors]


def _heads(spans: list[tuple[int, int]]) -> list[bytes]:
    """What lies in memory there. To be read where the addresses are known to be as they were."""
    return [_string(address, size) for address, size in spans]


def _span(tensor: Tensor) -> tuple[int, int]:
    """Address and size of the first bytes of a tensor on a CPU."""
    if type(tensor) not in _WITH_STORAGE or not tensor.is_cpu or not tensor.is_contiguous() or not tensor.data_ptr():
        return 0, 0
    return tensor.data_ptr(), min(64, tensor.nbytes)


def _checksum(numbers: Any) -> int:
    view = memoryview(numbers)
    return 0 if view.format == "O" else zlib.crc32(view.tobytes())


def _same(old: Any, new: Any) -> bool:
    if type(old) is Mark:
        if old.tensor() is not new or not isinstance(new, Tensor) or _mark(new)[1:3] != old[1:3]:
            return False
        return old.head is None or old.head == _string(*_span(new))
    if type(old) is ArrayMark:
        return old.array is new and old.checksum == _checksum(new)
    return type(old) is type(new) and _is_plain(old) and (old == new or (old != old and new != new))


def _is_plain(value: Any) -> bool:
    """Whether equal values of this kind are the same."""
    if isinstance(value, (list, tuple, frozenset, set)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return type(value) in SIMPLE or (type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0)


def _difference(slots: Slots, old: Any, new: Any) -> str:
    marked = type(old) is Mark and isinstance(new, Tensor) and old.tensor() is new
    then, now = (old.version, new._version) if marked else (old, new)
    if slots.form == "_versions" or (marked and then != now):
        return f"was changed in place (version {then} then, {now} now)"
    if slots.numbers or marked:
        return "has other numbers now, by way of `.data`"
    if type(old) is ArrayMark and old.array is new:
        return "has other numbers now"
    if type(old) in SIMPLE and type(new) in SIMPLE and max(len(repr(old)), len(repr(new))) < 40:
        return f"was {old!r}, and is {new!r} now"
    if old is ABSENT or new is ABSENT:
        return "was not there, and is now" if old is ABSENT else "is not there any more"
    return "is another tensor now" if isinstance(new, Tensor) else "is another object now"
