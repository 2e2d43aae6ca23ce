"""The user's vector field as solvers call it: checked, counted, and called with the user's kind of state."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from odenet_cli.ode.field.snapshot import version_of
from odenet_cli.ode.field.torch_settings import TorchSettings
from odenet_cli.ode.resolution import RESOLUTION
from odenet_cli.ode.state import Field, State, Time, differs
from odenet_cli.ode.stats import Stats


class Arguments:
    """Hold the arguments of a field besides time and state, as a flat list of tensors and other values.

    tensors  the caller's tensors, in order
    rest     all other values, in order
    """

    def __init__(self, args: Sequence[Any]) -> None:
        if not isinstance(args, (tuple, list)):
            raise TypeError(
                f"args must be a tuple of the arguments after (t, y), such as args=(u,); got {type(args).__name__}."
            )
        # Flattened like arguments of torch's function transforms: nested dicts, lists and tuples.
        leaves, self._nest = tree_flatten(tuple(args))
        self.tensors = tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))
        self.rest = [leaf for leaf in leaves if not isinstance(leaf, Tensor)]
        self._is_tensor = [isinstance(leaf, Tensor) for leaf in leaves]

    def fill(self, tensors: Sequence[Tensor]) -> tuple[Any, ...]:
        """Return the arguments with `tensors` in place of the caller's."""
        tensor, rest = iter(tensors), iter(self.rest)
        leaves = [next(tensor if is_tensor else rest) for is_tensor in self._is_tensor]
        args: tuple[Any, ...] = tree_unflatten(leaves, self._nest)
        return args


