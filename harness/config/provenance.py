"""Where a result comes from: the commit and the versions of what computed it."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "reprogramming-harness",
    "torch",
    "torchaudio",
    "timm",
    "ray",
    "optuna",
    "mlflow",
    "numpy",
    "scikit-learn",
)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that shape a result."""
    found = {"version/python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[f"version/{package}"] = version(package)
        except PackageNotFoundError:
            found[f"version/{package}"] = "not installed"
    return found


def git_commit() -> str:
    """Return the commit of this source tree, with `-dirty` if it has changes, or `unknown` outside a checkout."""
    here = Path(__file__).parent
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return commit + ("-dirty" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(directory: Path, *arguments: str) -> str:
    command = ["git", "-C", str(directory), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()
