"""What a run says and keeps when it cannot go on."""

import errno
import pickle
import random

import numpy
import pytest
import torch

from odenet_cli.errors import HasNoMeaning, Interrupted, is_disk_full
from odenet_cli.training import generators
from odenet_cli.training.failure import explain, first_nonfinite
from odenet_cli.training.run import assemble

ODE = ("model=odenet", "model.width=4", "solver=heun", "solver.steps=2")
LEAN = {
    "backprop": "gradient=replay, adjoint or reversible need less",
    "replay": "gradient=adjoint or reversible need less",
}


@pytest.mark.parametrize("gradient", ["backprop", "replay", "adjoint"])
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_names_peak_batch_and_what_needs_less(tiny, tmp_path, gradient, error):
    session = assemble(tiny(*ODE, f"gradient={gradient}"), torch.device("cpu"))
    kind, reason, raised = explain(error, session, tmp_path)
    assert kind == "failed"
    assert str(raised) == reason
    for part in ("out of memory on cpu", "the peak was ", " MiB with trainer.batch_size=8", f"gradient={gradient}"):
        assert part in reason
    assert (LEAN.get(gradient, "need less") in reason) is (gradient in LEAN)


@pytest.mark.parametrize(
    ("solver", "gradient", "less"),
    [("adams", "backprop", "gradient=adjoint needs less"), ("rodas4", "backprop", "gradient=replay needs less")],
)
def test_what_needs_less_memory_fits_the_method(tiny, tmp_path, solver, gradient, less):
    """A pair that is refused is no way out."""
    words = ("model=odenet", "model.width=4", f"solver={solver}", f"gradient={gradient}")
    session = assemble(tiny(*words), torch.device("cpu"))
    assert f"; {less}." in explain(MemoryError(), session, tmp_path)[1]


def test_a_full_disk_is_told_from_other_troubles(tiny, tmp_path):
    session = assemble(tiny(), torch.device("cpu"))
    error = OSError(errno.ENOSPC, "No space left on device", "here/metrics.jsonl")
    _, reason, _ = explain(error, session, tmp_path)
    assert reason.startswith("no space left for here/metrics.jsonl (No space left on device).")
    assert f"  Free some space and start again with: odenet train resume={tmp_path}" in reason
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.pt").touch()
    assert "The last checkpoint is intact. Free some space and continue with" in explain(error, session, tmp_path)[1]
    assert not is_disk_full(OSError(errno.EACCES, "Permission denied"))
    assert not is_disk_full(ValueError())


def test_an_interruption_keeps_its_reason_by_itself(tiny, tmp_path):
    """Also behind a `;`, and on its way home from another process."""
    session = assemble(tiny(), torch.device("cpu"))
    status, reason, raised = explain(Interrupted("SIGTERM; or so", 143), session, tmp_path)
    assert (status, reason) == ("interrupted", "SIGTERM; or so")
    home = pickle.loads(pickle.dumps(raised))
    assert (home.reason, home.code, str(home)) == (reason, 143, str(raised))
    assert str(home).startswith("SIGTERM; or so; the checkpoint was saved. Continue with:\n  odenet train resume=")


def test_a_refusal_comes_home_from_another_process():
    refused = HasNoMeaning({"solver.rtol": 1e-3}, "has no meaning for rk4")
    home = pickle.loads(pickle.dumps(refused))
    assert str(home) == str(refused) == "solver.rtol=0.001 has no meaning for rk4; leave it out."
    assert (home.given, home.reason) == (refused.given, refused.reason)


def test_every_generator_goes_on_where_it_was():
    def drawn():
        return torch.rand(3).tolist(), [random.random() for _ in range(3)], numpy.random.rand(3).tolist()  # noqa: NPY002

    cpu = torch.device("cpu")
    generators.seed(3)
    numpy.random.randn()  # noqa: NPY002 - half of a pair is kept inside
    state = generators.state(cpu)
    first = drawn()
    assert drawn() != first
    generators.restore(state, cpu)
    assert drawn() == first


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_broken_tensor_is_found_wherever_it_is(value):
    sound = {"a": torch.ones(3), "b": [torch.zeros(2), {"c": torch.ones(2)}], "d": 1.0}
    assert first_nonfinite(sound) is None
    sound["b"][1]["c"][1] = value
    assert first_nonfinite(sound) == "b.1.c"
