"""The request for an evaluation: its checks and its name."""

import json
import subprocess
import sys
from importlib import reload

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from harness import evaluate as command
from harness.evaluation.request import Request, default_name
from harness.training.metrics import METRICS
from tests.support.evaluations import make_study, place_beside


@pytest.fixture
def place(tmp_path):
    return make_study(tmp_path)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"top": 0}, "top=0: must be at least 1"),
        ({"seeds": 0}, "seeds=0: must be at least 1"),
        *(({"by": by}, f"by='{by}': selection is on validation only") for by in ("test/macro_f1", "test", "loss")),
    ],
)
def test_a_wrong_value_is_refused(place, flags, message):
    with pytest.raises(ValueError, match=message):
        Request((place,), **flags)


def test_an_evaluation_lies_beside_its_study_and_takes_no_studys_name(place):
    made = place_beside(place)
    assert (made.home.name, made.home.parent) == ("s.evaluation", place.home.parent)
    assert made.shared == f"{place.shared}.evaluation"
    with pytest.raises(ValueError, match="name=s: a study has this name"):
        place_beside(place, "s")


def test_another_set_of_studies_is_another_evaluation_in_any_order():
    assert default_name(["a"]) == "a.evaluation"
    assert default_name(["b", "a"]) == default_name(["a", "b"]) == "a-b.evaluation"
    many = [f"study-with-a-long-name-{number}" for number in range(30)]
    assert len(default_name(many)) < 120
    assert default_name(many) != default_name(many[:-1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("s", "never"), "; there are s"),
        (("s", "--by", "test/macro_f1"), "by='test/macro_f1'"),
        (("s", "--seeds", "0"), "seeds=0"),
        (("s", "--concurrent", "0"), "concurrent=0"),
    ],
)
def test_a_wrong_flag_is_refused_before_heavy_imports(place, words, message, monkeypatch):
    monkeypatch.setattr("harness.common.cli.prepare_environment", lambda **_: None)
    monkeypatch.setitem(sys.modules, "harness.evaluation.run", None)  # its import would fail
    done = CliRunner().invoke(command.app, [*words, "--storage", str(place.home.parent)])
    assert done.exit_code != 0
    assert message in done.stderr


def test_checking_a_request_loads_neither_torch_nor_ray():
    code = (
        "import sys, json, harness.evaluation.request; "
        "print(json.dumps([name for name in ('torch', 'ray', 'mlflow') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=120, capture_output=True)
    assert json.loads(done.stdout) == []


def test_the_help_names_every_metric_of_the_registry():
    METRICS.add("toy", METRICS["map"])
    try:
        (by,) = (p for p in get_command(reload(command).app).params if p.name == "by")
    finally:
        METRICS.remove("toy")
        reload(command)
    assert by.help == "Figure on validation to choose by: macro_f1, positive_f1, map, toy."
