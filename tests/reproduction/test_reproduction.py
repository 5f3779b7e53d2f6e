"""Plans of a reproduction, and real runs that are killed and continue."""

import json
import signal
import sys
from dataclasses import replace

import pytest

from harness.common.records import from_json, to_json
from harness.config.literature import SYSTEMS
from harness.config.study import DataSpec
from harness.reproduction.spec import Reproduction, describe_conditions
from tests.support.studies import make_workshop, wait_for


def asked(*, source="demo", **flags):
    settings = {"systems": None, "seeds": None, "trials": None, "epochs": None, "preset": None, "name": None, **flags}
    spec = DataSpec(source=source, demo_clips=settings.pop("demo_clips", None), fraction=settings.pop("fraction", 1.0))
    return Reproduction.of(data=spec, storage="studies", **{"backbone": "ast-nano", **settings})


def test_on_the_demo_every_system_has_a_small_study_and_the_ceiling_another():
    wanted = asked()
    assert wanted.systems == tuple(SYSTEMS)
    assert wanted.parts == (*SYSTEMS, "ceiling")
    assert (wanted.name, wanted.trials, wanted.epochs, wanted.seeds) == ("reproduce-demo", 8, 12, 3)
    assert wanted.spec("ceiling").data.reveals_all
    assert wanted.spec("ceiling").space == "none"
    assert not any(wanted.spec(system).data.reveals_all for system in SYSTEMS)


def test_on_other_data_each_system_is_the_papers_configuration_for_the_papers_epochs():
    wanted = asked(source="openmic")
    assert wanted.parts == tuple(SYSTEMS)
    assert (wanted.name, wanted.trials, wanted.epochs, wanted.seeds) == ("reproduce-openmic", 1, 50, 10)
    assert asked(source="openmic", preset="released").epochs == 30
    assert asked(source="openmic", backbone=None).spec("unet").backbone == "ast-base384"
    assert asked(backbone=None).backbone == "ast-nano"


def test_vggish_systems_keep_their_own_recipe_and_epochs():
    wanted = asked(preset="released", epochs=7)
    for system in SYSTEMS:
        spec = wanted.spec(system)
        epochs = {"mean_teacher": 100, "random_forest": 1}.get(system, 7)
        assert (spec.epochs, spec.preset) == (epochs, "released" if epochs == 7 else None)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"systems": "unet,vae"}, "systems='vae': must be some of none, cnn_baseline"),
        ({"seeds": 0}, "seeds=0: must be at least 1"),
        ({"preset": "mine"}, "preset='mine': must be one of paper, released"),
        ({"name": "a/b"}, "name='a/b.none': letters, digits"),
        ({"source": "openmic", "demo_clips": 90}, "demo-clips=90: cannot go with --data"),
    ],
)
def test_a_wrong_value_is_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        asked(**flags)


def test_a_reproduction_grows_in_seeds_and_systems_and_changes_in_nothing_else():
    before = asked(systems="unet", seeds=1)
    assert from_json(Reproduction, to_json(before)) == before
    assert asked(systems="none", seeds=3).grown_from(before).systems == ("none", "unet")
    with pytest.raises(ValueError, match=r"epochs=5: reproduction reproduce-demo in .* began with 12; give another"):
        asked(systems="unet", seeds=1, epochs=5).grown_from(before)


def test_a_reproduction_on_a_fraction_says_so_and_keeps_it():
    whole, part = asked(systems="unet"), asked(systems="unet", fraction=0.1)
    assert part.spec("unet").data.fraction == 0.1
    assert "the random split, 0.1 of it and of the training clips" in describe_conditions(part)
    assert "the random split. Seed" in describe_conditions(whole)
    with pytest.raises(ValueError, match=r"fraction=0.1: reproduction reproduce-demo in .* began with 1.0"):
        part.grown_from(whole)


def test_unreadable_test_clips_may_be_skipped_after_the_studies_have_begun():
    before = asked(source="openmic", fraction=0.1)
    skipping = replace(before, data=replace(before.data, skips_corrupt=True))
    grown = skipping.grown_from(before)
    assert (grown.data, grown.skips_corrupt_tests) == (before.data, True)
    assert from_json(Reproduction, to_json(grown)) == grown
    assert not before.grown_from(grown).skips_corrupt_tests  # which the evaluation then refuses, if it has begun
    assert skipping.grown_from(skipping) == skipping
    with pytest.raises(ValueError, match=r"skips-corrupt=False: reproduction reproduce-openmic in .* began with True"):
        before.grown_from(skipping)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return make_workshop(tmp_path_factory.mktemp("reproduction"))


def command(workshop, *flags):
    return [
        *(sys.executable, "-m", "harness.reproduce", "--storage", str(workshop.storage)),
        *("--data", str(workshop.root / "data"), "--backbone", str(workshop.root / "tiny.safetensors")),
        *("--name", "again", "--trials", "1", "--epochs", "2", "--concurrent", "2", *flags),
    ]


@pytest.mark.drill
def test_a_killed_reproduction_continues_and_reads_no_test_split_twice(workshop):
    flags = ("--systems", "none,random_forest,unet", "--seeds", "2")
    evaluation = workshop.storage / "again.evaluation" / "trials"
    with workshop.start(command(workshop, *flags)) as process:
        try:
            wait_for(lambda: list(evaluation.glob("*/test.json")), what="a run's reading of the test split")
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
    read = {file: file.read_bytes() for file in evaluation.glob("*/test.json")}
    said = workshop.run(command(workshop, *flags))
    assert {file: file.read_bytes() for file in read} == read
    assert len(list(evaluation.glob("*/test.json"))) == 6
    assert {len(json.loads(file.read_text())) for file in evaluation.glob("*/test_reads.json")} == {1}
    assert said.count("done before") == 3
    report = (workshop.storage / "again" / "report.md").read_text()
    for name in ("AST-BS", "RF", "AST-URP"):
        assert f"| {name} |" in report
    assert {file.name for file in (workshop.storage / "again").glob("fig*.png")} == {
        "fig3_labels.png",
        "fig4_macro_f1.png",
        "fig5_f1_by_label.png",
    }
    refused = workshop.run(command(workshop, *flags, "--seed", "3"), expect=2)
    assert "seed=3: reproduction again in" in refused


@pytest.mark.drill
def test_wrong_data_and_a_taken_name_are_refused_before_any_training(workshop, tmp_path):
    for flags in ((), ("--seed", "3")):
        wrong = workshop.run(command(workshop, "--name", "typo", "--data", str(tmp_path), *flags), expect=2)
        assert "class-map.json" in wrong
    (workshop.storage / "mine").mkdir(parents=True)
    (workshop.storage / "mine" / "notes.txt").write_text("kept")
    refused = workshop.run(command(workshop, "--name", "mine"), expect=2)
    assert "holds something else; choose another --name" in refused
    assert (workshop.storage / "mine" / "notes.txt").read_text() == "kept"
