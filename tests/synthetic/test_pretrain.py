"""Pre-training: the corpus, the augmentation, and the weights that come out."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from harness import pretrain
from harness.common.files import sha256_of
from harness.common.progress import quiet
from harness.models.backbones import load_backbone
from harness.models.backbones.ast import GEOMETRIES, Ast
from harness.models.backbones.checkpoints import load_ast
from harness.synthetic import corpus as pretraining
from harness.synthetic.corpus import Corpus, draw_clip, prepare_corpus
from harness.synthetic.general_midi import PERCUSSION, TAGS
from harness.synthetic.render import SAMPLE_RATE
from tests.support.ast_files import metadata_of

NANO = GEOMETRIES["ast-nano"]
N_FRAMES = 249  # frames of 10 s


@pytest.fixture
def soundfont(tmp_path, monkeypatch):
    """A SoundFont in name only: rendering is replaced by noise that depends on the piece."""

    def noise(_, pieces):
        lengths = [sum(note.pitch for part in piece.parts for note in part.notes) for piece in pieces]
        return [np.random.default_rng(n).standard_normal(10 * SAMPLE_RATE).astype("f4") / 10 for n in lengths]

    monkeypatch.setattr(pretraining, "SHARD_CLIPS", 2)
    monkeypatch.setattr(pretraining, "render", noise)
    path = tmp_path / "test.sf2"
    path.write_bytes(b"no SoundFont")
    return path


def prepare(soundfont, *, split="train", n_clips=2, seed=0, progress=quiet):
    return prepare_corpus(
        soundfont,
        NANO.front_end,
        split=split,
        n_clips=n_clips,
        seed=seed,
        cache=soundfont.parent,
        workers=1,
        progress=progress,
    )


def corpus_of(n_clips, seed=0):
    """Clips whose first tag is a loud low band and whose second is a loud high band."""
    rng = np.random.default_rng(seed)
    tags = np.zeros((n_clips, len(TAGS)), np.uint8)
    tags[:, :2] = rng.random((n_clips, 2)) < 0.5
    features = rng.normal(-8, 1, (n_clips, 256, 128))
    features[:, :, :64] += 8 * tags[:, 0, None, None]
    features[:, :, 64:] += 8 * tags[:, 1, None, None]
    features[:, N_FRAMES:] = 0
    return Corpus(features.astype(np.float16), tags, digest=f"{n_clips}-{seed}")


def test_a_clip_s_tags_name_exactly_the_programs_of_its_parts():
    for seed in range(50):
        piece, tags = draw_clip(np.random.default_rng(seed))
        assert set(np.flatnonzero(tags)) == {part.program for part in piece.parts}


def test_every_tag_occurs_about_as_often_as_the_others_and_percussion_more_often():
    counts = sum(draw_clip(np.random.default_rng((0, 0, row)))[1].astype(int) for row in range(500))
    assert counts[:PERCUSSION].min() >= 2
    assert counts[:PERCUSSION].max() <= 30
    assert counts[PERCUSSION] / 500 == pytest.approx(0.3, abs=0.05)


def test_a_larger_corpus_begins_with_the_clips_of_a_smaller_one_and_held_out_clips_are_others(soundfont):
    small, large = prepare(soundfont, n_clips=2), prepare(soundfont, n_clips=4)
    np.testing.assert_array_equal(large.features[:2], small.features)
    assert large.digest != small.digest
    held_out, other = prepare(soundfont, split="held-out"), prepare(soundfont, seed=1)
    assert not any(np.array_equal(a, b) for a in large.features for b in (*held_out.features, *other.features))


def test_a_stored_shard_is_not_rendered_again(soundfont):
    first = prepare(soundfont)

    def fail(*_, **__):
        pytest.fail("rendered again")

    assert prepare(soundfont, progress=fail).digest == first.digest


def test_features_end_in_padding_and_are_finite(soundfont):
    features = prepare(soundfont).features.astype(np.float32)
    assert np.isfinite(features).all()
    assert (features[:, N_FRAMES:] == 0).all()
    assert (features[:, :N_FRAMES] != 0).mean() > 0.99


@pytest.mark.parametrize("n_clips", [0, 3])
def test_a_corpus_of_broken_shards_is_refused(soundfont, n_clips):
    with pytest.raises(ValueError, match=f"train clips={n_clips}: must be a positive multiple of 2"):
        prepare(soundfont, n_clips=n_clips)


def test_augmentation_keeps_shape_and_padding_and_only_adds_tags():
    spectrograms, tags = corpus_of(32).rows(np.arange(32))
    varied, varied_tags = pretrain.augment(spectrograms, tags, torch.Generator().manual_seed(0))
    assert varied.shape == spectrograms.shape
    assert torch.isfinite(varied).all()
    assert torch.equal(varied[:, N_FRAMES:], pretrain.normalise(spectrograms[:, N_FRAMES:]))
    assert (varied_tags >= tags).all()
    assert (varied_tags > tags).any()
    assert set(varied_tags.unique().tolist()) <= {0.0, 1.0}


def test_mixing_adds_energies():
    energies = torch.tensor([2.0, 30.0]).reshape(2, 1, 1)
    mixed = pretrain.mix(energies.log(), torch.tensor([10.0, 1.0]).log().reshape(2, 1, 1)).exp()
    torch.testing.assert_close(mixed, torch.tensor([2.0 + 3.0, 30.0 + 2.0]).reshape(2, 1, 1))


def test_training_learns_and_the_same_seed_learns_the_same():
    train, held_out = corpus_of(192), corpus_of(96, seed=1)
    tiny = replace(NANO, embed_dim=32, depth=1, num_heads=2, frequency_stride=32, time_stride=32)
    scores, weights = [], []
    for _ in range(2):
        torch.manual_seed(0)
        model = Ast(tiny)
        untrained = pretrain.held_out_map(model, held_out)
        assert list(pretrain.pretrain(model, train, epochs=9, seed=0)) == [*range(1, 10)]
        scores.append(pretrain.held_out_map(model, held_out))
        weights.append(model.head.weight.detach().clone())
    assert scores[0] > max(0.9, untrained + 0.1)
    assert torch.equal(*weights)


def test_the_map_written_with_the_weights_is_that_of_the_weights_as_written(tmp_path, monkeypatch):
    def sum_of_weights(model, _):
        return float(model.head.weight.detach().double().sum())

    monkeypatch.setattr(pretrain, "held_out_map", sum_of_weights)
    file, model = tmp_path / "nano.safetensors", Ast(NANO)
    score = pretrain.write(file, model, corpus_of(4), {"seed": "7"})
    assert score == sum_of_weights(load_ast(file), None)
    assert score != sum_of_weights(model, None)  # half precision changed it
    assert metadata_of(file)["held_out_map"] == f"{score:.4f}"
    assert metadata_of(file)["seed"] == "7"
    assert file.stat().st_size < 3e6
    assert [entry.name for entry in tmp_path.iterdir()] == [file.name]


def test_the_command_writes_weights_with_their_provenance(soundfont, tmp_path):
    output = tmp_path / "nano.safetensors"
    options = {"--clips": 2, "--held-out-clips": 2, "--epochs": 1, "--workers": 1, "--cache": tmp_path}
    arguments = [str(word) for option in options.items() for word in option]
    app = pretrain.typer.Typer()
    app.command()(pretrain.main)
    result = CliRunner().invoke(
        app, ["--soundfont", str(soundfont), "--output", str(output), *arguments], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert "held-out mAP" in result.stdout
    metadata = metadata_of(output)
    assert metadata["soundfont_sha256"] == sha256_of(soundfont)
    assert "--soundfont test.sf2 --clips 2" in metadata["command"]
    assert metadata["epochs_done"] == "1"
    assert metadata["tags"].splitlines() == list(TAGS)


def test_the_shipped_weights_are_small_and_carry_their_provenance():
    model = load_backbone("ast-nano")
    assert model.geometry == NANO
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_000_000
    file = next(pretraining.Path(pretrain.__file__).parent.glob("models/backbones/weights/ast-nano.safetensors"))
    assert file.stat().st_size < 3e6
    metadata = metadata_of(file)
    assert float(metadata["held_out_map"]) > 0.2
    assert metadata["tags"].splitlines() == list(TAGS)
    assert {"command", "seed", "corpus_digest", "soundfont", "soundfont_sha256", "versions"} <= set(metadata)
    assert json.loads(metadata["geometry"])["n_source_labels"] == len(TAGS)
