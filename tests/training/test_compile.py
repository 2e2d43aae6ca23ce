"""`compile=true` trains as `compile=false` does, and what cannot be compiled is refused before anything starts."""

from __future__ import annotations

import json

import pytest

SMALL = (
    "data=digits", "model.width=4", "trainer.batch_size=16", "trainer.epochs=1", "trainer.limit_batches=3",
    "trainer.log_every=1", "device=cpu", "dtype=float64",
)  # fmt: skip


@pytest.mark.numerics
def test_a_compiled_run_is_the_plain_one(odenet, tmp_path):
    records = []
    for compile in ("false", "true"):
        run = tmp_path / compile
        done = odenet("train", *SMALL, "gradient=backprop", f"compile={compile}", f"hydra.run.dir={run}")
        assert done.returncode == 0, done.stderr
        records.append([json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()])
    plain, compiled = records
    assert len(plain) == len(compiled) == 5
    for one, other in zip(plain, compiled):
        for key in ("step", "split", "nfe_forward", "nfe_backward", "accepted", "rejected"):
            assert one.get(key) == other.get(key)
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-8)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("compile=true", "solver=adams"), ("compile=True", "solver.method=adams", "compile=False")),
        pytest.param(("compile=sure",), ("compile=sure", "auto, true, false, loop"), marks=pytest.mark.numerics),
        pytest.param(
            ("compile=loop", "gradient=reversible"), ("compile=loop", "gradient=reversible"), marks=pytest.mark.numerics
        ),
    ],
)
def test_what_cannot_be_compiled_is_refused(odenet, tmp_path, words, said):
    done = odenet("train", "data=digits", *words)
    assert done.returncode == 2
    assert all(word in done.stderr for word in said)
    assert not (tmp_path / "runs").exists()
