"""What is evaluated, on what terms, and how it is told: without training anything."""

import json
from dataclasses import replace
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState

from harness.config import TrialConfig
from harness.evaluation.choosing import candidates, check_choice, check_comparable, check_systems, choose, read_source
from harness.evaluation.history import notes_on
from harness.evaluation.remarks import remarks
from harness.evaluation.report import tables, write_report
from harness.evaluation.result import EvaluationResult, collect
from harness.evaluation.run import evaluation_place
from harness.evaluation.runs import EvaluationPlan, RunList, Session, read_runs
from harness.searcher import PATHS, SUMMARY, TEST
from harness.spec import DataSpec, StudyPlace, StudySpec
from harness.study_storage import open_storage
from harness.test_reading import READS
from harness.trial_files import TrialFiles

LABELS = ("banjo", "cello")
DIGESTS = {"data_digest": "d" * 64, "log_mel_digest": "l" * 64, "backbone_digest": "b" * 64}


def make_spec(name, **changes):
    spec = StudySpec(
        name=name,
        space="noise",
        trials=9,
        epochs=3,
        backbone="ast-nano",
        data=DataSpec(),
        seed=0,
        storage="studies",
        provenance=DIGESTS,
    )
    return replace(spec, **changes)


def add_trial(study, paths, *, macro_f1=0.5, mean_precision=0.5, state=TrialState.COMPLETE):
    best = {"macro_f1": macro_f1, "positive_f1": 0.4, "map": mean_precision, "f1_by_label": dict.fromkeys(LABELS, 0.5)}
    summary = {"epochs": 3, "seconds": 2.0, "params": 10, "best": best}
    attributes = {PATHS: json.dumps(paths), SUMMARY: json.dumps(summary)}
    value = macro_f1 if state == TrialState.COMPLETE else None
    study.add_trial(optuna.trial.create_trial(state=state, value=value, user_attrs=attributes))


@pytest.fixture
def place(tmp_path):
    """Return a study with three systems; its best trial of all was stopped early."""
    place = StudyPlace.of(str(tmp_path), "s")
    place.home.mkdir()
    place.spec_file.write_text(make_spec("s").to_json())
    study = optuna.create_study(storage=open_storage(place.home), study_name="s", direction="maximize")
    add_trial(study, {"reprogrammer/kind": "unet"}, macro_f1=0.6)
    add_trial(study, {"reprogrammer/kind": "cnn"}, macro_f1=0.5)
    add_trial(study, {"reprogrammer/kind": "unet", "optimiser/lr": 0.1}, macro_f1=0.7, mean_precision=0.4)
    add_trial(study, {"reprogrammer/kind": "unet", "optimiser/lr": 0.2}, macro_f1=0.9, state=TrialState.PRUNED)
    add_trial(study, {"reprogrammer/kind": "unet", "optimiser/lr": 0.1}, macro_f1=0.65)  # once more
    add_trial(study, {"system/kind": "random_forest"}, macro_f1=0.4)
    return place


def chosen_in(place, **choice):
    return choose(candidates(place, place.read_spec()), **{"top": 1, "by": "macro_f1", **choice})


def session(chosen, *, seeds=2, began="2026-11-22T14:03:00+00:00"):
    return Session(began, seeds, 1, "macro_f1", tuple(c.key for c in chosen))


def extended(listed, chosen, *, seeds=2, n_begun=0, failed=()):
    sources = {c.study: make_spec(c.study) for c in chosen}
    return listed.extended(
        chosen, session=session(chosen, seeds=seeds), sources=sources, n_begun=n_begun, failed=failed
    )


def test_the_best_finished_trial_of_each_system_is_chosen(place):
    assert [(c.system, c.trial) for c in chosen_in(place)] == [("unet", 2), ("cnn", 1), ("random_forest", 5)]


def test_one_configuration_is_chosen_once_however_many_trials_tried_it(place):
    assert [c.trial for c in chosen_in(place, top=3) if c.system == "unet"] == [2, 0]


def test_a_configuration_that_was_tried_several_times_counts_by_its_mean(place):
    assert [(c.trial, c.n_trials) for c in chosen_in(place)] == [(2, 2), (1, 1), (5, 1)]
    assert chosen_in(place)[0].figures["macro_f1"] == pytest.approx(0.675)
    study = optuna.load_study(study_name="s", storage=open_storage(place.home))
    add_trial(study, {"reprogrammer/kind": "unet", "optimiser/lr": 0.1}, macro_f1=0.3)  # its first draw was luck
    assert [(c.trial, c.n_trials) for c in chosen_in(place) if c.system == "unet"] == [(0, 1)]


def test_another_figure_of_validation_may_choose(place):
    assert [c.trial for c in chosen_in(place, by="map") if c.system == "unet"] == [0]


