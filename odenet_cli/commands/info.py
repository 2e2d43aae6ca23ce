"""Print versions, devices, threads and paths, for a bug report."""

from __future__ import annotations

import json
import os
import platform
import sys
from argparse import Namespace
from importlib import metadata

from odenet_cli import __version__, threads
from odenet_cli.commands import _common
from odenet_cli.config.presets import conf_dir

PARSER = _common.Parser(__name__, __doc__)
PARSER.add_argument("--json", action="store_true", help="as JSON, to paste into a report")
PACKAGES = (
    *("torch", "torchvision", "numpy", "scipy", "scikit-learn", "polars", "fastexcel", "matplotlib", "tensorboard"),
    *("hydra-core", "omegaconf", "hydra-joblib-launcher"),
)


@PARSER.command
def main(request: Namespace) -> int:
    if request.json:
        print(json.dumps(facts(), indent=1))
        return 0
    for name, value in facts().items():
        print(f"{name:<22} {value}")
    return 0


def facts() -> dict[str, str]:
    """Return the facts for a bug report."""
    import torch

    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {
        "odenet": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{package: _version(package) for package in PACKAGES},
        "cpu cores, threads": f"{threads.cores()} of {os.cpu_count()}, {torch.get_num_threads()}",
        "threads wait": threads.wait_policy(),
        "cuda": f"{torch.version.cuda or 'built without'}, {len(gpus)} device(s)",
        **{f"cuda:{n}": f"{gpu.name}, {gpu.total_memory / 2**30:.1f} GiB" for n, gpu in enumerate(gpus)},
        "mps": "available" if torch.backends.mps.is_available() else "none",
        "executable": sys.executable,
        "conf": str(conf_dir()),
        "data root": os.environ.get("ODENET_DATA") or os.path.expanduser("~/.cache/odenet"),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
