"""`python -m harness.data prepare`: through Ray, on one machine or several, and its report."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager, suppress
from dataclasses import replace

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from harness.data.__main__ import app
from harness.data.extraction import in_threads
from harness.data.openmic import read_dataset
from harness.data.store import open_store, prepare_features
from harness.data.store_files import RECORD
from harness.models.backbones.checkpoints import geometry_of
from harness.study.cluster import Prepared, lines_of
from tests.support.layouts import Layout, write_tone
from tests.support.studies import wait_for

FRONT_END = geometry_of("ast-nano").front_end
FILES = ("features.npy", "index.json", "left_out.csv", "rows.bin")


def refused(*flags):
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        done = CliRunner().invoke(app, ["prepare", *flags], env=dict(os.environ))
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)
    assert done.exit_code == 1, done.output
    return done.output


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--preset", "ours"], "preset='ours': must be one of paper, released"),
        (["--seed", "1"], "fraction=1: cannot go with --seed; all clips are prepared, whatever the split"),
        (["--split", "artist", "--seed", "0"], "fraction=1: cannot go with --split, --seed"),
        (["--fraction", "0"], "fraction=0.0: must be above 0 and at most 1"),
        (["--fraction", "0.5", "--split", "none"], "split='none': must be one of random, public, artist"),
        (["--cpus", "0"], "cpus=0: must be at least 1"),
        (["--cpus", "2", "--address", "auto"], "address=auto: cannot go with --cpus"),
        (["--data", "nowhere"], "data='nowhere': must be demo, openmic or a directory"),
        (["--backbone", "nothing"], "backbone='nothing': must be one of"),
    ],
)
def test_flags_that_say_nothing_possible_are_refused_before_ray_is_started(flags, said):
    assert said in refused(*flags)


# The report

OURS = Prepared(
    host="here",
    path="/cache/features/0123",
    cores=2,
    n_bytes=5_242_000_000,
    n_clips=20_000,
    n_computed=5_000,
    unreadable={},
    seconds=100.0,
    digest="abc",
    process_bytes=900_000_000,
    worker_bytes=700_000_000,
)


def test_the_report_says_where_how_much_how_fast_and_what_next():
    assert lines_of([("here", OURS)], ["--data d", "--fraction 0.1"]) == [
        "store     /cache/features/0123, 5.2 GB on disk",
        "clips     20,000 of 20,000 ready; 5,000 computed in 100 s, 50.0 clips/s on 2 cores",
        "memory    900.0 MB resident at most, 700.0 MB in each of Ray's workers",
        "use it    python -m harness.study --space unet --data d --fraction 0.1",
    ]


def test_the_report_tells_known_corrupted_tracks_from_other_clips_that_cannot_be_read():
    unreadable = {f"{n:06}_0": "empty" for n in range(25)} | {"095253_40960": "damaged", "138485_0": "damaged"}
    text = "\n".join(lines_of([("here", replace(OURS, unreadable=unreadable))], []))
    assert "19,973 of 20,000 ready" in text
    assert "left out  2 of tracks known to be corrupted: 095253_40960, 138485_0" in text
    assert "left out  25 that cannot be read:\n          000/000000_0.ogg: empty" in text
    assert "000/000019_0.ogg" in text
    assert "000/000020_0.ogg" not in text
    assert "          and 5 more\nlisted    /cache/features/0123/left_out.csv" in text


def test_the_report_has_a_line_for_each_machine_that_has_a_store_of_its_own():
    there = replace(OURS, host="there", path="/other/0123", n_computed=0, worker_bytes=0)
    lines = lines_of([("here", OURS), ("there", there), ("away", "it was lost (NodeDied)")], [])
    assert lines[3:5] == [
        "machine   there: /other/0123: 20,000 of 20,000 ready, all of them before; 900.0 MB resident at most",
        "machine   away: not ready, it was lost (NodeDied); its trials compute what is missing if they find the audio",
    ]


# Real processes


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Write 160 clips of half a minute, long enough to be interrupted, in four sounds.

    One is damaged, by being of a track that is known to be.
    """
    root = tmp_path_factory.mktemp("prepare")
    layout = Layout(n_clips=160, n_train=120)
    layout.keys[7] = "095253_40960"
    layout.keys.sort()
    layout.train, layout.test = layout.keys[:120], layout.keys[120:]
    layout.write(root / "data")
    for row, key in enumerate(layout.keys):
        clip, sound = root / "data/audio" / key[:3] / f"{key}.ogg", root / f"{row % 4}.ogg"
        if row < 4:
            write_tone(sound, hertz=300 * (row + 1), seconds=30)
        if key != "095253_40960":
            clip.unlink()
            clip.hardlink_to(sound)
    return root / "data"


@pytest.fixture(scope="module")
def expected(data, tmp_path_factory):
    """Return what the files of the store hold that threads fill and nothing disturbs."""
    cache = tmp_path_factory.mktemp("threads")
    path = prepare_features(read_dataset(data), FRONT_END, cache=cache, compute=in_threads(2)).path
    assert sorted(file.name for file in path.iterdir()) == sorted(FILES)
    return path.name, files_of(path)


def files_of(path):
    """Return what the files of a store hold, but for what the clips' own files were known by, which a test changes."""
    records = np.fromfile(path / "rows.bin", RECORD)
    records["stamp"] = 0
    return {file.name: file.read_bytes() for file in path.iterdir()} | {"rows.bin": records.tobytes()}


def store_in(cache, expected):
    name, files = expected
    path = cache / "features" / name
    assert files_of(path) == files
    return path


def start(data, environment, *flags):
    command = [sys.executable, "-m", "harness.data", "prepare", "--data", str(data), *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    inherited = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "REPROGRAMMING_CACHE")}
    return subprocess.Popen(command, env={**inherited, **environment}, cwd=data, **pipes)


