"""Settings as tests use them."""

from __future__ import annotations

import pytest
import torch

from odenet_cli.bench.workloads import Settings


@pytest.fixture
def alone() -> Settings:
    """No peers, one repetition, on the CPU."""
    return Settings(peers=(), device=torch.device("cpu"), repeats=1)
