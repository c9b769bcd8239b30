"""What is done stays done, what failed is said, and outputs of others are left alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sglat.batch.inputs import Entry
from sglat.batch.plan import make_jobs, parse_shard
from sglat.batch.results import Results, results_path
from sglat.batch.run import Summary, run_batch
from sglat.batch.work import EncodeWork, Facts, Job, perform, stamp_path, write_stamp
from sglat.bundles.bundle import Bundle
from sglat.encoder.config import EncodeConfig
from sglat.encoder.encode import encode
from sglat.errors import UsageError
from tests.batch.works import CopyWork, copy_jobs
from tests.encoder.test_encode import draw_clip, drawn_bundle

TEXTS = {"a": "one", "b": "two", "c": "three"}


class Here:
    """Does the jobs in this process, and notes which; `most` stops it as Ctrl-C does."""

    def __init__(self, most: int = 99) -> None:
        self.begun: list[str] = []
        self.most = most

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Facts]]:
        for job in jobs:
            if len(self.begun) == self.most:
                raise KeyboardInterrupt
            self.begun.append(job.output)
            yield job, perform(job)


def go(jobs: list[Job], engine: Here | None = None, **choices: bool) -> tuple[Summary, list[str]]:
    """Run jobs in this process; return counts, and the outputs that were worked on."""
    folder = jobs[0].target.parent
    results = Results(folder, results_path(folder, None))
    engine = engine or Here()
    return run_batch(jobs, results, engine, **choices), engine.begun


def lines(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a folder's results."""
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_a_second_run_does_nothing_and_adds_no_line(tmp_path: Path) -> None:
    go(copy_jobs(tmp_path, TEXTS))
    before = (tmp_path / "out/results.jsonl").read_bytes()
    summary, begun = go(copy_jobs(tmp_path, TEXTS))
    assert (summary.already, summary.made, begun) == (3, 0, [])
    assert (tmp_path / "out/results.jsonl").read_bytes() == before


def test_a_line_has_what_a_reader_needs(tmp_path: Path) -> None:
    go(copy_jobs(tmp_path, {"a": "one", "b": "face"}))
    good, bad = lines(tmp_path / "out")
    assert (good["output"], good["status"], good["bytes"]) == ("a.out", "done", 3)
    assert (bad["status"], bad["code"]) == ("failed", "no-face")
    assert {"input", "seconds", "quality", "code"} <= good.keys() & bad.keys()


def test_after_an_interruption_only_the_rest_is_done(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(copy_jobs(tmp_path, TEXTS), Here(most=1))
    _, begun = go(copy_jobs(tmp_path, TEXTS))
    assert begun == ["b.out", "c.out"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "a.out", "b.out", "c.out", "results.jsonl",
    ]  # fmt: skip


def test_an_output_whose_line_is_missing_is_found_by_its_stamp(tmp_path: Path) -> None:
    jobs = copy_jobs(tmp_path, TEXTS)
    perform(jobs[0])  # killed before its line was written
    assert stamp_path(jobs[0].target).exists()
    summary, begun = go(jobs)
    assert (begun, summary.already) == (["b.out", "c.out"], 1)
    assert [line["output"] for line in lines(tmp_path / "out")] == ["a.out", "b.out", "c.out"]
    assert not list((tmp_path / "out").glob(".*"))


def test_a_stamp_alone_does_not_make_an_older_output_done(tmp_path: Path) -> None:
    jobs = copy_jobs(tmp_path, {"a": "one"})
    jobs[0].target.write_text("OLD")
    write_stamp(jobs[0])  # killed before the output was replaced
    _, begun = go(jobs)
    assert begun == ["a.out"] and jobs[0].target.read_text() == "ONE"


def test_a_damaged_output_is_made_again(tmp_path: Path) -> None:
    jobs = copy_jobs(tmp_path, TEXTS)
    go(jobs)
    jobs[1].target.write_text("")
    _, begun = go(jobs)
    assert begun == ["b.out"] and jobs[1].target.read_text() == "TWO"


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("output-other", lambda folder: copy_jobs(folder, {"a": "one"}, setting="b")),
        ("output-other", lambda folder: copy_jobs(folder, {"a": "uno"})),
        ("output-changed", lambda folder: (folder / "out/a.out").write_text("MINE")),
        ("output-exists", lambda folder: (folder / "out/results.jsonl").unlink()),
    ],
)
def test_an_output_that_is_something_else_is_kept_unless_forced(
    tmp_path: Path, code: str, change: Any
) -> None:
    go(copy_jobs(tmp_path, {"a": "one"}))
    changed = change(tmp_path)
    jobs = changed if isinstance(changed, list) else copy_jobs(tmp_path, {"a": "one"})
    kept = jobs[0].target.read_bytes()
    summary, begun = go(jobs)
    assert (begun, summary.codes) == ([], {code: 1})
    assert jobs[0].target.read_bytes() == kept
    assert go(jobs, is_forced=True)[0].made == 1
    assert go(jobs, is_forced=True)[0].already == 1


def test_going_back_to_settings_whose_output_stands_is_done(tmp_path: Path) -> None:
    go(copy_jobs(tmp_path, {"a": "one"}))
    go(copy_jobs(tmp_path, {"a": "one"}, setting="b"))  # refused
    assert go(copy_jobs(tmp_path, {"a": "one"}))[0].already == 1


