"""Collect what a table of times must state: the hardware, the versions, the date."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import torch

from odenet_cli import __version__, threads


def facts(device: torch.device, peers: Iterable[str], absent: dict[str, str]) -> dict[str, str]:
    """Return the facts by name, in the order of printing, with the reason for each omitted peer."""
    versions = [f"odenet {__version__}", f"python {platform.python_version()}", f"torch {torch.__version__}"]
    result = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "threads": f"{torch.get_num_threads()} of torch, wait policy {threads.wait_policy()}",
        "versions": ", ".join([*versions, *(f"{peer} {metadata.version(peer)}" for peer in peers)]),
        "load": f"{os.getloadavg()[0]:.2f} processes in the minute before",
        "date": time.strftime("%Y-%m-%d %H:%M %z"),
    }
    if absent:
        result["not compared"] = "; ".join(f"{peer} {reason}" for peer, reason in absent.items())
    return result


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
