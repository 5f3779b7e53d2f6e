"""The feature cache under kills, full and read-only disks, and several processes at once."""

import json
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from harness.features.extract import extract
from tests.support.clips import FRONT_END, count_decoded, tones, touch
from tests.support.layouts import write_tone
from tests.support.mounts import read_only, small_disk
from tests.support.studies import wait_for

pytestmark = pytest.mark.drill

FILL = textwrap.dedent("""
    import json, sys
    from pathlib import Path
    from harness.features.extract import extract
    from tests.support.clips import FRONT_END
    paths = sorted(Path(sys.argv[1]).iterdir())
    found = extract(paths, FRONT_END, cache=Path(sys.argv[2]))
    print(json.dumps([found.n_computed, int(found.available.sum())]))
""")


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Return 200 files of four sounds, no two of which are equal."""
    folder = tmp_path_factory.mktemp("drill") / "audio"
    sounds = [path.read_bytes() for path in tones(folder, 4, seconds=8)]
    for n in range(200):
        (folder / f"{n}.ogg").write_bytes(sounds[n % 4] + b"%03d" % n)
    return sorted(folder.iterdir())


def start(paths, cache):
    command = [sys.executable, "-c", FILL, paths[0].parent, cache]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stored(cache):
    return list(cache.glob("features/log_mel-*/*.npy"))


def contents(cache):
    return {path.name: path.read_bytes() for path in stored(cache)}


@pytest.fixture(scope="module")
def expected(paths, tmp_path_factory):
    cache = tmp_path_factory.mktemp("undisturbed")
    extract(paths, FRONT_END, cache=cache, workers=2)
    return contents(cache)


def test_after_kills_only_what_is_missing_is_computed(paths, expected, tmp_path):
    for n in (20, 60, 100):
        process = start(paths, tmp_path)
        wait_for(lambda n=n: len(stored(tmp_path)) > n, seconds=600, what="more clips")
        process.kill()
        process.communicate()
    n_before = len(stored(tmp_path))
    assert 100 < n_before < 200
    out, err = start(paths, tmp_path).communicate(timeout=600)
    assert json.loads(out) == [200 - n_before, 200], err
    assert contents(tmp_path) == expected


def test_ctrl_c_ends_it_at_once_and_keeps_what_was_computed(paths, tmp_path):
    process = start(paths, tmp_path)
    wait_for(lambda: len(stored(tmp_path)) > 10, seconds=600, what="the first clips")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=600)
    assert "KeyboardInterrupt" in err
    assert 10 < len(stored(tmp_path)) < 200
    assert not list(tmp_path.glob("features/*/*.part"))


def test_processes_that_fill_one_cache_share_the_work_while_others_read(paths, expected, tmp_path):
    processes = [start(paths, tmp_path) for _ in range(3)]
    wait_for(lambda: len(stored(tmp_path)) > 10, seconds=600, what="the first clips")
    failed = []

    def read():
        while any(process.poll() is None for process in processes):
            failed.extend(path for path in stored(tmp_path) if path.read_bytes() != expected[path.name])

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    found = [json.loads(process.communicate(timeout=600)[0]) for process in processes]
    for reader in readers:
        reader.join()
    assert (failed, contents(tmp_path) == expected) == ([], True)
    assert [available for _, available in found] == [200] * 3
    n_computed = sum(computed for computed, _ in found)
    assert 200 <= n_computed < 240  # a clip that two took at the same time is computed twice


def test_a_disk_that_fills_up_is_an_error_and_loses_nothing(paths, expected, tmp_path, monkeypatch):
    with small_disk(tmp_path / "disk", n_bytes=1_500_000) as disk:
        monkeypatch.setattr("harness.features.extract._make_room", lambda store, _: store.prepare())
        with pytest.raises(OSError, match=r"cannot be written there \(No space left.*REPROGRAMMING_CACHE"):
            extract(paths, FRONT_END, cache=disk)
        assert len(stored(disk)) > 50
        assert all(content == expected[name] for name, content in contents(disk).items())


def test_a_cache_that_may_only_be_read_serves_what_it_has(tmp_path, monkeypatch, caplog):
    """As where a laboratory shares one cache that a single account fills."""
    paths, decoded = tones(tmp_path / "audio"), count_decoded(monkeypatch)
    with read_only(tmp_path / "disk", filled_by=lambda disk: extract(paths, FRONT_END, cache=disk)) as disk:
        first = extract(paths, FRONT_END, cache=disk)
        touch(paths[3])
        again = extract(paths, FRONT_END, cache=disk)
        assert (first.n_computed, again.n_computed, len(decoded)) == (0, 0, 8)
        assert np.array_equal(first.rows[:], again.rows[:])
        write_tone(paths[5], hertz=3000)
        with pytest.raises(OSError, match=r"\(Read-only file system\).*REPROGRAMMING_CACHE"):
            extract(paths, FRONT_END, cache=disk)


def test_damage_in_a_cache_that_may_only_be_read_is_computed_for_each_reader(tmp_path):
    paths = tones(tmp_path / "audio")

    def fill_and_spoil(disk):
        found = extract(paths, FRONT_END, cache=disk)
        expected.append(found.rows[3])
        (found.place / f"{found.digests[3]}.npy").write_bytes(b"spoiled")

    expected = []
    with read_only(tmp_path / "disk", filled_by=fill_and_spoil) as disk:
        rows = extract(paths, FRONT_END, cache=disk).rows
        for _ in range(2):
            assert np.array_equal(rows[3], expected[0])


READ = textwrap.dedent("""
    import sys
    from pathlib import Path
    from harness.benchmarks.cached import open_rows
    from harness.benchmarks.memory import peak_mb
    rows, before = open_rows(Path(sys.argv[1]), "ours", (256, 128)), peak_mb()
    for row in range(rows.shape[0]):
        rows[[row]]
    print(peak_mb() - before)
""")


def test_a_process_that_reads_all_of_a_large_cache_stays_small(tmp_path):
    from harness.benchmarks.cached import write_cache

    write_cache(tmp_path, (256, 128), n_clips=2000)
    read = subprocess.run([sys.executable, "-c", READ, tmp_path], capture_output=True, check=True, text=True)
    assert float(read.stdout) < 20