def n_stored(path):
    return int((open_store(path).records["state"] != 0).sum()) if path.exists() else 0


def workers_of(process):
    """Return the Ray workers that hear clips for a command."""
    found = []
    with suppress(psutil.Error):  # of one that comes or goes
        children = psutil.Process(process.pid).children(recursive=True)
        found.extend(child for child in children if "_hear" in " ".join(child.cmdline()[:1]))
    return found


@pytest.mark.drill
def test_after_a_kill_only_what_is_missing_is_computed_and_sigterm_or_a_lost_worker_cost_nothing(
    data, expected, tmp_path
):
    environment = {"REPROGRAMMING_CACHE": str(tmp_path / "cache")}
    path = tmp_path / "cache/features" / expected[0]
    process = start(data, environment, "--cpus", "2")
    wait_for(lambda: 0 < n_stored(path) < 100, what="the first clips")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (path / "filling").exists()
    n_before = n_stored(path)
    assert 0 < n_before < 160
    process = start(data, environment, "--cpus", "2")
    wait_for(lambda: n_stored(path) > n_before, what="more clips")
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "checked first, since the last preparation did not come to its end" in err
    assert "interrupted; nothing that was computed is lost: run the same command again to go on" in err
    assert not (path / "filling").exists()
    n_before = n_stored(path)
    process = start(data, environment, "--cpus", "2")
    wait_for(lambda: workers_of(process), what="a worker")[0].kill()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert f"159 of 160 ready; {160 - n_before} computed in " in out
    assert "left out  1 of tracks known to be corrupted: 095253_40960" in out
    store_in(tmp_path / "cache", expected)


@pytest.mark.drill
def test_rays_workers_leave_out_what_they_cannot_open_and_the_command_names_it(data, expected, tmp_path):
    clip = sorted(data.glob("audio/*/*.ogg"))[20]
    clip.rename(tmp_path / "away")
    clip.mkdir()
    try:
        process = start(data, {"REPROGRAMMING_CACHE": str(tmp_path / "cache")}, "--cpus", "2")
        _, err = process.communicate(timeout=400)
    finally:
        clip.rmdir()
        (tmp_path / "away").rename(clip)
    assert process.returncode == 1, err
    name = f"{clip.parent.name}/{clip.name}"
    assert f"error: 1 of 160 audio files cannot be opened: {name}: not a regular file but a directory on " in err
    assert n_stored(tmp_path / "cache/features" / expected[0]) == 159


CLUSTER = textwrap.dedent("""
    import json, sys
    from ray.cluster_utils import Cluster
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for environment in json.loads(sys.argv[1]):
        cluster.add_node(num_cpus=1, env_vars=environment)
    cluster.wait_for_nodes()
    print("address", cluster.address, flush=True)
    sys.stdin.readline()
    cluster.shutdown()
""")


@contextmanager
def cluster_of(*environments):
    """Give the address of a cluster of one node, and of one more for each of these environments."""
    command = [sys.executable, "-c", CLUSTER, json.dumps(environments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as cluster:
        try:
            yield next(line.split()[1] for line in cluster.stdout if line.startswith("address"))
        finally:
            cluster.communicate("end\n", timeout=60)


@pytest.mark.drill
def test_a_machine_of_a_cluster_that_does_not_share_the_cache_fills_its_own(data, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    homes = [{"XDG_CACHE_HOME": str(tmp_path / name)} for name in ("ours", "theirs")]
    monkeypatch.setenv("XDG_CACHE_HOME", homes[0]["XDG_CACHE_HOME"])
    monkeypatch.delenv("REPROGRAMMING_CACHE", raising=False)
    with cluster_of(*homes) as address:
        process = start(data, homes[0], "--address", address)
        out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    assert "1 machines that do not share this one's cache fill their own" in out
    assert "159 of 160 ready; 160 computed in " in out
    assert " on 2 cores" in out
    theirs = store_in(tmp_path / "theirs/reprogramming-harness", expected)
    store_in(tmp_path / "ours/reprogramming-harness", expected)
    (line,) = [line for line in out.splitlines() if line.startswith("machine ")]
    assert f"{theirs}: 159 of 160 ready; 160 computed in " in line
    assert not list((tmp_path / "ours/reprogramming-harness").glob("seen-by-*"))


# A node that is started as a command of its own, since it is to see another file system than the others.
NODE = """mount -t tmpfs tmpfs "$1" && exec ray start --address "$2" --num-cpus 1 --block"""


@contextmanager
def node_without(place, address):
    """Have a node join the cluster that finds nothing in this directory."""
    if subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("this user may not hide a directory from one process alone")
    command = ["unshare", "--mount", "sh", "-c", NODE, "sh", place, address]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, **quiet) as node:
        try:
            next((line for line in node.stdout if "Ray runtime started" in line), None)
            yield
        finally:
            node.terminate()
            node.communicate(timeout=60)


@pytest.mark.drill
def test_a_machine_that_shares_the_cache_but_not_the_audio_is_named_and_given_no_work(
    data, expected, tmp_path, monkeypatch
):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with cluster_of() as address, node_without(data / "audio", address):
        process = start(data, {"REPROGRAMMING_CACHE": str(tmp_path / "cache")}, "--address", address)
        out, err = process.communicate(timeout=180)
    assert process.returncode == 1, err
    first = sorted(data.glob("audio/*/*.ogg"))[0]
    trouble = f"{first} cannot be opened: No such file or directory"
    assert f"shares this machine's cache and is given no work, since there {trouble}" in out
    assert "159 of 160 ready; 160 computed in " in out
    assert f": not ready, {trouble}" in out
    store_in(tmp_path / "cache", expected)
