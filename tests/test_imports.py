"""Which module may import what: the training core runs where torch is and nothing else of ours is needed."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

DOORS = {
    "timm": ("harness/models/",),
    "mlflow": ("tracking/",),
    "ray": ("harness/common/", "harness/study/", "harness/evaluation/", "harness/benchmarks/"),
    "optuna": (
        "search_spaces/",
        "harness/common/",
        "harness/config/",
        "harness/study/",
        "harness/evaluation/",
        "harness/reproduction/",
    ),
}
"""The folders that may import each framework."""

ROOMS = (
    "common",
    "config",
    "features",
    "data",
    "synthetic",
    "models",
    "training",
    "study",
    "evaluation",
    "reproduction",
    "benchmarks",
)
"""The folders of harness/: each may import those before it, and no later one. Commands may import all."""
COMMANDS = {"__main__", "bench", "evaluate", "params", "pretrain", "reproduce"}


@cache
def nodes_of(path):
    return list(ast.walk(ast.parse(path.read_text())))


@cache
def imports_of(path):
    nodes = nodes_of(path)
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return plain + [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]


def names_in(path):
    """Return all that a module imports or uses by name, one a line; docstrings and comments do not count."""
    fields = [getattr(node, name, None) for node in nodes_of(path) for name in ("module", "name", "id", "attr")]
    return "\n".join(field for field in fields if isinstance(field, str))


def modules(folder):
    return [p.relative_to(ROOT).as_posix() for p in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("framework", DOORS)
def test_each_framework_has_its_doors_and_no_others(framework):
    found = {
        module
        for folder in ("harness", "search_spaces", "tracking")
        for module in modules(folder)
        if any(name.split(".")[0] == framework for name in imports_of(ROOT / module))
    }
    strangers = {module for module in found if not any(module.startswith(door) for door in DOORS[framework])}
    assert strangers == set()
    assert found


@pytest.mark.parametrize("folder", ["tracking", "search_spaces"])
def test_tracking_and_search_spaces_import_nothing_of_the_harness(folder):
    forbidden = {"torch", "ray", "harness", "tracking", "search_spaces"} - {folder}
    assert [
        (m, name) for m in modules(folder) for name in imports_of(ROOT / m) if name.split(".")[0] in forbidden
    ] == []


@pytest.mark.parametrize("room", ROOMS)
def test_imports_between_folders_point_down(room):
    allowed = ROOMS[: ROOMS.index(room) + 1]
    wrong = [
        (module, name)
        for module in modules(f"harness/{room}")
        if Path(module).stem not in COMMANDS
        for name in imports_of(ROOT / module)
        if name.startswith("harness.") and name.split(".")[1] not in allowed
    ]
    assert wrong == []


@pytest.mark.parametrize("room", ["models", "training"])
def test_the_training_core_needs_neither_ray_nor_optuna_nor_mlflow(room):
    wrong = {"ray", "mlflow", "optuna", "tracking"}
    assert [(m, n) for m in modules(f"harness/{room}") for n in imports_of(ROOT / m) if n.split(".")[0] in wrong] == []


def test_only_the_reading_of_the_test_split_imports_its_door():
    doorkeepers = {"harness/study/heldout.py"}
    door = "harness/study/heldout.py"
    found = {
        module
        for folder in ("harness", "search_spaces", "tracking")
        for module in modules(folder)
        if module != door and re.search(r"\b(test_split|open_test_split)\b", names_in(ROOT / module))
    }
    assert (ROOT / door).exists()
    assert found <= doorkeepers


@pytest.mark.drill
def test_the_training_core_imports_without_ray_optuna_and_mlflow():
    script = """
import sys
for name in ("ray", "optuna", "mlflow"):
    sys.modules[name] = None  # importing it now raises ImportError
import harness.training.trainer, harness.models.build, harness.study.sources, harness.config.study
import harness.models.backbones.checkpoints
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, timeout=120)


@pytest.mark.drill
def test_a_worker_trains_without_what_only_some_trials_need():
    script = """
import sys
import harness.study.worker
heavy = [name for name in ("sklearn", "scipy.stats", "matplotlib", "mlflow", "optuna") if name in sys.modules]
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, timeout=120)
