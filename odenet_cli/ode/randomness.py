"""The random numbers that a vector field draws (dropout, noise): a step that is taken again draws them again.

As `torch.utils.checkpoint` does, but for every evaluation: rejected steps draw too, and the derivative at the end of a
step may open the next one.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from odenet_cli.ode.errors import RandomField
from odenet_cli.ode.state import Evaluate, Field, State, Time

States = tuple[Tensor, ...]


class Draw(NamedTuple):
    """Where the states of the generators before and after one evaluation lie in `Draws.saved`."""

    before: int
    after: int


class Drawn(tuple[Tensor, ...]):
    """The value of a vector field, with the states of the generators before and after its evaluation."""

    before: States
    after: States


class Draws:
    """What a vector field draws in one solve, by the states of PyTorch's default generators and of those it holds.

    start  before the first evaluation, with which `capture` begins
    first  after it
    noted  every evaluation is noted, to be repeated
    saved  states that the accepted steps need, for autograd to keep
    """

    def __init__(self, field: Field) -> None:
        self._generators = [torch.default_generator, *_own_generators(field)]
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            self._generators += torch.cuda.default_generators
        self.start = self.first = self._last = self._states()
        self.noted, self._alone = False, True
        self.saved: list[States] = []
        self._index: dict[int, int] = {}

    def opened(self, f0: State, repeatable: bool) -> State:
        """Return `f0`, evaluated since the start; if it drew and the steps are `repeatable`, begin to note."""
        drew = self._changed(self.start)
        self.first = self._states() if drew else self.start
        self.noted = drew and repeatable
        return self._drawn(f0, self.start) if self.noted else f0

    def late(self) -> bool:
        """Return whether the field has drawn since it opened the solve, and was not noted. If further evaluations have
        not drawn, the first one did for the whole solve, and there is nothing to repeat."""
        drew = self._changed(self.first)
        late = drew and not self.noted
        self.noted = self.noted and (drew or self._alone)
        return late

    def begin_again(self, f0: State) -> State:
        """Go back to where the solve was opened, and note from here; return `f0` as `opened` does."""
        self._restore(self.first)
        self.noted = True
        return self._drawn(f0, self.start)

    def noting(self, function: Evaluate) -> Evaluate:
        """Return `function`, its values `Drawn`."""

        def evaluate(t: Time, y: State, weighty: bool = True) -> State:
            self._alone = False
            before = self._states() if self._changed(self._last) else self._last
            return self._drawn(function(t, y, weighty), before)

        return evaluate

    def of(self, values: Sequence[State]) -> list[Draw]:
        """Return the draws of `values`, in this order, and save their states."""
        return [Draw(self._save(x.before), self._save(x.after)) for x in values if isinstance(x, Drawn)]

    def repeating(self, function: Evaluate, draws: Sequence[Draw]) -> Evaluate:
        """Return `function` that draws in turn what was noted in `draws`."""
        left = iter(draws)

        def evaluate(t: Time, y: State, weighty: bool = True) -> State:
            draw = next(left)
            self._restore(self.saved[draw.before])
            value = function(t, y, weighty)
            if self._changed(self.saved[draw.after]):
                raise RandomField(
                    f"the vector field drew fewer or more random numbers at t = {float(t):.6g} in the backward pass "
                    "than in the forward solve. Draw the same at every evaluation, or use gradient=backprop."
                )
            return value

        return evaluate

    @contextmanager
    def untouched(self, gradient: str) -> Iterator[None]:
        """Leave the generators as if a backward pass had drawn nothing; raise RandomField if it drew what was not
        noted. (A field that seeds the generator at every evaluation is left where its first one left it.)"""
        before, known = self._states(), self.noted
        try:
            yield
        finally:
            drew = self._changed(before)
            known = known or (drew and not self._changed(self.first))
            if drew:
                self._restore(before)
        if drew and not known:
            raise RandomField(
                f"the vector field drew random numbers in the backward pass of gradient={gradient}, and not where it "
                "is evaluated in the forward solve: it is not the same field. Use gradient=backprop."
            )

    def tensors(self) -> list[Tensor]:
        """Return the saved states, and let go of them."""
        saved, self.saved, self._index = self.saved, [], {}
        self.start = self._last = ()
        return [state for states in saved for state in states]

    def load(self, tensors: Sequence[Tensor]) -> None:
        """Take the saved states back."""
        count = len(self._generators)
        self.saved = [tuple(tensors[n : n + count]) for n in range(0, len(tensors), count)]

    def _drawn(self, value: State, before: States) -> Drawn:
        drawn = Drawn(value)
        drawn.before = before
        drawn.after = self._last = self._states() if self._changed(before) else before
        return drawn

    def _save(self, states: States) -> int:
        if id(states) not in self._index:
            self._index[id(states)] = len(self.saved)
            self.saved.append(states)
        return self._index[id(states)]

    def _states(self) -> States:
        return tuple(generator.get_state() for generator in self._generators)

    def _restore(self, states: States) -> None:
        for generator, state in zip(self._generators, states):
            generator.set_state(state)

    def _changed(self, states: States) -> bool:
        return any(_differ(generator.get_state(), state) for generator, state in zip(self._generators, states))


def _own_generators(field: Field) -> list[torch.Generator]:
    """Return the generators that a field holds: in its closure, its defaults, the globals that it names, attributes of
    its own, of its modules and of the objects there. (Those of numpy and of Python are not looked for.)"""
    found, things = [], [field]
    for _ in range(3):
        held = [part for thing in things for part in _held(thing)]
        found += [part for part in held if type(part) is torch.Generator and part is not torch.default_generator]
        things = [part for part in held if type(part) not in _NOT_LOOKED_INTO]
    return list(dict.fromkeys(found))


_NOT_LOOKED_INTO = {Tensor, torch.nn.Parameter, torch.Generator, type, types.ModuleType, types.BuiltinFunctionType} | {
    str, int, float, bool, type(None)
}  # fmt: skip


def _held(thing: Any) -> Iterable[Any]:
    if isinstance(thing, torch.nn.Module):
        mine = [part for part in vars(thing).values() if not isinstance(part, dict)]
        others = (part for module in thing.modules() for part in vars(module).values())
        return [*mine, *(part for part in others if type(part) is torch.Generator)]
    if isinstance(thing, types.FunctionType):
        empty, cells = types.CellType(), thing.__closure__ or ()
        named = (thing.__globals__.get(name) for name in thing.__code__.co_names)
        return (*(cell.cell_contents for cell in cells if cell != empty), *(thing.__defaults__ or ()), *named)
    if isinstance(thing, types.MethodType):
        return (thing.__self__, thing.__func__)
    if isinstance(thing, functools.partial):
        return (thing.func, *thing.args, *thing.keywords.values())
    if isinstance(thing, (list, tuple)):
        return thing[:100]  # no table of numbers
    return islice((thing if isinstance(thing, dict) else getattr(thing, "__dict__", {})).values(), 100)


def _differ(a: Tensor, b: Tensor) -> bool:
    """Return whether anything was drawn between two states of a generator. Both ends tell: a Mersenne twister keeps its
    position and its first words in front, normal numbers in stock behind; five kilobytes between them move along."""
    x, y = a.numpy(), b.numpy()
    return bool(x[:64].tobytes() != y[:64].tobytes() or x[-64:].tobytes() != y[-64:].tobytes())


def refuse(gradient: str, compiled: bool) -> None:
    """Raise RandomField for a gradient that cannot repeat what a vector field draws."""
    why = (
        "compiled steps draw in another order on their way back"
        if compiled
        else "its backward pass evaluates the field at other points, where it would be another field"
    )
    steps = "gradient=replay with compile=False" if compiled else "gradient=replay"
    raise RandomField(
        f"the vector field draws random numbers (dropout in training mode, noise), which gradient={gradient} cannot "
        f"repeat:\n  {why}.\n  Use {steps} or gradient=backprop, which differentiate the steps that were taken; or "
        "draw the noise once, outside\n  of the field, and hand it over."
    )
