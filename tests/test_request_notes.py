"""A run that did not go on has its notes as they were, whatever was written over them in the meantime."""

import pytest

from odenet_cli.lock import locked
from odenet_cli.request.folders import restore_on_refusal

FILES = {"run.json": "{}", "config.yaml": "a", "train.log": "one\n", ".hydra/overrides.yaml": "[]", "eval.jsonl": "1\n"}


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def content(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def ask(folder):
    """As Hydra and a job do."""
    for name in (".hydra", "notes"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "overrides.yaml").write_text("[seed=1]")
        (folder / name / "hydra.yaml").write_text("new")
    (folder / "config.yaml").unlink()
    with open(folder / "train.log", "a") as log:
        log.write("two\n")


def test_where_it_did_not_go_on_all_is_as_it_was(run):
    def refused():
        with restore_on_refusal([run]):
            ask(run)
            raise KeyError

    with pytest.raises(KeyError):
        refused()
    assert content(run) == {**FILES, ".lock": ""}
    assert not (run / "notes").exists()


def test_where_it_went_on_nothing_is_put_back(run):
    with restore_on_refusal([run]):
        ask(run)
        (run / "run.json").write_text('{"status": "running"}')
        after = content(run)
    assert content(run) == {**after, ".lock": ""}


def test_without_a_record_its_checkpoints_are_a_run_too(run):
    (run / "run.json").unlink()
    (run / "checkpoints").mkdir()
    before = content(run)
    with restore_on_refusal([run]):
        ask(run)
    assert content(run) == {**before, ".lock": ""}


def test_what_others_write_stays(run):
    with restore_on_refusal([run]):
        (run / "eval.jsonl").write_text("1\n2\n")
    assert (run / "eval.jsonl").read_text() == "1\n2\n"


def test_in_a_new_folder_nothing_is_taken_away(tmp_path):
    new = tmp_path / "new"
    with restore_on_refusal([new]):
        new.mkdir()
        (new / "config.yaml").write_text("a")
    assert content(new) == {"config.yaml": "a"}


def test_a_run_that_another_process_has_now_is_left_to_it(run):
    from concurrent.futures import ThreadPoolExecutor

    other = locked(run)
    with ThreadPoolExecutor(1) as pool:
        with restore_on_refusal([run]):
            ask(run)
            pool.submit(other.__enter__).result()
        assert (run / "train.log").read_text() == "one\ntwo\n"
        pool.submit(other.__exit__, None, None, None).result()
