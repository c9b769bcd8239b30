"""Training pictures: packs of aligned, labelled faces, and batches drawn from them.

A pack is a folder with `images.tar` (one picture a label row) and `labels.npz`. All packs become
one uint8 array on disk, mapped into memory, with the labels beside it. Batches hold stills alone
and video frames in pairs of one clip.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sglat.files import atomic_file
from sglat.networks.pixels import from_pixels, to_pixels

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


def mirrored_points(mean_shape: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return which point of a centred shape `[K, 2]` each becomes in its mirror image, one to
    one."""
    cost = np.linalg.norm(mean_shape[:, None] - mean_shape * (-1, 1), axis=-1)
    return np.asarray(linear_sum_assignment(cost)[1], np.int64)


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


@dataclass(frozen=True, kw_only=True)
class FaceBatch:
    """Aligned faces with their labels, on one device."""

    images: Tensor
    """`[N, 3, H, W]` in [-1, 1]."""
    points: Tensor
    """Landmarks in crop units, `[N, 478, 2]`."""
    blendshapes: Tensor
    """`[N, 52]`."""
    pose_degrees: Tensor
    """Yaw and pitch, `[N, 2]`."""
    is_fine: Tensor
    """Whether the picture has detail at its full resolution, `[N]`; others were enlarged."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """Pictures as uint8 RGB, `[N, H, W, 3]`."""
        return to_pixels(self.images)

    def part(self, chosen: slice | list[int]) -> FaceBatch:
        """Return some of the faces."""
        return FaceBatch(
            **{field.name: getattr(self, field.name)[chosen] for field in fields(self)}
        )


class FaceSampler:
    """Draws batches of pairs (identity frame, motion frame) from pictures kept on the device."""

    def __init__(
        self,
        faces: Faces,
        packs: Path,
        *,
        device: torch.device,
        seed: int,
        still_share: float = 0.4,
        far_share: float = 0.0,
    ) -> None:
        self.device = device
        self.random = np.random.default_rng(seed)
        self.still_share = still_share
        self.far_share = far_share
        labels = faces.labels
        keep_on_device = device.type != "cpu"
        self.images = torch.from_numpy(np.array(faces.images) if keep_on_device else faces.images)
        if keep_on_device:
            self.images = self.images.to(device)
        points = np.asarray(labels["landmarks478"], np.float32)
        self.points = torch.from_numpy(points).to(device)
        self.blendshapes = torch.from_numpy(np.asarray(labels["blendshapes52"], np.float32)).to(
            device
        )
        is_fine = (labels["pack"] != "faces128") | (faces.images.shape[1] <= FINE_FROM)
        self.is_fine = torch.from_numpy(is_fine).to(device)
        pose = np.stack([labels["yaw"], labels["pitch"]], 1).astype(np.float32)
        self.pose = torch.from_numpy(pose).to(device)
        names = blendshape_names(packs)
        mean = points[:2000].mean(0)
        self.mirror_points = torch.from_numpy(mirrored_points(mean - mean.mean(0))).to(device)
        self.mirror_blendshapes = torch.tensor(mirrored_names(names), device=device)
        self.stills = faces.rows(split="train", stills=True)
        frames = faces.rows(split="train", stills=False)
        clips = labels["clip"][frames]
        self.clips = [frames[clips == clip] for clip in np.unique(clips)]
        sizes = np.array([len(rows) for rows in self.clips], float)
        self.clip_chance = (
            np.sqrt(sizes) / np.sqrt(sizes).sum()
        )  # between uniform over clips and over frames
        self.val_stills = faces.rows(split="val", stills=True)
        self.val_frames = faces.rows(split="val", stills=False)
        self.val_clips = labels["clip"][self.val_frames]

    def val_pairs(self, count: int) -> NDArray[np.int64]:
        """Return fixed pairs of held-back frames of one clip each, spread over the clips,
        `[2, count]`."""
        random = np.random.default_rng(7)
        clips = [self.val_frames[self.val_clips == name] for name in np.unique(self.val_clips)]
        return np.array([random.choice(clips[i % len(clips)], 2) for i in range(count)]).T

    def label_sample(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the labels of training pictures, for input statistics."""
        rows = np.concatenate([self.stills[::4], *[c[::4] for c in self.clips]])
        index = torch.from_numpy(rows).to(self.device)
        return self.points[index], self.blendshapes[index], self.pose[index]

    def batch(self, rows: np.ndarray, *, mirrored: Tensor | None = None) -> FaceBatch:
        """Return the faces of some rows; `mirrored` `[N]` says which to flip."""
        index = torch.from_numpy(np.ascontiguousarray(rows)).to(self.device)
        images = from_pixels(self.images[index])
        points, shapes, pose = self.points[index], self.blendshapes[index], self.pose[index]
        if mirrored is not None:
            flipped = points[:, self.mirror_points] * points.new_tensor([-1.0, 1.0])
            flipped = flipped + points.new_tensor([1.0, 0.0])
            one, two = mirrored[:, None], mirrored[:, None, None]
            images = torch.where(two[..., None], images.flip(3), images)
            points = torch.where(two, flipped, points)
            shapes = torch.where(one, shapes[:, self.mirror_blendshapes], shapes)
            pose = torch.where(one, pose * pose.new_tensor([-1.0, 1.0]), pose)
        return FaceBatch(
            images=images.contiguous(memory_format=torch.channels_last),
            points=points,
            blendshapes=shapes,
            pose_degrees=pose,
            is_fine=self.is_fine[index],
        )

    def pairs(self, count: int) -> tuple[FaceBatch, FaceBatch]:
        """Return identity and motion frames, `count` each; a still is its own motion frame."""
        num_stills = int(self.random.binomial(count, self.still_share))
        stills = self.random.choice(self.stills, num_stills)
        first, second = [stills], [stills]
        for clip in self.random.choice(len(self.clips), count - num_stills, p=self.clip_chance):
            pair = self._pair(self.clips[clip])
            first.append(pair[:1])
            second.append(pair[1:])
        mirrored = torch.from_numpy(self.random.random(count) < 0.5).to(self.device)
        gains, shifts = self._colours(count)
        batches = []
        for rows in (first, second):
            batch = self.batch(np.concatenate(rows), mirrored=mirrored)
            images = ((batch.images + 1) * gains - 1 + shifts).clamp(-1, 1)
            batches.append(replace(batch, images=images))
        return batches[0], batches[1]

    def _pair(self, frames: np.ndarray) -> np.ndarray:
        """Return two frames of a clip; far pairs differ most in yaw and pitch among six frames."""
        if self.random.random() >= self.far_share:
            return self.random.choice(frames, 2)
        some = self.random.choice(frames, 6)
        pose = self.pose[torch.from_numpy(some).to(self.device)]
        distance = torch.cdist(pose[:1], pose)[0]
        pair: np.ndarray = some[[0, int(distance.argmax())]]
        return pair

    def _colours(self, count: int) -> tuple[Tensor, Tensor]:
        """Return mild colour gains `[N, 3, 1, 1]` and shifts `[N, 1, 1, 1]` for half of a batch."""
        chosen = self.random.random((count, 1, 1, 1)) < 0.5
        gains = 1 + 0.08 * self.random.standard_normal((count, 3, 1, 1)) * chosen
        shifts = 0.06 * self.random.standard_normal((count, 1, 1, 1)) * chosen
        return (
            torch.from_numpy(gains.astype(np.float32)).to(self.device),
            torch.from_numpy(shifts.astype(np.float32)).to(self.device),
        )


def as_fine(images: Tensor, is_fine: Tensor) -> Tensor:
    """Return images `[N, 3, H, W]`, those not fine `[N]` low-pass filtered to 128 px."""
    side = images.shape[-1]
    if side <= FINE_FROM or bool(is_fine.all()):
        return images
    coarse = F.interpolate(images, size=FINE_FROM, mode="area")
    coarse = F.interpolate(coarse, size=side, mode="bilinear", align_corners=False)
    return torch.where(is_fine[:, None, None, None], images, coarse)
