"""Random people: from the part where there is one, else from the mapping network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sglat.bundles.bundle import (
    PEOPLE_KIND,
    PEOPLE_ROLE,
    Bundle,
    draw_identities,
    load_bundle,
)
from sglat.bundles.manifest import write_part
from sglat.errors import BundleError
from sglat.networks.pixels import to_pixels
from sglat_lab.train.bundle_fits import principal_directions
from tests.bundles.tiny import make_tiny_bundle


def write_people(bundle: Bundle, mean: torch.Tensor, directions: torch.Tensor) -> Bundle:
    write_part(
        bundle.folder, name=bundle.name, role=PEOPLE_ROLE, kind=PEOPLE_KIND,
        tensors={"mean": mean, "directions": directions},
    )  # fmt: skip
    return Bundle(bundle.folder, "cpu")


def test_directions_give_latents_of_the_same_spread() -> None:
    random = torch.Generator().manual_seed(0)
    mixing = torch.randn(3, 12, generator=random)
    latents = 1 + (torch.randn(4000, 3, generator=random) @ mixing).view(-1, 4, 3)
    mean, directions = principal_directions(latents, 3)
    covariance = directions.flatten(1).T @ directions.flatten(1)
    wanted = torch.cov(latents.flatten(1).T)
    assert float((covariance - wanted).norm() / wanted.norm()) < 1e-4
    assert torch.allclose(mean, latents.mean(0))


def test_people_are_drawn_from_the_part(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny")
    rows, width = bundle.config.num_ws, bundle.config.style_dim
    before = bundle.decoder_id
    mean = torch.arange(rows * width).view(rows, width) / 100.0
    directions = torch.zeros(1, rows, width)
    directions[0, 2, 1] = 5
    bundle = write_people(bundle, mean, directions)
    people = draw_identities(bundle, 500, seed=3, truncation=0.5)
    assert people.shape == (500, rows, width)
    still = people.clone()
    still[:, 2, 1] = mean[2, 1]
    assert torch.allclose(still, mean.expand(500, -1, -1))
    assert float(people[:, 2, 1].std()) == pytest.approx(2.5, rel=0.1)
    assert torch.equal(people, draw_identities(bundle, 500, seed=3, truncation=0.5))
    assert bundle.decoder_id == before  # files do not depend on it


def test_without_the_part_the_mapping_network_speaks(tmp_path: Path) -> None:
    people = draw_identities(make_tiny_bundle(tmp_path / "tiny"), 3, seed=1)
    assert torch.equal(people, people[:, :1].expand_as(people))  # one vector for all rows
    assert float((people[0] - people[1]).abs().max()) > 0


def test_a_part_of_another_generator_is_refused(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny")
    bundle = write_people(bundle, torch.zeros(2, 3), torch.zeros(4, 2, 3))
    with pytest.raises(BundleError, match="expected people of mean"):
        draw_identities(bundle, 1)


def test_embedded_people_are_faces_of_different_people() -> None:
    bundle = load_bundle()
    with torch.no_grad():
        pictures = bundle.generator(draw_identities(bundle, 6, seed=2)).clamp(-1, 1)
        looks = bundle.faces.embed(pictures)
    likeness = (looks @ looks.T - torch.eye(6)).max()
    assert float(likeness) < 0.9
    for pixels in to_pixels(pictures):
        assert bundle.faces.detect(pixels)
