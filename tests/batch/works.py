"""Small jobs for the tests of the batch; processes of other kinds import them from here."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sglat.batch.inputs import Entry
from sglat.batch.plan import make_jobs
from sglat.batch.work import DecodeWork, Facts, Job, Work
from sglat.bundles.bundle import Bundle
from sglat.decoder.decode import DecodeConfig
from sglat.decoder.output import OutputConfig
from sglat.errors import FaceError, FormatError
from sglat.files import write_atomically
from tests.support.files import write_file


@dataclass(frozen=True, kw_only=True)
class CopyWork(Work):
    """Writes the input in capitals. An input with `die` kills its process the first time, one with
    `always` each time; `face` has no face, `full` finds no room on the disk."""

    command: ClassVar[str] = "copy"
    suffix: ClassVar[str] = ".out"
    setting: str = "a"

    def key(self) -> str:
        """Return the setting."""
        return self.setting

    def run(self, source: Path, target: Path) -> Facts:
        """Copy, or fail as the input asks."""
        text = source.read_text()
        mark = target.with_suffix(".died")
        if "always" in text or ("die" in text and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if "face" in text:
            raise FaceError("no-face", "expected a face, found none")
        if "full" in text:
            raise OSError(28, "No space left on device", str(target))
        write_atomically(target, text.upper())
        return {"frames": 1, "quality": None, "messages": []}

    def verify(self, target: Path) -> None:
        """Expect capitals."""
        text = target.read_text()
        if not text or text != text.upper():
            raise FormatError("bad-copy", "expected capitals")


def copy_jobs(folder: Path, texts: dict[str, str], **choices: str) -> list[Job]:
    """Return jobs that copy texts by name, in order; outputs go to the folder `out`."""
    entries = []
    (folder / "out").mkdir(exist_ok=True)
    for name, text in texts.items():
        path = folder / f"{name}.txt"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
        entries.append(Entry(source=str(path), name=name))
    return make_jobs(entries, folder / "out", CopyWork(**choices))[0]


def decode_jobs(folder: Path, out: Path, bundle: Bundle, count: int = 4) -> list[Job]:
    """Return jobs that decode small files of a random bundle."""
    entries = []
    out.mkdir(exist_ok=True)
    for number in range(count):
        path = folder / f"{number}.sglat"
        if not path.exists():
            write_file(path, bundle, frames=100 + 20 * number, seed=number)
        entries.append(Entry(source=str(path), name=path.stem))
    work = DecodeWork(
        config=DecodeConfig(device="cpu"),
        output=OutputConfig(path=out / "any.mp4", encoder="libx264", threads=1),
        bundle=str(bundle.folder),
        threads=1,
    )
    return make_jobs(entries, out, work)[0]
