"""Sound files are decoded whole; what is no whole sound file is refused by name."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from harness.features import audio
from harness.features.audio import decode, decode_bytes, decode_vorbis
from tests.support.clips import noise


@pytest.mark.parametrize("quality", [0.0, 1.0])
@pytest.mark.parametrize(("sample_rate", "channels"), [(8000, 1), (22050, 2), (44100, 2), (44100, 3), (96000, 8)])
def test_ogg_vorbis_is_decoded_as_libvorbis_does(tmp_path, sample_rate, channels, quality):
    path = tmp_path / "a b's %C3 é.ogg"
    sound = 0.3 * noise(1.2345, channels=channels, sample_rate=sample_rate)
    sound[len(sound) // 3 : len(sound) // 2] = 0
    soundfile.write(path, sound, sample_rate, format="OGG", subtype="VORBIS", compression_level=quality)
    expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
    found, found_rate = decode(path)
    assert found_rate == sample_rate
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_only_ogg_vorbis_goes_to_the_faster_decoder(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(audio, "decode_vorbis", lambda content: called.append(len(content)) or decode_vorbis(content))
    soundfile.write(tmp_path / "a.ogg", noise(1), 16_000, format="OGG", subtype="VORBIS")
    decode(tmp_path / "a.ogg")
    assert called == [(tmp_path / "a.ogg").stat().st_size]
    for name, sound_format, subtype in (("a", "OGG", "OPUS"), ("b", "FLAC", "PCM_16"), ("c", "WAV", "PCM_16")):
        soundfile.write(tmp_path / name, noise(1), 16_000, format=sound_format, subtype=subtype)
        decode(tmp_path / name)
    assert len(called) == 1


def test_what_the_faster_decoder_cannot_do_the_other_one_does(music, monkeypatch):
    expected = decode(music)[0]
    for given in (np.zeros((0, 0), np.float32), expected[:-1], expected[:, :1]):
        monkeypatch.setattr(audio, "decode_vorbis", lambda _, given=given: given)
        np.testing.assert_allclose(decode(music)[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused(tmp_path, bad):
    samples = noise(1, channels=2)
    samples[77, 1] = bad
    path = tmp_path / "a.ogg"
    soundfile.write(path, samples, 16000, format="WAV", subtype="FLOAT")  # an Ogg Vorbis file cannot hold NaN
    with pytest.raises(ValueError, match=rf"a\.ogg: sample 77 is \[.*, {bad}\]; samples must be finite"):
        decode(path)


def test_no_samples_are_refused(tmp_path):
    soundfile.write(tmp_path / "a.ogg", np.zeros((0, 1)), 16000, format="OGG", subtype="VORBIS")
    with pytest.raises(ValueError, match=r"a\.ogg: "):
        decode(tmp_path / "a.ogg")
    soundfile.write(tmp_path / "b.ogg", np.zeros((0, 1)), 16000, format="WAV")
    with pytest.raises(ValueError, match=r"b\.ogg: holds no samples"):
        decode(tmp_path / "b.ogg")


@pytest.mark.parametrize("content", [b"Og", b"<html>not found</html>" * 100, bytes(5000), b"RIFF" + bytes(100)])
def test_a_file_that_is_no_sound_is_refused(tmp_path, content):
    (tmp_path / "a.ogg").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.ogg: not readable as sound \([^<>]*[^.]\)$"):
        decode(tmp_path / "a.ogg")
    (tmp_path / "a.ogg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.ogg: empty, a file of 0 bytes"):
        decode(tmp_path / "a.ogg")


@pytest.mark.parametrize("kept", [0.001, 0.1, 0.5, 0.9, 0.9999])
def test_a_truncated_file_is_refused(tone, kept):
    whole = tone.read_bytes()
    decode(tone)
    tone.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match=r"tone\.ogg: truncated, its \d+ bytes end before the last Ogg page does"):
        decode(tone)


@pytest.mark.parametrize(
    ("sample_rate", "channels", "seconds", "length"),
    [
        (44_100, 2, 730, r"12\.2 min and 258 MB decoded"),
        (192_000, 8, 42, r"0\.7 min and 258 MB decoded"),
        (100, 1, 3_601, r"60\.0 min and 1 MB decoded"),  # 231 MB at 16 kHz
    ],
)
def test_a_recording_among_the_clips_is_refused_before_it_is_decoded(
    tmp_path, monkeypatch, sample_rate, channels, seconds, length
):
    path = tmp_path / "a.ogg"
    soundfile.write(path, np.zeros((1, channels), np.int16), sample_rate, format="WAV", subtype="PCM_U8")
    n_bytes = seconds * sample_rate * channels
    content = bytearray(path.read_bytes()[:44])
    content[4:8], content[40:44] = (n_bytes + 36).to_bytes(4, "little"), n_bytes.to_bytes(4, "little")
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(ValueError, match=rf"clip: too long for a clip, {length}.* at most 60 min and 256 MB .*: cut"):
        decode_bytes(bytes(content) + bytes(n_bytes), source="clip")


CASES = Path(__file__).parents[1] / "fixtures"


def sound_bytes(sound_format, subtype="PCM_16", *, samples=None, sample_rate=16_000):
    stream = io.BytesIO()
    samples = noise(1, channels=2) if samples is None else samples
    soundfile.write(stream, samples, sample_rate, format=sound_format, subtype=subtype)
    return stream.getvalue()


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "ULAW"])
@pytest.mark.parametrize("sound_format", ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "VOC"])
def test_a_cut_file_names_the_frames_that_its_header_promises(sound_format, subtype):
    if (sound_format, subtype) == ("VOC", "PCM_24"):
        return
    whole = sound_bytes(sound_format, subtype)
    assert len(decode_bytes(whole, source="clip")[0]) == 16_000
    for n_cut in (7, len(whole) // 2):
        with pytest.raises(ValueError, match=r"clip: truncated, \d+ frames are there"):
            decode_bytes(whole[:-n_cut], source="clip")


@pytest.mark.parametrize("sound_format", ["NIST", "AVR", "CAF", "PAF"])
def test_a_container_whose_cut_nothing_shows_is_refused(sound_format):
    with pytest.raises(ValueError, match=f"clip: a {sound_format} file.* convert it to one of WAV"):
        decode_bytes(sound_bytes(sound_format), source="clip")


@pytest.mark.parametrize("size", [b"\xff\xff\xff\xff", b"\x00\xf0\xff\x7f"])
def test_a_streamed_wav_file_is_read(size):
    content = sound_bytes("WAV")
    assert len(decode_bytes(content[:40] + size + content[44:], source="clip")[0]) == 16_000


@pytest.mark.parametrize("stated", [2_000_000_000, 768_001])
def test_an_implausible_sample_rate_is_refused(stated):
    content = sound_bytes("WAV")
    content = content[:24] + stated.to_bytes(4, "little") + content[28:]
    with pytest.raises(ValueError, match=f"implausible sample rate, {stated} Hz"):
        decode_bytes(content, source="clip")


@pytest.mark.parametrize(
    ("name", "n_frames"),
    [
        ("noxing_cbr.mp3", 89_856),
        ("unknown_length.flac", 88_200),
        ("theora_first.ogg", 88_200),
        ("oggflac.ogg", 88_200),
    ],
)
def test_whole_files_that_state_no_length_or_hold_more_than_sound_are_read(name, n_frames):
    samples, sample_rate = decode(CASES / name)
    assert (samples.shape, samples.dtype, sample_rate) == ((n_frames, 2), np.float32, 44_100)
    assert 0.01 < np.abs(samples).max() <= 1.1


@pytest.mark.parametrize("name", ["unknown_length.flac", "oggflac.ogg", "theora_first.ogg"])
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_such_files_are_refused_if_cut_or_damaged(name, damage):
    content = bytearray((CASES / name).read_bytes())
    if damage == "cut":
        del content[int(0.9 * len(content)) :]
    else:
        content[len(content) // 2] ^= 4
    with pytest.raises(ValueError, match=r"clip: (truncated|damaged|not readable as sound)"):
        decode_bytes(bytes(content), source="clip")


def test_a_cut_mp3_file_with_its_length_is_refused():
    content = sound_bytes("MP3", "MPEG_LAYER_III")
    assert len(decode_bytes(content, source="clip")[0]) == 16_000
    with pytest.raises(ValueError, match=r"clip: damaged, \d+ of its 16000 samples"):
        decode_bytes(content[: len(content) // 2], source="clip")


def pages_in(content):
    """Return the bytes of each page."""
    return [content[page.start : page.end] for page in audio.pages_of(content)]


def sealed(page):
    """Return a page with the checksum that its bytes have."""
    return page[:22] + audio.checksum(page) + page[26:]


@pytest.mark.parametrize("bit", [0, 3, 7])
@pytest.mark.parametrize("number", [0, 1, 2, 3, -1])
def test_a_page_with_a_changed_bit_is_refused_wherever_it_is(like_openmic, number, bit):
    """Decoders drop such a page; without the first or last one of sound, a clip would be shorter without an error."""
    pages = pages_in(like_openmic.read_bytes())
    start, damaged = len(b"".join(pages[:number])), bytearray(pages[number])
    damaged[len(damaged) // 2] ^= 1 << bit
    pages[number] = bytes(damaged)
    with pytest.raises(ValueError, match=rf"clip: damaged, the Ogg page at byte {start} of its \d+ fails its checksum"):
        decode_bytes(b"".join(pages), source="clip")


@pytest.mark.parametrize("damage", ["swapped", "repeated instead of the next", "lost", "the first of sound lost"])
def test_pages_that_are_out_of_order_are_refused(music, damage):
    pages = pages_in(music.read_bytes())
    at = 2 if damage == "the first of sound lost" else 5
    pages[at : at + 2] = {"swapped": [pages[6], pages[5]], "repeated instead of the next": [pages[5], pages[5]]}.get(
        damage, [pages[at + 1]]
    )
    found, wanted = {"repeated instead of the next": (5, 6)}.get(damage, (at + 1, at))
    with pytest.raises(ValueError, match=rf"clip: damaged, .* is number {found} of its stream, where number {wanted} "):
        decode_bytes(b"".join(pages), source="clip")


def test_recordings_one_after_another_are_no_clip(music, tone):
    first, second = tone.read_bytes(), music.read_bytes()
    with pytest.raises(ValueError, match=rf"clip: several recordings .* from byte {len(first)}; a clip is one"):
        decode_bytes(first + second, source="clip")
    for n_kept in (4, 27, 40):  # of the second one's first page
        with pytest.raises(ValueError, match=r"clip: truncated"):
            decode_bytes(first + second[:n_kept], source="clip")
    assert len(decode_bytes(first + b"TAG and no page", source="clip")[0]) == len(decode(tone)[0])


def test_a_page_whose_header_is_gone_is_damage_and_no_truncation(music):
    pages = pages_in(music.read_bytes())
    start, content = len(b"".join(pages[:6])), bytearray(b"".join(pages))
    content[start : start + 30] = bytes(30)
    with pytest.raises(ValueError, match=rf"clip: damaged, no Ogg page begins at byte {start} of its {len(content)}"):
        decode_bytes(bytes(content), source="clip")


def test_packets_that_cannot_be_decoded_are_missed_though_their_page_is_whole(music):
    pages = pages_in(music.read_bytes())
    start = audio.HEADER_BYTES + pages[6][26]  # of what follows the lengths
    pages[6] = sealed(pages[6][:start] + bytes([1]) * (len(pages[6]) - start))
    with pytest.raises(ValueError, match=r"clip: damaged, \d+ of its 441000 samples can be decoded"):
        decode_bytes(b"".join(pages), source="clip")
