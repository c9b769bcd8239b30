"""Tables, targets and provenance of reports."""

from __future__ import annotations

from typing import Any

import pytest

from sglat_lab.report import pages
from sglat_lab.report.pages import Figure

RECORD: dict[str, Any] = {"speed": {"fps": 24.5, "other": 30.0}, "is_exact": True, "span": 4.0}


def figure(**options: Any) -> Figure:
    return Figure(label="speed", path="speed/fps", digits=1, **options)


def test_a_table_is_markdown_and_nothing_without_rows() -> None:
    assert pages.grid(["what", "fps"], [["a", "1"], ["b", "2"]]).splitlines() == [
        "| what | fps |", "|---|---|", "| a | 1 |", "| b | 2 |",
    ]  # fmt: skip
    assert pages.grid(["what"], []) == ""


@pytest.mark.parametrize(
    ("value", "text"), [(1.005, "1.00"), (3, "3.00"), (None, "–"), ("not measured", "not measured")]
)
def test_a_number_has_its_digits_and_nothing_is_a_dash(value: object, text: str) -> None:
    assert pages.number(value) == text


def test_a_path_leads_through_keys_or_to_nothing() -> None:
    assert pages.lookup(RECORD, "speed/fps") == 24.5
    assert pages.lookup(RECORD, "speed/fps/deeper") is None
    assert pages.lookup(RECORD, "absent") is None


@pytest.mark.parametrize(
    ("options", "is_met", "text"),
    [
        ({"least": 25}, False, "≥ 25"),
        ({"least": 24}, True, "≥ 24"),
        ({"most": 24.5}, True, "≤ 24.5"),
        ({"least": 20, "most": 24}, False, "20 to 24"),
        ({"below": "speed/other"}, True, "< inverter"),
        ({"least": 25, "needs": "span", "needs_least": 5.0}, None, "≥ 25 where span ≥ 5"),
        ({"least": 25, "needs": "span", "needs_least": 4.0}, False, "≥ 25 where span ≥ 4"),
        ({}, None, ""),
    ],
)
def test_a_target_is_met_missed_or_does_not_apply(
    options: dict[str, Any], is_met: bool | None, text: str
) -> None:
    assert figure(**options).is_met(RECORD) is is_met
    assert figure(**options).target() == text


def test_a_claim_that_does_not_hold_misses_its_target() -> None:
    claim = Figure(label="exact", path="is_exact", least=1, unit="yes")
    assert (claim.target(), claim.found(RECORD), claim.is_met(RECORD)) == ("yes", "yes", True)
    assert (claim.found({"is_exact": False}), claim.is_met({"is_exact": False})) == ("NO", False)


def test_a_missing_figure_meets_nothing_and_misses_nothing() -> None:
    assert figure(least=25).is_met({}) is None
    assert figure(least=25).found({}) == "–"


def test_targets_travel_in_the_record() -> None:
    from dataclasses import asdict

    record = RECORD | {"targets": [asdict(figure(least=25, unit="fps")), asdict(figure(most=30))]}
    assert pages.target_grid(record).splitlines()[2:] == [
        "| speed | ≥ 25 fps | 24.5 fps | **missed** |", "| speed | ≤ 30 | 24.5 | met |",
    ]  # fmt: skip


def test_a_column_a_record_and_misses_are_bold_and_listed() -> None:
    records = {"slow": RECORD, "fast": {"speed": {"fps": 60.0}}}
    assert pages.figure_rows(records, [figure(least=25)]) == [["speed", "≥ 25", "**24.5**", "60.0"]]
    assert pages.misses(records, [figure(least=25)]) == ["slow: speed 24.5, target ≥ 25"]


def test_provenance_names_commit_machine_and_command_without_folders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", ["x", "/secret/clips", "--out", "/secret/report", "--quick"])
    run = pages.provenance("sgl-bench", bundle="mini")
    assert run["command"] == "sgl-bench clips --out report --quick"
    assert run["bundle"] == "mini"
    assert run["packages"]["numpy"] is not None
    (line,) = pages.provenance_lines([run])
    assert line.startswith(f"* commit {run['commit'] or 'unknown'}; {run['machine']}; Python 3.")
    assert line.endswith("`sgl-bench clips --out report --quick`")


def test_a_page_ends_with_its_provenance() -> None:
    text = pages.page("constriction", {"tracks": {}, "runs": [{}]})
    assert text.startswith("# Motion coder against constriction\n\n*Same model*")
    assert text.endswith("## Provenance\n\n* commit unknown\n")
