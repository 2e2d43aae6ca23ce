"""The same seed gives the same bits, wherever and however a run is started; what may change them is recorded."""

import pytest
from faults_kit import ODE, TINY, bare, kept, run_json, same_bits

ROW = "10 reproducibility"
slow, numerics = pytest.mark.slow, pytest.mark.numerics
RUN = ("train", *TINY, "optim.lr=0.3", "trainer.log_every=4")
WAYS = {
    "again": ([], {}),
    "another locale": ([], {"LC_ALL": "C", "LANG": "tr_TR.UTF-8", "PYTHONIOENCODING": "ascii", "TZ": "Asia/Tokyo"}),
    "other checkpoints": (["trainer.checkpoint_every=1"], {}),
    "another hash seed": ([], {"PYTHONHASHSEED": "7"}),
}


@numerics
def test_the_same_seed_gives_the_same_bits(odenet, tmp_path, happened):
    """The same bits again, in another locale, with other checkpoint intervals, and as a job of a sweep; not of another
    seed."""
    assert odenet(*RUN, "hydra.run.dir=first").code == 0
    for name, (words, environ) in WAYS.items():
        done = odenet(*RUN, *words, f"hydra.run.dir={name}", **environ)
        assert done.code == 0, done.err
        assert same_bits(tmp_path / name, tmp_path / "first")
    assert odenet("train", "-m", *RUN[1:], "seed=1,0", "hydra.sweep.dir=sweep").code == 0
    assert same_bits(tmp_path / "sweep" / "1-seed=0", tmp_path / "first")
    assert bare(tmp_path / "sweep" / "0-seed=1") != bare(tmp_path / "first")
    happened("again, " + ", ".join(list(WAYS)[1:]) + ", in a sweep: the same bits")


@slow
def test_an_ode_net_gives_the_same_bits(odenet, tmp_path):
    """An ODE-Net with an adaptive solver and the adjoint: the same bits twice, with deterministic=true as well."""
    for name, word in (("a", "deterministic=false"), ("b", "deterministic=false"), ("c", "deterministic=true")):
        assert odenet("train", *ODE, word, f"hydra.run.dir={name}").code == 0
    assert same_bits(tmp_path / "a", tmp_path / "b")
    assert bare(tmp_path / "a") == bare(tmp_path / "c")


@numerics
def test_what_may_change_the_bits_is_recorded(odenet, tmp_path):
    """run.json has the number of threads, the versions, the device, the data's SHA-256; a checkpoint has its config."""
    assert odenet(*RUN, "trainer.epochs=1", "hydra.run.dir=run").code == 0
    record = run_json(tmp_path / "run")
    assert record["threads"] == 1
    assert set(record["versions"]) >= {"odenet", "python", "torch"}
    assert record["device"].startswith("cpu")
    assert len(record["data"]["sha256"]) == 64
    state = kept(tmp_path / "run")
    assert state["config"]["model.hidden"] == 4
    assert {"generator", "generators", "optimizer", "position", "metrics_bytes"} <= state.keys()
