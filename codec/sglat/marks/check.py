"""What marks a file carries, who signed them and whether they hold; no network and no bundle."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from sglat.bitstream.info import verify
from sglat.bitstream.records import Provenance
from sglat.errors import FormatError, MediaError
from sglat.files import SGLAT_SIGNATURE, naming, open_input
from sglat.marks.c2pa import Manifest, read_manifest
from sglat.marks.detect import Detection
from sglat.marks.embedded import read_embedded
from sglat.marks.keys import Trust
from sglat.marks.label import wanted_label
from sglat.marks.marking import watermark_id
from sglat.marks.provenance import (
    SOURCE_WATERMARK,
    Provenances,
    Signature,
    read_provenance,
)
from sglat.marks.search import search_watermark
from sglat.marks.tags import SYNTHETIC_TYPES, Tags, container_tags, read_tags
from sglat.marks.watermark import ID_BYTES

MAX_FRAMES: Final = 250
"""Frames that are searched for the watermark: 10 s at 25 fps."""

Verdict = Literal["holds", "unmarked", "broken", "unchecked"]
EXIT_STATUS: Final[dict[Verdict, int]] = {"holds": 0, "unmarked": 3, "broken": 4, "unchecked": 5}


@dataclass(frozen=True, kw_only=True)
class Report:
    """The marks of one file."""

    path: Path
    manifest: Manifest = Manifest(state="none")  # noqa: RUF009 - frozen
    provenance: Provenances | None = None
    """Of a `.sglat` file; None of others."""
    watermark: Detection | None = None
    """What the detector found; None: no picture can be decoded, or nobody asked."""
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
    def named_watermark(self) -> str:
        """Identifier that the pictures of a file should carry: by its signature, else by its tags;
        of a `.sglat` file, that of what is decoded from it; empty if unknown."""
        record = self.provenance
        if record is not None:
            return watermark_id(record.identity_sha256, record.record).hex()
        said = self.said_of_watermark
        return said if re.fullmatch(f"[0-9a-f]{{{2 * ID_BYTES}}}", said) else ""

    @property
    def said_of_watermark(self) -> str:
        """What signature or tags say of the watermark: its identifier, or that it was left out."""
        return self.manifest.facts.get("watermark", "") or self.tags.watermark

    @property
    def is_named_watermark(self) -> bool | None:
        """Whether the watermark found is the one that the file names; None: one is missing."""
        if self.watermark is None or self.watermark.id is None or not self.named_watermark:
            return None
        return self.watermark.id.hex() == self.named_watermark

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
        MediaError: it is no video, picture or `.sglat` file, or so damaged that nothing is left.
        FormatError: a damaged `.sglat` file.
    """
    trust = trust or Trust()
    with open_input(path) as file:
        is_sglat = file.read(len(SGLAT_SIGNATURE)) == SGLAT_SIGNATURE
    if is_sglat:
        return Report(path=path, provenance=_check_sglat(path), trust=trust)
    embedded = read_embedded(path)
    watermark, damage = None, ""
    try:
        watermark, damage = search_watermark(path, MAX_FRAMES if has_watermark else 1)
    except MediaError as error:
        if embedded.is_empty:
            raise
        damage = error.message  # no picture, but marks, which are told
    return Report(
        path=path,
        manifest=read_manifest(path, embedded, trusted_pem=trust.certificates_pem),
        watermark=watermark if has_watermark else None,
        tags=read_tags(embedded, container_tags(path)),
        damage=embedded.damage or damage,
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


def to_json(report: Report) -> dict[str, Any]:
    """Return a report for `--json`."""
    manifest = asdict(report.manifest)
    return {
        "file": str(report.path),
        "verdict": report.verdict,
        "is_generated": report.is_generated,
        "c2pa": None if report.manifest.state == "none" else manifest,
        "provenance": None if report.provenance is None else _provenance(report),
        "watermark": _watermark(report),
        "tags": asdict(report.tags),
        "damage": report.damage,
    }


def _watermark(report: Report) -> dict[str, Any] | None:
    found, named = report.watermark, report.named_watermark
    if found is None and not named:
        return None
    values = {} if found is None else {key: _plain(v) for key, v in asdict(found).items()}
    return values | {
        "named": named,
        "is_named": report.is_named_watermark,
        "said": report.said_of_watermark,
    }


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
        "label": wanted_label(record.extra),
        "source_watermark": _plain(record.extra.get(SOURCE_WATERMARK, "")),
        "has_source_manifest": "c2pa" in record.extra or "c2pa_sha256" in record.extra,
    }


def _signature(report: Report, signature: Signature) -> dict[str, Any]:
    values = {key: _plain(value) for key, value in asdict(signature).items()}
    return values | {"is_known": report.is_known(signature)}


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value
