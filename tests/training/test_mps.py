"""device=mps, Apple's GPU, has float32 only: what needs more is refused by name, and a run asks it for nothing else."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from odenet_cli.analysis.trained import needs_float64
from odenet_cli.config.check import check as check_config
from odenet_cli.errors import RequestError
from odenet_cli.ode import scalars
from odenet_cli.request.compose import compose
from odenet_cli.training import device, generators


def configure(*words):
    return check_config(compose(["device=mps", *words]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("model=odenet data=digits dtype=float64", "dtype=float64 cannot be used with device=mps"),
        ("model=cnf data=moons", r"eval.dtype=float64 \(the recipe of data=moons\) cannot be used with device=mps"),
        ("model=cnf data=moons eval.dtype=float64", "eval.dtype=float64 cannot be used with device=mps"),
        ("model=odenet data=digits compile=true", "compile=true needs float64"),
    ],
)
def test_what_float32_cannot_do_is_refused(words, message):
    with pytest.raises(RequestError, match=message):
        configure(*words.split())


def test_mps_is_taken_where_torch_has_it(monkeypatch):
    config = configure("model=cnf", "data=moons", "eval.dtype=float32")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert device.choose(config.device) == torch.device("mps")
    with pytest.raises(RequestError, match=r"gradcheck computes in float64.*device=cpu"):
        needs_float64("gradcheck", config)


def test_a_machine_without_mps_says_so(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(RequestError, match="no Apple GPU here"):
        device.choose("mps")


def test_the_gpus_generator_is_kept_and_put_back(monkeypatch):
    """Beside torch's own, in a checkpoint and in the fingerprint."""
    held = [torch.arange(4, dtype=torch.uint8)]
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda device: held[0])
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda state, device: held.__setitem__(0, state))
    where = torch.device("mps")
    kept, print_before = generators.state(where), generators.fingerprint(where)
    held[0] = held[0] + 1
    assert generators.fingerprint(where) != print_before
    generators.restore(kept, where)
    assert held[0].tolist() == [0, 1, 2, 3]
    assert generators.fingerprint(where) == print_before


class NoWidening(TorchDispatchMode):
    """Refuse to turn a tensor into float64 where it is, which MPS cannot do."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        wide = (kwargs or {}).get("dtype") == torch.float64
        if func is torch.ops.aten._to_copy.default and wide and args[0].dtype != torch.float64:
            raise TypeError(f"float64 asked of a device: {tuple(args[0].shape)}")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("norm", ["relative", "absolute"])
def test_training_and_scoring_ask_for_no_float64(norm, tmp_path, monkeypatch):
    """On this CPU, which is told to be as narrow; without the mode's rule a loss would be summed in float64."""
    from odenet_cli.config.resolve import complete
    from odenet_cli.tasks.common import scores
    from odenet_cli.training import evaluate, run

    for module in (scalars, evaluate, scores):
        monkeypatch.setattr(module, "widest", lambda where: torch.float32)
    words = ["device=cpu", "model=odenet", "model.width=4", "data=digits", f"gradient.norm={norm}", "compile=false"]
    config = complete(compose([*words, "trainer.max_steps=2", "trainer.limit_batches=2"]), gpu=False)
    with NoWidening():
        final = run.run(config, tmp_path / "run", "odenet train", words)
    assert 0 < final["loss"] < 10