@pytest.mark.parametrize("by", ["test/macro_f1", "test_macro_f1", "test", "loss"])
def test_nothing_but_validation_chooses(by):
    with pytest.raises(ValueError, match=f"by='{by}': selection is on validation only, by one of macro_f1, positive"):
        check_choice(by=by, top=1)


def test_no_configuration_is_no_choice():
    with pytest.raises(ValueError, match="top=0: must be at least 1"):
        check_choice(by="map", top=0)


def test_an_unknown_system_is_refused_with_those_there_are(place):
    with pytest.raises(
        ValueError, match=r"systems='vae': no finished trial of it; must be one of cnn, random_f.*, unet"
    ):
        check_systems(["unet", "vae"], candidates(place, place.read_spec()))


def test_an_unknown_study_is_refused_with_those_there_are(place, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"study=t: no study in .*; there are s"):
        read_source(StudyPlace.of(str(tmp_path), "t"))


def test_a_study_that_finished_nothing_is_refused_and_left_as_it_is(tmp_path):
    place = StudyPlace.of(str(tmp_path), "empty")
    with pytest.raises(ValueError, match="study=empty: none of its trials has finished"):
        candidates(place, make_spec("empty"))
    assert not place.home.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": DataSpec(split="public")}, "split"),
        ({"data": DataSpec(validation_fraction=0.2, split_seed=3)}, "validation_fraction, split_seed"),
        ({"provenance": {**DIGESTS, "backbone_digest": "c"}}, "backbone_digest"),
        ({"provenance": {**DIGESTS, "data_digest": "c"}}, "data_digest"),
    ],
)
def test_studies_whose_runs_would_not_pair_are_refused(changes, said):
    with pytest.raises(ValueError, match=f"studies a and b differ in {said}: their runs would not pair"):
        check_comparable({"a": make_spec("a"), "b": make_spec("b", **changes)})


def test_studies_may_differ_in_epochs_and_in_what_training_reveals():
    check_comparable({"a": make_spec("a"), "b": make_spec("b", epochs=9, data=DataSpec(reveals_all=True))})


def test_an_evaluation_stands_beside_its_study_and_takes_no_studys_name(place):
    made = evaluation_place(place, None)
    assert (made.home.name, made.home.parent) == ("s.evaluation", place.home.parent)
    assert made.shared == f"{place.shared}.evaluation"
    with pytest.raises(ValueError, match="name=s: a study has this name"):
        evaluation_place(place, "s")


def test_seeds_are_the_same_for_all_configurations_and_no_trials(place):
    plan = EvaluationPlan(extended(RunList({}), chosen_in(place)))
    seeds = {}
    for number, run in enumerate(plan.listed.runs):
        seeds.setdefault(run.seed_index, set()).add(plan.seed(number))
    assert [len(values) for values in seeds.values()] == [1, 1]
    assert plan.seed(0) != plan.seed(len(plan.listed.runs) - 1)
    assert plan.seed(0) not in {make_spec("s").trial_seed(number) for number in range(1000)}


def test_a_run_is_its_source_trial_on_the_terms_of_its_study(place):
    plan = EvaluationPlan(extended(RunList({}), chosen_in(place)))
    assert plan.reads_test
    assert plan.n_trials == 6
    trial = SimpleNamespace(number=0)
    assert TrialConfig.from_paths(plan.suggest(trial)).optimiser.lr == 0.1
    assert plan.terms(0) == make_spec("s")
    assert (plan.title(0), plan.tags(0)["source_trial"], plan.tags(0)["seed_index"]) == ("s trial 2, seed 0", 2, 0)


def test_more_seeds_and_more_configurations_leave_what_there_is_where_it_is(place):
    first = extended(RunList({}), chosen_in(place))
    more = extended(first, chosen_in(place, top=2), seeds=3, n_begun=6)
    assert more.runs[:6] == first.runs
    assert len({(*run.key, run.seed_index) for run in more.runs}) == len(more.runs) == 4 * 3
    assert extended(more, chosen_in(place, top=2), seeds=3, n_begun=12).runs == more.runs


def test_what_has_not_begun_and_is_not_asked_for_again_is_dropped(place):
    first = extended(RunList({}), chosen_in(place), seeds=10)
    assert len(extended(first, chosen_in(place), seeds=1, n_begun=4).runs) == 4


def test_what_failed_is_tried_again_as_another_run(place):
    first = extended(RunList({}), chosen_in(place))
    again = extended(first, chosen_in(place), n_begun=6, failed={1})
    assert len(again.runs) == 7
    assert again.runs[6] == first.runs[1]


