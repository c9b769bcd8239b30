"""The FFHQ crop equals the public alignment code on the golden landmarks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from sglat.encoder.ffhq_crop import FaceCrop, crop_face, crop_quad, landmark_quad
from sglat.errors import FaceError
from tests.networks.golden import GoldenCase, golden_case


def golden_crops() -> tuple[GoldenCase, list[FaceCrop]]:
    case = golden_case("ffhq_align")
    manifest = json.loads((case.path / "manifest.json").read_text(encoding="utf-8"))
    pictures = []
    for entry in manifest["pictures"]:
        name = entry["file"] if isinstance(entry, dict) else entry
        with Image.open(case.path / name) as image:
            pictures.append(np.asarray(image.convert("RGB")))
    crops = []
    for landmarks, index in zip(case.inputs["landmarks"], case.inputs["picture"], strict=True):
        quad = landmark_quad(landmarks)
        crops.append(crop_face(pictures[index], quad, size=256))
    return case, crops


@pytest.mark.shared
def test_golden_ffhq_corners() -> None:
    case, crops = golden_crops()
    tolerance = case.meta["tolerance"]
    quads = np.stack([crop.quad for crop in crops])
    moved = np.stack([crop.source_quad for crop in crops])
    assert np.abs(quads - case.expected["quad"]).max() <= tolerance["quad_atol"]
    difference = np.abs(moved - case.expected["quad_at_transform"]).max()
    assert difference <= tolerance["quad_at_transform_atol"]
    assert [c.source_size for c in crops] == [
        tuple(size) for size in case.expected["source_size_at_transform"].tolist()
    ]


@pytest.mark.shared
def test_golden_ffhq_aligned_pictures() -> None:
    case, crops = golden_crops()
    for crop, expected in zip(crops, case.expected["aligned_u8"], strict=True):
        difference = np.abs(crop.picture.astype(int) - expected.astype(int))
        assert difference.max() <= 2  # grey levels; both bounds stand in the case's meta.json
        assert difference.mean() <= 0.1


def test_upright_face_gives_an_upright_square() -> None:
    quad = crop_quad(
        left_eye=np.array([40.0, 50.0]),
        right_eye=np.array([60.0, 50.0]),
        mouth=np.array([50.0, 70.0]),
    )
    np.testing.assert_allclose(quad, [[10, 12], [10, 92], [90, 92], [90, 12]])


def test_landmarks_in_one_point_are_refused() -> None:
    with pytest.raises(FaceError, match="degenerate-landmarks"):
        landmark_quad(np.zeros((68, 2)))


def test_crop_outside_the_picture_is_refused() -> None:
    quad = np.array([[500.0, 500.0], [500, 540], [540, 540], [540, 500]])
    with pytest.raises(FaceError, match="outside"):
        crop_face(np.zeros((64, 64, 3), np.uint8), quad, size=32)
