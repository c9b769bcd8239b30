"""`sgl-bench` end to end on drawn clips with a random bundle; no network judges, and it says so."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import av
import numpy as np
import pytest

from tests.bundles.tiny import make_tiny_bundle
from tests.support.commands import status_of
from tests.support.files import write_file
from tests.support.video import moving_square, write_video

pytest.importorskip("skimage")
pytest.importorskip("matplotlib")
pytest.importorskip("bjontegaard")

FRAMES = 24


def launched(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a fresh process."""
    return subprocess.run(
        [sys.executable, "-m", "sglat_lab.bench.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "SGLAT_SHARED": "/nowhere"},
    )


def bench(capture: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Run the command in this process; return its exit status and what it said."""
    capture.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SGLAT_SHARED", "/nowhere")
        status = status_of("bench", *arguments, module="sglat_lab.bench.cli")
    return status, capture.readouterr().err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two clips, their files, a bundle and a finished report."""
    folder = Path(tmp_path_factory.mktemp("bench"))
    bundle = make_tiny_bundle(folder / "bundle")
    for name in ("clips", "encoded"):
        (folder / name).mkdir()
    for seed, clip in enumerate(("one", "two")):
        pictures = [moving_square(i + 7 * seed) for i in range(FRAMES)]
        write_video(folder / "clips" / f"{clip}.mp4", pictures)
        write_file(folder / "encoded" / f"{clip}.sglat", bundle, frames=FRAMES, seed=seed)
    done = launched(*options(folder))
    assert done.returncode == 0, done.stderr
    (folder / "stdout.txt").write_text(done.stdout)
    shutil.copytree(folder / "out", folder / "first")  # later runs are shorter
    return folder


def options(folder: Path) -> list[object]:
    return [
        folder / "clips", "--out", folder / "out", "--encoded", folder / "encoded",
        "--bundle", folder / "bundle", "--quick", "--minutes", 1,
    ]  # fmt: skip


def test_the_four_forms_are_written_and_named_on_stdout(folder: Path) -> None:
    named = (folder / "stdout.txt").read_text().split()
    assert [Path(name).name for name in named] == [
        "report.html", "results.json", "results.csv", "results.md",
    ]  # fmt: skip
    assert all(Path(name).stat().st_size > 0 for name in named)


def test_what_could_not_be_measured_says_what_it_needs(folder: Path) -> None:
    record = json.loads((folder / "out" / "results.json").read_text())
    assert "LPIPS-like" in record["not_measured"]
    assert "perceptual" not in record["clips"][0]["ours"]["figures"]
    assert "not measured: needs" in (folder / "out" / "results.md").read_text()


def test_the_page_needs_nothing_from_elsewhere(folder: Path) -> None:
    page = (folder / "first" / "report.html").read_text()
    for outside in ('src="http', 'href="http', "<script", 'src="/', "@import"):
        assert outside not in page
    assert page.count("data:video/webm;base64,") == 2
    record = json.loads((folder / "out" / "results.json").read_text())
    rows = 2 + len(record["about"]["anchors"])  # source, ours, anchors
    assert page.count("data:image/png;base64,") == 2 * rows
    assert page.count("<svg") >= 5  # curves, each clip's, rates, loss, memory


def test_the_videos_in_the_page_play(folder: Path) -> None:
    page = (folder / "first" / "report.html").read_text()
    for text in re.findall(r'src="data:video/webm;base64,([^"]+)"', page):
        with av.open(io.BytesIO(base64.b64decode(text))) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(frames) == FRAMES
        assert np.ptp(frames[0]) > 50


def test_the_plots_in_the_page_are_well_formed(folder: Path) -> None:
    page = (folder / "first" / "report.html").read_text()
    for text in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        drawing = ElementTree.fromstring(text)
        assert len(list(drawing.iter("{http://www.w3.org/2000/svg}path"))) > 10


def test_no_anchor_stands_at_a_rate_it_does_not_reach(folder: Path) -> None:
    record = json.loads((folder / "out" / "results.json").read_text())
    for clip in record["clips"]:
        wanted = clip["ours"]["kbit_per_second_60s"]
        for version in clip["at_our_rate"].values():
            reached = [
                p["kbit_per_second_60s"] for p in clip["curves"][version["codec"]]
            ]  # the coarsest level is in every sweep
            assert version["is_lowest"] == (min(reached) > wanted)
            if version["is_lowest"]:
                assert version["kbit_per_second_60s"] == min(reached)


def test_the_rate_of_our_file_is_that_of_its_bytes(folder: Path) -> None:
    record = json.loads((folder / "out" / "results.json").read_text())
    for clip in record["clips"]:
        size = (folder / "encoded" / f"{clip['clip']}.sglat").stat().st_size
        assert clip["ours"]["kbit_per_second_clip"] == pytest.approx(8e-3 * size / (FRAMES / 25))


def test_the_table_of_versions_has_a_line_for_each(folder: Path) -> None:
    record = json.loads((folder / "out" / "results.json").read_text())
    with (folder / "out" / "results.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    expected = sum(
        len(clip["at_our_rate"]) + sum(map(len, clip["curves"].values()))
        for clip in record["clips"]
    )
    assert len(lines) == expected
    assert all(float(line["psnr"]) > 0 for line in lines)


def test_the_command_in_the_report_names_no_folder_of_the_machine(folder: Path) -> None:
    assert str(folder) not in (folder / "out" / "results.md").read_text()


def test_a_repeated_run_measures_nothing_again(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stamps = {p: p.stat().st_mtime_ns for p in (folder / "out" / "cache").rglob("*.json")}
    status, said = bench(capfd, *options(folder), "--no-speed")
    assert status == 0, said
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps


def test_a_clip_without_its_file_is_left_out_and_said(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder / "encoded", tmp_path / "encoded")
    (tmp_path / "encoded" / "two.sglat").unlink()
    status, said = bench(
        capfd, folder / "clips", "--out", folder / "out", "--encoded", tmp_path / "encoded",
        "--bundle", folder / "bundle", "--quick", "--no-speed",
    )  # fmt: skip
    assert status == 0, said
    assert "two.mp4 left out: not-encoded" in said


def test_an_empty_folder_is_wrong_usage_in_one_line(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "none").mkdir()
    where = ("--out", tmp_path / "out", "--bundle", folder / "bundle")
    status, said = bench(capfd, tmp_path / "none", *where, "--quick")
    assert status == 2
    assert said.splitlines()[-1].startswith("error: no-clips")


def test_memory_and_start_up_are_measured(folder: Path) -> None:
    speed = json.loads((folder / "first" / "results.json").read_text())["speed"]
    assert [point["frames"] for point in speed["decode_memory"]] == [72, 264]  # whole repeats
    assert all(point["peak_memory_megabytes"] > 30 for point in speed["decode_memory"])
    assert speed["decoding"][0]["device"] == "cpu"
    assert speed["decoding"][0]["import_seconds"] > 0
    assert speed["decoding"][0]["reference_ratio"] > 0


def test_the_headline_says_at_once_what_could_not_be_judged(folder: Path) -> None:
    page = (folder / "first" / "report.html").read_text()
    assert "No network was at hand to measure" in page


def test_solvers_of_files_made_earlier_are_not_measured_and_it_is_said(folder: Path) -> None:
    record = json.loads((folder / "out" / "results.json").read_text())
    assert record["solvers"].startswith("not measured: expected a clip that was encoded")


def test_every_swap_is_set_against_playing_the_driver(folder: Path) -> None:
    record = json.loads((folder / "first" / "results.json").read_text())
    assert [(s["driver"], s["puppet"]) for s in record["swap"]] == [("one", "two"), ("two", "one")]
    assert "driver's video played" in (folder / "first" / "results.md").read_text()


def test_every_probe_has_its_tables_in_the_report(folder: Path) -> None:
    page = (folder / "first" / "results.md").read_text()
    titles = [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")]
    assert titles == [
        "Is sglat better at its whole rate over 60 s?", "At the rate of our whole file",
        "Each of our rates against the anchors' curves", "When the identity is already there",
        "Clip by clip at our rate", "What our files cost",
        "Motion: the same integers through other coders, bits a frame",
        "Swapped: one clip's motion with another clip's identity",
        "Motion groups lost and interpolated", "Damaged files", "Decoding in a fresh process",
        "Peak memory against the length of the clip", "The method's solver against the fast one",
        "Not measured", "Settings", "Provenance",
    ]  # fmt: skip


def test_probes_that_were_not_chosen_are_left_out_of_the_report(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status, said = bench(capfd, *options(folder), "--probes", "rates")
    assert status == 0, said
    page = (folder / "out" / "results.md").read_text()
    assert "## What our files cost" in page
    for title in ("Damaged files", "Motion groups lost", "Swapped", "Peak memory"):
        assert title not in page
    assert json.loads((folder / "out" / "results.json").read_text())["about"]["probes"] == [
        "quality", "rates",
    ]  # fmt: skip


def test_an_unknown_probe_is_wrong_usage_in_one_line(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status, said = bench(capfd, *options(folder), "--probes", "beauty")
    assert status == 2
    assert said.splitlines()[-1].startswith("error: no-probe")


PROBE = """<script>
const said = [];
window.addEventListener("error", e => said.push(String(e.message || e.target.tagName)), true);
window.onload = () => setTimeout(() => {
  const all = (what, good) => {
    const found = [...document.querySelectorAll(what)];
    return [found.length, found.filter(good).length];
  };
  document.querySelectorAll("details").forEach(d => { d.open = true; });
  document.title = JSON.stringify({
    images: all("img", x => x.complete && x.naturalWidth > 0 && x.naturalHeight > 0),
    videos: all("video", x => x.readyState >= 2 && x.duration > 0 && x.videoWidth > 0 && !x.error),
    plots: all("svg", x => x.getBoundingClientRect().width > 200
                           && x.querySelectorAll("path").length > 10),
    links: all("nav a", x => document.querySelector(x.getAttribute("href"))),
    seconds: [...document.querySelectorAll("video")].map(x => x.duration),
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    errors: said});
}, 4000);
</script>"""


def browser() -> str:
    """Return a Chromium, or skip the calling test."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"needs a browser: none of {', '.join(names)} is installed")
    return found


@pytest.fixture(scope="module")
def seen(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what a browser that has loaded the page says of it."""
    program = browser()
    scratch = Path(tmp_path_factory.mktemp("browser"))
    page = (folder / "first" / "report.html").read_text()
    probed = scratch / "report.html"
    probed.write_text(page.replace("<style>", PROBE + "<style>", 1))
    done = subprocess.run(
        [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         f"--user-data-dir={scratch / 'profile'}", "--window-size=1280,900",
         "--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom", probed.as_uri()],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout, flags=re.DOTALL)
    assert title is not None, done.stderr
    found: dict[str, Any] = json.loads(html.unescape(title[1]))
    found["console"] = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return found


@pytest.mark.slow
def test_a_browser_shows_every_picture_and_plot(seen: dict[str, Any], folder: Path) -> None:
    page = (folder / "first" / "report.html").read_text()
    for kind, count in (("images", page.count("<img")), ("plots", page.count("<svg"))):
        assert seen[kind] == [count, count]
        assert count > 0


@pytest.mark.slow
def test_a_browser_can_play_every_video(seen: dict[str, Any]) -> None:
    assert seen["videos"] == [2, 2]
    assert seen["seconds"] == pytest.approx([FRAMES / 25] * 2, abs=0.05)


@pytest.mark.slow
def test_a_browser_has_nothing_to_complain_of(seen: dict[str, Any]) -> None:
    assert seen["errors"] == []
    assert seen["console"] == []


@pytest.mark.slow
def test_the_page_is_no_wider_than_the_window_and_its_menu_leads_somewhere(
    seen: dict[str, Any],
) -> None:
    assert seen["overflow"] <= 0
    assert seen["links"][0] == seen["links"][1] > 8
