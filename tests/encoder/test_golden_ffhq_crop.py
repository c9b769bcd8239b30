"""The encoder's crop equals the public alignment code on the golden landmarks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from sglat.decoder.placement import crop_to_frame, transform_points
from sglat.encoder.crops import crop_picture, ffhq_placement
from tests.networks.golden import GoldenCase, golden_case
from tests.support.tolerances import FFHQ_RESAMPLING_LEVELS

SIDE = 256
# dlib's 68 landmarks; left and right as seen by the viewer
LEFT_EYE, RIGHT_EYE, MOUTH_CORNERS = slice(36, 42), slice(42, 48), [48, 54]


def golden_placements() -> tuple[GoldenCase, np.ndarray]:
    case = golden_case("ffhq_align")
    points = case.inputs["landmarks"].astype(np.float64)  # [N, 68, 2]
    left, right = points[:, LEFT_EYE].mean(axis=1), points[:, RIGHT_EYE].mean(axis=1)
    middle = (left + right) / 2
    down = points[:, MOUTH_CORNERS].mean(axis=1) - middle
    return case, ffhq_placement(middle, right - left, down)


@pytest.mark.shared
def test_golden_ffhq_corners() -> None:
    case, placements = golden_placements()
    corners = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    quads = transform_points(crop_to_frame(placements), corners)
    assert np.abs(quads - case.expected["quad"]).max() <= case.meta["tolerance"]["quad_atol"]


@pytest.mark.shared
def test_golden_ffhq_pictures_but_for_the_invented_border() -> None:
    case, placements = golden_placements()
    manifest = json.loads((case.path / "manifest.json").read_text(encoding="utf-8"))
    axis = (np.arange(SIDE) + 0.5) / SIDE
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    for number, placement in enumerate(placements):
        entry = manifest["pictures"][case.inputs["picture"][number]]
        name = entry["file"] if isinstance(entry, dict) else entry
        with Image.open(case.path / name) as image:
            picture = np.asarray(image.convert("RGB"))
        # landmarks count from the centre of the first pixel, placements from its corner
        placement = placement + np.array([0.5, 0.5, 0.0, 0.0])
        crop = crop_picture(picture, placement, SIDE).astype(int)
        places = transform_points(crop_to_frame(placement), grid)
        reach = 0.1 * placement[2]  # the public code blurs and fades the picture's edge
        size = np.array([picture.shape[1], picture.shape[0]])
        inside = ((places > reach) & (places < size - reach)).all(axis=1).reshape(SIDE, SIDE)
        difference = np.abs(crop - case.expected["aligned_u8"][number].astype(int))[inside]
        assert inside.mean() > 0.1
        assert difference.mean() <= FFHQ_RESAMPLING_LEVELS


def test_an_upright_face_gives_an_upright_square() -> None:
    middle, across, down = (np.array([v]) for v in ([50.0, 50.0], [20.0, 0.0], [0.0, 20.0]))
    np.testing.assert_allclose(ffhq_placement(middle, across, down), [[50, 52, 80, 0]])
