"""What runs are judged by: the main test scores of their tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Score(NamedTuple):
    """One of the final metrics, and how a table writes it."""

    title: str
    name: str
    places: int
    factor: float = 1

    def text(self, value: float) -> str:
        return f"{self.factor * value:.{self.places}f}"


ERROR = Score("error %", "error", 2, 100)
# A task is known by the first of these metrics that it has: a latent variable has a `kl` too, beside an `nll`.
KNOWN_BY = {
    "error": (ERROR,),
    "rate_error": (Score("rate error", "rate_error", 3), Score("gap, nats an event", "gap", 4)),
    "rmse_further_clean": (Score("RMSE, clean", "rmse_further_clean", 3),),
    "rmse_further_noisy": (Score("RMSE, noisy", "rmse_further_noisy", 3),),
    "nll": (Score("NLL, nat", "nll", 3), Score("gap, nat", "gap", 3)),
    "kl": (Score("KL, nat", "kl", 4),),
}
NAMES = tuple(dict.fromkeys(score.name for scores in KNOWN_BY.values() for score in scores))


def judged(final: Mapping[str, Any]) -> list[Score]:
    """What a run with these final metrics is judged by."""
    scores = next((scores for name, scores in KNOWN_BY.items() if name in final), ())
    return [score for score in scores if score.name in final]


def among(finals: Iterable[Mapping[str, Any]]) -> list[Score]:
    """What any of the runs is judged by."""
    return list(dict.fromkeys(score for final in finals for score in judged(final)))
