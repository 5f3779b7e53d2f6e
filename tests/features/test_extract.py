"""Log-mel of many files through the cache: each computed once, whatever changes, and each failure named."""

import hashlib
import os
import shutil
import tracemalloc
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from harness.features import audio
from harness.features import extract as extract_module
from harness.features.audio import decode
from harness.features.cache import CachedRows, FeatureCache
from harness.features.extract import extract, extract_log_mel
from harness.features.log_mel import log_mel
from tests.support.clips import FRONT_END, count_decoded, forbid, tones, touch
from tests.support.layouts import write_tone


@pytest.fixture
def paths(tmp_path):
    return tones(tmp_path / "audio")


@pytest.fixture
def decoded(monkeypatch):
    return count_decoded(monkeypatch)


@pytest.fixture
def run(tmp_path, paths):
    """Return what extracts the paths into one cache, unless it is given others."""

    def run(paths=paths, front_end=FRONT_END, cache=tmp_path / "cache", **options):
        return extract(paths, front_end, cache=cache, **options)

    return run


# What is computed, and when


@pytest.mark.parametrize("workers", [1, 3])
def test_a_row_is_the_log_mel_of_its_file_in_float16(paths, run, workers):
    found = run(workers=workers)
    for row, path in enumerate(paths):
        assert np.array_equal(found.rows[row], log_mel(*decode(path), FRONT_END).half().numpy())
    assert (found.n_computed, found.unreadable, found.unopened) == (8, {}, {})
    assert found.n_bytes == sum(file.stat().st_size for file in found.place.glob("*.npy"))


def test_a_second_pass_reads_no_audio(paths, run, decoded, monkeypatch):
    run()
    forbid(monkeypatch, *paths)
    monkeypatch.setattr(extract_module, "_read", lambda path: pytest.fail(f"{path} was read"))
    found = run()
    assert (found.n_computed, len(decoded)) == (0, 8)
    assert found.available.all()


def test_only_requested_files_are_computed_and_the_others_have_no_row(paths, run, decoded):
    found = run([path if row in (1, 6) else None for row, path in enumerate(paths)])
    assert sorted(decoded) == ["1.ogg", "6.ogg"]
    assert np.flatnonzero(found.available).tolist() == [1, 6]
    assert [bool(digest) for digest in found.digests] == found.available.tolist()
    with pytest.raises(ValueError, match="no features"):
        found.rows[0]
    assert run().n_computed == 6


@pytest.mark.parametrize("change", [{"n_frames": 33}, {"via_hz": 22050}, {"is_peak_normalised": True}], ids=str)
def test_each_front_end_has_features_of_its_own(run, change):
    first, second = run(), run(front_end=replace(FRONT_END, **change))
    assert second.n_computed == 8
    assert first.place != second.place
    assert first.digests == second.digests
    assert run().n_computed == 0


def test_moved_copied_or_repeated_audio_is_hashed_and_not_computed_again(paths, run, decoded, tmp_path):
    first = run()
    shutil.copytree(paths[0].parent, tmp_path / "copy")
    paths[0].parent.rename(tmp_path / "moved")
    for folder in ("copy", "moved"):
        there = [tmp_path / folder / path.name for path in paths]
        found = run([*there, there[0]])
        assert (found.n_computed, found.digests) == (0, (*first.digests, first.digests[0]))
        assert np.array_equal(found.rows[8], first.rows[0])
    assert len(decoded) == 8


def test_a_lost_record_of_digests_costs_a_reading_of_the_audio(run, decoded):
    (record,) = run().place.parent.glob("audio-*.json")
    for damage in (record.unlink, lambda: record.write_text('{"files": {"0.ogg": 1}}')):
        damage()
        assert run().available.all()
    assert len(decoded) == 8
    assert record.stat().st_size > 500


def test_torch_keeps_its_threads_and_the_seeded_random_numbers_their_state(run):
    import random

    random.seed(0)
    state, n_threads = random.getstate(), torch.get_num_threads()
    run(workers=2)
    assert (random.getstate(), torch.get_num_threads()) == (state, n_threads)


# Audio that changes


