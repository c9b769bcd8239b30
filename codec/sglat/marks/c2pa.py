"""C2PA manifests: signed into what is decoded, read from any file that c2pa-python knows.

Nothing is fetched from a network. Source: C2PA technical specification 2.2, https://spec.c2pa.org.
"""

from __future__ import annotations

import io
import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from sglat.errors import MissingExtraError, SglatError
from sglat.marks.embedded import Embedded, read_embedded
from sglat.marks.keys import Signer
from sglat.media.pictures import COMPOSITE_SOURCE_TYPE, DIGITAL_SOURCE_TYPE
from sglat.version import __version__

ASSERTION: Final = "org.sglat.provenance"
STORE_TYPE: Final = "application/x-c2pa-manifest-store"
# Containers of ours that C2PA has a place in, by suffix.
MEDIA_TYPES: Final = {
    ".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".avi": "video/x-msvideo",
    ".png": "image/png", ".apng": "image/png", ".gif": "image/gif", ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg", ".webp": "image/webp",
}  # fmt: skip
MAX_JSON_BYTES: Final = 1 << 26
MAX_ITEMS: Final = 32
MAX_SHOWN: Final = 256  # characters of one text from a manifest
_SETTINGS: Final[dict[str, Any]] = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True},
    "builder": {"thumbnail": {"enabled": False}},
}
UNTRUSTED: Final = "signingCredential.untrusted"

