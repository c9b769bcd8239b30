"""The measurement of the web page's decoder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sglat.bundles.bundle import load_bundle
from sglat.player.pack import is_filter, pack_weights
from sglat_lab.bench.player_decoding import main, packed_bytes
from tests.player.looks import look_file
from tests.player.support import needs_node


def test_bytes_of_a_packing_are_those_of_the_packer() -> None:
    bundle = load_bundle()
    exact = len(pack_weights(bundle, filter_bits=16))
    assert packed_bytes(bundle, lambda name, weight: False) == exact
    packed = packed_bytes(bundle, is_filter)
    assert packed < 0.65 * exact
    assert packed == pytest.approx(len(pack_weights(bundle)), rel=1e-3)  # less names in the index


@needs_node
@pytest.mark.slow
def test_a_record_has_every_file_and_packing(tmp_path: Path) -> None:
    path = tmp_path / "a.sglat"
    path.write_bytes(look_file(load_bundle(), resolution=128, frames=4))
    out = tmp_path / "player_decoding.json"
    main([str(out), str(path)])
    record = json.loads(out.read_text())
    file = record["files"]["a"]
    assert file["is_motion_identical"]
    assert 0 < file["styles_difference"] < 1e-4
    assert set(record["packings"]["filters"]["least_psnr"]) == {"lowest"}
    assert "| a | 4 | 128 | identical |" in out.with_suffix(".md").read_text()