def test_a_changed_file_alone_is_computed_again_and_open_readers_keep_theirs(paths, run, decoded):
    before = run()
    stored = before.rows[:]
    write_tone(paths[3], hertz=3000)
    decoded.clear()
    after = run()
    assert decoded == ["3.ogg"]
    assert [a == b for a, b in zip(before.digests, after.digests, strict=True)] == [row != 3 for row in range(8)]
    assert not np.array_equal(after.rows[3], stored[3])
    assert np.array_equal(before.rows[:], stored)


def test_a_file_replaced_by_one_of_its_size_and_modification_time_is_noticed(paths, run):
    before = run()
    status, content = paths[3].stat(), bytearray(paths[3].read_bytes())
    content[-1] ^= 1
    paths[3].write_bytes(content)
    os.utime(paths[3], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert run(workers=1).digests[3] != before.digests[3]


@pytest.mark.parametrize(
    "change", [touch, lambda path: path.chmod(0o600), lambda path: path.with_suffix(".b").hardlink_to(path)]
)
def test_a_touched_file_is_read_once_and_not_computed_again(paths, run, decoded, monkeypatch, change):
    run()
    change(paths[3])
    read, original = [], extract_module._read
    monkeypatch.setattr(extract_module, "_read", lambda path: read.append(path) or original(path))
    for _ in range(2):
        assert run().n_computed == 0
    assert read == [paths[3]]
    assert len(decoded) == 8


def test_folders_that_swap_names_keep_their_features_apart_though_sizes_and_times_are_equal(tmp_path, run):
    folders = tmp_path / "a", tmp_path / "b"
    for folder, hertz in zip(folders, (300, 3000), strict=True):
        folder.mkdir()
        soundfile.write(folder / "0.wav", np.sin(np.arange(22_050) * hertz / 7000), 44_100)
        os.utime(folder / "0.wav", ns=(10**18, 10**18))
    files = [folder / "0.wav" for folder in folders]
    assert len({file.stat().st_size for file in files}) == 1
    first = run(files).digests
    swap(*folders)
    assert run(files).digests == first[::-1]
    for _ in range(2):  # each file is known by then under both names
        swap(*folders)
    assert run(files).digests == first[::-1]


def swap(one, other):
    """Give two folders each other's names."""
    one.rename(one.with_name("aside"))
    other.rename(one)
    one.with_name("aside").rename(other)


def test_a_file_that_changes_while_it_is_read_is_noticed_the_next_time(paths, run, monkeypatch):
    read = extract_module._read

    def change(path):
        found = read(path)
        if path == paths[3]:
            write_tone(path, hertz=3000)
        return found

    monkeypatch.setattr(extract_module, "_read", change)
    before = run()
    monkeypatch.undo()
    assert run().digests[3] == hashlib.sha256(paths[3].read_bytes()).hexdigest() != before.digests[3]


# Damage of the cache


def test_what_is_damaged_is_computed_again_and_stored_unless_its_audio_changed(paths, run):
    found = run()
    stored, contents = found.rows[:], {file: file.read_bytes() for file in found.place.glob("*.npy")}
    for file in contents:
        file.write_bytes(contents[file][:-20] + bytes(20))
    write_tone(paths[3], hertz=3000)
    again = replace(found, rows=CachedRows(found.rows._cache, found.digests, found.rows._restore))
    assert np.array_equal(again.rows[[0, 1]], stored[[0, 1]])
    assert sum(file.read_bytes() == content for file, content in contents.items()) == 2
    with pytest.raises(OSError, match=r"3\.ogg: changed since it was opened"):
        again.rows[3]


# Failures


def test_files_that_cannot_be_opened_are_named_and_the_others_computed(paths, run, tmp_path):
    paths[2].unlink()
    paths[5].rename(tmp_path / "away")
    paths[5].mkdir()
    found = run()
    assert found.unopened == {2: "No such file or directory", 5: "Is a directory"}
    assert (found.n_computed, found.available.sum()) == (6, 6)
    paths[5].rmdir()
    (tmp_path / "away").rename(paths[5])
    assert (run().n_computed, list(run().unopened)) == (1, [2])


def test_a_file_that_is_no_audio_has_a_reason_and_is_tried_again_once_it_changes(paths, run, decoded):
    paths[3].write_bytes(b"not audio")
    for n_computed in (8, 0):
        found = run()
        assert found.n_computed == n_computed
        assert found.unreadable == {3: "not readable as sound (Format not recognised)"}
        assert np.flatnonzero(~found.available).tolist() == [3]
    write_tone(paths[3])
    assert run().unreadable == {}
    assert decoded.count("3.ogg") == 2


def test_a_silent_mono_mix_is_reported_when_it_is_computed_and_when_it_is_cached(paths, run):
    tone = np.sin(np.arange(22_050) / 10)
    soundfile.write(paths[1], np.stack([tone, -tone], axis=1), 44_100, format="WAV", subtype="PCM_16")
    soundfile.write(paths[4], np.zeros(22_050), 44_100, format="WAV", subtype="PCM_16")
    for n_computed in (8, 0):
        found = run()
        assert (found.n_computed, found.silent, found.available.all()) == (n_computed, (1, 4), True)


def test_energies_beyond_float16_are_a_reason(run, monkeypatch):
    monkeypatch.setattr(extract_module, "log_mel", lambda *_: torch.full((32, 128), 1e6))
    assert "overflows float16" in run().unreadable[0]


def test_a_disk_with_too_little_space_is_refused_before_anything_is_computed(run, decoded, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=10_000)
    monkeypatch.setattr(extract_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"8 clips need 66\.6 kB and 10\.0 kB are free.*REPROGRAMMING_CACHE"):
        run()
    assert decoded == []


def test_space_is_counted_for_the_clips_that_the_cache_lacks_and_no_others(paths, run, tmp_path, monkeypatch):
    usage = shutil.disk_usage("/")
    free = iter([usage.free, 20_000, usage.free, 0, 20_000])
    monkeypatch.setattr(extract_module.shutil, "disk_usage", lambda _: usage._replace(free=next(free)))
    run(tones(tmp_path / "others", seconds=0.7))  # of another data set
    with pytest.raises(OSError, match=r"8 clips need 66\.6 kB and 20\.0 kB are free"):
        run()
    run()
    paths[0].parent.rename(tmp_path / "moved")
    there = [tmp_path / "moved" / path.name for path in paths]
    assert run(there).n_computed == 0
    for row in (2, 3, 4):
        write_tone(there[row], hertz=3000 + row)
    with pytest.raises(OSError, match=r"3 clips need 25\.0 kB and 20\.0 kB are free"):
        run([*there, there[3]])


def test_a_disk_that_fills_up_ends_it_and_keeps_what_was_stored(run, monkeypatch):
    write, written = FeatureCache.write, []

    def full(cache, digest, array):
        written.append(digest)
        if len(written) > 3:
            raise OSError("features cannot be written there (No space left on device)")
        write(cache, digest, array)

    monkeypatch.setattr(FeatureCache, "write", full)
    with pytest.raises(OSError, match="No space left"):
        run()
    monkeypatch.undo()
    assert run().n_computed == 5


def test_an_interrupted_pass_goes_on_where_it_was(run, decoded):
    def progress(iterable, /, *, total, label):
        for done, item in enumerate(iterable):
            if done == 3:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        run(progress=progress)
    assert run().available.all()
    assert sorted(decoded) == [f"{row}.ogg" for row in range(8)]


# One file


@contextmanager
def little_memory():
    """Check that what runs inside never has 10 MB more."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def test_a_file_too_large_for_a_clip_is_hashed_and_not_read_into_memory(paths, run, monkeypatch):
    monkeypatch.setattr(audio, "_MOST_BYTES", 20_000_000)
    os.truncate(paths[3], 30_000_000)
    with little_memory():
        found = extract_log_mel(paths[3], FRONT_END)
    assert found.digest == hashlib.sha256(paths[3].read_bytes()).hexdigest()
    assert run(paths[3:4]).unreadable == {0: found.reason}
    with little_memory(), pytest.raises(ValueError, match=r"3\.ogg: too large for a clip, a file of 30 MB"):
        decode(paths[3])
