"""Versions, devices, threads and paths, for a bug report."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata

from odenet_cli import __version__, threads
from odenet_cli.config.presets import conf_dir

PACKAGES = ("torch", "torchvision", "hydra-core", "omegaconf", "hydra-joblib-launcher", "tensorboard", "scikit-learn")


def main(argv: list[str]) -> int:
    """Print them."""
    if argv:
        print("usage: odenet info\n\nPrints versions, devices, threads and paths; paste it into a bug report.")
        return 0 if argv[0] in ("-h", "--help") else 2
    for name, value in facts().items():
        print(f"{name:<22} {value}")
    return 0


def facts() -> dict[str, str]:
    """What a bug report should say."""
    import torch

    found = {"odenet": __version__, "python": platform.python_version(), "platform": platform.platform()}
    found |= {package: _version(package) for package in PACKAGES}
    found["cpu cores, threads"] = f"{threads.cores()} of {os.cpu_count()}, {torch.get_num_threads()}"
    found["threads wait"] = threads.wait_policy()
    found["cuda"] = f"{torch.version.cuda or 'built without'}, {torch.cuda.device_count()} device(s)"
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found[f"cuda:{index}"] = f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB"
    found["executable"] = sys.executable
    found["conf"] = str(conf_dir())
    found["data root"] = os.environ.get("ODENET_DATA") or os.path.expanduser("~/.cache/odenet")
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
