"""The code in the READMEs: the space is the file's, and the package runs in a study."""

import ast
import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MANUAL = (ROOT / "search_spaces/README.md").read_text()


def blocks(text):
    """Return the fenced blocks of a README by the file named in the line above, or by their number."""
    found = re.findall(r"(?:`([\w.]+)`[^\n]*:\n\n)?```\w+\n(.*?)```", text, flags=re.DOTALL)
    return {name or str(number): code for number, (name, code) in enumerate(found)}


def code_of(source):
    """Return a module without its docstring, as a normalised text."""
    tree = ast.parse(source)
    tree.body = tree.body[1:]
    return ast.unparse(tree)


def test_the_space_in_the_readme_is_the_file():
    shown = next(code for code in blocks((ROOT / "README.md").read_text()).values() if "def suggest" in code)
    assert code_of(shown) == code_of((ROOT / "search_spaces/noise.py").read_text())


def test_the_manual_names_the_entry_point_group_of_every_registry():
    sources = "\n".join(file.read_text() for file in (ROOT / "harness").rglob("*.py"))
    groups = set(re.findall(r'= Registry\(\s*"(\w+)"', sources))
    (listed,) = re.findall(r"The groups are `reprogramming_harness.` and (.*?)\. ", MANUAL, flags=re.DOTALL)
    assert set(re.findall(r"`(\w+)`", listed)) == {*groups, "search_spaces"}


@pytest.mark.drill
def test_the_package_in_the_manual_is_installed_and_studied(tmp_path):
    from tests.support.studies import make_workshop

    package = tmp_path / "tilt-reprogramming"
    package.mkdir()
    for name in ("pyproject.toml", "tilt.py", "tilt_model.py"):
        (package / name).write_text(blocks(MANUAL)[name])
    workshop = make_workshop(tmp_path)
    flags = ("--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check")
    workshop.run(workshop.module("pip", "install", *flags, "--target", str(tmp_path / "site"), str(package)))
    paths = os.pathsep.join([str(tmp_path / "site"), str(ROOT), *filter(None, sys.path)])
    command = ["env", f"PYTHONPATH={paths}", *workshop.new("tilted", "--trials", "2", "--epochs", "1", space="tilt")]
    workshop.run(command, timeout=500)
    first, second = workshop.results("tilted")
    assert first["system"].startswith("tilt")
    assert second["params"] == first["params"] > 0
