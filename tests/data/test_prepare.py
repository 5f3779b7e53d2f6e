"""`python -m harness.data prepare`: on one machine or a cluster, and its report."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from harness.data.__main__ import app
from harness.study.cluster import FilledCache, lines_of
from tests.support.layouts import Layout, write_tone
from tests.support.studies import wait_for


def refused(*flags):
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        done = CliRunner().invoke(app, ["prepare", *flags], env=dict(os.environ))
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)
    assert done.exit_code == 2, done.output
    return done.output


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--preset", "ours"], "preset='ours': must be one of paper, released"),
        (["--split", "artist", "--seed", "0"], "fraction=1: cannot go with --split, --seed"),
        (["--fraction", "0.5", "--split", "none"], "split='none': must be one of random, public, artist"),
        (["--cpus", "0"], "cpus=0: must be at least 1"),
        (["--cpus", "2", "--address", "auto"], "address=auto: cannot go with --cpus"),
        (["--data", "nowhere"], "data='nowhere': must be demo, openmic or a directory"),
        (["--backbone", "nothing"], "backbone='nothing': must be one of"),
    ],
)
def test_impossible_flags_are_refused_at_once(flags, message):
    assert message in refused(*flags)


# The report

OURS = FilledCache(
    path="/cache/features/log_mel-0123",
    cores=2,
    n_bytes=5_242_000_000,
    n_clips=20_000,
    n_computed=5_000,
    unreadable={},
    listed="/cache/features/skipped-d-01.csv",
    seconds=100.0,
    digest="abc",
    process_bytes=900_000_000,
)


def test_the_report_says_where_how_much_how_fast_and_what_next():
    assert lines_of([("here", OURS)], ["--data d", "--fraction 0.1"]) == [
        "cache     /cache/features/log_mel-0123, 5.2 GB on disk",
        "clips     20,000 of 20,000 ready; 5,000 computed in 100 s, 50.0 clips/s on 2 cores",
        "memory    900.0 MB resident at most",
        "use it    python -m harness.study --space unet --data d --fraction 0.1",
    ]


def test_the_report_separates_known_corrupted_tracks_from_other_clips_that_cannot_be_read():
    unreadable = {f"{n:06}_0": f"{n:06}_0.ogg: empty" for n in range(25)}
    unreadable |= {"095253_40960": "damaged", "138485_0": "damaged"}
    text = "\n".join(lines_of([("here", replace(OURS, unreadable=unreadable))], []))
    assert "19,973 of 20,000 ready" in text
    assert "skipped   2 of tracks known to be corrupted: 095253_40960, 138485_0" in text
    assert "skipped   25 that cannot be read:\n          000000_0.ogg: empty" in text
    assert "000019_0.ogg" in text
    assert "000020_0.ogg" not in text
    assert f"          and 5 more\nlisted    {OURS.listed}" in text


def test_the_report_has_a_line_for_each_other_node():
    there = replace(OURS, path="/other/log_mel-0123", n_computed=0)
    lines = lines_of([("here", OURS), ("there", there), ("away", "it was lost (NodeDied)")], [])
    assert lines[3].startswith("machine   there: /other/log_mel-0123: 20,000 of 20,000 ready, all found in the cache")
    assert lines[4].startswith("machine   away: not ready, it was lost (NodeDied)")


# Real processes


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Write 120 clips that no two share, one of them damaged and of a track that is known to be."""
    root = tmp_path_factory.mktemp("prepare")
    layout = Layout(n_clips=120, n_train=80)
    layout.keys[7] = "095253_40960"
    layout.keys.sort()
    layout.train, layout.test = layout.keys[:80], layout.keys[80:]
    layout.write(root / "data")
    for row, key in enumerate(layout.keys):
        clip, sound = root / "data/audio" / key[:3] / f"{key}.ogg", root / f"{row % 4}.ogg"
        if row < 4:
            write_tone(sound, hertz=300 * (row + 1), seconds=20)
        if key != "095253_40960":
            clip.write_bytes(sound.read_bytes() + b"%03d" % row)
    return root / "data"


def start(data, environment, *flags):
    command = [sys.executable, "-m", "harness.data", "prepare", "--data", str(data), *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    inherited = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "REPROGRAMMING_CACHE")}
    return subprocess.Popen(command, env={**inherited, **environment}, cwd=data, **pipes)


def n_stored(cache):
    return len(list(cache.glob("features/log_mel-*/*.npy")))


@pytest.mark.drill
def test_sigterm_ends_it_with_what_to_do_and_the_next_command_computes_the_rest(data, tmp_path):
    environment = {"REPROGRAMMING_CACHE": str(tmp_path)}
    process = start(data, environment, "--cpus", "2")
    wait_for(lambda: n_stored(tmp_path) > 5, seconds=600, what="the first clips")
    process.terminate()
    _, err = process.communicate(timeout=600)
    assert process.returncode == 130, err
    assert "run the same command again" in err
    n_before = n_stored(tmp_path)
    assert n_before < 119
    out, err = start(data, environment, "--cpus", "2").communicate(timeout=600)
    assert "119 of 120 ready; " in out, err
    assert int(re.search(r"(\d+) computed in", out)[1]) - (119 - n_before) in (0, 1)
    assert "skipped   1 of tracks known to be corrupted: 095253_40960" in out


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
            cluster.communicate("end\n", timeout=600)


@pytest.mark.drill
def test_every_node_fills_its_cache_and_those_that_share_one_share_the_work(data, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    homes = [{"XDG_CACHE_HOME": str(tmp_path / name)} for name in ("ours", "ours", "theirs")]
    monkeypatch.setenv("XDG_CACHE_HOME", homes[0]["XDG_CACHE_HOME"])
    monkeypatch.delenv("REPROGRAMMING_CACHE", raising=False)
    with cluster_of(*homes[1:]) as address:
        out, err = start(data, homes[0], "--address", address).communicate(timeout=600)
    assert "2 other nodes fill their caches" in out, err
    assert all(n_stored(tmp_path / name / "reprogramming-harness") == 119 for name in ("ours", "theirs"))
    lines = [line for line in out.splitlines() if " ready" in line]
    computed = {line.split(": ")[1] if ": " in line else "here": _computed(line) for line in lines}
    shared = [count for place, count in computed.items() if "theirs" not in place]
    assert 120 <= sum(shared) < 135
    assert max(computed.values()) == 120
    assert len(computed) == 3


def _computed(line):
    found = re.search(r"(\d+) computed in", line)
    return int(found[1]) if found else 0


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
            node.communicate(timeout=600)


@pytest.mark.drill
def test_a_node_without_the_audio_is_named_and_the_command_fails(data, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with cluster_of() as address, node_without(data / "audio", address):
        process = start(data, {"REPROGRAMMING_CACHE": str(tmp_path)}, "--address", address)
        out, err = process.communicate(timeout=600)
    assert process.returncode == 1, err
    assert "119 of 120 ready; 120 computed in " in out
    assert ": not ready, " in out
    assert n_stored(tmp_path) == 119
