"""The measuring networks at both ends, on real faces; and their absence is said."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sglat_lab.measure import judges
from tests.lab.measure.faces import shared_faces
from tests.support.shared import shared_path

ndimage = pytest.importorskip("scipy.ndimage")


@pytest.fixture(scope="module")
def loaded() -> judges.Judges:
    return judges.load_judges(shared_path("teachers"))


@pytest.fixture(scope="module")
def faces() -> NDArray[np.uint8]:
    return shared_faces(16, every=40)


def blurred(faces: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    return np.stack([ndimage.gaussian_filter(face, (sigma, sigma, 0)) for face in faces])


def test_the_perceptual_distance_of_a_picture_to_itself_is_zero(loaded, faces) -> None:
    assert judges.perceptual_distances(loaded.perceptual, faces, faces).max() == 0


def test_the_perceptual_distance_rises_over_two_blurs_to_another_face(loaded, faces) -> None:
    versions = (blurred(faces, 1), blurred(faces, 3), np.roll(faces, 1, axis=0))
    low, high, other = (
        judges.perceptual_distances(loaded.perceptual, shown, faces).mean() for shown in versions
    )
    assert 0 < low < high < other


def test_a_face_mask_hides_the_background(loaded, faces) -> None:
    masks = np.zeros(faces.shape[:3], bool)
    masks[:, 56:72, 56:72] = True
    shown = faces.copy()
    shown[:, :4] = 0
    whole = judges.perceptual_distances(loaded.perceptual, shown, faces).mean()
    inside = judges.perceptual_distances(loaded.perceptual, shown, faces, masks).mean()
    assert inside < 0.2 * whole


def test_the_identity_loss_is_zero_for_itself_and_about_one_for_strangers(loaded, faces) -> None:
    if loaded.identity is None:
        pytest.skip(f"needs {loaded.missing['L_ID']}")
    own = judges.embeddings(loaded.identity, faces)
    soft = judges.embeddings(loaded.identity, blurred(faces, 1.5))
    same = judges.identity_losses(own, own).mean()
    blur = judges.identity_losses(soft, own).mean()
    other = judges.identity_losses(np.roll(own, 1, axis=0), own).mean()
    assert abs(same) < 1e-6 < blur < 0.7 < other < 1.2


def test_without_teachers_every_metric_says_what_it_needs() -> None:
    found = judges.load_judges(None)
    assert found.perceptual is None
    assert found.identity is None
    assert {"LPIPS-like", "L_ID", "signals", "FID", "FVD", "FVD_M"} <= set(found.missing)


def test_without_heads_the_distance_is_not_called_lpips(monkeypatch) -> None:
    monkeypatch.setattr(judges, "installed_heads", lambda: None)
    found = judges.load_judges(shared_path("teachers"))
    assert found.perceptual is not None
    assert "LPIPS-like" not in found.perceptual.name
