"""The runs of an evaluation: their settings, their extension, and earlier readings of the test split."""

from dataclasses import replace
from types import SimpleNamespace

import optuna
import pytest

from harness.config.study import DataSpec
from harness.config.trial import TrialConfig
from harness.evaluation.caveats import heldout_usage
from harness.evaluation.plan import (
    RunList,
    check_same_test_clips,
    check_unchanged,
    evaluation_plan,
    read_runs,
    terms_of,
)
from harness.study.records import TrialRecord
from tests.support.evaluations import DIGESTS, LABELS, chosen_in, extended, make_spec, make_study, place_beside, session
from tests.support.records import make_report


@pytest.fixture
def place(tmp_path):
    return make_study(tmp_path)


def usage(before, finished, chosen, **asked):
    return heldout_usage(before, finished, chosen, **{"sources": {"s": make_spec("s")}, **asked})


def test_seeds_are_the_same_for_all_configurations_and_no_trials(place):
    listed = extended(RunList({}), chosen_in(place))
    plan, seeds = evaluation_plan(listed), {}
    for number, run in enumerate(listed.runs):
        seeds.setdefault(run.seed_index, set()).add(plan.trial(number).seed)
    assert [len(values) for values in seeds.values()] == [1, 1]
    assert plan.trial(0).seed != plan.trial(len(listed.runs) - 1).seed
    assert plan.trial(0).seed not in {make_spec("s").trial_seed(number) for number in range(1000)}


def test_a_run_is_its_source_trial_with_the_settings_of_its_study(place):
    plan = evaluation_plan(extended(RunList({}), chosen_in(place)))
    first = plan.trial(0)
    assert plan.reads_test
    assert plan.n_trials == 6
    trial = SimpleNamespace(number=0)
    assert TrialConfig.from_paths(plan.suggest(trial)).optimiser.lr == 0.1
    assert first.spec == make_spec("s", scheduler="none")
    assert (first.title, first.tags["source_trial"], first.tags["seed_index"]) == ("s trial 2, seed 0", 2, 0)


def test_more_seeds_and_more_configurations_are_appended(place):
    first = extended(RunList({}), chosen_in(place))
    more = extended(first, chosen_in(place, top=2), seeds=3, n_begun=6)
    assert more.runs[:6] == first.runs
    assert len({(*run.key, run.seed_index) for run in more.runs}) == len(more.runs) == 4 * 3
    assert extended(more, chosen_in(place, top=2), seeds=3, n_begun=12).runs == more.runs


def test_a_run_that_has_not_begun_is_dropped_and_a_failed_one_is_tried_again_as_another(place):
    first = extended(RunList({}), chosen_in(place), seeds=10)
    assert len(extended(first, chosen_in(place), seeds=1, n_begun=4).runs) == 4
    again = extended(first, chosen_in(place), n_begun=6, failed={1})
    assert len(again.runs) == 7
    assert again.runs[6] == first.runs[1]


def test_a_list_reads_back_as_it_was_written(place):
    listed = replace(extended(RunList({}), chosen_in(place)), labels=LABELS, floor=0.4)
    listed.write(place)
    assert read_runs(place.home) == listed


def test_a_study_that_was_replaced_is_not_mixed_with_its_namesake(place):
    chosen = chosen_in(place)
    listed = extended(RunList({}), chosen)
    other = {"s": make_spec("s", epochs=9, provenance={**DIGESTS, "data_digest": "c"})}
    with pytest.raises(ValueError, match="study=s: differs in epochs, data_digest from the study of this name"):
        listed.extended(chosen, session=session(chosen), sources=other, n_begun=6, failed=())


@pytest.mark.parametrize(("first", "said"), [(False, "without it.*; leave it out"), (True, "with it.*; give it")])
def test_runs_with_and_without_unreadable_clips_are_not_mixed(place, first, said):
    chosen, study = chosen_in(place), make_spec("s")

    def asked(listed, *, skip_corrupt):
        sources = {"s": terms_of(study, skip_corrupt=skip_corrupt)}
        return listed.extended(chosen, session=session(chosen), sources=sources, n_begun=6, failed=())

    listed = asked(RunList({}), skip_corrupt=first)
    assert asked(listed, skip_corrupt=first).sources == listed.sources
    with pytest.raises(ValueError, match=f"skip-corrupt: the evaluation of study s began {said}.* another --name"):
        asked(listed, skip_corrupt=not first)


