"""Build the guide and open it: odenet docs [--out DIR]

Builds the pages in scripts/docs of a checkout with mkdocs: pip install -e ".[docs]"."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import webbrowser
from argparse import Namespace
from pathlib import Path

from odenet_cli.commands import _common
from odenet_cli.errors import OdenetError, RequestError
from odenet_cli.terminal import say

PAGES = Path(__file__).resolve().parents[2] / "scripts" / "docs" / "mkdocs.yml"
NEEDED = ("mkdocs", "material", "mkdocstrings_handlers")  # mkdocs, mkdocs-material, mkdocstrings[python]
PARSER = _common.Parser(__name__, __doc__)
PARSER.add_argument(
    "--out", metavar="DIR", type=_common.path, help="build into DIR and do not open it; default: ~/.cache/odenet/docs"
)


@PARSER.command
def main(request: Namespace) -> int:
    """Build, say where, and open the first page where a person looks on."""
    if not PAGES.is_file():
        raise RequestError(
            f"the guide's pages belong to a checkout, and there is no {PAGES}.\n  Clone odenet to build them."
        )
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        raise RequestError('the guide needs mkdocs. In the checkout, run: pip install -e ".[docs]"')
    site = (request.out or Path.home() / ".cache" / "odenet" / "docs").resolve()
    if site.exists() and not (site / "keys.html").is_file() and (not site.is_dir() or any(site.iterdir())):
        raise RequestError(f"out={site} contains other files, which would be deleted. Name a new or an empty folder.")
    say(f"building the guide into {site} …")
    build(site)
    first = site / "index.html"
    say(f"done: {first}")
    if request.out is None and sys.stdout.isatty():
        webbrowser.open(first.as_uri())
    return 0


def build(site: Path) -> None:
    """Build the pages into `site`; raise `OdenetError` with what mkdocs says if it cannot, or warns."""
    words = ["build", "--strict", "--quiet", "--config-file", str(PAGES), "--site-dir", str(site)]
    done = subprocess.run([sys.executable, "-m", "mkdocs", *words], capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith(("WARNING", "ERROR", "Aborted"))]
        raise OdenetError("\n  ".join(["mkdocs could not build the guide:", *(lines or done.stderr.splitlines())[-8:]]))
