"""Print the end of a run; `train.log` has the same lines. Without torch."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from odenet_cli import terminal
from odenet_cli.markdown import mean_count
from odenet_cli.rundir import short
from odenet_cli.scores import scores_of

if TYPE_CHECKING:
    from odenet_cli.training.session import Session

SHOWN = 30  # estimates

log = logging.getLogger("odenet")


def tell_end(session: Session, final: dict[str, Any], folder: Path, images: list[Path]) -> None:
    """Print the results of a run: its last line, wrapped between fields on a terminal, and there its figures."""
    for line in estimate_lines(final):
        terminal.tell(line)
    if session.budget is not None:
        terminal.tell(session.budget.outcome())
    if beside := session.data.record.get("beside"):  # what is known of the same data
        terminal.tell(beside)
    if "rmse_last_value" in final:
        terminal.tell(beside_trivial(final))
    line, width = last_line(final, folder), terminal.columns()
    log.info("%s", line)
    broken = "\n".join(terminal.packed(line.split(" | "), " | ", width))
    terminal.say(broken if terminal.on_terminal() else line)
    if images:
        text = f"{', '.join(path.name for path in images)}, in {images[0].parent.name}/ there"
        lines = "\n".join(terminal.labelled("figures", text, width))
        log.info("%s", lines)
        if terminal.on_terminal():
            terminal.say(lines)


def beside_trivial(final: Mapping[str, Any]) -> str:
    """Return the error after the window beside those of trivial predictors, and a hint if it is not below them."""
    ours = final.get("rmse_further_clean", final["rmse_further_noisy"])
    last, line = final["rmse_last_value"], final["rmse_velocity"]
    text = f"after the window: RMSE {ours:.3g}; repeating the last value {last:.3g}, a straight line {line:.3g}"
    return (
        text
        if ours < min(last, line)
        else f"{text}. Not better than these: train longer (trainer.steps), or on more series"
    )


def estimate_lines(final: Mapping[str, Any]) -> list[str]:
    """Return the estimates of a least-squares fit as a table, with its warnings; nothing for other runs."""
    estimates = final.get("estimates") or {}
    if not estimates:
        return []
    width = max(map(len, estimates)) + 2
    lines = [f"{'':<{width}}{'estimate':>12}{'error':>12}    95 % interval"]
    for name, row in [*estimates.items()][:SHOWN]:
        error, span, n = "-", "at its bound" if "bound" in row else "undetermined", 5
        if row["error"] is not None:
            n = digits(row["value"], row["error"])
            error, span = f"{row['error']:.4g}", f"[{row['low']:.{n}g}, {row['high']:.{n}g}]"
        lines.append(f"{name:<{width}}{row['value']:>12.{max(n, 6)}g}{error:>12}    {span}")
    if len(estimates) > SHOWN:
        lines.append(f"and {len(estimates) - SHOWN} more in run.json")
    sigma = ", ".join(f"{name} {value:.4g}" for name, value in final["sigma"].items())
    sigma += f"; {final['degrees_of_freedom']:,} degrees of freedom"
    lines += terminal.labelled("sigma", sigma, terminal.columns())
    for text in final["warnings"]:
        lines += wrap(text, terminal.columns(), initial_indent="warning:  ", subsequent_indent=" " * terminal.INDENT)
    return lines


def digits(value: float, error: float) -> int:
    """Return how many digits of a value tell two of its error, 5 at least."""
    ratio = abs(value) / error if error else 1.0
    return min(12, max(5, math.ceil(math.log10(ratio)) + 2)) if 0 < ratio < math.inf else 5


def last_line(final: dict[str, Any], folder: Path) -> str:
    """Return the last line of a run."""
    nfe = f"NFE {mean_count(final['nfe_forward'])} forward, {mean_count(final['nfe_backward'])} backward"
    nfe = nfe if final["nfe_forward"] else "no solver"
    if (error := final.get("gradient_error")) is not None:
        nfe += f" | gradient error {terminal.percent(error) if error >= 1e-4 else f'{error:.0e}'}"
    peak = f", {final['peak_mib']:.0f} MiB peak" if final["peak_mib"] is not None else ""
    memory = f"{final['saved_mib']:.1f} MiB saved for backward{peak}"
    return f"{score_text(final)} | {nfe} | {memory} | {terminal.duration(final['time_s'])} | {short(folder)}"


def score_text(final: dict[str, Any]) -> str:
    """Return the main test scores in words; those of a task that has none: its loss."""
    scores = [score.sentence(final[score.name]) for score in scores_of(final)]
    return ("" if "estimates" in final else "test ") + (", ".join(scores) or f"loss {final['loss']:.4g}")
