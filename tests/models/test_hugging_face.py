"""Files of Hugging Face's that are not those of an AST of their config: refused, by the names that they use."""

import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.models.backbones.checkpoints import geometry_of, load_ast
from tests.support.ast_files import SMALL, random_ast


@pytest.fixture
def file(tmp_path):
    """Return the weights of an AST, beside its config."""
    random_ast(**SMALL).save_pretrained(tmp_path)
    return tmp_path / "model.safetensors"


_PREFIX = "audio_spectrogram_transformer."


@pytest.mark.parametrize(
    "name",
    [
        "audio_spectrogram_transformer.layernorm.weight",
        "audio_spectrogram_transformer.embeddings.position_embeddings",
        "audio_spectrogram_transformer.encoder.layer.2.output.dense.bias",
        "classifier.layernorm.weight",
    ],
)
def test_a_file_of_hugging_face_s_says_by_its_own_names_what_it_lacks_what_is_unknown_and_what_is_odd(file, name):
    tensors = load_file(file)
    others = {key: tensor for key, tensor in tensors.items() if key != name}
    for changed, problem in [
        (others, f"missing {name}"),
        ({**tensors, f"{name}.extra": torch.zeros(1)}, f"unknown {name}.extra"),
        ({**others, name: torch.zeros(7)}, f"{name} is (7,), must be {tuple(tensors[name].shape)}"),
    ]:
        save_file(changed, file)
        with pytest.raises(ValueError, match=re.escape(f"1 tensors do not fit the geometry: {problem}") + "$"):
            load_ast(file)


def test_a_file_without_a_source_head_says_what_it_lacks(file):
    save_file({key: tensor for key, tensor in load_file(file).items() if not key.startswith("classifier.")}, file)
    with pytest.raises(ValueError, match=r"model\.safetensors: 4 tensors .* missing classifier\.layernorm\.weight; "):
        load_ast(file)


_ATTENTION = f"{_PREFIX}encoder.layer.0.attention.attention"


@pytest.mark.parametrize(
    ("change", "problems"),
    [
        ({"query.weight": (48, 40)}, ["query.weight is (48, 40), must be (48, 48)"]),
        (
            {"query.weight": (40, 48), "key.weight": (56, 48)},  # of the right shape once they are fused
            ["query.weight is (40, 48), must be (48, 48)", "key.weight is (56, 48), must be (48, 48)"],
        ),
        ({"value.bias": ()}, ["value.bias is (), must be (48,)"]),
    ],
)
def test_a_file_of_hugging_face_s_with_odd_attention_is_refused_before_it_is_fused(file, change, problems):
    odd = {f"{_ATTENTION}.{name}": torch.zeros(shape) for name, shape in change.items()}
    save_file({**load_file(file), **odd}, file)
    said = "; ".join(f"{_ATTENTION}.{problem}" for problem in problems)
    with pytest.raises(ValueError, match=re.escape(f"{len(problems)} tensors do not fit the geometry: {said}") + "$"):
        load_ast(file)


def test_of_many_tensors_that_do_not_fit_five_are_named_and_all_are_counted(file):
    save_file({key: tensor for key, tensor in load_file(file).items() if ".attention.attention." not in key}, file)
    with pytest.raises(ValueError, match=r"18 tensors do not fit the geometry: missing .*; and 13 more$") as raised:
        load_ast(file)
    assert all(f"missing {_ATTENTION}.{part}.weight" in str(raised.value) for part in ("query", "key", "value"))
    assert str(raised.value).count("missing") == 5


@pytest.mark.parametrize("name", ["foo.bar", "classifier.extra.weight", "norm.weight"])
def test_a_file_of_hugging_face_s_with_a_tensor_that_no_ast_has_is_refused(file, name):
    save_file({**load_file(file), name: torch.zeros(1)}, file)
    with pytest.raises(ValueError, match=f"1 tensors do not fit the geometry: unknown {name}"):
        load_ast(file)


def test_a_name_of_ours_does_not_stand_for_one_of_hugging_face_s(file):
    tensors = load_file(file)
    tensors["norm.weight"] = tensors.pop(f"{_PREFIX}layernorm.weight")
    save_file(tensors, file)
    with pytest.raises(ValueError, match=rf"missing {_PREFIX}layernorm\.weight; unknown norm\.weight$"):
        load_ast(file)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (torch.zeros(48, dtype=torch.int64), "holds int64, must hold floating-point numbers"),
        (torch.zeros(48, dtype=torch.bool), "holds bool, must hold floating-point numbers"),
        (torch.full((48,), torch.nan), "holds NaN or infinity"),
        (torch.full((48,), 1e300, dtype=torch.float64), "holds NaN or infinity"),
    ],
)
def test_values_that_no_weights_have_are_refused(file, values, problem):
    save_file({**load_file(file), f"{_PREFIX}layernorm.weight": values}, file)
    with pytest.raises(ValueError, match=rf"1 tensors do not fit the geometry: {_PREFIX}layernorm\.weight {problem}$"):
        load_ast(file)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_model_without_a_source_head_is_called_so(file, name):
    bodies = {key.removeprefix(_PREFIX): value for key, value in load_file(file).items() if key.startswith(_PREFIX)}
    file.unlink()
    (save_file if name == file.name else torch.save)(bodies, file.with_name(name))
    for reads in (load_ast, lambda place: geometry_of(str(place))):
        with pytest.raises(ValueError, match=rf"{re.escape(name)}: an ASTModel, which has no source head; .* mappers"):
            reads(file.parent)
