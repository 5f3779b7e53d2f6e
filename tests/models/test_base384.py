"""The AST of base384's exact geometry, from each format, against transformers': every block, embedding, logits."""

import pytest
import torch
from safetensors.torch import load_file

from harness.models.backbones.ast import GEOMETRIES, AstGeometry
from harness.models.backbones.checkpoints import load_ast
from tests.support.ast_files import check_equal, random_ast, released, set_eps

pytestmark = pytest.mark.drill


@pytest.fixture(scope="module")
def base384(tmp_path_factory):
    """Return one AST of transformers' at its own default geometry, which is base384's, and its directory."""
    model = random_ast(seed=2, std=0.02, num_labels=527)
    directory = tmp_path_factory.mktemp("base384")
    model.save_pretrained(directory)
    return model, directory


@pytest.fixture
def spectrogram():
    """Return a clip's log-mel as AST's own normalisation leaves it: mean 0, standard deviation 0.5."""
    return 0.5 * torch.randn(1, 1024, 128, generator=torch.Generator().manual_seed(3))


def test_a_file_of_hugging_face_s_gives_what_transformers_gives(base384, spectrogram):
    theirs, directory = base384
    ours = load_ast(directory).freeze()
    assert ours.geometry == AstGeometry(layer_norm_eps=1e-12, head_eps=1e-12)
    set_eps(theirs, blocks=1e-12, head=1e-12)  # as its config says, whatever another test has set
    check_equal(ours, theirs, spectrogram)


def test_a_file_of_the_release_gives_what_transformers_gives_with_the_release_s_eps(base384, spectrogram, tmp_path):
    theirs, directory = base384
    torch.save(released(load_file(directory / "model.safetensors")), tmp_path / "audioset_10_10_0.4593.pth")
    ours = load_ast(tmp_path / "audioset_10_10_0.4593.pth").freeze()
    assert ours.geometry == GEOMETRIES["ast-base384"] == AstGeometry(layer_norm_eps=1e-6, head_eps=1e-5)
    set_eps(theirs, blocks=1e-6, head=1e-5)
    check_equal(ours, theirs, spectrogram)
