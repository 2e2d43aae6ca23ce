"""Imports point downwards: a lower layer receives what it needs from above as an argument."""

import ast
import functools
import runpy
from pathlib import Path

import pytest

import odenet_cli

ROOT = Path(odenet_cli.__file__).parent
FOUNDATION = {"", "errors", "registry", "precision", "config", "rundir", "threads", "files", "streams", "scores"}
FOUNDATION |= {"markdown", "collector", "lock", "metrics", "terminal"}

# Each layer, and what of our own it may import. Commands, the request and the dispatcher stand on top.
ALLOWED = {
    **dict.fromkeys(FOUNDATION, FOUNDATION),
    "": FOUNDATION | {"ode", "api"},  # what Python users are offered, imported when they ask
    "api": FOUNDATION | {"ode", "models", "data", "tasks", "training", "analysis", "api"},
    "ode": {"", "errors", "registry", "precision", "ode"},
    "fields": {"", "errors", "registry", "fields"},
    "models": {"", "errors", "registry", "ode", "fields", "models"},
    "data": {"", "errors", "registry", "files", "data"},
    "tasks": {"", "errors", "registry", "ode", "data", "tasks"},
    "training": FOUNDATION | {"ode", "models", "data", "tasks", "training"},
    "analysis": FOUNDATION | {"ode", "models", "data", "tasks", "training", "analysis"},
    "report": FOUNDATION | {"report"},
    "bench": {"", "errors", "registry", "threads", "markdown", "ode", "models", "data", "bench"},
    "request": FOUNDATION | {"data", "training", "request"},
    "reproduce": FOUNDATION | {"ode", "data", "training", "analysis", "report", "request", "reproduce"},
    "commands": FOUNDATION
    | {"ode", "models", "data", "tasks", "training", "analysis", "report", "bench", "request", "reproduce", "cli"}
    | {"commands"},
    "cli": {"", "errors", "registry", "streams", "threads", "collector", "commands"},
    "__main__": {"cli"},
}
HEAVY = {"torch", "torchvision", "hydra", "omegaconf", "sklearn", "tensorboard", "matplotlib", "rich", "numpy", "scipy"}
PEERS = {"torchdiffeq", "torchode", "torchdyn", "jax", "diffrax"}  # whom the bench may meet, or miss

FILES = [path for path in sorted(ROOT.rglob("*.py")) if "conf" not in path.relative_to(ROOT).parts]


def layer(path: Path) -> str:
    first = path.relative_to(ROOT).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imports(path: Path, anywhere: bool = True) -> list[str]:
    """The modules that `path` imports; only those at its top level unless `anywhere`."""
    found = []
    for node in ast.walk(parsed(path)) if anywhere else parsed(path).body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


LAYERS = sorted({layer(path) for path in FILES})


@pytest.mark.parametrize("where", LAYERS)
def test_imports_point_downwards(where):
    for path in (path for path in FILES if layer(path) == where):
        for module in imports(path):
            if module.split(".")[0] != "odenet_cli":
                continue
            target = module.split(".")[1] if module.count(".") else ""
            target = target if (ROOT / target).exists() or (ROOT / f"{target}.py").exists() else ""
            assert target in ALLOWED[where], f"{path} imports {module}"


@pytest.mark.parametrize("where", LAYERS)
def test_layers_know_only_their_libraries(where):
    for path in (path for path in FILES if layer(path) == where):
        used = {module.split(".")[0] for module in imports(path)} & HEAVY
        if where in ("", "errors", "registry", "lock", "rundir", "metrics", "files", "cli", "__main__"):
            assert not used, path
        if where == "ode":
            assert used <= {"torch"}, path
            assert not [module for module in imports(path) if module.startswith("torch.nn")], path
        if where in ("models", "fields"):
            assert used <= {"torch"}, path
        if where == "report":
            assert used <= {"matplotlib", "numpy", "scipy"}, path
        else:
            assert "matplotlib" not in used, path
        if where == "config":
            assert used <= {"omegaconf"}, path
            assert not {module.split(".")[0] for module in imports(path, anywhere=False)} & HEAVY, path
        if where not in ("request", "reproduce") and "commands/train" not in str(path):
            assert "hydra" not in used, path
        met = {module.split(".")[0] for module in imports(path, anywhere=where != "bench")} & PEERS
        assert not met, f"{path}: peers are imported by the bench, inside functions"


def test_no_import_circles():
    """No module imports itself through others, inside functions included."""
    house = runpy.run_path(str(ROOT.parent / "scripts" / "house.py"))
    assert house["circles"](house["imports"]()) == []
