import json
import math

import pytest

from tracking import names, records
from tracking.recorded import Recorded

STUDY = "3f2a91bc77d0"


def _values(record):
    return record.body["values"]


def _finished(**overrides):
    ending = {
        "status": "FINISHED",
        "metrics": {"macro_f1": 0.712345},
        "f1": {"banjo": 0.6},
        "params_by_part": {"reprogrammer": 1285, "mapper": 16916},
        "epochs": 50,
        "seconds": 12.5,
    }
    return records.finish_trial(STUDY, 7, **{**ending, **overrides})


def test_a_record_reads_back_as_it_was_written():
    for record in _finished():
        assert records.from_line(record.to_line()) == record


def test_a_record_is_one_line_whatever_is_in_it():
    record = records.open_trial(STUDY, 0, name="two\nlines", params={"note": "a\nb"})[0]
    assert record.to_line().count("\n") == 1


@pytest.mark.parametrize("line", ["{", "[]", '{"op": "run"}', '{"op": "run", "key": "k", "nam'])
def test_a_line_that_is_no_record_is_refused(line):
    with pytest.raises(ValueError, match=r"not a record|Expecting|Unterminated"):
        records.from_line(line)


def test_an_unknown_op_is_refused_with_the_valid_ones():
    line = json.dumps({"op": "dance", "key": "k", "name": "n", "body": {}, "time_ms": 1})
    with pytest.raises(ValueError, match="op='dance': must be one of run, params, metrics, artifact, end"):
        records.from_line(line)


def test_an_unknown_status_is_refused_with_the_valid_ones():
    with pytest.raises(ValueError, match="status='DONE': a run ends as one of FINISHED, FAILED, KILLED"):
        _finished(status="DONE")


def test_an_epoch_is_one_record_with_every_metric_in_its_place():
    (record,) = records.log_epoch(
        STUDY, 7, epoch=3, val={"macro_f1": 0.7, "loss": 0.4}, train={"loss": 0.3}, val_f1={"banjo": 0.5}, lr=1e-3
    )
    assert record.key == f"{STUDY}/0007"
    assert record.body["step"] == 3
    assert _values(record) == {
        "val/macro_f1": 0.7,
        "val/loss": 0.4,
        "train/loss": 0.3,
        "val_f1/banjo": 0.5,
        "lr": 1e-3,
    }


def test_the_final_figures_are_at_step_0_and_count_all_parts():
    final = _finished()[0]
    assert final.body["step"] == 0
    assert _values(final)["params"] == 18201
    assert _values(final)["params/mapper"] == 16916
    assert _values(final)["params_log10"] == pytest.approx(math.log10(18201), abs=1e-4)
    assert _values(final)["f1/banjo"] == 0.6


def test_final_figures_have_the_four_digits_that_a_column_shows():
    assert _values(_finished()[0])["macro_f1"] == 0.7123


def test_a_metric_that_is_not_a_number_is_kept_and_one_that_is_missing_is_left_out():
    (record,) = records.log_epoch(STUDY, 0, epoch=1, val={"loss": math.nan, "map": None})
    back = records.from_line(record.to_line())
    assert math.isnan(back.body["values"]["val/loss"])
    assert "val/map" not in back.body["values"]


def test_test_figures_have_names_of_their_own_beside_those_of_validation():
    values = _values(_finished(test={"macro_f1": 0.5, "map": 0.4}, test_f1={"banjo": 0.3})[0])
    assert (values["macro_f1"], values["f1/banjo"]) == (0.7123, 0.6)
    assert (values["test/macro_f1"], values["test/map"], values["test_f1/banjo"]) == (0.5, 0.4, 0.3)
    assert not any(name.startswith("test") for name in _values(_finished()[0]))


def test_the_runs_of_an_evaluation_are_of_other_kinds_and_were_not_searched():
    parent = records.open_study(STUDY, name="n", kind=names.EVALUATION_KIND)[0]
    run, params = records.open_trial(STUDY, 0, name="n", params={"a": 1}, kind=names.EVALUATION_RUN_KIND)
    assert [record.body["tags"]["kind"] for record in (parent, run)] == ["evaluation", "evaluation-run"]
    assert params.body["is_searched"] is False
    assert records.open_trial(STUDY, 0, name="n", params={"a": 1})[1].body["is_searched"] is True


def test_a_run_has_the_colour_of_its_system():
    run = records.open_trial(STUDY, 0, name="n", params={}, tags={"system": "mean_teacher"})[0]
    assert run.body["tags"]["mlflow.runColor"] == names.colour_of("mean_teacher")


def test_learning_rates_and_named_paths_get_a_logarithm():
    params = {"optimiser/lr": 0.01, "optimiser/weight_decay": 1e-5, "reprogrammer/width": 8}
    written = _values(records.open_trial(STUDY, 0, name="n", params=params, log_scaled=["optimiser/weight_decay"])[1])
    assert written["optimiser/log10_lr"] == "-2.0000"
    assert written["optimiser/log10_weight_decay"] == "-5.0000"
    assert "reprogrammer/log10_width" not in written


def test_a_number_without_a_logarithm_gets_none():
    written = _values(records.open_trial(STUDY, 0, name="n", params={"optimiser/lr": 0.0})[1])
    assert written == {"optimiser/lr": "0.0"}


def test_a_failed_trial_says_why_in_its_description():
    tags = _finished(status="FAILED", metrics={}, reason="train loss is nan")[-1].body["tags"]
    assert tags[names.REASON] == tags[names.DESCRIPTION] == "train loss is nan"


def test_every_system_has_one_colour_and_the_known_ones_differ():
    systems = ("unet", "cnn", "noise", "none", "finetune", "cnn_baseline", "mean_teacher", "random_forest")
    known = [names.colour_of(system) for system in systems]
    assert len(set(known)) == len(systems)
    assert names.colour_of("transformer") == names.colour_of("transformer")


def test_an_experiment_name_has_no_slash():
    assert "/" not in names.experiment_name("data/of/mine", "MIT/ast")


def test_what_is_recorded_is_not_new_again():
    recorded = Recorded()
    first = records.open_trial(STUDY, 0, name="n", params={"a": 1})
    for record in recorded.new(first):
        recorded.note(record)
    assert recorded.new(records.open_trial(STUDY, 0, name="n", params={"a": 1})) == []


def test_asking_what_is_new_notes_nothing():
    recorded, trial = Recorded(), records.open_trial(STUDY, 0, name="n", params={"a": 1})
    assert recorded.new(trial) == recorded.new(trial) == trial


def test_a_run_that_is_opened_again_may_end_again_but_keeps_its_epochs():
    recorded = Recorded()
    opening = records.open_trial(STUDY, 0, name="n", params={"a": 1})
    epoch = records.log_epoch(STUDY, 0, epoch=1, val={"loss": 1.0})
    ending = records.finish_trial(STUDY, 0, status="KILLED")
    for record in recorded.new([*opening, *epoch, *ending]):
        recorded.note(record)
    again = recorded.new([*opening, *epoch, *ending])
    assert [record.name for record in again] == ["run", "final", "end"]