def test_a_list_reads_back_as_it_was_written(place):
    listed = replace(extended(RunList({}), chosen_in(place)), labels=LABELS, floor=0.4)
    listed.write(place)
    assert read_runs(place.home) == listed


def test_a_study_that_was_made_anew_is_not_mixed_with_its_namesake(place):
    chosen = chosen_in(place)
    listed = extended(RunList({}), chosen)
    other = {"s": make_spec("s", epochs=9, provenance={**DIGESTS, "data_digest": "c"})}
    with pytest.raises(ValueError, match="study=s: differs in epochs, data_digest from the study of this name"):
        listed.extended(chosen, session=session(chosen), sources=other, n_begun=6, failed=())


def test_a_first_evaluation_has_nothing_to_say_of_the_past(place):
    assert notes_on(None, (), chosen_in(place), seeds=3, place=evaluation_place(place, None)) == ()


def test_a_second_evaluation_is_shown_as_such(place):
    chosen, beside = chosen_in(place)[:1], evaluation_place(place, None)
    listed = extended(RunList({}), chosen)
    (more,) = notes_on(listed, {0, 1}, chosen, seeds=10, place=beside)
    assert "s trial 2: evaluated before on 2026-11-22 " in more
    assert more.endswith("with 2 seeds; 8 more now")
    (killed,) = notes_on(listed, {0}, chosen, seeds=2, place=beside)
    assert killed.endswith("with 2 seeds, of which 1 finished; 1 more now")
    (same,) = notes_on(listed, {0, 1}, chosen, seeds=2, place=beside)
    assert "all 2 were read before: the table repeats them, test was not read again" in same


def test_looking_at_test_for_other_configurations_of_a_study_is_warned_of(place):
    before = extended(RunList({}), chosen_in(place))
    (*_, warning) = notes_on(
        before, range(6), chosen_in(place, by="map")[:1], seeds=2, place=evaluation_place(place, None)
    )
    assert "warning: with this evaluation, test has been looked at for 4 configurations of study s, 1 of" in warning
    assert "selection on test" in warning


def test_an_evaluation_of_another_name_does_not_hide(place):
    beside = evaluation_place(place, "earlier")
    beside.home.mkdir()
    extended(RunList({}), chosen_in(place)).write(beside)
    lines = notes_on(None, (), chosen_in(place)[:1], seeds=2, place=evaluation_place(place, None))
    assert any("s trial 2: evaluation earlier has it too" in line and "with 2 seeds" in line for line in lines)
    assert any("for 3 configurations of study s" in line for line in lines)


def result_of(place, *, n_seeds=2, reads=1, first=None, second=None):
    """Return an evaluation in which the second configuration is better on validation by 0.1, on test by 0.05.

    `first` and `second` are what their readings of the test split hold besides.
    """
    chosen = chosen_in(place)[:2]
    listed = extended(RunList({}), chosen, seeds=n_seeds)
    trials = []
    for number, run in enumerate(listed.runs):
        is_second = run.key == chosen[1].key
        figures = {"positive_f1": 0.3, "map": 0.2, "f1_by_label": {"banjo": 0.4, "cello": 0.6}}
        best = {"macro_f1": 0.5 + 0.1 * is_second, **figures}
        test = {"macro_f1": 0.4 + 0.05 * is_second + 0.01 * run.seed_index, **figures, "reads": reads}
        test |= (second if is_second else first) or {}
        attributes = {
            PATHS: json.dumps(run.paths),
            SUMMARY: json.dumps({"epochs": 3, "seconds": 2.0, "params": 10, "best": best}),
            TEST: json.dumps(test),
        }
        trial = optuna.trial.create_trial(value=best["macro_f1"], user_attrs=attributes)
        trial.number = number
        trials.append(trial)
    beside = evaluation_place(place, None)
    beside.home.mkdir(exist_ok=True)
    found = collect(listed, trials, chosen, place=beside)
    return EvaluationResult("s.evaluation", beside, found, LABELS, 0.35, (), is_interrupted=False)


def test_configurations_stand_in_the_order_of_validation_with_all_their_figures(place):
    result = result_of(place)
    assert [(c.system, c.paper_name) for c in result.configurations] == [("cnn", "AST-CNNRP"), ("unet", "AST-URP")]
    best = result.configurations[0]
    assert best.values("macro_f1") == pytest.approx({0: 0.45, 1: 0.46})
    assert best.values("f1_by_label/cello") == {0: 0.6, 1: 0.6}
    assert best.values("macro_f1", split="validation") == {0: 0.6, 1: 0.6}
    assert (best.params, best.summary("macro_f1").n) == (10, 2)
    (comparison,) = result.comparisons()
    assert comparison.difference.mean == pytest.approx(0.05)


