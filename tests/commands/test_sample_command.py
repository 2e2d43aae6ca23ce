"""`odenet sample`: points drawn from a flow, and the log-densities of points."""

import pytest
import torch
from runs_kit import train_run

from odenet_cli.analysis.trained import trained
from odenet_cli.commands import sample
from odenet_cli.config.saved import load
from odenet_cli.errors import RequestError
from odenet_cli.models.planar import Planar
from odenet_cli.ode import SolveError
from odenet_cli.training import run as runs

SHORT = ("data=moons", "device=cpu", "trainer.steps=2", "trainer.batch_size=32", "trainer.limit_batches=1")
SMALL = {
    "planar": ("model.layers=2",),
    "cnf": ("model.units=2", "model.hidden=4", "compile=false", "solver.rtol=1e-3", "eval.solver.rtol=1e-9"),
}


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    made = {}

    def run(model):
        if model not in made:
            words = [*SHORT, f"model={model}", *SMALL[model], *(["eval.dtype=float64"] if model == "cnf" else [])]
            made[model] = train_run(tmp_path_factory.mktemp("runs") / model, *words)
        return made[model]

    return run


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Densities on a grid take longer than these runs."""
    monkeypatch.setattr(runs, "save_figure_data", lambda *_: None)


def table(text):
    names, *rows = text.splitlines()
    return names.split(","), torch.tensor([[float(word) for word in row.split(",")] for row in rows]).double()


def test_points_and_their_log_densities(flow, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = str(flow("planar"))
    capsys.readouterr()
    assert sample.main([folder, "n=50"]) == 0
    names, drawn = table(capsys.readouterr().out)
    assert (names, drawn.shape) == (["x1", "x2"], (50, 2))
    assert sample.main([folder, "n=50", "out=points, of mine.csv"]) == 0
    assert "50 points in points, of mine.csv" in capsys.readouterr().out
    assert torch.equal(table((tmp_path / "points, of mine.csv").read_text())[1], drawn)
    assert sample.main([folder, "n=50", "seed=1"]) == 0
    assert not torch.equal(table(capsys.readouterr().out)[1], drawn)

    assert sample.main([folder, "points=points, of mine.csv"]) == 0
    names, scored = table(capsys.readouterr().out)
    assert names == ["x1", "x2", "log_density"]
    assert torch.equal(scored[:, :2], drawn)
    net = trained(flow("planar"), load(flow("planar")), "best", 1).model.double()
    assert (scored[:, 2] - net.log_prob(drawn)).abs().max() < 1e-6


WRONG = {
    "n=0": "n=0 must be a whole number above 0",
    "n=2.5": "n=2.5",
    "seed=-1": "seed=-1 must be a whole number from 0",
    "m=3": "m is not a key here",
    "points=nowhere.csv": "nowhere.csv cannot be read",
    "points=words.csv": "line 2: y='b' is not a finite number",
    "points=ragged.csv": "line 2: 1 columns, where the first line has 2",
    "points=nan.csv": "line 1: x1 is missing. Fill it in, or delete the row",
    "points=typo.csv": "line 1: '0.5,abc' is neither column names nor a point",
    "points=gap.csv": "line 3: 3 columns, where the first line has 2",
    "points=typo.csv out=typo.csv": "is the file given as points=",
    "points=empty.csv": "no rows follow",
    "points=three.csv": "3 numbers per line, and this flow has 2",
    "points=three.csv n=4": "one or the other",
    "out=nowhere/points.csv": "the folder nowhere does not exist",
    "out=.": "is a folder",
    "out=a.npy": "points are written as CSV. Give out=a.csv",
    "out=a out=b": "once",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_cannot_be_drawn_or_scored_is_refused(words, flow, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = {"words": "x,y\n1,b", "ragged": "1 2\n3", "nan": "nan,1", "empty": "x,y\n", "three": "1,2,3"}
    texts |= {"typo": "0.5,abc\n1,2", "gap": "# two\n1,2\n3,,4"}
    for name, text in texts.items():
        (tmp_path / f"{name}.csv").write_text(text)
    with pytest.raises(RequestError) as refused:
        sample.main([str(flow("planar")), *words.split()])
    assert WRONG[words] in str(refused.value)


def test_names_and_comments_are_passed_over_and_quotes_taken_off(tmp_path):
    (tmp_path / "points").write_text('# drawn\n\n"x1"; x2\n"1"; 2\n3;4\n')
    assert sample.read_points(tmp_path / "points", None, None, ["a", "b"]).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    (tmp_path / "points").write_text("x2,x1\n1,2\n3,4\n")
    assert sample.read_points(tmp_path / "points", None, None, ["x1", "x2"]).tolist() == [[2.0, 1.0], [4.0, 3.0]]


def test_a_point_that_the_flow_cannot_be_solved_from_is_refused(flow, tmp_path, monkeypatch):
    def lost(self, x, time=1.0):
        raise SolveError("the state is not finite at t = 1")

    monkeypatch.setattr(Planar, "log_prob", lost)
    (tmp_path / "far").write_text("1e30,1e30")
    with pytest.raises(RequestError, match="could not be solved from one of the points"):
        sample.main([str(flow("planar")), f"points={tmp_path / 'far'}"])


def test_a_refusal_is_exit_2(odenet, tmp_path):
    done = odenet("sample", "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert "nowhere is not the folder of a run" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.numerics
def test_a_flow_draws_and_scores_from_the_command_line(odenet, flow, tmp_path):
    folder = str(flow("cnf"))
    assert odenet("sample", folder, "n=20", "out=points.csv").returncode == 0
    done = odenet("sample", folder, "points=points.csv", "out=scored.csv")
    assert done.returncode == 0
    assert "mean log-density" in done.stdout
    _, scored = table((tmp_path / "scored.csv").read_text())
    net = trained(flow("cnf"), load(flow("cnf")), "best", 1).model.double()
    noise = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, log_q = net.generate(noise)  # at the tolerance of training
    assert (scored[:, :2] - x).abs().max() < 0.01
    assert (scored[:, 2] - log_q).abs().max() < 0.01


@pytest.mark.numerics
@pytest.mark.parametrize(
    "model", [["data=digits", "model=mlp", "model.hidden=4"], ["model=latent_ode", "data.count=9"]]
)
def test_what_is_no_flow_is_refused(tmp_path, model):
    words = [*model, "device=cpu", "trainer.max_steps=1", "compile=false"]
    train_run(tmp_path, *words)
    for asked in ("n=3", "points=points.csv"):
        (tmp_path / "points.csv").write_text("1,2")
        with pytest.raises(RequestError, match="it is not a flow"):
            sample.main([str(tmp_path), asked.replace("=p", f"={tmp_path}/p")])
