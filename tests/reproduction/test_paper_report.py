"""The report with the paper's tables and figures, from made-up results."""

import re

import pytest

from harness.config.literature import F1_BY_LABEL, LABEL_COUNTS
from harness.reproduction.report import (
    DataDescription,
    SystemResult,
    correlation_with_positives,
    systems_table,
    write_paper_report,
)

TRAIN = {label: (c.train_positive, c.train_negative) for label, c in LABEL_COUNTS.items()}
DEMO = DataDescription("the demo set", False, 0.334, TRAIN, ceiling=0.8)
OPENMIC = DataDescription("OpenMIC-2018", True, 0.398, TRAIN)
BASELINE = {label: f1 / 100 for label, f1 in F1_BY_LABEL["none"].items()}


def result(name="none", macro_f1=(0.60, 0.61, 0.65), **more):
    figures = {"macro_f1": macro_f1, "positive_f1": (0.5,), "map": (0.7,)}
    return SystemResult(name, figures=figures, **{"params": 2_836, "f1_by_label": BASELINE, **more})


def cells(table):
    """Return a Markdown table as dicts by heading, one a row."""
    heading, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    return [dict(zip(heading, row, strict=True)) for row in rows]


def table_below(report, heading):
    text = report.read_text().split(f"{heading}\n\n")[1]
    return cells(text.split("\n\n")[0])


def test_a_row_of_table_1_holds_ours_beside_the_papers():
    (row,) = cells(
        systems_table(
            [result("unet", params=4_121, seconds=33.4, configuration="unet depth 2 width 3, linear mapper")], OPENMIC
        )
    )
    assert row == {
        "system": "unet",
        "in the paper": "AST-URP",
        "configuration": "unet depth 2 width 3, linear mapper",
        "trainable parameters": "4,121",
        "the paper's (M)": "0.018",
        "macro-F1": "0.620 ± 0.026",
        "min to max": "0.600 to 0.650",
        "seeds": "3",
        "positive F1": "0.500",
        "mAP": "0.700",
        "the paper's median": "0.815",
        "seconds": "33",
    }


def report_on(folder, results=None, *, data=DEMO, **more):
    """Write a report; return its text and the names of its figures with their SVG text."""
    report, *files = write_paper_report(folder, results or [result()], data=data, suffixes=(".svg",), **more)
    return report, {path.name: path.read_text() for path in files}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    results = [result("unet", count_note="half of it is a teacher"), result(), SystemResult("random_forest")]
    more = {"comparisons": "unet - none: 0.05\n", "notes": ["one seed", "test was read 2 times"]}
    return report_on(tmp_path_factory.mktemp("demo"), results, **more)


@pytest.fixture(scope="module")
def openmic(tmp_path_factory):
    return report_on(tmp_path_factory.mktemp("openmic"), [result(), result("unet")], data=OPENMIC)


def test_systems_stand_in_the_order_given_and_keep_their_row_without_a_finished_run(demo):
    rows = table_below(demo[0], "## Table 1: parameters and macro-F1")
    assert [row["system"] for row in rows] == ["unet", "none", "random_forest"]
    assert [rows[2][name] for name in ("trainable parameters", "macro-F1", "seeds")] == ["-", "-", "0"]
    headings = list(table_below(demo[0], "## Fig. 5: F1 by label")[0])
    assert headings == ["label", "positive training clips", "unet (AST-URP)", "none (AST-BS)"]


def test_the_legend_has_the_floor_the_ceiling_and_the_reason_for_another_count(demo):
    text = demo[0].read_text()
    for part in ("answer has 0.334.", "all labels revealed, has 0.800.", "unet (AST-URP): half of it is a teacher."):
        assert part in text
    figure = demo[1]["fig4_macro_f1.svg"]
    assert "majority class 0.334" in figure
    assert "0.800" in figure


def test_the_papers_f1_stand_beside_ours_on_openmic_alone(demo, openmic):
    by_label = table_below(openmic[0], "## Fig. 5: F1 by label")
    assert by_label[0]["none (AST-BS)"] == "0.440 (0.440)"
    assert float(by_label[-1]["none (AST-BS)"]) == pytest.approx(0.6175, abs=0.001)
    assert "published median" in openmic[1]["fig4_macro_f1.svg"]
    for text in ("the paper's median", "(0.440)"):
        assert text not in demo[0].read_text()
    assert "published median" not in demo[1]["fig4_macro_f1.svg"]


def test_the_report_links_every_figure(demo):
    linked = re.findall(r"!\[[^]]+\]\((.+?)\)", demo[0].read_text())
    assert linked == list(demo[1])
    assert len(linked) == 5


def test_comparisons_and_notes_are_passed_on_and_leave_no_empty_section(demo, openmic):
    text = demo[0].read_text()
    assert "## Differences between systems\n\nunet - none: 0.05\n\n## Notes" in text
    assert "## Notes\n\n- one seed\n- test was read 2 times\n\n## Figures" in text
    assert not {"Differences", "Notes"} & set(openmic[0].read_text().split())


def test_the_correlation_of_the_papers_own_figures_is_the_papers(openmic):
    assert correlation_with_positives(result(), OPENMIC) == pytest.approx(0.75, abs=0.01)
    rows = table_below(openmic[0], "## Positive clips and F1")
    assert rows[0] == {"system": "none (AST-BS)", "r": "0.74"}
    assert "The paper reports 0.75 for AST-BS" in openmic[0].read_text()


def test_one_seed_has_no_spread_and_equal_labels_have_no_correlation():
    (row,) = cells(systems_table([result(macro_f1=(0.6,))], DEMO))
    assert (row["macro-F1"], row["min to max"], row["seconds"]) == ("0.600", "0.600 to 0.600", "-")
    assert correlation_with_positives(result(f1_by_label=dict.fromkeys(TRAIN, 0.5)), DEMO) is None


def test_before_any_run_the_labels_are_drawn(tmp_path):
    report, figures = report_on(tmp_path, [SystemResult("unet")])
    assert list(figures) == ["fig3_labels.svg"]
    assert report.exists()
