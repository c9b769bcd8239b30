"""Pages of `benchmarks/results`: made from their records, with targets and provenance."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from sglat_lab.report import pages

RESULTS = Path(__file__).resolve().parents[3] / "benchmarks" / "results"
NAMES = sorted(path.stem for path in RESULTS.glob("*.json"))


def record_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def rows_of(text: str, label: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith(f"| {label} |")]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_what_its_record_gives(name: str) -> None:
    assert (RESULTS / f"{name}.md").read_text() == pages.page(name, record_of(name))


def test_every_page_has_a_record_and_every_record_a_page() -> None:
    for kind in ("md", "json"):
        assert {path.stem for path in RESULTS.glob(f"*.{kind}")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_provenance_stands_at_the_end_alone(name: str) -> None:
    text = (RESULTS / f"{name}.md").read_text()
    commits = [run["commit"] for run in record_of(name)["runs"]]
    body, _, end = text.partition("## Provenance")
    assert commits
    assert all(commit in end and commit not in body for commit in commits)


@pytest.mark.parametrize("name", ["clips", "mini"])
def test_the_caveat_stands_beside_the_figures(name: str) -> None:
    assert pages.part("independence") in (RESULTS / f"{name}.md").read_text()


def test_a_changed_figure_changes_its_verdict() -> None:
    record = record_of("mini")
    assert rows_of(pages.page("mini", record), "inverter alone, PSNR")[0][-1] == "**missed**"
    record["inversion"]["psnr"] = 25.0
    assert rows_of(pages.page("mini", record), "inverter alone, PSNR")[0][2:] == [
        "25.00 dB",
        "met",
    ]


def test_a_clip_that_misses_a_target_is_bold_and_listed() -> None:
    record = record_of("clips")
    record["clips"]["d6"]["figures"]["jitter_ratio"] = 1.5
    text = pages.page("clips", record)
    assert "**1.50**" in rows_of(text, "jitter / source's")[0]
    assert "* d6: jitter / source's 1.50, target ≤ 1.2" in text


def test_other_bytes_after_a_kill_are_said_loudly() -> None:
    record = record_of("clips")
    record["resume"]["is_same"] = False
    assert "OTHER BYTES than the undisturbed run" in pages.page("clips", record)


def test_without_a_recorded_mean_it_is_that_of_the_clips() -> None:
    record = record_of("clips")
    del record["mean"]
    ssim = [clip["figures"]["ours"]["ssim"] for clip in record["clips"].values()]
    row = rows_of(pages.page("clips", record), "**mean**")[0]
    assert row[4] == f"{fmean(ssim):.3f}"


def test_pages_of_a_folder_are_written_beside_their_records(tmp_path: Path) -> None:
    record = record_of("synthesis")
    record["machines"][0]["rows"][0]["ratio"]["fast"] = 2.5
    (tmp_path / "synthesis.json").write_text(json.dumps(record))
    assert pages.write_pages(tmp_path) == [tmp_path / "synthesis.md"]
    assert "| 2.50 |" in (tmp_path / "synthesis.md").read_text()
