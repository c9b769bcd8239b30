"""What can be fetched: the published files, licences and bundles of `catalogue.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from sglat.bundles.download import Expected
from sglat.errors import BundleError

Content = Literal["checkpoint", "onnx_pack", "as_is"]


@dataclass(frozen=True, kw_only=True)
class Licence:
    """Terms of use of a file."""

    name: str
    terms: str
    """The point in one sentence."""
    url: str


@dataclass(frozen=True, kw_only=True)
class Member:
    """One file inside a pack."""

    name: str
    role: str
    size_bytes: int
    sha256: str
    folder: str = ""
    """Where it goes inside the bundle's folder; ends with a slash."""


@dataclass(frozen=True, kw_only=True)
class CatalogueFile(Expected):
    """One published file."""

    name: str
    addresses: tuple[str, ...] = ()
    """Direct addresses, tried in order; none where the publisher has no stable one."""
    by_hand: str = ""
    """Page for a manual download where there is no direct address."""
    licence: str
    """A name of `LICENCES`."""
    source: str
    """Project that trained the weights."""
    preprocessing: str
    """What the network expects."""
    evidence: str
    """How size and hash are known."""
    content: Content = "checkpoint"
    members: tuple[Member, ...] = ()
    """What a pack holds; of a file kept as it is, the one name it is kept under."""


@dataclass(frozen=True, kw_only=True)
class CatalogueBundle:
    """A named set of files."""

    name: str
    summary: str
    files: tuple[CatalogueFile, ...]


def _file(record: dict[str, Any]) -> CatalogueFile:
    members = tuple(Member(**member) for member in record.pop("members", ()))
    addresses = tuple(record.pop("addresses", ()))
    return CatalogueFile(**record, addresses=addresses, members=members)


_RECORD: Final = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
LICENCES: Final = {name: Licence(**record) for name, record in _RECORD["licences"].items()}
BUNDLES: Final = {
    name: CatalogueBundle(
        name=name, summary=record["summary"], files=tuple(map(_file, record["files"]))
    )
    for name, record in _RECORD["bundles"].items()
}


def catalogue_bundle(name: str) -> CatalogueBundle:
    """Return a set of files; raises BundleError for an unknown name."""
    if name not in BUNDLES:
        raise BundleError(
            "unknown-bundle", f"expected one of {sorted(BUNDLES)} to fetch, got {name!r:.80}"
        )
    return BUNDLES[name]


def find_file(sha256: str, git_blob_sha1: str) -> tuple[CatalogueBundle, CatalogueFile] | None:
    """Return the catalogue's entry for a file with these hashes, or None."""
    for bundle in BUNDLES.values():
        for file in bundle.files:
            if sha256 == file.sha256 or git_blob_sha1 == file.git_blob_sha1:
                return bundle, file
    return None
