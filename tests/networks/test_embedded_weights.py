"""The shipped face weights: their size, their check sums, and what they see in the test clips."""

from __future__ import annotations

import shutil
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from sglat.bundles.bundle import EMBEDDED_FOLDER, Bundle
from sglat.bundles.manifest import PartRecord, read_manifest, read_tensors
from sglat.errors import BundleError
from sglat.networks.embedded_analysis import ROLES, EmbeddedAnalysis
from sglat_lab.train.faces_augment import scenery
from tests.support.shared import clip_paths

MAX_BYTES = 6_000_000


def parts() -> dict[str, PartRecord]:
    return dict(read_manifest(EMBEDDED_FOLDER).parts)


@lru_cache(maxsize=1)
def eyes() -> EmbeddedAnalysis:
    bundle = Bundle(EMBEDDED_FOLDER)
    return EmbeddedAnalysis(networks={role: bundle.module(f"faces_{role}") for role in ROLES})


@lru_cache(maxsize=8)
def first_frame(clip: Path) -> np.ndarray:
    with av.open(str(clip)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


def test_the_manifest_lists_every_face_network_and_they_stay_within_their_size() -> None:
    sizes = {role: parts()[f"faces_{role}"].size_bytes for role in ROLES}
    assert sum(sizes.values()) <= MAX_BYTES, sizes


@pytest.mark.parametrize("role", ROLES)
def test_a_face_network_has_between_a_tenth_and_one_and_a_half_million_values(role: str) -> None:
    assert 150_000 <= sum(p.numel() for p in eyes().networks[role].parameters()) <= 1_500_000


@pytest.mark.parametrize("role", ROLES)
def test_a_damaged_weight_file_is_named_with_both_check_sums(role: str, tmp_path: Path) -> None:
    part = parts()[f"faces_{role}"]
    copy = tmp_path / part.file
    shutil.copy(EMBEDDED_FOLDER / part.file, copy)
    data = bytearray(copy.read_bytes())
    data[len(data) // 2] ^= 1
    copy.write_bytes(data)
    with pytest.raises(BundleError, match=f"{part.file}: expected sha256 {part.sha256}, found "):
        read_tensors(tmp_path, part)


@pytest.mark.parametrize("index", range(6))
def test_each_test_clip_begins_with_one_face_whose_landmarks_lie_in_its_box(index: int) -> None:
    frame = first_frame(clip_paths()[index])
    boxes = eyes().detect(frame)
    assert len(boxes) == 1
    points = eyes().landmarks(frame, boxes[0]).points
    low, high = points.min(0), points.max(0)
    box = boxes[0]
    shared = np.minimum(high, (box.right, box.bottom)) - np.maximum(low, (box.left, box.top))
    area = float((high - low).prod() + (box.right - box.left) * (box.bottom - box.top))
    assert shared.min() > 0
    assert shared.prod() / (area - shared.prod()) >= 0.7


@pytest.mark.parametrize("shift", ((30, 0), (0, -25)))
def test_landmarks_move_with_the_picture(shift: tuple[int, int]) -> None:
    frame = first_frame(clip_paths()[0])
    moved = np.roll(frame, (shift[1], shift[0]), axis=(0, 1))
    before, after = (eyes().landmarks(f, eyes().detect(f)[0]) for f in (frame, moved))
    eye_distance = float(np.linalg.norm(before.points[468] - before.points[473]))
    off = np.linalg.norm(after.points - before.points - shift, axis=1).mean()
    assert off / eye_distance < 0.04  # the bar for any error at all


def test_a_mirrored_face_has_mirrored_yaw_and_roll() -> None:
    frame = first_frame(clip_paths()[-1])
    mirrored = np.ascontiguousarray(frame[:, ::-1])
    one, two = (eyes().landmarks(f, eyes().detect(f)[0]) for f in (frame, mirrored))
    assert abs(one.yaw_degrees + two.yaw_degrees) < 3  # the bar for pose
    assert abs(one.roll_degrees + two.roll_degrees) < 3


@pytest.mark.parametrize("seed", range(5))
def test_scenery_holds_no_face(seed: int) -> None:
    assert eyes().detect(scenery(300, np.random.default_rng((77, seed)))) == []


def test_a_small_face_in_a_large_picture_is_found() -> None:
    frame = first_frame(clip_paths()[0])
    small = torch.nn.functional.interpolate(
        torch.from_numpy(frame.copy()).permute(2, 0, 1)[None].float(), scale_factor=0.2, mode="area"
    )[0].permute(1, 2, 0)
    canvas = np.full((700, 900, 3), 120, np.uint8)
    canvas[300 : 300 + small.shape[0], 500 : 500 + small.shape[1]] = small.byte().numpy()
    boxes = eyes().detect(canvas)
    assert len(boxes) == 1 and boxes[0].left > 490


def test_identity_tells_the_persons_of_two_clips_apart() -> None:
    crops = []
    for clip in clip_paths()[:2]:
        with av.open(str(clip)) as container:
            frames = [
                f.to_ndarray(format="rgb24")
                for _, f in zip(range(60), container.decode(video=0), strict=False)
            ]
        for frame in (frames[0], frames[59]):
            crops.append(aligned(frame))
    with torch.inference_mode():
        vectors = eyes().embed(torch.cat(crops))
    cosine = vectors @ vectors.T
    same = min(float(cosine[0, 1]), float(cosine[2, 3]))
    assert same > float(cosine[:2, 2:].max())


def aligned(frame: np.ndarray) -> torch.Tensor:
    """Cut roughly what FFHQ alignment would, from the landmarks and the packs' mean crop."""
    from sglat.networks.embedded_views import View, cut_view, view_of_points

    view = view_of_points(eyes().landmarks(frame, eyes().detect(frame)[0]).points)
    side = view.side / 0.92  # the landmark view is 0.92 of an aligned crop and lies 0.1 lower
    return cut_view(
        frame, View(x=view.x, y=view.y - 0.1 * side, side=side, roll_degrees=view.roll_degrees), 128
    )
