"""A published file becomes parts of a bundle: recognised, checked whole, then written."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from sglat.bundles.catalogue import LICENCES, CatalogueFile, Member
from sglat.bundles.checkpoint import read_checkpoint
from sglat.bundles.controls import PAPER_CHANNELS, Controls
from sglat.bundles.manifest import (
    MANIFEST_NAME,
    PartRecord,
    enter_part,
    read_manifest,
    write_part,
)
from sglat.errors import BundleError
from sglat.files import AtomicOutput, hash_file
from sglat.networks.layouts import (
    COUNTER,
    find_generator,
    read_e4e,
    read_generator,
    read_state,
    read_styleflow,
)
from sglat.networks.perceptual import ALEXNET_CONVOLUTIONS
from sglat.networks.pose_flow import StyleFlowConfig
from sglat.networks.published_nets import ArcFace, BiSeNet
from sglat.networks.stylespace import GeneratorConfig


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part before it is written."""

    role: str
    kind: str
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    hints: Mapping[str, Any] = field(default_factory=dict)
    """Units and defaults for an encoder; not part of the decoder id."""


def convert_checkpoint(path: Path) -> list[Part]:
    """Return the parts of a published checkpoint, float32, under our names.

    Known are StyleGAN2 generators in the rosinality and NVIDIA layouts, e4e (inverter and
    generator), StyleFlow, ArcFace IR-SE50, BiSeNet, torchvision's AlexNet, pytorch-i3d's I3D
    and pytorch-fid's Inception, as `.pt`, `.pth`, `.pkl` or `.safetensors`.
    """
    tensors = read_checkpoint(path)
    for mark, reader in _READERS.items():
        if any(name == mark or name.endswith(f".{mark}") for name in tensors):
            return reader(tensors, path.name)
    if find_generator(tensors) is not None:
        return _generator(tensors, path.name)
    first = ", ".join(sorted(tensors)[:3])
    raise BundleError(
        "unknown-checkpoint",
        f"{path.name}: expected StyleGAN2, e4e, StyleFlow, ArcFace, BiSeNet, AlexNet, I3D or "
        f"FID's Inception, found {len(tensors)} tensors: {first}",
    )


def paper_controls(config: GeneratorConfig, sigma: Sequence[float] | None = None) -> Part:
    """Return the 32 channels of the paper's table 1 as a part.

    Args:
        config: of the generator, StyleGAN2 config-f of 256 px or more: the table's last layer is
            the first of 256 px.
        sigma: standard deviation of each channel (see `channel_sigmas`); 1 if None.
    """
    expected = GeneratorConfig.config_f(1024).style_widths
    widths = config.style_widths
    last = max(layer for layer, _ in PAPER_CHANNELS)
    if len(widths) <= last or widths != expected[: len(widths)]:
        raise BundleError(
            "wrong-shape",
            f"table 1 speaks of {len(expected)} layers with {sum(expected)} channels, of which "
            f"{last + 1} at least are needed; this generator has {len(widths)} with "
            f"{config.style_size}",
        )
    tensors, part_config, hints = Controls.from_channels(
        PAPER_CHANNELS, widths, sigma=sigma
    ).to_part()
    return Part(
        role="controls", kind="controls", tensors=tensors, config=part_config,
        hints={} if sigma is None else hints,
    )  # fmt: skip


def add_parts(
    folder: Path, parts: list[Part], *, name: str, licence: str, source: str
) -> list[PartRecord]:
    """Write parts into a bundle's folder."""
    check_fit(folder, parts)
    return [
        write_part(folder, name=name, licence=licence, source=source, **vars(part))
        for part in parts
    ]


def check_fit(folder: Path, parts: list[Part]) -> None:
    """Compare the sizes of inverter, pose flow and controls with the generator's."""
    configs: dict[str, Mapping[str, Any]] = {}
    if (folder / MANIFEST_NAME).exists():
        configs = {role: part.config for role, part in read_manifest(folder).parts.items()}
    configs |= {part.role: part.config for part in parts}
    if "generator" not in configs:
        return
    generator = GeneratorConfig.from_json(configs["generator"])
    expected = {
        "num_ws": generator.num_ws,
        "style_dim": generator.style_dim,
        "style_widths": list(generator.style_widths),
    }
    for role in ("inverter", "pose_flow", "controls"):
        for key, value in expected.items():
            found = configs.get(role, {}).get(key, value)
            if found != value:
                raise BundleError(
                    "wrong-shape", f"{role}: expected {key} {value} as the generator, found {found}"
                )


def unpack(
    path: Path, file: CatalogueFile, folder: Path, *, name: str, source: str
) -> list[PartRecord]:
    """Unpack the listed files of a pack, check them and register them."""
    targets = {member.name: folder / f"{member.folder}{member.name}" for member in file.members}
    try:
        with zipfile.ZipFile(path) as archive, ExitStack() as stack:
            for member in file.members:
                target = targets[member.name]
                target.parent.mkdir(parents=True, exist_ok=True)
                partial = stack.enter_context(AtomicOutput(target, force=True))
                _extract(archive, member, partial, path.name)
    except (zipfile.BadZipFile, OSError) as error:
        raise BundleError("damaged-pack", f"{path.name}: {error}") from error
    return [
        _enter(folder, member, file, kind="onnx", name=name, source=source)
        for member in file.members
    ]


