"""The guide is built without a warning, and holds what it is generated from; README and guide name what exists."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from torch import nn

import odenet_cli as odenet
from odenet_cli import api, ode
from odenet_cli.cli import commands
from odenet_cli.commands import docs
from odenet_cli.config.presets import options
from odenet_cli.config.schema import schema_keys
from odenet_cli.errors import RequestError
from odenet_cli.ode import diagnosis
from odenet_cli.ode.event import solve_until

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "scripts" / "docs" / "pages").glob("*.md"))
TEXTS = [ROOT / "README.md", *PAGES]
MAX_LINES, MAX_COLUMNS = 45, 130  # of a section of the README: one screen


def words_of(text):
    """The commands in the shell blocks of a text, each as its words; comments are left out."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("odenet ")]


@pytest.mark.numerics
def test_the_guide_is_built_strictly_and_is_complete(odenet, tmp_path):
    """Every key, solver, gradient and figure; it takes the place of an older build."""
    pytest.importorskip("mkdocs")
    (tmp_path / "site").mkdir()
    for name in ("keys", "old"):
        (tmp_path / "site" / f"{name}.html").touch()
    done = odenet("docs", "--out", "site")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "site" / "old.html").exists()
    assert done.stdout.endswith(f"done: {tmp_path / 'site' / 'index.html'}\n")
    page = {path.stem: path.read_text(encoding="utf-8") for path in (tmp_path / "site").glob("*.html")}
    assert [key for key, _ in schema_keys() if f"<code>{key}</code>" not in page["keys"]] == []
    chosen = [f"{group}={name}" for group in ("solver", "gradient", "optim") for name in options(group)]
    assert [name for name in chosen if name not in page["solvers"]] == []
    assert "<strong>rtol</strong>" in page["api"] or "<strong>max_steps</strong>" in page["api"]
    assert not [name for name, text in page.items() if re.search("<!-- (presets|bench|keys)", text)]
    assert (tmp_path / "site" / "results" / "fig3" / "day.html").is_file()


def test_the_guide_without_mkdocs_or_into_a_used_folder(tmp_path, monkeypatch):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RequestError, match="Name a new or an empty folder"):
        docs.main([f"--out={tmp_path}"])
    assert (tmp_path / "mine.txt").is_file()
    monkeypatch.setattr(docs, "NEEDED", ("no_such_module",))
    with pytest.raises(RequestError, match=r'pip install -e "\.\[docs\]"'):
        docs.main([])
    monkeypatch.setattr(docs, "PAGES", tmp_path / "mkdocs.yml")
    with pytest.raises(RequestError, match="belong to a checkout"):
        docs.main([])


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_a_text_names_what_exists(path):
    """Links to files that are there, commands that there are, keys and presets that can be chosen."""
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
    assert [link for link in links if not (path.parent / link).exists()] == []
    assert {words[1] for words in words_of(text)} <= set(commands())
    chosen = re.findall(r"\b(model|solver|gradient|data|optim)=([a-z_0-9]+)\b(?![.\w/])", text)
    assert {(group, name) for group, name in chosen if name not in (*options(group), "auto")} == set()
    assert "pip install odenet" not in text


def test_each_section_of_the_readme_is_one_screen():
    sections = re.split(r"^## ", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    long = {part.partition("\n")[0]: part.count("\n") for part in sections if part.count("\n") > MAX_LINES}
    assert long == {}
    lines = [line for part in sections for line in part.splitlines() if line[:1] not in ("|", "!", "[")]
    assert [line for line in lines if len(line) > MAX_COLUMNS] == []


def test_runs_in_readme_and_guide_can_be_composed():
    """Each `odenet train` without a sweep: its keys exist, its values fit."""
    from odenet_cli.request.compose import compose

    lines = [words for path in TEXTS for words in words_of(path.read_text(encoding="utf-8")) if words[1] == "train"]
    single = [words[2:] for words in lines if not {"-m", "--config-dir", "--cfg", "-sc"}.intersection(words)]
    assert len(single) > 10
    for words in single:
        compose([word for word in words if not re.match(r"(\w+)=[A-Z…]|model\.target|\+", word)])


def python_of(text):
    """The Python of a text: its blocks, or the examples of a docstring."""
    prompts = re.findall(r"^ *(?:>>>|\.\.\.) (.*)$", text, re.MULTILINE)
    return ["\n".join(prompts)] if prompts else re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run, and words that make another as short."""
    folder = tmp_path_factory.mktemp("python")
    words = ["model=odenet", "model.width=4", "data=digits", "device=cpu", "logger=none", "trainer.max_steps=2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        odenet.train([*words, "trainer.limit_batches=2"])
    return folder, words[1:]


DOCSTRINGS = [module.__doc__ for module in (ode, api, diagnosis)]
DOCSTRINGS += [item.__doc__ for item in (ode.Adaptive, ode.Fixed, ode.DenseSolution, solve_until, ode.tally)]
SNIPPETS = {path.name: python_of(path.read_text(encoding="utf-8")) for path in TEXTS}
SNIPPETS |= {text.splitlines()[0][:40]: python_of(text) for text in DOCSTRINGS}


@pytest.mark.numerics
@pytest.mark.parametrize("name", [name for name, blocks in SNIPPETS.items() if blocks])
def test_the_python_of_readme_guide_and_docstrings_runs(name, trained, monkeypatch):
    """Each text from top to bottom; what it leaves to the reader is here, and training is short."""
    folder, short = trained
    monkeypatch.chdir(folder)
    train, solver = odenet.train, ode.Adaptive(method="dopri5", rtol=1e-3, atol=1e-3)
    monkeypatch.setattr(odenet, "train", lambda words: train([*words, *short]))
    known = {"torch": torch, "nn": nn, "Adaptive": ode.Adaptive, "Fixed": ode.Fixed, "x": torch.rand(2, 1, 28, 28)}
    known |= {"tally": ode.tally, "Stats": ode.Stats, "doctor": ode.doctor, "solver": solver, "ts": [0.0, 1.0]}
    known |= {"field": lambda t, y: -y, "y0": torch.ones(3), "model": nn.Linear(3, 1), "batch": torch.ones(2, 3)}
    known |= {"loss": lambda model, batch: solver(lambda t, y: -y, model(batch), [0.0, 1.0]).y.sum()}
    for block in SNIPPETS[name]:
        exec(block, known)
