"""Label-mapping methods: contracts of those that share no source label, names, and a method from outside."""

import numpy as np
import pytest
import torch

from harness.config.components import ASSIGNMENTS
from harness.config.trial import TrialConfig
from harness.models.backbones import load_backbone
from harness.models.build import Target, build_model
from harness.models.label_mapping import MappingTask, method_of
from tests.conftest import LABELS

DISJOINT = ("contiguous", "random", "frequent")


def assign(kind, *, affinity=None, per_label=2, labels=LABELS, source_labels=tuple("abcdefghi")):
    return method_of(kind)(MappingTask(labels, source_labels, per_label, 3, lambda: affinity))


@pytest.mark.parametrize("kind", DISJOINT)
def test_no_source_label_serves_two_labels_and_all_get_as_many_as_there_are(kind):
    affinity = np.random.default_rng(1).random((4, 9))
    assigned = assign(kind, affinity=affinity)
    assert assigned.shape == (4, 2)
    assert len(set(assigned.ravel())) == 8
    assert np.array_equal(assign(kind, affinity=affinity, per_label=3), assigned)


def test_contiguous_runs_in_order():
    assert assign("contiguous").tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_frequent_takes_the_highest_affinities_and_settles_a_conflict_for_the_higher():
    affinity = np.zeros((4, 9))
    affinity[[0, 1, 2, 3], [8, 6, 4, 2]] = 1
    assert assign("frequent", affinity=affinity, per_label=1).ravel().tolist() == [8, 6, 4, 2]
    affinity = np.zeros((4, 9))
    affinity[0, 5], affinity[1, 5], affinity[0, 7] = 0.5, 0.9, 0.1
    assert assign("frequent", affinity=affinity, per_label=1).ravel()[:2].tolist() == [7, 5]


@pytest.mark.parametrize("kind", DISJOINT)
def test_fewer_source_labels_than_labels_are_refused(kind):
    with pytest.raises(ValueError, match="the 4 labels needs a source label of its own, the backbone has 2"):
        assign(kind, source_labels=("a", "b"))


def test_semantic_matches_equal_names_first_then_names_that_contain_all_words():
    sources = ("Electric Bass (pick)", "Accordion", "Tango Accordion", "Synth Bass 1", "banjos", "Cello")
    assert assign("semantic", source_labels=sources).tolist() == [[1, 1], [4, 4], [0, 3], [5, 5]]
    assert assign("semantic", source_labels=sources, per_label=1).tolist() == [[1], [4], [0], [5]]


def test_semantic_refuses_a_label_without_a_namesake():
    with pytest.raises(ValueError, match="no source label named like banjo, bass; choose"):
        assign("semantic", source_labels=("accordion", "cello", "drum"))


def test_semantic_knows_openmics_counterparts_in_audioset():
    indices = tuple(map(str, range(527)))
    assigned = assign("semantic", source_labels=indices, labels=("violin", "bass", "voice"))
    assert assigned.tolist() == [[191, 191], [142, 194], [27, 254]]


def test_semantic_finds_the_general_midi_programs_of_the_built_in_backbone():
    names = load_backbone("ast-nano").source_labels
    assigned = assign("semantic", labels=("piano", "violin", "organ"), per_label=3, source_labels=names)
    assert [{names[i] for i in row} for row in assigned] == [
        {"Acoustic Grand Piano", "Bright Acoustic Piano", "Electric Grand Piano"},
        {"Violin"},
        {"Drawbar Organ", "Percussive Organ", "Rock Organ"},
    ]


def test_a_method_from_outside_is_one_entry_of_the_registry(tiny_backbone, tiny_data):
    ASSIGNMENTS.add("last", lambda task: np.full((len(task.labels), 1), len(task.source_labels) - 1))
    try:
        paths = {"mapper/kind": "many_to_one", "mapper/assignment": "last", "mapper/is_calibrated": True}
        config = TrialConfig.from_paths(paths)
        model = build_model(config, tiny_backbone, Target.of(tiny_data), seed=0, device=torch.device("cpu"))
        assert model.mapper.assignment.tolist() == [[23]] * 4
    finally:
        ASSIGNMENTS.remove("last")
    with pytest.raises(ValueError, match="mapper/assignment='last': must be one of contiguous, random, frequent"):
        TrialConfig.from_paths(paths)
