"""Position embeddings for other lengths and strides: cut from the middle, or interpolated, as the release does."""

import math

import pytest
import torch
from transformers import ASTForAudioClassification

from harness.common.cli import absolute_place
from harness.models.backbones import backbone_digest, load_backbone
from harness.models.backbones.ast import Ast, AstGeometry, fit_positions, refitted
from harness.models.backbones.checkpoints import load_ast, save_ast
from tests.support.ast_files import SMALL, check_equal, random_ast

GRID = (6, 9)


def axis_by_hand(found, wanted):
    """Return for each of the wanted places the two found ones that it lies between, and how far it is from the first.

    Fewer are cut out of the middle. More are spread so that the outer edges of the first and the last patch stay where
    they were, and nothing lies beyond the first or the last patch's centre.
    """
    if wanted <= found:
        return [(found // 2 - wanted // 2 + i, found // 2 - wanted // 2 + i, 0.0) for i in range(wanted)]
    places = [min(max((i + 0.5) * found / wanted - 0.5, 0.0), found - 1.0) for i in range(wanted)]
    return [(math.floor(p), math.ceil(p), p - math.floor(p)) for p in places]


def by_hand(position, grid, wanted):
    """Re-derive the fitted positions, one patch at a time."""
    (rows, columns), tokens = grid, position[0]
    table = {(row, column): tokens[2 + row * columns + column] for row in range(rows) for column in range(columns)}
    fitted = [tokens[0], tokens[1]]
    for low, high, up in axis_by_hand(rows, wanted[0]):
        for left, right, across in axis_by_hand(columns, wanted[1]):
            upper = (1 - across) * table[low, left] + across * table[low, right]
            lower = (1 - across) * table[high, left] + across * table[high, right]
            fitted.append((1 - up) * upper + up * lower)
    return torch.stack(fitted)[None]


@pytest.mark.parametrize("wanted", [(6, 4), (6, 3), (6, 8), (6, 1), (6, 10), (6, 31), (3, 9), (12, 9), (5, 20), (8, 2)])
def test_positions_are_those_of_a_slow_derivation(wanted):
    position = torch.randn(1, 2 + math.prod(GRID), 6)
    fitted = fit_positions(position, GRID, wanted=wanted)
    torch.testing.assert_close(fitted, by_hand(position, GRID, wanted), atol=1e-5, rtol=0)


def test_the_same_grid_keeps_the_positions_and_the_network():
    position = torch.randn(1, 2 + math.prod(GRID), 6)
    assert torch.equal(fit_positions(position, GRID, wanted=GRID), position)
    model = Ast(AstGeometry(embed_dim=32, depth=1, num_heads=2, n_frames=64))
    assert refitted(model, n_frames=64) is model


def test_half_the_length_takes_the_middle_half_of_base384_s_columns():
    """As the release's AudioSet branch does for 5 s: columns 25 to 74 of 101."""
    columns = torch.arange(101.0).repeat(12)
    position = torch.cat([torch.tensor([-2.0, -1.0]), columns])[None, :, None]
    fitted = fit_positions(position, (12, 101), wanted=(12, 50))
    assert fitted[0, :2, 0].tolist() == [-2, -1]
    assert fitted[0, 2:52, 0].tolist() == [*range(25, 75)]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"n_frames": 48}, {"max_length": 48}),
        ({"n_frames": 160}, {"max_length": 160}),
        ({"time_stride": 16}, {"time_stride": 16}),
        ({"time_stride": 5}, {"time_stride": 5}),
        ({"frequency_stride": 12, "n_frames": 200}, {"frequency_stride": 12, "max_length": 200}),
    ],
    ids=["shorter", "longer", "fewer patches", "more patches", "both"],
)
def test_an_ast_for_another_length_is_transformers_with_the_positions_derived_by_hand(tmp_path, ours, theirs):
    trained = random_ast(**SMALL)
    trained.save_pretrained(tmp_path)
    before = load_ast(tmp_path)
    fitted = refitted(before, **ours).freeze()
    other = ASTForAudioClassification(type(trained.config)(**{**SMALL, **theirs})).eval()
    state = trained.state_dict()
    key = "audio_spectrogram_transformer.embeddings.position_embeddings"
    state[key] = by_hand(state[key], before.geometry.grid, fitted.geometry.grid)
    other.load_state_dict(state)
    check_equal(fitted, other, torch.randn(2, fitted.geometry.n_frames, 64))


def test_a_backbone_s_name_may_say_for_how_many_frames(tmp_path):
    trained = Ast(AstGeometry(embed_dim=32, depth=1, num_heads=2, n_mels=32, n_frames=96, n_source_labels=3))
    file = tmp_path / "mine.safetensors"
    save_ast(file, trained, {})
    shorter = load_backbone(f"{file}@48")
    assert shorter.geometry.n_frames == 48 == shorter.front_end.n_frames
    assert shorter.embed(torch.zeros(2, 48, 32)).shape == (2, 32)
    assert not any(parameter.requires_grad for parameter in shorter.parameters())
    assert backbone_digest(shorter) != backbone_digest(load_backbone(str(file)))
    assert backbone_digest(load_backbone(f"{file}@96")) == backbone_digest(load_backbone(str(file)))
    assert load_backbone("ast-nano@128").geometry.n_frames == 128
    with pytest.raises(ValueError, match="n_frames=15: must be at least 16"):
        load_backbone("ast-nano@15")


def test_a_command_s_relative_path_is_made_absolute_and_keeps_its_frames(tmp_path, monkeypatch):
    (tmp_path / "mine.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    assert absolute_place("mine.safetensors", flag="backbone") == str(tmp_path / "mine.safetensors")
    assert absolute_place("mine.safetensors@48", flag="backbone") == f"{tmp_path / 'mine.safetensors'}@48"
    assert absolute_place("ast-base384@48", flag="backbone") == "ast-base384@48"
    assert absolute_place("yours.safetensors@48", flag="backbone") == "yours.safetensors@48"


def test_a_file_whose_name_has_an_at_sign_is_that_file(tmp_path):
    trained = Ast(AstGeometry(embed_dim=32, depth=1, num_heads=2, n_mels=32, n_frames=96, n_source_labels=3))
    save_ast(tmp_path / "mine@48" / "model.safetensors", trained, {})
    assert load_backbone(str(tmp_path / "mine@48")).geometry.n_frames == 96
