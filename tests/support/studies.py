"""Real studies in real processes, small enough for a test: a few tones, a tiny backbone, the whole command line."""

import contextlib
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import mlflow
import numpy as np
import optuna
import torch
from optuna.trial import TrialState
from typer.testing import CliRunner

from harness.models.backbones.ast import Ast, AstGeometry
from harness.models.backbones.checkpoints import save_ast
from tests.support.layouts import LABELS, Layout, write_tone

GEOMETRY = AstGeometry(
    embed_dim=16,
    depth=1,
    num_heads=2,
    frequency_stride=16,
    time_stride=16,
    n_mels=32,
    n_frames=48,
    n_source_labels=24,
)
HERTZ = (300, 1200, 4000)


@dataclass(frozen=True)
class Workshop:
    """A data set, a backbone, and a place for studies; every process gets the same cache."""

    root: Path

    @property
    def storage(self) -> Path:
        return self.root / "studies"

    @property
    def environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
        return {**inherited, "REPROGRAMMING_CACHE": str(self.root / "cache"), "PYTHONUNBUFFERED": "1"}

    def module(self, module: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", module, *arguments]

    def command(self, *flags: str) -> list[str]:
        return self.module("harness.study", *flags, "--storage", str(self.storage))

    def new(self, name: str, *flags: str, space: str = "noise") -> list[str]:
        data = ("--data", str(self.root / "data"), "--backbone", str(self.root / "tiny.safetensors"))
        return self.command("--space", space, "--name", name, *data, "--validation-fraction", "0.4", *flags)

    def run(self, command: list[str], *, expect: int = 0, timeout: float = 900) -> str:
        done = subprocess.run(
            command,
            env=self.environment,
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == expect, f"exit {done.returncode}, not {expect}:\n{done.stdout}"
        return done.stdout

    def refused(self, module: str, *flags: str) -> str:
        """Return what a command says that refuses its flags; it runs in this process, since an import takes seconds."""
        is_package = importlib.util.find_spec(module).submodule_search_locations is not None
        app = importlib.import_module(f"{module}.__main__" if is_package else module).app
        environment, on_sigterm = dict(os.environ), signal.getsignal(signal.SIGTERM)
        try:
            with contextlib.chdir(self.root):
                done = CliRunner().invoke(app, [*flags, "--storage", str(self.storage)], env=self.environment)
        finally:
            signal.signal(signal.SIGTERM, on_sigterm)
            os.environ.clear()
            os.environ.update(environment)
        assert done.exit_code == 2, done.output
        assert isinstance(done.exception, SystemExit), done.exception
        return done.output

    def start(self, command: list[str]) -> subprocess.Popen:
        return subprocess.Popen(
            command,
            env=self.environment,
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @contextmanager
    def under_way(self, command: list[str], name: str, *, epochs: int) -> Iterator[subprocess.Popen]:
        """Start a command; yield its process once one trial has ended and another is well under way."""

        def is_under_way() -> bool:
            assert process.poll() is None, process.stdout.read()
            if not self.checkpoint(name, 0):  # until then the storage may be half made
                return False
            trials = self.trials(name)
            running = [max(t.intermediate_values, default=0) for t in trials if t.state == TrialState.RUNNING]
            has_ended = any(t.state == TrialState.COMPLETE for t in trials)
            return has_ended and any(3 < epoch < epochs // 2 for epoch in running)

        with self.start(command) as process:
            try:
                wait_for(is_under_way, seconds=600, what=f"{name} under way")
                yield process
            finally:
                process.kill()

    def results(self, name: str) -> list[dict]:
        return json.loads((self.storage / name / "results.json").read_text())

    def trials(self, name: str) -> list[optuna.trial.FrozenTrial]:
        storage = f"sqlite:///{self.storage / name / 'optuna.db'}"
        return optuna.load_study(study_name=name, storage=storage).trials

    def checkpoint(self, name: str, number: int) -> dict | None:
        file = self.storage / name / "trials" / f"{number:03d}" / "last.pt"
        return torch.load(file, weights_only=True) if file.exists() else None

    def runs(self, name: str) -> list[mlflow.entities.Run]:
        """Return a study's trial runs in MLflow, in the order of their numbers."""
        client = self.client()
        experiments = [e.experiment_id for e in client.search_experiments()]
        found = client.search_runs(experiments, f"tags.kind = 'trial' and tags.study = '{name}'")
        return sorted(found, key=lambda run: run.data.tags["harness_key"])

    def client(self) -> mlflow.MlflowClient:
        return mlflow.MlflowClient(f"sqlite:///{self.storage / 'mlflow.db'}")


def make_workshop(root: Path, *, n_clips: int = 40) -> Workshop:
    layout = Layout(n_clips=n_clips, n_train=n_clips - 8)
    data = layout.write(root / "data")
    for row, key in enumerate(layout.keys):
        heard = layout.targets[row].argmax() if layout.observed[row].any() else 0
        write_tone(data / "audio" / key[:3] / f"{key}.ogg", hertz=HERTZ[heard % len(LABELS)])
    torch.manual_seed(0)
    np.random.seed(0)
    save_ast(root / "tiny.safetensors", Ast(GEOMETRY), {"note": "random weights"})
    odd = replace(GEOMETRY, n_frames=40)  # which a U-Net of depth 4 cannot halve four times
    save_ast(root / "odd.safetensors", Ast(odd), {"note": "random weights"})
    return Workshop(root)


def wait_for(condition, *, seconds: float = 600, what: str = "it"):
    """Return the condition's first true value, asking ten times a second."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError(f"{what} did not happen within {seconds} s")
