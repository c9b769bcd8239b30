"""The bundle: all learned parts and tables that define what a file's numbers mean."""

from __future__ import annotations

import copy
import hashlib
import os
from functools import cached_property
from pathlib import Path
from typing import Final, Protocol, cast

import torch
from torch import Tensor, nn

from sglat.bitstream.records import Header
from sglat.bundles.controls import Controls
from sglat.bundles.manifest import (
    DECODER_ROLES,
    MANIFEST_NAME,
    UPPER_ROLE,
    Manifest,
    PartRecord,
    check_file,
    hash_tensors,
    load_network,
    read_manifest,
    read_tensors,
)
from sglat.errors import BundleError, BundleMismatchError
from sglat.networks.embedded_analysis import KINDS
from sglat.networks.embedded_nets import LandmarkNetwork
from sglat.networks.face_analysis import OWN_ROLES, face_analysis
from sglat.networks.faces import FaceAnalysis
from sglat.networks.perceptual import PerceptualDistance
from sglat.networks.stylegan2 import Generator, UpperLayers
from sglat.networks.stylespace import GeneratorConfig

EMBEDDED: Final = "mini"
EMBEDDED_FOLDER: Final = Path(__file__).parent / EMBEDDED


class PoseTurner(Protocol):
    """Turns a head by editing W+ rows."""

    def turn(self, ws: Tensor, source_degrees: Tensor, target_degrees: Tensor) -> Tensor:
        """Return latents `[N, L, D]` turned from one yaw and pitch `[N, 2]` to another; one latent
        and its own yaw and pitch serve N targets."""

    def pose_free(self, ws: Tensor, source_degrees: Tensor) -> Tensor:
        """Return the first half of `turn`, which targets do not change, `[N, R, D]`."""

    def posed(self, pose_free: Tensor, ws: Tensor, target_degrees: Tensor) -> Tensor:
        """Return the second half of `turn`."""


