"""What a job that was refused left in its folder does not stand in the way of the next try."""

import pytest

from odenet_cli.errors import RequestError
from odenet_cli.request.folders import check_run_folder
from odenet_cli.rundir import FAILED


def test_a_refused_job_may_be_tried_again(tmp_path):
    """The mark alone is no foreign file; one beside it is."""
    (tmp_path / FAILED).write_text("the data are not there")
    check_run_folder(tmp_path, "auto")
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(RequestError, match=r"letter\.txt"):
        check_run_folder(tmp_path, "auto")