def test_a_second_evaluation_names_the_first(place):
    chosen, beside = chosen_in(place)[:1], place_beside(place)
    assert usage(None, (), chosen, seeds=3, place=beside) == ()
    listed = extended(RunList({}), chosen)
    (more,) = usage(listed, {0, 1}, chosen, seeds=10, place=beside)
    assert "s trial 2: evaluated before on 2026-11-22 " in more
    assert more.endswith("with 2 seeds; 8 more now")
    (killed,) = usage(listed, {0}, chosen, seeds=2, place=beside)
    assert killed.endswith("with 2 seeds, of which 1 finished; 1 more now")
    (same,) = usage(listed, {0, 1}, chosen, seeds=2, place=beside)
    assert "all 2 are finished: the table repeats them, test was not read again" in same


def test_known_test_figures_of_other_configurations_of_a_study_are_warned_of(place):
    before = extended(RunList({}), chosen_in(place))
    (*_, warning) = usage(before, range(6), chosen_in(place, by="map")[:1], seeds=2, place=place_beside(place))
    assert "warning: with this evaluation, test figures are known for 4 configurations of study s, 1 of" in warning
    assert "selection on test" in warning


def test_an_evaluation_of_another_name_counts_too(place):
    beside = place_beside(place, "earlier")
    beside.home.mkdir()
    extended(RunList({}), chosen_in(place)).write(beside)
    lines = usage(None, (), chosen_in(place)[:1], seeds=2, place=place_beside(place))
    assert any("s trial 2: evaluation earlier has it too" in line and "with 2 seeds" in line for line in lines)
    assert any("for 3 configurations of study s" in line for line in lines)


def under_another_study(place, *, name, **changes):
    """Write down, beside the study, an evaluation that has its configurations under another study."""
    beside = place_beside(place, name)
    beside.home.mkdir()
    chosen = [replace(candidate, study="t", trial=7) for candidate in chosen_in(place)[:1]]
    listed = replace(extended(RunList({}), chosen), sources={"t": make_spec("t", **changes)})
    listed.write(beside)
    return listed


def test_another_study_does_not_hide_that_a_configuration_was_evaluated(place):
    under_another_study(place, name="earlier")
    (line,) = usage(None, (), chosen_in(place)[:1], seeds=2, place=place_beside(place))
    assert line.startswith("s trial 2: evaluation earlier has the same as t trial 7, of 2026-11-22 ")
    assert line.endswith("with 2 seeds")
    assert usage(None, (), chosen_in(place)[1:], seeds=2, place=place_beside(place)) == ()


def test_another_study_in_the_same_evaluation_counts_too(place):
    before = under_another_study(place, name="s.evaluation")
    chosen, here = chosen_in(place)[:1], place_beside(place)
    (line,) = usage(before, (0, 1), chosen, seeds=2, place=here)
    assert "evaluation s.evaluation has the same as t trial 7" in line
    both = [*chosen, replace(chosen[0], study="t", trial=7)]
    sources = {"s": make_spec("s"), "t": make_spec("t")}
    (only,) = usage(before, (0, 1), both, seeds=2, place=here, sources=sources)
    assert only.startswith("t trial 7: evaluated before on ")


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 9},
        {"provenance": {**DIGESTS, "data_digest": "c"}},
        {"provenance": {**DIGESTS, "backbone_digest": "c"}},
        {"data": DataSpec(reveals_all=True)},
    ],
)
def test_a_configuration_with_other_settings_is_another(place, changes):
    under_another_study(place, name="earlier", **changes)
    assert usage(None, (), chosen_in(place)[:1], seeds=2, place=place_beside(place)) == ()


def test_data_or_a_backbone_that_changed_since_the_choice_is_named():
    source = make_spec("s")
    check_unchanged(source, DIGESTS)
    for digest, chosen in (("data_digest", "on other data"), ("backbone_digest", "with another backbone")):
        with pytest.raises(ValueError, match=f"study=s: {digest} is c, the study began with .*were chosen {chosen}$"):
            check_unchanged(source, {**DIGESTS, digest: "c"})


@pytest.mark.parametrize("inputs", ["log_mel", "vggish", "embedding"])
def test_other_test_clips_than_those_of_the_finished_runs_are_refused(inputs):
    test = {f"{inputs}_digest": "a"}
    attributes = TrialRecord(paths={}, report=make_report(0, 3, 0.5, test=test)).attributes()
    trial = optuna.trial.create_trial(value=0.5, user_attrs=attributes)
    check_same_test_clips([trial], {f"{inputs}_test_digest": "a", "other_test_digest": "b"}, name="e")
    with pytest.raises(ValueError, match="name=e: the test clips are not what 1 of its 1 runs were tested on"):
        check_same_test_clips([trial], {f"{inputs}_test_digest": "b"}, name="e")
