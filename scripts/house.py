"""Measure the house: its size, its circles, its words, and how far a call is from the vector field.

    python scripts/house.py            everything that takes seconds
    python scripts/house.py --start    also how long one training step takes from the shell, beside its imports
    python scripts/house.py --draw scripts/house.svg    draw the packages and who imports whom

Each line gives what was measured and what is wanted; the words of a docstring are judged by its first one.
"""

from __future__ import annotations

import argparse
import ast
import io
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import tokenize
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "odenet_cli"
VERBS = """
    Accept Accumulate Add Advance Allocate Announce Answer Append Apply Approximate Ask Assemble Assign Attach
    Average Begin Bind Block Build Cache Call Capture Carry Cast Catch Change Check Choose Clear Close Collect
    Colour Combine Come Compare Compile Complete Compose Compute Concatenate Configure Connect Contract Convert
    Convolve Copy Count Create Cut Deal Decide Declare Decode Define Delegate Delete Derive Describe Detach Detect
    Differentiate Display Divide Download Draw Drop Embed Empty Encode End Enter Estimate Evaluate Exclude Execute
    Expand Explain Export Expose Extend Extract Fetch Fill Filter Find Finish Fit Flatten Flow Fold Follow Form
    Format Freeze Gather Generate Get Give Group Guard Guess Hand Handle Hash Hide Hold Identify Ignore Import
    Include Infer Initialise Insert Install Integrate Interpolate Invert Iterate Join Judge Keep Label Launch Limit
    Link List Listen Load Locate Lock Log Look Lower Make Map Mark Mask Match Measure Merge Minimise Move Multiply
    Name Normalise Note Notice Number Observe Offer Open Order Pack Pad Parse Pass Pick Place Plan Plot Point Pop
    Predict Prepare Present Preserve Print Process Produce Project Propagate Propose Prove Provide Pull Push Put
    Quote Raise Rank Read Rebuild Recompute Reconstruct Record Redraw Reduce Refer Refuse Register Reject Release
    Remember Remove Rename Render Repeat Replace Replay Report Represent Reproduce Request Require Rescale Reset
    Reshape Resolve Restore Restrict Resume Retrieve Return Reverse Roll Round Run Sample Save Scale Scan Score
    Search Select Send Separate Set Share Shift Shorten Show Shrink Shuffle Sign Simulate Skip Slice Solve Sort
    Split Spread Stack Start State Step Stop Store Stream Strip Subtract Sum Summarise Suppress Swap Switch Sync
    Synchronise Tabulate Take Tell Test Tie Time Trace Track Train Transform Translate Trim Try Turn Undo Unify
    Unpack Unwrap Update Use Validate Verify View Visit Walk Warn Watch Weigh Wrap Write Yield Zero
"""


def sources(folder: Path = PACKAGE) -> list[Path]:
    """Return the Python files below `folder`, sorted."""
    return sorted(path for path in folder.rglob("*.py") if "old_runs" not in path.parts)


def lines(paths: list[Path]) -> int:
    """Return the number of lines in `paths`."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def imports() -> dict[str, set[str]]:
    """Return, for each module of the package, the modules of the package that it imports anywhere in its code."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in sources()
    }
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = set()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for_types = [
            node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        ]
        unseen = {id(child) for node in for_types for child in ast.walk(node)}
        for node in (node for node in ast.walk(tree) if id(node) not in unseen):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                full = [f"{node.module}.{alias.name}" for alias in node.names]
                names |= {name if name in modules else node.module for name in full}
        graph[module] = (names & modules.keys()) - {module}
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the sets of modules that import one another, directly or through others."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        todo = list(graph[start])
        while todo:
            module = todo.pop()
            if module not in seen:
                seen.add(module)
                todo += graph[module]
        return seen

    reach = {module: reachable(module) for module in graph}
    groups = {frozenset({a} | {b for b in reach[a] if a in reach[b]}) for a in graph if a in reach[a]}
    return sorted(sorted(group) for group in groups)


