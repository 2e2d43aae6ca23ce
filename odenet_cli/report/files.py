"""Files that are put in their place in one move; where there was a link, only the link goes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from odenet_cli.errors import RequestError, full


def put(path: Path, write: Callable[[Path], Any]) -> Path:
    """Have `write` make a file beside `path`, with its ending, and put it in the place of `path`."""
    temporary = path.with_name(f".part-{path.name}")
    try:
        temporary.unlink(missing_ok=True)
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if full(error):
            raise
        raise RequestError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return path


def put_text(path: Path, text: str) -> Path:
    """The same, of a text."""
    return put(path, lambda file: file.write_text(text, encoding="utf-8"))