class Bundle:
    """A named set of weights on a device; each part is read, checked and built when first used."""

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        """Open a folder that holds a manifest."""
        self.folder = folder
        self.device = torch.device(device)
        self.manifest: Manifest = read_manifest(folder)
        self.name = self.manifest.name
        self._modules: dict[str, nn.Module] = {}
        self._rung: int | None = None

    @cached_property
    def rungs(self) -> tuple[int, ...]:
        """Resolutions that a file may have, ascending: the generator's own, and those of its upper
        layers."""
        sizes = self._whole_config.resolutions
        return sizes[sizes.index(self._base_config.resolution) :]

    def at(self, resolution: int) -> Bundle:
        """Return this bundle at one of its rungs; networks are shared.

        A bundle is opened at its lowest rung.

        Raises:
            BundleMismatchError: no such rung.
        """
        if resolution not in self.rungs:
            raise BundleMismatchError(
                "wrong-resolution",
                f"bundle {self.name!r} renders {_listed(self.rungs)} px, found {resolution} px",
            )
        part = copy.copy(self)
        for name in ("config", "controls"):
            part.__dict__.pop(name, None)
        part._rung = resolution
        return part

    @property
    def decoder_id(self) -> bytes:
        """sha256 over generator, pose flow and controls, 32 bytes; the same at every rung."""
        decoder_id = self.manifest.decoder_id
        if decoder_id is None:
            for role in DECODER_ROLES:
                self.part(role)
            raise AssertionError("a manifest with all parts has a decoder id")
        return decoder_id

    @property
    def upper_id(self) -> bytes | None:
        """sha256 over the upper layers, 32 bytes; None at the lowest rung, which needs none."""
        return None if self.resolution == self.rungs[0] else self.manifest.upper_id

    @cached_property
    def config(self) -> GeneratorConfig:
        """The generator's shape, from which all other sizes follow."""
        return self._base_config if self._rung is None else self._whole_config.up_to(self._rung)

    @cached_property
    def _base_config(self) -> GeneratorConfig:
        return GeneratorConfig.from_json(self.part("generator").config)

    @cached_property
    def _whole_config(self) -> GeneratorConfig:
        if not self.has(UPPER_ROLE):
            return self._base_config
        shape = {name: v for name, v in self.part(UPPER_ROLE).config.items() if name != "base"}
        return GeneratorConfig.from_json(shape)

    @property
    def resolution(self) -> int:
        """Side of the generated picture in pixels."""
        return self.config.resolution

    @property
    def num_ws(self) -> int:
        """Rows L of W+."""
        return self.config.num_ws

    @property
    def style_dim(self) -> int:
        """Width D of one W+ row."""
        return self.config.style_dim

    @property
    def generator(self) -> Generator:
        """The generator."""
        lower = cast(Generator, self.module("generator"))
        if self.resolution == self.rungs[0]:
            return lower
        return cast(UpperLayers, self.module(UPPER_ROLE)).on(lower).up_to(self.resolution)

    @property
    def inverter(self) -> nn.Module:
        """Aligned crops `[N, 3, H, W]` in [-1, 1] to W+ `[N, L, D]`."""
        return self.module("inverter")

    @property
    def pose_flow(self) -> PoseTurner:
        """Turns latents to a target yaw and pitch."""
        return cast(PoseTurner, self.module("pose_flow"))

    @cached_property
    def controls(self) -> Controls:
        """The 32 controls."""
        part = self.part("controls")
        controls = Controls.from_part(read_tensors(self.folder, part), part.config, part.hints)
        if controls.style_widths != self._base_config.style_widths:
            raise BundleError(
                "wrong-shape",
                f"{part.file}: expected style widths {self._base_config.style_widths}, "
                f"found {controls.style_widths}",
            )
        return controls.fitted(self.config.style_widths).to(self.device)

    @cached_property
    def faces(self) -> FaceAnalysis:
        """Detection, landmarks, parsing and identity; the embedded networks where it has none.

        insightface detects faces and compares identities where its package and model pack are
        present; identity vectors for losses are the bundle's own, which have a gradient.
        """
        names = {role: f"faces_{role}" for role in KINDS}
        present = {role: self.part(name).kind for role, name in names.items() if self.has(name)}
        same = {role for role, kind in present.items() if kind == f"embedded_{role}"}
        return face_analysis(
            {role: self.module(names[role]) for role in present if role in {*same, *OWN_ROLES}},
            {role: self._embedded.module(names[role]) for role in KINDS if role not in same},
            device=self.device,
            pack_root=bundles_folder() / "insightface",
        )

    @cached_property
    def faces_id(self) -> str:
        """Cache key of the face-analysis networks; changes with any of them."""
        finder = getattr(self.faces, "finder", self.faces)  # insightface, where it is installed
        names = [type(self.faces).__name__, type(finder).__name__]
        for bundle in dict.fromkeys((self._embedded, self)):
            parts = bundle.manifest.parts
            names += [f"{r}={parts[r].sha256}" for r in sorted(parts) if r.startswith("faces_")]
        return hashlib.sha256("\n".join(names).encode()).hexdigest()

    @cached_property
    def perceptual(self) -> PerceptualDistance:
        """Perceptual distance of two batches of pictures: the bundle's own network, or the embedded
        one where the bundle names none.

        Raises:
            MissingExtraError: the bundle's own needs a package that is not installed.
        """
        role = "faces_perceptual"
        return cast(PerceptualDistance, (self if self.has(role) else self._embedded).module(role))

    @cached_property
    def landmarks(self) -> LandmarkNetwork:
        """The embedded landmark network, which has a gradient, unlike face detection."""
        return cast(LandmarkNetwork, self._embedded.module("faces_landmarks"))

    @cached_property
    def _embedded(self) -> Bundle:
        is_embedded = self.folder.resolve() == EMBEDDED_FOLDER.resolve()
        return self if is_embedded else Bundle(EMBEDDED_FOLDER, self.device)

    def has(self, role: str) -> bool:
        """Tell whether the bundle has a part."""
        return role in self.manifest.parts

    def part(self, role: str) -> PartRecord:
        """Return a part's record."""
        if role not in self.manifest.parts:
            raise BundleError(
                "missing-part",
                f"bundle {self.name!r} has no {role}; it has {sorted(self.manifest.parts)}",
            )
        return self.manifest.parts[role]

    def tensors(self, role: str) -> dict[str, Tensor]:
        """Return a part's tensors as stored, after checking its file; raises BundleError."""
        return read_tensors(self.folder, self.part(role))

    def module(self, role: str) -> nn.Module:
        """Return a part's network on the bundle's device, in evaluation mode, without gradients."""
        if role not in self._modules:
            network = load_network(self.part(role), self.tensors(role))
            self._modules[role] = network.to(self.device)
        return self._modules[role]

    def of_file(self, header: Header) -> Bundle:
        """Return this bundle at a file's resolution.

        Raises:
            BundleMismatchError: the file was made with other weights.
        """
        self._compare("decoder", header.decoder_id, self.decoder_id, header)
        bundle = self.at(header.resolution)
        self._compare("upper layers", header.upper_id, bundle.upper_id, header)
        return bundle

    def _compare(self, kind: str, found: bytes | None, own: bytes | None, header: Header) -> None:
        if found != own:
            raise BundleMismatchError(
                "wrong-decoder",
                f"the file was made with bundle {header.bundle!r}, {kind} {_short(found)}; "
                f"loaded is {self.name!r}, {kind} {_short(own)}",
            )

    def verify(self) -> None:
        """Check every file and every part's tensors; raises BundleError at the first difference."""
        for part in self.manifest.parts.values():
            if not part.tensors_sha256:
                check_file(self.folder, part)
                continue
            found = hash_tensors(read_tensors(self.folder, part))
            if found != part.tensors_sha256:
                raise BundleError(
                    "damaged-weights",
                    f"{part.file}: expected tensors_sha256 {part.tensors_sha256}, found {found}",
                )


