"""Which jobs there are, and which of them are done: by their lines and the outputs themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from sglat.batch.inputs import Entry, is_remote, signature
from sglat.batch.results import Record, Results
from sglat.batch.work import Job, Work, read_stamp, stamp_path, state_of
from sglat.encoder.workfile import default_workfile
from sglat.errors import SglatError, UsageError
from sglat.files import hash_file

SETTLED: Final = ("FaceError", "FormatError", "MediaError")
"""Errors of an input, which would fail again; others may pass, as that of a full disk."""
_OF_OUTPUT: Final = ("output-refused",)


def parse_shard(text: str) -> tuple[int, int] | None:
    """Return number and count of `2/8`; None for nothing.

    Raises:
        UsageError: `bad-shard`.
    """
    if not text:
        return None
    number, slash, count = text.partition("/")
    if slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
        return int(number), int(count)
    raise UsageError("bad-shard", f"expected a shard from 1/N to N/N such as 2/8, got {text!r}")


def make_jobs(
    entries: Sequence[Entry], folder: Path, work: Work, shard: tuple[int, int] | None = None
) -> tuple[list[Job], int]:
    """Return the jobs of a run and how many entries named a file for the second time.

    Two files that would give the same output, or an output outside the folder, become jobs that
    fail. A shard takes every n-th job; which these are depends on the list alone.

    Args:
        entries: in the order of the list.
        folder: the output folder.
        work: of all files.
        shard: number from 1, and count.
    """
    key, ending = work.key(), work.ending()
    jobs: list[Job] = []
    sources: set[str] = set()
    makers: dict[str, str] = {}
    for entry in entries:
        if entry.source in sources:
            continue
        sources.add(entry.source)
        output = _output(entry, ending) if ending else entry.source
        target = folder / (output if ending else f"{len(jobs)}")
        fault = _fault(entry, output, target, folder, makers) if ending else None
        makers.setdefault(output, entry.source)
        jobs.append(
            Job(source=entry.source, output=output, target=target, work=work, key=key, fault=fault)
        )
    number, count = shard or (1, 1)
    return jobs[number - 1 :: count], len(entries) - len(sources)


def _output(entry: Entry, ending: str) -> str:
    name = PurePosixPath(Path(entry.name).as_posix())
    return str(name) if name.suffix.lower() == ending else f"{name}{ending}"


def _fault(
    entry: Entry, output: str, target: Path, folder: Path, makers: dict[str, str]
) -> str | None:
    if output in makers:
        return (
            f"duplicate-output: {makers[output]} gives {output} too; give a CSV list whose column "
            "'output' names them apart"
        )
    inside = folder.resolve()
    if inside not in target.resolve().parents:
        return f"output-name: expected a name inside {folder}, got {entry.name}"
    if not is_remote(entry.source) and target.resolve() == Path(entry.source).resolve():
        return f"same-file: {target} would replace the input; choose another --out-dir"
    return None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What becomes of a job before it is begun."""

    state: Literal["open", "done", "failed", "found", "refused"]
    """`open`: to be done. `found`: made before, but its line is missing. `refused`: its output is
    something else."""
    fault: str = ""
    """Of `refused`: code and message, joined by a colon."""


def judge(job: Job, results: Results, *, is_forced: bool, is_retried: bool) -> Verdict:
    """Say whether a job is done.

    It is done if a line says so for the same settings and the same input, and the output still has
    the bytes of that line. Other outputs are replaced only with `is_forced`.

    Args:
        job: to be judged.
        results: lines of earlier runs.
        is_forced: replace an output made with other settings, or by somebody else.
        is_retried: try again inputs that failed and would fail again.
    """
    last, done = _latest(results.last, job), _latest(results.done, job)
    if last is not None and not is_retried and _is_settled(last, job):
        return Verdict(state="failed")
    if job.fault is not None:
        return Verdict(state="open")
    is_same = done is not None and done.get("key") == job.key and _is_same_input(job, done)
    if not job.work.ending():
        return Verdict(state="done" if is_same else "open")
    if not job.target.exists():
        return Verdict(state="open")
    if done is not None and is_same and _has_hash(job.target, done.get("output_sha256")):
        return Verdict(state="done")
    stamp = read_stamp(job)
    if stamp is not None and stamp.get("key") == job.key:
        is_new = state_of(job.target) != stamp.get("before")
        if is_new and not default_workfile(job.target).exists() and _is_whole(job):
            return Verdict(state="found")
        return Verdict(state="open")  # it was begun, and what is there may be replaced
    if is_forced or (is_same and not _is_whole(job)):
        return Verdict(state="open")
    return Verdict(state="refused", fault=_refusal(job, done, is_same=is_same))


def _refusal(job: Job, done: Record | None, *, is_same: bool) -> str:
    if done is None:
        return f"output-exists: {job.target} exists; use --force to replace it"
    if is_same:
        return f"output-changed: {job.target} was changed since; use --force to replace it"
    what = "of another input" if done.get("key") == job.key else "with other settings"
    return f"output-other: {job.target} was made {what}; use --force to replace it"


def _latest(find: Any, job: Job) -> Record | None:
    found: Record | None = find(job.work.command, job.output)
    return found


def _is_settled(record: Record, job: Job) -> bool:
    """Whether a line says that a job failed and would fail again."""
    is_lasting = record.get("error") in SETTLED and record.get("code") not in _OF_OUTPUT
    return (
        record.get("status") == "failed"
        and is_lasting
        and record.get("key") == job.key
        and _is_same_input(job, record)
    )


def _is_same_input(job: Job, record: Record) -> bool:
    """Whether a line is about this very input: by size and time, else by its bytes."""
    if record.get("input") != job.source and record.get("input_sha256") is None:
        return False
    found = signature(job.source)
    if found is None or list(found) == record.get("input_signature"):
        return record.get("input") == job.source
    if is_remote(job.source) or found[0] != (record.get("input_signature") or [None])[0]:
        return False
    return _has_hash(Path(job.source), record.get("input_sha256"))


def _has_hash(path: Path, sha256: str | None) -> bool:
    try:
        return sha256 is not None and hash_file(path) == sha256
    except (OSError, SglatError):
        return False


def _is_whole(job: Job) -> bool:
    try:
        job.work.verify(job.target)
    except (OSError, SglatError):
        return False
    return True


def forget_stamp(job: Job) -> None:
    """Remove the note of a job whose line is written."""
    if job.work.ending():
        stamp_path(job.target).unlink(missing_ok=True)
