"""Training pictures: packs of aligned, labelled faces, decoded once into flat arrays.

A pack is a folder with `images.tar` (one picture a label row) and `labels.npz`. All packs become
one uint8 array on disk, mapped into memory, with the labels beside it.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sglat.files import atomic_file

PACKS = ("faces128", "faces256", "faces256b")
FINE_FROM = 128  # pixels of the first pack; above it only the others have all the detail
LABELS = (
    "name", "source", "split", "landmarks478", "blendshapes52", "yaw", "pitch", "roll",
    "ear_left", "ear_right", "identity", "clip", "frame", "grey", "sharpness", "quad",
    "source_size",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Faces:
    """Aligned faces and their labels, one row a picture."""

    images: NDArray[np.uint8]
    """`[N, H, W, 3]` RGB, mapped from disk."""
    labels: dict[str, NDArray[np.generic]]
    """Arrays over N, named as in the packs; `pack` tells which pack a row came from."""

    def rows(self, *, split: str, stills: bool | None = None) -> NDArray[np.int64]:
        """Return the row numbers of a split, optionally stills or video frames only."""
        chosen = self.labels["split"] == split
        if stills is not None:
            chosen &= (self.labels["clip"] == "") == stills
        return np.flatnonzero(chosen)


def prepare(packs_folder: Path, cache_folder: Path, size: int) -> Faces:
    """Decode the packs to `size` px once and map the result.

    Pictures that stand in two packs (the same stills at 128 and 256 px) are kept once, from the
    first, or from the finer one where that is needed.
    """
    cache_folder.mkdir(parents=True, exist_ok=True)
    images_path = cache_folder / f"faces_{size}.npy"
    labels_path = cache_folder / f"faces_{size}_labels.npz"
    if not (images_path.exists() and labels_path.exists()):
        images, labels = _decode_packs(packs_folder, size)
        with atomic_file(images_path, force=True) as file:
            np.save(file, images)
        with atomic_file(labels_path, force=True) as file:
            np.savez_compressed(file, allow_pickle=False, **labels)
    with np.load(labels_path) as stored:
        labels = {key: stored[key] for key in stored.files}
    images = np.load(images_path, mmap_mode="c")  # torch warns of read-only arrays
    return Faces(images=images, labels=labels)


def _decode_picture(encoded: bytes) -> NDArray[np.uint8]:
    import cv2

    picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError("a picture of the pack does not decode")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def read_pictures(pack: Path, names: Sequence[str], size: int) -> Iterator[NDArray[np.uint8]]:
    """Yield pictures of a pack by the names in its labels, `[size, size, 3]` RGB."""
    import cv2

    with tarfile.open(pack / "images.tar") as tar:
        members = {Path(member.name).stem: member for member in tar if member.isfile()}
        for name in names:
            encoded = tar.extractfile(members[name]).read()  # type: ignore[union-attr]
            picture = _decode_picture(encoded)
            if picture.shape[0] != size:
                how = cv2.INTER_AREA if picture.shape[0] > size else cv2.INTER_CUBIC
                picture = np.asarray(cv2.resize(picture, (size, size), interpolation=how), np.uint8)
            yield picture


def _decode_packs(
    packs_folder: Path, size: int
) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.generic]]]:
    pictures: list[NDArray[np.uint8]] = []
    columns: dict[str, list[NDArray[np.generic]]] = {key: [] for key in (*LABELS, "pack")}
    seen: set[str] = set()
    order = PACKS if size <= FINE_FROM else (*PACKS[1:], PACKS[0])
    for pack in order:
        with np.load(packs_folder / pack / "labels.npz") as stored:
            labels = {key: stored[key] for key in LABELS}
        names = [str(name) for name in labels["name"]]
        kept = [row for row, name in enumerate(names) if name not in seen]
        seen.update(names)
        pictures += read_pictures(packs_folder / pack, [names[row] for row in kept], size)
        for key in LABELS:
            columns[key].append(labels[key][kept])
        columns["pack"].append(np.full(len(kept), pack))
    return np.stack(pictures), {key: np.concatenate(parts) for key, parts in columns.items()}


def blendshape_names(packs_folder: Path) -> list[str]:
    """Return the names of the 52 blendshapes."""
    with np.load(packs_folder / PACKS[0] / "labels.npz") as stored:
        return [str(name) for name in stored["blendshape_names"]]


def mirror_order(points: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return each landmark's nearest mirror image on the mean shape of `[N, 478, 2]`."""
    mean = points.mean(0)
    mean = mean - mean.mean(0)
    mirrored = mean * np.array([-1.0, 1.0], np.float32)
    distance = np.square(mirrored[:, None] - mean[None]).sum(-1)
    order: NDArray[np.int64] = distance.argmin(1)
    return order


def mirrored_names(names: list[str]) -> list[int]:
    """Return for each blendshape the index of its mirror image."""
    swapped = [
        name.replace("Left", "#").replace("Right", "Left").replace("#", "Right") for name in names
    ]
    return [names.index(name) for name in swapped]


def read_parsing(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[str]]:
    """Read the parsing pack: pictures `[N, 256, 256, 3]`, class maps `[N, 256, 256]`, names."""
    from PIL import Image

    pictures, masks, names = [], [], []
    with tarfile.open(folder / "parsing.tar") as tar:
        members = {member.name: member for member in tar if member.isfile()}
        for name in sorted(key for key in members if key.endswith(".webp")):
            encoded = tar.extractfile(members[name]).read()  # type: ignore[union-attr]
            pictures.append(_decode_picture(encoded))
            mask_bytes = tar.extractfile(members[name[: -len(".webp")] + ".png"]).read()  # type: ignore[union-attr]
            masks.append(np.asarray(Image.open(io.BytesIO(mask_bytes))))  # palette index = class
            names.append(Path(name).stem)
    return np.stack(pictures), np.stack(masks), names