State = Literal["none", "trusted", "valid", "broken", "unchecked"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a manifest says of a generated video or picture."""

    title: str
    generated_by: str
    """Program and version that made the `.sglat` file."""
    is_composite: bool = False
    """The face is pasted into recorded pictures."""
    facts: dict[str, str] = field(default_factory=dict)
    """Hashes of identity and motion, consent, id of the watermark; empty ones are left out."""
    stores: tuple[bytes, ...] = ()
    """C2PA manifest stores of the videos that the `.sglat` file was made from."""
    parent: Path | None = None
    """Video or picture that the face is pasted into."""
    when: datetime | None = None
    """Time of making; None: now."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What the manifest in a file says, and whether it holds."""

    state: State
    """`trusted`: holds, by a certificate that was given as trusted; `valid`: holds, by somebody for
    whom nobody here vouches; `broken`: file or manifest was changed or is damaged; `unchecked`:
    c2pa-python is not installed."""
    signer: str = ""
    issuer: str = ""
    algorithm: str = ""
    time: str = ""
    """Of signing, by a time-stamping authority; mostly empty."""
    generators: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    source_types: tuple[str, ...] = ()
    """IPTC digital source types, their last parts."""
    ingredients: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    """Of a video that sglat made: hashes, consent, id of the watermark."""
    label: str = ""
    """Unique name of the manifest."""
    faults: tuple[str, ...] = ()
    """What does not hold, one line each."""


def load_library() -> Any:
    """Return the module of c2pa-python.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import c2pa
    except ImportError as error:
        raise MissingExtraError("c2pa-python", extra="c2pa") from error
    return c2pa


def media_type(path: Path) -> str:
    """Return the MIME type under which a file is signed; empty if C2PA has no place in it."""
    return MEDIA_TYPES.get(path.suffix.lower(), "")


def sign_media(path: Path, claim: Claim, signer: Signer) -> None:
    """Put a signed manifest into a complete file, which is replaced as a whole.

    Raises:
        SglatError: `c2pa-refused`.
        MissingExtraError: c2pa-python is not installed.
    """
    library, kind = load_library(), media_type(path)
    if not kind:
        raise SglatError("c2pa-refused", f"C2PA has no place in a {path.suffix} file")
    signed = path.with_name(f".signed-{os.getpid()}-{path.name}")
    try:
        with path.open("rb") as source, signed.open("w+b") as target:
            builder = _builder(library, claim, kind)
            info = library.C2paSignerInfo(
                signer.algorithm.encode(), signer.certificates_pem, signer.key_pem, None
            )
            builder.sign(library.Signer.from_info(info), kind, source, target)
        signed.replace(path)
    except library.C2paError as error:
        raise SglatError("c2pa-refused", f"c2pa-python cannot sign {path.name}: {error}") from error
    finally:
        signed.unlink(missing_ok=True)


def _builder(library: Any, claim: Claim, kind: str) -> Any:
    when = (claim.when or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")
    agent = {"name": "sglat", "version": __version__}
    facts = {key: value for key, value in claim.facts.items() if value}
    facts = {"generated_by": claim.generated_by, "time": when} | facts
    builder = library.Builder(
        {
            "claim_generator_info": [agent],
            "title": claim.title,
            "format": kind,
            "assertions": [{"label": ASSERTION, "data": facts}],
        },
        library.Context.from_dict(_SETTINGS),
    )
    common = {"softwareAgent": agent, "when": when}
    names = _add_sources(library, builder, claim.stores)
    has_parent = _add_parent(library, builder, claim.parent)
    if has_parent:
        opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": ["parent"]}}
        builder.add_action(opened | common)
    made = {
        "action": "c2pa.edited" if has_parent else "c2pa.created",
        "digitalSourceType": COMPOSITE_SOURCE_TYPE if claim.is_composite else DIGITAL_SOURCE_TYPE,
        "description": "The face was generated by a neural network from stored motion.",
    }
    from_sources = {"parameters": {"ingredientIds": names}} if names else {}
    builder.add_action(made | from_sources | common)
    return builder


def _add_sources(library: Any, builder: Any, stores: tuple[bytes, ...]) -> list[str]:
    """Add manifests of encoded videos; return the names of those that can be read."""
    names = []
    for number, store in enumerate(stores[:MAX_ITEMS]):
        name = f"source-{number}"
        about = {"title": "video that was encoded", "relationship": "inputTo", "label": name}
        with suppress(library.C2paError):  # damaged, so that nothing of it can be kept
            builder.add_ingredient_from_stream(json.dumps(about), STORE_TYPE, io.BytesIO(store))
            names.append(name)
    return names


def _add_parent(library: Any, builder: Any, path: Path | None) -> bool:
    """Add the video that the face is pasted into, with the manifest it has; return whether C2PA
    can read it."""
    kind = _parent_type(path)
    if path is None or not kind:
        return False
    about = {"title": path.name, "relationship": "parentOf", "label": "parent"}
    try:
        with path.open("rb") as file:
            builder.add_ingredient_from_stream(json.dumps(about), kind, file)
    except library.C2paError:
        return False
    return True


def _parent_type(path: Path | None) -> str:
    if path is None:
        return ""
    kind = read_embedded(path).kind
    return kind if kind in MEDIA_TYPES.values() else ""


def read_manifest(path: Path, embedded: Embedded, *, trusted_pem: bytes = b"") -> Manifest:
    """Return what the manifest embedded in a file says, and whether it holds.

    Args:
        path: the file.
        embedded: of the file; without a store nothing is read.
        trusted_pem: certificates of issuers that are trusted.
    """
    if not embedded.store:
        return Manifest(state="none")
    try:
        library = load_library()
    except MissingExtraError as error:
        return Manifest(state="unchecked", faults=(error.message,))
    settings = _SETTINGS | (
        {"trust": {"user_anchors": trusted_pem.decode()}} if trusted_pem else {}
    )
    try:
        with path.open("rb") as file:
            reader = library.Reader(
                embedded.kind, file, context=library.Context.from_dict(settings)
            )
            text = reader.json()
            state = reader.get_validation_state()
    except library.C2paError as error:
        return Manifest(state="broken", faults=(f"cannot be read: {_short(error)}",))
    if len(text) > MAX_JSON_BYTES:
        return Manifest(state="broken", faults=("it says more than can be read",))
    try:
        return _describe(json.loads(text), str(state))
    except (ValueError, RecursionError) as error:
        return Manifest(state="broken", faults=(f"cannot be read: {_short(error)}",))


def _describe(record: Any, state: str) -> Manifest:
    """Return the active manifest of what c2pa-python read; values of other types are left out."""
    label = _text(_get(record, "active_manifest"))
    manifest = _get(record, "manifests", label)
    signature = _get(manifest, "signature_info")
    actions: list[str] = []
    types: list[str] = []
    facts: dict[str, str] = {}
    for assertion in _list(_get(manifest, "assertions")):
        name, data = _text(_get(assertion, "label")), _get(assertion, "data")
        if name.startswith("c2pa.actions"):
            for action in _list(_get(data, "actions")):
                actions.append(_text(_get(action, "action")))
                types.append(_text(_get(action, "digitalSourceType")).rsplit("/", 1)[-1])
        elif name == ASSERTION and isinstance(data, dict):
            items = list(data.items())[:MAX_ITEMS]
            facts = {_text(key): _text(value) for key, value in items}
    faults = [
        _text(_get(status, "explanation")) or _text(_get(status, "code"))
        for status in _list(_get(record, "validation_status"))
        if _get(status, "code") != UNTRUSTED
    ]
    states: dict[str, State] = {"Trusted": "trusted", "Valid": "valid"}
    return Manifest(
        state=states.get(state, "broken"),
        signer=_text(_get(signature, "common_name")) or _text(_get(signature, "issuer")),
        issuer=_text(_get(signature, "issuer")),
        algorithm=_text(_get(signature, "alg")),
        time=_text(_get(signature, "time")),
        generators=tuple(
            f"{_text(_get(each, 'name'))} {_text(_get(each, 'version'))}".strip()
            for each in _list(_get(manifest, "claim_generator_info"))
        ),
        actions=tuple(action for action in actions if action),
        source_types=tuple(dict.fromkeys(kind for kind in types if kind)),
        ingredients=tuple(
            _text(_get(each, "title")) or "without a title"
            for each in _list(_get(manifest, "ingredients"))
        ),
        facts=facts,
        label=label,
        faults=tuple(faults) if states.get(state) is None else (),
    )


def _get(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _list(value: Any) -> list[Any]:
    return value[:MAX_ITEMS] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value[:MAX_SHOWN] if isinstance(value, str) else ""


def _short(error: Exception) -> str:
    return str(error)[:MAX_SHOWN]
