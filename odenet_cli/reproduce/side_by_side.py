"""Apply a function to several items on several cores, in processes that end with this one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from odenet_cli import threads
from odenet_cli.errors import RunFailed

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(function: Callable[[Item], Result], items: Sequence[Item], at_once: int) -> Iterator[Result]:
    """Yield the function of each item, in their order, `at_once` of them computed side by side.

    Each process has its share of the cores, unless OMP_NUM_THREADS says otherwise. No thread waits for another then,
    and an ODE-Net on MNIST takes a tenth less CPU time by one thread than by two.
    """
    if at_once == 1:
        yield from map(function, items)
        return
    # Not forked: the threads of torch in this process would be missing in the copy.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(at_once, context, _begin, (threads.share(at_once),)) as pool:
        try:
            # Blocked, which they inherit: on Ctrl-C this process ends the others, and they have nothing to say.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                futures = [pool.submit(function, item) for item in items]
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            # Not `pool.map`: it cancels what is left, and a cancelled future makes the pool's own thread fail.
            for future in futures:
                yield future.result()
        except BaseException as error:
            for process in multiprocessing.active_children():
                process.terminate()
            if isinstance(error, BrokenProcessPool):
                raise RunFailed(
                    f"one of {at_once} processes was killed, perhaps for lack of memory.\n"
                    f"  To run one at a time, on all cores: OMP_NUM_THREADS={threads.cores()}."
                ) from error
            raise


def _begin(count: int) -> None:
    """Compute with `count` threads, and end when the process that started this one does, however it ends."""
    os.environ.setdefault("OMP_NUM_THREADS", str(count))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
