"""Control discovery on a generator whose channels are known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sglat.bitstream.channels import GROUP_SIZES
from sglat.bundles.bundle import Bundle
from sglat.bundles.discover import DiscoverConfig, _choose, discover, part_masks, store_controls
from sglat.errors import BundleError
from sglat.networks.faces import PARSING_CLASSES
from tests.bundles.tiny import make_tiny_bundle


class Stripes:
    """A face analysis that sees the parts of a face as bands of rows."""

    def parse(self, crops: Tensor) -> Tensor:
        bands = ("left_brow", "left_eye", "skin", "mouth", "skin", "skin")
        side = crops.shape[-1]
        classes = torch.zeros(len(crops), len(PARSING_CLASSES), side, side)
        for row in range(side):
            name = bands[row * len(bands) // side]
            classes[:, PARSING_CLASSES.index(name), row] = 1.0
        return classes


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    bundle = make_tiny_bundle(tmp_path / "tiny")
    bundle.__dict__["faces"] = Stripes()
    return bundle


def test_the_chin_lies_below_the_mouth_and_outside_it() -> None:
    masks = part_masks(Stripes().parse(torch.zeros(1, 3, 24, 24)))
    mouth_rows = masks["mouth"][0, 0, :, 0].nonzero().flatten()
    chin_rows = masks["chin"][0, 0, :, 0].nonzero().flatten()
    assert int(chin_rows.min()) > int(mouth_rows.max())


def test_known_channels_are_chosen_for_their_parts() -> None:
    widths, groups = (40, 40), list(GROUP_SIZES)
    change = torch.full((80, len(groups), 2), 0.01)
    wanted = {}
    start = 0
    for number, (group, count) in enumerate(GROUP_SIZES.items()):
        wanted[group] = set(range(start, start + count))
        change[start : start + count, number, 0] = 1.0
        start += count
    found = _choose(change, [torch.ones(40), torch.ones(40)], widths, DiscoverConfig())
    positions = [layer * 40 + channel for layer, channel in found.channels]
    start = 0
    for group, count in GROUP_SIZES.items():
        assert set(positions[start : start + count]) == wanted[group]
        start += count


def test_a_search_gives_32_different_convolution_channels(bundle: Bundle) -> None:
    config = DiscoverConfig(people=1, style_samples=16, visible_share=0.0)
    found = discover(bundle, config)
    kinds = {bundle.config.style_table[layer].kind for layer, _ in found.channels}
    assert len(set(found.channels)) == 32
    assert "torgb" not in kinds


def test_stored_controls_change_the_decoder_id(bundle: Bundle) -> None:
    before = bundle.decoder_id
    config = DiscoverConfig(people=1, style_samples=16, visible_share=0.0)
    store_controls(bundle, discover(bundle, config).controls)
    assert Bundle(bundle.folder).decoder_id != before


def test_too_few_visible_channels_are_an_error() -> None:
    change = torch.zeros(80, len(GROUP_SIZES), 2)
    with pytest.raises(BundleError, match="too-few-channels"):
        _choose(change, [torch.ones(40), torch.ones(40)], (40, 40), DiscoverConfig())
