"""What a dry run measures are the first steps of the run itself."""

from odenet_cli.training.estimate import first_steps


def test_the_steps_measured_are_those_of_the_run(train, tiny, metrics):
    session, means = first_steps(tiny("trainer.max_steps=5"))
    run = metrics(train(), "train")
    assert session.step == run[0]["step"] == 5
    assert means["loss"] == run[0]["loss"]
    assert means["step_ms"] > 0