def keep_as_is(
    path: Path, file: CatalogueFile, folder: Path, *, name: str, source: str
) -> PartRecord:
    """Copy a checked file under the name that programs look for, and register it."""
    (member,) = file.members
    target = folder / f"{member.folder}{member.name}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with AtomicOutput(target, force=True) as partial:
        shutil.copyfile(path, partial)
    return _enter(folder, member, file, kind="as_is", name=name, source=source)


def _enter(
    folder: Path, member: Member, file: CatalogueFile, *, kind: str, name: str, source: str
) -> PartRecord:
    """Register a file that is kept as it is."""
    record = PartRecord(
        role=member.role, kind=kind, file=f"{member.folder}{member.name}",
        size_bytes=member.size_bytes, sha256=member.sha256, tensors_sha256="",
        licence=LICENCES[file.licence].name, source=source,
    )  # fmt: skip
    enter_part(folder, name=name, record=record)
    return record


def _extract(archive: zipfile.ZipFile, member: Member, target: Path, pack: str) -> None:
    found = [info for info in archive.infolist() if Path(info.filename).name == member.name]
    if len(found) != 1 or found[0].file_size != member.size_bytes:
        sizes = [info.file_size for info in found]
        raise zipfile.BadZipFile(
            f"expected {member.name} of {member.size_bytes} bytes, found {sizes or 'none'}"
        )
    with archive.open(found[0]) as packed, target.open("wb") as plain:
        shutil.copyfileobj(packed, plain, 1 << 20)
    sha256 = hash_file(target)
    if sha256 != member.sha256:
        raise zipfile.BadZipFile(
            f"{member.name}: expected sha256 {member.sha256}, found {sha256} in {pack}"
        )


def _generator(tensors: Mapping[str, Tensor], source: str) -> list[Part]:
    config, state = read_generator(tensors, source=source)
    return [Part(role="generator", kind="stylegan2", tensors=state, config=config.to_json())]


def _e4e(tensors: Mapping[str, Tensor], source: str) -> list[Part]:
    config, state = read_e4e(tensors, source=source)
    inverter = Part(role="inverter", kind="e4e", tensors=state, config=asdict(config))
    if find_generator(tensors) is None:
        return [inverter]
    return [*_generator(tensors, source), inverter]


def _styleflow(tensors: Mapping[str, Tensor], source: str) -> list[Part]:
    # fixed steps: a frame's result must not depend on the other frames of its batch
    config = StyleFlowConfig(solver="rk4")
    state = read_styleflow(tensors, config, source=source)
    return [Part(role="pose_flow", kind="styleflow", tensors=state, config=asdict(config))]


def _arcface(tensors: Mapping[str, Tensor], source: str) -> list[Part]:
    state = read_state(tensors, ArcFace, source=source)
    return [Part(role="faces_identity", kind="arcface", tensors=state)]


def _bisenet(tensors: Mapping[str, Tensor], source: str) -> list[Part]:
    state = read_state(tensors, BiSeNet, source=source)
    return [Part(role="faces_parsing", kind="bisenet", tensors=state)]


def _alexnet(tensors: Mapping[str, Tensor], source: str) -> list[Part]:
    names = [f"features.{n}.{part}" for n in ALEXNET_CONVOLUTIONS for part in ("weight", "bias")]
    missing = [name for name in names if name not in tensors]
    if missing:
        raise BundleError(
            "missing-tensors",
            f"{source}: expected {len(names)} tensors, {len(missing)} are missing, "
            f"first {missing[0]}",
        )
    kept = {name: tensors[name] for name in names}
    return [Part(role="faces_perceptual", kind="lpips_alex", tensors=kept)]


def _measuring(role: str) -> Callable[[Mapping[str, Tensor], str], list[Part]]:
    """Return the reader of a network of the laboratory, which compares names and shapes with its
    own definition."""

    def read(tensors: Mapping[str, Tensor], source: str) -> list[Part]:
        kept = {name: t.float() for name, t in tensors.items() if not name.endswith(COUNTER)}
        return [Part(role=role, kind=role, tensors=kept)]

    return read


_READERS: Final[dict[str, Callable[[Mapping[str, Tensor], str], list[Part]]]] = {
    "encoder.latlayer1.weight": _e4e,
    "chain.1.odefunc.diffeq.layers.0._layer.weight": _styleflow,
    "cp.resnet.conv1.weight": _bisenet,
    "output_layer.3.weight": _arcface,
    "features.10.weight": _alexnet,
    "Mixed_7c.branch3x3dbl_3b.conv.weight": _measuring("inception"),
    "Conv3d_1a_7x7.conv3d.weight": _measuring("i3d"),
}