def test_the_report_holds_every_figure_and_reads_back(place):
    result = result_of(place)
    chosen = chosen_in(place)[:2]
    data, text = (file.read_text() for file in write_report(result, session(chosen)))
    stored = json.loads(data)
    first = stored["configurations"][0]
    assert first["test"]["macro_f1"] == pytest.approx(
        {"n": 2, "mean": 0.455, "std": 0.0070710678, "minimum": 0.45, "maximum": 0.46}
    )
    assert set(first["test_f1"]) == set(LABELS)
    assert [seed["seed_index"] for seed in first["seeds"]] == [0, 1]
    assert {c["figure"] for c in stored["comparisons"]} == {"macro_f1", "positive_f1", "map"}
    for part in ("cnn (AST-CNNRP)", "0.455 ± 0.007", "| cello | 0.600 |", "+0.050", "0.350 on validation"):
        assert part in text


def test_one_seed_is_said_to_give_no_interval(place):
    result = result_of(place, n_seeds=1)
    assert any("one seed has no standard deviation, and no interval" in line for line in remarks(result))
    data, text = (file.read_text() for file in write_report(result, session(chosen_in(place)[:2], seeds=1)))
    assert json.loads(data)["comparisons"][0]["low"] is None
    assert "0.450 ± -" in text
    assert "- (one seed)" in text


def test_a_second_reading_is_said(place):
    assert any("s trial 1, seed 0: test was read 2 times" in line for line in remarks(result_of(place, reads=2)))


def test_configurations_that_were_tested_on_other_clips_are_not_compared_and_it_is_said(place):
    log_mel, vggish = {"n_clips": 5, "clips": "a"}, {"n_clips": 6, "clips": "b"}
    result = result_of(place, first=log_mel, second=vggish)
    assert result.comparisons() == []
    (said,) = remarks(result)[1:]
    assert said.startswith("s trial 1 and s trial 2 are not paired: 6 and 5 test clips, not the same, since unreadable")
    assert said in write_report(result, session(chosen_in(place)))[1].read_text()
    assert result_of(place, first=log_mel, second={**log_mel, "clips": "b"}).comparisons() == []
    for second in (log_mel, {"n_clips": 5}):  # what an earlier version stored has no digest
        result = result_of(place, first=log_mel, second=second)
        assert len(result.comparisons()) == 1
        assert not any("not paired" in line for line in remarks(result))


def test_labels_with_one_answer_among_the_test_clips_are_named(place):
    result = result_of(place, first={"one_sided": ["cello"]}, second={"one_sided": ["cello"]})
    assert [line for line in remarks(result) if line.startswith("cello: all annotated test clips have the same answer")]
    assert not any("same answer" in line for line in remarks(result_of(place)))


def test_a_configuration_chosen_by_a_mean_is_said_to_be(place):
    assert "s trial 2: chosen by the mean of 2 trials of this configuration" in remarks(result_of(place))


@pytest.mark.parametrize(("reads", "said"), [(1, "was read once for each"), (2, "was read more than once for some")])
def test_the_report_says_how_many_seeds_there_are_whatever_was_asked_for_last(place, reads, said):
    _, file = write_report(result_of(place, reads=reads), session(chosen_in(place), seeds=1))
    assert f"retrained with the same 2 seeds each. The test split {said}" in file.read_text()


def test_a_failed_run_that_read_the_split_has_read_it(place):
    chosen = chosen_in(place)[:1]
    beside = evaluation_place(place, None)
    TrialFiles(beside.shared, 0).write(READS, json.dumps(["2026-11-22T14:03:00+00:00"]).encode())
    failed = optuna.trial.create_trial(state=TrialState.FAIL)
    once = extended(RunList({}), chosen, seeds=1)
    (seed,) = collect(once, [failed], chosen, place=beside)[0].seeds
    assert (seed.state, seed.reads) == ("failed", 1)
    again = extended(once, chosen, seeds=1, n_begun=1, failed={0})
    attributes = {SUMMARY: json.dumps({"best": {"macro_f1": 0.5}}), TEST: json.dumps({"reads": 1})}
    done = optuna.trial.create_trial(value=0.5, user_attrs=attributes)
    (seed,) = collect(again, [failed, done], chosen, place=beside)[0].seeds
    assert (seed.state, seed.reads) == ("done", 2)


def test_an_evaluation_without_a_finished_run_has_tables_all_the_same(place):
    chosen = chosen_in(place)
    found = collect(extended(RunList({}), chosen), [], chosen, place=evaluation_place(place, None))
    result = EvaluationResult("e", place, found, (), None, (), is_interrupted=True)
    assert {seed.state for c in found for seed in c.seeds} == {"owed"}
    assert len(tables(result)) == 3
    assert result.comparisons() == []
