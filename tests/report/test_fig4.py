"""Figure 4 chooses its learning rates on validation, and counts what it expects."""

import numpy as np
import pytest

from odenet_cli.report import fig4
from odenet_cli.report.result import Entry
from odenet_cli.report.runs import read


@pytest.fixture
def entries(tmp_path, write):
    """One energy, planar 32 and CNF 32, two rates; the rate that is best on the test is worse on validation."""
    made = []
    for row, kl in (("planar 32", 0.4), ("CNF 32", 0.02)):
        for rate, valid, test in ((1e-3, 0.5, 1.5 * kl), (1e-2, 0.3, 2 * kl)):
            config = {"data": {"name": "u1"}, "optim.lr": rate, "trainer.batch_size": 512}
            final = {"kl": test, "kl_se": 0.01, "outside": 0.1, "valid_loss": valid}
            folder = write(tmp_path / f"{len(made)}", config, error=None, final=final)
            (folder / "figures").mkdir()
            grid, flat = np.linspace(-4, 4, 5), np.ones((5, 5))
            np.savez(folder / "figures" / "density.npz", x=grid, y=grid, target=flat, density=flat[None])
            made.append(Entry("match", row, read(folder)))
    return made


def test_the_rate_is_chosen_on_validation(entries):
    made = fig4.result(entries, {"notes": []})
    assert made.facts["KL of CNF 32 on u1 (nat)"] == pytest.approx(0.04)
    assert made.facts["energies on which CNF 32 is below planar 32"] == 1
    assert made.facts["smallest KL in standard errors"] == pytest.approx(3)
    assert all(figure is not None for figure in made.figures.values())
    assert len(made.rows) == 4


def test_nothing_done_is_no_figure(entries):
    made = fig4.result(
        [entry._replace(run=entry.run.__class__(folder=entry.run.folder, status="failed")) for entry in entries],
        {"notes": []},
    )
    assert made.figures == {}
    assert made.facts["energies on which CNF 32 is below planar 32"] is None
