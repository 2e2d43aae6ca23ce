"""Python's collector of cycles rests while a command starts, and is as usual again before a network computes."""

import gc
import weakref

import pytest
import torch

from odenet_cli import collector
from odenet_cli.training import device


class Knot:
    def __init__(self):
        self.own = self


@pytest.fixture
def usual():
    before = gc.get_threshold()
    yield before
    gc.unfreeze()
    gc.set_threshold(*before)


def test_it_collects_as_usual_once_something_computes(usual):
    collector.relax()
    assert gc.get_threshold() > usual
    there = Knot()
    device.configure_backends(torch.device("cpu"), deterministic=False, tolerance=None)
    assert gc.get_threshold() == usual
    later, kept = Knot(), weakref.ref(there)
    gone = weakref.ref(later)
    del there, later
    gc.collect()
    assert gone() is None
    assert kept() is not None  # of the start, and not looked through again


def test_a_program_that_calls_us_has_its_own_collector(usual):
    frozen = gc.get_freeze_count()
    device.configure_backends(torch.device("cpu"), deterministic=False, tolerance=None)
    assert (gc.get_threshold(), gc.get_freeze_count()) == (usual, frozen)
