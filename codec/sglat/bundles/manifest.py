"""A bundle's manifest: every file and its sha256, every part and its config, the decoder id.

Also which network each kind of part is, and how its stored tensors become a module.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sglat.errors import BundleError, SglatError
from sglat.files import AtomicOutput, hash_file, write_atomically
from sglat.networks.layouts import state_of

MANIFEST_NAME: Final = "manifest.json"
MANIFEST_VERSION: Final = 1
MAX_MANIFEST_BYTES: Final = 1 << 20  # a thousand times what the embedded bundle needs
# The parts that give a file's numbers their meaning, in the order of the decoder id.
DECODER_ROLES: Final = ("generator", "pose_flow", "controls")
UPPER_ROLE: Final = "generator_upper"
"""Of the part that continues the generator to larger pictures."""
# plain names without a leading dot, at most in subfolders: no path leaves the bundle's folder
_FILE_NAME: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,127}/){0,2}[A-Za-z0-9][\w.-]{0,127}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class PartRecord:
    """One learned part or table: one file."""

    role: str
    """Role in the pipeline: `generator`, `inverter`, `pose_flow`, `controls`, `landmarks`."""
    kind: str
    """Which network or table it is: `stylegan2`, `e4e`, `styleflow`."""
    file: str
    """Name inside the bundle's folder."""
    size_bytes: int
    sha256: str
    """Of the file."""
    tensors_sha256: str
    """Of the tensors, however the file arranges them; empty for files that hold no tensors."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Sizes of the network; belongs to the decoder id."""
    hints: Mapping[str, Any] = field(default_factory=dict)
    """Units and defaults for an encoder; does not belong to the decoder id."""
    licence: str = ""
    source: str = ""
    """Where the weights come from: address and sha256 of the original file, or how it was made."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a bundle's folder holds."""

    name: str
    parts: Mapping[str, PartRecord]
    """By role."""

    @property
    def decoder_id(self) -> bytes | None:
        """sha256 over generator, pose flow and controls; None where one of them is missing.

        The hashed bytes are `sglat decoder 1` and, for each of the three roles in that order, the
        canonical JSON of role, kind, config and `tensors_sha256`, each ended by a line feed.
        """
        if any(role not in self.parts for role in DECODER_ROLES):
            return None
        return _hash(b"sglat decoder 1\n", [self.parts[role] for role in DECODER_ROLES])

    @property
    def upper_id(self) -> bytes | None:
        """sha256 over the generator's upper layers, as `decoder_id` after `sglat upper 1`; None
        without them."""
        if UPPER_ROLE not in self.parts:
            return None
        return _hash(b"sglat upper 1\n", [self.parts[UPPER_ROLE]])


def _hash(begin: bytes, parts: list[PartRecord]) -> bytes:
    digest = hashlib.sha256(begin)
    for part in parts:
        record = {
            "role": part.role, "kind": part.kind, "config": part.config,
            "tensors_sha256": part.tensors_sha256,
        }  # fmt: skip
        digest.update(canonical_json(record) + b"\n")
    return digest.digest()


