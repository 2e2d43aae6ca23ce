"""Put files in their place in one move, so that neither a kill nor a loss of power leaves half of one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from odenet_cli.errors import naming


def replace(path: Path, content: str | bytes | memoryview, keep: Path | None = None) -> None:
    """Put `content` in the place of `path`, on the disk when this returns; of a link only the link goes.

    keep  where that which was at `path` goes, if anything was
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.unlink(missing_ok=True)
        with naming(path), open(temporary, "xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync(path.parent)


def sync(folder: Path, above: int = 0) -> None:
    """Bring the names in `folder`, and in so many folders `above` it, to the disk: a file without its name is lost."""
    for place in (folder, *folder.absolute().parents[:above]):
        with contextlib.suppress(OSError):  # a folder of others, or a file system that knows no such thing
            handle = os.open(place, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
