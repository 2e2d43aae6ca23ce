"""What is written into a run's folder before it is known whether the run goes on, and how it is put back.

Hydra writes what was asked, and begins a log, before a job can look at the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from odenet_cli.errors import RequestError
from odenet_cli.files import write
from odenet_cli.rundir import holds_run, locked

NOTES = ("config.yaml", "hydra.yaml", "overrides.yaml", "*.log")  # wherever `hydra.output_subdir` has them


@contextmanager
def kept(folders: Iterable[Path], names: Sequence[str] = NOTES) -> Iterator[None]:
    """Around what may go on with the runs in `folders`: one that did not has its notes as they were, byte for byte."""
    before = [(folder, _content(folder / "run.json"), _notes(folder, names)) for folder in folders if holds_run(folder)]
    try:
        yield
    finally:
        for folder, record, notes in before:
            # On a full disk, or where another process has the run now, they stay; what is raised says why.
            with suppress(OSError, RequestError), locked(folder):
                if _content(folder / "run.json") == record:
                    _put_back(folder, notes, names)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError:
        return None


def _notes(folder: Path, names: Sequence[str]) -> dict[Path, bytes]:
    found = {path: _content(path) for name in names for path in folder.rglob(name) if not path.is_symlink()}
    return {path: content for path, content in found.items() if content is not None}


def _put_back(folder: Path, notes: dict[Path, bytes], names: Sequence[str]) -> None:
    now = _notes(folder, names)
    for path in now.keys() - notes.keys():
        path.unlink()
        with suppress(OSError):  # something else is in there
            path.parent.rmdir()
    for path, content in notes.items():
        if now.get(path) != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, content)
