"""The figures that the page shows against those of `sgl-info`."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from sglat.bitstream.info import describe, stream_bytes
from tests.bitstream.samples import sample_file
from tests.format_spec.support import READABLE, VECTORS, data_of
from tests.player.support import needs_node, run_node

pytestmark = needs_node


@cache
def shown() -> dict[str, dict[str, Any]]:
    """Return what the page shows of every vector."""
    lines = run_node("info.mjs", *(VECTORS / name for name in READABLE)).splitlines()
    return dict(zip(READABLE, map(json.loads, lines), strict=True))


@pytest.mark.parametrize("name", READABLE)
def test_the_record_of_a_vector_is_that_of_sgl_info(name: str) -> None:
    found, expected = shown()[name], describe(io.BytesIO(data_of(name)))
    for track in ("motion", "audio"):
        if expected[track]:
            for key in [k for k, v in expected[track].items() if isinstance(v, float)]:
                value = found["record"][track].pop(key)
                assert value == pytest.approx(expected[track].pop(key), rel=1e-12)
    assert found["record"] == json.loads(json.dumps(expected))
    assert found["streams"] == stream_bytes(expected)


def test_the_rate_over_time_adds_up(tmp_path: Path) -> None:
    path = tmp_path / "a.sglat"
    path.write_bytes(sample_file(is_variable=True))
    found = json.loads(run_node("info.mjs", path))
    assert len(found["rate"]) == 3
    motion = found["record"]["motion"]
    assert sum(part["bits"] for part in found["rate"]) == 8 * motion["bytes"]
    assert sum(part["frames"] for part in found["rate"]) == motion["frames"]
    seconds = sum(part["durationSeconds"] for part in found["rate"])
    assert seconds == pytest.approx(motion["duration_seconds"])
