"""What a node of a cluster answers when it is asked what it finds by another one's paths."""

import pytest

from harness.data.extraction import audio_digest
from harness.features import machines
from tests.support.mounts import read_only


@pytest.fixture
def clips(tmp_path):
    found = [tmp_path / f"{row}.ogg" for row in range(40)]
    for row, clip in enumerate(found):
        clip.write_bytes(b"%02d" % row)
    return found


def test_a_node_with_the_same_audio_and_without_the_token_has_a_cache_of_its_own(clips):
    assert machines._find("no such token", machines.samples_of(clips)) == (False, "")


def test_a_node_with_other_audio_of_the_same_size_says_which_clip_it_is(clips):
    samples = machines.samples_of(clips)
    clips[4].write_bytes(b"44")
    assert machines._find("token", samples)[1] == f"{clips[4]} holds other audio"


def test_the_samples_are_spread_over_all_clips_and_leave_out_what_cannot_be_opened_here(clips):
    clips[4].unlink()
    samples = machines.samples_of(clips)
    assert samples == tuple((clip, audio_digest(clip)) for clip in clips[::2] if clip != clips[4])
    assert machines.samples_of([]) == ()


def test_a_cache_that_nobody_can_write_is_an_error_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("REPROGRAMMING_CACHE", str(tmp_path / "disk"))
    expected = r"cannot be written there \(Read-only file system\).*REPROGRAMMING_CACHE"
    with read_only(tmp_path / "disk"), pytest.raises(OSError, match=expected), machines._token():
        pytest.fail("a file that cannot be there was given a name")
