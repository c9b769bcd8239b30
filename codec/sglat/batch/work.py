"""What is done with one file of a batch, the same in a process of ours and in a Ray worker."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Final

import torch

from sglat.batch.inputs import local_copy, signature
from sglat.bitstream.info import describe, stream_bytes, verify
from sglat.bitstream.reader import BATCH_GROUPS, Reader
from sglat.bitstream.records import Header
from sglat.bundles.bundle import EMBEDDED, Bundle, bundle_for, load_bundle
from sglat.decoder.decode import DecodeConfig, Decoder
from sglat.decoder.output import OutputConfig, write_decoded
from sglat.encoder.config import EncodeConfig
from sglat.encoder.encode import encode
from sglat.encoder.workfile import config_hash, default_workfile
from sglat.errors import BundleMismatchError, SglatError, UsageError
from sglat.files import hash_file, name_beside, open_input, reason_of, write_atomically
from sglat.marks.keys import Signer
from sglat.marks.provenance import sign_in_place
from sglat.media.reader import VideoReader
from sglat.networks.devices import choose_device

Facts = dict[str, Any]
"""Plain values about one file."""
_NOT_OF_RESULT: Final = frozenset(
    {"force", "resume", "workfile", "keep_workfile", "threads", "path", "inputs", "workers"}
)
"""Fields of configs that leave a result as it is."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is done with each file."""

    command: ClassVar[str] = ""
    suffix: ClassVar[str] = ""
    """Of the outputs; empty: there are none."""

    def ending(self) -> str:
        """Return the suffix of the outputs."""
        return self.suffix

    def key(self) -> str:
        """Return a hash of everything chosen that results depend on."""
        raise NotImplementedError

    def run(self, source: Path, target: Path) -> Facts:
        """Do it; return what the line of the file says besides."""
        raise NotImplementedError

    def verify(self, target: Path) -> None:
        """Raise SglatError unless an output is whole."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class EncodeWork(Work):
    """A video becomes a `.sglat` file."""

    command: ClassVar[str] = "encode"
    suffix: ClassVar[str] = ".sglat"
    config: EncodeConfig
    """`target` and `workfile` aside."""
    signer: Signer | None = None

    def key(self) -> str:
        """Hash the config; files by their contents."""
        plain = _plain(self.config)
        for name in ("identity", "like"):
            if (path := getattr(self.config, name)) is not None:
                plain[name] = hash_file(path)
        return config_hash(self.command, plain, _signer_of(self.signer))

    def run(self, source: Path, target: Path) -> Facts:
        """Encode one file, continuing unfinished work."""
        config = replace(self.config, workfile=default_workfile(target), force=True)
        found = encode(source, target, config, bundle=held_bundle(config.bundle, config.device))
        sizes = found.bytes_by_stream
        if self.signer is not None:
            sign_in_place(target, self.signer)
            with target.open("rb") as file:
                sizes = stream_bytes(describe(file))
        self.verify(target)
        check = found.check
        return {
            "frames": found.frames,
            "bytes_by_stream": sizes,
            "quality": None if check is None else _picked(asdict(check), "psnr_db", "perceptual",
                                                          "identity"),
            "messages": found.messages,
        }  # fmt: skip

    def verify(self, target: Path) -> None:
        """Decode all motion and compare its hash."""
        with open_input(target) as file:
            verify(file)


@dataclass(frozen=True, kw_only=True)
class DecodeWork(Work):
    """A `.sglat` file becomes a video."""

    command: ClassVar[str] = "decode"
    config: DecodeConfig
    output: OutputConfig
    """`path`, `inputs` and `force` aside."""
    container: str = ".mp4"
    """Suffix of the videos."""
    bundle: str | None = None
    """Name or folder of the weights; None: those that each file names."""
    identity_file: Path | None = None
    threads: int = 0

    def ending(self) -> str:
        """Return the suffix of the videos."""
        return self.container

    def key(self) -> str:
        """Hash both configs, container and identity."""
        person = None if self.identity_file is None else hash_file(self.identity_file)
        plain = [_plain(self.config), _plain(replace(self.output, signer=None))]
        return config_hash(
            self.command, plain, self.container, self.bundle, person,
            _signer_of(self.output.signer),
        )  # fmt: skip

    def run(self, source: Path, target: Path) -> Facts:
        """Decode one file."""
        if self.threads:
            torch.set_num_threads(self.threads)
        inputs = [path for path in (source, self.identity_file) if path is not None]
        output = replace(self.output, path=target, inputs=tuple(inputs), force=True)
        with open_input(source) as file:
            decoder = self._decoder(file)
            result = write_decoded(decoder, output)
        return {
            "frames": result.frames, "quality": None, "messages": result.notes,
            "held_frames": result.held_frames,
        }  # fmt: skip

    def _decoder(self, file: Any) -> Decoder:
        """Return a decoder with a bundle that stays in memory, else with a kept version of it."""
        device, person = self.config.device, self.identity_file
        try:
            bundle = held_bundle(self.bundle or EMBEDDED, device)
            return Decoder(file, bundle=bundle, config=self.config, identity_file=person)
        except BundleMismatchError:
            if self.bundle is not None:
                raise
        file.seek(0)
        name = Reader(file).header.bundle
        file.seek(0)
        held = None if name == EMBEDDED else held_bundle(name, device)
        return Decoder(file, bundle=held, config=self.config, identity_file=person)

    def verify(self, target: Path) -> None:
        """Open the video."""
        VideoReader(target).close()


@dataclass(frozen=True, kw_only=True)
class CheckWork(Work):
    """A `.sglat` file is read from end to end, and its weights are looked for."""

    command: ClassVar[str] = "check"

    def key(self) -> str:
        """Return a constant: there is nothing to choose."""
        return config_hash(self.command)

    def run(self, source: Path, target: Path) -> Facts:
        """Verify one file; `target` is not used."""
        with open_input(source) as file:
            reader = Reader(file)
            for _ in reader.groups(batch_groups=BATCH_GROUPS):
                pass
        assert reader.end is not None  # groups() ends with ENDS or raises
        _find_bundle(reader.header)
        return {
            "frames": reader.header.frame_count, "bytes": source.stat().st_size, "quality": None,
            "messages": [], "motion_sha256": reader.end.motion_sha256.hex(),
        }  # fmt: skip

    def verify(self, target: Path) -> None:
        """There is no output."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One file and what is done with it."""

    source: str
    """A local path or an address."""
    output: str
    """Path of the output below the folder; of a check, which has none, the source."""
    target: Path
    """Path of the output, or of where it would be."""
    work: Work
    key: str
    """Of the work."""
    fault: str | None = field(default=None)
    """Why this file cannot be worked on: code and message, joined by a colon."""


