"""OpenMIC-2018 at its full size, as a stand-in: made, checked, prepared, read, split, and studied on base384.

    pytest -m full_size -n 0 -s

Not part of the default run: it takes some ten minutes of two idle cores, and 6 GB below `--basetemp` (by default, in
the system's folder for temporary files). `-s` shows the figures.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from harness.benchmarks.memory import BOUND_MB
from harness.benchmarks.overhead import _training_processes
from harness.data.openmic import CORRUPTED_TRACKS, read_dataset
from harness.data.splits import split_train
from harness.features.extract import extract, extract_log_mel
from harness.models.backbones import load_backbone
from tests.support.studies import wait_for

pytestmark = [pytest.mark.full_size, pytest.mark.timeout(4 * 3600)]

N_CLIPS, N_DAMAGED = 20_000, 5
ROW_BYTES = 2 * 1024 * 128
FREE_BYTES = 7e9
BACKBONE = "ast-base384-random"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Return a folder of its own, which is taken away in the end."""
    folder = tmp_path_factory.mktemp("full-size")
    if shutil.disk_usage(folder).free < FREE_BYTES:
        pytest.fail(f"{folder}: lacks the {FREE_BYTES / 1e9:.0f} GB of room that this takes; choose another --basetemp")
    yield folder
    shutil.rmtree(folder)


def command(*arguments):
    return [sys.executable, "-m", *map(str, arguments)]


def environment(root):
    return {**os.environ, "REPROGRAMMING_CACHE": str(root / "cache")}


def run(root, *arguments):
    """Return what a command prints, after printing how long it took."""
    began = time.monotonic()
    done = subprocess.run(
        command(*arguments), env=environment(root), cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(f"\n{' '.join(map(str, arguments))}: {time.monotonic() - began:.0f} s\n{done.stdout}", flush=True)
    return done.stdout


@pytest.fixture(scope="module")
def place(root):
    run(root, "harness.data", "generate", "--to", root)
    return root / "openmic-2018-stand-in"


def test_it_is_as_large_as_openmic_2018_and_takes_little_disk(root, place):
    output = run(root, "harness.data", "check", place)
    assert "20,000: 14,915 train, 5,085 test, as many as in OpenMIC-2018 v1.0.0" in output
    assert "20; 41,268 of 400,000 observed, 17,614 positive" in output
    assert "usable: a study can read its tables, and each clip has a file" in output
    blocks = {each.st_ino: each.st_blocks for each in (path.stat() for path in place.rglob("*"))}
    assert 512 * sum(blocks.values()) < 2e8


def test_its_splits_are_of_the_published_sizes(place):
    dataset = read_dataset(place)
    public = split_train(dataset, kind="public")
    assert (len(public.train), len(public.validation)) == (12_678, 2_237)
    for kind in ("random", "artist"):
        split = split_train(dataset, kind=kind)
        assert len(split.validation) == pytest.approx(0.15 * 14_915, abs=10)
        assert not set(split.validation) & (set(split.train) | set(dataset.test))


def begun(root):
    """Return how many sounds the cache holds, readable or not; the stand-in's clips are links to a few hundred."""
    files = (root / "cache" / "features").glob("log_mel-*/*")
    return sum(file.suffix in (".npy", ".txt") for file in files)


def n_sounds(place):
    return len({path.stat().st_ino for path in place.glob("audio/*/*")})


def kill_all(process):
    """Kill a process and all that it started, as a machine that is switched off does."""
    everyone = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in everyone:
        child.kill()
    process.wait()
    psutil.wait_procs(everyone)


@pytest.fixture(scope="module")
def prepared(root, place):
    """Return how many sounds a preparation had stored when it was killed half-way, and the output of the second one."""
    prepare = "harness.data", "prepare", "--data", place, "--backbone", BACKBONE
    began = time.monotonic()
    with (root / "first.txt").open("w") as log:
        first = subprocess.Popen(command(*prepare), env=environment(root), cwd=root, stdout=log, stderr=log)
        wait_for(
            lambda: begun(root) > n_sounds(place) // 2 or first.poll() is not None, seconds=2 * 3600, what="half of it"
        )
        assert first.poll() is None, (root / "first.txt").read_text()
        kill_all(first)
    before = begun(root)
    print(f"\nkilled after {time.monotonic() - began:.0f} s with {before:,} sounds in the cache", flush=True)
    return before, run(root, *prepare)


@pytest.fixture(scope="module")
def extracted(root, place, prepared):
    assert prepared
    return extract(read_dataset(place).paths, load_backbone(BACKBONE).front_end, cache=root / "cache")


def test_a_preparation_that_was_killed_half_way_computes_the_other_half(place, prepared, extracted):
    before, output = prepared
    assert f"{N_CLIPS - N_DAMAGED:,} of {N_CLIPS:,} ready" in output
    assert f"skipped   {N_DAMAGED} of tracks known to be corrupted" in output
    assert (
        int(re.search(r"([\d,]+) computed", output)[1].replace(",", "")) <= n_sounds(place) - before + 20
    )  # two threads may take one sound
    keys = read_dataset(place).keys
    assert {keys[row][:6] for row in extracted.unreadable} < CORRUPTED_TRACKS
    assert (extracted.rows.shape, extracted.n_computed) == ((N_CLIPS, 1024, 128), 0)


def test_what_is_stored_from_before_and_after_the_kill_is_what_is_computed(place, extracted):
    paths, front_end = read_dataset(place).paths, load_backbone(BACKBONE).front_end
    for row in np.flatnonzero(extracted.available)[:: N_CLIPS // 50]:
        assert np.array_equal(extract_log_mel(paths[row], front_end).log_mel, extracted.rows[int(row)])


def test_a_study_of_a_thousandth_on_base384_trains_within_its_memory(root, place, prepared):
    flags = {"space": "none", "trials": 2, "epochs": 1, "concurrent": 1, "fraction": 0.001, "name": "tiny"}
    # a learned normalisation would need a gradient through the backbone, which takes more than the bound
    flags |= {"data": place, "backbone": BACKBONE, "storage": root / "studies", "fix": "normalisation/kind=audioset"}
    study = command("harness.study", *(f"--{flag}={value}" for flag, value in flags.items()))
    most, began = 0, time.monotonic()
    with (root / "study.txt").open("w") as output:
        process = subprocess.Popen(study, env=environment(root), cwd=root, stdout=output, stderr=output)
        try:
            while process.poll() is None:
                most = max([most, *map(peak_bytes, _training_processes(process.pid))])
                time.sleep(0.5)
        finally:
            process.kill()
    print((root / "study.txt").read_text())
    print(f"study: {time.monotonic() - began:.0f} s, a trial had {most / 1e6:,.0f} MB resident at most", flush=True)
    assert process.returncode == 0
    assert 0 < most < BOUND_MB * 1e6


def peak_bytes(pid):
    """Return the most that a process has had resident, 0 if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0
