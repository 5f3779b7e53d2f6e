"""Memory: the most that is resident of a process that reads a whole feature cache, and of one that runs a trial.

Each is a process of its own. The cache has 4,000 clips of 1024 x 128 in float16, 1.0 GB. A trial on the CPU has all
imports of a worker, loads the backbone from a file of true size, trains for two steps and validates.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.torch import save_file

from harness.benchmarks.cached import MAPPED, OURS, write_cache
from harness.common.files import cache_dir
from harness.models.backbones.ast import AstGeometry
from harness.models.backbones.checkpoints import load_backbone

BOUND_MB = 1500
STORED_CLIPS = 4_000
TRIALS = (("none", 8), ("unet", 1), ("unet", 8))
_BACKBONE = "ast-base384-random"


@dataclass(frozen=True)
class Memory:
    """One process: megabytes (10^6 bytes) that were resident at most, by the end of each stage and in all."""

    what: str
    stages_mb: dict[str, float]

    @property
    def peak_mb(self) -> float:
        """Return the most of all."""
        return max(self.stages_mb.values())


def measure_memory(
    *, backbone: str = _BACKBONE, trials: Sequence[tuple[str, int]] = TRIALS, stored_clips: int = STORED_CLIPS
) -> Iterator[Memory]:
    """Yield the memory of each process: readers by memory map and by ours, then trials by reprogrammer and batch."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir()) as directory:
        weights, geometry = _write_backbone(Path(directory) / "backbone.safetensors", backbone)
        shape = (geometry.n_frames, geometry.n_mels)
        write_cache(Path(directory) / "cache", shape, n_clips=stored_clips)
        place = (str(Path(directory) / "cache"), *map(str, shape))
        size = f"{2 * stored_clips * shape[0] * shape[1] / 1e9:.1f} GB"
        for way in (MAPPED, OURS):
            yield Memory(f"reading {size}, {way}", _run("read", *place, way))
        for reprogrammer, batch in trials:
            stages = _run("trial", *place, OURS, str(weights), reprogrammer, str(batch))
            yield Memory(f"trial of {backbone.removesuffix('-random')}, {reprogrammer}, batch {batch}", stages)


def _write_backbone(path: Path, name: str) -> tuple[Path, AstGeometry]:
    """Write a backbone in float32, as the published ones are; return the file and its geometry."""
    model = load_backbone(name)
    save_file(dict(model.state_dict()), path, metadata={"geometry": json.dumps(asdict(model.geometry))})
    return path, model.geometry


def _run(*arguments: str) -> dict[str, float]:
    """Run `process_memory` and return its stages.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-m", "harness.benchmarks.process_memory", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    stages: dict[str, float] = json.loads(done.stdout)
    return stages