def _short(digest: bytes | None) -> str:
    return "none" if digest is None else f"{digest.hex()[:16]}…"


def _listed(sizes: tuple[int, ...]) -> str:
    *rest, last = map(str, sizes)
    return f"{', '.join(rest)} or {last}" if rest else last


def load_bundle(name_or_path: str | Path = EMBEDDED, device: torch.device | str = "cpu") -> Bundle:
    """Open a bundle by name or by the path of its folder.

    Args:
        name_or_path: `mini` (embedded), a name that `sgl-bundles list` shows, or a folder.
        device: of its networks.
    """
    return Bundle(find_bundle(name_or_path), device)


def bundle_for(header: Header, device: torch.device | str = "cpu") -> Bundle:
    """Return the weights that a file was made with, at its resolution.

    The bundle of its name, or a version of it that `sgl-bundles keep` has kept.

    Raises:
        BundleError: no such bundle. BundleMismatchError: none of its versions here.
    """
    try:
        return load_bundle(header.bundle, device).of_file(header)
    except BundleMismatchError:
        for folder in sorted(bundles_folder().glob(f"{Path(header.bundle).name}.*")):
            try:
                return Bundle(folder, device).of_file(header)
            except BundleError:
                continue
        raise


def find_bundle(name_or_path: str | Path) -> Path:
    """Return the folder of a bundle; raises BundleError."""
    name = str(name_or_path)
    if name == EMBEDDED:
        return EMBEDDED_FOLDER
    if os.sep in name or Path(name).is_dir():
        return Path(name)
    folder = bundles_folder() / name
    if (folder / MANIFEST_NAME).is_file():
        return folder
    raise BundleError(
        "unknown-bundle",
        f"no bundle {name!r:.80} in {folder.parent}; published ones are fetched by: "
        "sgl-bundles fetch NAME (names: sgl-bundles list)",
    )


def home_folder() -> Path:
    """Return the folder of everything downloaded: `SGLAT_HOME`, else the XDG cache convention."""
    if home := os.environ.get("SGLAT_HOME"):
        return Path(home).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "sglat"


def bundles_folder() -> Path:
    """Return the folder of fetched and imported bundles."""
    return home_folder() / "bundles"


PEOPLE_ROLE: Final = "people"
PEOPLE_KIND: Final = "latent_directions"
TRUNCATION: Final = 0.7
"""Share of the standard deviation that latents are drawn with (Karras et al. 2019, appendix B)."""


def draw_identities(
    bundle: Bundle, count: int, *, seed: int = 0, truncation: float = TRUNCATION
) -> Tensor:
    """Return random ID latents `[count, L, D]`.

    A mapping network broadcasts one w to all rows of W+. A generator trained behind an inverter
    expects rows that differ; one w for all of them renders two superimposed faces. Such a bundle
    may bring a part `people`: mean and principal directions of its inverter's latents, from which
    whole latents are drawn. Where it has none, the mapping network is used.
    """
    random = torch.Generator().manual_seed(seed)
    if bundle.has(PEOPLE_ROLE):
        mean, directions = _directions(bundle)
        z = torch.randn(count, len(directions), generator=random) * truncation
        latents: Tensor = mean + torch.einsum("nk,kld->nld", z.to(mean.device), directions)
        return with_rows(latents, bundle.num_ws)
    generator = bundle.generator
    z = torch.randn(count, bundle.config.latent_dim, generator=random).to(bundle.device)
    return generator.repeat(generator.truncate(generator.mapping(z), truncation))


def with_rows(ws: Tensor, num_ws: int) -> Tensor:
    """Return latents `[N, L, D]` with the last row repeated to `num_ws` rows: those of the upper
    layers."""
    return torch.cat([ws, ws[:, -1:].expand(-1, num_ws - ws.shape[1], -1)], 1)


def _directions(bundle: Bundle) -> tuple[Tensor, Tensor]:
    part = bundle.part(PEOPLE_ROLE)
    if part.kind != PEOPLE_KIND:
        raise BundleError(
            "unknown-kind", f"expected people as {PEOPLE_KIND}, found {part.kind!r:.80}"
        )
    tensors = bundle.tensors(PEOPLE_ROLE)
    wanted = (bundle.at(bundle.rungs[0]).num_ws, bundle.style_dim)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    mean, directions = shapes.get("mean"), shapes.get("directions", ())
    if mean != wanted or directions[1:] != wanted:
        raise BundleError(
            "wrong-shape", f"expected people of mean {wanted} and directions beside, found {shapes}"
        )
    return (
        tensors["mean"].float().to(bundle.device),
        tensors["directions"].float().to(bundle.device),
    )
