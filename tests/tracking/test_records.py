import math

import pytest

from tracking import names, records

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


def test_a_record_reads_back_and_is_one_line_whatever_is_in_it():
    for record in [*_finished(), *records.open_trial(STUDY, 0, name="two\nlines", params={"note": "a\nb"})]:
        assert record.to_line().count("\n") == 1
        assert records.Record.of_line(record.to_line()) == record


@pytest.mark.parametrize("line", ["{", "[]", '{"op": "run"}', '{"op": "run", "key": "k", "nam'])
def test_a_line_that_is_no_record_is_refused(line):
    with pytest.raises(ValueError, match=r"not a record|Expecting|Unterminated"):
        records.Record.of_line(line)


def test_an_epoch_is_one_record_with_every_metric_in_its_place():
    val = {"macro_f1": 0.7, "toy": 0.1, "loss": 0.4}
    (record,) = records.log_epoch(STUDY, 7, epoch=3, val=val, train={"loss": 0.3}, val_f1={"R&B": 0.5}, lr=1e-3)
    assert record.key == f"{STUDY}/0007"
    assert record.body == {
        "step": 3,
        "values": {
            "val/macro_f1": 0.7, "val/toy": 0.1, "val/loss": 0.4,
            "train/loss": 0.3, "val_f1/R_x0026_B": 0.5, "lr": 1e-3,
        },
    }  # fmt: skip


def test_final_figures_are_at_step_0_have_four_digits_and_count_all_parts():
    final = _finished(f1={"banjo": 0.6, "(other)": 0.5})[0]
    assert final.body["step"] == 0
    expected = {
        "macro_f1": 0.7123,
        "params": 18201,
        "params/mapper": 16916,
        "f1/banjo": 0.6,
        "f1/_x0028_other_x0029_": 0.5,
    }
    assert expected.items() <= _values(final).items()
    assert _values(final)["params_log10"] == pytest.approx(math.log10(18201), abs=1e-4)


def test_a_metric_that_is_not_a_number_is_kept_and_a_missing_one_is_left_out():
    (record,) = records.log_epoch(STUDY, 0, epoch=1, val={"loss": math.nan, "map": None})
    values = _values(records.Record.of_line(record.to_line()))
    assert math.isnan(values["val/loss"])
    assert "val/map" not in values


def test_test_figures_have_names_of_their_own_beside_those_of_validation():
    values = _values(_finished(test={"macro_f1": 0.5, "toy": 0.4}, test_f1={"banjo": 0.3})[0])
    assert (values["macro_f1"], values["f1/banjo"]) == (0.7123, 0.6)
    assert (values["test/macro_f1"], values["test/toy"], values["test_f1/banjo"]) == (0.5, 0.4, 0.3)
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


def test_learning_rates_get_a_logarithm_where_they_have_one():
    params = {"optimiser/lr": 0.01, "reprogrammer/width": 8, "mapper/lr": 0.0, "schedule/lr": "none"}
    written = _values(records.open_trial(STUDY, 0, name="n", params=params)[1])
    assert written == {**{path: str(value) for path, value in params.items()}, "optimiser/log10_lr": "-2.0000"}


def test_a_failed_trial_gives_the_reason_in_its_description():
    tags = _finished(status="FAILED", metrics={}, reason="train loss is nan")[-1].body["tags"]
    assert tags[names.REASON] == tags[names.DESCRIPTION] == "train loss is nan"


def test_a_study_names_its_labels_and_metrics():
    body = records.open_study(STUDY, name="n", labels=["R&B"], metrics=["macro_f1", "toy"])[0].body
    assert (body["labels"], body["metrics"]) == (["R&B"], ["macro_f1", "toy"])
