"""A field of one's own on the command line: named again wherever its run is used, and by no file."""

SHORT = ("data=moons", "device=cpu", "trainer.steps=2", "trainer.batch_size=32", "trainer.limit_batches=1")
QUICK = ("solver.rtol=1e-3", "eval.solver.rtol=1e-3", "eval.dtype=float32", "compile=false", "logger=none")
FIELD = """
import torch
class Field(torch.nn.Module):
    def __init__(self, width: int = 4):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.Tanh(), torch.nn.Linear(width, 2))
    def forward(self, t, y):
        return self.net(y)
class Narrow(Field):
    def forward(self, t, y):
        return super().forward(t, y)[:, :1]
"""


def test_a_run_with_a_field_of_ones_own(odenet, tmp_path):
    (tmp_path / "mine.py").write_text(FIELD)
    train = ("train", "model=cnf", *SHORT, *QUICK)
    done = odenet(*train, "model.field=mine:Narrow")
    assert done.returncode == 2
    assert "model.field=mine:Narrow" in done.stderr
    assert not (tmp_path / "runs").exists()

    own = "model.field=mine:Field"
    done = odenet(*train, own, "+model.field_args.width=3", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert "cnf with field mine:Field, 17 parameters" in done.stdout
    for words in (["eval", "run"], ["train", "resume=run", "trainer.steps=3", "logger=none"]):
        refused = odenet(*words)
        assert (refused.returncode, own in refused.stderr) == (2, True), words
        assert "name code" in refused.stderr
        done = odenet(*words, own)
        assert done.returncode == 0, (words, done.stderr)
    refused = odenet("train", "--config-dir", "run", "--config-name", "config", "hydra.run.dir=again")
    assert (refused.returncode, own in refused.stderr) == (2, True)


def test_an_option_of_the_field_without_its_plus_says_so(odenet):
    done = odenet("train", "model=cnf", *SHORT, "model.field_args.width=3")
    assert done.returncode == 2
    assert "write a plus: +model.field_args.width=" in done.stderr


def test_the_command_that_doctor_prints_names_the_field(odenet, tmp_path):
    (tmp_path / "mine.py").write_text(FIELD)
    own = "model.field=mine:Field"
    words = ("train", "model=cnf", *SHORT, *QUICK, own, "solver.max_steps=1", "solver.first_step=0.01")
    assert odenet(*words, "hydra.run.dir=run").returncode == 1
    done = odenet("doctor", "run", own)
    assert "step_limit: " in done.stdout
    command = next(line for line in done.stdout.splitlines() if line.startswith("  command")).split()[2:]
    assert own in command
    again = odenet(*command)
    assert again.returncode == 0, again.stderr
