"""A wrong request is refused before data is read and before a folder is made: key, value and remedy in plain words."""

import pytest
from faults_kit import TINY, run_json

ROW = "5 bad input"
slow, numerics = pytest.mark.slow, pytest.mark.numerics

# words -> what the message names. All of them in one process each, the imports paid for once.
WRONG = {
    "trainer.epochs=-1": ["trainer.epochs=-1", "1 or more"],
    "trainer.epochs=0": ["trainer.epochs=0", "1 or more"],
    "trainer.epochs=nan": ["trainer.epochs"],
    "trainer.epochs=1.5": ["trainer.epochs=1.5", "whole number"],
    "trainer.epochs=ten": ["trainer.epochs=ten", "whole number"],
    "trainer.epochs=[1,2]": ["trainer.epochs"],
    "trainer.epochs=99999999999999999999": ["trainer.epochs", "2^63"],
    "trainer.batch_size=0": ["trainer.batch_size=0", "1 or more"],
    "trainer.batch_size=100000": ["trainer.batch_size=100000", "1,293", "Allowed: 1 to 1293"],
    "trainer.batch_size=10000000000": ["trainer.batch_size=10000000000", "memory"],
    "seed=-1": ["seed=-1"],
    "seed=9223372036854775808": ["seed=9223372036854775808", "2^63"],
    "seed=": ["seed="],
    "optim.lr=0": ["optim.lr=0", "above 0"],
    "optim.lr=-1": ["optim.lr=-1", "above 0"],
    "optim.lr=nan": ["optim.lr=nan", "finite"],
    "optim.lr=1e999": ["optim.lr=inf", "finite"],
    "optim.lr=1e-999": ["optim.lr=0", "above 0"],
    "optim.lr=fast": ["optim.lr=fast", "a number"],
    "optim.weight_decay=-1": ["optim.weight_decay=-1"],
    "optim.decay=0": ["optim.decay=0"],
    "optim.clip=0": ["optim.clip=0", "above 0"],
    "model.hidden=0": ["hidden"],
    "model.hidden=-3": ["hidden"],
    "model.hidden=many": ["hidden"],
    "model.hidden=1000000000": ["model.hidden=1000000000", "GiB"],
    "model.hidden=4611686018427387904": ["mlp"],
    "model=resnet model.blocks=1000000": ["model.blocks=1000000", "10,000"],
    "solver.rtol=1e-10": ["solver.rtol=1e-10", "dtype=float64"],
    "solver.rtol=0": ["solver.rtol=0", "above 0"],
    "solver=rk4 solver.rtol=1e-3": ["rk4", "fixed steps"],
    "solver.steps=4": ["dopri5", "chooses its steps from the tolerance"],
    "solver=doprii5": ["Did you mean `dopri5`?"],
    "gradient=adjiont": ["Did you mean `adjoint`?"],
    "data=minst": ["Did you mean `mnist`?"],
    "data.crop=-1": ["data.crop=-1"],
    "data.crop=1000": ["data.crop=1000"],
    "data.validation=1437": ["data.validation=1437"],
    "device=cuda:9": ["device=cuda:9", "does not exist"],
    "device=tpu": ["device=tpu"],
    "name=${nowhere}": ["nowhere", "does not exist"],
    "name=": ["name"],
    "name=../up": ["name='../up'"],
    "name=/etc/x": ["name='/etc/x'"],
    "name=a\nb": ["name="],
    "resume=": ["resume"],
    "checkpoint=nothing.pt": ["checkpoint=nothing.pt"],
    "+trainer.epoch=3": ["trainer.epoch", "not a key"],
}


@slow
def test_a_wrong_request_is_refused(odenet, tmp_path, happened):
    """Every range, type and name: exit 2, at most 12 lines with the key and what is allowed, no folder, no data."""
    bad = []
    for words, parts in WRONG.items():
        keys = {word.partition("=")[0] for word in words.split(" ")}
        said = [word for word in TINY if word.partition("=")[0] not in keys]
        said = said if "model" not in keys else [word for word in said if not word.startswith("model.")]
        done = odenet("train", *said, *words.split(" "), before=NO_DATA)
        if done.code != 2 or not all(part in done.err for part in parts) or list(tmp_path.iterdir()):
            bad.append((words, done))
    assert bad == []
    happened(f"{len(WRONG)} requests refused")


# A batch is judged by the number of samples, so data that are embedded may be counted; none may be dealt.
NO_DATA = "from odenet_cli import data\ndef load(*_, **__): raise SystemExit(99)\ndata.load = load"


@numerics
def test_a_checkpoint_of_another_model_is_refused(odenet, tmp_path):
    """checkpoint=PATH of a wider model: exit 2 naming the width, and no folder."""
    short = [*TINY, "trainer.epochs=1", "trainer.limit_batches=2"]
    assert odenet("train", *short, "model.hidden=5", "hydra.run.dir=wide").code == 0
    done = odenet("train", *short, "checkpoint=wide/checkpoints/last.pt", "hydra.run.dir=narrow")
    assert done.code == 2
    assert "model.hidden: 5 in the checkpoint, 4 here" in done.err
    assert not (tmp_path / "narrow").exists()


NAMES = ["a b", "it's", 'say "x"', "a,b", "[1]", "100 %", "$5", "é×λ", "x" * 200, "a=b", "{a}", "(a"]


@slow
def test_names_of_any_spelling_work(odenet, tmp_path):
    """Names with spaces, quotes, commas, brackets, %, $, and of 200 characters: exit 0, a folder of that name."""
    short = [*TINY, "trainer.epochs=1", "trainer.limit_batches=1"]
    for name in NAMES:
        done = odenet("train", *short, f"name={name}")
        assert done.code == 0, (name, done.err)
    found = {path.parent.name[14:]: path.parent for path in (tmp_path / "runs").glob("*/*/run.json")}
    assert set(found) == set(NAMES)
    assert {run_json(folder)["name"] for folder in found.values()} == set(NAMES)
