"""The page's invisible watermark against the decoder's."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from sglat.marks.watermark import ID_BYTES, Watermark
from sglat.player.marks import pack_marks
from tests.player.support import needs_node, run_node
from tests.support.tolerances import PLAYER_MARK_SHARE

CASES = [(128, 128, 0.0), (128, 128, 1.3), (200, 256, 0.5), (512, 512, 2.1)]


@needs_node
@pytest.mark.parametrize("identifier", [b"\0\0\0", b"\x5a\xc3\x01"])
def test_marked_pictures_are_the_decoders(identifier: bytes, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    pictures, given = [], []
    for width, height, seconds in CASES:
        small = random.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
        picture = small.repeat(8, 0).repeat(8, 1)
        alpha = np.full((height, width, 1), 255, np.uint8)
        rgba = base64.b64encode(np.concatenate([picture, alpha], 2).tobytes()).decode()
        given.append({"width": width, "height": height, "rgba": rgba, "seconds": seconds})
        pictures.append(picture)
    path = tmp_path / "given.json"
    content = {
        "tables": json.loads(pack_marks()),
        "identifier": list(identifier.ljust(ID_BYTES, b"\0")[:ID_BYTES]),
        "pictures": given,
    }
    path.write_text(json.dumps(content))
    own = Watermark(identifier)
    found = run_node("watermark.mjs", path).split()
    for text, picture, (width, height, seconds) in zip(found, pictures, CASES, strict=True):
        marked = np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)
        expected = own.mark_at(picture, seconds)
        assert (expected != picture).mean() > 0.1
        assert np.abs(marked[..., :3].astype(int) - expected).max() <= 1
        assert (marked[..., :3] == expected).mean() >= PLAYER_MARK_SHARE
