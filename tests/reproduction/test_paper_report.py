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
    return SystemResult(
        name, more.pop("params", 2_836), macro_f1, (0.5,), (0.7,), more.pop("f1_by_label", BASELINE), **more
    )


def unfinished(name):
    return SystemResult(name, None, (), (), (), {})


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


def test_the_legend_says_what_is_counted_and_why_the_paper_counts_otherwise(tmp_path):
    report, *_ = write_paper_report(tmp_path, [result(count_note="half of it is a teacher")], data=DEMO)
    text = report.read_text()
    assert "are those of the configuration in the table, on this backbone" in text
    assert "none (AST-BS): half of it is a teacher." in text
    assert "768" not in text


def test_the_papers_f1_stand_nowhere_in_a_report_on_other_data(tmp_path):
    report, *files = write_paper_report(tmp_path, [result()], data=DEMO)
    assert "the paper's median" not in report.read_text()
    assert "(0.440)" not in report.read_text()
    (figure,) = [path for path in files if path.name == "fig4_macro_f1.svg"]
    assert "published median" not in figure.read_text()
    assert "majority class 0.334" in figure.read_text()
    assert "training positives all known 0.800" in figure.read_text()
    assert "told all that plays in the training clips and a balanced share of what does not, has 0.800." in (
        report.read_text()
    )
    assert "every label" not in report.read_text()


def test_the_papers_f1_stand_beside_ours_in_a_report_on_openmic(tmp_path):
    report, *files = write_paper_report(tmp_path, [result()], data=OPENMIC)
    by_label = table_below(report, "## Fig. 5: F1 by label")
    assert by_label[0] == {"label": "accordion", "positive training clips": "374", "none (AST-BS)": "0.440 (0.440)"}
    assert float(by_label[-1]["none (AST-BS)"]) == pytest.approx(0.6175, abs=0.001)
    (figure,) = [path for path in files if path.name == "fig4_macro_f1.svg"]
    assert "published median" in figure.read_text()


def test_the_report_links_every_figure_and_all_files_exist(tmp_path):
    report, *figures = write_paper_report(tmp_path / "new", [result(), result("unet")], data=DEMO)
    assert all(path.exists() for path in (report, *figures))
    linked = re.findall(r"!\[[^]]+\]\((.+?)\)", report.read_text())
    assert linked == [path.name for path in figures if path.suffix == ".png"]
    assert len(linked) == 4
    assert {path.suffix for path in figures} == {".png", ".svg"}


def test_systems_stand_in_the_order_given(tmp_path):
    report, *_ = write_paper_report(tmp_path, [result("unet"), result("none")], data=DEMO, suffixes=[".png"])
    assert [row["system"] for row in table_below(report, "## Table 1: parameters and macro-F1")] == ["unet", "none"]


def test_the_correlation_of_the_papers_own_figures_is_the_papers(tmp_path):
    assert correlation_with_positives(result(), OPENMIC) == pytest.approx(0.75, abs=0.01)
    report, *_ = write_paper_report(tmp_path, [result(), result("unet")], data=OPENMIC, suffixes=[".png"])
    rows = table_below(report, "## Positive clips and F1")
    assert rows[0] == {"system": "none (AST-BS)", "r": "0.74"}
    assert "The paper reports 0.75 for AST-BS" in report.read_text()


def test_labels_that_all_score_alike_have_no_correlation(tmp_path):
    alike = result(f1_by_label=dict.fromkeys(TRAIN, 0.5))
    assert correlation_with_positives(alike, DEMO) is None
    report, *_ = write_paper_report(tmp_path, [alike], data=DEMO)
    assert table_below(report, "## Positive clips and F1") == [{"system": "none (AST-BS)", "r": "-"}]


def test_one_seed_has_no_spread():
    (row,) = cells(systems_table([result(macro_f1=(0.6,))], DEMO))
    assert (row["macro-F1"], row["min to max"], row["seconds"]) == ("0.600", "0.600 to 0.600", "-")


def test_a_system_without_a_finished_run_keeps_its_row(tmp_path):
    report, *figures = write_paper_report(tmp_path, [result(), unfinished("random_forest")], data=DEMO)
    row = table_below(report, "## Table 1: parameters and macro-F1")[1]
    assert (row["system"], row["trainable parameters"], row["macro-F1"], row["seeds"]) == (
        "random_forest",
        "-",
        "-",
        "0",
    )
    assert list(table_below(report, "## Fig. 5: F1 by label")[0]) == [
        "label",
        "positive training clips",
        "none (AST-BS)",
    ]
    assert len(figures) == 8


def test_before_any_run_the_labels_are_drawn(tmp_path):
    report, *figures = write_paper_report(tmp_path, [unfinished("unet")], data=DEMO)
    assert [path.name for path in figures] == ["fig3_labels.png", "fig3_labels.svg"]
    assert report.exists()


def test_comparisons_are_passed_on_and_leave_no_empty_section(tmp_path):
    report, *_ = write_paper_report(tmp_path, [result()], data=DEMO, comparisons="unet - none: 0.05\n")
    assert "## Differences between systems\n\nunet - none: 0.05\n\n## Figures" in report.read_text()
    report, *_ = write_paper_report(tmp_path, [result()], data=DEMO)
    assert "Differences" not in report.read_text()


def test_notes_are_passed_on_and_leave_no_empty_section(tmp_path):
    report, *_ = write_paper_report(tmp_path, [result()], data=DEMO, notes=["one seed", "test was read 2 times"])
    assert "## Notes\n\n- one seed\n- test was read 2 times\n\n## Figures" in report.read_text()
    report, *_ = write_paper_report(tmp_path, [result()], data=DEMO)
    assert "Notes" not in report.read_text()


@pytest.mark.parametrize("results", [[], [result(), result()]])
def test_no_system_and_one_system_twice_are_refused(results, tmp_path):
    with pytest.raises(ValueError, match=r"systems='(none,none)?': must be at least one, each once"):
        write_paper_report(tmp_path, results, data=DEMO)


def test_a_system_that_the_paper_does_not_have_is_refused():
    with pytest.raises(ValueError, match="system='vae': must be one of none, cnn_baseline, noise, cnn, random_forest"):
        result("vae")
