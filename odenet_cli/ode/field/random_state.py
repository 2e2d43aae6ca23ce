"""Repeat the random numbers that a vector field draws when a step is taken again in the backward pass.

    Fixed(method="euler", steps=1, gradient="replay")(lambda t, y: F.dropout(y, 0.5), y0, ts)

A gradient that evaluates the field again in the backward pass would drop other numbers than the solve did. So the
states of the generators are saved and restored, as by `torch.utils.checkpoint`, but for every single evaluation:
rejected steps draw too, and the derivative at the end of a step may be the first stage of the next one. Reading a state
takes microseconds, so recording begins only once the field has drawn something; if it first does so during the solve,
the solve is repeated. The generators are torch's default ones and those of torch, NumPy or Python that the field can
reach; others are ignored, since other threads may draw from them.

Not detected: numbers that an installed package draws from a generator of its own. The adjoint evaluates the field at
other points and cannot repeat anything, so it raises `RandomField`, and so do compiled steps.
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
    """Wrap a generator of Python or NumPy like one of torch: its state is a tensor of bytes."""

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
    """Return the generator that `value` is, or is a method of, if its state can be restored; else None."""
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
    """Yield the global generators of those `RANDOM_MODULES` that are imported."""
    yield ForeignGenerator("random", random.getstate, random.setstate)
    if (numpy := sys.modules.get("numpy")) is not None:  # which imports numpy.random when somebody asks for it
        yield ForeignGenerator("numpy.random", partial(numpy.random.get_state, legacy=False), numpy.random.set_state)


class Draw(NamedTuple):
    """Hold the indices in `Draws.saved` of the states before and after one evaluation."""

    before: int
    after: int


# A tuple, so that steps can use it as a state. States computed by a step itself are plain tuples, without draws.
class _Drawn(tuple[Tensor, ...]):
    """Hold the value of a vector field, with the states of the generators before and after its evaluation."""

    before: States
    after: States


class Draws:
    """Record the random draws of a vector field in one solve, as generator states, and repeat them.

    recording  whether the states before and after each evaluation are recorded
    saved      the states of the accepted steps, which autograd keeps for the backward pass
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
        """Return the first value `f0`; begin to record if the field has drawn for it and steps are `repeatable`."""
        # Most fields draw nothing; they cost this check and the one in `began_late`.
        drew = self.changed(self._before_first)
        self._after_first = self.states() if drew else self._before_first
        self.recording = bool(drew) and repeatable
        return self._drawn(f0, self._before_first) if self.recording else f0

    def began_late(self) -> str:
        """Return the names of the generators from which the solve has drawn unrecorded numbers.

        If only the first evaluation drew, it did so for the whole solve (noise that is kept). Nothing needs to be
        repeated then, and recording ends.
        """
        drew = self.changed(self._after_first)
        # Drawn after the first value and not recorded: the solve has to be repeated.
        late = "" if self.recording else drew
        self.recording = self.recording and (bool(drew) or not self._evaluated_again)
        return late

    def begin_again(self, f0: State) -> State:
        """Restore the generators to their states after the first value `f0`, and record; return `f0` like `begin`."""
        self.restore(self._after_first)
        self.recording = True
        return self._drawn(f0, self._before_first)

    def record(self, function: VectorField) -> VectorField:
        """Return `function` with values that carry the states before and after their evaluation."""

        def evaluate(t: Time, y: State, used: bool = True) -> State:
            self._evaluated_again = True
            # The solver draws nothing between evaluations, but other threads may.
            before = self.states() if self.changed(self._last) else self._last
            return self._drawn(function(t, y, used), before)

        return evaluate

    def save(self, values: Sequence[State]) -> list[Draw]:
        """Save the states around `values`, in this order, and return their indices."""
        return [Draw(self._save(x.before), self._save(x.after)) for x in values if isinstance(x, _Drawn)]

    def replay(self, function: VectorField, draws: Sequence[Draw]) -> VectorField:
        """Return `function` with evaluations that repeat `draws`, one after the other."""
        # In the order in which they were saved: the gradient evaluates in this order (`Problem.record`).
        remaining = iter(draws)

        def evaluate(t: Time, y: State, used: bool = True) -> State:
            # Before each evaluation, since rejected attempts drew between them in the forward solve.
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
        """Restore the generators after a backward pass; raise RandomField if the field has drawn only in this pass.

        A field that seeds a generator at every evaluation leaves it in the state after the first one, and is accepted.
        """
        # The backward pass repeats draws, which must not change the numbers that the caller draws next.
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
        """Return the saved states, and drop them."""
        # Autograd keeps them from now on, and frees them after the backward pass.
        saved, self.saved, self._places = self.saved, [], {}
        self._before_first = self._last = ()
        return [state for states in saved for state in states]

    def put_saved(self, tensors: Sequence[Tensor]) -> None:
        """Put back what `take_saved` returned."""
        count = len(self._generators)
        self.saved = [tuple(tensors[n : n + count]) for n in range(0, len(tensors), count)]

    def _drawn(self, value: State, before: States) -> _Drawn:
        drawn = _Drawn(value)
        drawn.before = before
        drawn.after = self._last = self.states() if self.changed(before) else before
        return drawn

    def _save(self, states: States) -> int:
        # The states after an evaluation are the same object as those before the next one, and are saved once.
        if id(states) not in self._places:
            self._places[id(states)] = len(self.saved)
            self.saved.append(states)
        return self._places[id(states)]

    def states(self) -> States:
        """Return the present states of the generators."""
        return tuple(generator.get_state() for generator in self._generators)

    def restore(self, states: States) -> None:
        """Restore the generators to `states`."""
        for generator, state in zip(self._generators, states):
            generator.set_state(state)

    def changed(self, states: States) -> str:
        """Return the names of the generators whose states differ from `states`."""
        pairs = zip(self._generators, states)
        # Compared as bytes: torch.equal takes twice as long.
        moved = [x for x, state in pairs if x.get_state().numpy().tobytes() != state.numpy().tobytes()]
        return ", ".join(dict.fromkeys(getattr(generator, "name", "torch") for generator in moved))


def refuse(gradient: str, repeats_steps: bool, source: str) -> None:
    """Raise RandomField for a gradient that cannot repeat what a vector field draws from `source`."""
    why = (
        "compiled and Rosenbrock steps draw in another order on their way back"
        if repeats_steps
        else "its backward pass evaluates the field at other points, with other random numbers"
    )
    steps = f"gradient=replay{' with compile=False and a method such as dopri5' if repeats_steps else ''}"
    raise RandomField(
        f"the vector field draws random numbers from {source} (dropout in training mode, noise), which\n"
        f"  gradient={gradient} cannot repeat: {why}.\n"
        f"  Use {steps} or gradient=backprop, which differentiate the steps that were taken; or draw the noise\n"
        "  once, outside of the field, and pass it in args."
    )