def functions(paths: list[Path]) -> list[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Return every function and method of `paths`."""
    trees = ((path, ast.parse(path.read_text(encoding="utf-8"))) for path in paths)
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [(path, node) for path, tree in trees for node in ast.walk(tree) if isinstance(node, kinds)]


def without_verb() -> tuple[int, list[str]]:
    """Return the number of function docstrings, and those that do not begin with an imperative verb."""
    verbs = set(VERBS.split())
    described = [(path, node, text) for path, node in functions(sources()) if (text := ast.get_docstring(node))]
    described = [(path, node, text) for path, node, text in described if not _is_property(node)]
    other = [
        f"{path.relative_to(ROOT)}:{node.lineno} {text.splitlines()[0][:60]}"
        for path, node, text in described
        if re.split(r"\W", text, maxsplit=1)[0] not in verbs
    ]
    return len(described), other


def _is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Tell whether a function is a property, whose docstring names a thing."""
    return any("property" in ast.unparse(decorator) for decorator in node.decorator_list)


def comments(paths: list[Path]) -> float:
    """Return the comment lines per 100 lines of `paths`; comments behind code count, directives to tools do not."""
    count = 0
    for path in paths:
        tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
        count += sum(
            token.type == tokenize.COMMENT and not re.match(r"# (type:|noqa|mypy:)", token.string) for token in tokens
        )
    return 100 * count / lines(paths)


def frames() -> dict[str, int]:
    """Return the Python frames between a user's call of a solver and the vector field, by gradient."""
    import torch

    from odenet_cli.ode import Adaptive

    depth: list[int] = []

    def field(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        depth.append(len(traceback.extract_stack()))
        return -y * weight

    weight = torch.ones(3, requires_grad=True)
    ts = torch.tensor([0.0, 1.0])
    result = {}
    for name, gradient in (("plain", "backprop"), ("backprop",) * 2, ("replay",) * 2, ("adjoint",) * 2):
        depth.clear()
        with torch.set_grad_enabled(name != "plain"):
            here = len(traceback.extract_stack())
            Adaptive(method="dopri5", rtol=1e-3, atol=1e-3, gradient=gradient)(field, torch.ones(3), ts)
        result[name] = max(depth) - here - 1
    return result


def start_ratio(repetitions: int = 5) -> tuple[float, float]:
    """Return the CPU seconds of one training step on digits from the shell, and of its heaviest imports; medians.

    In turns, each in a Python that has its bytecode, as a user's has.
    """

    def cpu_s(command: list[str]) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=folder, check=True, capture_output=True, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as folder:
        step = [sys.executable, "-m", "odenet_cli", "train", "model=odenet", "data=digits", "trainer.max_steps=1"]
        step += ["trainer.limit_batches=1"]
        load = [sys.executable, "-c", "import torch, sklearn.datasets"]
        cpu_s(step)  # writes what bytecode there is not
        seconds: dict[str, list[float]] = {"step": [], "load": []}
        for _ in range(repetitions):
            for name, command in (("step", step), ("load", load)):
                seconds[name].append(cpu_s(command))
    return statistics.median(seconds["step"]), statistics.median(seconds["load"])


def packages() -> dict[str, set[str]]:
    """Return, for each package of the house, the packages it imports; modules at the top are one: `foundation`."""

    def package(module: str) -> str:
        parts = module.split(".")
        return parts[1] if len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else "foundation"

    graph: dict[str, set[str]] = {}
    for module, targets in imports().items():
        if module.split(".")[1:2] not in (["cli"], ["__main__"], ["api"]):  # doors, above all
            graph.setdefault(package(module), set()).update(package(target) for target in targets)
    return {name: targets - {name} for name, targets in graph.items()}


def draw(file: Path) -> None:
    """Draw the packages in rows, each above all it imports; an arrow that follows from two others is left out."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    graph = packages()

    def depth(name: str) -> int:
        return 1 + max((depth(target) for target in graph[name]), default=-1)

    def indirect(name: str) -> set[str]:
        further = {after for target in graph[name] for after in graph[target]}
        return further | {after for target in further for after in indirect(target)}

    rows: dict[int, list[str]] = {}
    for name in sorted(graph):
        rows.setdefault(depth(name), []).append(name)
    direct = {name: sorted(targets - indirect(name)) for name, targets in graph.items()}
    place: dict[str, tuple[float, int]] = {}
    for row, names in sorted(rows.items()):  # a package stands near the middle of those it imports
        names.sort(key=lambda name: statistics.mean([place[target][0] for target in direct[name]] or [0]))
        shift = 0.5 + 0.25 * (-1) ** row * (len(names) > 1)
        place |= {name: ((i + shift) / len(names), row) for i, name in enumerate(names)}

    plt.rcParams.update({"svg.hashsalt": "odenet", "svg.fonttype": "none", "font.family": "sans-serif"})
    figure, axes = plt.subplots(figsize=(8, 0.75 * len(rows)))
    for name, (x, y) in place.items():
        label = "errors, files, run folder, registry" if name == "foundation" else f"{name}/"
        box = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": "0.3"}
        axes.text(x, y, label, ha="center", va="center", bbox=box, fontsize=10, zorder=2)
        for target in direct[name]:
            x1, y1 = place[target]
            arrow = {"arrowstyle": "-|>", "color": "0.6", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", xy=(x1, y1 + 0.25), xytext=(x, y - 0.25), arrowprops=arrow, zorder=1)
    axes.set(xlim=(-0.05, 1.05), ylim=(-0.5, len(rows) - 0.5))
    axes.axis("off")
    figure.savefig(file, bbox_inches="tight", metadata={"Date": None} if file.suffix == ".svg" else None)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", action="store_true", help="measure the start of a run too (a minute)")
    parser.add_argument("--list", action="store_true", help="list the docstrings that do not begin with a verb")
    parser.add_argument("--draw", type=Path, metavar="FILE.svg", help="draw the packages and who imports whom")
    arguments = parser.parse_args()

    if arguments.draw:
        draw(arguments.draw)
        return
    print(f"lines in odenet_cli/                    {lines(sources()):>8,}   wanted: at most 17,000")
    print(f"lines in tests/                         {lines(sources(ROOT / 'tests')):>8,}")
    found = circles(imports())
    print(f"import circles                          {len(found):>8}   wanted: 0")
    for circle in found:
        print("   " + ", ".join(circle))
    path, longest = max(functions(sources()), key=lambda entry: entry[1].end_lineno - entry[1].lineno)
    size = longest.end_lineno - longest.lineno + 1
    print(f"longest function, lines                 {size:>8}   {path.relative_to(ROOT)}:{longest.name}")
    count, other = without_verb()
    print(f"docstrings that begin with a verb       {100 * (1 - len(other) / count):>7.0f}%   of {count} functions")
    if arguments.list:
        print("\n".join(f"   {line}" for line in other))
    print(f"comment lines per 100 in ode/           {comments(sources(PACKAGE / 'ode')):>8.1f}   wanted: about 8")
    print(f"comment lines per 100 in the loop       {comments([PACKAGE / 'training/loop.py']):>8.1f}   wanted: about 8")
    depth = frames()
    for name, wanted in (("plain", 6), ("backprop", 7), ("replay", 9), ("adjoint", 9)):
        print(f"frames to the vector field, {name:<12}{depth[name]:>8}   wanted: at most {wanted}")
    if arguments.start:
        step, load = start_ratio()
        print(f"one step on digits over its imports     {step / load:>8.2f}   wanted: at most 1.4")
        print(f"   {step:.1f} s over {load:.1f} s of CPU")


if __name__ == "__main__":
    main()