def test_an_input_that_moved_in_time_alone_is_the_same(tmp_path: Path) -> None:
    jobs = copy_jobs(tmp_path, {"a": "one"})
    go(jobs)
    Path(jobs[0].source).touch()
    assert go(jobs)[0].already == 1


def test_a_hopeless_input_is_tried_again_only_when_asked_and_a_full_disk_always(
    tmp_path: Path,
) -> None:
    jobs = copy_jobs(tmp_path, {"a": "face", "b": "full", "c": "fine"})
    summary, _ = go(jobs)
    assert (summary.made, summary.codes) == (1, {"no-face": 1, "file": 1})
    assert lines(tmp_path / "out")[1]["message"] == "the disk is full"
    summary, begun = go(jobs)
    assert (begun, summary.failed) == (["b.out"], 2)
    assert go(jobs, is_retried=True)[1] == ["a.out", "b.out"]


def test_a_torn_last_line_is_ended_and_its_file_done_again(tmp_path: Path) -> None:
    go(copy_jobs(tmp_path, TEXTS))
    path = tmp_path / "out/results.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    (tmp_path / "out/c.out").unlink()
    _, begun = go(copy_jobs(tmp_path, TEXTS))
    assert begun == ["c.out"]
    assert json.loads(path.read_text().splitlines()[-1])["output"] == "c.out"


def test_a_line_without_room_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = Results(tmp_path, tmp_path / "results.jsonl")
    with monkeypatch.context() as full:
        full.setattr("sglat.batch.results.os.write", lambda handle, data: 3)
        assert not results.append({"output": "a"})
    assert results.append({"output": "b"})
    assert [line["output"] for line in lines(tmp_path)] == ["a", "b"]


def test_missing_twice_named_and_clashing_inputs_are_one_line_each(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/a.txt").write_text("other")
    (tmp_path / "a.txt").write_text("one")
    paths = [("a.txt", "a"), ("x/a.txt", "a"), ("a.txt", "a"), ("gone.txt", "gone"), ("a", "../a")]
    entries = [Entry(source=str(tmp_path / path), name=name) for path, name in paths]
    (tmp_path / "out").mkdir()
    jobs, repeated = make_jobs(entries, tmp_path / "out", CopyWork())
    summary, _ = go(jobs)
    assert repeated == 1
    assert summary.codes == {"duplicate-output": 1, "input-missing": 1, "output-name": 1}
    assert summary.made == 1 and (tmp_path / "out/a.out").read_text() == "ONE"


def test_shards_share_out_all_jobs(tmp_path: Path) -> None:
    entries = [Entry(source=f"/{number}", name=str(number)) for number in range(11)]
    shards = [make_jobs(entries, tmp_path, CopyWork(), (i, 3))[0] for i in (1, 2, 3)]
    assert sorted(job.output for shard in shards for job in shard) == sorted(
        f"{number}.out" for number in range(11)
    )


@pytest.mark.parametrize("text", ["5/4", "0/4", "1/0", "1", "a/b", "-1/4", "1/4/2"])
def test_a_shard_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="bad-shard"):
        parse_shard(text)


def test_a_shard_counts_what_another_has_done(tmp_path: Path) -> None:
    jobs = copy_jobs(tmp_path, TEXTS)
    folder = jobs[0].target.parent
    run_batch(jobs, Results(folder, results_path(folder, (1, 2))), Here())
    summary = run_batch(jobs, Results(folder, results_path(folder, (2, 2))), Here())
    assert summary.already == 3


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    bundle = drawn_bundle(tmp_path / "tiny")
    monkeypatch.setattr("sglat.batch.work.held_bundle", lambda name, device: bundle)
    return bundle


def test_encoding_gives_the_bytes_of_a_single_encoding(tmp_path: Path, bundle: Bundle) -> None:
    config = EncodeConfig(tune_steps=2, identity_bytes=6_000, self_check=True)
    clips = [draw_clip(tmp_path / f"{name}.mp4", 6 + n) for n, name in enumerate("ab")]
    entries = [Entry(source=str(clip), name=clip.stem) for clip in clips]
    (tmp_path / "out").mkdir()
    jobs, _ = make_jobs(entries, tmp_path / "out", EncodeWork(config=config))
    facts = [perform(job) for job in jobs]
    assert [one["status"] for one in facts] == ["done", "done"], facts
    assert facts[1]["quality"]["psnr_db"] > 0
    encode(clips[1], tmp_path / "alone.sglat", config, bundle=bundle)
    assert (tmp_path / "alone.sglat").read_bytes() == jobs[1].target.read_bytes()


def test_a_video_without_a_face_leaves_nothing(tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video at all")
    (tmp_path / "out").mkdir()
    entry = Entry(source=str(tmp_path / "a.mp4"), name="a")
    work = EncodeWork(config=EncodeConfig())
    summary, _ = go(make_jobs([entry], tmp_path / "out", work)[0])
    assert summary.codes == {"media-unreadable": 1}
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["results.jsonl"]


def test_the_key_depends_on_choices_and_on_the_identity_but_not_on_threads(tmp_path: Path) -> None:
    def key(**choices: Any) -> str:
        return EncodeWork(config=EncodeConfig(**choices)).key()

    me = tmp_path / "me.sglat"
    me.write_bytes(b"me")
    first = key(identity=me)
    me.write_bytes(b"another")
    assert key(threads=1, force=True, workfile=tmp_path) == key(threads=2)
    assert len({key(), key(seed=1), key(preset="live"), first, key(identity=me)}) == 5
