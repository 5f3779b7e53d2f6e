"""Parameter counts, against the paper's Table 1."""

import json

import pytest
import torch
from typer.testing import CliRunner

from harness.config.literature import SYSTEMS
from harness.models.backbones.ast import GEOMETRIES, Ast
from harness.models.build import Target, build_model
from harness.params import app, count_systems, meta_model, paper_config
from harness.training.trainer import MeanTeacher
from tests.conftest import LABELS, TINY

AT_BASE384 = {
    "none": 16_916,
    "cnn_baseline": 16_524,
    "noise": 147_988,
    "cnn": 16_936,
    "random_forest": None,
    "finetune": 86_204_180,
    "mean_teacher": 55_336,
    "unet": 18_201,
}


@pytest.fixture(scope="module")
def counts():
    return {count.name: count for count in count_systems("ast-base384")}


def shown(*flags):
    result = CliRunner().invoke(app, list(flags))
    assert result.exit_code == 0, result.output
    return result.output


def test_the_counts_are_those_of_the_paper_where_they_can_be(counts):
    assert {name: count.trainable for name, count in counts.items()} == AT_BASE384
    assert list(counts) == list(SYSTEMS)


def test_every_difference_from_the_paper_has_a_reason_and_nothing_else_has(counts):
    for count in counts.values():
        is_papers = count.trainable is not None and count.trainable == count.paper_count
        assert is_papers == (not count.note)
        assert count.paper_millions == SYSTEMS[count.name].params_millions


def test_the_notes_name_the_counts_that_explain_the_difference(counts):
    assert counts["finetune"].paper_count - counts["finetune"].trainable == 1_538_000 + 131_072
    assert 1024 * 128 * 20 + 20 == 2_621_460  # the released CNN baseline is one linear layer
    for name, parts in {"finetune": ("1,538,000", "131,072"), "cnn_baseline": ("2,621,460",)}.items():
        assert all(part in counts[name].note for part in parts)


def test_the_paper_counts_the_mean_teacher_twice(counts):
    with torch.device("meta"):
        student = meta_model(paper_config("mean_teacher"), Ast(TINY), n_labels=20)
        teacher = MeanTeacher(student, weight=3.0, decay=0.999, seed=0).model
    both = sum(p.numel() for model in (student, teacher) for p in model.parameters())
    assert both == counts["mean_teacher"].paper_count
    assert not any(p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name != "random_forest"])
def test_what_is_counted_is_what_a_trial_trains(name, tiny_backbone, tiny_data):
    config = paper_config(name)
    model = build_model(config, tiny_backbone, Target.of(tiny_data), seed=0, device=torch.device("cpu"))
    with torch.device("meta"):
        counted = meta_model(config, Ast(TINY).freeze(), n_labels=len(LABELS))
    assert all(p.is_meta for p in counted.parameters())
    assert {n: p.shape for n, p in counted.named_parameters() if p.requires_grad} == {
        n: p.shape for n, p in model.named_parameters() if p.requires_grad
    }
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in counted.parameters())


def test_another_backbone_is_not_compared_with_the_papers():
    counts = {count.name: count for count in count_systems("ast-nano")}
    dim = GEOMETRIES["ast-nano"].embed_dim
    assert counts["none"].trainable == 2 * dim + (dim + 1) * 20
    for name, count in counts.items():
        assert (count.paper_millions is None) == (name not in ("mean_teacher", "cnn_baseline"))
    assert counts["cnn_baseline"].trainable == AT_BASE384["cnn_baseline"]
    assert counts["finetune"].note == ""


def test_an_unknown_backbone_names_the_known_ones():
    result = CliRunner().invoke(app, ["--backbone", "ast-huge"])
    assert result.exit_code == 2
    assert "backbone='ast-huge': must be one of ast-base384, " in result.stderr
    with pytest.raises(ValueError, match="must be one of ast-base384"):
        count_systems("ast-huge")


def test_the_table_shows_our_count_beside_the_papers_and_with_verbose_every_tensor():
    line = next(line for line in shown().splitlines() if "AST-TL" in line)
    assert "86,204,180" in line
    assert "87.873" in line
    text = shown("--verbose", "--backbone", "ast-nano")
    assert "reprogrammer.pattern" in text
    assert "256 x 128" in text
    assert text.count("mapper.linear.weight") == 5


def test_json_holds_the_tensors_if_asked():
    plain = json.loads(shown("--json"))
    assert plain["backbone"] == "ast-base384"
    assert {s["name"]: s["trainable"] for s in plain["systems"]} == AT_BASE384
    assert "tensors" not in plain["systems"][0]
    for system in json.loads(shown("--json", "--verbose"))["systems"]:
        assert sum(tensor["count"] for tensor in system["tensors"]) == (system["trainable"] or 0)
