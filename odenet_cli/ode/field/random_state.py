"""The random numbers that a vector field draws (dropout, noise): a step that is taken again draws them again.

As `torch.utils.checkpoint` does, but for every evaluation: rejected steps draw too, and the derivative at the end of a
step may open the next one.
"""

from __future__ import annotations

import pickle
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from odenet_cli.ode.errors import RandomField
from odenet_cli.ode.state import State, Time, VectorField

States = tuple[Tensor, ...]
RANDOM = frozenset(("random", "numpy.random"))  # modules that draw from a generator of their own


class Kept(NamedTuple):
    """A generator of Python's or of numpy's, its state the bytes of a tensor, as that of PyTorch's are."""

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], None]

    def get_state(self) -> Tensor:
        return torch.frombuffer(bytearray(pickle.dumps(self.get())), dtype=torch.uint8)

    def set_state(self, state: Tensor) -> None:
        self.put(pickle.loads(state.numpy().tobytes()))


Generator = torch.Generator | Kept


def kept(thing: Any) -> Generator | None:
    """Return `thing` as a generator whose state can be put back, if it is one."""
    if isinstance(thing, torch.Generator):
        return thing
    if isinstance(thing, random.Random) and not isinstance(thing, random.SystemRandom):
        return Kept("random.Random", thing.getstate, thing.setstate)
    numbers = sys.modules.get("numpy.random")
    if numbers is not None and isinstance(thing, numbers.RandomState):
        return Kept("numpy.random.RandomState", partial(thing.get_state, legacy=False), thing.set_state)
    if numbers is not None and isinstance(thing, (numbers.Generator, numbers.BitGenerator)):
        bits = getattr(thing, "bit_generator", thing)
        return Kept("numpy.random.Generator", partial(getattr, bits, "state"), partial(setattr, bits, "state"))
    return None


def of_modules() -> Iterator[Generator]:
    """The generators behind the functions of the modules in `RANDOM`, as far as they are imported."""
    yield Kept("random", random.getstate, random.setstate)
    if (numpy := sys.modules.get("numpy")) is not None:  # which imports the module when somebody asks for it
        yield Kept("numpy.random", partial(numpy.random.get_state, legacy=False), numpy.random.set_state)


class Draw(NamedTuple):
    """Where the states of the generators before and after one evaluation lie in `Draws.saved`."""

    before: int
    after: int


class Drawn(tuple[Tensor, ...]):
    """The value of a vector field, with the states of the generators before and after its evaluation."""

    before: States
    after: States


class Draws:
    """What a vector field draws in one solve, by the states of PyTorch's default generators and of `generators`.

    Those are what its code can reach: a generator of Python's or numpy's that it does not name is of no interest, and
    other threads may draw from it.

    start  before the first evaluation, with which `capture` begins
    first  after it
    noted  every evaluation is noted, to be repeated
    saved  states that the accepted steps need, for autograd to keep
    """

    def __init__(self, generators: Iterable[Generator]) -> None:
        own = [generator for generator in generators if generator is not torch.default_generator]
        self._generators: list[Generator] = [torch.default_generator, *own]
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
        self.noted = bool(drew) and repeatable
        return self._drawn(f0, self.start) if self.noted else f0

    def late(self) -> str:
        """Return from what the field has drawn since it opened the solve, if it was not noted. If further evaluations
        have not drawn, the first one did for the whole solve, and there is nothing to repeat."""
        drew = self._changed(self.first)
        late = "" if self.noted else drew
        self.noted = self.noted and (bool(drew) or self._alone)
        return late

    def begin_again(self, f0: State) -> State:
        """Go back to where the solve was opened, and note from here; return `f0` as `opened` does."""
        self._restore(self.first)
        self.noted = True
        return self._drawn(f0, self.start)

    def noting(self, function: VectorField) -> VectorField:
        """Return `function`, its values `Drawn`."""

        def evaluate(t: Time, y: State, used: bool = True) -> State:
            self._alone = False
            before = self._states() if self._changed(self._last) else self._last
            return self._drawn(function(t, y, used), before)

        return evaluate

    def of(self, values: Sequence[State]) -> list[Draw]:
        """Return the draws of `values`, in this order, and save their states."""
        return [Draw(self._save(x.before), self._save(x.after)) for x in values if isinstance(x, Drawn)]

    def repeating(self, function: VectorField, draws: Sequence[Draw]) -> VectorField:
        """Return `function` that draws in turn what was noted in `draws`."""
        left = iter(draws)

        def evaluate(t: Time, y: State, used: bool = True) -> State:
            draw = next(left)
            self._restore(self.saved[draw.before])
            value = function(t, y, used)
            if drew := self._changed(self.saved[draw.after]):
                raise RandomField(
                    f"the vector field drew fewer or more random numbers from {drew} at t = {float(t):.6g} in the "
                    "backward pass than in the forward solve. Draw the same at every evaluation, or use "
                    "gradient=backprop."
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
            known = known or (bool(drew) and not self._changed(self.first))
            if drew:
                self._restore(before)
        if drew and not known:
            raise RandomField(
                f"the vector field drew random numbers from {drew} in the backward pass of gradient={gradient}, and "
                "not where it is evaluated in the forward solve: it is not the same field. Use gradient=backprop."
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

    def _changed(self, states: States) -> str:
        """Return the names of the generators that are not at `states`."""
        pairs = zip(self._generators, states)
        names = [getattr(generator, "name", "torch") for generator, state in pairs if _differ(generator, state)]
        return ", ".join(dict.fromkeys(names))


def _differ(generator: Generator, state: Tensor) -> bool:
    return bool(generator.get_state().numpy().tobytes() != state.numpy().tobytes())


def refuse(gradient: str, compiled: bool, source: str) -> None:
    """Raise RandomField for a gradient that cannot repeat what a vector field draws from `source`."""
    why = (
        "compiled steps draw in another order on their way back"
        if compiled
        else "its backward pass evaluates the field at other points, where it would be another field"
    )
    steps = "gradient=replay with compile=False" if compiled else "gradient=replay"
    raise RandomField(
        f"the vector field draws random numbers from {source} (dropout in training mode, noise), which\n"
        f"  gradient={gradient} cannot repeat: {why}.\n"
        f"  Use {steps} or gradient=backprop, which differentiate the steps that were taken; or draw the noise\n"
        "  once, outside of the field, and hand it over."
    )
