"""The random numbers that a vector field draws: a step that is taken again draws the same ones.

    Fixed(method="euler", steps=1, gradient="replay")(lambda t, y: F.dropout(y, 0.5), y0, ts)

A gradient that evaluates the field again in the backward pass would drop other numbers than the solve did. As
`torch.utils.checkpoint` does, the states of the generators are saved and put back, but for every single evaluation:
rejected steps draw too, and the derivative at the end of a step may open the next one. Reading a state takes
microseconds, so recording begins only once the field has drawn something; if it first does so on the way, the solve is
done a second time. The generators are torch's default ones and those that the field can reach, of torch, numpy or
Python: a generator that its code does not name is of no interest, as other threads may draw from it.

Not seen: numbers that an installed package draws from a generator of its own. The adjoint evaluates the field at other
points and cannot repeat anything: it refuses by name (`RandomField`), as compiled steps do.
"""

from __future__ import annotations

import pickle
import random
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from odenet_cli.ode.errors import RandomField
from odenet_cli.ode.state import State, Time, VectorField

States = tuple[Tensor, ...]
RANDOM_MODULES = frozenset(("random", "numpy.random"))  # they draw from a generator of their own


class ForeignGenerator(NamedTuple):
    """Show a generator of Python's or numpy's as one of torch's: its state as the bytes of a tensor."""

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], None]

    def get_state(self) -> Tensor:
        # One form for all generators: states are compared as bytes, and autograd keeps tensors.
        return torch.frombuffer(bytearray(pickle.dumps(self.get())), dtype=torch.uint8)

    def set_state(self, state: Tensor) -> None:
        # Only what `get_state` pickled in this process comes here.
        self.put(pickle.loads(state.numpy().tobytes()))


Generator = torch.Generator | ForeignGenerator


def as_generator(value: Any) -> Generator | None:
    """Return the generator that `value` is, or is a method of, if its state can be put back."""
    # A built-in method, random.random say, leads to the generator that it belongs to.
    if isinstance(value, types.BuiltinFunctionType):
        value = value.__self__
    if isinstance(value, torch.Generator):
        return value
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        return ForeignGenerator("random.Random", value.getstate, value.setstate)
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None and isinstance(value, numpy_random.RandomState):
        get = partial(value.get_state, legacy=False)
        return ForeignGenerator("numpy.random.RandomState", get, value.set_state)
    if numpy_random is not None and isinstance(value, (numpy_random.Generator, numpy_random.BitGenerator)):
        bits = getattr(value, "bit_generator", value)
        get, put = partial(getattr, bits, "state"), partial(setattr, bits, "state")
        return ForeignGenerator("numpy.random.Generator", get, put)
    return None


def module_generators() -> Iterator[Generator]:
    """Yield the generators behind the functions of `RANDOM_MODULES`, as far as they are imported."""
    yield ForeignGenerator("random", random.getstate, random.setstate)
    if (numpy := sys.modules.get("numpy")) is not None:  # which imports numpy.random when somebody asks for it
        yield ForeignGenerator("numpy.random", partial(numpy.random.get_state, legacy=False), numpy.random.set_state)


class Draw(NamedTuple):
    """Hold where the states before and after one evaluation lie in `Draws.saved`."""

    before: int
    after: int


# A tuple, so that it is a state to every step. What a step has computed itself is a plain tuple, and has drawn nothing.
class _Drawn(tuple[Tensor, ...]):
    """Hold the value of a vector field, with the states of the generators before and after its evaluation."""

    before: States
    after: States


