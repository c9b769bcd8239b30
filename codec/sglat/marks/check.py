"""What marks a file carries, who signed them and whether they hold; no network and no bundle."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from importlib import import_module
from itertools import islice, tee
from pathlib import Path
from typing import Any, Final, Literal

from sglat.bitstream.info import verify
from sglat.bitstream.records import Provenance
from sglat.errors import FormatError
from sglat.files import SGLAT_SIGNATURE, naming, open_input
from sglat.marks.c2pa import Manifest, read_manifest
from sglat.marks.embedded import read_embedded
from sglat.marks.keys import Trust
from sglat.marks.provenance import Provenances, Signature, read_provenance
from sglat.marks.tags import SYNTHETIC_TYPES, Tags, container_tags, read_tags
from sglat.media.reader import VideoReader

MAX_FRAMES: Final = 250
"""Frames that are searched for the watermark: 10 s at 25 fps."""
MAX_SHOWN_ORIGINS: Final = 16

Verdict = Literal["holds", "unmarked", "broken", "unchecked"]
EXIT_STATUS: Final[dict[Verdict, int]] = {"holds": 0, "unmarked": 3, "broken": 4, "unchecked": 5}


@dataclass(frozen=True, kw_only=True)
class Report:
    """The marks of one file."""

    path: Path
    manifest: Manifest = Manifest(state="none")  # noqa: RUF009 - frozen
    provenance: Provenances | None = None
    """Of a `.sglat` file; None of others."""
    watermark: Any = None
    """What the detector found; None: there are no pictures to search, or no detector."""
    tags: Tags = Tags()  # noqa: RUF009 - frozen
    damage: str = ""
    """Why the container could not be read to its end; empty if it could."""
    trust: Trust = Trust()  # noqa: RUF009 - frozen

    @property
    def verdict(self) -> Verdict:
        """`holds`: there are marks, and each that is signed holds for this file; `broken`: one does
        not; `unchecked`: one could not be checked here; `unmarked`: there are none."""
        states = {self.manifest.state, *(s.state for s in self._signatures())}
        record = self.provenance
        if record is not None and record.signature.state == "holds" and not record.is_covered:
            return "broken"
        if "broken" in states:
            return "broken"
        if "unchecked" in states:
            return "unchecked"
        return "holds" if self.is_signed or self.is_generated else "unmarked"

    @property
    def is_generated(self) -> bool:
        """Some mark, signed or not, calls the file generated; a camera's manifest does not."""
        found = self.watermark is not None and self.watermark.found
        is_said = bool(SYNTHETIC_TYPES & set(self.manifest.source_types)) or bool(
            self.manifest.facts
        )
        return found or is_said or self.tags.is_synthetic or self.provenance is not None

    @property
    def is_signed(self) -> bool:
        """There is a signature, whether it holds or not."""
        states = {self.manifest.state, *(s.state for s in self._signatures())}
        return states != {"none"}

    def _signatures(self) -> list[Signature]:
        if self.provenance is None:
            return []
        return [self.provenance.signature, *(o.signature for o in self.provenance.origins)]

    def is_known(self, signature: Signature) -> bool:
        """Whether a signature is by a key of `trust`."""
        return signature.key in self.trust.public_keys


def check(path: Path, *, trust: Trust | None = None, has_watermark: bool = True) -> Report:
    """Return the marks of a video, a picture or a `.sglat` file.

    Args:
        path: the file.
        trust: certificates of known signers.
        has_watermark: search the pictures for the watermark.

    Raises:
        UsageError: the file cannot be opened.
        MediaError: it is no video, picture or `.sglat` file.
        FormatError: a damaged `.sglat` file.
    """
    trust = trust or Trust()
    with open_input(path) as file:
        is_sglat = file.read(len(SGLAT_SIGNATURE)) == SGLAT_SIGNATURE
    if is_sglat:
        return Report(path=path, provenance=_check_sglat(path), trust=trust)
    embedded = read_embedded(path)
    watermark = _search(path, MAX_FRAMES if has_watermark else 1)
    return Report(
        path=path,
        manifest=read_manifest(path, embedded, trusted_pem=trust.certificates_pem),
        watermark=watermark if has_watermark else None,
        tags=read_tags(embedded, container_tags(path)),
        damage=embedded.damage,
        trust=trust,
    )


def _check_sglat(path: Path) -> Provenances:
    with open_input(path) as file, naming(path):
        found = read_provenance(file)
        file.seek(0)
        try:
            verify(file)  # the signature covers a hash, which the motion must have
        except FormatError as error:
            if error.code != "motion-hash":
                raise
            return replace(found, is_covered=False)
    return found


def _search(path: Path, frames: int) -> Any:
    """Return what the detector finds in the first frames, of which at least one must decode."""
    try:
        detector = import_module("sglat.marks.detect")
    except ModuleNotFoundError:
        detector = None
    with VideoReader(path) as reader:
        found, timed = tee(islice(reader, frames))
        if detector is None:
            next(found, None)
            return None
        seconds = (float(frame.pts * reader.time_base) for frame in timed)
        return detector.detect((frame.picture for frame in found), seconds=seconds)


def to_json(report: Report) -> dict[str, Any]:
    """Return a report for `--json`."""
    manifest = asdict(report.manifest)
    return {
        "file": str(report.path),
        "verdict": report.verdict,
        "is_generated": report.is_generated,
        "c2pa": None if report.manifest.state == "none" else manifest,
        "provenance": None if report.provenance is None else _provenance(report),
        "watermark": None if report.watermark is None else _watermark(report.watermark),
        "tags": asdict(report.tags),
        "damage": report.damage,
    }


def _watermark(found: Any) -> dict[str, Any]:
    if not found.found:
        return {"found": False, "confidence": found.confidence}
    return {key: _plain(value) for key, value in asdict(found).items()}


def _provenance(report: Report) -> dict[str, Any]:
    found = report.provenance
    assert found is not None
    return {
        "record": _record(found.record),
        "signature": _signature(report, found.signature),
        "is_covered": found.is_covered,
        "origins": [
            {
                "role": origin.role,
                "sha256": origin.sha256,
                "record": _record(origin.record),
                "signature": _signature(report, origin.signature),
            }
            for origin in found.origins
        ],
    }


def _record(record: Provenance | None) -> dict[str, Any] | None:
    if record is None:
        return None
    return {
        "generated_by": record.generated_by,
        "consent": record.consent,
        "source_sha256": record.source_sha256.hex(),
        "note": record.note,
        "source_type": _plain(record.extra.get("source_type", "")),
        "has_source_manifest": "c2pa" in record.extra or "c2pa_sha256" in record.extra,
    }


def _signature(report: Report, signature: Signature) -> dict[str, Any]:
    values = {key: _plain(value) for key, value in asdict(signature).items()}
    return values | {"is_known": report.is_known(signature)}


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value
