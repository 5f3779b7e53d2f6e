"""Which module may import what: the training core runs where torch is and nothing else of ours is needed."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

DOORS = {
    "timm": {"harness/models/ast.py"},
    "mlflow": {"tracking/"},
    "ray": {
        "harness/benchmarks/preparation.py",
        "harness/driver.py",
        "harness/machines.py",
        "harness/prepare_data.py",
        "harness/progress_callback.py",
        "harness/ray_extraction.py",
        "harness/ray_start.py",
        "harness/run_study.py",
        "harness/scheduler.py",
        "harness/searcher.py",
        "harness/tracking_callback.py",
        "harness/trial.py",
    },
    "optuna": {
        "search_spaces/",
        "harness/command.py",
        "harness/cells.py",
        "harness/evaluation/choosing.py",
        "harness/driver.py",
        "harness/evaluation/run.py",
        "harness/evaluation/result.py",
        "harness/evaluation/runs.py",
        "harness/plan.py",
        "harness/progress_callback.py",
        "harness/results.py",
        "harness/reproduction/parts.py",
        "harness/run_study.py",
        "harness/searcher.py",
        "harness/study_storage.py",
        "harness/subspace.py",
        "harness/tracker.py",
    },
}


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def names_in(path):
    """Return all that a module imports or uses by name, one a line; docstrings and comments do not count."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    fields = [getattr(node, name, None) for node in nodes for name in ("module", "name", "id", "attr")]
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


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("tracking", ("torch", "ray", "harness", "search_spaces")),
        ("search_spaces", ("torch", "ray", "harness", "tracking")),
        ("harness/models", ("ray", "mlflow", "optuna", "tracking", "harness.train", "harness.trial", "harness.study")),
        ("harness/data", ("ray", "mlflow", "optuna", "tracking", "harness.train", "harness.trial", "harness.study")),
    ],
)
def test_imports_point_one_way(folder, forbidden):
    wrong = [
        (module, name)
        for module in modules(folder)
        for name in imports_of(ROOT / module)
        if any(name == f or name.startswith(f"{f}.") for f in forbidden)
    ]
    assert wrong == []


def test_only_the_reading_of_the_test_split_imports_its_door():
    doorkeepers = {"harness/test_reading.py", "harness/trial.py"}
    door = "harness/data/test_split.py"
    found = {
        module
        for folder in ("harness", "search_spaces", "tracking")
        for module in modules(folder)
        if module != door and re.search(r"\b(test_split|open_test_part)\b", names_in(ROOT / module))
    }
    assert (ROOT / door).exists()
    assert found <= doorkeepers


@pytest.mark.slow
def test_the_training_core_imports_without_ray_optuna_and_mlflow():
    script = """
import sys
for name in ("ray", "optuna", "mlflow"):
    sys.modules[name] = None  # importing it now raises ImportError
import harness.train, harness.build, harness.data.sources, harness.spec, harness.models.checkpoints
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, timeout=120)


@pytest.mark.slow
def test_a_worker_trains_without_what_only_some_trials_need():
    script = """
import sys
import harness.trial
heavy = [name for name in ("sklearn", "scipy.stats", "matplotlib", "mlflow", "optuna") if name in sys.modules]
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, timeout=120)