class RightHandSide:
    """Call the user's field with a tensor time and the user's kind of state, check its result, and count.

    y0           initial state, always a tuple of tensors
    args         further arguments of the field: the caller's, or leaves in their place (`call_with`)
    arguments    the caller's arguments, flattened
    stats        counters
    backward     count evaluations as backward work
    counts_vjps  hook each value, so that a backward pass through it adds to `stats.vjps`
    to_watch     number of evaluations still to be checked for buffers that the field returns again
    """

    def __init__(self, field: Field, y0: Tensor | Sequence[Tensor], args: Sequence[Any] = ()) -> None:
        self.field = field
        self.args, self.arguments = tuple(args), Arguments(args)
        self.single = isinstance(y0, Tensor)
        self.y0: State = tuple(y0) if isinstance(y0, Sequence) else (y0,)
        for part in self.y0:
            if not isinstance(part, Tensor) or part.dtype not in RESOLUTION or part.layout is not torch.strided:
                kind: Any = type(part).__name__
                if isinstance(part, Tensor):
                    kind = part.dtype if part.layout is torch.strided else part.layout
                raise TypeError(f"y0 must be a dense floating-point or complex tensor, or a tuple of them; got {kind}.")
        if not self.y0 or len({part.device for part in self.y0}) > 1:
            raise ValueError("y0 must hold at least one tensor, and all of them on one device.")
        self.y0 = tuple(map(_alias, self.y0))
        self.device = self.y0[0].device
        if self.device.type == "meta":
            raise ValueError("y0 must hold numbers, by which a solve chooses its steps: tensors on meta have none.")
        self.torch_settings = TorchSettings.current(self.device)
        # The widest dtype of the state, so that t is as fine as the finest component.
        self.time_dtype = max((part.real.dtype for part in self.y0), key=lambda dtype: torch.finfo(dtype).bits)
        self.stats, self.backward, self.counts_vjps = Stats(), False, False
        self._differentiates = False  # the field takes derivatives by its state itself
        self.to_watch = WATCHED
        self._returned: dict[int, _Returned] = {}

    def __call__(self, t: Time, y: State, used: bool = True) -> State:
        if not isinstance(t, Tensor):
            t = torch.scalar_tensor(t, dtype=self.time_dtype, device=self.device)
        elif t.dtype != self.time_dtype:
            t = t.to(self.time_dtype)
        if torch.compiler.is_compiling():
            # A compiler has no version counters, so in-place writes go to copies; the compiler removes unneeded copies.
            # Nothing is counted, since a count would become a constant of the compiled code.
            return tuple(k.clone() for k in self._traced(t, tuple(part.clone() for part in y)))
        # Version counters detect in-place writes, at no cost on the device.
        versions = [part._version for part in y]
        # Writes through NumPy or `.data` show only in the numbers, which are compared once, at the first evaluation.
        looks = self.to_watch == WATCHED and self.device.type == "cpu" and all(map(_is_plain, y))
        before = tuple(part.detach().clone() for part in y) if looks else ()
        state = y[0] if self.single else y
        # A field that takes derivatives with respect to its state fails at its first call; see `_call_again`.
        field = self._call_differentiating if self._differentiates else self.field
        try:
            if self.torch_settings.autocast:
                with self.torch_settings.for_field():
                    value = field(t, state, *self.args)
            else:
                value = field(t, state, *self.args)
        except RuntimeError as error:
            value = self._call_again(error, t, state)
        k = self._check_shapes(value, y)
        if [part._version for part in y] != versions:  # raised by a write to any view of the tensor
            raise ValueError(_WRITES)
        if self.to_watch:
            self._watch(y, before, k)
        self.count(1)
        return self.count_vjps(k, 1) if self.counts_vjps else k

    def count(self, evaluations: int) -> None:
        """Add evaluations of the field, as forward or as backward work."""
        if self.backward:
            self.stats.nfe_backward += evaluations
        else:
            self.stats.nfe_forward += evaluations

    def count_vjps(self, values: State, evaluations: int, check: Callable[[], None] | None = None) -> State:
        """Return `values`, computed by so many evaluations, with hooks that count as many backward products.

        check  called by each backward pass that comes here
        """
        if not self.counts_vjps or not any(k.requires_grad for k in values):
            return values
        # A hook, since only it knows whether and how often a backward pass comes here.
        stats, last_pass = self.stats, [-1]

        def count(cotangent: Tensor) -> None:
            this_pass = torch._C._current_graph_task_id()  # one backward pass may call the hooks of several values
            if this_pass != last_pass[0]:
                last_pass[0] = this_pass
                stats.vjps += evaluations
                if check is not None:
                    check()

        counted = []
        for k in values:
            if k.requires_grad:
                k = k.view_as(k)  # a field may return a tensor of the caller, which must not get our hook
                k.register_hook(count)  # type: ignore[no-untyped-call]
            counted.append(k)
        return tuple(counted)

    def call_with(self, tensors: Sequence[Tensor], connected: bool = False) -> State:
        """Call the field with these tensors as arguments from now on, and return them: as leaves of new graphs, or if
        `connected` as views with their history."""
        # New for each pass, since it differentiates with respect to the tensors that the field is called with.
        leaves = tuple(
            x.view_as(x) if connected and x.requires_grad else x.detach().requires_grad_(x.requires_grad)
            for x in tensors
        )
        self.args = self.arguments.fill(leaves)
        return leaves

    def release(self) -> None:
        """Drop all tensors, which autograd keeps for the backward pass and frees after it."""
        self.y0, self.args, self.arguments.tensors = (), (), ()

    def restore(self, parts: Sequence[Tensor]) -> Any:
        """Return the state in the user's form: a tensor, or a tuple."""
        return parts[0] if self.single else tuple(parts)

    def _traced(self, t: Tensor, y: State) -> State:
        # The compiler does not notice hooks for all modules, but does notice another number that was read.
        bool(self.torch_settings.module_hooks)
        state = y[0] if self.single else y
        if self.torch_settings.autocast:
            with self.torch_settings.for_field():
                return self._check_shapes(self.field(t, state, *self.args), y)
        return self._check_shapes(self.field(t, state, *self.args), y)

    def _check_shapes(self, value: Any, y: State) -> State:
        """Return the field's value as a state; raise ValueError if it is not like `y`."""
        # Never broadcast: a k of another shape would change the shape of the state.
        k: State = (value,) if self.single else tuple(value)
        if len(k) != len(y):
            raise ValueError(f"the field returned {len(k)} tensors for a state of {len(y)}.")
        for dy, part in zip(k, y):
            if not (isinstance(dy, Tensor) and dy.dtype is part.dtype and dy.shape == part.shape):
                raise ValueError(_mismatch(dy, part))
        return k

    def _call_again(self, error: RuntimeError, t: Tensor, state: Any) -> Any:
        """Call a field again that failed because its state requires no gradient; raise any other error."""
        # Identified by autograd's message, as it has no error type of its own: the field wrote into a leaf.
        if "a leaf Variable that requires grad" in str(error):
            raise ValueError(_WRITES) from error
        if self._differentiates or "does not require grad" not in str(error):
            raise error
        self._differentiates = True
        with self.torch_settings.for_field():
            return self._call_differentiating(t, state, *self.args)

    def _call_differentiating(self, t: Tensor, y: Any, *args: Any) -> Any:
        """Call a field that differentiates with respect to its state itself, as for a Hamiltonian: with a state that
        requires a gradient, and autograd on. The result has a graph only if autograd was on before."""
        # New leaves at each evaluation, so that the field's inner graph begins at the state.
        recorded = torch.is_grad_enabled()
        with torch.enable_grad():
            state = (y,) if self.single else y
            parts = [part if recorded and part.requires_grad else part.detach().requires_grad_() for part in state]
            value = self.field(t, self.restore(parts), *args)
        return value if recorded else tree_map_only(Tensor, torch.detach, value)

    def _watch(self, y: State, before: State, k: State) -> None:
        """Raise ValueError if the field has overwritten the state, of which `before` is a copy, or an earlier value."""
        self.to_watch -= 1
        for part, contents in zip(y, before):
            if differs(part, contents):
                part.data.copy_(contents)  # restored, as it may be the caller's tensor
                raise ValueError(_WRITES)
        for value in list(self._returned.values())[-len(k) :]:  # of the evaluation before, returned again or not
            if _is_overwritten(*value):
                raise ValueError(_REUSES)
        for dy in k:
            self._note(dy, 4 * len(k))

    def _note(self, dy: Tensor, held: int) -> None:
        """Record the present contents of `dy`; raise ValueError if it has overwritten one of the last `held` values.

        A field may return several buffers in turn, so earlier values are looked up by address, once per evaluation.
        """
        address, returned, contents = dy.data_ptr() if _is_plain(dy) else id(dy), self._returned, None
        before = returned.pop(address, None)
        if before is not None and before[0]() is not None:  # memory of a freed tensor may be reused
            if _is_overwritten(*before):
                raise ValueError(_REUSES)
            contents = dy.detach().clone() if dy.is_cpu else None
        returned[address] = weakref.ref(dy), version_of(dy), contents
        if len(returned) > held:
            del returned[next(iter(returned))]


