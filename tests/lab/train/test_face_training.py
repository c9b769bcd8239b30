"""Going on from folded face weights, and pictures made to fool a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sglat.networks.embedded_blocks import folded_state
from sglat.networks.embedded_identity import IdentityNetwork
from sglat.networks.embedded_parsing import ParsingNetwork
from sglat_lab.train.adversarial_examples import fooled
from sglat_lab.train.faces_start import fill_folded


@pytest.mark.parametrize("kind", (IdentityNetwork, ParsingNetwork), ids=lambda k: k.__name__)
def test_a_network_filled_with_folded_weights_gives_their_output(kind: type) -> None:
    torch.manual_seed(3)
    shipped = kind(norm=False).eval()
    opened = kind(norm=True)
    pictures = torch.rand(16, 3, 128, 128) * 2 - 1
    fill_folded(opened, shipped.state_dict(), lambda: opened(pictures))
    opened.eval()
    with torch.inference_mode():
        assert torch.allclose(opened(pictures[:4]), shipped(pictures[:4]), atol=1e-4)
    again = kind(norm=False).eval()
    again.load_state_dict(folded_state(opened))
    with torch.inference_mode():
        assert torch.allclose(again(pictures[:4]), shipped(pictures[:4]), atol=1e-4)


def test_pictures_made_to_fool_a_network_lower_the_distance_they_were_made_against() -> None:
    torch.manual_seed(3)
    network = IdentityNetwork().eval()
    start, reference = (torch.rand(2, 2, 3, 128, 128) * 2 - 1).unbind(0)
    with torch.no_grad():
        wanted = network(reference)

    def distance(pictures: torch.Tensor) -> torch.Tensor:
        return 1 - (network(pictures) * wanted).sum(1)

    found = fooled(start, reference, distance, np.random.default_rng(0), steps=4)
    with torch.no_grad():
        assert bool((distance(found) < distance(start)).all())
    assert found.shape == start.shape and float(found.abs().max()) <= 1