def canonical_json(value: Any) -> bytes:
    """Return ASCII JSON with sorted names, no spaces and shortest round-trip numbers."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of tensors, independent of how a file arranges them.

    Hashed: `sglat tensors 1`, a line feed and, in the order of the UTF-8 names, the name's length
    (u32) and bytes, the dtype's name (`float16`) the same way, the number of axes (u32), each
    length (u64), the number of bytes (u64) and the elements, row-major; all little-endian, as torch
    supports no other hosts.
    """
    digest = hashlib.sha256(b"sglat tensors 1\n")
    for name in sorted(tensors, key=lambda name: name.encode()):
        tensor = tensors[name].detach().cpu().contiguous()
        for text in (name, str(tensor.dtype).removeprefix("torch.")):
            raw = text.encode()
            digest.update(struct.pack("<I", len(raw)) + raw)
        digest.update(struct.pack(f"<I{tensor.ndim}Q", tensor.ndim, *tensor.shape))
        digest.update(struct.pack("<Q", tensor.numel() * tensor.element_size()))
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_part(
    folder: Path,
    *,
    name: str,
    role: str,
    kind: str,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any] | None = None,
    hints: Mapping[str, Any] | None = None,
    licence: str = "",
    source: str = "",
) -> PartRecord:
    """Write one part as safetensors and enter it in the folder's manifest, which is made if needed.

    Args:
        folder: the bundle's folder.
        name: the bundle's name.
        role: in the pipeline; an older part of this role is replaced.
        kind: which network or table it is.
        tensors: as they are to be stored, half precision or not.
        config: the network's sizes, plain JSON values; belongs to the decoder id.
        hints: encoder defaults, plain JSON values.
        licence: under which the weights may be used.
        source: where they come from.

    Returns:
        The part's record.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    path = folder / f"{role}.safetensors"
    with AtomicOutput(path, force=True) as partial:
        save_file(stored, partial)
    record = PartRecord(
        role=role,
        kind=kind,
        file=path.name,
        size_bytes=path.stat().st_size,
        sha256=hash_file(path),
        tensors_sha256=hash_tensors(stored),
        config=json.loads(canonical_json(config or {})),
        hints=json.loads(canonical_json(hints or {})),
        licence=licence,
        source=source,
    )
    enter_part(folder, name=name, record=record)
    return record


def enter_part(folder: Path, *, name: str, record: PartRecord) -> Manifest:
    """Put a record into the folder's manifest, in place of an older one of its role."""
    path = folder / MANIFEST_NAME
    parts = dict(read_manifest(folder).parts) if path.exists() else {}
    parts[record.role] = record
    manifest = Manifest(name=name, parts=dict(sorted(parts.items())))
    write_manifest(folder, manifest)
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` under a temporary name and rename it."""
    record = {
        "manifest_version": MANIFEST_VERSION,
        "name": manifest.name,
        "decoder_id": _hex(manifest.decoder_id),
        "parts": [asdict(part) for part in manifest.parts.values()],
    }
    write_atomically(folder / MANIFEST_NAME, json.dumps(record, indent=1) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Read and check `manifest.json`."""
    path = folder / MANIFEST_NAME
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise BundleError("bad-manifest", f"{path}: more than {MAX_MANIFEST_BYTES} bytes")
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError("no-manifest", f"{path}: {os.strerror(error.errno or 0)}") from error
    except (ValueError, RecursionError) as error:
        raise BundleError("bad-manifest", f"{path}: not JSON: {error}") from error
    return _manifest_from_json(record, path)


def read_tensors(folder: Path, part: PartRecord) -> dict[str, Tensor]:
    """Check a part's size and sha256 and return its tensors as stored."""
    path = check_file(folder, part)
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own class and ValueError
        raise BundleError("bad-weights", f"{path}: not safetensors: {error}") from error


def check_file(folder: Path, part: PartRecord) -> Path:
    """Check a part's size and sha256 and return its path; raises BundleError."""
    path = folder / part.file
    if not path.is_file():
        raise BundleError("missing-weights", f"{path}: expected {part.size_bytes} bytes, no file")
    found = path.stat().st_size
    if found != part.size_bytes:
        raise BundleError(
            "damaged-weights", f"{path}: expected {part.size_bytes} bytes, found {found}"
        )
    sha256 = hash_file(path)
    if sha256 != part.sha256:
        raise BundleError(
            "damaged-weights", f"{path}: expected sha256 {part.sha256}, found {sha256}"
        )
    return path


def _hex(decoder_id: bytes | None) -> str | None:
    return None if decoder_id is None else decoder_id.hex()


def _manifest_from_json(record: Any, path: Path) -> Manifest:
    if not isinstance(record, dict) or record.get("manifest_version") != MANIFEST_VERSION:
        found = record.get("manifest_version") if isinstance(record, dict) else record
        raise BundleError(
            "bad-manifest", f"{path}: expected manifest_version {MANIFEST_VERSION}, found {found!r}"
        )
    name, parts = record.get("name"), record.get("parts")
    if not isinstance(name, str) or not isinstance(parts, list):
        raise BundleError("bad-manifest", f"{path}: expected a name and a list of parts")
    records = [_part_from_json(part, path) for part in parts]
    manifest = Manifest(name=name, parts={part.role: part for part in records})
    if len(manifest.parts) != len(records):
        raise BundleError("bad-manifest", f"{path}: a role is given twice")
    expected = _hex(manifest.decoder_id)
    if record.get("decoder_id") != expected:
        raise BundleError(
            "bad-manifest",
            f"{path}: expected decoder id {expected}, found {record.get('decoder_id')!r:.80}",
        )
    return manifest


def _part_from_json(record: Any, path: Path) -> PartRecord:
    fields = PartRecord.__dataclass_fields__
    if not isinstance(record, dict) or set(record) != set(fields):
        raise BundleError("bad-manifest", f"{path}: expected parts with names {sorted(fields)}")
    for name, value in record.items():
        expected = {"size_bytes": int, "config": dict, "hints": dict}.get(name, str)
        if type(value) is not expected:
            raise BundleError(
                "bad-manifest", f"{path}: expected {expected.__name__} {name}, found {value!r:.80}"
            )
    part = PartRecord(**record)
    if not _FILE_NAME.fullmatch(part.file):
        raise BundleError("bad-manifest", f"{path}: {part.file!r:.80} is no plain file name")
    if part.size_bytes < 0 or not _SHA256.fullmatch(part.sha256):
        raise BundleError("bad-manifest", f"{path}: bad size or sha256 of {part.file}")
    if part.tensors_sha256 and not _SHA256.fullmatch(part.tensors_sha256):
        raise BundleError("bad-manifest", f"{path}: bad tensors_sha256 of {part.file}")
    return part


class Kind(NamedTuple):
    """Where a kind of network is defined; resolved when it is first needed."""

    module: str
    """In `sglat.networks`."""
    network: str
    config: str = ""
    """Name of the config class beside it; empty where the network takes none."""

    def resolve(self, name: str) -> Any:
        """Return a class of the module."""
        return getattr(import_module(f"sglat.networks.{self.module}"), name)


KINDS: Final = {
    "stylegan2": Kind("stylegan2", "Generator", "GeneratorConfig"),
    "stylegan2_upper": Kind("stylegan2", "UpperLayers"),
    "embedded_inverter": Kind("inverter", "Inverter", "InverterConfig"),
    "embedded_pose_flow": Kind("pose_flow", "PoseFlow", "PoseFlowConfig"),
    "e4e": Kind("inverter", "Encoder4Editing", "E4EConfig"),
    "styleflow": Kind("pose_flow", "StyleFlow", "StyleFlowConfig"),
    "arcface": Kind("published_nets", "ArcFace"),
    "bisenet": Kind("published_nets", "BiSeNet"),
    "lpips_alex": Kind("perceptual", "Lpips"),
    "motion_estimator": Kind("motion_estimator", "MotionEstimator"),
    "embedded_detector": Kind("embedded_nets", "DetectorNetwork"),
    "embedded_landmarks": Kind("embedded_nets", "LandmarkNetwork"),
    "embedded_parsing": Kind("embedded_nets", "ParsingNetwork"),
    "embedded_identity": Kind("embedded_nets", "IdentityNetwork"),
    "embedded_perceptual": Kind("embedded_perceptual", "PerceptualNetwork"),
}
_BUILT_OF_TENSORS: Final = "lpips_alex"  # its package builds it of the backbone's tensors


def build_network(kind: str, config: Mapping[str, Any]) -> nn.Module:
    """Return an untrained network of a kind of `KINDS`; `config` holds its sizes, plain JSON
    values."""
    if kind not in KINDS:
        raise BundleError("unknown-kind", f"expected one of {sorted(KINDS)}, found {kind!r:.80}")
    entry = KINDS[kind]
    network = entry.resolve(entry.network)
    try:
        with torch.random.fork_rng(devices=[]):  # random start weights are overwritten at once
            if not entry.config:
                built = network(**config)
            else:
                built = network(_config(entry.resolve(entry.config), config))
    except SglatError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise BundleError("bad-config", f"{kind}: {reason}") from error
    assert isinstance(built, nn.Module)
    return built


def fill_network(network: nn.Module, tensors: Mapping[str, Tensor], *, place: str) -> nn.Module:
    """Copy stored tensors into a network, exactly; half precision widens to the network's type.

    Returned is the network, in evaluation mode and without gradients; `place` is the file's name,
    for messages.
    """
    # not strict: counters of batch normalisation are not stored
    network.load_state_dict(state_of(network, tensors, source=place), strict=False)
    return network.eval().requires_grad_(False)


def load_network(part: PartRecord, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Build a part's network and fill it; raises BundleError, MissingExtraError."""
    if part.kind == _BUILT_OF_TENSORS:
        network: nn.Module = KINDS[part.kind].resolve("Lpips")(backbone=tensors)
        return network.eval().requires_grad_(False)
    return fill_network(build_network(part.kind, part.config), tensors, place=part.file)


def _config(config_class: Any, record: Mapping[str, Any]) -> Any:
    """Make a config dataclass of JSON values, whose lists become tuples."""
    if hasattr(config_class, "from_json"):
        return config_class.from_json(record)
    assert callable(config_class)
    values = {
        name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
    }
    return config_class(**values)
