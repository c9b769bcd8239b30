"""How generated pictures are marked: watermark, label, tags and signature, the same for a decoded
file and for a call."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.records import Provenance
from sglat.marks.c2pa import Claim, load_library, media_type, sign_media
from sglat.marks.keys import Signer
from sglat.marks.label import draw_label, wanted_label
from sglat.marks.provenance import SOURCE_TYPE, SOURCE_WATERMARK, source_stores
from sglat.marks.watermark import Watermark
from sglat.media.pictures import LABEL_KEY, WATERMARK_KEY, generated_marks


@dataclass(frozen=True, kw_only=True)
class MarkChoice:
    """What the user wants of marks."""

    has_watermark: bool = True
    """Mark the pictures invisibly; without it the tags say so."""
    label: str | None = None
    """Text of the visible label; empty: none; None: what the file asks for."""
    signer: Signer | None = None
    """Who signs with C2PA; None: tags alone."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Whom and what generated pictures show."""

    identity_sha256: bytes
    decoder_id: bytes
    generated_by: str
    """Program and version that made the `.sglat` file."""
    provenance: Provenance | None = None

    @property
    def watermark_id(self) -> bytes:
        """Identifier of the watermark: see `watermark_id`."""
        return watermark_id(self.identity_sha256, self.provenance)

    @property
    def source_type(self) -> str:
        """Digital source type that the encoded video carried; empty if none."""
        found = None if self.provenance is None else self.provenance.extra.get(SOURCE_TYPE)
        return found if isinstance(found, str) else ""


def watermark_id(identity_sha256: bytes, provenance: Provenance | None) -> bytes:
    """Return the identifier that binds pictures to a PROV record: the start of a SHA-256 over the
    identity's hash and the fields of PROV that outlive an edit of the signature."""
    digest = hashlib.sha256(b"sglat watermark\0" + identity_sha256)
    if provenance is not None:
        for text in (provenance.generated_by, provenance.consent, provenance.note):
            digest.update(text.encode("utf-8", "replace") + b"\0")
        digest.update(provenance.source_sha256)
    return Watermark(digest.digest()).identifier


class Marker:
    """Marks the pictures of one output, and says what it did.

    Args:
        shown: whom and what the pictures show.
        choice: of the user.
        is_composite: the face is pasted into recorded pictures.
    """

    def __init__(self, shown: Shown, choice: MarkChoice, *, is_composite: bool = False) -> None:
        self.shown, self.choice, self.is_composite = shown, choice, is_composite
        self.watermark = Watermark(shown.watermark_id) if choice.has_watermark else None
        self.wanted = wanted_label(shown.provenance.extra) if shown.provenance else ""
        """Label that the file asks for; empty if none."""
        self.label = self.wanted if choice.label is None else choice.label

    def mark(
        self,
        picture: NDArray[np.uint8],
        seconds: float,
        generated: NDArray[np.float32] | None = None,
    ) -> NDArray[np.uint8]:
        """Return a picture with label and watermark.

        Args:
            picture: `[H, W, 3]` RGB; not changed.
            seconds: its time from the start.
            generated: share of the generated in each pixel, `[H, W]`, outside of which there is no
                watermark; None: all of it.
        """
        if self.label:
            picture = draw_label(picture, self.label)
        if self.watermark is None or (generated is not None and not generated.any()):
            return picture
        return self.watermark.mark_at(picture, seconds, mask=generated)

    def tags(self) -> dict[str, str]:
        """Return the tags of a container or picture."""
        provenance = self.shown.provenance
        return generated_marks(
            generated_by=self.shown.generated_by,
            consent=provenance.consent if provenance else "",
            source_type=self.shown.source_type,
            is_composite=self.is_composite,
            watermark=self.watermark.identifier.hex() if self.watermark else None,
            label=self.label or (None if self.wanted else ""),
        )

    def facts(self) -> dict[str, str]:
        """Return what a signature covers beside the pictures."""
        tags, provenance = self.tags(), self.shown.provenance
        found = {
            "identity_sha256": self.shown.identity_sha256.hex(),
            "decoder_id": self.shown.decoder_id.hex(),
            "watermark": tags.get(WATERMARK_KEY, ""),
            "label": tags.get(LABEL_KEY, ""),
        }
        if provenance is not None:
            kept = provenance.extra.get(SOURCE_WATERMARK)
            source_watermark = kept if isinstance(kept, bytes) else b""
            found |= {
                "consent": provenance.consent,
                "source_sha256": provenance.source_sha256.hex(),
                "source_type": self.shown.source_type,
                "source_watermark": source_watermark.hex(),
                "note": provenance.note,
            }
        return found

    def finisher(
        self,
        target: Path,
        *,
        parent: Path | None = None,
        is_folder: bool = False,
        more: Callable[[], dict[str, str]] = dict,
    ) -> Callable[[Path], None] | None:
        """Return what signs each complete output file; None without a signer, or where C2PA has no
        place in the container.

        Args:
            target: the output, a video or a folder of PNG.
            parent: video or picture that the face is pasted into.
            is_folder: the output is a folder of PNG.
            more: gives further facts when the output is complete.

        Raises:
            MissingExtraError: c2pa-python is not installed.
        """
        signer = self.choice.signer
        if signer is None:
            return None
        load_library()
        if not has_place(target, is_folder=is_folder):
            return None

        def finish(path: Path) -> None:
            claim = Claim(
                title=target.name,
                generated_by=self.shown.generated_by,
                is_composite=self.is_composite,
                facts=self.facts() | more(),
                stores=source_stores(self.shown.provenance),
                parent=parent,
            )
            sign_media(path, claim, signer)

        return finish


def has_place(target: Path, *, is_folder: bool = False) -> bool:
    """Whether C2PA has a place in an output: a video, or a folder of PNG."""
    return is_folder or bool(media_type(target))


def signed_by(signer: Signer | None, target: Path, *, is_folder: bool = False) -> str:
    """Return who signs an output; empty if nobody does."""
    is_signed = signer is not None and has_place(target, is_folder=is_folder)
    return signer.title if signer is not None and is_signed else ""


def signing_notes(signer: Signer | None, target: Path, *, is_folder: bool = False) -> list[str]:
    """Return what a user should know of the signature of an output, one line each."""
    if signer is None:
        return []
    if name := signed_by(signer, target, is_folder=is_folder):
        return [f"signed by {name} (C2PA)"]
    if target.suffix:
        return [
            f"not signed: C2PA has no place in a {target.suffix} file, which carries tags and the "
            "watermark"
        ]
    return ["not signed: C2PA has no place in raw frames, which carry the watermark alone"]
