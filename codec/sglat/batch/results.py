"""`results.jsonl`: one JSON line a file, appended when the file is finished or has failed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

NAME: Final = "results"
Record = dict[str, Any]


def results_path(folder: Path, shard: tuple[int, int] | None) -> Path:
    """Return the file of a run: each shard has its own, so that machines never share one."""
    name = NAME if shard is None else f"{NAME}-{shard[0]}-of-{shard[1]}"
    return folder / f"{name}.jsonl"


class Results:
    """The lines of all runs in an output folder; new ones go to one file.

    Args:
        folder: the output folder.
        path: the file of this run.
    """

    def __init__(self, folder: Path, path: Path) -> None:
        self.path = path
        self._waiting: list[bytes] = []
        self._last: dict[tuple[str, str], Record] = {}
        self._done: dict[tuple[str, str], Record] = {}
        for record in sorted(_read(folder), key=lambda one: float(one.get("finished") or 0)):
            self._note(record)

    def last(self, command: str, output: str) -> Record | None:
        """Return the latest line of an output."""
        return self._last.get((command, output))

    def done(self, command: str, output: str) -> Record | None:
        """Return the latest line that says an output was made."""
        return self._done.get((command, output))

    def append(self, record: Record) -> bool:
        """Add a line; return whether it is on disk. One that is not is tried again with the
        next."""
        self._note(record)
        self._waiting.append(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        return self.flush()

    def flush(self) -> bool:
        """Write the lines that wait; return whether all are on disk."""
        while self._waiting:
            if not _append(self.path, self._waiting[0]):
                return False
            self._waiting.pop(0)
        return True

    def _note(self, record: Record) -> None:
        key = (str(record.get("command")), str(record.get("output")))
        self._last[key] = record
        if record.get("status") == "done":
            self._done[key] = record


def _append(path: Path, line: bytes) -> bool:
    """Append a line by one write, or nothing; a line torn by a power cut is ended first."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                line = b"\n" + line
            try:
                is_whole = os.write(handle, line) == len(line)
            except OSError:
                is_whole = False
            if not is_whole:
                os.ftruncate(handle, size)
            return is_whole
        finally:
            os.close(handle)
    except OSError:
        return False


def _read(folder: Path) -> Iterator[Record]:
    """Yield the lines of all results in a folder; torn ones are left out."""
    for path in sorted(folder.glob(f"{NAME}*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                if isinstance(record, dict):
                    yield record