def perform(job: Job) -> Facts:
    """Do one job; return what its line says of it. Errors become a code and a message."""
    began = time.monotonic()
    facts: Facts = {"status": "done", "code": None, "error": None, "message": None}
    try:
        _perform(job, facts)
    except SglatError as error:
        facts |= failure(error.code, str(error).partition(": ")[2], type(error).__name__)
    except (OSError, MemoryError) as error:
        facts |= failure("file" if isinstance(error, OSError) else "no-memory", fault_of(error))
    except Exception as error:
        facts |= failure("unexpected", fault_of(error), type(error).__name__)
    return facts | {"seconds": round(time.monotonic() - began, 3)}


def failure(code: str, message: str, error: str = "OSError") -> Facts:
    """Return the facts of a job that failed, in one line."""
    line = " ".join(message.split())[:500]
    return {"status": "failed", "code": code, "error": error, "message": line}


def fault_of(error: BaseException) -> str:
    """Return why something failed, in one line, also of errors of libraries about the disk."""
    text = str(error)
    if "No space left on device" in text:
        return "the disk is full"
    if not isinstance(error, OSError):
        return f"{type(error).__name__}: {text}" if text else type(error).__name__
    name = error.filename
    place = f"{name}: " if isinstance(name, str | os.PathLike) else ""
    return f"{place}{reason_of(error)}"


def _perform(job: Job, facts: Facts) -> None:
    """Do a job, adding to its facts, of which those of the input stay when it fails."""
    if job.fault is not None:
        code, _, message = job.fault.partition(": ")
        raise UsageError(code, message)
    found = signature(job.source)
    with local_copy(job.source, job.target) as source:
        facts["input_signature"] = None if found is None else list(found)
        facts["input_sha256"] = hash_file(source)
        if job.work.ending():
            job.target.parent.mkdir(parents=True, exist_ok=True)
            if stamp_path(job.target).exists():
                _sweep(job.target)
            write_stamp(job)
        facts |= job.work.run(source, job.target)
    if job.work.ending():
        facts |= {"bytes": job.target.stat().st_size, "output_sha256": hash_file(job.target)}


def stamp_path(target: Path) -> Path:
    """Return the file that tells of work on an output until its line is written."""
    return name_beside(target, f"{target.suffix}.job", is_hidden=True)


def write_stamp(job: Job) -> None:
    """Note what is about to be made, and what stood in its place before."""
    if (read_stamp(job) or {}).get("key") == job.key:
        return  # of the process before, which may have replaced the output
    record = {"key": job.key, "before": state_of(job.target)}
    write_atomically(stamp_path(job.target), json.dumps(record))


def read_stamp(job: Job) -> dict[str, Any] | None:
    """Return the note about an output, None where there is none."""
    with suppress(OSError, ValueError):
        found = json.loads(stamp_path(job.target).read_text())
        return found if isinstance(found, dict) else None
    return None


def state_of(target: Path) -> list[int] | None:
    """Return what changes when a file is replaced, None where there is no file."""
    try:
        found = target.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ino]


def _sweep(target: Path) -> None:
    """Remove the unfinished outputs of killed processes."""
    for path in target.parent.glob(".*.partial*"):
        stem, _, rest = path.name[1:].rpartition(".partial")
        if rest == target.suffix and stem.rpartition(".")[0] == target.stem:
            path.unlink(missing_ok=True)


@lru_cache(maxsize=2)  # the embedded one, and one other
def held_bundle(name: str, device: str) -> Bundle:
    """Return a bundle that stays in memory for the next files of this process."""
    return load_bundle(name, choose_device(device))


def _find_bundle(header: Header) -> None:
    """Raise BundleError unless the weights of a file are here."""
    try:
        held_bundle(header.bundle, "cpu").of_file(header)
    except BundleMismatchError:  # another version of it may be kept
        bundle_for(header)


def _plain(config: Any) -> Facts:
    """Return the fields of a config that results depend on, as plain values."""
    found = {f.name: getattr(config, f.name) for f in fields(config)}
    kept = {name: value for name, value in found.items() if name not in _NOT_OF_RESULT}
    return {
        name: str(value) if isinstance(value, Path) else _nested(value)
        for name, value in kept.items()
    }


def _nested(value: Any) -> Any:
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value


def _signer_of(signer: Signer | None) -> str:
    return "" if signer is None else signer.certificates_pem.decode("ascii", "replace")


def _picked(found: Mapping[str, Any], *names: str) -> Facts:
    return {name: found[name] for name in names}
