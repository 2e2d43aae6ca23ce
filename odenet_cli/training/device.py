"""Choose the device of a run, and configure its precision and determinism."""

from __future__ import annotations

import contextlib
import ctypes
import os

import torch

from odenet_cli import collector, threads
from odenet_cli.errors import RequestError
from odenet_cli.markdown import counted


def choose(name: str, job: int = 0) -> torch.device:
    """Return the device that `name` stands for; `auto` is GPU `job` modulo their number, else the CPU."""
    gpus = gpu_count()
    if name == "auto":
        spread = gpus and not os.environ.get("CUDA_VISIBLE_DEVICES")
        return torch.device("cuda", job % gpus if spread else 0) if gpus else torch.device("cpu")
    if name == "mps" and not torch.backends.mps.is_available():
        raise RequestError("device=mps does not exist; there is no Apple GPU here.\n  Use device=auto or device=cpu.")
    kind, _, place = name.partition(":")
    if kind != "cuda":
        return torch.device(name)
    if int(place[:4300] or 0) >= gpus:  # torch itself counts to 127 only
        there = f"there are {gpus}: cuda:0 to cuda:{gpus - 1}" if gpus else "no CUDA device is visible here"
        raise RequestError(f"device={name} does not exist; {there}.\n  Use device=auto or device=cpu.")
    return torch.device("cuda", int(place or 0))


def kind(name: str) -> str:
    """Return cpu, cuda or mps: what `name` stands for, whether it is here or not."""
    return ("cuda" if gpu_count() else "cpu") if name == "auto" else name.partition(":")[0]


def gpu_count() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def memory(name: str) -> int:
    where = choose(name)
    if where.type == "cuda":
        return int(torch.cuda.get_device_properties(where).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_memory(where: torch.device) -> int:
    """Return the bytes of memory that nobody uses."""
    if where.type == "cuda":
        return int(torch.cuda.mem_get_info(where)[0])
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf(pages)


def configure_backends(device: torch.device, deterministic: bool, tolerance: float | None) -> None:
    """Set what is global to the process: the device, determinism, the threads, the precision of matrix products on a
    GPU, what becomes of freed memory on a CPU, and the collector of cycles.

    tolerance  the tightest tolerance of the run's solves, None without one. TF32 convolutions round at 5e-4 relative,
               too coarse below 1e-4
    """
    collector.resume()
    if device.type == "cuda":
        torch.cuda.set_device(device)
        coarse = tolerance is None or tolerance >= 1e-4
        torch.backends.cudnn.conv.fp32_precision = "tf32" if coarse else "ieee"  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = not deterministic
    else:
        keep_freed()
    use_cores()
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Even to switch it off imports the compiler: 1.4 s of every start.
    if deterministic != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(deterministic)


def use_cores() -> None:
    """Compute with the threads that OMP_NUM_THREADS asks for, else with no more than there are cores for this process.

    torch counts the cores of the machine, and was perhaps loaded before the jobs of a sweep shared them out.
    """
    count = threads.chosen() or min(torch.get_num_threads(), threads.cores())
    if count != torch.get_num_threads() and "MKL_NUM_THREADS" not in os.environ:
        torch.set_num_threads(count)


def keep_freed() -> None:
    """Make glibc keep freed memory for the next activations; handed to the system, every page is mapped anew."""
    mmap_threshold, trim_threshold, largest = -3, -1, 2**31 - 1
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_threshold, 2**30) or mallopt(mmap_threshold, 2**25)  # the most that some versions take
        mallopt(trim_threshold, largest)


def describe(device: torch.device) -> str:
    """Return the device in words, for tables and bug reports."""
    if device.type == "mps":
        return "Apple GPU (mps)"
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({counted(torch.get_num_threads(), 'thread')})"
