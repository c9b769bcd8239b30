"""A run over many jobs: what is done is left out, the rest carried out, each with its line."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sglat.batch.engine import Engine
from sglat.batch.plan import Verdict, forget_stamp, judge
from sglat.batch.results import Record, Results
from sglat.batch.work import Facts, Job, failure
from sglat.files import hash_file


@dataclass(kw_only=True)
class Summary:
    """Counts of a run."""

    files: int
    """In the list, or its shard."""
    made: int = 0
    """In this run."""
    already: int = 0
    """Done by an earlier run."""
    failed: int = 0
    """In this run, or in an earlier one and not tried again."""
    unwritten: int = 0
    """Lines for which there was no room on the disk."""
    seconds: float = 0.0
    """Wall time of this run."""
    size_bytes: int = 0
    """Of the outputs made in this run."""
    codes: dict[str, int] = field(default_factory=dict)
    """Failures by their codes."""
    begun: int = 0
    """Files that this run works on."""
    file_seconds: float = 0.0
    """Time of the files made, added up."""

    @property
    def ended(self) -> int:
        """Files that need nothing more."""
        return self.made + self.already + self.failed

    def seconds_left(self, workers: int) -> float | None:
        """Return the time that the rest takes by the files made so far; None before the first."""
        if not self.made:
            return None
        return (self.files - self.ended) * self.file_seconds / self.made / max(1, workers)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


Progress = Callable[[Summary, Record | None], None]
"""Called at the start with None, and with each line."""


def run_batch(
    jobs: Sequence[Job],
    results: Results,
    engine: Engine,
    *,
    is_forced: bool = False,
    is_retried: bool = False,
    progress: Progress | None = None,
    summary: Summary | None = None,
) -> Summary:
    """Carry out jobs, and append one line for each that ends.

    Args:
        jobs: of the whole list or its shard.
        results: lines of earlier runs, and where new ones go.
        engine: what carries them out.
        is_forced: replace outputs that were made otherwise.
        is_retried: try again inputs that failed before.
        progress: called at the start and after each file.
        summary: filled as the run goes, so that it is there after Ctrl-C.
    """
    began = time.monotonic()
    summary = Summary(files=len(jobs)) if summary is None else summary
    tell = progress or (lambda counts, record: None)
    todo: list[Job] = []
    for job in jobs:
        verdict = judge(job, results, is_forced=is_forced, is_retried=is_retried)
        if verdict.state == "open":
            todo.append(job)
        elif (record := _settle(job, verdict, results, summary)) is not None:
            tell(summary, record)
    summary.begun = len(todo)
    tell(summary, None)
    for job, facts in engine.run(todo):
        record = _line(job, facts)
        _count(summary, record)
        if not results.append(record):
            summary.unwritten += 1
        elif record["code"] != "worker-lost":  # what a dead process has left is swept by the next
            forget_stamp(job)
        summary.seconds = round(time.monotonic() - began, 3)
        tell(summary, record)
    if summary.unwritten and results.flush():
        summary.unwritten = 0
    summary.seconds = round(time.monotonic() - began, 3)
    return summary


def _settle(job: Job, verdict: Verdict, results: Results, summary: Summary) -> Record | None:
    """Count a job that needs no work; return its line where there is a new one."""
    if verdict.state == "done":
        summary.already += 1
        forget_stamp(job)
        return None
    last = results.last(job.work.command, job.output)
    if verdict.state == "failed":
        summary.failed += 1
        _count_code(summary, str((last or {}).get("code")))
        return None
    if verdict.state == "found":
        summary.already += 1
        record = _line(job, _found(job))
        if results.append(record):
            forget_stamp(job)
        return record
    code, _, message = verdict.fault.partition(": ")
    record = _line(job, failure(code, message, "UsageError") | {"seconds": 0.0})
    summary.failed += 1
    _count_code(summary, code)
    if last is None or last.get("code") != code:
        results.append(record)
    return record


def _found(job: Job) -> Facts:
    """Return the facts of an output that was complete when the run before it was killed."""
    from sglat.batch.inputs import signature

    stated = signature(job.source)
    return {
        "status": "done", "code": None, "error": None, "message": None, "seconds": None,
        "quality": None, "bytes": job.target.stat().st_size,
        "output_sha256": hash_file(job.target),
        "input_signature": None if stated is None else list(stated),
        "messages": ["complete when the run before was interrupted"],
    }  # fmt: skip


def _line(job: Job, facts: Facts) -> Record:
    head = {"command": job.work.command, "input": job.source, "output": job.output}
    return {
        **head, "status": facts["status"], "code": facts["code"], "message": facts["message"],
        "seconds": facts.get("seconds"), "bytes": facts.get("bytes"),
        "quality": facts.get("quality"), **facts, "key": job.key,
        "finished": round(time.time(), 3),
    }  # fmt: skip


def _count(summary: Summary, record: Record) -> None:
    if record["status"] == "done":
        summary.made += 1
        summary.size_bytes += int(record.get("bytes") or 0)
        summary.file_seconds += float(record.get("seconds") or 0.0)
    else:
        summary.failed += 1
        _count_code(summary, str(record["code"]))


def _count_code(summary: Summary, code: str) -> None:
    summary.codes[code] = summary.codes.get(code, 0) + 1