class Draws:
    """Record what a vector field draws in one solve, as states of generators, and draw it again.

    recording  the states around each evaluation are kept
    saved      those of the accepted steps, for autograd to hold between forward and backward
    """

    def __init__(self, generators: Iterable[Generator]) -> None:
        """Begin before the first evaluation."""
        # CUDA's only if somebody uses CUDA: to ask for them would initialise it.
        own = [generator for generator in generators if generator is not torch.default_generator]
        self._generators: list[Generator] = [torch.default_generator, *own]
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            self._generators += torch.cuda.default_generators
        if torch.backends.mps.is_available():
            self._generators.append(torch.mps._get_default_mps_generator())
        self._before_first = self._after_first = self._last = self.states()
        self._evaluated_again = False
        self.recording = False
        self.saved: list[States] = []
        self._places: dict[int, int] = {}

    def begin(self, f0: State, repeatable: bool) -> State:
        """Return the first value `f0`; if the field drew for it, and steps are `repeatable`, begin to record."""
        # Most fields draw nothing: they pay for this look and for the one in `began_late`.
        drew = self.changed(self._before_first)
        self._after_first = self.states() if drew else self._before_first
        self.recording = bool(drew) and repeatable
        return self._drawn(f0, self._before_first) if self.recording else f0

    def began_late(self) -> str:
        """Return the names of generators that the solve has drawn from without being recorded.

        If only the first evaluation drew, it did so for the whole solve (noise that is kept): nothing is to be
        repeated, and recording ends.
        """
        drew = self.changed(self._after_first)
        # Drawn since the first value, and unseen: the solve has to be made again.
        late = "" if self.recording else drew
        self.recording = self.recording and (bool(drew) or not self._evaluated_again)
        return late

    def begin_again(self, f0: State) -> State:
        """Put the generators back to where they were after the first value `f0`, and record; return it as `begin`."""
        self.restore(self._after_first)
        self.recording = True
        return self._drawn(f0, self._before_first)

    def record(self, function: VectorField) -> VectorField:
        """Return `function`, its values with the states around them."""

        def evaluate(t: Time, y: State, used: bool = True) -> State:
            self._evaluated_again = True
            # The solver itself draws nothing, but other threads may: then the states are not those after the last
            # evaluation.
            before = self.states() if self.changed(self._last) else self._last
            return self._drawn(function(t, y, used), before)

        return evaluate

    def save(self, values: Sequence[State]) -> list[Draw]:
        """Return what `values` drew, in this order, and save the states."""
        return [Draw(self._save(x.before), self._save(x.after)) for x in values if isinstance(x, _Drawn)]

    def replay(self, function: VectorField, draws: Sequence[Draw]) -> VectorField:
        """Return `function`, which draws again, one after the other, what `draws` hold."""
        # In the order in which they were saved, which the gradient keeps to (`Problem.record`).
        remaining = iter(draws)

        def evaluate(t: Time, y: State, used: bool = True) -> State:
            # Put back before each evaluation: in the forward solve rejected attempts have drawn between them.
            draw = next(remaining)
            self.restore(self.saved[draw.before])
            value = function(t, y, used)
            if drew := self.changed(self.saved[draw.after]):
                raise RandomField(
                    f"the vector field drew fewer or more random numbers from {drew} at t = {float(t):.6g} in the "
                    "backward pass than in the forward solve. Draw the same at every evaluation, or use "
                    "gradient=backprop."
                )
            return value

        return evaluate

    @contextmanager
    def restored_after(self, gradient: str) -> Iterator[None]:
        """Leave the generators as if a backward pass had drawn nothing; raise RandomField if it alone has drawn.

        A field that seeds a generator at every evaluation leaves it where the first one did, and is no such field.
        """
        # What is drawn backward repeats what was drawn: afterwards the caller's next number is what it would have been.
        before, expected = self.states(), self.recording
        try:
            yield
        finally:
            drew = self.changed(before)
            expected = expected or (bool(drew) and not self.changed(self._after_first))
            if drew:
                self.restore(before)
        if drew and not expected:
            raise RandomField(
                f"the vector field drew random numbers from {drew} in the backward pass of gradient={gradient}, and "
                "not where it is evaluated in the forward solve: it is not the same field. Use gradient=backprop."
            )

    def take_saved(self) -> list[Tensor]:
        """Return the saved states, and let go of them."""
        # Autograd holds them from here on, as it holds all that a node keeps, and frees them after the backward pass.
        saved, self.saved, self._places = self.saved, [], {}
        self._before_first = self._last = ()
        return [state for states in saved for state in states]

    def put_saved(self, tensors: Sequence[Tensor]) -> None:
        """Take back what `take_saved` returned."""
        count = len(self._generators)
        self.saved = [tuple(tensors[n : n + count]) for n in range(0, len(tensors), count)]

    def _drawn(self, value: State, before: States) -> _Drawn:
        drawn = _Drawn(value)
        drawn.before = before
        drawn.after = self._last = self.states() if self.changed(before) else before
        return drawn

    def _save(self, states: States) -> int:
        # The states after an evaluation are those before the next one, as an object too: saved once.
        if id(states) not in self._places:
            self._places[id(states)] = len(self.saved)
            self.saved.append(states)
        return self._places[id(states)]

    def states(self) -> States:
        """Return the states of the generators, as they are now."""
        return tuple(generator.get_state() for generator in self._generators)

    def restore(self, states: States) -> None:
        """Put the generators back to `states`."""
        for generator, state in zip(self._generators, states):
            generator.set_state(state)

    def changed(self, states: States) -> str:
        """Return the names of the generators that are not at `states`."""
        pairs = zip(self._generators, states)
        # Compared as bytes: torch.equal takes twice as long.
        moved = [x for x, state in pairs if x.get_state().numpy().tobytes() != state.numpy().tobytes()]
        return ", ".join(dict.fromkeys(getattr(generator, "name", "torch") for generator in moved))


def refuse(gradient: str, repeats_steps: bool, source: str) -> None:
    """Raise RandomField for a gradient that cannot repeat what a vector field draws from `source`."""
    why = (
        "compiled and Rosenbrock steps draw in another order on their way back"
        if repeats_steps
        else "its backward pass evaluates the field at other points, where it would be another field"
    )
    steps = f"gradient=replay{' with compile=False and a method such as dopri5' if repeats_steps else ''}"
    raise RandomField(
        f"the vector field draws random numbers from {source} (dropout in training mode, noise), which\n"
        f"  gradient={gradient} cannot repeat: {why}.\n"
        f"  Use {steps} or gradient=backprop, which differentiate the steps that were taken; or draw the noise\n"
        "  once, outside of the field, and hand it over."
    )
