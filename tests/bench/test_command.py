"""`odenet bench`: what it refuses, what it leaves out, and what it writes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from odenet_cli.bench import peers, workloads
from odenet_cli.bench.peers import torchode
from odenet_cli.bench.workloads import w2
from odenet_cli.commands.bench import PARSER, check, main
from odenet_cli.errors import RequestError
from odenet_cli.training import progress

PEERS = ("torchdiffeq", "torchode", "torchdyn", "diffrax")


@pytest.fixture
def no_peers(monkeypatch):
    """As if none were installed."""
    for name in (*PEERS, "jax"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["w9"], "Available: precision, train, w1, w2, w3, w4."),
        (["precison"], "Did you mean `precision`?"),
        (["repeat=3"], "Did you mean `repeats`?"),
        (["--agains", "torchode"], "Did you mean `--against`?"),
        (["repeats=0"], "repeats=0 must be a whole number from 1 to 100,000."),
        (["--against="], "against= needs a value."),
        (["--against"], "--against needs a value."),
        (["out="], "out= needs a value."),
        (["device=gpu"], "device=gpu is not known. Available: auto, cpu, cuda, cuda:N."),
    ],
)
def test_a_word_that_means_nothing_is_refused(words, answer):
    with pytest.raises(RequestError) as refused:
        check(PARSER.parse(words))
    assert answer in str(refused.value)


def test_the_request_is_read():
    request = PARSER.parse(["w2", "--against", "torchode,torchdyn", "repeats=3", "w2"])
    assert (check(request), request.against, request.repeats) == (["w2"], ["torchode", "torchdyn"], 3)
    assert check(PARSER.parse(["--against=torchode"])) == workloads.names()


def test_a_peer_of_another_name_is_refused():
    with pytest.raises(RequestError, match="Did you mean `torchdiffeq`"):
        peers.select(["torchdifeq"])


def test_a_peer_asked_for_by_name_must_be_installed(no_peers):
    with pytest.raises(RequestError, match=r"torchode is not installed(.|\n)*pip install -e \"\.\[bench\]\""):
        peers.select(["torchode"])
    assert peers.select(None) == ([], dict.fromkeys(sorted(PEERS), "is not installed"))


def test_a_peer_that_does_not_import_is_named_with_the_reason(monkeypatch, tmp_path):
    (tmp_path / "half_a_peer.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torchode, "NEEDS", ("half_a_peer",))
    assert peers.missing("torchode") == "does not import: no module named no_such_library"


def test_a_workload_is_printed_and_written(no_peers, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(peers.odenet, "compiled", lambda *gradients, loop=False: [])
    monkeypatch.setattr(workloads, "workload", lambda name: w2.Workload(batch=2, end=1.0))
    monkeypatch.setattr(progress, "SILENCE_S", -1)
    assert main(["w2", "repeats=1", "device=cpu", f"out={tmp_path}"]) == 0
    printed, told = capsys.readouterr()
    names = ["checking odenet", "round 0 of 1, odenet", "round 1 of 1, odenet"]
    assert [line.partition(" replay")[0] for line in told.splitlines()] == [
        "1/1  w2",
        *(f"1/1  w2  {name}" for name in names),
    ]
    assert "- not compared: diffrax is not installed; " in printed
    assert "| odenet " in printed
    record = json.loads((tmp_path / "w2-cpu.json").read_text())
    assert record["made"]["command"].startswith("odenet bench w2 repeats=1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w2-cpu.json", "w2-cpu.md"]
    (row,) = record["tables"][0]["records"]
    assert row["subject"] == "odenet"
    assert len(row["times_ms"]) == 1
    assert (tmp_path / "w2-cpu.md").exists()


def test_help_lists_the_workloads_without_torch():
    code = "import sys; from odenet_cli.commands.bench import main; main(['-h']); assert 'torch' not in sys.modules"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for name in workloads.names():
        assert f"\n  {name}" in answer