# Number of evaluations to check, at least several steps of any method: a field that returns a buffer does so from the
# start, and checking all evaluations would cost a small field a fifth of its time.
WATCHED = 64
_PLAIN = Tensor, torch.nn.Parameter
# A recorded value of the field: a weak reference, which keeps no stage in memory; its version; and a copy if an earlier
# value was at the same address, since NumPy and `.data` write without a new version.
_Returned = tuple[weakref.ref[Tensor], int, Tensor | None]


def _is_overwritten(reference: weakref.ref[Tensor], version: int, contents: Tensor | None) -> bool:
    tensor = reference()
    if tensor is None or (contents is None and version_of(tensor) == version):
        return False
    return contents is None or differs(tensor, contents)


def _is_plain(tensor: Tensor) -> bool:
    """Return whether the numbers of `tensor` are at its address."""
    return type(tensor) in _PLAIN and not is_functorch_wrapped_tensor(tensor)


_WRITES = (
    "the field writes into the state that it is given, as torch.relu_(y), y += x or nn.ReLU(inplace=True) do, and the "
    "solver still needs it. Use torch.relu(y), y = y + x or inplace=False, or begin with y = y.clone()."
)
_REUSES = (
    "the field returns a tensor that it writes into again at its next evaluation, as torch.neg(y, out=buffer) does or "
    "torch.from_numpy(buffer), and the solver still needs it. Return a new tensor, or buffer.clone()."
)


def _alias(part: Tensor) -> Tensor:
    """Return a view of `part`, so that hooks or requires_grad set by the field do not reach the caller's tensor; a copy
    of an inference tensor, which has no version counter and cannot be saved by a graph."""
    # A part that requires a gradient stays the caller's own tensor, with its history.
    if part.requires_grad:
        return part
    return part.clone() if part.is_inference() else part.view_as(part)


def _mismatch(dy: Any, part: Tensor) -> str:
    """Return the error message for a field's value that is not like the state."""
    got = f"{tuple(dy.shape)} {dy.dtype}" if isinstance(dy, Tensor) else type(dy).__name__
    message = (
        f"the field must return the shape and dtype of its input: {tuple(part.shape)} {part.dtype}; it returned {got}."
    )
    if not isinstance(dy, Tensor) or dy.dtype not in (torch.float16, torch.bfloat16):
        return message
    cast = ".float()" if part.dtype is torch.float32 else ".to(y.dtype)"
    return (
        f"{message}\n"
        f"  If autocast is the cause, cast the result: solver(lambda t, y: net(t, y){cast}, y0, ts); or switch it off\n"
        f"  in the field: with torch.autocast({part.device.type!r}, enabled=False)."
    )
